//! A task that the kernel kills for want of memory says so. Needs leave to make a control group;
//! without it nothing is tested.

use super::*;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

const LIMIT: &str = "67108864";

/// A control group with little memory.
struct Group(PathBuf);

impl Group {
    fn new(name: &str) -> Option<Group> {
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = |name: &str| {
            groups.lines().find_map(|line| {
                let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
                (controllers == name).then(|| path.trim_start_matches('/').to_owned())
            })
        };
        let (base, limits) = match own("memory") {
            Some(path) => {
                let limits = ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"];
                (Path::new("/sys/fs/cgroup/memory").join(path), limits)
            }
            None => (Path::new("/sys/fs/cgroup").join(own("")?), ["memory.max", "memory.swap.max"]),
        };
        let group = Group(base.join(format!("outlast-{name}-{}", std::process::id())));
        fs::create_dir(&group.0).ok()?;
        fs::write(group.0.join(limits[0]), LIMIT).ok()?;
        let _ = fs::write(group.0.join(limits[1]), LIMIT);
        Some(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        until("the group to be empty", || fs::remove_dir(&self.0).ok());
    }
}

#[test]
fn a_task_that_the_kernel_kills_for_want_of_memory_says_so() {
    // Run again by itself, in a group with little memory, this is the worker.
    if let Ok(other) = std::env::var("OUTLAST_TEST_MEMORY") {
        let bench = Bench::new();
        let greedy = ["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"];
        let outcome = bench.run(command(&greedy));
        assert_eq!((outcome.kind, outcome.signal), (OutcomeKind::Failed, Some(9)));
        let start = "out of memory: it was killed by the kernel (";
        assert!(outcome.message.starts_with(start), "{}", outcome.message);
        let outcome = bench.run(shell(&format!("{}; exit $?", greedy.join(" "))));
        assert_eq!(outcome.exit_code, Some(137));
        let start = "out of memory: exit code 137, one of its processes was killed by the kernel (";
        let likely = "out of memory, most likely: exit code 137, and ";
        let says = |start: &str| outcome.message.starts_with(start);
        assert!(says(start) || says(likely), "{}", outcome.message);
        eprintln!("{}", outcome.message);
        let outcome = bench.run(shell("kill -9 $$"));
        assert_eq!(outcome.message, "killed by signal 9 (SIGKILL)");
        // A neighbour's death is none of an attempt that ends so of its own will, in whichever
        // group it was; the count of our own alone cannot tell.
        let elsewhere = format!("echo $$ >{other}/cgroup.procs && ");
        for (n, group) in [elsewhere.as_str(), ""].into_iter().enumerate() {
            let over = bench.file(&format!("over-{n}"));
            let wait = format!("until [ -e {} ]; do sleep 0.02; done; exit 137", over.display());
            let innocent = bench.start(&format!("innocent-{n}"), shell(&wait));
            let line = format!("{group}exec {}", greedy.join(" "));
            let neighbour = Command::new("/bin/sh").args(["-c", &line]).status().unwrap();
            assert_eq!(neighbour.signal(), Some(9));
            fs::write(&over, "").unwrap();
            let outcome = innocent.wait();
            assert_eq!(outcome.exit_code, Some(137));
            let blamed = if n == 0 { "out of memory" } else { "out of memory: " };
            assert!(!outcome.message.starts_with(blamed), "{n}: {}", outcome.message);
        }
        return;
    }
    let Some(group) = Group::new("test") else { return };
    let Some(other) = Group::new("other") else { return };
    let test = "memory::a_task_that_the_kernel_kills_for_want_of_memory_says_so";
    let line = format!("echo $$ >{}/cgroup.procs && exec \"$0\" \"$@\"", group.0.display());
    let output = Command::new("/bin/sh")
        .args(["-c", &line])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("OUTLAST_TEST_MEMORY", &other.0)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{text}");
    println!("{text}");
}
