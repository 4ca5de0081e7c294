//! Whose a root folder is: one executor's at a time, and for ever the same id's.

use outlast_store::folder::{PRIVATE, close_folder};
use outlast_store::holder;
use rustix::fs::{FlockOperation, flock};
use std::collections::hash_map::RandomState;
use std::fs::{self, File, Permissions};
use std::hash::BuildHasher;
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// The file that an executor holds locked.
const LOCK: &str = "lock";

/// Makes the folder, which no other user may look into.
pub(crate) fn make(root: &Path) -> io::Result<()> {
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

/// The id that marks this root's processes. It is stored: a folder may be moved.
pub(super) fn id(root: &Path) -> io::Result<String> {
    let path = root.join("id");
    if let Ok(id) = fs::read_to_string(&path)
        && id.len() == 32
        && id.bytes().all(|b| b.is_ascii_hexdigit())
    {
        return Ok(id);
    }
    // std seeds these from the system's randomness.
    let seeded = RandomState::new();
    let id = format!("{:016x}{:016x}", seeded.hash_one(0_u8), seeded.hash_one(1_u8));
    let new = root.join("id.new");
    fs::write(&new, &id)?;
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
