//! Ownership of a root folder: by one executor at a time, and permanently by one id.

use outlast_spawn::User;
use outlast_store::folder::{PASSABLE, PRIVATE, close_folder, is_passable};
use outlast_store::holder;
use rustix::fs::{FlockOperation, flock};
use std::collections::hash_map::RandomState;
use std::fs::{self, File, Permissions};
use std::hash::BuildHasher;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// The file that an executor holds locked.
const LOCK: &str = "lock";

/// Makes the folder, which no other user may look into. One whom tasks run as may go through it to
/// folders of tasks; also one whom tasks of another executor may still run as, until this one has the
/// folder.
pub(crate) fn make(root: &Path, user: Option<&User>) -> io::Result<()> {
    let Some(user) = user else {
        return if is_passable(root) { Ok(()) } else { close(root) };
    };
    if !root.exists() {
        close_folder(root, PASSABLE, |_| false)?;
    }
    super::user::share(root, user)
}

/// Closes the folder to all other users.
pub(super) fn close(root: &Path) -> io::Result<()> {
    close_folder(root, PRIVATE, |root| root.join(LOCK).exists())
}

/// Keeps other executors out; they get `WouldBlock`.
pub(super) fn take_lock(root: &Path) -> io::Result<File> {
    // For this user only: who can open it can lock it.
    let file = File::options().create(true).append(true).mode(0o600).open(root.join(LOCK))?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|error| {
        let who = holder::signed(&root.join(LOCK));
        let text = format!("another worker runs tasks in {}: {who} ({error})", root.display());
        io::Error::new(io::Error::from(error).kind(), text)
    })?;
    holder::sign(&file);
    Ok(file)
}

/// The id that marks this root's processes. It is stored: a folder may be moved. A copy of the
/// folder is another root: what it marked is not its own to kill. So the file names its own inode.
pub(super) fn id(root: &Path) -> io::Result<String> {
    let path = root.join("id");
    let known = fs::read_to_string(&path).ok();
    let known = known.as_deref().map(|text| text.split_once(' ').unwrap_or((text, "")));
    let known = known.filter(|(id, _)| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()));
    let id = match known {
        Some((id, inode)) if inode == fs::metadata(&path)?.ino().to_string() => {
            return Ok(id.to_owned());
        }
        // Of a former version, which named none.
        Some((id, "")) => id.to_owned(),
        _ => {
            // std seeds these from the system's randomness.
            let seeded = RandomState::new();
            format!("{:016x}{:016x}", seeded.hash_one(0_u8), seeded.hash_one(1_u8))
        }
    };
    let new = root.join("id.new");
    let mut file = File::create(&new)?;
    write!(file, "{id} {}", file.metadata()?.ino())?;
    fs::rename(new, path)?;
    Ok(id)
}

/// Kills what a dead executor of this root left running. Returns how many processes.
///
/// # Errors
/// `WouldBlock` if an executor has the root.
pub(crate) fn sweep(root: &Path) -> io::Result<usize> {
    let _lock = take_lock(root)?;
    Ok(super::tree::sweep(&id(root)?))
}

/// Makes orphans of tasks children of this process, if the system can.
#[cfg(target_os = "linux")]
pub(super) fn adopt_orphans() -> bool {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).is_ok()
}

#[cfg(not(target_os = "linux"))]
pub(super) fn adopt_orphans() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moved_folder_keeps_its_id_and_a_copy_gets_another() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("a")).unwrap();
        let own = id(&at("a")).unwrap();
        assert_eq!(id(&at("a")).unwrap(), own);
        fs::rename(at("a"), at("b")).unwrap();
        assert_eq!(id(&at("b")).unwrap(), own);
        fs::create_dir(at("c")).unwrap();
        fs::copy(at("b").join("id"), at("c").join("id")).unwrap();
        let other = id(&at("c")).unwrap();
        assert_ne!(other, own);
        assert_eq!((id(&at("c")).unwrap(), id(&at("b")).unwrap()), (other, own.clone()));
        // As a former version wrote it.
        fs::write(at("b").join("id"), &own).unwrap();
        assert_eq!((id(&at("b")).unwrap(), id(&at("b")).unwrap()), (own.clone(), own));
    }
}
