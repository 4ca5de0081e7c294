//! The command of a spec: a program with all that it is started with, and the words for a failed start.

use super::engine::Engine;
use super::fault::{Fault, NoStart, is_scarce, is_unreachable, of_own_files};
use super::tree::MARK;
use super::user::{may_enter, may_run};
use outlast_model::Cause;
use outlast_spawn::{Process, Program, User};
use outlast_wire::{Run, TaskSpec};
use rustix::fs::{Access, access};
use rustix::io::Errno;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

/// Names the file for the result of a browser task.
const RESULT_FILE: &str = "OUTLAST_RESULT_FILE";

/// The identity of an attempt, as its processes have it.
pub(super) struct Identity<'a> {
    pub task: &'a str,
    pub epoch: u64,
    pub worker: &'a str,
    pub mark: &'a str,
    /// Place where a browser task's result goes.
    pub result: Option<&'a Path>,
    pub env: &'a [(String, String)],
}

/// A program that is ready to be started, but for its output.
#[derive(Debug)]
pub(super) struct Command<'i> {
    path: CString,
    arguments: Vec<CString>,
    environment: Vec<Cow<'i, CStr>>,
    folder: CString,
    /// The folder is the spec's, not one of the attempt's own.
    elsewhere: bool,
    user: Option<&'i User>,
}

/// The command of a spec. The error says why there is none.
pub(super) fn build<'i>(
    spec: &TaskSpec,
    engine: &'i Engine,
    cwd: &Path,
    who: &Identity,
) -> Result<Command<'i>, NoStart> {
    let argv: Vec<&OsStr> = match &spec.run {
        Run::Command(argv) => argv.iter().map(OsStr::new).collect(),
        Run::Shell(line) => ["/bin/sh", "-c", line].map(OsStr::new).into(),
        Run::Browser(_) if engine.config.browser.is_empty() => {
            let reason = "this worker runs no browser tasks; `outlast worker` does";
            return Err(NoStart::task(reason));
        }
        Run::Browser(_) => engine.config.browser.iter().map(OsString::as_os_str).collect(),
        Run::Call(call) => {
            let reason = format!("this worker has no function named {:?}", call.function);
            return Err(NoStart::task(reason));
        }
    };
    let Some(name) = argv.first() else { return Err(NoStart::task("the command is empty")) };
    let path = spec.env.get("PATH").map_or(engine.inherited.path.as_os_str(), OsStr::new);
    let user = engine.config.user.as_ref();
    let program = resolve(name, path, cwd, user)?;
    let (extra, epoch) = (engine.extra_env(), who.epoch.to_string());
    // What comes later counts.
    let spec_env = spec.env.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let mut own: BTreeMap<&[u8], &[u8]> = spec_env.collect();
    own.extend(
        extra.iter().chain(who.env).map(|(name, value)| (name.as_bytes(), value.as_bytes())),
    );
    let identity = [
        ("OUTLAST_TASK_ID", who.task),
        ("OUTLAST_ATTEMPT", &epoch),
        ("OUTLAST_WORKER_ID", who.worker),
        (MARK, who.mark),
    ];
    own.extend(identity.map(|(name, value)| (name.as_bytes(), value.as_bytes())));
    own.extend(who.result.map(|file| (RESULT_FILE.as_bytes(), file.as_os_str().as_bytes())));
    let nul = |_| NoStart::task("an argument contains a NUL");
    Ok(Command {
        path: CString::new(program.as_os_str().as_bytes()).map_err(nul)?,
        arguments: argv
            .iter()
            .map(|argument| CString::new(argument.as_bytes()).map_err(nul))
            .collect::<Result<_, _>>()?,
        environment: engine.inherited.with(&own).map_err(NoStart::task)?,
        folder: CString::new(cwd.as_os_str().as_bytes())
            .map_err(|_| NoStart::task("the working directory contains a NUL"))?,
        elsewhere: spec.cwd.is_some(),
        user,
    })
}

impl Command<'_> {
    /// Starts it with these as standard input, output and error; all that comes of it is tagged.
    pub fn start(&self, stdio: [BorrowedFd; 3], tag: u64) -> io::Result<Process> {
        let environment: Vec<&CStr> = self.environment.iter().map(|entry| &**entry).collect();
        let program = Program {
            path: &self.path,
            arguments: &self.arguments,
            environment: &environment,
            folder: &self.folder,
            stdio,
            user: self.user,
            tag: Some(tag),
        };
        program.start()
    }
}

fn as_path(path: &CStr) -> &Path {
    Path::new(OsStr::from_bytes(path.to_bytes()))
}

/// Finds a program as a shell of that user would, seen from `cwd`.
fn resolve(
    name: &OsStr,
    path: &OsStr,
    cwd: &Path,
    user: Option<&User>,
) -> Result<PathBuf, NoStart> {
    if name.as_encoded_bytes().contains(&b'/') {
        return Ok(cwd.join(name));
    }
    let (mut not_executable, mut unreachable, mut forbidden) = (None, None, None);
    for folder in std::env::split_paths(path) {
        let candidate = cwd.join(folder).join(name);
        match fs::metadata(&candidate) {
            Ok(meta) if !meta.is_file() => continue,
            Ok(_) => {}
            Err(error) if is_unreachable(&error) || is_scarce(&error) => {
                unreachable.get_or_insert((candidate, error));
                continue;
            }
            Err(_) => continue,
        }
        if access(&candidate, Access::EXEC_OK).is_err() {
            not_executable.get_or_insert(candidate);
        } else if user.is_none_or(|user| may_run(&candidate, user)) {
            return Ok(candidate);
        } else {
            forbidden.get_or_insert(candidate);
        }
    }
    // Permission bits do not say all: the system decides.
    if let Some(candidate) = forbidden {
        return Ok(candidate);
    }
    Err(match (not_executable, unreachable) {
        (Some(candidate), _) => NoStart::task(format!("not executable: {}", candidate.display())),
        (None, Some((candidate, error))) => {
            let reason = format!("cannot look for {}: {error}", candidate.display());
            NoStart { fault: Fault::Unreachable(candidate), ..NoStart::task(reason) }
        }
        (None, None) => NoStart::task(format!(
            "command not found: {} (looked in PATH: {})",
            name.display(),
            path.display()
        )),
    })
}

/// Reason why a command could not be started, and whose fault it is.
pub(super) fn why_not_started(error: &io::Error, command: &Command) -> NoStart {
    let folder = as_path(&command.folder);
    if let Some(problem) = problem_with_folder(folder) {
        return problem;
    }
    if let Some(user) = command.user
        && let Some(problem) = problem_with_user(error, user, folder, command.elsewhere)
    {
        return problem;
    }
    let program = as_path(&command.path);
    let name = program.display();
    let absent = |reason: String, place: &Path| NoStart {
        fault: Fault::Absent(place.to_owned()),
        ..NoStart::task(reason)
    };
    let its = |fault: Fault, reason: String| NoStart { fault, ..NoStart::task(reason) };
    match error.kind() {
        // Or it came, or its folder, since it was tried.
        io::ErrorKind::NotFound if program.exists() => absent(
            format!("not executable: {name}: the interpreter that it names does not exist"),
            program,
        ),
        // It may be on a disk that is about to be mounted.
        io::ErrorKind::NotFound if is_unmounted(program, folder, command.elsewhere) => {
            absent(format!("command not found: {name}"), program)
        }
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            NoStart::task(format!("command not found: {name}"))
        }
        io::ErrorKind::PermissionDenied if program.is_dir() => {
            NoStart::task(format!("not executable: {name} is a directory"))
        }
        io::ErrorKind::PermissionDenied => {
            let whom = command.user.map_or(String::new(), |u| format!(" for user {}", u.name));
            NoStart::task(format!("not executable: {name}: permission denied{whom}"))
        }
        io::ErrorKind::ArgumentListTooLong => {
            NoStart::task("the arguments and the environment are too long for this system")
        }
        io::ErrorKind::ExecutableFileBusy => {
            its(Fault::Busy, format!("not executable: {name} is open for writing"))
        }
        io::ErrorKind::WouldBlock => {
            its(Fault::Scarce, "the system's limit of processes is reached".to_owned())
        }
        _ if error.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error()) => {
            NoStart::task(format!(
                "not executable: {name} is no program (a script needs a #! line)"
            ))
        }
        _ if is_scarce(error) => its(Fault::Scarce, format!("cannot start {name}: {error}")),
        _ if is_unreachable(error) => {
            let place = program.to_owned();
            its(Fault::Unreachable(place), format!("cannot start {name}: {error}"))
        }
        _ => NoStart::task(format!("cannot start {name}: {error}")),
    }
}

/// Returns whether a program is missing because a disk is: its folder is missing too, or it is sought in
/// one that a mount would fill.
fn is_unmounted(program: &Path, folder: &Path, elsewhere: bool) -> bool {
    let empty = |folder: &Path| fs::read_dir(folder).is_ok_and(|mut all| all.next().is_none());
    let below = program.starts_with(folder);
    if below && !elsewhere {
        return false;
    }
    program.parent().is_some_and(|parent| !parent.exists() || empty(parent))
        || (below && empty(folder))
}

fn problem_with_user(
    error: &io::Error,
    user: &User,
    folder: &Path,
    elsewhere: bool,
) -> Option<NoStart> {
    let (name, place) = (&user.name, folder.display());
    let (fault, reason) = match Errno::from_io_error(error)? {
        Errno::PERM => (Fault::Machine, format!("cannot run tasks as user {name}: {error}")),
        Errno::ACCESS if !may_enter(folder, user) => {
            let fault = if elsewhere { Fault::Task } else { Fault::Machine };
            (fault, format!("working directory {place} may not be entered by user {name}"))
        }
        _ => return None,
    };
    Some(NoStart { fault, ..NoStart::task(reason) })
}

fn problem_with_folder(folder: &Path) -> Option<NoStart> {
    let name = folder.display();
    let place = || folder.to_owned();
    let its = |fault: Fault, reason: String| Some(NoStart { fault, ..NoStart::task(reason) });
    match fs::metadata(folder) {
        Ok(meta) if !meta.is_dir() => {
            its(Fault::Task, format!("working directory {name} is no directory"))
        }
        Ok(_) => match access(folder, Access::EXEC_OK) {
            Ok(()) => None,
            Err(e) if is_unreachable(&e.into()) => {
                its(Fault::Unreachable(place()), format!("working directory {name}: {e}"))
            }
            Err(_) => its(Fault::Task, format!("working directory {name} may not be entered")),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            its(Fault::Absent(place()), format!("working directory {name} does not exist"))
        }
        Err(e) if is_scarce(&e) => its(Fault::Scarce, format!("working directory {name}: {e}")),
        Err(e) if is_unreachable(&e) => {
            its(Fault::Unreachable(place()), format!("working directory {name}: {e}"))
        }
        Err(e) => its(Fault::Task, format!("working directory {name}: {e}")),
    }
}

/// Reason why the files of an attempt could not be created.
pub(super) fn why_no_files(error: &io::Error, root: &Path) -> NoStart {
    let root = root.display();
    let reason = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            format!("disk full: no space left for the task's files in {root}")
        }
        _ => format!("cannot create the task's files in {root}: {error}"),
    };
    NoStart { reason, cause: Cause::NotStarted, fault: of_own_files(error) }
}

/// Describes the end of a process.
pub(crate) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => match signal_name(signal) {
            Some(name) => format!("killed by signal {signal} ({name})"),
            None => format!("killed by signal {signal}"),
        },
        (None, None) => status.to_string(),
    }
}

/// The usual name of a signal.
fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        _ => [
            (rustix::process::Signal::BUS, "SIGBUS"),
            (rustix::process::Signal::USR1, "SIGUSR1"),
            (rustix::process::Signal::USR2, "SIGUSR2"),
            (rustix::process::Signal::SYS, "SIGSYS"),
            (rustix::process::Signal::XCPU, "SIGXCPU"),
            (rustix::process::Signal::XFSZ, "SIGXFSZ"),
        ]
        .into_iter()
        .find_map(|(known, name)| (known.as_raw() == signal).then_some(name))?,
    })
}
