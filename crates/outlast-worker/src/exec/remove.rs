//! Removal of folders that a task filled. It may go as deep as the task liked: neither the stack nor the
//! descriptors of this process may depend on that.

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, openat, renameat, unlinkat};
use rustix::io::Errno;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// Folders that are open at a time. What is deeper is moved up first.
const LEVELS: usize = 32;
/// A folder in which something still appears is left after this.
const LIMIT: Duration = Duration::from_secs(60);

/// Removes a folder with all that is in it. No link is followed.
pub(super) fn remove_folder(folder: &Path) -> io::Result<()> {
    let top = open(CWD, folder)?;
    let (mut moved, until) = (0, Instant::now() + LIMIT);
    while Instant::now() < until {
        if empty(&top, &mut moved)? {
            return Ok(unlinkat(CWD, folder, AtFlags::REMOVEDIR)?);
        }
    }
    Err(io::ErrorKind::DirectoryNotEmpty.into())
}

fn open(at: impl AsFd, name: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

/// Removes what is in a folder, and moves what is too deep into it; true: nothing was there.
fn empty(top: &OwnedFd, moved: &mut u64) -> io::Result<bool> {
    let mut way = vec![(Dir::read_from(top)?, None)];
    let mut clean = true;
    loop {
        let deep = way.len() >= LEVELS;
        let Some((entries, _)) = way.last_mut() else { return Ok(clean) };
        let Some(entry) = entries.next() else {
            let left: Option<CString> = way.pop().and_then(|(_, name)| name);
            if let (Some(name), Some((parent, _))) = (left, way.last()) {
                gone(unlinkat(parent.fd()?, &*name, AtFlags::REMOVEDIR))?;
            }
            continue;
        };
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        clean = false;
        let at = entries.fd()?;
        match unlinkat(at, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => {}
            // What other systems say of a folder.
            Err(Errno::PERM) if !cfg!(target_os = "linux") => {}
            other => {
                gone(other)?;
                continue;
            }
        }
        if deep {
            let new = format!(".outlast-{moved}");
            *moved += 1;
            gone(renameat(at, name, top, &*new))?;
            continue;
        }
        match open(at, name) {
            Ok(folder) => {
                let name = name.to_owned();
                way.push((Dir::new(folder)?, Some(name)));
            }
            other => gone(other.map(drop))?,
        }
    }
}

/// Accepts that another process removed it first; files that were added meanwhile are left to the
/// next pass.
fn gone(result: rustix::io::Result<()>) -> io::Result<()> {
    match result {
        Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR | Errno::LOOP) => Ok(()),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn depth_costs_nothing_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("f"), "x").unwrap();
        let folder = dir.path().join("folder");
        fs::create_dir_all(folder.join("a/b")).unwrap();
        fs::write(folder.join("a/b/f"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, folder.join("a/link")).unwrap();
        // Deeper than any path may be long.
        let mut at = open(CWD, &folder).unwrap();
        for _ in 0..1500 {
            rustix::fs::mkdirat(&at, "deeper", Mode::RWXU).unwrap();
            at = open(&at, "deeper").unwrap();
        }
        drop(at);
        // A thread with little room for its stack, as an executor's may be.
        let small = std::thread::Builder::new().stack_size(128 << 10);
        let given = folder.clone();
        small.spawn(move || remove_folder(&given)).unwrap().join().unwrap().unwrap();
        assert!(!folder.exists() && outside.join("f").exists());
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&outside, &link).unwrap();
        assert!(remove_folder(&link).is_err());
        assert!(outside.join("f").exists());
    }
}
