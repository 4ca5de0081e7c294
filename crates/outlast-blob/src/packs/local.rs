//! Packs as files of one folder.

use super::{PackStore, PackWriter};
use outlast_sqlite::{private, sync_folder};
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// How many packs stay open for reading.
const OPEN_FILES: usize = 16;

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
        Ok(Box::new(LocalWriter(file)))
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

struct LocalWriter(File);

impl PackWriter for LocalWriter {
    fn append(&mut self, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            match self.0.write_vectored(parts) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => IoSlice::advance_slices(&mut parts, n),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn seal(self: Box<Self>) -> io::Result<()> {
        self.0.sync_data()
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
