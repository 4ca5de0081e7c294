//! Workers of the v1 dialect, with their memory only, as clients of the replaced system have it.

mod client;
mod faults;
mod link;
pub(crate) mod peer;
