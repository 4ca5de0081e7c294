//! Empty working directories, kept for the next attempt.
//!
//! Creating and removing a folder costs a file system a fair part of what starting a small program
//! does. So what an attempt left empty serves the next one, provided that no process is left that
//! could still write there.

use super::user;
use outlast_spawn::User;
use rustix::fs::RawDir;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

/// More spares than this are not worth their clutter.
const KEEP: usize = 64;

/// Folders that are empty and nobody's.
#[derive(Debug)]
pub(super) struct Spares {
    /// Place where the folders are, and what sets apart the names of this executor's.
    work: PathBuf,
    series: u64,
    created: u64,
    folders: Vec<Folder>,
}

/// An attempt's own working directory. What is left in one is found by a link with the attempt's
/// name; its own name says nothing, so that the next attempt can have it.
#[derive(Debug)]
pub(super) struct Folder {
    pub path: PathBuf,
    /// Time at which it was known to be empty, as the file system counts.
    stamp: Option<Stamp>,
}

type Stamp = [i64; 4];

impl Folder {
    /// Creates it, unless it was there before; for another user if one is given.
    pub fn create(&self, owner: Option<&User>) -> io::Result<()> {
        match (self.stamp, owner) {
            (Some(_), _) => Ok(()),
            (None, Some(owner)) => user::make_folder(&self.path, owner),
            (None, None) => fs::create_dir_all(&self.path),
        }
    }

    /// Returns whether it is as `create` left it.
    fn is_untouched(&mut self) -> bool {
        let Ok(meta) = fs::symlink_metadata(&self.path) else { return false };
        let now = [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()];
        // Times of files are coarse: only one that was old already shows every later change.
        let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        if self.stamp == Some(now) && age.as_secs() as i64 > now[2].max(now[0]) + 1 {
            return true;
        }
        self.stamp = Some(now);
        meta.is_dir() && meta.mode() & 0o700 == 0o700 && is_empty(&self.path)
    }
}

impl Spares {
    /// `work`: a folder for the working directories; what a former worker left there gets a link.
    pub fn new(work: PathBuf) -> io::Result<Spares> {
        fs::create_dir_all(&work)?;
        let linked: HashSet<PathBuf> =
            fs::read_dir(&work)?.flatten().filter_map(|e| fs::read_link(e.path()).ok()).collect();
        for entry in fs::read_dir(&work)?.flatten() {
            let name = PathBuf::from(entry.file_name());
            let is_folder = entry.file_type().is_ok_and(|t| t.is_dir());
            if is_folder && !linked.contains(&name) && fs::remove_dir(entry.path()).is_err() {
                let _ = symlink(&name, work.join(format!("lost.{}", name.display())));
            }
        }
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let series = since.as_millis() as u64;
        Ok(Spares { work, series, created: 0, folders: Vec::new() })
    }

    /// A folder that is empty once it is created.
    pub fn folder(&mut self) -> Folder {
        self.folders.pop().unwrap_or_else(|| {
            self.created += 1;
            let path = self.work.join(format!("{:x}-{}", self.series, self.created));
            Folder { path, stamp: None }
        })
    }

    /// Takes back a folder if it is empty still.
    ///
    /// # Errors
    /// The folder, if it is not taken.
    pub fn give_folder(&mut self, mut folder: Folder) -> Result<(), Folder> {
        if self.folders.len() >= KEEP || !folder.is_untouched() {
            return Err(folder);
        }
        self.folders.push(folder);
        Ok(())
    }

    /// Removes all of them.
    pub fn clear(&mut self) {
        self.folders.drain(..).for_each(|folder| drop(fs::remove_dir(folder.path)));
    }
}

fn is_empty(folder: &Path) -> bool {
    let Ok(file) = File::open(folder) else { return false };
    let mut buffer = [MaybeUninit::uninit(); 512];
    let mut entries = RawDir::new(&file, &mut buffer);
    while let Some(entry) = entries.next() {
        if !entry.is_ok_and(|e| matches!(e.file_name().to_bytes(), b"." | b"..")) {
            return false;
        }
    }
    true
}

/// Detects whether tasks left processes behind.
///
/// With a child subreaper each such process, or its topmost living ancestor, becomes a child of the
/// first thread of this process. So if that thread has no child that it did not have before the
/// attempt, the attempt left none.
#[derive(Debug)]
pub(super) struct Orphans {
    list: Option<File>,
    /// There were some at the last look.
    some: AtomicBool,
}

impl Orphans {
    /// `adopts`: whether orphans become children of this process; if not, none can be ruled out.
    pub fn new(adopts: bool) -> Self {
        let me = std::process::id();
        let list = adopts.then(|| File::open(format!("/proc/self/task/{me}/children")).ok());
        Orphans { list: list.flatten(), some: AtomicBool::new(true) }
    }

    /// The orphans before an attempt. None are taken for none without another look: if that is
    /// wrong, the attempt is blamed for them, which only costs time.
    pub fn before(&self) -> String {
        if !self.some.load(Ordering::Relaxed) {
            return String::new();
        }
        self.look().unwrap_or_default()
    }

    fn look(&self) -> Option<String> {
        let mut list = Vec::new();
        let mut part = [0; 4096];
        loop {
            let n = self.list.as_ref()?.read_at(&mut part, list.len() as u64).ok()?;
            list.extend_from_slice(&part[..n]);
            // An empty list, by far the most common, is known by one call.
            if n == 0 {
                self.some.store(!list.is_empty(), Ordering::Relaxed);
                return String::from_utf8(list).ok();
            }
        }
    }

    /// Returns whether it is certain that there are none but those of `before`.
    pub fn none_since(&self, before: &str) -> bool {
        self.look().is_some_and(|now| {
            let known = |pid| before.split_ascii_whitespace().any(|known| known == pid);
            now.split_ascii_whitespace().all(known)
        })
    }
}
