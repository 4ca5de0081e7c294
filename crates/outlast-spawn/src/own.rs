//! Properties of this process that a program does not inherit: descriptors, the permission mask, the
//! user. Includes the steps of a child between fork and exec where std starts it.
#![allow(unsafe_code)]

use crate::limits::{self, Limits};
use crate::program;
use crate::signals;
use crate::user::User;
use std::ffi::{CString, c_char};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Descriptors that are marked one by one where the system has no call for all of them.
const ONE_BY_ONE: i32 = 4096;

/// The mask of permissions that this process had before its own files became private.
static FORMER: AtomicU32 = AtomicU32::new(NONE);
/// More than any mask.
const NONE: u32 = u32::MAX;

/// From here on others may not read what this process creates. Programs that it starts have the mask
/// that it had before.
pub fn private_files() {
    // SAFETY: it cannot fail, and touches no memory.
    let former = unsafe { libc::umask(0o077) };
    // It has 16 bits on some systems.
    #[allow(clippy::useless_conversion)]
    let _ = FORMER.compare_exchange(NONE, u32::from(former), Relaxed, Relaxed);
}

/// The mask that this process had before [`private_files`]; `None` if it has it still.
pub fn former_umask() -> Option<u32> {
    Some(FORMER.load(Relaxed)).filter(|&mask| mask != NONE)
}

/// Lets a program have no descriptor but the three of its own, and the former mask of permissions and
/// limit of open files.
pub fn tidy_at_exec(command: &mut Command) {
    let (umask, files) = (former_umask(), limits::files_of_children());
    let prepare = move || {
        set_umask(umask);
        mark_all();
        limits::apply(files, None)?;
        Ok(())
    };
    // SAFETY: `prepare` makes system calls and nothing else: it does not allocate and takes no lock.
    unsafe { command.pre_exec(prepare) };
}

/// Lets no program that this process starts from here on have what it inherited: what is open now,
/// but for standard input, output and error.
pub fn tidy() {
    mark_all();
}

/// Data for a child to become a program.
struct Program {
    path: CString,
    folder: CString,
    /// Null-terminated, of what is kept beside them.
    arguments: Vec<*const c_char>,
    environment: Vec<*const c_char>,
    _kept: Vec<CString>,
    user: Option<User>,
    umask: Option<u32>,
    ignored: u64,
    files: Option<Limits>,
    tag: Option<Limits>,
}

// SAFETY: the pointers are of what it owns itself, and nobody changes that.
unsafe impl Send for Program {}
// SAFETY: as above.
unsafe impl Sync for Program {}

/// Lets the child become that program itself.
pub(crate) fn become_program(command: &mut Command, program: &program::Program) {
    let arguments = program.arguments.iter().cloned();
    let kept: Vec<CString> =
        arguments.chain(program.environment.iter().map(|&entry| entry.to_owned())).collect();
    // Where the bytes are stays the same when the list is moved.
    let (arguments, environment) = kept.split_at(program.arguments.len());
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    let child = Program {
        path: program.path.to_owned(),
        folder: program.folder.to_owned(),
        arguments,
        environment,
        _kept: kept,
        user: program.user.cloned(),
        umask: former_umask(),
        ignored: signals::ignored(),
        files: limits::files_of_children(),
        tag: program.tag.and_then(limits::tag),
    };
    // SAFETY: `exec` makes system calls and nothing else: it does not allocate and takes no lock.
    unsafe { command.pre_exec(move || Err(child.exec())) };
}

fn pointers(list: &[CString]) -> Vec<*const c_char> {
    list.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
}

impl Program {
    /// Returns why it did not.
    fn exec(&self) -> io::Error {
        set_umask(self.umask);
        if let Some(user) = &self.user
            && let Err(error) = become_user(user)
        {
            return error;
        }
        signals::make_default(self.ignored);
        if let Err(error) = limits::apply(self.files, self.tag) {
            return error;
        }
        // SAFETY: all of it lives, and the lists end with a null.
        unsafe {
            if libc::chdir(self.folder.as_ptr()) == 0 {
                mark_all();
                let (arguments, environment) = (self.arguments.as_ptr(), self.environment.as_ptr());
                libc::execve(self.path.as_ptr(), arguments, environment);
            }
        }
        io::Error::last_os_error()
    }
}

fn set_umask(mask: Option<u32>) {
    if let Some(mask) = mask {
        // SAFETY: it cannot fail, and touches no memory.
        unsafe { libc::umask(mask as libc::mode_t) };
    }
}

/// In a child of one thread. Groups first: the right to change them goes with the user.
fn become_user(user: &User) -> io::Result<()> {
    let groups = user.groups.as_ptr();
    // SAFETY: the pointer is good for as many groups as are said to be there.
    let done = unsafe {
        libc::setsid() != -1
            && libc::setgroups(user.groups.len() as _, groups) == 0
            && libc::setgid(user.gid) == 0
            && libc::setuid(user.uid) == 0
    };
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// All descriptors from 3 on are closed by exec from here on.
fn mark_all() {
    #[cfg(target_os = "linux")]
    {
        let (first, last, flag) = (3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
        // SAFETY: the call looks at numbers only. Not libc's function: an older one has none.
        if unsafe { libc::syscall(libc::SYS_close_range, first, last, flag) } == 0 {
            return;
        }
    }
    for fd in 3..ONE_BY_ONE {
        // SAFETY: it changes a flag of a descriptor, or says that there is none.
        unsafe {
            let flags = libc::fcntl(fd, libc::F_GETFD);
            if flags >= 0 && flags & libc::FD_CLOEXEC == 0 {
                libc::fcntl(fd, libc::F_SETFD, flags | libc::FD_CLOEXEC);
            }
        }
    }
}
