//! The output of attempts on disk: where it is, reading it, pruning it. `segments` has the form
//! of a stream's files; an absent file is an empty stream.

use super::remove::remove_folder;
use super::segments::Layout;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Output stream of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Part of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogChunk {
    /// The bytes, or a marker line in place of bytes that are lost.
    pub data: Vec<u8>,
    /// Place where the next read goes on.
    pub next_offset: u64,
    /// True at the present end; more may follow while the task runs.
    pub end: bool,
    /// The data is a marker line.
    pub gap: bool,
}

/// The files of one attempt.
#[derive(Debug, Clone)]
pub(super) struct Paths {
    pub stdout: PathBuf,
    pub stderr: PathBuf,
    /// A link to what the attempt left in its own working directory.
    pub work: PathBuf,
    /// File with a browser task's result, from its program's end to its outcome.
    pub result: PathBuf,
}

impl Paths {
    /// `task` must have passed `check_task_id`: it becomes part of file names.
    pub fn of(root: &Path, task: &str, epoch: u64) -> Paths {
        let folder = root.join("logs").join(format!("{:02x}", shard(task)));
        Paths {
            stdout: folder.join(format!("{task}.{epoch}.out")),
            stderr: folder.join(format!("{task}.{epoch}.err")),
            work: root.join("work").join(format!("{task}.{epoch}")),
            result: folder.join(format!("{task}.{epoch}.res")),
        }
    }
}

/// Spreads the logs over 256 folders: creating a file in a huge folder is slow.
fn shard(task: &str) -> u8 {
    let hash = task.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    (hash >> 32) as u8
}

/// Creates the folders that [`Paths::of`] names files in.
pub(super) fn create_folders(root: &Path) -> io::Result<()> {
    fs::create_dir_all(root.join("work"))?;
    for n in 0..=255_u8 {
        fs::create_dir_all(root.join("logs").join(format!("{n:02x}")))?;
    }
    Ok(())
}

/// Reads at most `max` bytes of a stream from `offset`. Reading on at `next_offset` gives every
/// byte that is kept once and in order, and of each loss one marker line.
///
/// # Errors
/// Those of reading the files; that there is none is no error but an empty stream. An id that
/// cannot be a task's is `InvalidInput`.
pub fn read(
    root: &Path,
    task: &str,
    epoch: u64,
    stream: Stream,
    offset: u64,
    max: usize,
) -> io::Result<LogChunk> {
    read_at(&path_of(root, task, epoch, stream)?, offset, max)
}

pub(super) fn read_at(path: &Path, offset: u64, max: usize) -> io::Result<LogChunk> {
    let mut layout = Layout::read(path);
    loop {
        let (data, room) = read_file(path, &layout, offset, max)?;
        // What is lost is noted before anything changes: what is noted by now, and only that, may
        // have been read as output, or may be missing.
        let now = Layout::read(path);
        if now != layout {
            layout = now;
            continue;
        }
        let lost = layout.lost();
        if let Some(gap) = lost.iter().find(|gap| gap.contains(&offset)) {
            let (data, next_offset) = (marker(&(offset..gap.end)), gap.end);
            let end = nothing_at(path, &layout, next_offset)?;
            return Ok(LogChunk { data, next_offset, end, gap: true });
        }
        let mut data = data;
        let limit = lost.iter().map(|gap| gap.start).find(|start| *start > offset);
        data.truncate(limit.map_or(usize::MAX, |limit| (limit - offset) as usize));
        let next_offset = offset + data.len() as u64;
        let more = limit == Some(next_offset)
            || (next_offset < room.end && data.len() == max)
            || next_offset == room.end;
        let end = !more || (limit != Some(next_offset) && nothing_at(path, &layout, next_offset)?);
        return Ok(LogChunk { data, next_offset, end, gap: false });
    }
}

/// The bytes at an offset, which may not be output, and what the file has room for.
fn read_file(
    path: &Path,
    layout: &Layout,
    offset: u64,
    max: usize,
) -> io::Result<(Vec<u8>, Range<u64>)> {
    let (name, room) = layout.file(path, offset);
    let mut data = Vec::new();
    match File::open(name) {
        Ok(mut file) => {
            file.seek(SeekFrom::Start(offset - room.start))?;
            let most = (room.end - offset).min(max as u64);
            file.take(most).read_to_end(&mut data)?;
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    Ok((data, room))
}

/// Returns whether a stream ends at or before an offset, as far as is known now.
fn nothing_at(path: &Path, layout: &Layout, offset: u64) -> io::Result<bool> {
    let (name, room) = layout.file(path, offset);
    match fs::metadata(name) {
        Ok(meta) => Ok(meta.len() <= offset - room.start),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(e) => Err(e),
    }
}

/// Returns the length of a stream, what is lost of it included; 0 if there is none.
///
/// # Errors
/// As of [`read`].
pub fn length(root: &Path, task: &str, epoch: u64, stream: Stream) -> io::Result<u64> {
    let path = path_of(root, task, epoch, stream)?;
    let layout = Layout::read(&path);
    // What is lost may be at the end.
    let mut length = layout.lost().last().map_or(0, |gap| gap.end);
    let mut at = match &layout {
        Layout::Segments { head, .. } => length.max(*head),
        _ => 0,
    };
    loop {
        let (name, room) = layout.file(&path, at);
        let len = match fs::metadata(name) {
            Ok(meta) => meta.len(),
            Err(e) if e.kind() == io::ErrorKind::NotFound && room.start == 0 => 0,
            // Nothing follows what the first file has.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let head = fs::metadata(&path).map_or(0, |meta| meta.len());
                return Ok(length.max(head));
            }
            Err(e) => return Err(e),
        };
        length = length.max(room.start + len);
        if room.start + len < room.end {
            return Ok(length);
        }
        at = room.end;
    }
}

fn path_of(root: &Path, task: &str, epoch: u64, stream: Stream) -> io::Result<PathBuf> {
    outlast_wire::spec::check_task_id(task)
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
    let paths = Paths::of(root, task, epoch);
    Ok(match stream {
        Stream::Stdout => paths.stdout,
        Stream::Stderr => paths.stderr,
    })
}

fn marker(lost: &Range<u64>) -> Vec<u8> {
    format!("\n[outlast: {} bytes cut here]\n", lost.end - lost.start).into_bytes()
}

/// Removes the oldest logs and left working directories until at most `keep` bytes of disk are in
/// use and `least` were freed, sparing the attempts whose `<task>.<epoch>` is `running`. Returns
/// the bytes freed.
pub(super) fn prune(
    root: &Path,
    keep: u64,
    least: u64,
    running: impl Fn(&str) -> bool,
) -> io::Result<u64> {
    let mut found: BTreeMap<(bool, String), Left> = BTreeMap::new();
    let mut total = 0;
    let mut add = |work: bool, stem: &str, entry: fs::DirEntry| {
        // A working directory counts as its link does: without one it is in use.
        let Ok(path) = entry.path().canonicalize() else { return };
        let Ok(meta) = fs::metadata(&path) else { return };
        if meta.is_dir() && !entry.file_type().is_ok_and(|t| t.is_symlink()) {
            return;
        }
        let size = disk_use(&path, &meta);
        total += size;
        let left = found.entry((work, stem.to_owned())).or_default();
        left.modified = left.modified.max(meta.modified().ok());
        left.size += size;
        left.paths.push((entry.path(), meta.is_dir().then_some(path)));
    };
    for entry in fs::read_dir(root.join("work"))?.flatten() {
        add(true, &entry.file_name().to_string_lossy(), entry);
    }
    let folders = fs::read_dir(root.join("logs"))?.flatten();
    for entry in folders.filter_map(|f| fs::read_dir(f.path()).ok()).flatten().flatten() {
        add(false, stem_of(&entry.file_name().to_string_lossy()), entry);
    }
    let before = total;
    let mut found: Vec<_> = found.into_iter().collect();
    found.sort_by_key(|(_, left)| left.modified);
    for ((_, stem), left) in found {
        if total <= keep && before - total >= least {
            break;
        }
        if running(&stem) {
            continue;
        }
        let remove = |(path, folder): (PathBuf, Option<PathBuf>)| {
            let emptied = folder.map_or(Ok(()), |folder| remove_folder(&folder));
            emptied.and_then(|()| fs::remove_file(&path)).inspect_err(|error| {
                tracing::debug!(path = %path.display(), %error, "could not prune");
            })
        };
        if left.paths.into_iter().map(remove).filter(Result::is_err).count() == 0 {
            total -= left.size;
        }
    }
    Ok(before - total)
}

/// The working directory, or the log, that an attempt left.
#[derive(Default)]
struct Left {
    modified: Option<SystemTime>,
    size: u64,
    /// With the folder that a link leads to.
    paths: Vec<(PathBuf, Option<PathBuf>)>,
}

/// The `<task>.<epoch>` of a file's name among the logs.
fn stem_of(name: &str) -> &str {
    let segment = name.rsplit_once('.').filter(|(of, number)| {
        let of_stream = of.ends_with(".out") || of.ends_with(".err");
        of_stream && !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
    });
    let name = segment.map_or(name, |(of, _)| of);
    let ends = [".new", ".cut", ".out", ".err", ".res"];
    ends.iter().fold(name, |n, end| n.strip_suffix(end).unwrap_or(n))
}

/// The bytes of disk that a file or a whole folder takes.
fn disk_use(path: &Path, meta: &fs::Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut size = meta.blocks() * 512;
    let mut folders = Vec::from_iter(meta.is_dir().then(|| path.to_owned()));
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            size += meta.blocks() * 512;
            if meta.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    size
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pruning_takes_the_oldest_and_spares_the_running() {
        let root = tempfile::tempdir().unwrap();
        create_folders(root.path()).unwrap();
        for (n, task) in ["running", "old", "new"].iter().enumerate() {
            let path = Paths::of(root.path(), task, 1).stdout;
            fs::write(&path, vec![b'x'; 40_000]).unwrap();
            let when = std::time::UNIX_EPOCH + std::time::Duration::from_secs(n as u64);
            File::options().write(true).open(path).unwrap().set_modified(when).unwrap();
        }
        let work = root.path().join("work");
        fs::create_dir(work.join("1")).unwrap();
        fs::create_dir(work.join("2")).unwrap();
        std::os::unix::fs::symlink("1", work.join("old.1")).unwrap();
        let freed = prune(root.path(), 100_000, 0, |stem| stem == "running.1").unwrap();
        assert!((40_000..60_000).contains(&freed), "{freed}");
        let left = |task| Paths::of(root.path(), task, 1).stdout.exists();
        assert_eq!([left("running"), left("old"), left("new")], [true, false, true]);
        assert!(!work.join("1").exists() || work.join("old.1").exists());
        assert!(work.join("2").exists());
        // There is little, but the disk needs room.
        let freed = prune(root.path(), 100_000, 1, |stem| stem == "running.1").unwrap();
        assert!(freed >= 40_000, "{freed}");
        assert_eq!([left("running"), left("old"), left("new")], [true, false, false]);
    }

    #[test]
    fn an_id_that_is_a_path_is_refused() {
        let error = read(Path::new("/"), "../etc", 1, Stream::Stdout, 0, 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
