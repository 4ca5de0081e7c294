//! Users of this system, by name or number.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::fs::Metadata;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::fs::MetadataExt;

/// The largest entry of the user database that is read, in bytes.
const MAX_ENTRY: usize = 1 << 20;
/// The most groups that a user may have.
const MAX_GROUPS: usize = 65_536;

/// A user with all groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Name in the user database.
    pub name: String,
    /// The number.
    pub uid: u32,
    /// The group that files get.
    pub gid: u32,
    /// All groups, that one too.
    pub groups: Vec<u32>,
    /// The home folder.
    pub home: String,
    /// The login shell; `/bin/sh` where the database names none.
    pub shell: String,
}

impl User {
    /// Looks a user up, by name or else by number.
    ///
    /// # Errors
    /// `NotFound` if there is none.
    pub fn find(name: &str) -> io::Result<User> {
        let none = || {
            let text = format!("there is no user {name:?} on this system");
            io::Error::new(io::ErrorKind::NotFound, text)
        };
        let named = CString::new(name).map_err(|_| none())?;
        let found = entry(|to, buffer, result| {
            // SAFETY: all are good for as long as the call takes; the buffer's length is its own.
            unsafe {
                libc::getpwnam_r(named.as_ptr(), to, buffer.as_mut_ptr(), buffer.len(), result)
            }
        })?;
        let found = match (found, name.parse::<libc::uid_t>()) {
            (None, Ok(uid)) => entry(|to, buffer, result| {
                // SAFETY: as above.
                unsafe { libc::getpwuid_r(uid, to, buffer.as_mut_ptr(), buffer.len(), result) }
            })?,
            (found, _) => found,
        };
        found.ok_or_else(none)
    }

    /// Returns whether the permission bits let this user do something with a file: 4 reads, 2 writes,
    /// 1 executes or goes through. Lists of access (ACLs) and capabilities may allow more.
    pub fn may(&self, meta: &Metadata, what: u32) -> bool {
        let shift = if meta.uid() == self.uid {
            6
        } else if self.groups.contains(&meta.gid()) || self.gid == meta.gid() {
            3
        } else {
            0
        };
        meta.mode() >> shift & what == what
    }
}

/// Returns the number of the user with whose rights this process works.
pub fn effective_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

type Entry<'a> =
    dyn FnMut(*mut libc::passwd, &mut [libc::c_char], *mut *mut libc::passwd) -> i32 + 'a;

fn entry(
    mut ask: impl FnMut(*mut libc::passwd, &mut [libc::c_char], *mut *mut libc::passwd) -> i32,
) -> io::Result<Option<User>> {
    let ask: &mut Entry = &mut ask;
    let mut buffer: Vec<libc::c_char> = vec![0; 4096];
    loop {
        let mut found = MaybeUninit::<libc::passwd>::uninit();
        let mut result = std::ptr::null_mut();
        match ask(found.as_mut_ptr(), &mut buffer, &raw mut result) {
            0 if result.is_null() => return Ok(None),
            // SAFETY: the call filled it, and what it points to is in `buffer`.
            0 => return unsafe { read(found.assume_init_ref()) }.map(Some),
            libc::ERANGE if buffer.len() < MAX_ENTRY => {
                let len = buffer.len() * 2;
                buffer.resize(len, 0);
            }
            // How some systems say that there is none.
            libc::ENOENT | libc::ESRCH => return Ok(None),
            errno => return Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

/// # Safety
/// The entry's pointers must be good.
unsafe fn read(entry: &libc::passwd) -> io::Result<User> {
    // SAFETY: the caller's.
    let text = |at: *const libc::c_char| unsafe { CStr::from_ptr(at) }.to_string_lossy().into();
    let (uid, gid) = (entry.pw_uid, entry.pw_gid);
    let mut room = 64_usize;
    loop {
        let mut groups = vec![0; room];
        let mut count = room as libc::c_int;
        // SAFETY: there is room for as many as `count` says.
        let all = unsafe {
            libc::getgrouplist(entry.pw_name, gid as _, groups.as_mut_ptr(), &raw mut count)
        };
        if all >= 0 {
            groups.truncate(usize::try_from(count).unwrap_or(0));
            // It is signed on some systems.
            #[allow(clippy::unnecessary_cast)]
            let groups = groups.into_iter().map(|group| group as u32).collect();
            let shell: String = text(entry.pw_shell);
            return Ok(User {
                name: text(entry.pw_name),
                uid,
                gid,
                groups,
                home: text(entry.pw_dir),
                shell: if shell.is_empty() { "/bin/sh".into() } else { shell },
            });
        }
        if room >= MAX_GROUPS {
            return Err(io::Error::other("the user is in too many groups"));
        }
        room *= 2;
    }
}
