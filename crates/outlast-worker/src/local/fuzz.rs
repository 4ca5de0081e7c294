//! Frames of a process with a task's rights, read from any bytes.

use super::frames::{self, Content, Failure, Others, kind, send, send_json};
use super::types::Kind;
use std::io::{self, Read};

struct Process<'a>(&'a [u8]);

impl Read for Process<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Others for Process<'_> {
    fn other(&mut self, kind: u8, bytes: &[u8]) -> io::Result<bool> {
        match kind {
            kind::END => Ok(true),
            kind::FAILED => {
                let failure: Failure = frames::json(bytes)?;
                Err(io::Error::other(failure.into_error("u")))
            }
            _ => Ok(frames::shortened(&String::from_utf8_lossy(bytes)).is_empty()),
        }
    }
}

/// Reads it as the worker does, and returns what came of it.
pub fn files(bytes: &[u8]) -> String {
    let read = io::copy(&mut Content::new(Process(bytes)), &mut io::sink());
    read.map_or_else(|error| error.to_string(), |n| n.to_string())
}

/// Sample messages of such a process.
pub fn files_seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![Vec::new(); 2];
    let failure = Failure::of_file("it", &io::ErrorKind::PermissionDenied.into());
    let content = [(kind::DATA, &b"bytes"[..]), (kind::NOTE, b"a note"), (kind::END, b"")];
    let said = content.into_iter().try_for_each(|(kind, bytes)| send(&mut seeds[0], kind, bytes));
    let said = said.and_then(|()| send_json(&mut seeds[1], kind::CONTENT, &Kind::File));
    let _ = said.and_then(|()| send_json(&mut seeds[1], kind::FAILED, &failure));
    seeds
}
