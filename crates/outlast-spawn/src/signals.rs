//! The signals that this process ignores, which a program that it starts would ignore too.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ptr;
use std::time::{Duration, Instant};

/// Time for which the answer is used again: a process seldom changes what it ignores.
const FRESH: Duration = Duration::from_secs(1);
/// The largest number of a signal.
const LAST: i32 = 64;

thread_local! {
    static KNOWN: Cell<Option<(Instant, u64)>> = const { Cell::new(None) };
}

/// The ignored signals as a set: the lowest bit is signal 1.
pub(crate) fn ignored() -> u64 {
    let now = Instant::now();
    if let Some((at, set)) = KNOWN.get()
        && now.duration_since(at) < FRESH
    {
        return set;
    }
    let set = (1..=LAST).filter(|&signal| is_ignored(signal));
    let set = set.fold(0, |set, signal| set | 1 << (signal - 1));
    KNOWN.set(Some((now, set)));
    set
}

/// The kernel's own `sigaction` where libc has one to itself, which does not let two signals be seen
/// that it uses. Room for the largest of the kernel's structures.
#[cfg(target_os = "linux")]
type Action = [usize; 8];

#[cfg(target_os = "linux")]
fn is_ignored(signal: i32) -> bool {
    let mut action: Action = [0; 8];
    // SAFETY: it only reads the signal's action, into memory that lives and is large enough.
    let done = unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal,
            ptr::null::<Action>(),
            &raw mut action,
            size_of::<u64>(),
        )
    };
    done == 0 && action[0] == libc::SIG_IGN
}

#[cfg(target_os = "linux")]
fn reset(signal: i32) {
    let action: Action = [0; 8];
    // SAFETY: it reads memory that lives; zeros say SIG_DFL.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal,
            &raw const action,
            ptr::null_mut::<Action>(),
            size_of::<u64>(),
        );
    }
}

#[cfg(not(target_os = "linux"))]
fn is_ignored(signal: i32) -> bool {
    // SAFETY: all zeros is a value of this struct.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: it only reads the signal's action, into a struct that lives.
    let done = unsafe { libc::sigaction(signal, ptr::null(), &raw mut action) };
    done == 0 && action.sa_sigaction == libc::SIG_IGN
}

#[cfg(not(target_os = "linux"))]
fn reset(signal: i32) {
    // SAFETY: it sets the default, and no handler.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// Makes the ends of this process's children be kept until they are taken. Who ignores SIGCHLD, as
/// whoever started it may have done, never learns of them.
pub fn heed_children() {
    if is_ignored(libc::SIGCHLD) {
        reset(libc::SIGCHLD);
    }
}

/// Makes all signals of a set do what they do by default, and blocks none. For the time between
/// fork and exec: it makes system calls only.
pub(crate) fn make_default(mut set: u64) {
    while set != 0 {
        reset(set.trailing_zeros() as i32 + 1);
        set &= set - 1;
    }
    // SAFETY: all zeros is an empty set; it is read while it lives.
    unsafe {
        let none: libc::sigset_t = std::mem::zeroed();
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}
