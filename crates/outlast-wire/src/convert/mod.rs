//! Conversions between the messages of wire v2 and the types of `outlast-model`, in both directions.
//!
//! A number that a newer version made becomes the type's first variant; a message that the other side
//! never sends is refused.

mod report;
mod to_coordinator;
mod to_worker;

use crate::v2;
use outlast_model::message::Cursor;
use outlast_model::{AttemptId, Lane, TaskId};
pub use to_worker::frames;

/// A message that is not sent in this direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message of this kind is not sent in this direction")]
pub struct Unexpected;

/// Defines the conversions between a type and its message in both directions, from one list of their fields. Fields
/// of another type, or another name (`ours => wire`), have a function for each direction.
macro_rules! twins {
    ($ours:ident = $wire:ident {
        same: [$($same:ident),* $(,)?],
        $($field:ident => $twin:ident: $to:expr, $from:expr;)*
    }) => {
        impl From<$ours> for crate::v2::$wire {
            fn from(value: $ours) -> Self {
                crate::v2::$wire { $($same: value.$same,)* $($twin: ($to)(value.$field),)* }
            }
        }

        impl From<crate::v2::$wire> for $ours {
            fn from(value: crate::v2::$wire) -> Self {
                $ours { $($same: value.$same,)* $($field: ($from)(value.$twin),)* }
            }
        }
    };
}
use twins;

fn each<T, U: From<T>>(items: Vec<T>) -> Vec<U> {
    items.into_iter().map(U::from).collect()
}

fn name(task: TaskId) -> String {
    task.to_string()
}

twins! { AttemptId = AttemptRef {
    same: [epoch],
    task => task_id: name, TaskId::from;
} }

twins! { Cursor = Cursor {
    same: [seq],
    lane => lane: i32::from, Lane::from;
} }

/// A type whose bytes in stores and files are those of a message of wire v2.
pub trait Kept: Clone + Sized {
    /// The message of wire v2.
    type Wire: prost::Message + Default + From<Self> + Into<Self>;

    /// The bytes of a value.
    fn to_bytes(&self) -> Vec<u8> {
        prost::Message::encode_to_vec(&Self::Wire::from(self.clone()))
    }

    /// The value of these bytes.
    ///
    /// # Errors
    /// They are not such a message.
    fn from_bytes(bytes: &[u8]) -> Result<Self, prost::DecodeError> {
        <Self::Wire as prost::Message>::decode(bytes).map(Into::into)
    }
}

impl Kept for outlast_model::TaskOutcome {
    type Wire = v2::TaskOutcome;
}

impl Kept for outlast_model::Checkpoint {
    type Wire = v2::Checkpoint;
}

impl Kept for outlast_model::StateUpdate {
    type Wire = v2::StateUpdate;
}
