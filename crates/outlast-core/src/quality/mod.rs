//! Measurements of a worker and its link: round-trip times, suspicion, loss, goodput, and the points of
//! its history. Pure: times come in, as microseconds of a clock that never goes back. Makes no
//! decisions; `alerts` evaluates the measurements.

mod meter;
mod phi;
mod point;
mod rate;
mod rtt;
#[cfg(test)]
mod tests;

pub use meter::{
    Beat, ByteCounts, Compression, End, LinkEnds, LinkNow, MessageCounts, Meter, Returns, Size,
    Summary, Totals,
};
pub use phi::{MAX_PHI, Phi};
pub use point::{Point, RttSum, TaskSum};
pub use rate::Rate;
pub use rtt::{RTT_SAMPLES, Rtt, RttWindow};

/// Microseconds of a clock that never goes back.
pub type Micros = u64;
