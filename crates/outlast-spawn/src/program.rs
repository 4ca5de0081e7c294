//! The description of a program that is to be started.

use crate::user::User;
use std::ffi::{CStr, CString};
use std::os::fd::BorrowedFd;

/// A program and all that it is started with. It becomes the leader of a process group of its own, and
/// as another user of a session of its own: a terminal of ours is not its to type into.
#[derive(Debug, Clone, Copy)]
pub struct Program<'a> {
    /// The path; nothing is searched for.
    pub path: &'a CStr,
    /// The arguments, its own name first.
    pub arguments: &'a [CString],
    /// The whole environment, each as `NAME=value`.
    pub environment: &'a [&'a CStr],
    /// The working directory.
    pub folder: &'a CStr,
    /// Standard input, output and error. They are duplicated, and stay the caller's.
    pub stdio: [BorrowedFd<'a>; 3],
    /// The user as whom it runs, if not as this process does. The folder is entered with that user's rights.
    pub user: Option<&'a User>,
    /// A number that it and all its descendants carry, whatever they do with their environment,
    /// sessions and parents; see [`tag_of`](crate::limits::tag_of). Below [`MAX_TAG`](crate::limits::MAX_TAG).
    pub tag: Option<u64>,
}
