//! What the core does not hold in memory, and its driver can look up at once.

use crate::records::TaskRow;

/// Looked up in the same thread, so that nothing changes before the core decides.
pub trait Lookup {
    /// A task that is over, from the store.
    fn task(&self, id: &str) -> Option<TaskRow>;
    /// Whether the blob of this manifest is complete and durable here; if so it stays for long
    /// enough to be referred to.
    fn has_blob(&self, manifest: &[u8]) -> bool;
}

/// Knows nothing: for messages that need nothing, and for tests.
impl Lookup for () {
    fn task(&self, _: &str) -> Option<TaskRow> {
        None
    }
    fn has_blob(&self, _: &[u8]) -> bool {
        false
    }
}
