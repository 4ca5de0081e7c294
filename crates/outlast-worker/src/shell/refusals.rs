//! Refusals of the core and of the blob store, as a task gets them.

use crate::local::HostError;
use outlast_blob::BlobError;
use outlast_core::worker::Refused;

/// Seconds after which a task may try again while there is no room.
const RETRY: u32 = 5;

/// The error for a request that the core refused.
pub(super) fn refused(why: &Refused) -> HostError {
    match why {
        Refused::NotRunning(..) => HostError::Ended(why.to_string()),
        Refused::TooLarge { what, limit, .. } => {
            HostError::TooLarge { what: (*what).into(), limit: *limit as u64 }
        }
    }
}

/// The error for bytes that the blob store did not take or give.
pub(super) fn of_blobs(error: BlobError) -> HostError {
    match error {
        BlobError::Full { used, budget, .. } => {
            let detail = "checkpoints wait to be taken over by the coordinator".into();
            HostError::Full { budget, used, detail, retry_after: Some(RETRY) }
        }
        BlobError::DiskFull => {
            let detail = "the disk of the worker's state folder is full".into();
            HostError::Full { budget: 0, used: 0, detail, retry_after: Some(RETRY) }
        }
        BlobError::Source(error) => HostError::of_file("reading it", &error),
        error => HostError::Internal(error.to_string()),
    }
}
