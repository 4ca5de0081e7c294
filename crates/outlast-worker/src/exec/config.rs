//! Configuration of an executor.

use outlast_spawn::User;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Configuration of an executor.
#[derive(Debug, Clone)]
pub struct Config {
    /// The folder of all logs and working directories; created if absent.
    pub root: PathBuf,
    /// Bytes kept of each output stream, and up to a thirtieth more; default 64 MiB.
    pub output_cap: u64,
    /// Treatment of a longer stream; default: it is cut.
    pub on_output_limit: OnOutputLimit,
    /// Bytes of each stream that an outcome carries; default 4096.
    pub tail: u64,
    /// Disk that the logs of ended attempts may take together; default 2 GiB.
    pub keep_logs_bytes: u64,
    /// A task whose output leaves less of the disk free is killed, and while less is free the
    /// oldest logs of ended attempts go; default 64 MiB.
    pub reserve_bytes: u64,
    /// A working directory, or a program's, that is not there may come late (an automount): a start
    /// waits for it for so long before the task is blamed; default 5 s.
    pub wait_for_folders: Duration,
    /// True to make orphans of tasks children of this process (Linux: child subreaper), so that they are
    /// found and reaped at once; default true. A program should turn it off if it starts children in
    /// process groups of their own and waits for them only much later.
    pub adopt_orphans: bool,
    /// The program, and its first arguments, that runs browser tasks. It finds its task by the
    /// variables that every task has, and leaves the result in the file that
    /// `OUTLAST_RESULT_FILE` names. Default: none, and such tasks cannot be started.
    pub browser: Vec<OsString>,
    /// Variables of every task, over those of its spec; default none.
    pub extra_env: Vec<(String, String)>,
    /// The user whom tasks run as; default: this process's own. Another one needs root.
    pub user: Option<User>,
}

/// Treatment of an output stream that is longer than the cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnOutputLimit {
    /// The first and the last half are kept; the task goes on.
    Cut,
    /// The task is killed.
    Kill,
}

impl Config {
    /// The defaults, below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Config {
        Config {
            root: root.into(),
            output_cap: 64 << 20,
            on_output_limit: OnOutputLimit::Cut,
            tail: 4096,
            keep_logs_bytes: 2 << 30,
            reserve_bytes: 64 << 20,
            wait_for_folders: Duration::from_secs(5),
            adopt_orphans: true,
            browser: Vec::new(),
            extra_env: Vec::new(),
            user: None,
        }
    }
}
