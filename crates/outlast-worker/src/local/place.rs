//! Puts a checkpoint where a task wants it: complete, or not at all.
//!
//! It is written beside its place under a name of our own, synced, and renamed. What a killed worker
//! left half-written has the same name and is cleared away by the next restore to that place.

use super::error::HostError;
use super::rights::Rights;
use super::types::Kind;
use super::unpack::unpack;
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Places that are being written, so that two restores do not share a temporary name.
#[derive(Debug)]
pub(super) struct Places {
    busy: Mutex<HashSet<PathBuf>>,
    /// Tells this worker's temporary names from another's.
    tag: String,
    /// The rights with which they are written, if not this process's.
    rights: Option<Arc<Rights>>,
}

/// A place, as long as it is this restore's.
struct Taken<'a>(&'a Places, PathBuf);

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

impl Places {
    pub fn new(tag: String, rights: Option<Arc<Rights>>) -> Places {
        Places { busy: Mutex::default(), tag, rights }
    }

    /// Writes the bytes to `path`; makes the folders above it. Blocks.
    ///
    /// # Errors
    /// The place is as it was.
    pub fn put(
        &self,
        path: &Path,
        kind: Kind,
        body: &mut dyn Read,
        force: bool,
    ) -> Result<(), HostError> {
        if !self.busy.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned()) {
            let text = format!("{} is being restored by another request", path.display());
            return Err(HostError::Conflict(text));
        }
        let _taken = Taken(self, path.to_owned());
        match &self.rights {
            Some(rights) => rights.write(path, kind, body, force, &self.tag),
            None => put(path, kind, body, force, &self.tag)
                .map_err(|e| HostError::of_file(&path.display().to_string(), &e)),
        }
    }
}

/// Writes the bytes to `path`, which nobody else does now; makes the folders above it.
pub(super) fn put(
    path: &Path,
    kind: Kind,
    body: &mut dyn Read,
    force: bool,
    tag: &str,
) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "is no place"));
    };
    let mut temp = OsString::from(".");
    temp.push(name);
    temp.push(format!(".outlast-{tag}"));
    let temp = parent.join(temp);
    let result = check(path, kind, force).and_then(|()| {
        make_folders(parent)?;
        remove(&temp)?;
        match kind {
            Kind::Folder => put_folder(body, &temp, path),
            Kind::File | Kind::Raw => put_file(body, &temp, path),
        }
    });
    let result = result.and_then(|()| File::open(parent)?.sync_all());
    if result.is_err() {
        let _ = remove(&temp);
    }
    result
}

/// Makes a folder and those above it as the task would: with the mask that it has.
fn make_folders(folder: &Path) -> io::Result<()> {
    let Some(mask) = outlast_spawn::former_umask() else { return fs::create_dir_all(folder) };
    let missing: Vec<&Path> = folder.ancestors().take_while(|f| !f.exists()).collect();
    for folder in missing.into_iter().rev() {
        match fs::create_dir(folder) {
            Ok(()) => fs::set_permissions(folder, Permissions::from_mode(0o777 & !mask))?,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Refuses early what would be refused late.
fn check(path: &Path, kind: Kind, force: bool) -> io::Result<()> {
    let meta = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let no = |kind, text: &str| Err(io::Error::new(kind, text.to_owned()));
    match kind {
        Kind::Folder if !meta.is_dir() => {
            no(io::ErrorKind::AlreadyExists, "the checkpoint is a folder, and this is none")
        }
        Kind::Folder if !force && fs::read_dir(path)?.next().is_some() => no(
            io::ErrorKind::DirectoryNotEmpty,
            "the folder is not empty; `force` (--force) replaces it",
        ),
        Kind::File | Kind::Raw if meta.is_dir() => {
            no(io::ErrorKind::AlreadyExists, "the checkpoint is a file, and this is a folder")
        }
        _ => Ok(()),
    }
}

fn put_file(body: &mut dyn Read, temp: &Path, path: &Path) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).open(temp)?;
    io::copy(body, &mut file)?;
    // A file that is replaced keeps its permissions.
    if let Ok(meta) = fs::metadata(path) {
        file.set_permissions(Permissions::from_mode(meta.permissions().mode() & 0o777))?;
    } else if let Some(mask) = outlast_spawn::former_umask() {
        file.set_permissions(Permissions::from_mode(0o666 & !mask))?;
    }
    file.sync_all()?;
    fs::rename(temp, path)
}

fn put_folder(body: &mut dyn Read, temp: &Path, path: &Path) -> io::Result<()> {
    unpack(body, temp)?;
    // Onto nothing, or an empty folder.
    match fs::rename(temp, path) {
        Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => {}
        other => return other,
    }
    exchange(temp, path)?;
    remove(temp)
}

/// The new folder takes the old one's name, and the other way round.
#[cfg(target_os = "linux")]
fn exchange(new: &Path, old: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, new, CWD, old, RenameFlags::EXCHANGE)?)
}

/// Without the system's help there is a moment in which neither has the name.
#[cfg(not(target_os = "linux"))]
fn exchange(new: &Path, old: &Path) -> io::Result<()> {
    let aside = new.with_extension("old");
    remove(&aside)?;
    fs::rename(old, &aside)?;
    fs::rename(new, old)?;
    fs::rename(&aside, new)
}

/// Removes a file or folder, closed folders in it too; it need not be there.
fn remove(path: &Path) -> io::Result<()> {
    let meta = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    if !meta.is_dir() {
        return fs::remove_file(path);
    }
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path)?;
            fs::remove_dir_all(path)
        }
        other => other,
    }
}

fn open_up(folder: &Path) -> io::Result<()> {
    let mut todo = vec![folder.to_owned()];
    while let Some(folder) = todo.pop() {
        fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                todo.push(entry.path());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::pack::{self, Notes};

    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            names.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn files_are_replaced_and_folders_guarded() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::new("t".into(), None);
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs::create_dir(&a).unwrap();
        fs::write(a.join("x"), "x").unwrap();
        let tar = || pack::open(&a, &Notes::default()).unwrap().1;
        let put = |path: &Path, kind, body: &mut dyn Read, force| {
            places.put(path, kind, body, force).map_err(|e| e.to_string())
        };
        // A file, new and again, with its permissions.
        put(&b, Kind::File, &mut &b"one"[..], false).unwrap();
        fs::set_permissions(&b, Permissions::from_mode(0o755)).unwrap();
        put(&b, Kind::Raw, &mut &b"two"[..], false).unwrap();
        assert_eq!(fs::read(&b).unwrap(), b"two");
        assert_eq!(fs::metadata(&b).unwrap().permissions().mode() & 0o777, 0o755);
        put(&dir.path().join("e/f/x"), Kind::Raw, &mut &b""[..], false).unwrap();
        // Of another kind.
        assert!(put(&a, Kind::File, &mut &b"x"[..], true).unwrap_err().contains("is a folder"));
        assert!(put(&b, Kind::Folder, &mut tar(), true).unwrap_err().contains("this is none"));
        // A folder: new, onto an empty one, onto a full one, with a stale half in the way.
        let c = dir.path().join("c");
        put(&c, Kind::Folder, &mut tar(), false).unwrap();
        fs::write(c.join("y"), "y").unwrap();
        assert!(put(&c, Kind::Folder, &mut tar(), false).unwrap_err().contains("not empty"));
        let stale = dir.path().join(".c.outlast-t");
        fs::create_dir_all(stale.join("half")).unwrap();
        fs::set_permissions(&stale, Permissions::from_mode(0o500)).unwrap();
        put(&c, Kind::Folder, &mut tar(), true).unwrap();
        assert_eq!(names(&c), ["x"]);
        let d = dir.path().join("d");
        fs::create_dir(&d).unwrap();
        put(&d, Kind::Folder, &mut tar(), false).unwrap();
        assert_eq!(names(&d), ["x"]);
        // A broken body leaves everything as it was.
        let broken = || tar().take(700);
        assert!(put(&c, Kind::Folder, &mut broken(), true).is_err());
        // What is wrong with it is said as it is: it is no mistake of the task's.
        struct Damaged;
        impl Read for Damaged {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other(HostError::Damaged("a test".into())))
            }
        }
        for (path, kind) in [(&c, Kind::Folder), (&b, Kind::File)] {
            let mut half = tar().take(700).chain(Damaged);
            let error = places.put(path, kind, &mut half, true);
            assert_eq!(error, Err(HostError::Damaged("a test".into())));
        }
        assert!(put(Path::new("/"), Kind::Raw, &mut &b""[..], true).is_err());
        assert!(put(&b.join("x"), Kind::Raw, &mut &b""[..], true).is_err());
        assert_eq!(names(&c), ["x"]);
        assert_eq!(names(dir.path()), ["a", "b", "c", "d", "e"]);
    }
}
