//! For `outlast-fuzz`: readers that are nobody else's business.

pub use crate::keeper::fuzz::{keeper, keeper_seeds};
pub use crate::local::fuzz::{files, files_seeds};
