//! Packs as files of one folder.

use super::{PackStore, PackWriter};
use outlast_sqlite::{private, sync_folder};
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

/// Number of packs that stay open for reading.
const OPEN_FILES: usize = 16;
/// A pack that grew by so many bytes begins to be synced while it is written on, so that its end
/// has little to wait for.
const AHEAD: usize = 8 << 20;

/// Packs as files of one folder, which must exist.
#[derive(Debug)]
pub struct LocalPacks {
    folder: PathBuf,
    /// Most recently used last.
    open: Mutex<Vec<(Box<str>, Arc<File>)>>,
}

impl LocalPacks {
    /// The packs in this folder.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), open: Mutex::default() }
    }

    fn file(&self, name: &str) -> io::Result<Arc<File>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = match open.iter().position(|(known, _)| **known == *name) {
            Some(index) => open.remove(index),
            None => (name.into(), Arc::new(File::open(self.folder.join(name))?)),
        };
        if open.len() >= OPEN_FILES {
            open.remove(0);
        }
        let file = entry.1.clone();
        open.push(entry);
        Ok(file)
    }
}

impl PackStore for LocalPacks {
    fn place(&self) -> Option<&str> {
        None
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn PackWriter>> {
        let path = self.folder.join(name);
        let file = private(OpenOptions::new().write(true).create_new(true)).open(path)?;
        Ok(Box::new(LocalWriter { file: Arc::new(file), ahead: 0, syncing: None }))
    }

    fn sync_names(&self) -> io::Result<()> {
        sync_folder(&self.folder)
    }

    fn read_at(&self, name: &str, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        read_exact_at(&*self.file(name)?, pos, buf)
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        // A file that stayed open would keep its space.
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|(known, _)| **known != *name);
        match fs::remove_file(self.folder.join(name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(&str, u64)) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if let Some(name) = entry.file_name().to_str().filter(|n| n.starts_with(prefix)) {
                each(name, entry.metadata()?.len());
            }
        }
        Ok(())
    }
}

struct LocalWriter {
    file: Arc<File>,
    /// Bytes since the last sync began.
    ahead: usize,
    syncing: Option<Syncing>,
}

/// A thread that syncs a file on request. The kernel reports an error of writing back only once, so
/// the error is passed to the caller that seals the pack.
struct Syncing {
    tell: SyncSender<()>,
    thread: JoinHandle<io::Result<()>>,
}

impl Syncing {
    fn start(file: Arc<File>) -> io::Result<Syncing> {
        // Nothing waits in the channel: whoever is busy syncs what came meanwhile the next time.
        let (tell, told) = sync_channel(0);
        let run = move || told.into_iter().try_for_each(|()| file.sync_data());
        let thread = thread::Builder::new().name("outlast-blob-sync".into()).spawn(run)?;
        Ok(Syncing { tell, thread })
    }

    fn end(self) -> io::Result<()> {
        drop(self.tell);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl LocalWriter {
    fn sync_ahead(&mut self) -> io::Result<()> {
        let syncing = match self.syncing.take() {
            Some(syncing) => syncing,
            None => Syncing::start(self.file.clone())?,
        };
        match syncing.tell.try_send(()) {
            Ok(()) => self.ahead = 0,
            Err(TrySendError::Full(())) => {}
            Err(TrySendError::Disconnected(())) => return syncing.end(),
        }
        self.syncing = Some(syncing);
        Ok(())
    }
}

impl PackWriter for LocalWriter {
    fn append(&mut self, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            match (&*self.file).write_vectored(parts) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    self.ahead += n;
                    IoSlice::advance_slices(&mut parts, n);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if self.ahead >= AHEAD { self.sync_ahead() } else { Ok(()) }
    }

    fn seal(mut self: Box<Self>) -> io::Result<()> {
        let rest = self.file.sync_data();
        self.syncing.take().map_or(Ok(()), Syncing::end)?;
        rest
    }
}

impl Drop for LocalWriter {
    fn drop(&mut self) {
        // A file that stayed open would keep its space.
        let _ = self.syncing.take().map(Syncing::end);
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, pos: u64, buf: &mut [u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buf, pos)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut pos: u64, mut buf: &mut [u8]) -> io::Result<()> {
    while !buf.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, buf, pos) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                buf = &mut buf[n..];
                pos += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    fn append(writer: &mut dyn PackWriter, bytes: &[u8]) -> io::Result<()> {
        writer.append(&mut [IoSlice::new(bytes)])
    }

    #[test]
    fn a_pack_is_whole_however_often_it_is_synced_ahead() {
        let folder = tempfile::tempdir().unwrap();
        let packs = LocalPacks::new(folder.path());
        let mut writer = packs.create("a").unwrap();
        let bytes: Vec<u8> = (0..AHEAD / 2 + 1).map(|n| n as u8).collect();
        (0..7).for_each(|_| append(&mut *writer, &bytes).unwrap());
        writer.seal().unwrap();
        assert!(fs::read(folder.path().join("a")).unwrap() == bytes.repeat(7));
        let mut dropped = packs.create("b").unwrap();
        (0..4).for_each(|_| append(&mut *dropped, &bytes).unwrap());
        drop(dropped);
        packs.delete("b").unwrap();
        assert!(!folder.path().join("b").exists());
    }

    #[test]
    fn a_sync_ahead_that_fails_is_not_forgotten() {
        // A socket cannot be synced.
        let (ours, theirs) = UnixStream::pair().unwrap();
        let reading = thread::spawn(move || io::copy(&mut &theirs, &mut io::sink()));
        let file = Arc::new(File::from(OwnedFd::from(ours)));
        let mut writer = LocalWriter { file, ahead: 0, syncing: None };
        let bytes = vec![0; AHEAD];
        assert!((0..1000).any(|_| append(&mut writer, &bytes).is_err()));
        drop(writer);
        reading.join().unwrap().unwrap();
    }
}
