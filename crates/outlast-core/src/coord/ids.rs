//! Numbers by which a driver and the core name links and requests.

/// A link, as its driver numbers it. Never used twice.
pub type ConnId = u64;

/// A question, as its driver numbers it.
pub type RequestId = u64;
