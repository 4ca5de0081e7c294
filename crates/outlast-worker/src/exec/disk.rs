//! The room of the disk below an executor's folder.

use super::config::Config;

/// The free bytes of the disk, if they are fewer than the reserve.
pub(super) fn too_little_left(config: &Config) -> Option<u64> {
    let disk = rustix::fs::statvfs(&config.root).ok()?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    (free < config.reserve_bytes).then_some(free)
}
