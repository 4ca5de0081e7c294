//! Empty logs and working directories, kept for the next attempt.
//!
//! Creating and removing two files and a folder costs a file system about as much as starting a
//! small program. So what an attempt left empty serves the next one, provided that no process is
//! left that could still write there; and a log gets its name only when there is something in it.

use super::logs;
use rustix::fs::{OFlags, RawDir, fcntl_getfl};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

/// More spares than this are not worth their clutter.
const KEEP: usize = 64;

/// A stream's file. It is named once there is output in it.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
    /// Its place among the spares, until it is named.
    spare: Option<PathBuf>,
}

impl Log {
    /// For the task.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Its length and the disk that it takes.
    pub fn size(&self) -> io::Result<(u64, u64)> {
        let meta = self.file.metadata()?;
        Ok((meta.len(), meta.blocks() * 512))
    }

    /// Gives it its name, if it has none yet.
    pub fn name(&mut self, path: &Path) -> io::Result<()> {
        let Some(spare) = self.spare.take() else { return Ok(()) };
        match fs::rename(&spare, path) {
            // Somebody tidied up below us.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(path.parent().unwrap_or(path))?;
                fs::rename(spare, path)
            }
            result => result,
        }
    }

    /// Whether a task may have it that must not notice that another had it before.
    fn is_fresh(&self) -> bool {
        self.spare.is_some() && fcntl_getfl(&self.file).is_ok_and(|f| f.contains(OFlags::APPEND))
    }

    /// Removes it; `path` is its name in case that it was named.
    pub fn remove(self, path: &Path) {
        let _ = fs::remove_file(self.spare.as_deref().unwrap_or(path));
    }
}

/// Files and folders that are empty and nobody's.
#[derive(Debug)]
pub(super) struct Spares {
    place: PathBuf,
    /// Where the folders are, and what sets apart the names of this executor's.
    work: PathBuf,
    series: u64,
    created: u64,
    logs: Vec<Log>,
    folders: Vec<Folder>,
}

/// An attempt's own working directory. What is left in one is found by a link with the attempt's
/// name; its own name says nothing, so that the next attempt can have it.
#[derive(Debug)]
pub(super) struct Folder {
    pub path: PathBuf,
    /// When it was known to be empty, as the file system counts.
    stamp: Option<Stamp>,
}

type Stamp = [i64; 4];

impl Folder {
    /// Creates it, unless it was there before.
    pub fn create(&self) -> io::Result<()> {
        match self.stamp {
            Some(_) => Ok(()),
            None => fs::create_dir_all(&self.path),
        }
    }

    /// Whether it is as `create` left it.
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
    /// `place`: a folder for the logs; what a former worker left there goes. `work`: one for the
    /// working directories; what a former worker left there gets a link.
    pub fn new(place: PathBuf, work: PathBuf) -> io::Result<Spares> {
        match fs::remove_dir_all(&place) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => fs::create_dir(&place)?,
        }
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
        Ok(Spares { place, work, series, created: 0, logs: Vec::new(), folders: Vec::new() })
    }

    /// An empty log that nobody else writes to.
    pub fn log(&mut self) -> io::Result<Log> {
        if let Some(log) = self.logs.pop() {
            return Ok(log);
        }
        self.created += 1;
        let spare = self.place.join(self.created.to_string());
        let file = match logs::create(&spare) {
            // Somebody tidied up below us.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(&self.place)?;
                logs::create(&spare)?
            }
            result => result?,
        };
        Ok(Log { file, spare: Some(spare) })
    }

    /// A folder that is empty once it is created.
    pub fn folder(&mut self) -> Folder {
        self.folders.pop().unwrap_or_else(|| {
            self.created += 1;
            let path = self.work.join(format!("{:x}-{}", self.series, self.created));
            Folder { path, stamp: None }
        })
    }

    /// Takes back an empty log.
    pub fn give_log(&mut self, log: Log) {
        match self.logs.len() < KEEP && log.is_fresh() {
            true => self.logs.push(log),
            false => log.remove(Path::new("")),
        }
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
        self.logs.drain(..).for_each(|log| log.remove(Path::new("")));
        self.folders.drain(..).for_each(|folder| drop(fs::remove_dir(folder.path)));
        let _ = fs::remove_dir(&self.place);
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

/// Tells whether tasks left processes behind.
///
/// With a child subreaper each such process, or its topmost ancestor that lives, becomes a child
/// of the first thread of this process. So if that thread has no child now that it did not have
/// before the attempt, the attempt left nothing.
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

    /// Whether it is certain that there are none but those of `before`.
    pub fn none_since(&self, before: &str) -> bool {
        self.look().is_some_and(|now| {
            let known = |pid| before.split_ascii_whitespace().any(|known| known == pid);
            now.split_ascii_whitespace().all(known)
        })
    }
}
