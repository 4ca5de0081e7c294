//! The duty of a container's first process: processes that lose their parent become its children, and
//! stay in the process table when they end unless it takes them off.

use super::tree;
use std::collections::HashSet;
use std::time::Duration;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(2);

/// If this process is its system's or container's first, takes dead orphans off the process table
/// from now on, on a thread of its own. What other code of this process waits for at once is left to
/// it: only what was dead at two looks is taken.
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
