//! Protocol of agent and keeper. A frame is a length (4 bytes, little endian) and a protobuf message.
//!
//! An agent sends `Hello`, receives `Welcome`, and then either attaches to the keeper (`Attach`) or
//! asks it to end (`Retire`). These four messages and their fields never change, so that any two
//! versions can at least disconnect. After `Attach` the keeper reports its attempts, then `Ready`.
//! Unknown messages are skipped.

use outlast_wire::has_few_fields;
use outlast_wire::v2::TaskOutcome;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use std::io::{self, Read};

/// Protocol version.
pub(super) const VERSION: u32 = 1;
/// The oldest that is understood.
pub(super) const OLDEST: u32 = 1;
/// No message is longer.
const MAX_FRAME: usize = 16 << 20;
/// Levels of messages in messages, and fields on all of them: each may become a value of some fifty
/// bytes, in a list that doubles.
const LEVELS: u32 = 4;
const MAX_FIELDS: usize = 1 << 18;

#[derive(Clone, PartialEq, Message)]
pub(super) struct Hello {
    #[prost(uint32, tag = "1")]
    pub version: u32,
    #[prost(uint32, tag = "2")]
    pub oldest: u32,
    /// The software's version.
    #[prost(string, tag = "3")]
    pub software: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Welcome {
    #[prost(uint32, tag = "1")]
    pub version: u32,
    #[prost(uint32, tag = "2")]
    pub oldest: u32,
    #[prost(string, tag = "3")]
    pub software: String,
    #[prost(uint32, tag = "4")]
    pub pid: u32,
    /// Attempts that wait or run.
    #[prost(uint64, tag = "5")]
    pub busy: u64,
    /// Sets this keeper apart from every other.
    #[prost(uint64, tag = "6")]
    pub instance: u64,
    /// Processes that it killed when it started.
    #[prost(uint64, tag = "7")]
    pub swept: u64,
    /// The number of the user whom its tasks run as; none: its own.
    #[prost(uint32, optional, tag = "8")]
    pub user: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Attach {
    #[prost(uint32, tag = "1")]
    pub slots: u32,
    #[prost(message, repeated, tag = "2")]
    pub env: Vec<Variable>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Nothing {}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Variable {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Id {
    #[prost(string, tag = "1")]
    pub task: String,
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct StartMsg {
    #[prost(message, required, tag = "1")]
    pub id: Id,
    /// JSON, as users write it.
    #[prost(bytes = "vec", tag = "2")]
    pub spec: Vec<u8>,
    #[prost(string, tag = "3")]
    pub worker: String,
    #[prost(message, repeated, tag = "4")]
    pub env: Vec<Variable>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct StopMsg {
    #[prost(message, required, tag = "1")]
    pub id: Id,
    /// The worker cannot go on with it; else it is not wanted.
    #[prost(bool, tag = "2")]
    pub interrupt: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SignalMsg {
    #[prost(message, required, tag = "1")]
    pub id: Id,
    #[prost(string, tag = "2")]
    pub name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Forget {
    #[prost(message, repeated, tag = "1")]
    pub ids: Vec<Id>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Shutdown {
    #[prost(bool, tag = "1")]
    pub interrupt: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct HeldMsg {
    #[prost(message, required, tag = "1")]
    pub id: Id,
    /// Start time in Unix ms; 0 while it waits.
    #[prost(int64, tag = "2")]
    pub started_at_ms: i64,
    #[prost(bool, tag = "3")]
    pub paused: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Finished {
    #[prost(message, required, tag = "1")]
    pub outcome: TaskOutcome,
    /// The outcome's cause by the number that keepers have for it, which older agents read and older
    /// keepers give instead of a cause in the outcome.
    #[prost(uint32, tag = "2")]
    pub cause: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Unfit {
    /// Reason; none once tasks can be started again.
    #[prost(string, optional, tag = "1")]
    pub reason: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ToKeeper {
    #[prost(oneof = "Ask", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11")]
    pub ask: Option<Ask>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Ask {
    #[prost(message, tag = "1")]
    Hello(Hello),
    #[prost(message, tag = "2")]
    Attach(Attach),
    /// Request to end, if nothing waits or runs.
    #[prost(message, tag = "3")]
    Retire(Nothing),
    #[prost(message, tag = "4")]
    Start(StartMsg),
    #[prost(message, tag = "5")]
    Stop(StopMsg),
    #[prost(message, tag = "6")]
    Recall(Id),
    #[prost(message, tag = "7")]
    Pause(Id),
    #[prost(message, tag = "8")]
    Resume(Id),
    #[prost(message, tag = "9")]
    Signal(SignalMsg),
    #[prost(message, tag = "10")]
    Forget(Forget),
    #[prost(message, tag = "11")]
    Shutdown(Shutdown),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ToAgent {
    #[prost(oneof = "Say", tags = "1, 2, 3, 4, 5, 6, 7, 8, 60")]
    pub say: Option<Say>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Say {
    #[prost(message, tag = "1")]
    Welcome(Welcome),
    #[prost(message, tag = "2")]
    Held(HeldMsg),
    #[prost(message, tag = "3")]
    Finished(Finished),
    /// End of the report of attempts.
    #[prost(message, tag = "4")]
    Ready(Nothing),
    #[prost(message, tag = "5")]
    Started(HeldMsg),
    #[prost(message, tag = "6")]
    Paused(Id),
    #[prost(message, tag = "7")]
    Resumed(Id),
    /// Last message after a shutdown, once everything was reported.
    #[prost(message, tag = "8")]
    Goodbye(Nothing),
    /// Report that nothing can be started; an older agent skips it.
    #[prost(message, tag = "60")]
    Unfit(Unfit),
}

impl From<Ask> for ToKeeper {
    fn from(ask: Ask) -> Self {
        ToKeeper { ask: Some(ask) }
    }
}

impl From<Say> for ToAgent {
    fn from(say: Say) -> Self {
        ToAgent { say: Some(say) }
    }
}

impl From<&outlast_core::AttemptId> for Id {
    fn from(id: &outlast_core::AttemptId) -> Self {
        Id { task: id.task.to_string(), epoch: id.epoch }
    }
}

impl From<&Id> for outlast_core::AttemptId {
    fn from(id: &Id) -> Self {
        outlast_core::AttemptId { task: id.task.as_str().into(), epoch: id.epoch }
    }
}

pub(super) fn variables(env: &[(String, String)]) -> Vec<Variable> {
    let variable =
        |(name, value): &(String, String)| Variable { name: name.clone(), value: value.clone() };
    env.iter().map(variable).collect()
}

pub(super) fn pairs(env: Vec<Variable>) -> Vec<(String, String)> {
    env.into_iter().map(|v| (v.name, v.value)).collect()
}

/// Appends a message with its length.
pub(super) fn frame(message: &impl Message, to: &mut Vec<u8>) {
    let len = message.encoded_len();
    to.reserve(len + 4);
    to.extend_from_slice(&(len as u32).to_le_bytes());
    message.encode_raw(to);
}

/// Appends a `Finished` that is encoded already, as [`frame`] would.
pub(super) fn frame_finished(finished: &[u8], to: &mut Vec<u8>) {
    let len = finished.len() as u64;
    let whole = 1 + encoded_len_varint(len) + finished.len();
    to.reserve(whole + 4);
    to.extend_from_slice(&(whole as u32).to_le_bytes());
    encode_key(3, WireType::LengthDelimited, to);
    encode_varint(len, to);
    to.extend_from_slice(finished);
}

/// Takes frames apart, as many as a read brings.
#[derive(Debug)]
pub(super) struct Frames {
    buffer: Vec<u8>,
    /// Start of the bytes that were not taken.
    from: usize,
    to: usize,
}

impl Frames {
    pub fn new() -> Frames {
        Frames { buffer: vec![0; 64 << 10], from: 0, to: 0 }
    }

    /// Waits for bytes and takes in as many as there are. False: the other side has closed.
    pub fn read(&mut self, stream: &mut impl Read) -> io::Result<bool> {
        self.buffer.copy_within(self.from..self.to, 0);
        (self.from, self.to) = (0, self.to - self.from);
        if self.to == self.buffer.len() {
            self.buffer.resize(2 * self.to, 0);
        }
        loop {
            match stream.read(&mut self.buffer[self.to..]) {
                Ok(n) => {
                    self.to += n;
                    return Ok(n > 0);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// The next message of those that were read.
    ///
    /// # Errors
    /// `InvalidData` if it is none; nothing that follows can be understood then.
    pub fn next<M: Message + Default>(&mut self) -> io::Result<Option<M>> {
        let bytes = &self.buffer[self.from..self.to];
        let Some((head, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
        let len = u32::from_le_bytes(*head) as usize;
        let bad = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
        if len > MAX_FRAME {
            return Err(bad(format!("a message of {len} bytes; the limit is {MAX_FRAME}")));
        }
        let Some(body) = rest.get(..len) else { return Ok(None) };
        if !has_few_fields(body, LEVELS, MAX_FIELDS) {
            return Err(bad(format!("a message of more than {MAX_FIELDS} fields")));
        }
        let message = M::decode(body).map_err(|e| bad(e.to_string()))?;
        self.from += 4 + len;
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let mut bytes = Vec::new();
        let hello = |n: u32| {
            let software = "x".repeat(n as usize * 10_000);
            ToKeeper::from(Ask::Hello(Hello { version: n, oldest: 1, software }))
        };
        (0..20).for_each(|n| frame(&hello(n), &mut bytes));
        let mut frames = Frames::new();
        let mut got = 0;
        let mut parts = bytes.chunks(7001).chain([&bytes[..0]]);
        let mut part = parts.next().unwrap();
        loop {
            // A read takes what there is room for.
            while part.is_empty() {
                let Some(next) = parts.next() else { break };
                part = next;
            }
            if !frames.read(&mut part).unwrap() {
                break;
            }
            while let Some(message) = frames.next::<ToKeeper>().unwrap() {
                assert_eq!(message, hello(got));
                got += 1;
            }
        }
        assert_eq!(got, 20);
    }

    #[test]
    fn an_outcome_that_is_encoded_already_is_framed_alike() {
        let outcome = TaskOutcome { message: "m".repeat(300), ..Default::default() };
        let finished = Finished { outcome, cause: 1 };
        let (mut one, mut other) = (Vec::new(), Vec::new());
        frame_finished(&finished.encode_to_vec(), &mut one);
        frame(&ToAgent::from(Say::Finished(finished)), &mut other);
        assert_eq!(one, other);
    }

    #[test]
    fn nonsense_is_refused_and_the_unknown_skipped() {
        let mut frames = Frames::new();
        frames.read(&mut &b"\xff\xff\xff\xff...."[..]).unwrap();
        assert!(frames.next::<ToKeeper>().is_err());
        let mut frames = Frames::new();
        // Field 99 is none that this version knows.
        frames.read(&mut &b"\x04\0\0\0\x9a\x06\x01x"[..]).unwrap();
        assert_eq!(frames.next::<ToKeeper>().unwrap(), Some(ToKeeper { ask: None }));
    }
}
