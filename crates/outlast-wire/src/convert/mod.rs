//! Conversions between the messages of wire v2 and the types of `outlast-model`, in both directions.
//!
//! A number that a newer version made becomes the type's first variant; a message that the other side
//! never sends is refused.

mod report;
mod to_coordinator;
mod to_worker;

use crate::v2;
pub use to_worker::frames;

/// A message that is not sent in this direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message of this kind is not sent in this direction")]
pub struct Unexpected;

fn attempt(id: outlast_model::AttemptId) -> v2::AttemptRef {
    v2::AttemptRef { task_id: id.task.to_string(), epoch: id.epoch }
}

fn attempt_id(id: v2::AttemptRef) -> outlast_model::AttemptId {
    outlast_model::AttemptId { task: id.task_id.into(), epoch: id.epoch }
}

fn cursor(cursor: outlast_model::message::Cursor) -> v2::Cursor {
    v2::Cursor { lane: cursor.lane.number(), seq: cursor.seq }
}

fn cursor_of(cursor: v2::Cursor) -> outlast_model::message::Cursor {
    let lane = outlast_model::Lane::of(cursor.lane.into());
    outlast_model::message::Cursor { lane, seq: cursor.seq }
}

fn all<T, U>(items: impl IntoIterator<Item = T>, one: impl FnMut(T) -> U) -> Vec<U> {
    items.into_iter().map(one).collect()
}

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
