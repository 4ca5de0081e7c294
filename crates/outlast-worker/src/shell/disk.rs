//! Checks that the state folder has room and that blobs can be stored, before either is needed, so that
//! an idle worker with a full disk gets no tasks.

use super::driver::Driver;
use super::now;
use outlast_blob::{BlobError, Blobs};
use outlast_core::worker::Unfit;
use rustix::fs::{StatVfs, StatVfsMountFlags};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Between looks at the state folder's disk.
const EVERY: Duration = Duration::from_secs(5);
/// With less room than the first the disk counts as full, until there is the second, in bytes.
const ROOM: (u64, u64) = (1 << 20, 4 << 20);

/// Looks at the disk now and then, and tries blobs again after a failure.
pub(super) async fn watch(folder: PathBuf, blobs: Blobs, driver: Arc<Driver>) {
    let is_root = rustix::process::geteuid().is_root();
    let mut full = false;
    loop {
        let place = folder.clone();
        // On a disk that hangs this hangs too: then a commit does, and says so.
        let seen = tokio::task::spawn_blocking(move || rustix::fs::statvfs(&place)).await;
        if let Ok(Ok(disk)) = seen {
            let why = trouble(&disk, is_root, full);
            if why.is_some() != full {
                full = why.is_some();
                if let Some(why) = why {
                    tracing::error!("the state folder has no room for tasks: {why}");
                }
                driver.feed(|core| core.set_unfit(now(), Unfit::Disk, why.map(Into::into)));
            }
        }
        if driver.room.blobs_fail.load(Ordering::Relaxed) {
            let store = blobs.clone();
            let tried = tokio::task::spawn_blocking(move || store.put_small(&b"probe"[..])).await;
            if let Ok(result) = tried {
                note(&driver, &result);
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Reason why nothing can be written there, as far as the file system says.
fn trouble(disk: &StatVfs, is_root: bool, full: bool) -> Option<&'static str> {
    let blocks = if is_root { disk.f_bfree } else { disk.f_bavail };
    let inodes = if is_root { disk.f_ffree } else { disk.f_favail };
    let least = if full { ROOM.1 } else { ROOM.0 };
    if disk.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Some("Read-only file system");
    }
    // Some file systems do not count.
    let short = disk.f_blocks > 0 && blocks.saturating_mul(disk.f_frsize) < least;
    let none = disk.f_files > 0 && inodes == 0;
    match (short, none) {
        (true, _) => Some("No space left on device"),
        (_, true) => Some("no inodes left"),
        _ => None,
    }
}

/// A blob was kept, or could not be.
pub(super) fn note<T>(driver: &Arc<Driver>, result: &Result<T, BlobError>) {
    let why = match result {
        Ok(_) => None,
        Err(BlobError::DiskFull) => Some("No space left on device".to_owned()),
        Err(error @ BlobError::Io { .. }) => Some(error.to_string()),
        // The budget, what a task brings, or damage: not the disk.
        Err(_) => return,
    };
    let fails = why.is_some();
    if driver.room.blobs_fail.swap(fails, Ordering::Relaxed) || fails {
        if let Some(why) = &why {
            tracing::error!("checkpoints cannot be kept: {why}");
        }
        driver.feed(|core| core.set_unfit(now(), Unfit::Blobs, why));
    }
}

/// The system's own words for an error, without its number.
pub(super) fn words(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_full_until_there_is_more_room_than_it_was_full_at() {
        let mut disk = rustix::fs::statvfs("/").unwrap();
        disk.f_flag = StatVfsMountFlags::empty();
        (disk.f_frsize, disk.f_blocks, disk.f_bfree, disk.f_bavail) = (4096, 1000, 2000, 100);
        (disk.f_files, disk.f_ffree, disk.f_favail) = (10, 2, 1);
        assert_eq!(trouble(&disk, true, false), None);
        assert_eq!(trouble(&disk, false, false), Some("No space left on device"));
        disk.f_bavail = 300;
        assert_eq!(trouble(&disk, false, false), None);
        assert_eq!(trouble(&disk, false, true), Some("No space left on device"));
        disk.f_favail = 0;
        assert_eq!(trouble(&disk, false, false), Some("no inodes left"));
        (disk.f_files, disk.f_blocks) = (0, 0);
        assert_eq!(trouble(&disk, false, true), None, "it does not count");
        disk.f_flag = StatVfsMountFlags::RDONLY;
        assert_eq!(trouble(&disk, true, false), Some("Read-only file system"));
    }
}
