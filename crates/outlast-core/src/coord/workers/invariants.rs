//! Consistency of the fleet: its indexes, and the slots and bytes that it counts.

use super::bytes_of;
use crate::coord::workers::Fleet;
use crate::invariants::{Checked, must};

impl Fleet {
    /// Returns the first contradiction.
    pub fn invariants(&self) -> Checked {
        for (key, m) in &self.members {
            let name = &m.row.name;
            let used: u64 = m.held.attempts.values().map(|slots| u64::from(*slots)).sum();
            must(used == m.held.used, || {
                format!("{name} holds {used} slots' worth, and counts {}", m.held.used)
            })?;
            must(self.stores.get(&m.row.store_id) == Some(key), || {
                format!("{name} is not known by its store")
            })?;
            must(self.names.get(name) == Some(key), || format!("{name} is not known by its name"))?;
            must(m.link.conn.is_some() || !m.link.ready, || {
                format!("{name} is ready without a link")
            })?;
        }
        let counts = (self.members.len(), self.stores.len(), self.names.len());
        must(counts.0 == counts.1 && counts.0 == counts.2, || {
            format!("workers, stores and names: {counts:?}")
        })?;
        let bytes: usize = self.members.values().map(|m| bytes_of(&m.row)).sum();
        must(bytes == self.bytes, || format!("workers take {bytes} bytes, not {}", self.bytes))
    }
}
