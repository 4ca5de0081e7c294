//! Folders that other users may not look into: made so, or closed where a former version left them
//! open.

use std::fs::{self, DirBuilder, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

/// Permissions for the owner only.
pub const PRIVATE: u32 = 0o700;
/// Permissions for the owner; other users may traverse the folder to known names.
pub const PASSABLE: u32 = 0o711;

/// Makes a folder with these permissions, with all above it, or takes those of others away from one that
/// is there. `ours` looks whether an open folder is one that may be closed: it may be the user's own,
/// named by mistake.
///
/// # Errors
/// What the file system says. A folder that cannot be closed is no error, but is warned of.
pub fn close_folder(folder: &Path, mode: u32, ours: impl FnOnce(&Path) -> bool) -> io::Result<()> {
    match fs::metadata(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let absent = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
            let made: Vec<&Path> = folder.ancestors().take_while(absent).collect();
            DirBuilder::new().recursive(true).mode(PRIVATE).create(folder)?;
            let open = |folder| fs::set_permissions(folder, Permissions::from_mode(mode));
            return made.into_iter().try_for_each(open);
        }
        found => {
            let now = found?.mode() & 0o7777;
            if now & 0o077 & !mode == 0 {
                // One that is closed may have to be opened a little for others.
                let wanted = now | (mode & 0o077);
                if wanted != now && (is_empty(folder) || ours(folder)) {
                    fs::set_permissions(folder, Permissions::from_mode(wanted))?;
                }
                return Ok(());
            }
            let name = folder.display();
            // One that all write to is not ours, whatever is in it.
            let shared = now & 0o1000 != 0;
            let closed = !shared
                && (is_empty(folder) || ours(folder))
                && fs::set_permissions(folder, Permissions::from_mode(mode)).is_ok();
            if closed {
                tracing::info!(
                    "{name}: other users could look into it (mode {now:o}); now {mode:o}"
                );
            } else {
                tracing::warn!(
                    "{name}: other users may look into it (mode {now:o}); give a folder of its own"
                );
            }
        }
    }
    Ok(())
}

/// Takes the rights of others from what lies in a folder, as far as `which` names it; links stay as they
/// are.
fn close_entries(folder: &Path, which: impl Fn(&str, &Metadata) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let meta = match entry.metadata() {
            // What is there for a moment only may be gone.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            meta => meta?,
        };
        let open = !meta.is_symlink() && meta.mode() & 0o077 != 0;
        if open && which(&entry.file_name().to_string_lossy(), &meta) {
            let closed = Permissions::from_mode(meta.mode() & 0o700);
            match fs::set_permissions(entry.path(), closed) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                done => done?,
            }
        }
    }
    Ok(())
}

/// Makes a folder that others may go through and not list, or one that is there into such a folder. What
/// `which` names of what lies in it is closed before. May be repeated while the folder is in use.
///
/// # Errors
/// As of [`close_folder`].
pub fn share_folder(
    folder: &Path,
    ours: impl Fn(&Path) -> bool,
    which: impl Fn(&str, &Metadata) -> bool,
) -> io::Result<()> {
    if folder.exists() && !is_passable(folder) {
        close_folder(folder, PRIVATE, &ours)?;
    }
    if folder.exists() {
        close_entries(folder, which)?;
    }
    close_folder(folder, PASSABLE, ours)
}

/// Returns whether others may go through a folder, and no more.
pub fn is_passable(folder: &Path) -> bool {
    fs::metadata(folder).is_ok_and(|meta| meta.mode() & 0o777 == PASSABLE)
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_folders_are_closed_if_they_are_ours() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        let set = |path: &Path, mode| {
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        };
        // Made, with all above it.
        let made = dir.path().join("a/b");
        close_folder(&made, PRIVATE, |_| false).unwrap();
        assert_eq!([mode(&made), mode(made.parent().unwrap())], [0o700, 0o700]);
        let passable = dir.path().join("c/d");
        close_folder(&passable, PASSABLE, |_| false).unwrap();
        assert_eq!([mode(&passable), mode(passable.parent().unwrap())], [0o711, 0o711]);
        // An empty one may be anybody's; one with something in it must be known.
        set(&made, 0o755);
        close_folder(&made, PRIVATE, |_| false).unwrap();
        assert_eq!(mode(&made), 0o700);
        fs::write(made.join("x"), "").unwrap();
        set(&made, 0o755);
        close_folder(&made, PRIVATE, |_| false).unwrap();
        assert_eq!(mode(&made), 0o755);
        close_folder(&made, PRIVATE, |folder| folder.join("x").exists()).unwrap();
        assert_eq!(mode(&made), 0o700);
        // From closed to passable and back; what the owner took from itself stays so.
        close_folder(&made, PASSABLE, |_| true).unwrap();
        assert_eq!(mode(&made), 0o711);
        close_folder(&made, PRIVATE, |_| true).unwrap();
        assert_eq!(mode(&made), 0o700);
        // Never one like /tmp.
        set(&made, 0o1777);
        close_folder(&made, PRIVATE, |_| true).unwrap();
        assert_eq!(mode(&made), 0o1777);
    }

    #[test]
    fn what_is_named_in_a_shared_folder_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("sub")).unwrap();
        for name in ["a", "b"] {
            fs::write(at(name), "").unwrap();
        }
        for name in ["sub", "a", "b"] {
            fs::set_permissions(at(name), Permissions::from_mode(0o755)).unwrap();
        }
        std::os::unix::fs::symlink("b", at("link")).unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        share_folder(dir.path(), |_| true, |name, _| name != "b").unwrap();
        assert_eq!(fs::metadata(dir.path()).unwrap().mode() & 0o777, 0o711);
        let mode = |name: &str| fs::metadata(at(name)).unwrap().mode() & 0o777;
        assert_eq!(["sub", "a", "b", "link"].map(mode), [0o700, 0o700, 0o755, 0o755]);
    }
}
