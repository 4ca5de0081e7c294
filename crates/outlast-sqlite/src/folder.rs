//! Folders that other users may not look into: made so, or closed where a former version left them
//! open.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

/// For the owner only.
pub const PRIVATE: u32 = 0o700;
/// As before, but what others know the name of they may go through to.
pub const PASSABLE: u32 = 0o711;

/// Makes a folder with these permissions, or takes those of others away from one that is there. `ours`
/// looks whether an open folder is one that may be closed: it may be the user's own, named by
/// mistake.
///
/// # Errors
/// What the file system says. A folder that cannot be closed is no error, but is warned of.
pub fn close_folder(folder: &Path, mode: u32, ours: impl FnOnce(&Path) -> bool) -> io::Result<()> {
    match fs::metadata(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(PRIVATE).create(folder)?;
            return fs::set_permissions(folder, Permissions::from_mode(mode));
        }
        found => {
            let now = found?.mode() & 0o7777;
            if now & 0o077 & !mode == 0 {
                // One that is closed may have to be opened a little for others.
                let wanted = now | (mode & 0o077);
                if wanted != now && ours(folder) {
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
        close_folder(&dir.path().join("c"), PASSABLE, |_| false).unwrap();
        assert_eq!(mode(&dir.path().join("c")), 0o711);
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
}
