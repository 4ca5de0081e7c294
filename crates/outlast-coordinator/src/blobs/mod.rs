//! The blobs of checkpoints: the store beside the database and what was accepted lately
//! (`service`), whose turn it is to upload (`uploads`), and the collection of what nothing refers
//! to (`collect`). `api::blobs` is how workers reach it.

pub(crate) mod collect;
pub(crate) mod service;
pub(crate) mod uploads;
