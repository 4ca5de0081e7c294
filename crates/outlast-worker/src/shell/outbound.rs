//! The queue to the task that has the link.

use outlast_wire::frame::Packing;
use outlast_wire::v2::body::Kind;

/// An order to the link.
// Nearly all are frames: boxing them would cost more than the few small ones waste.
#[allow(clippy::large_enum_variant)]
pub(super) enum ToLink {
    /// Dial.
    Dial,
    /// Try whether the address accepts connections.
    Probe,
    /// Send this.
    Frame(Kind),
    /// The compression of frames from now on.
    Packing(Packing),
    /// Close the link.
    Close,
    /// The agent ends.
    End,
}
