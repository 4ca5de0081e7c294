//! The output files of attempts: where they are, reading them, cutting and pruning them.
//!
//! A stream is one file that the task itself appends to, so its length is what the task wrote.
//! A stream over the cap loses its middle: the blocks are given back to the disk (a hole), the
//! offsets stay, and the range is noted in a `.cut` file beside it, which readers turn into a
//! marker line. An absent file is an empty stream.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// One of the two output streams.
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
    /// The bytes, or the marker line in place of bytes that were cut.
    pub data: Vec<u8>,
    /// Where the next read goes on.
    pub next_offset: u64,
    /// Nothing follows as yet; more may if the task still runs.
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
    /// What a browser task comes to, from its program's end to its outcome.
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

/// Opens a stream for a task to append to. No other user may read it.
pub(super) fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// Reads at most `max` bytes of a stream from `offset`.
///
/// # Errors
/// Those of reading the file; that there is none is no error but an empty stream. An id that
/// cannot be a task's is `InvalidInput`.
pub fn read(
    root: &Path,
    task: &str,
    epoch: u64,
    stream: Stream,
    offset: u64,
    max: usize,
) -> io::Result<LogChunk> {
    let path = &path_of(root, task, epoch, stream)?;
    let nothing = LogChunk { data: Vec::new(), next_offset: offset, end: true, gap: false };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(nothing),
        Err(e) => return Err(e),
    };
    // The note is written before the bytes go, so it is read after them: see `punch`.
    let mut data = read_range(&mut file, offset, max)?;
    let len = file.metadata()?.len();
    let mut next_offset = offset + data.len() as u64;
    let mut gap = false;
    if let Some(cut) = cut_of(path) {
        if cut.contains(&offset) {
            data = marker(&(offset..cut.end));
            next_offset = cut.end;
            gap = true;
        } else if offset < cut.start && next_offset > cut.start {
            data.truncate((cut.start - offset) as usize);
            next_offset = cut.start;
        }
    }
    Ok(LogChunk { data, next_offset, end: next_offset >= len, gap })
}

/// Returns the length of a stream, what was cut included; 0 if there is none.
///
/// # Errors
/// As of [`read`].
pub fn length(root: &Path, task: &str, epoch: u64, stream: Stream) -> io::Result<u64> {
    match fs::metadata(path_of(root, task, epoch, stream)?) {
        Ok(meta) => Ok(meta.len()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(e) => Err(e),
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

fn read_range(file: &mut File, offset: u64, max: usize) -> io::Result<Vec<u8>> {
    let mut data = Vec::new();
    file.seek(SeekFrom::Start(offset))?;
    file.take(max as u64).read_to_end(&mut data)?;
    Ok(data)
}

fn marker(cut: &Range<u64>) -> Vec<u8> {
    format!("\n[outlast: {} bytes cut here]\n", cut.end - cut.start).into_bytes()
}

/// The last `n` bytes of a stream, with the marker if the cut is among them.
pub(super) fn tail(path: &Path, n: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    let from = len.saturating_sub(n);
    let mut data = read_range(&mut file, from, n as usize)?;
    if let Some(cut) = cut_of(path).filter(|cut| cut.start < len && cut.end > from) {
        let after = data.split_off((cut.end - from).min(data.len() as u64) as usize);
        data.truncate(cut.start.saturating_sub(from) as usize);
        data.extend(marker(&cut));
        data.extend(after);
        data.drain(..data.len().saturating_sub(n as usize));
    }
    Ok(data)
}

fn note(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".cut");
    name.into()
}

/// The range of a stream that was given back to the disk.
fn cut_of(path: &Path) -> Option<Range<u64>> {
    let text = fs::read_to_string(note(path)).ok()?;
    let (start, end) = text.trim().split_once(' ')?;
    Some(start.parse().ok()?..end.parse().ok()?)
}

/// Keeps the first and the last half of `cap` bytes of a stream and frees what is between.
///
/// # Errors
/// `Unsupported` if this filesystem cannot free part of a file.
pub(super) fn punch(path: &Path, len: u64, cap: u64) -> io::Result<()> {
    let (start, end) = (cap / 2, len.saturating_sub(cap - cap / 2));
    if end <= start {
        return Ok(());
    }
    // Noted first: a reader must never take the zeros of a hole for output.
    let name = note(path);
    let new = name.with_extension("cut.new");
    File::create(&new)?.write_all(format!("{start} {end}\n").as_bytes())?;
    fs::rename(new, name)?;
    free(&OpenOptions::new().write(true).open(path)?, start, end - start)
}

#[cfg(target_os = "linux")]
fn free(file: &File, start: u64, len: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    Ok(fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, start, len)?)
}

#[cfg(not(target_os = "linux"))]
fn free(_: &File, _: u64, _: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
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
    let mut found = Vec::new();
    let mut total = 0;
    let mut folders = vec![root.join("work")];
    folders.extend(fs::read_dir(root.join("logs"))?.flatten().map(|e| e.path()));
    for entry in folders.iter().filter_map(|f| fs::read_dir(f).ok()).flatten().flatten() {
        // A working directory counts as its link does: without one it is in use.
        let Ok(path) = entry.path().canonicalize() else { continue };
        let Ok(meta) = fs::metadata(&path) else { continue };
        if meta.is_dir() && !entry.file_type().is_ok_and(|t| t.is_symlink()) {
            continue;
        }
        let size = disk_use(&path, &meta);
        total += size;
        found.push((meta.modified().ok(), entry.path(), meta.is_dir().then_some(path), size));
    }
    let before = total;
    found.sort_by_key(|(modified, ..)| *modified);
    for (_, path, folder, size) in found {
        if total <= keep && before - total >= least {
            break;
        }
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let stem = [".new", ".cut", ".out", ".err", ".res"]
            .iter()
            .fold(name, |n, end| n.strip_suffix(end).unwrap_or(n));
        if running(stem) {
            continue;
        }
        let emptied = folder.map_or(Ok(()), fs::remove_dir_all);
        match emptied.and_then(|()| fs::remove_file(&path)) {
            Ok(()) => total -= size,
            Err(error) => tracing::debug!(path = %path.display(), %error, "could not prune"),
        }
    }
    Ok(before - total)
}

/// The bytes of disk that a file or a whole folder takes.
fn disk_use(path: &Path, meta: &fs::Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut size = meta.blocks() * 512;
    if meta.is_dir() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            size += entry.metadata().map_or(0, |meta| disk_use(&entry.path(), &meta));
        }
    }
    size
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_stream_reads_as_first_half_marker_last_half() {
        let root = tempfile::tempdir().unwrap();
        create_folders(root.path()).unwrap();
        let path = Paths::of(root.path(), "t", 1).stdout;
        let all: Vec<u8> = (0..100_000_u32).map(|n| b'a' + (n % 26) as u8).collect();
        fs::write(&path, &all).unwrap();
        punch(&path, all.len() as u64, 10_000).unwrap();
        let mut got = Vec::new();
        let mut offset = 0;
        loop {
            let part = read(root.path(), "t", 1, Stream::Stdout, offset, 1000).unwrap();
            got.extend(part.data);
            offset = part.next_offset;
            if part.end {
                break;
            }
        }
        let marker = b"\n[outlast: 90000 bytes cut here]\n";
        let expected = [&all[..5000], marker, &all[95_000..]].concat();
        assert!(got == expected);
        assert_eq!(offset, 100_000);
        assert_eq!(tail(&path, 100).unwrap(), all[99_900..]);
        let long = tail(&path, 5010).unwrap();
        assert_eq!(long, expected[expected.len() - 5010..]);
        let all_of_it = tail(&path, 200_000).unwrap();
        assert!(all_of_it == expected);
    }

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
