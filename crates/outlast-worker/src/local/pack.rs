//! From a file or a folder to bytes. A folder becomes a tar stream that is made while it is read.
//!
//! The stream is deterministic, so that an unchanged folder has the same chunks: entries are in
//! the order of their names, and of each only name, permissions, time of change (whole seconds, of
//! files and links), content and link target are kept. Owners, extended attributes and the holes of
//! sparse files are not. The first entry is `./`, the folder itself.
//!
//! Memory: the names of the folders on the way to the current file, and one file's header.

use super::types::Kind;
use rustix::fs::OFlags;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tar::{EntryType, Header};

/// A tar record.
const BLOCK: u64 = 512;
/// Notes that are kept; further ones are counted.
const MAX_NOTES: usize = 20;

/// Notes about omitted files, for the task's author; shared with the reader of the stream.
#[derive(Debug, Clone, Default)]
pub struct Notes(Arc<Mutex<(Vec<String>, usize)>>);

impl Notes {
    fn add(&self, path: &Path, why: &str) {
        self.push(format!("{}: {why}", path.display()));
    }
    /// Adds one, while there are few.
    pub(super) fn push(&self, note: String) {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.0.len() < MAX_NOTES {
            notes.0.push(note);
        } else {
            notes.1 += 1;
        }
    }
    /// Returns all notes so far.
    pub fn list(&self) -> Vec<String> {
        let notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut list = notes.0.clone();
        if notes.1 > 0 {
            list.push(format!("and {} more", notes.1));
        }
        list
    }
}

/// Opens a file for its content, or a folder for its tar stream. A link as the path itself is
/// followed.
///
/// # Errors
/// That of opening it; `InvalidInput` if it is neither file nor folder.
pub fn open(path: &Path, notes: &Notes) -> io::Result<(Kind, Box<dyn Read + Send>)> {
    let meta = fs::metadata(path)?;
    if meta.is_dir() {
        return Ok((Kind::Folder, Box::new(Folder::new(path, &meta, notes.clone())?)));
    }
    let (file, meta) = open_file(path, OFlags::empty())?;
    let what = path.display().to_string();
    Ok((Kind::File, Box::new(Content { file, left: meta.len(), what })))
}

/// Opens a regular file without ever waiting, even if a fifo has taken its place.
fn open_file(path: &Path, flags: OFlags) -> io::Result<(File, Metadata)> {
    let flags = (flags | OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "is neither file nor folder"));
    }
    Ok((file, meta))
}

/// Content of a file up to its length when it was opened. Appended data is left for the next
/// checkpoint; truncation is an error, since the bytes would be a mixture.
struct Content {
    file: File,
    left: u64,
    what: String,
}

impl Read for Content {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let want = buf.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let n = self.file.read(&mut buf[..want]).map_err(|e| named(&self.what, e))?;
        if n == 0 && want > 0 {
            let text = format!("{} became shorter while it was read", self.what);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        self.left -= n as u64;
        Ok(n)
    }
}

fn named(what: impl std::fmt::Display, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// A folder's tar stream.
struct Folder {
    root: PathBuf,
    /// Folders on the way to here, relative to the root, and the names in them still to come.
    way: Vec<(PathBuf, std::vec::IntoIter<OsString>)>,
    /// Encodes headers.
    tar: tar::Builder<Vec<u8>>,
    /// Number of the encoded bytes that were read.
    sent: usize,
    /// The file whose header was the last.
    content: Option<Content>,
    /// Number of zeroes that fill up its last record.
    pad: usize,
    /// The end of the archive is encoded.
    ended: bool,
    notes: Notes,
}

impl Folder {
    fn new(path: &Path, meta: &Metadata, notes: Notes) -> io::Result<Folder> {
        let mut folder = Folder {
            root: path.to_owned(),
            way: Vec::new(),
            tar: tar::Builder::new(Vec::new()),
            sent: 0,
            content: None,
            pad: 0,
            ended: false,
            notes,
        };
        let names = folder.names(Path::new(""))?;
        folder.header(Path::new("./"), meta, EntryType::Directory, 0)?;
        folder.way.push((PathBuf::new(), names));
        Ok(folder)
    }

    fn names(&self, folder: &Path) -> io::Result<std::vec::IntoIter<OsString>> {
        let path = self.root.join(folder);
        let names = fs::read_dir(&path).and_then(|entries| {
            entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()
        });
        let mut names = names.map_err(|e| named(path.display(), e))?;
        names.sort_unstable();
        Ok(names.into_iter())
    }

    fn header(
        &mut self,
        path: &Path,
        meta: &Metadata,
        kind: EntryType,
        size: u64,
    ) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(meta.mode() & 0o777);
        // A folder's time changes with every file that is replaced in it, and says nothing.
        let time = if kind == EntryType::Directory { 0 } else { meta.mtime() };
        header.set_mtime(u64::try_from(time).unwrap_or(0));
        header.set_size(size);
        self.tar.append_data(&mut header, path, io::empty())
    }

    /// Encodes the next entry, or the end.
    fn next(&mut self) -> io::Result<()> {
        let Some((folder, names)) = self.way.last_mut() else {
            self.tar.get_mut().resize(2 * BLOCK as usize, 0);
            self.ended = true;
            return Ok(());
        };
        let Some(name) = names.next() else {
            self.way.pop();
            return Ok(());
        };
        let path = folder.join(name);
        match self.entry(&path) {
            // Gone since its folder was read: as if the checkpoint had been taken a moment later.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.notes.add(&path, "was deleted while the folder was read");
                Ok(())
            }
            other => other.map_err(|e| named(path.display(), e)),
        }
    }

    fn entry(&mut self, path: &Path) -> io::Result<()> {
        let full = self.root.join(path);
        let meta = fs::symlink_metadata(&full)?;
        let kind = meta.file_type();
        if kind.is_dir() {
            let names = self.names(path)?;
            self.header(path, &meta, EntryType::Directory, 0)?;
            self.way.push((path.to_owned(), names));
        } else if kind.is_symlink() {
            let target = fs::read_link(&full)?;
            let mut header = Header::new_gnu();
            header.set_entry_type(EntryType::Symlink);
            header.set_mode(0o777);
            header.set_mtime(u64::try_from(meta.mtime()).unwrap_or(0));
            header.set_size(0);
            self.tar.append_link(&mut header, path, target)?;
        } else if kind.is_file() {
            let (file, meta) = open_file(&full, OFlags::NOFOLLOW)?;
            self.header(path, &meta, EntryType::Regular, meta.len())?;
            let what = full.display().to_string();
            self.pad = (meta.len().next_multiple_of(BLOCK) - meta.len()) as usize;
            self.content = Some(Content { file, left: meta.len(), what });
        } else {
            let what = if kind.is_socket() {
                "a socket"
            } else if kind.is_fifo() {
                "a fifo"
            } else {
                "a device"
            };
            self.notes.add(path, &format!("{what} was left out"));
        }
        Ok(())
    }
}

impl Read for Folder {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            let encoded = self.tar.get_mut();
            if self.sent < encoded.len() {
                let n = buf.len().min(encoded.len() - self.sent);
                buf[..n].copy_from_slice(&encoded[self.sent..self.sent + n]);
                self.sent += n;
                return Ok(n);
            }
            encoded.clear();
            self.sent = 0;
            if let Some(content) = &mut self.content {
                if content.left > 0 {
                    return content.read(buf);
                }
                self.content = None;
                encoded.resize(self.pad, 0);
                continue;
            }
            if self.ended {
                return Ok(0);
            }
            self.next()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::unpack;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn pack(path: &Path) -> (Vec<u8>, Vec<String>) {
        let (notes, mut bytes) = (Notes::default(), Vec::new());
        let (kind, mut body) = open(path, &notes).unwrap();
        assert_eq!(kind, Kind::Folder);
        body.read_to_end(&mut bytes).unwrap();
        (bytes, notes.list())
    }

    /// Every path with its permissions and content.
    fn tree(root: &Path) -> Vec<String> {
        let mut all = Vec::new();
        let mut todo = vec![root.to_owned()];
        while let Some(path) = todo.pop() {
            let meta = fs::symlink_metadata(&path).unwrap();
            let content = if meta.is_symlink() {
                fs::read_link(&path).unwrap().display().to_string()
            } else if meta.is_dir() {
                todo.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
                "folder".into()
            } else {
                format!("{:?} {}", fs::read(&path).unwrap(), meta.mtime())
            };
            let name = path.strip_prefix(root).unwrap().display().to_string();
            all.push(format!("{name:?} {:o} {content}", meta.mode() & 0o7777));
        }
        all.sort();
        all
    }

    #[test]
    fn a_folder_comes_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let a = dir.path().join("a");
        fs::create_dir_all(a.join("empty")).unwrap();
        fs::create_dir_all(a.join("deep").join("x".repeat(200)).join("y".repeat(200))).unwrap();
        let deep = a.join("deep").join("x".repeat(200)).join("y".repeat(200));
        fs::write(deep.join("long"), [7; 1500]).unwrap();
        for size in [0, 1, 511, 512, 513, 70_000] {
            fs::write(a.join(format!("{size}.bin")), vec![size as u8; size]).unwrap();
        }
        fs::write(a.join("run"), "#!/bin/sh").unwrap();
        fs::set_permissions(a.join("run"), PermissionsExt::from_mode(0o751)).unwrap();
        fs::create_dir(a.join("locked")).unwrap();
        fs::write(a.join("locked/in"), "x").unwrap();
        fs::set_permissions(a.join("locked"), PermissionsExt::from_mode(0o555)).unwrap();
        symlink("run", a.join("link")).unwrap();
        symlink(format!("/nowhere/{}", "z".repeat(300)), a.join("broken")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(a.join("sock")).unwrap();
        let (bytes, notes) = pack(&a);
        assert_eq!(notes, ["sock: a socket was left out"]);
        assert_eq!(pack(&a).0, bytes, "not deterministic");
        assert_eq!(bytes.len() % 512, 0);
        let b = dir.path().join("b");
        unpack(&bytes[..], &b).unwrap();
        fs::remove_file(a.join("sock")).unwrap();
        assert_eq!(tree(&a), tree(&b));
        assert_eq!(pack(&b).0, bytes);
    }

    #[test]
    fn a_file_that_shrinks_is_an_error_and_one_that_grows_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, [1; 100_000]).unwrap();
        let (_, mut body) = open(&path, &Notes::default()).unwrap();
        let mut part = [0; 10];
        body.read_exact(&mut part).unwrap();
        fs::write(&path, [1; 50]).unwrap();
        let error = body.read_to_end(&mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("became shorter"), "{error}");
        let (kind, mut body) = open(&path, &Notes::default()).unwrap();
        fs::write(&path, [1; 60]).unwrap();
        assert_eq!((body.read_to_end(&mut Vec::new()).unwrap(), kind), (50, Kind::File));
        assert!(open(Path::new("/dev/null"), &Notes::default()).is_err());
    }
}
