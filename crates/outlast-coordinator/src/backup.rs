//! Copies of a coordinator's data, made while it runs, and a new data folder from such a copy.
//!
//! The database is copied first, the blobs after it. What the copied database keeps was durable
//! in the blob store before, and a checkpoint that is removed from the database keeps its blob
//! for an hour: so the blobs copied later hold all of it. That is checked at the end all the same,
//! and where it does not hold (a copy that took longer than that) all is copied again.

use crate::blobs::service;
use crate::clock;
use crate::config::Config;
use outlast_blob::{BlobError, Copied, Hash, Home, check_copy, copy_store, packs_place};
use outlast_store::{CoordReader, CoordStore, StoreError};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Jump of the epochs of unfinished tasks: more attempts than any task had since the backup.
const FENCE: u64 = 1000;
/// Tries to copy everything, when blobs went away meanwhile.
const TRIES: usize = 3;
/// Written last: a folder without it is no backup.
const LABEL: &str = "backup.json";
const FORMAT: u32 = 1;

/// The label of a backup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackupInfo {
    /// Version of the label's format.
    pub format: u32,
    /// Time of the backup, RFC 3339.
    pub made_at: String,
    /// UUID of the coordinator.
    pub coordinator_id: String,
    /// Version of the software.
    pub version: String,
    /// Tasks, whatever their state.
    pub tasks: u64,
    /// Tasks that had not ended.
    pub unfinished: u64,
    /// Blobs that kept checkpoints refer to.
    pub blobs: u64,
    /// Bytes of packs.
    pub blob_bytes: u64,
}

/// Error of a backup or a restore.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is something in the folder that is to be written.
    #[error("{0}: is not empty; give a folder that is empty or absent")]
    Taken(PathBuf),
    /// There is no coordinator's data in the folder.
    #[error("{0}: holds no coordinator's data")]
    NoData(PathBuf),
    /// The folder is no complete backup of a kind that this version knows.
    #[error("{0}: {1}")]
    NoBackup(PathBuf, String),
    /// A file cannot be read or written.
    #[error("{0}: {1}")]
    File(PathBuf, #[source] io::Error),
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The blobs cannot be used.
    #[error(transparent)]
    Blobs(#[from] BlobError),
}

/// Copies the data in `data_dir`, whose coordinator may be running, to the folder `to`. Blocks.
/// Blobs are hard links where that is possible: a copy on the same disk costs little, and is to
/// be carried elsewhere. Those in a bucket are fetched.
///
/// # Errors
/// [`BackupError`]; then `to` is as it was.
pub fn backup(data_dir: &Path, to: &Path) -> Result<BackupInfo, BackupError> {
    if !Config::store_file(data_dir).is_file() {
        return Err(BackupError::NoData(data_dir.into()));
    }
    let place = Place::new(to)?;
    let mut tries = 1;
    let info = loop {
        place.clear()?;
        match copy(data_dir, &place.temp) {
            // Collected after the database was copied: what it keeps by now is there.
            Err(BackupError::Blobs(BlobError::Unknown(_) | BlobError::Missing(_)))
                if tries < TRIES =>
            {
                tries += 1;
            }
            other => break other?,
        }
    };
    let label = place.temp.join(LABEL);
    let json = serde_json::to_vec_pretty(&info).map_err(|e| named(&label)(e.into()))?;
    write(&label, &json)?;
    place.done()?;
    Ok(info)
}

fn copy(from: &Path, to: &Path) -> Result<BackupInfo, BackupError> {
    let file = Config::store_file(to);
    CoordReader::open(&Config::store_file(from))?.copy_to(&file)?;
    let made_at = clock::text(clock::wall());
    let blobs = Config::blob_folder(from);
    let copied = match blobs.is_dir() {
        true => {
            let place = packs_place(&blobs)?;
            let bucket = place.as_deref().map(service::bucket).transpose()?;
            let home = Home { folder: &blobs, bucket: bucket.as_deref() };
            copy_store(home, Home::local(&Config::blob_folder(to)))?
        }
        false => Copied::default(),
    };
    let reader = CoordReader::open(&file)?;
    let kept = kept(&reader)?;
    if !kept.is_empty() {
        check_copy(Home::local(&Config::blob_folder(to)), &kept, false)?;
    }
    let counts = reader.counts()?;
    Ok(BackupInfo {
        format: FORMAT,
        made_at,
        coordinator_id: reader.coordinator_id()?.unwrap_or_default(),
        version: env!("CARGO_PKG_VERSION").into(),
        tasks: counts.total(),
        unfinished: counts.pending + counts.assigned,
        blobs: kept.len() as u64,
        blob_bytes: copied.bytes,
    })
}

fn kept(reader: &CoordReader) -> Result<Vec<Hash>, BackupError> {
    let hash = |m: Vec<u8>| <[u8; 32]>::try_from(m).ok().map(Hash::from_bytes);
    Ok(reader.kept_manifests()?.into_iter().filter_map(hash).collect())
}

/// Makes the data folder `data_dir` from a backup. Blocks. No coordinator may go on from the data
/// that was backed up once one runs on this: both would speak with the same name. `deep` reads all
/// checkpoints and checks them. Blobs go to the `bucket` if there is one.
///
/// # Errors
/// [`BackupError`]; then there is no such folder.
pub fn restore(
    from: &Path,
    data_dir: &Path,
    deep: bool,
    bucket: Option<&str>,
) -> Result<BackupInfo, BackupError> {
    let bucket = bucket.map(service::bucket).transpose()?;
    let info = label(from)?;
    let place = Place::new(data_dir)?;
    place.clear()?;
    let file = Config::store_file(&place.temp);
    let source = Config::store_file(from);
    // Not a link: it is to be written.
    let mut data = File::open(&source).map_err(named(&source))?;
    let mut copy = private().open(&file).map_err(named(&file))?;
    io::copy(&mut data, &mut copy).map_err(named(&file))?;
    copy.sync_all().map_err(named(&file))?;
    drop(copy);
    let reader = CoordReader::open(&file)?;
    reader.check()?;
    let id = reader.coordinator_id()?.unwrap_or_default();
    if id != info.coordinator_id {
        let why = format!("its label names coordinator {}, its data {id}", info.coordinator_id);
        return Err(BackupError::NoBackup(from.into(), why));
    }
    let kept = kept(&reader)?;
    drop(reader);
    let blobs = Config::blob_folder(from);
    let folder = Config::blob_folder(&place.temp);
    let home = Home { folder: &folder, bucket: bucket.as_deref() };
    if blobs.is_dir() {
        copy_store(Home::local(&blobs), home)?;
    }
    if !kept.is_empty() {
        check_copy(home, &kept, deep)?;
    }
    let note = format!(
        "the coordinator was restored from a backup of {}; what happened since is not known, and \
         attempts of then are not current any more",
        info.made_at
    );
    let (mut store, _) = CoordStore::open(&file)?;
    store.fence(FENCE, &note, clock::wall())?;
    drop(store);
    place.done()?;
    Ok(info)
}

fn label(from: &Path) -> Result<BackupInfo, BackupError> {
    let no = |why: &dyn std::fmt::Display| BackupError::NoBackup(from.into(), why.to_string());
    let bytes = match fs::read(from.join(LABEL)) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return Err(no(&format!("is no complete backup: it holds no {LABEL}")));
        }
        Err(e) => return Err(named(&from.join(LABEL))(e)),
    };
    let info: BackupInfo =
        serde_json::from_slice(&bytes).map_err(|e| no(&format!("{LABEL} cannot be read: {e}")))?;
    if info.format != FORMAT {
        return Err(no(&format!("its format is {}, this version knows {FORMAT}", info.format)));
    }
    Ok(info)
}

/// A folder that appears with all of its content, or not at all.
struct Place {
    target: PathBuf,
    temp: PathBuf,
}

impl Place {
    fn new(target: &Path) -> Result<Place, BackupError> {
        let target = std::path::absolute(target).map_err(named(target))?;
        match fs::read_dir(&target) {
            Ok(mut content) => {
                if content.next().is_some() {
                    return Err(BackupError::Taken(target));
                }
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(named(&target)(e)),
        }
        let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(BackupError::Taken(target));
        };
        fs::create_dir_all(parent).map_err(named(parent))?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(".outlast-partial");
        let temp = parent.join(hidden);
        Ok(Place { target, temp })
    }

    /// Makes an empty folder in place of what is there.
    fn clear(&self) -> Result<(), BackupError> {
        remove(&self.temp)?;
        let mut builder = fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&self.temp).map_err(named(&self.temp))
    }

    fn done(&self) -> Result<(), BackupError> {
        let sync = |folder: &Path| File::open(folder).and_then(|f| f.sync_all());
        sync(&self.temp).map_err(named(&self.temp))?;
        // Onto an empty folder, or nothing.
        fs::rename(&self.temp, &self.target).map_err(named(&self.target))?;
        self.target.parent().map_or(Ok(()), |parent| sync(parent).map_err(named(parent)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = remove(&self.temp);
    }
}

fn remove(folder: &Path) -> Result<(), BackupError> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(named(folder)(e)),
        _ => Ok(()),
    }
}

fn private() -> fs::OpenOptions {
    let mut options = File::options();
    std::os::unix::fs::OpenOptionsExt::mode(options.write(true).create_new(true), 0o600);
    options
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), BackupError> {
    let written = private().open(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(named(path))
}

fn named(path: &Path) -> impl Fn(io::Error) -> BackupError {
    let path = path.to_owned();
    move |e| BackupError::File(path.clone(), e)
}
