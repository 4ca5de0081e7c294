//! The memory that the peer of one link may take here: messages that were read, and are not dealt with
//! or not durable yet. Over its share nothing more is read of it; its bytes wait in the network.

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The share of one link, in bytes as they are in memory. A message that takes more waits until nothing
/// else does.
pub(crate) const SHARE: usize = 16 << 20;
/// The same for a link of the v1 dialect, one message of which has up to 24 MiB.
pub(crate) const SHARE_V1: usize = 32 << 20;
/// Bytes of one permit.
const UNIT: usize = 1 << 10;

/// The share of one link.
pub(crate) struct Share {
    room: Arc<Semaphore>,
    units: usize,
}

/// Part of a share; dropped once what it was taken for is gone from memory.
#[derive(Debug)]
pub(crate) struct Held(#[allow(dead_code)] Option<OwnedSemaphorePermit>);

impl Share {
    /// A share of so many bytes.
    pub fn new(bytes: usize) -> Share {
        let units = bytes / UNIT;
        Share { room: Semaphore::new(units).into(), units }
    }

    /// Waits until there is room for so many bytes.
    pub async fn take(&self, bytes: usize) -> Held {
        let units = bytes.div_ceil(UNIT).clamp(1, self.units) as u32;
        Held(self.room.clone().acquire_many_owned(units).await.ok())
    }
}
