//! How long the parts of what a worker says of its tasks may be. What is longer is cut, not refused: a
//! worker would offer the same again for ever.

use crate::spec::MAX_TASK_ID;
use crate::v2::{Checkpoint, OutboxItem, StateUpdate, TaskOutcome, outbox_item::Kind};
use bytes::Bytes;

/// The longest `message` of an outcome, in bytes.
pub const MAX_MESSAGE_TEXT: usize = 16 << 10;
/// The longest end of an output that is kept, in bytes.
pub const MAX_TAIL: usize = 64 << 10;
/// The largest value of a function, in bytes of JSON.
pub const MAX_VALUE: usize = 1 << 20;
/// What a v1 worker's error may take as a value: its message and its traceback, escaped.
const MAX_DETAILS: usize = 2 << 20;
/// The largest `meta_json` of a checkpoint, in bytes: what the task said of it, and how to restore it.
pub const MAX_META: usize = 64 << 10;
/// The longest name of an artifact, in bytes.
pub const MAX_ARTIFACT: usize = 255;
/// The largest state of an attempt, in bytes of JSON.
pub const MAX_STATE: usize = 256 << 10;
/// The longest name of a manifest, in bytes.
const MAX_NAME: usize = 64;

/// At most so many bytes of a text, at a boundary of characters.
pub fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn shorten(text: &mut String, most: usize) -> bool {
    let long = text.len() > most;
    if long {
        *text = cut(text, most).to_owned();
    }
    long
}

/// Its last bytes, in memory of their own.
fn keep_end(bytes: &mut Bytes, most: usize) {
    if bytes.len() > most {
        *bytes = Bytes::copy_from_slice(&bytes[bytes.len() - most..]);
    }
}

/// Cuts what is too long. False: it says nothing that can be kept.
pub fn trim(item: &mut OutboxItem) -> bool {
    match &mut item.kind {
        Some(Kind::Outcome(outcome)) => outcome.trim(),
        Some(Kind::Checkpoint(checkpoint)) => checkpoint.trim(),
        Some(Kind::State(state)) => state.trim(),
        None => false,
    }
}

impl TaskOutcome {
    fn trim(&mut self) -> bool {
        if self.task_id.len() > MAX_TASK_ID {
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
            && self.task_id.len() <= MAX_TASK_ID
            && self.artifact.len() <= MAX_ARTIFACT
    }

    /// Gives it memory of its own: it outlives the message that it came in, which may be large.
    pub fn detach(&mut self) {
        self.manifest = Bytes::copy_from_slice(&self.manifest);
        self.meta_json = Bytes::copy_from_slice(&self.meta_json);
    }
}

impl StateUpdate {
    fn trim(&mut self) -> bool {
        self.task_id.len() <= MAX_TASK_ID && self.state_json.len() <= MAX_STATE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trimmed(kind: Kind) -> Option<Kind> {
        let mut item = OutboxItem { kind: Some(kind) };
        trim(&mut item).then_some(item.kind).flatten()
    }

    #[test]
    fn what_is_too_long_is_cut_and_said_to_be() {
        let outcome = TaskOutcome {
            message: "é".repeat(MAX_MESSAGE_TEXT),
            stdout_tail: [&[b'a'; MAX_TAIL][..], b"end"].concat().into(),
            value_json: vec![b'1'; MAX_DETAILS + 1].into(),
            ..Default::default()
        };
        let Some(Kind::Outcome(cut)) = trimmed(Kind::Outcome(outcome)) else { panic!() };
        assert!(cut.message.len() < MAX_MESSAGE_TEXT + 100 && cut.message.contains("not kept"));
        assert!(cut.stdout_tail.len() == MAX_TAIL && cut.stdout_tail.ends_with(b"end"));
        assert!(cut.value_json.is_empty());
        let ordinary = TaskOutcome { value_json: "1".into(), ..Default::default() };
        let same = trimmed(Kind::Outcome(ordinary.clone()));
        assert_eq!(same, Some(Kind::Outcome(ordinary)));
    }

    #[test]
    fn what_cannot_be_kept_is_dropped() {
        let task_id = "t".repeat(MAX_TASK_ID + 1);
        let outcome = TaskOutcome { task_id: task_id.clone(), ..Default::default() };
        assert_eq!(trimmed(Kind::Outcome(outcome)), None);
        let state =
            StateUpdate { state_json: vec![b' '; MAX_STATE + 1].into(), ..Default::default() };
        assert_eq!(trimmed(Kind::State(state)), None);
        let manifest = Bytes::from_static(&[1; 32]);
        let meta_json = Bytes::from(vec![b' '; MAX_META + 1]);
        let good = Checkpoint { manifest, meta_json, ..Default::default() };
        let Some(Kind::Checkpoint(kept)) = trimmed(Kind::Checkpoint(good.clone())) else {
            panic!()
        };
        assert!(kept.meta_json.is_empty());
        let unnamed = Checkpoint { manifest: Bytes::new(), ..good.clone() };
        assert_eq!(trimmed(Kind::Checkpoint(unnamed)), None);
        let artifact = "a".repeat(MAX_ARTIFACT + 1);
        assert_eq!(trimmed(Kind::Checkpoint(Checkpoint { artifact, ..good })), None);
    }
}
