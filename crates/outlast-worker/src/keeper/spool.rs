//! Outcomes on disk, until an agent has them: a file that is only appended to, and emptied when
//! nothing in it is needed any more.
//!
//! After a line that names the format, each record is a length (4 bytes), a checksum (8) and so
//! many bytes: one for the kind, and a message. A torn record at the end, from a crash during a write,
//! is dropped: it was not acknowledged.

use super::proto::{Finished, Id};
use prost::Message;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const MAGIC: &[u8] = b"outlast spool 1\n";
const HEAD: usize = 12;
const FINISHED: u8 = 1;
const FORGOTTEN: u8 = 2;
/// Size from which on the file is rewritten when most of it is not needed.
const REWRITE: u64 = 1 << 20;

/// See the module.
#[derive(Debug)]
pub(super) struct Spool {
    path: PathBuf,
    file: File,
    len: u64,
    /// Length that is durable.
    synced: u64,
    /// True if there may be bytes after `len` that have to be removed before the next record.
    torn: bool,
    #[cfg(test)]
    sync_fails: bool,
}

/// Encoded outcomes by task and epoch.
type Kept = HashMap<(String, u64), Vec<u8>>;

/// Sums bytes up so that a torn or overwritten record is noticed (FNV-1a).
fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; HEAD];
    bytes.push(kind);
    bytes.extend_from_slice(body);
    let (len, sum) = ((bytes.len() - HEAD) as u32, sum(&bytes[HEAD..]));
    bytes[..4].copy_from_slice(&len.to_le_bytes());
    bytes[4..HEAD].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// The records of a file, and where the last whole one ends.
fn records(bytes: &[u8]) -> (Vec<(u8, &[u8])>, usize) {
    let (mut found, mut at) = (Vec::new(), MAGIC.len());
    while let Some(head) = bytes.get(at..at + HEAD) {
        let (len, expected) = head.split_at(4);
        let len = len.try_into().map_or(0, u32::from_le_bytes) as usize;
        let Some(body) = bytes.get(at + HEAD..at + HEAD + len) else { break };
        let Some((kind, message)) = body.split_first() else { break };
        if expected != sum(body).to_le_bytes() {
            break;
        }
        found.push((*kind, message));
        at += HEAD + len;
    }
    (found, at)
}

/// The outcomes that nobody has forgotten.
fn wanted(records: Vec<(u8, &[u8])>) -> Kept {
    let mut kept = Kept::new();
    for (kind, message) in records {
        match kind {
            FINISHED => {
                if let Ok(Finished { outcome, .. }) = Finished::decode(message) {
                    kept.insert((outcome.task_id, outcome.epoch), message.to_vec());
                }
            }
            FORGOTTEN => {
                if let Ok(id) = Id::decode(message) {
                    kept.remove(&(id.task, id.epoch));
                }
            }
            _ => {}
        }
    }
    kept
}

impl Spool {
    /// Opens the file and returns the outcomes (encoded `Finished`) that nobody has forgotten.
    pub fn open(path: &Path) -> io::Result<(Spool, Kept)> {
        let mut bytes = Vec::new();
        match File::open(path) {
            Ok(mut file) => drop(file.read_to_end(&mut bytes)?),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        if !bytes.starts_with(MAGIC) {
            if bytes.len() > MAGIC.len() {
                // Of a newer version: it is not ours to destroy.
                let aside = path.with_extension("unknown");
                tracing::error!("cannot read {}; it is now {}", path.display(), aside.display());
                fs::rename(path, aside)?;
            }
            return Ok((Spool::write(path, [].iter())?, Kept::new()));
        }
        let (found, end) = records(&bytes);
        let kept = wanted(found);
        // As it is, if need be: a full disk must not keep a worker from what it has.
        let file = File::options().read(true).write(true).open(path)?;
        let mut spool = Spool::of(path, file, end);
        if end < bytes.len() {
            tracing::warn!("dropped {} bytes of a torn record", bytes.len() - end);
        }
        spool.truncate(end as u64)?;
        if let Err(error) = spool.tidy(kept.values()) {
            tracing::warn!("the spool could not be made smaller: {error}");
        }
        Ok((spool, kept))
    }

    /// A new file with these outcomes in place of the old.
    fn write<'a>(path: &Path, kept: impl Iterator<Item = &'a Vec<u8>>) -> io::Result<Spool> {
        let new = path.with_extension("new");
        let mut bytes = MAGIC.to_vec();
        kept.for_each(|message| bytes.extend(record(FINISHED, message)));
        let mut file = File::create(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(path.parent().unwrap_or(path))?.sync_all()?;
        Ok(Spool::of(path, file, bytes.len()))
    }

    fn of(path: &Path, file: File, len: usize) -> Spool {
        let (path, len) = (path.to_owned(), len as u64);
        Spool {
            path,
            file,
            len,
            synced: len,
            torn: false,
            #[cfg(test)]
            sync_fails: false,
        }
    }

    /// Appends outcomes, and returns once they are on disk.
    ///
    /// # Errors
    /// None of them counts as written then; they may be given again.
    pub fn append<'a>(&mut self, kept: impl Iterator<Item = &'a Vec<u8>>) -> io::Result<()> {
        let bytes: Vec<u8> = kept.flat_map(|message| record(FINISHED, message)).collect();
        self.add(&bytes)?;
        if let Err(error) = self.sync() {
            // The system may take for written what it failed to write: the same bytes are not
            // tried again, nor any that waited with them. Notes of what is forgotten may go.
            self.len = self.synced;
            self.cut();
            return Err(error);
        }
        self.synced = self.len;
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        #[cfg(test)]
        if self.sync_fails {
            return Err(io::Error::other("a test"));
        }
        self.file.sync_data()
    }

    /// Records that an outcome is not needed any more, without waiting for the disk: if the record is
    /// lost in a power cut, the outcome is reported once more, which does no harm.
    pub fn forget(&mut self, id: &Id) -> io::Result<()> {
        self.add(&record(FORGOTTEN, &id.encode_to_vec()))
    }

    /// Gives back the disk, as far as it is worth it; `kept` are all that are wanted.
    pub fn tidy<'a>(&mut self, kept: impl Iterator<Item = &'a Vec<u8>> + Clone) -> io::Result<()> {
        let wanted: u64 = kept.clone().map(|message| (message.len() + HEAD + 1) as u64).sum();
        if wanted == 0 && self.len > MAGIC.len() as u64 {
            self.truncate(MAGIC.len() as u64)
        } else if self.len > REWRITE && self.len > 2 * wanted {
            *self = Spool::write(&self.path, kept)?;
            Ok(())
        } else {
            Ok(())
        }
    }

    fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.torn {
            self.truncate(self.len)?;
        }
        if let Err(error) = self.file.write_all(bytes) {
            // Half a record would hide all that follow.
            self.cut();
            return Err(error);
        }
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Removes what lies behind `len`: now, or else before the next record.
    fn cut(&mut self) {
        self.torn = true;
        if let Err(error) = self.truncate(self.len) {
            tracing::warn!("a torn record stays in the spool for now: {error}");
        }
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.file.set_len(len)?;
        self.file.seek(SeekFrom::Start(len))?;
        self.len = len;
        self.synced = self.synced.min(len);
        self.torn = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outlast_wire::v2::TaskOutcome;

    fn finished(task: &str) -> Vec<u8> {
        let outcome = TaskOutcome { task_id: task.into(), epoch: 1, ..Default::default() };
        Finished { outcome, cause: 3 }.encode_to_vec()
    }

    fn tasks(path: &Path) -> Vec<String> {
        let (_, kept) = Spool::open(path).unwrap();
        let mut tasks: Vec<_> = kept.into_keys().map(|(task, _)| task).collect();
        tasks.sort();
        tasks
    }

    #[test]
    fn what_is_written_comes_back_until_it_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spool");
        let (mut spool, kept) = Spool::open(&path).unwrap();
        assert!(kept.is_empty());
        spool.append([finished("a"), finished("b")].iter()).unwrap();
        assert_eq!(tasks(&path), ["a", "b"]);
        let (mut spool, kept) = Spool::open(&path).unwrap();
        assert_eq!(kept[&("a".to_owned(), 1)], finished("a"));
        spool.forget(&Id { task: "a".into(), epoch: 1 }).unwrap();
        spool.append([finished("c")].iter()).unwrap();
        spool.tidy([finished("b"), finished("c")].iter()).unwrap();
        assert_eq!(tasks(&path), ["b", "c"]);
        let (mut spool, _) = Spool::open(&path).unwrap();
        spool.tidy([].iter()).unwrap();
        assert_eq!(fs::read(&path).unwrap(), MAGIC);
        spool.append([finished("d")].iter()).unwrap();
        assert_eq!(tasks(&path), ["d"]);
    }

    #[test]
    fn what_a_failed_sync_leaves_is_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spool");
        let (mut spool, _) = Spool::open(&path).unwrap();
        spool.append([finished("a"), finished("b")].iter()).unwrap();
        let synced = fs::read(&path).unwrap();
        // Nothing stays that was not on disk for sure, a note without a sync neither.
        spool.forget(&Id { task: "a".into(), epoch: 1 }).unwrap();
        spool.sync_fails = true;
        for _ in 0..2 {
            spool.append([finished("c")].iter()).unwrap_err();
            assert_eq!(fs::read(&path).unwrap(), synced);
        }
        spool.sync_fails = false;
        spool.append([finished("c")].iter()).unwrap();
        assert_eq!(fs::read(&path).unwrap(), [synced, record(FINISHED, &finished("c"))].concat());
        assert_eq!(tasks(&path), ["a", "b", "c"]);
    }

    #[test]
    fn a_torn_record_is_dropped_and_a_strange_file_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spool");
        let (mut spool, _) = Spool::open(&path).unwrap();
        spool.append([finished("a"), finished("b")].iter()).unwrap();
        let whole = fs::read(&path).unwrap();
        for cut in 1..finished("b").len() + HEAD {
            fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            assert_eq!(tasks(&path), ["a"], "{cut}");
        }
        // What comes after a torn record is found again.
        let (mut spool, _) = Spool::open(&path).unwrap();
        spool.append([finished("c")].iter()).unwrap();
        assert_eq!(tasks(&path), ["a", "c"]);
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        fs::write(&path, flipped).unwrap();
        assert_eq!(tasks(&path), ["a"]);
        fs::write(&path, "outlast spool 9\nand more").unwrap();
        assert!(tasks(&path).is_empty());
        assert!(path.with_extension("unknown").exists());
    }
}
