//! A process that does one thing with files, with the rights of the user whom it was started as: the
//! side of `outlast files`, which `rights` starts.
//!
//! It has nothing that the user's own processes could not have: no secret, no descriptor but the three.

use super::frames::{self, Content, Failure, Job, Others, PIECE, kind};
use super::pack::{self, Notes};
use super::place;
use rustix::fs::{Access, access};
use std::fs;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Does what the worker at the other end of standard input asks for.
///
/// # Errors
/// If the worker cannot be understood, or is gone. What went wrong with files is said to the worker.
pub fn files() -> io::Result<()> {
    let mut worker = Worker(UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?));
    let done = match frames::receive_job(&mut worker.0)? {
        Job::Enter { uid, folders } => enter(uid, &folders),
        Job::Read(path) => read(&path, &mut worker.0)
            .map_err(|error| Failure::of_file(&path.display().to_string(), &error)),
        Job::Write { path, kind, force, tag } => {
            let done = place::put(&path, kind, &mut Content::new(&mut worker), force, &tag);
            done.map_err(|error| Failure::of_file(&path.display().to_string(), &error))
        }
    };
    match done {
        Ok(()) => frames::send(&mut worker.0, kind::END, &[]),
        Err(failure) => frames::send_json(&mut worker.0, kind::FAILED, &failure),
    }
}

struct Worker(UnixStream);

impl Read for Worker {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Others for &mut Worker {
    fn other(&mut self, kind: u8, _: &[u8]) -> io::Result<bool> {
        match kind {
            kind::END => Ok(true),
            kind::BROKEN => Err(io::Error::other("the bytes cannot be had")),
            kind => Err(frames::strange(kind)),
        }
    }
}

fn read(path: &Path, worker: &mut UnixStream) -> io::Result<()> {
    let notes = Notes::default();
    let (content, mut body) = pack::open(path, &notes)?;
    frames::send_json(worker, kind::CONTENT, &content)?;
    let mut piece = vec![0; PIECE];
    loop {
        match body.read(&mut piece)? {
            0 => break,
            n => frames::send(worker, kind::DATA, &piece[..n])?,
        }
    }
    let mut note =
        |note: &String| frames::send(worker, kind::NOTE, frames::shortened(note).as_bytes());
    notes.list().iter().try_for_each(&mut note)
}

/// Checks that this process is that user's, has no more rights, and gets to the folders.
fn enter(uid: u32, folders: &[PathBuf]) -> Result<(), Failure> {
    let failed = |what: String, error| Err(Failure::of_file(&what, &error));
    if rustix::process::geteuid().as_raw() != uid {
        return failed("the process".into(), io::Error::other("runs as another user"));
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let capable = |line: &str| line.trim_start_matches("CapEff:").trim().chars().any(|c| c != '0');
    if status.lines().find(|line| line.starts_with("CapEff:")).is_some_and(capable) {
        let error =
            "keeps capabilities of the worker's user (securebits): start the worker without";
        return failed("the process".into(), io::Error::other(error));
    }
    for folder in folders {
        let mut way: Vec<&Path> = folder.ancestors().collect();
        way.reverse();
        for at in way {
            let meta = fs::metadata(at);
            let mode = meta.as_ref().map_or(0, |meta| meta.mode() & 0o7777);
            let name = format!("{} (mode {mode:o})", at.display());
            // By what is in it, it can be gone through.
            if let Err(error) = fs::metadata(at.join(".")) {
                return failed(name, error);
            }
            // Who can put another folder in its place leads the worker anywhere.
            let owned = meta.is_ok_and(|meta| meta.uid() == uid);
            let sticky = mode & 0o1000 != 0;
            if owned || (!sticky && access(at, Access::WRITE_OK).is_ok()) {
                let error = "that user could put another folder in the place of the worker's";
                return failed(name, io::Error::other(error));
            }
        }
    }
    Ok(())
}
