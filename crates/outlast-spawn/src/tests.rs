//! Both ways to start a program, which must do the same.

use super::*;
use std::ffi::CString;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;

type Start = fn(&Program) -> io::Result<Process>;

const WAYS: [(&str, Start); 2] =
    [("start", |p| p.start()), ("std", |p| p.start_by_std().map(Process))];

fn c(text: &str) -> CString {
    CString::new(text).unwrap()
}

struct Lab {
    folder: tempfile::TempDir,
    null: File,
    user: Option<User>,
}

impl Lab {
    fn new() -> Lab {
        let folder = tempfile::tempdir().unwrap();
        let null = File::options().read(true).write(true).open("/dev/null").unwrap();
        Lab { folder, null, user: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts a program and returns how it ended, with what it wrote to both of its outputs.
    fn try_run(&self, start: Start, path: &str, arguments: &[&str]) -> io::Result<(Usage, String)> {
        let (out, written) = (self.path("out"), self.path("err"));
        let files = [File::create(&out)?, File::create(&written)?];
        let process = self.try_start(start, path, arguments, [&self.null, &files[0], &files[1]])?;
        let used = process.wait()?;
        Ok((used, fs::read_to_string(out)? + &fs::read_to_string(written)?))
    }

    fn try_start(
        &self,
        start: Start,
        path: &str,
        arguments: &[&str],
        stdio: [&File; 3],
    ) -> io::Result<Process> {
        start(&Program {
            path: &c(path),
            arguments: &arguments.iter().map(|a| c(a)).collect::<Vec<_>>(),
            environment: &[c"A=1", c"B=x=y", c"C=", c"PATH=/usr/bin:/bin"],
            folder: &c(self.folder.path().to_str().unwrap()),
            stdio: stdio.map(AsFd::as_fd),
            user: self.user.as_ref(),
            tag: None,
        })
    }

    fn shell(&self, start: Start, line: &str) -> (Usage, String) {
        self.try_run(start, "/bin/sh", &["sh", "-c", line]).unwrap()
    }
}

#[test]
fn a_program_gets_what_it_is_given() {
    let lab = Lab::new();
    for (way, start) in WAYS {
        let (used, text) = lab.try_run(start, "/usr/bin/env", &["env"]).unwrap();
        assert!(used.status.success(), "{way}");
        let mut lines: Vec<_> = text.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["A=1", "B=x=y", "C=", "PATH=/usr/bin:/bin"], "{way}");
        let line = r#"echo "$0 $# $2"; pwd -P; echo problem >&2; cat; exit 3"#;
        let (used, text) =
            lab.try_run(start, "/bin/sh", &["sh", "-c", line, "me", "1", "two words"]).unwrap();
        let here = lab.folder.path().canonicalize().unwrap();
        assert_eq!(text, format!("me 2 two words\n{}\nproblem\n", here.display()), "{way}");
        assert_eq!(used.status.code(), Some(3), "{way}");
        assert!(used.max_rss > 100 << 10, "{way}: {used:?}");
    }
}

#[test]
fn no_other_descriptor_gets_through() {
    let lab = Lab::new();
    let path = lab.path("held");
    let _held = File::create(&path).unwrap();
    for (way, start) in WAYS {
        let (_, text) = lab.shell(start, "ls -l /proc/self/fd");
        assert!(text.contains("/dev/null"), "{way}: {text}");
        assert!(!text.contains(path.to_str().unwrap()), "{way}: {text}");
    }
    // What this process inherited, or a library opened without a thought: no flag closes it.
    let stray = File::create(lab.path("stray")).unwrap();
    let stray = rustix::io::fcntl_dupfd_cloexec(stray, 200).unwrap();
    rustix::io::fcntl_setfd(&stray, rustix::io::FdFlags::empty()).unwrap();
    for (way, start) in WAYS {
        let (_, text) = lab.shell(start, "ls -l /proc/self/fd");
        assert!(!text.contains(lab.path("stray").to_str().unwrap()), "{way}: {text}");
    }
    let mut command = Command::new("/bin/ls");
    tidy_at_exec(command.args(["-l", "/proc/self/fd"]));
    let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert!(text.contains("pipe") && !text.contains("stray"), "{text}");
}

/// Runs a test in a process of its own, since it changes what threads share. True inside of it.
fn alone(test: &str, more: &[&str]) -> bool {
    if std::env::var_os("OUTLAST_TEST_ALONE").is_some() {
        return true;
    }
    let inner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("tests::{test}"), "--nocapture", "--test-threads", "1"])
        .args(more)
        .env("OUTLAST_TEST_ALONE", "1")
        .env("OUTLAST_TEST_SECRET", "hush3")
        .output()
        .unwrap();
    let text = [inner.stdout, inner.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(inner.status.success() && text.contains("1 passed"), "{text}");
    false
}

#[test]
fn programs_have_the_mask_from_before() {
    if !alone("programs_have_the_mask_from_before", &[]) {
        return;
    }
    let lab = Lab::new();
    rustix::process::umask(rustix::fs::Mode::from_bits_retain(0o027));
    for _ in 0..2 {
        private_files();
        assert_eq!(former_umask(), Some(0o027));
        for (way, start) in WAYS {
            assert_eq!(lab.shell(start, "umask").1, "0027\n", "{way}");
        }
    }
    let mut command = Command::new("/bin/sh");
    tidy_at_exec(command.args(["-c", "umask"]));
    assert_eq!(command.output().unwrap().stdout, b"0027\n");
    fs::write(lab.path("own"), "").unwrap();
    assert_eq!(fs::metadata(lab.path("own")).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_program_runs_as_another_user_with_that_users_rights_only() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can start programs as another user");
        return;
    }
    let mut lab = Lab::new();
    let nobody = User::find("nobody").unwrap();
    assert_eq!(User::find(&nobody.uid.to_string()).unwrap(), nobody);
    assert_eq!(User::find("no such user").unwrap_err().kind(), io::ErrorKind::NotFound);
    fs::set_permissions(lab.folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
    fs::write(lab.path("secret"), "").unwrap();
    fs::set_permissions(lab.path("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    lab.user = Some(nobody.clone());
    for (way, start) in WAYS {
        let line = "id -u; id -g; id -G; cat secret; grep CapEff /proc/self/status; \
                    read -r pid name state parent group session rest </proc/self/stat; \
                    [ $group = $$ ] && [ $session = $$ ] && echo leads";
        let (_, text) = lab.shell(start, line);
        let lines: Vec<_> = text.lines().collect();
        let groups: Vec<_> = nobody.groups.iter().map(u32::to_string).collect();
        let ids = [nobody.uid.to_string(), nobody.gid.to_string(), groups.join(" ")];
        assert_eq!(lines[..3], ids, "{way}: {text}");
        assert!(lines[3].ends_with("0000000000000000"), "{way}: {text}");
        assert_eq!(lines[4], "leads", "{way}: {text}");
        assert!(lines[5].contains("ermission denied"), "{way}: {text}");
        // Of the process that started it nothing has changed.
        assert!(rustix::process::geteuid().is_root(), "{way}");
        // A folder that only root may enter is refused.
        fs::set_permissions(lab.folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let refused = lab.try_run(start, "/bin/true", &["true"]).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EACCES), "{way}");
        fs::set_permissions(lab.folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
    }
}

#[test]
fn secrets_do_not_show_in_proc() {
    const NAME: &str = "OUTLAST_TEST_SECRET";
    let more = ["--skip", "hush1", "--skip=hush2"];
    if !alone("secrets_do_not_show_in_proc", &more) {
        return;
    }
    let shown = |file: &str| {
        String::from_utf8_lossy(&fs::read(format!("/proc/self/{file}")).unwrap()).into_owned()
    };
    let before = shown("cmdline") + &shown("environ");
    for secret in ["hush1", "hush2", "hush3"] {
        assert!(before.contains(secret), "{before}");
    }
    // SAFETY: the other threads of this process sleep.
    #[allow(unsafe_code)]
    let taken = unsafe {
        conceal(OsStr::new("hush1"));
        conceal(OsStr::new("hush2"));
        take_variable(NAME)
    };
    assert_eq!(taken.as_deref(), Some(OsStr::new("hush3")));
    assert_eq!(std::env::var_os(NAME), None);
    let after = shown("cmdline") + &shown("environ");
    assert!(!after.contains("hush"), "{after}");
    assert!(after.contains("--skip\0*****\0--skip=*****"), "{after}");
    assert!(after.contains("OUTLAST_TEST_ALONE=1"), "{after}");
    undumpable();
    let meta = fs::metadata("/proc/self/environ").unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&meta), 0);
}

#[test]
fn it_leads_a_group_of_its_own_and_ends_by_signals() {
    let lab = Lab::new();
    for (way, start) in WAYS {
        let [a, b, c] = [&lab.null; 3];
        let process = lab.try_start(start, "/bin/sleep", &["sleep", "60"], [a, b, c]).unwrap();
        let pid = rustix::process::Pid::from_raw(process.id()).unwrap();
        assert_eq!(rustix::process::getpgid(Some(pid)).unwrap(), pid, "{way}");
        rustix::process::kill_process_group(pid, rustix::process::Signal::TERM).unwrap();
        assert_eq!(process.wait().unwrap().status.signal(), Some(15), "{way}");
    }
}

/// Runs a test again in a process of its own, by a shell line; false in that process.
fn apart(test: &str, line: &str) -> bool {
    if std::env::var_os("APART").is_some() {
        return false;
    }
    let me = std::env::current_exe().unwrap();
    let mut shell = Command::new("/bin/bash");
    shell.args(["-c", &format!("{line} exec \"$0\" --exact \"$1\"")]);
    shell.arg(me).arg(format!("tests::{test}")).env("APART", "1");
    assert!(shell.status().unwrap().success());
    true
}

fn status(set: &str) -> u64 {
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let line = own.lines().find_map(|line| line.strip_prefix(set)).unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap()
}

#[test]
fn a_program_starts_with_no_signal_ignored_handled_or_blocked() {
    // As below nohup, and more.
    let test = "a_program_starts_with_no_signal_ignored_handled_or_blocked";
    if apart(test, "trap '' HUP INT QUIT USR2 TERM CHLD XFSZ RTMIN+3;") {
        return;
    }
    let lab = Lab::new();
    // Else no end of a child could be taken.
    assert_ne!(status("SigIgn:") & 1 << (libc::SIGCHLD - 1), 0);
    heed_children();
    signal_hook::flag::register(signal_hook::consts::SIGUSR1, Default::default()).unwrap();
    let ignored = status("SigIgn:");
    let bit = |signal: i32| 1 << (signal - 1);
    let both = bit(libc::SIGHUP) | bit(libc::SIGINT) | bit(libc::SIGXFSZ);
    assert_eq!(ignored & (both | bit(libc::SIGCHLD)), both, "{ignored:x}");
    // SAFETY: it changes this thread's mask; all zeros is an empty set.
    #[allow(unsafe_code)]
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigaddset(&raw mut set, libc::SIGWINCH);
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
    }
    for (way, start) in WAYS {
        // A program without handlers of its own.
        let (_, text) = lab.try_run(start, "/bin/cat", &["cat", "/proc/self/status"]).unwrap();
        for name in ["SigBlk:", "SigIgn:", "SigCgt:"] {
            let set = text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
            assert_eq!(u64::from_str_radix(set, 16), Ok(0), "{way}: {name} {set}");
        }
        // And this process has what it had.
        assert_eq!(status("SigIgn:"), ignored, "{way}");
        assert_ne!(status("SigCgt:") & 1 << 9, 0, "{way}");
    }
}

#[test]
fn a_tag_stays_with_all_that_comes_of_a_program() {
    let lab = Lab::new();
    for (way, start) in WAYS {
        let pid = lab.path("pid");
        let line = format!(
            "(env -i setsid sh -c 'echo $$ >{0}.new; mv {0}.new {0}; exec sleep 60' &)",
            pid.display()
        );
        let program = Program {
            path: c"/bin/sh",
            arguments: &[c("sh"), c("-c"), c(&line)],
            environment: &[c"PATH=/usr/bin:/bin"],
            folder: c"/",
            stdio: [lab.null.as_fd(); 3],
            user: None,
            tag: Some(0x1234_5678_9abc),
        };
        assert!(start(&program).unwrap().wait().unwrap().status.success());
        let left: i32 = loop {
            match fs::read_to_string(&pid) {
                Ok(text) => break text.trim().parse().unwrap(),
                Err(_) => std::thread::sleep(std::time::Duration::from_millis(5)),
            }
        };
        fs::remove_file(&pid).unwrap();
        let tag = limits::tag_of(left);
        let it = rustix::process::Pid::from_raw(left).unwrap();
        rustix::process::kill_process(it, rustix::process::Signal::KILL).unwrap();
        assert_eq!(tag, Some(0x1234_5678_9abc), "{way}");
        assert_eq!(limits::tag_of(std::process::id() as i32), None, "{way}");
    }
}

#[test]
fn this_process_may_open_more_files_than_its_programs() {
    if apart("this_process_may_open_more_files_than_its_programs", "ulimit -Sn 77; ulimit -Hn 99;")
    {
        return;
    }
    let lab = Lab::new();
    assert_eq!(limits::raise_files().unwrap(), Some(99));
    assert_eq!(limits::raise_files().unwrap(), Some(99));
    for (way, start) in WAYS {
        let (_, text) = lab.shell(start, "ulimit -Sn; ulimit -Hn");
        assert_eq!(text, "77\n99\n", "{way}");
    }
    let mut command = Command::new("/bin/sh");
    tidy_at_exec(command.args(["-c", "ulimit -n"]));
    assert_eq!(command.output().unwrap().stdout, b"77\n");
    let files: Vec<_> = (0..85).map(|_| File::open("/dev/null")).collect();
    assert!(files.iter().all(Result::is_ok));
}

#[test]
fn what_cannot_be_started_says_why_and_leaves_nothing() {
    let lab = Lab::new();
    let text = lab.path("text");
    fs::write(&text, "no program").unwrap();
    let plain = text.to_str().unwrap();
    for (way, start) in WAYS {
        let why = |path: &str| lab.try_run(start, path, &["x"]).unwrap_err().raw_os_error();
        assert_eq!(why("/no/such/program"), Some(libc::ENOENT), "{way}");
        fs::set_permissions(&text, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(why(plain), Some(libc::EACCES), "{way}");
        fs::set_permissions(&text, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(why(plain), Some(libc::ENOEXEC), "{way}");
        let missing = Program {
            path: c"/bin/true",
            arguments: &[c("true")],
            environment: &[],
            folder: c"/no/such/folder",
            stdio: [lab.null.as_fd(); 3],
            user: None,
            tag: None,
        };
        assert_eq!(start(&missing).unwrap_err().raw_os_error(), Some(libc::ENOENT), "{way}");
    }
}

#[test]
fn threads_start_programs_at_once() {
    let lab = Lab::new();
    std::thread::scope(|scope| {
        for n in 0..8 {
            let lab = &lab;
            scope.spawn(move || {
                for _ in 0..50 {
                    let code = n.to_string();
                    let line = ["sh", "-c", "exit $1", "sh", &code];
                    let stdio = [&lab.null; 3];
                    let process = lab.try_start(WAYS[0].1, "/bin/sh", &line, stdio).unwrap();
                    assert_eq!(process.wait().unwrap().status.code(), Some(n));
                }
            });
        }
    });
}

#[test]
fn low_descriptors_find_their_places() {
    let lab = Lab::new();
    let out = File::create(lab.path("crossed")).unwrap();
    // This process's own 1 and 2, in each other's place, and a file for input.
    let input = File::open("/dev/null").unwrap();
    let error = std::io::stderr();
    let process = Program {
        path: c"/bin/sh",
        arguments: &[c("sh"), c("-c"), c("test -e /proc/self/fd/1 && echo here >&2")],
        environment: &[],
        folder: c"/",
        stdio: [input.as_fd(), error.as_fd(), out.as_fd()],
        user: None,
        tag: None,
    };
    assert!(process.start().unwrap().wait().unwrap().status.success());
    assert_eq!(fs::read_to_string(lab.path("crossed")).unwrap(), "here\n");
}
