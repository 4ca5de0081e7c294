//! Limits of the parts of a worker's reports on its tasks. Longer ones are cut, not refused: a worker
//! would send the same again forever.

use crate::message::OutboxItem;
use crate::spec::MAX_TASK_ID;
pub use crate::text::cut;
use crate::{Bytes, Checkpoint, StateUpdate, TaskOutcome};
use std::sync::Arc;

/// The longest `message` of an outcome, in bytes.
pub const MAX_MESSAGE_TEXT: usize = 16 << 10;
/// The longest end of an output that is kept, in bytes.
pub const MAX_TAIL: usize = 64 << 10;
/// The largest value of a function, in bytes of JSON.
pub const MAX_VALUE: usize = 1 << 20;
/// Size of a v1 worker's error as a value: its message and its traceback, escaped.
const MAX_DETAILS: usize = 2 << 20;
/// The largest `meta_json` of a checkpoint, in bytes: what the task said of it, and how to restore it.
pub const MAX_META: usize = 64 << 10;
/// The longest name of an artifact, in bytes.
pub const MAX_ARTIFACT: usize = 255;
/// The largest state of an attempt, in bytes of JSON.
pub const MAX_STATE: usize = 256 << 10;
/// The longest name of a manifest, in bytes.
const MAX_NAME: usize = 64;

fn shorten(text: &mut String, most: usize) -> bool {
    let long = text.len() > most;
    if long {
        *text = cut(text, most).to_owned();
    }
    long
}

/// Keeps the last bytes of a text, in memory of their own.
fn keep_end(bytes: &mut Bytes, most: usize) {
    if bytes.len() > most {
        *bytes = Bytes::copy_from_slice(&bytes[bytes.len() - most..]);
    }
}

/// Cuts what is too long. False: it says nothing that can be kept.
pub fn trim(item: &mut OutboxItem) -> bool {
    match item {
        OutboxItem::Outcome(outcome) => Arc::make_mut(outcome).trim(),
        OutboxItem::Checkpoint(checkpoint) => Arc::make_mut(checkpoint).trim(),
        OutboxItem::State(state) => state.fits(),
        OutboxItem::Nothing => false,
    }
}

impl TaskOutcome {
    fn trim(&mut self) -> bool {
        if self.task.len() > MAX_TASK_ID {
            return false;
        }
        shorten(&mut self.message, MAX_MESSAGE_TEXT);
        keep_end(&mut self.stdout_tail, MAX_TAIL);
        keep_end(&mut self.stderr_tail, MAX_TAIL);
        if self.value_json.len() > MAX_DETAILS {
            let note = format!(
                "its value of {} bytes was not kept: the limit is {MAX_VALUE}",
                self.value_json.len()
            );
            self.value_json = Bytes::new();
            self.message = match self.message.as_str() {
                "" => note,
                message => format!("{message}; {note}"),
            };
        }
        true
    }
}

impl Checkpoint {
    fn trim(&mut self) -> bool {
        if self.meta_json.len() > MAX_META {
            self.meta_json = Bytes::new();
        }
        self.detach();
        let named = self.dropped || !self.manifest.is_empty();
        named
            && self.manifest.len() <= MAX_NAME
            && self.task.len() <= MAX_TASK_ID
            && self.artifact.len() <= MAX_ARTIFACT
    }
}

impl StateUpdate {
    fn fits(&self) -> bool {
        self.task.len() <= MAX_TASK_ID && self.state_json.len() <= MAX_STATE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trimmed(mut item: OutboxItem) -> Option<OutboxItem> {
        trim(&mut item).then_some(item)
    }

    #[test]
    fn what_is_too_long_is_cut_and_said_to_be() {
        let outcome = TaskOutcome {
            message: "é".repeat(MAX_MESSAGE_TEXT),
            stdout_tail: [&[b'a'; MAX_TAIL][..], b"end"].concat().into(),
            value_json: vec![b'1'; MAX_DETAILS + 1].into(),
            ..Default::default()
        };
        let Some(OutboxItem::Outcome(cut)) = trimmed(OutboxItem::Outcome(outcome.into())) else {
            panic!()
        };
        assert!(cut.message.len() < MAX_MESSAGE_TEXT + 100 && cut.message.contains("not kept"));
        assert!(cut.stdout_tail.len() == MAX_TAIL && cut.stdout_tail.ends_with(b"end"));
        assert!(cut.value_json.is_empty());
        let ordinary = TaskOutcome { value_json: "1".into(), ..Default::default() };
        let ordinary = OutboxItem::Outcome(ordinary.into());
        assert_eq!(trimmed(ordinary.clone()), Some(ordinary));
    }

    #[test]
    fn what_cannot_be_kept_is_dropped() {
        let task: crate::TaskId = "t".repeat(MAX_TASK_ID + 1).into();
        let outcome = TaskOutcome { task, ..Default::default() };
        assert_eq!(trimmed(OutboxItem::Outcome(outcome.into())), None);
        let state_json = vec![b' '; MAX_STATE + 1].into();
        let state = StateUpdate { state_json, ..Default::default() };
        assert_eq!(trimmed(OutboxItem::State(state.into())), None);
        let manifest = Bytes::from_static(&[1; 32]);
        let meta_json = Bytes::from(vec![b' '; MAX_META + 1]);
        let good = Checkpoint { manifest, meta_json, ..Default::default() };
        let trimmed = |c: Checkpoint| trimmed(OutboxItem::Checkpoint(c.into()));
        let Some(OutboxItem::Checkpoint(kept)) = trimmed(good.clone()) else { panic!() };
        assert!(kept.meta_json.is_empty());
        assert_eq!(trimmed(Checkpoint { manifest: Bytes::new(), ..good.clone() }), None);
        let artifact = "a".repeat(MAX_ARTIFACT + 1);
        assert_eq!(trimmed(Checkpoint { artifact, ..good }), None);
    }
}
