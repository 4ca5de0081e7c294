//! From a spec to a `std::process::Command`, and from a failed start to words.
//!
//! Everything here keeps to what std can do by `posix_spawn`: no `pre_exec`, and a program that is
//! a path by the time std sees it, since with an environment of its own std would otherwise fork.

use super::tree::MARK;
use super::{Cause, Inner};
use outlast_wire::trace::{TRACEPARENT, TRACESTATE};
use outlast_wire::{Run, TaskSpec};
use rustix::fs::{Access, access};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

/// Names the file for what a browser task comes to.
const RESULT_FILE: &str = "OUTLAST_RESULT_FILE";
/// Where programs are looked for when there is no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// What all tasks inherit: the worker's environment without any `OUTLAST_*`, which may be secret,
/// and without the trace that whoever started the worker was in.
pub(super) fn scrubbed_environment() -> Vec<(OsString, OsString)> {
    std::env::vars_os()
        .filter(|(name, _)| !name.as_encoded_bytes().starts_with(b"OUTLAST_"))
        .filter(|(name, _)| name != TRACEPARENT && name != TRACESTATE)
        .collect()
}

/// Who an attempt is, as its processes are told.
pub(super) struct Identity<'a> {
    pub task: &'a str,
    pub epoch: u64,
    pub worker: &'a str,
    pub mark: &'a str,
    /// Where a browser task's result goes.
    pub result: Option<&'a Path>,
    pub env: &'a [(String, String)],
}

/// The command of a spec, complete but for its output. The error says why there is none.
pub(super) fn build(
    spec: &TaskSpec,
    inner: &Inner,
    cwd: &Path,
    who: &Identity,
) -> Result<Command, String> {
    let argv: Vec<&OsStr> = match &spec.run {
        Run::Command(argv) => argv.iter().map(OsStr::new).collect(),
        Run::Shell(line) => ["/bin/sh", "-c", line].map(OsStr::new).into(),
        Run::Browser(_) if inner.config.browser.is_empty() => {
            return Err("this worker runs no browser tasks; `outlast worker` does".to_owned());
        }
        Run::Browser(_) => inner.config.browser.iter().map(OsString::as_os_str).collect(),
        Run::Call(call) => {
            return Err(format!("this worker has no function named {:?}", call.function));
        }
    };
    let [name, arguments @ ..] = &argv[..] else { return Err("the command is empty".to_owned()) };
    let base = &inner.environment;
    let base_path = || base.iter().find(|(name, _)| name == "PATH").map(|(_, v)| v.as_os_str());
    let path = spec.env.get("PATH").map(OsStr::new).or_else(base_path);
    let program = resolve(name, path.unwrap_or(OsStr::new(DEFAULT_PATH)), cwd)?;
    let null = inner.null.try_clone().map_err(|e| format!("too many open files: {e}"))?;
    let mut command = Command::new(program);
    command
        .arg0(name)
        .args(arguments)
        .env_clear()
        .envs(base.iter().map(|(name, value)| (name, value)))
        .envs(&spec.env)
        .envs(inner.extra_env().iter().chain(who.env).map(|(name, value)| (name, value)))
        .env("OUTLAST_TASK_ID", who.task)
        .env("OUTLAST_ATTEMPT", who.epoch.to_string())
        .env("OUTLAST_WORKER_ID", who.worker)
        .env(MARK, who.mark)
        .envs(who.result.map(|file| (RESULT_FILE, file)))
        .current_dir(cwd)
        .stdin(null)
        .process_group(0);
    Ok(command)
}

/// Finds a program as a shell would, seen from `cwd`.
fn resolve(name: &OsStr, path: &OsStr, cwd: &Path) -> Result<PathBuf, String> {
    if name.as_encoded_bytes().contains(&b'/') {
        return Ok(cwd.join(name));
    }
    let mut not_executable = None;
    for folder in std::env::split_paths(path) {
        let candidate = cwd.join(folder).join(name);
        if !fs::metadata(&candidate).is_ok_and(|meta| meta.is_file()) {
            continue;
        }
        if access(&candidate, Access::EXEC_OK).is_ok() {
            return Ok(candidate);
        }
        not_executable.get_or_insert(candidate);
    }
    Err(match not_executable {
        Some(candidate) => format!("not executable: {}", candidate.display()),
        None => {
            format!("command not found: {} (looked in PATH: {})", name.display(), path.display())
        }
    })
}

/// Why a command could not be started.
pub(super) fn why_not_started(error: &io::Error, command: &Command) -> String {
    if let Some(problem) = command.get_current_dir().and_then(problem_with_folder) {
        return problem;
    }
    let program = Path::new(command.get_program());
    let name = program.display();
    match error.kind() {
        io::ErrorKind::NotFound if program.exists() => {
            format!("not executable: {name}: the interpreter that it names does not exist")
        }
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            format!("command not found: {name}")
        }
        io::ErrorKind::PermissionDenied if program.is_dir() => {
            format!("not executable: {name} is a directory")
        }
        io::ErrorKind::PermissionDenied => format!("not executable: {name}: permission denied"),
        io::ErrorKind::ArgumentListTooLong => {
            "the arguments and the environment are too long for this system".to_owned()
        }
        io::ErrorKind::WouldBlock => "the system's limit of processes is reached".to_owned(),
        _ if error.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error()) => {
            format!("not executable: {name} is no program (a script needs a #! line)")
        }
        _ => format!("cannot start {name}: {error}"),
    }
}

fn problem_with_folder(folder: &Path) -> Option<String> {
    let name = folder.display();
    match fs::metadata(folder) {
        Ok(meta) if !meta.is_dir() => Some(format!("working directory {name} is no directory")),
        Ok(_) if access(folder, Access::EXEC_OK).is_err() => {
            Some(format!("working directory {name} may not be entered"))
        }
        Ok(_) => None,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            Some(format!("working directory {name} does not exist"))
        }
        Err(e) => Some(format!("working directory {name}: {e}")),
    }
}

/// Why the files of an attempt could not be created.
pub(super) fn why_no_files(error: &io::Error, root: &Path) -> (String, Cause) {
    let root = root.display();
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            (format!("disk full: no space left for the task's files in {root}"), Cause::Disk)
        }
        _ => (format!("cannot create the task's files in {root}: {error}"), Cause::NotStarted),
    }
}

/// How a process ended, for people.
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
