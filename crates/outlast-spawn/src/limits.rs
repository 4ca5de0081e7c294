//! Limits of resources: more files for this process than for its programs, and a tag.
//!
//! The tag is the soft limit of file locks (`RLIMIT_LOCKS`), which no kernel has looked at since
//! Linux 2.4. Every process inherits it, through fork, exec and setsid, whoever becomes its parent,
//! and anybody may read it. So what a task left behind can be told apart from what another task
//! left behind, even if it cleaned its environment. Only a process that sets this very limit
//! (`ulimit -x`, or PAM's limits in `sudo` and `su` where they name it) loses it.
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs;
use std::io;
use std::sync::OnceLock;

/// Tags are below this.
pub const MAX_TAG: u64 = 1 << 62;
/// Sets a tag apart from limits that somebody means.
const IS_TAG: u64 = 1 << 62;

/// The soft and the hard limit.
pub(crate) type Limits = (u64, u64);

/// The limit of open files as this process found it, once that was changed.
static FILES: OnceLock<Limits> = OnceLock::new();

/// Lets this process open as many files as the system's hard limit allows; the programs that it
/// starts get what it had. Returns the new limit; `None` if there is none.
///
/// # Errors
/// The system's, if it refuses.
pub fn raise_files() -> io::Result<Option<u64>> {
    let found = getrlimit(Resource::Nofile);
    if found.current != found.maximum {
        let raised = Rlimit { current: found.maximum, maximum: found.maximum };
        setrlimit(Resource::Nofile, raised)?;
        // Of several calls the first has found the original one.
        let _ = FILES.set((number(found.current), number(found.maximum)));
    }
    Ok(found.maximum)
}

pub(crate) fn files_of_children() -> Option<Limits> {
    FILES.get().copied()
}

/// The limits that say a tag; `None` where the system does not allow it.
pub(crate) fn tag(tag: u64) -> Option<Limits> {
    static HARD: OnceLock<u64> = OnceLock::new();
    let hard = *HARD.get_or_init(hard_limit_of_locks);
    let soft = IS_TAG | (tag & (MAX_TAG - 1));
    (soft < hard).then_some((soft, hard))
}

#[cfg(target_os = "linux")]
fn hard_limit_of_locks() -> u64 {
    number(getrlimit(Resource::Locks).maximum)
}

#[cfg(not(target_os = "linux"))]
fn hard_limit_of_locks() -> u64 {
    0
}

fn number(limit: Option<u64>) -> u64 {
    limit.unwrap_or(libc::RLIM_INFINITY)
}

/// Returns the tag of a process, if it has one.
pub fn tag_of(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max file locks"))?;
    let soft: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    (soft & !(MAX_TAG - 1) == IS_TAG).then_some(soft & (MAX_TAG - 1))
}

/// Sets the limits of a program that is to be. For the time between fork and exec: it makes system
/// calls only.
pub(crate) fn apply(files: Option<Limits>, tag: Option<Limits>) -> io::Result<()> {
    if let Some(limits) = files {
        set(Resource::Nofile, limits)?;
    }
    #[cfg(target_os = "linux")]
    if let Some(limits) = tag {
        set(Resource::Locks, limits)?;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = tag;
    Ok(())
}

fn set(resource: Resource, (soft, hard): Limits) -> io::Result<()> {
    let some = |limit| Some(limit).filter(|&limit| limit != libc::RLIM_INFINITY);
    Ok(setrlimit(resource, Rlimit { current: some(soft), maximum: some(hard) })?)
}
