//! Frames between a worker and a process that has its tasks' user's rights: a kind (a byte), a
//! length (4 bytes, little endian) and as many bytes.

use super::error::HostError;
use super::types::Kind;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use std::path::PathBuf;

/// Bytes of content that go at a time.
pub(super) const PIECE: usize = 128 << 10;
/// The longest frame, in bytes.
const MAX: usize = 256 << 10;
/// The longest frame of a job, in bytes: a path may be as long as the document that named it, and longer
/// when it is written down.
const MAX_JOB: usize = 8 << 20;
/// The longest text that is passed on, in characters.
const MAX_TEXT: usize = 4096;

/// The kinds of frames.
pub(super) mod kind {
    /// To the process: what to do.
    pub const JOB: u8 = b'J';
    /// The nature of the bytes to come.
    pub const CONTENT: u8 = b'C';
    pub const DATA: u8 = b'D';
    /// Note about an omitted file.
    pub const NOTE: u8 = b'N';
    /// Failure; nothing follows.
    pub const FAILED: u8 = b'F';
    /// To the process: there are no further bytes, since they cannot be had.
    pub const BROKEN: u8 = b'B';
    /// End of the data or the work.
    pub const END: u8 = b'E';
}

/// A thing to do with the user's rights.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Job {
    /// Goes to these folders, as that user.
    Enter { uid: u32, folders: Vec<PathBuf> },
    /// Sends what is there.
    Read(PathBuf),
    /// Puts there what is sent.
    Write { path: PathBuf, kind: Kind, force: bool, tag: String },
}

/// The reason why something did not work.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Failure {
    word: Word,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Word {
    Denied,
    Invalid,
    Conflict,
    Full,
    Internal,
}

impl Failure {
    /// A failure with a file.
    pub fn of_file(what: &str, error: &io::Error) -> Failure {
        let denied = error.kind() == io::ErrorKind::PermissionDenied;
        let error = HostError::of_file(what, error);
        let word = match &error {
            HostError::Invalid(_) if denied => Word::Denied,
            HostError::Invalid(_) => Word::Invalid,
            HostError::Conflict(_) => Word::Conflict,
            HostError::Full { .. } => Word::Full,
            _ => Word::Internal,
        };
        let text = match error {
            HostError::Full { detail, .. } => detail,
            error => error.to_string(),
        };
        let text = shortened(&text);
        Failure { word, text }
    }

    /// The worker's answer to a task; the rights of `user` were not enough.
    pub fn into_error(self, user: &str) -> HostError {
        let Failure { word, text } = self;
        let text = shortened(&text);
        match word {
            Word::Denied => HostError::Invalid(format!(
                "{text}: it is read and written with the rights of user {user}, whom tasks of this \
                 worker run as"
            )),
            Word::Invalid => HostError::Invalid(text),
            Word::Conflict => HostError::Conflict(text),
            Word::Full => HostError::Full { budget: 0, used: 0, detail: text, retry_after: None },
            Word::Internal => HostError::Internal(text),
        }
    }
}

pub(super) fn send(to: &mut impl Write, kind: u8, bytes: &[u8]) -> io::Result<()> {
    let len = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut frame = Vec::with_capacity(5 + bytes.len());
    frame.push(kind);
    frame.extend_from_slice(&len.to_le_bytes());
    frame.extend_from_slice(bytes);
    to.write_all(&frame)
}

pub(super) fn send_json(to: &mut impl Write, kind: u8, value: &impl Serialize) -> io::Result<()> {
    send(to, kind, &serde_json::to_vec(value)?)
}

/// The next frame. That the other side is gone is `UnexpectedEof`.
pub(super) fn receive(from: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    receive_up_to(MAX, from)
}

/// Receives a job.
pub(super) fn receive_job(from: &mut impl Read) -> io::Result<Job> {
    match receive_up_to(MAX_JOB, from)? {
        (kind::JOB, job) => json(&job),
        (kind, _) => Err(strange(kind)),
    }
}

fn receive_up_to(most: usize, from: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    from.read_exact(&mut head)?;
    let [kind, len @ ..] = head;
    let len = u32::from_le_bytes(len) as usize;
    if len > most {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame is too long"));
    }
    let mut bytes = Vec::new();
    from.take(len as u64).read_to_end(&mut bytes)?;
    match bytes.len() == len {
        true => Ok((kind, bytes)),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

pub(super) fn json<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    Ok(serde_json::from_slice(bytes)?)
}

/// Bytes that come in frames.
pub(super) struct Content<R> {
    from: R,
    piece: io::Cursor<Vec<u8>>,
    ended: bool,
}

impl<R: Read> Content<R> {
    pub fn new(from: R) -> Content<R> {
        Content { from, piece: io::Cursor::default(), ended: false }
    }
}

/// A source of frames, and what is done with those that are not content.
pub(super) trait Others {
    /// Deals with it; true: it was the last.
    fn other(&mut self, kind: u8, bytes: &[u8]) -> io::Result<bool>;
}

impl<R: Read + Others> Read for Content<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let n = self.piece.read(buf)?;
            if n > 0 || self.ended || buf.is_empty() {
                return Ok(n);
            }
            match receive(&mut self.from)? {
                (kind::DATA, bytes) => self.piece = io::Cursor::new(bytes),
                (kind, bytes) => self.ended = self.from.other(kind, &bytes)?,
            }
        }
    }
}

/// A text of another process.
pub(super) fn shortened(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

pub(super) fn strange(kind: u8) -> io::Error {
    let text = format!("a frame of kind {kind} was not expected");
    io::Error::new(io::ErrorKind::InvalidData, text)
}
