//! The duty of a container's first process: processes that lose their parent become its children, and
//! stay in the process table when they end unless it takes them off.

use super::tree;
use std::collections::HashSet;
use std::time::Duration;

/// Time between two scans.
const LOOK: Duration = Duration::from_secs(2);

/// Starts a thread that reaps dead orphans, if this process is the first of its system or container.
/// Children that other code of this process waits for promptly are left to it: only processes that
/// were dead in two scans are reaped.
pub fn serve_as_init() {
    if std::process::id() != 1 {
        return;
    }
    let thread = std::thread::Builder::new().name("outlast-init".to_owned());
    let started = thread.spawn(|| {
        let mut earlier = HashSet::new();
        loop {
            std::thread::sleep(LOOK);
            tree::reap_strays(&mut earlier, true);
        }
    });
    if let Err(error) = started {
        tracing::warn!("nobody takes dead orphans off the process table: {error}");
    }
}
