//! `clone3` as vfork does it: the child borrows this process's memory, on a stack of its own, until
//! it has become another program; the calling thread sleeps meanwhile.
//!
//! So the child must leave the memory as it was. It runs one function that makes system calls and
//! nothing else: no allocation, no lock, no libc (which keeps `errno` in the thread that sleeps).
//! No signal handler can run in it: all signals are blocked before it begins, and the kernel has
//! put its handlers away (CLONE_CLEAR_SIGHAND, Linux 5.5) before it unblocks them.
#![allow(unsafe_code)]

use crate::program::Program;
use crate::{limits, signals};
use std::arch::asm;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

/// The system does not do it, which is known for good after one try: an older kernel, or a
/// container's filter of system calls.
static REFUSED: AtomicBool = AtomicBool::new(false);

/// Flag of linux/sched.h: signal handlers become defaults in the child.
const CLONE_CLEAR_SIGHAND: u64 = 1 << 32;
/// Ample for one function that calls none.
const STACK: usize = 16 << 10;

thread_local! {
    static STACK_AT_HAND: RefCell<Vec<MaybeUninit<u128>>> = const { RefCell::new(Vec::new()) };
}

/// `struct clone_args` of linux/sched.h, as of its first version.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
}

/// The kernel's `struct sigaction`; zeros say SIG_DFL.
#[repr(C)]
#[derive(Default)]
struct SigAction([usize; 4]);

/// Data for the child, and its report.
struct Child {
    path: *const c_char,
    arguments: *const *const c_char,
    environment: *const *const c_char,
    folder: *const c_char,
    stdio: [i32; 3],
    /// -1: as it is.
    umask: i64,
    /// User that the child becomes; null: unchanged. The groups follow by number and address.
    user: *const (u32, u32),
    groups: (usize, *const u32),
    /// The signal mask of the calling thread.
    mask: u64,
    /// The program's: nothing is blocked.
    no_mask: u64,
    /// Signals that are ignored here and are not to be in the program, as a set.
    ignored: u64,
    default: SigAction,
    limits: [Limit; 2],
    /// Reason why it did not become the program.
    error: i32,
}

/// A resource's limits in the program, if they differ from those here.
#[repr(C)]
#[derive(Default)]
struct Limit {
    soft: u64,
    hard: u64,
    resource: usize,
    differs: bool,
}

impl Limit {
    fn new(resource: u32, limits: Option<limits::Limits>) -> Limit {
        let (soft, hard) = limits.unwrap_or_default();
        Limit { soft, hard, resource: resource as usize, differs: limits.is_some() }
    }
}

/// Starts the program and returns its process id; `None` if the system cannot do it like this.
pub(crate) fn start(program: &Program) -> Option<io::Result<i32>> {
    if REFUSED.load(Ordering::Relaxed) {
        return None;
    }
    let arguments = pointers(program.arguments.iter().map(CString::as_c_str));
    let environment = pointers(program.environment.iter().copied());
    let ids = program.user.map(|user| (user.uid, user.gid));
    let mut child = Child {
        path: program.path.as_ptr(),
        arguments: arguments.as_ptr(),
        environment: environment.as_ptr(),
        folder: program.folder.as_ptr(),
        stdio: program.stdio.map(|fd| fd.as_raw_fd()),
        umask: crate::own::former_umask().map_or(-1, i64::from),
        user: ids.as_ref().map_or(ptr::null(), ptr::from_ref),
        groups: program.user.map_or((0, ptr::null()), |u| (u.groups.len(), u.groups.as_ptr())),
        mask: 0,
        no_mask: 0,
        ignored: signals::ignored(),
        default: SigAction::default(),
        limits: [
            Limit::new(libc::RLIMIT_NOFILE, limits::files_of_children()),
            Limit::new(libc::RLIMIT_LOCKS, program.tag.and_then(limits::tag)),
        ],
        error: 0,
    };
    let started = STACK_AT_HAND.with_borrow_mut(|stack| {
        stack.resize(STACK / size_of::<u128>(), MaybeUninit::uninit());
        // SAFETY: what `child` points to lives in this function and its caller's, which sleep
        // until the child has no use for it; the stack is this thread's and nobody uses it.
        unsafe { clone(&mut child, stack) }
    });
    match started.map_err(|errno| -errno) {
        Ok(pid) if child.error == 0 => Some(Ok(pid)),
        Ok(pid) => {
            // It has ended already, and is no one's but ours.
            let _ = crate::wait::wait(pid);
            Some(Err(io::Error::from_raw_os_error(child.error)))
        }
        Err(libc::ENOSYS | libc::EINVAL | libc::EPERM) => {
            REFUSED.store(true, Ordering::Relaxed);
            None
        }
        Err(errno) => Some(Err(io::Error::from_raw_os_error(errno))),
    }
}

fn pointers<'a>(list: impl Iterator<Item = &'a CStr>) -> Vec<*const c_char> {
    list.map(CStr::as_ptr).chain([ptr::null()]).collect()
}

/// Starts a process in `become_program`; returns once that is done with its memory: the process
/// id, or a negative errno.
///
/// # Safety
/// All pointers of `child` must be good, the lists null-terminated, and `stack` in no other use.
unsafe fn clone(child: &mut Child, stack: &mut [MaybeUninit<u128>]) -> Result<i32, i32> {
    let arguments = CloneArgs {
        flags: (libc::CLONE_VM | libc::CLONE_VFORK) as u64 | CLONE_CLEAR_SIGHAND,
        exit_signal: libc::SIGCHLD as u64,
        stack: stack.as_mut_ptr().expose_provenance() as u64,
        stack_size: size_of_val(stack) as u64,
        ..CloneArgs::default()
    };
    // The system's own call, since libc's leaves out the signals that it uses itself.
    let all = !0_u64;
    let how = libc::SIG_BLOCK as usize;
    // SAFETY: eight bytes are what the kernel's set has; both live on.
    unsafe {
        call(
            libc::SYS_rt_sigprocmask,
            how,
            ptr::from_ref(&all).expose_provenance(),
            (&raw mut child.mask).expose_provenance(),
        )
    };
    let result: isize;
    // SAFETY: in the parent this is a system call like any other. The child begins behind it with
    // the same registers on the new stack, whose top is aligned as at a call, and stays in
    // `become_program`. What is kept in callee-saved registers survives the call.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") &raw const arguments,
            in("rsi") size_of::<CloneArgs>(),
            in("r12") &raw mut *child,
            in("r13") become_program as unsafe extern "C" fn(*mut Child) -> !,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    let how = libc::SIG_SETMASK as usize;
    // SAFETY: as above.
    unsafe { call(libc::SYS_rt_sigprocmask, how, (&raw const child.mask).expose_provenance(), 0) };
    match i32::try_from(result) {
        Ok(pid) if pid > 0 => Ok(pid),
        Ok(errno) => Err(errno),
        Err(_) => Err(-libc::ENOSYS),
    }
}

/// The child's one function.
///
/// # Safety
/// See [`clone`]; the memory is borrowed from a thread that sleeps.
unsafe extern "C" fn become_program(child: *mut Child) -> ! {
    // SAFETY: it is the sleeping thread's, which looks at it only when this is over. The calls
    // read what it points to and touch no memory besides.
    unsafe {
        let child = &mut *child;
        // Another user gets no terminal of ours to type into. A session leads a group, too.
        let own = if child.user.is_null() { libc::SYS_setpgid } else { libc::SYS_setsid };
        let mut error = call(own, 0, 0, 0).min(0);
        if child.umask >= 0 {
            call(libc::SYS_umask, child.umask as usize, 0, 0);
        }
        if error == 0 && !child.user.is_null() {
            // Of this process only: that threads share who they are is libc's doing.
            let (uid, gid) = ((*child.user).0 as usize, (*child.user).1 as usize);
            let (count, groups) = (child.groups.0, child.groups.1.expose_provenance());
            error = call(libc::SYS_setgroups, count, groups, 0);
            if error == 0 {
                error = call(libc::SYS_setresgid, gid, gid, gid);
            }
            if error == 0 {
                error = call(libc::SYS_setresuid, uid, uid, uid);
            }
        }
        if error == 0 {
            error = call(libc::SYS_chdir, child.folder.expose_provenance(), 0, 0);
        }
        let mut to = 0;
        while error == 0 && to < 3 {
            error = call(libc::SYS_dup2, *child.stdio.as_ptr().add(to) as usize, to, 0).min(0);
            to += 1;
        }
        if error == 0 {
            // Marking them is cheaper than closing them, which exec does. An older kernel does not
            // know the flag; one that does not know the call is left with what was marked anyhow.
            let flag = libc::CLOSE_RANGE_CLOEXEC as usize;
            if call(libc::SYS_close_range, 3, u32::MAX as usize, flag) == -(libc::EINVAL as isize) {
                call(libc::SYS_close_range, 3, u32::MAX as usize, 0);
            }
            let default = (&raw const child.default).expose_provenance();
            let mut ignored = child.ignored;
            while ignored != 0 {
                let signal = ignored.trailing_zeros() as usize + 1;
                call(libc::SYS_rt_sigaction, signal, default, 0);
                ignored &= ignored - 1;
            }
            let mut at = 0;
            while at < 2 {
                let limit = child.limits.as_ptr().add(at);
                if (*limit).differs {
                    // The two numbers come first in it.
                    call(libc::SYS_setrlimit, (*limit).resource, limit.expose_provenance(), 0);
                }
                at += 1;
            }
            let (how, mask) =
                (libc::SIG_SETMASK as usize, (&raw const child.no_mask).expose_provenance());
            call(libc::SYS_rt_sigprocmask, how, mask, 0);
            let (path, arguments) =
                (child.path.expose_provenance(), child.arguments.expose_provenance());
            error = call(libc::SYS_execve, path, arguments, child.environment.expose_provenance());
        }
        child.error = -error as i32;
        loop {
            call(libc::SYS_exit_group, 127, 0, 0);
        }
    }
}

/// A system call without libc; negative results are errors. The fourth argument is 8, the size of
/// a set of signals, which those that have no fourth do not look at.
///
/// # Safety
/// The call's own.
#[inline(always)]
unsafe fn call(number: libc::c_long, a: usize, b: usize, c: usize) -> isize {
    let result;
    // SAFETY: it changes these registers and, as far as the caller allows, memory.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            in("r10") 8_usize,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}
