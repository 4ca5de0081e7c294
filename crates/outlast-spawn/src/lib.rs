//! The start of programs, and the wait for their ends, as cheaply as the system can.
//!
//! What a worker does for the shortest tasks is mostly this, and `posix_spawn` leaves some of it
//! on the table: it maps and unmaps a stack for each child, which interrupts the other processors
//! on which the process runs, and asks for the disposition of every signal there is. `fast` has a
//! stack at hand and lets the kernel reset the handlers; where that is not to be had, std does it.
//!
//! No descriptor but the three of its own reaches a program, whoever left it open in this process.
//!
//! `secret` keeps a process's secrets from other processes, `user` finds other users.
//!
//! All unsafe code of the worker is here. This crate knows nothing of tasks.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod fast;
pub mod limits;
mod own;
mod program;
mod secret;
mod signals;
mod stuck;
mod user;
mod wait;

pub use own::{former_umask, private_files, tidy, tidy_at_exec};
pub use program::Program;
pub use secret::{conceal, take_variable, undumpable};
pub use signals::heed_children;
pub use user::{User, effective_uid};
pub use wait::Usage;

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// A process that was started and whose end was not taken yet. Dropping this leaves it alone.
#[derive(Debug)]
pub struct Process(i32);

impl Process {
    /// The process id, which is its group's too. Its own until [`Process::wait`] returns.
    pub fn id(&self) -> i32 {
        self.0
    }

    /// Waits until it ends, and takes it off the process table.
    ///
    /// # Errors
    /// If somebody else has taken it.
    pub fn wait(self) -> io::Result<Usage> {
        wait::wait(self.0)
    }
}

impl Program<'_> {
    /// Starts it; returns once it runs.
    ///
    /// The mask of permissions is the one from before [`private_files`].
    ///
    /// Signals are as if nobody had touched them: all do what they do by default, whatever this
    /// process ignores or handles, and none is blocked. The limit of open files is what it was
    /// before [`limits::raise_files`].
    ///
    /// # Errors
    /// The system's, of the step that failed: the group, the folder, the descriptors, the program.
    pub fn start(&self) -> io::Result<Process> {
        // Below 3 one would be overwritten by another on its way to its place.
        let mut moved: [Option<OwnedFd>; 3] = [None, None, None];
        for (to, from) in moved.iter_mut().zip(self.stdio) {
            if from.as_raw_fd() < 3 {
                *to = Some(rustix::io::fcntl_dupfd_cloexec(from, 3)?);
            }
        }
        let mut program = *self;
        for (at, fd) in program.stdio.iter_mut().zip(&moved) {
            if let Some(fd) = fd {
                *at = fd.as_fd();
            }
        }
        let _starting = self.user.map(|_| stuck::Starting::begin());
        #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
        if let Some(started) = fast::start(&program) {
            return started.map(Process);
        }
        program.start_by_std().map(Process)
    }

    fn start_by_std(&self) -> io::Result<i32> {
        // The last steps are our own: std would run what is no program as a shell's script.
        let mut command = Command::new(OsStr::from_bytes(self.path.to_bytes()));
        if self.user.is_none() {
            command.process_group(0);
        }
        let [stdin, stdout, stderr] = self.stdio.map(|fd| fd.try_clone_to_owned().map(Stdio::from));
        command.stdin(stdin?).stdout(stdout?).stderr(stderr?);
        own::become_program(&mut command, self);
        Ok(command.spawn()?.id() as i32)
    }
}

#[cfg(test)]
mod tests;
