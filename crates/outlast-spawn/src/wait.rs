//! The end of a child, and what it used.
#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

/// End of a process, with the resources used by it and by descendants that it waited for.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// The exit code or signal.
    pub status: ExitStatus,
    /// Processor time, the system's for it included.
    pub cpu: Duration,
    /// The largest resident size of any one of them, in bytes.
    pub max_rss: u64,
}

/// `ru_maxrss` counts in these.
const RSS_UNIT: u64 = if cfg!(any(target_os = "macos", target_os = "ios")) { 1 } else { 1024 };

pub(crate) fn wait(pid: i32) -> io::Result<Usage> {
    let mut status = 0;
    // SAFETY: all zeros is a value of this struct of numbers.
    let mut used: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both are written to, and live until the call returns.
    while unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut used) } < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    let time =
        |t: libc::timeval| Duration::new(t.tv_sec.try_into().unwrap_or(0), t.tv_usec as u32 * 1000);
    Ok(Usage {
        status: ExitStatus::from_raw(status),
        cpu: time(used.ru_utime) + time(used.ru_stime),
        max_rss: u64::try_from(used.ru_maxrss).unwrap_or(0) * RSS_UNIT,
    })
}
