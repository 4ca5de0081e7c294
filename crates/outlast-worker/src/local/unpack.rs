//! From a folder's tar stream to a folder. The stream may come from anywhere: nothing is written
//! outside the new folder.

use rustix::fs::{Mode, OFlags};
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use tar::{Archive, EntryType};

/// Writes what [`super::pack`] packed into `folder`, which must not exist yet, and syncs it. After
/// an error the folder may be there in part. Blocks.
///
/// # Errors
/// `InvalidData` for what `pack` never makes: an absolute path, `..`, the same path twice, a path
/// through a link, anything but files, folders and links; otherwise what the file system says.
pub fn unpack(body: impl Read, folder: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(folder)?;
    let mut archive = Archive::new(body);
    // Folders get their permissions at the end: one may be closed to ourselves.
    let mut modes: Vec<(PathBuf, u32)> = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = relative(&entry.path()?)?;
        let target = folder.join(&path);
        let kind = entry.header().entry_type();
        if path.as_os_str().is_empty() {
            let EntryType::Directory = kind else { return bad("the first entry is no folder") };
            modes.push((target, entry.header().mode()? & 0o777));
            continue;
        }
        if fs::symlink_metadata(&target).is_ok() {
            return bad(&format!("{} is there twice", path.display()));
        }
        match kind {
            EntryType::Directory => {
                within(folder, &path)?;
                DirBuilder::new().mode(0o700).create(&target)?;
                modes.push((target, entry.header().mode()? & 0o777));
            }
            EntryType::Regular | EntryType::Symlink => {
                within(folder, &path)?;
                entry.set_preserve_permissions(true);
                entry.set_preserve_mtime(true);
                entry.set_mask(0o7000);
                entry.unpack(&target)?;
            }
            other => return bad(&format!("{} is of kind {other:?}", path.display())),
        }
    }
    sync(folder, &modes)?;
    for (path, mode) in modes.iter().rev() {
        fs::set_permissions(path, Permissions::from_mode(*mode))?;
    }
    Ok(())
}

fn bad<T>(why: &str) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::InvalidData, format!("no checkpoint of a folder: {why}")))
}

/// The path without `./`.
fn relative(path: &Path) -> io::Result<PathBuf> {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::CurDir => {}
            _ => return bad(&format!("{} leads out of it", path.display())),
        }
    }
    Ok(plain)
}

/// Refuses a path that goes through a link.
fn within(folder: &Path, path: &Path) -> io::Result<()> {
    let mut at = folder.to_owned();
    for component in path.parent().into_iter().flat_map(Path::components) {
        at.push(component);
        if !fs::symlink_metadata(&at).is_ok_and(|meta| meta.is_dir()) {
            return bad(&format!("{} is in no folder of it", path.display()));
        }
    }
    Ok(())
}

/// One call for all files where the system has it.
#[cfg(target_os = "linux")]
fn sync(folder: &Path, _folders: &[(PathBuf, u32)]) -> io::Result<()> {
    let root = rustix::fs::open(folder, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
    Ok(rustix::fs::syncfs(root)?)
}

#[cfg(not(target_os = "linux"))]
fn sync(_folder: &Path, folders: &[(PathBuf, u32)]) -> io::Result<()> {
    for (path, _) in folders {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                fs::File::open(entry.path())?.sync_all()?;
            }
        }
        fs::File::open(path)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tar stream of these (path, kind, content or link target).
    fn tar(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, text) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o4755);
            // Past the crate's own checks, as an attacker would.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            let data = match kind {
                EntryType::Regular => *text,
                _ => {
                    header.as_old_mut().linkname[..text.len()].copy_from_slice(text.as_bytes());
                    ""
                }
            };
            header.set_size(data.len() as u64);
            header.set_cksum();
            builder.append(&header, data.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn nothing_leaves_the_folder() {
        use EntryType::{Directory, Fifo, Link, Regular, Symlink};
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        let to = outside.display().to_string();
        let evil: &[&[(&str, EntryType, &str)]] = &[
            &[("../x", Regular, "x")],
            &[("a/../../x", Regular, "x")],
            &[("/tmp/outlast-evil", Regular, "x")],
            &[("l", Symlink, &to), ("l/x", Regular, "x")],
            &[("l", Symlink, &to), ("l/x", Directory, "")],
            &[("l", Symlink, &to), ("l", Directory, "")],
            &[("l", Symlink, "x"), ("l", Regular, "x")],
            &[("l", Link, "/etc/passwd")],
            &[("f", Fifo, "")],
            &[("./", Regular, "x")],
            &[("missing/x", Regular, "x")],
        ];
        for (n, entries) in evil.iter().enumerate() {
            let error = unpack(&tar(entries)[..], &dir.path().join(n.to_string())).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{n}: {error}");
        }
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), evil.len() + 1);
        let fine = dir.path().join("fine");
        unpack(&tar(&[("./d", Directory, ""), ("d/x", Regular, "x")])[..], &fine).unwrap();
        let mode = fs::metadata(fine.join("d/x")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755, "no set-user-id");
        let whole = tar(&[("x", Regular, "text")]);
        assert!(unpack(&whole[..514], &dir.path().join("cut")).is_err());
        assert!(unpack(&b"no tar at all"[..], &dir.path().join("junk")).is_err());
    }
}
