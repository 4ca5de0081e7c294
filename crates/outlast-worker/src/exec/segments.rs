//! A stream of output on disk: its first part in one file, what follows in segments, of which only
//! the newest stay.
//!
//! A byte's offset counts all that the task wrote before it, kept or not. `t.1.out` has the bytes
//! from 0 on; when it is full, `t.1.out.0`, `t.1.out.1`, … have those that follow, in equal parts.
//! The note `t.1.out.cut` says how long these files are, which segments were removed and what else
//! is lost. It is written before anything is removed, and before anything that follows a loss, so
//! that a reader, who may be another process, never takes for output what is none.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The second half of what is kept is in so many segments, and one that is being filled.
const SEGMENTS: u64 = 16;
/// No segment is shorter.
const LEAST: u64 = 4096;
/// Losses that are noted one by one. When there are more, the last two become one, with what is
/// between them.
const GAPS: usize = 64;
/// Between two tries to write to a disk that refuses to take more.
const RETRY: Duration = Duration::from_millis(100);

/// Layout of a stream on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Layout {
    /// One file, of which nothing is lost.
    Plain,
    /// One file with a hole, as versions before segments cut it.
    Hole(Range<u64>),
    /// See the module.
    Segments {
        /// The first file's length.
        head: u64,
        /// A segment's length.
        size: u64,
        /// The first segment that is kept.
        oldest: u64,
        /// Lost ranges outside of removed segments, in order.
        gaps: Vec<Range<u64>>,
    },
}

impl Layout {
    /// Reads the note of a stream. One that cannot be understood is none.
    pub fn read(path: &Path) -> Layout {
        fs::read_to_string(note(path))
            .ok()
            .and_then(|text| Self::parse(&text))
            .unwrap_or(Self::Plain)
    }

    fn parse(text: &str) -> Option<Layout> {
        let mut lines = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let number = |word: &str| word.parse::<u64>().ok();
        match lines.next()?[..] {
            ["segments", head, size, oldest] => {
                let (head, size, oldest) = (number(head)?, number(size)?, number(oldest)?);
                let gap = |words: Vec<&str>| match words[..] {
                    ["lost", start, end] => Some(number(start)?..number(end)?),
                    _ => None,
                };
                let gaps = lines.map(gap).collect::<Option<Vec<_>>>()?;
                (size > 0).then_some(Layout::Segments { head, size, oldest, gaps })
            }
            [start, end] => Some(Layout::Hole(number(start)?..number(end)?)),
            _ => None,
        }
    }

    fn text(&self) -> String {
        match self {
            Layout::Plain => String::new(),
            Layout::Hole(hole) => format!("{} {}\n", hole.start, hole.end),
            Layout::Segments { head, size, oldest, gaps } => {
                let lost = |gap: &Range<u64>| format!("lost {} {}\n", gap.start, gap.end);
                let gaps: String = gaps.iter().map(lost).collect();
                format!("segments {head} {size} {oldest}\n{gaps}")
            }
        }
    }

    /// Returns all lost ranges, in order; they do not touch.
    pub fn lost(&self) -> Vec<Range<u64>> {
        let mut all = match self {
            Layout::Plain => Vec::new(),
            Layout::Hole(hole) => vec![hole.clone()],
            Layout::Segments { head, size, oldest, gaps } => {
                let removed = *head..head.saturating_add(oldest.saturating_mul(*size));
                gaps.iter().cloned().chain([removed]).collect()
            }
        };
        all.retain(|gap| !gap.is_empty());
        all.sort_by_key(|gap| gap.start);
        let mut merged: Vec<Range<u64>> = Vec::new();
        for gap in all {
            match merged.last_mut() {
                Some(last) if gap.start <= last.end => last.end = last.end.max(gap.end),
                _ => merged.push(gap),
            }
        }
        merged
    }

    /// The file that has this offset, and the offsets that it has room for.
    pub fn file(&self, path: &Path, offset: u64) -> (PathBuf, Range<u64>) {
        match self {
            Layout::Segments { head, size, .. } if offset >= *head => {
                let number = (offset - head) / size;
                let start = head + number * size;
                (segment(path, number), start..start.saturating_add(*size))
            }
            Layout::Segments { head, .. } => (path.to_owned(), 0..*head),
            Layout::Plain | Layout::Hole(_) => (path.to_owned(), 0..u64::MAX),
        }
    }
}

/// The name of the note of a stream.
pub(super) fn note(path: &Path) -> PathBuf {
    with(path, "cut")
}

fn segment(path: &Path, number: u64) -> PathBuf {
    with(path, &number.to_string())
}

fn with(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(end);
    name.into()
}

/// Writes one stream.
#[derive(Debug)]
pub(super) struct Writer {
    path: PathBuf,
    layout: Layout,
    head: u64,
    size: u64,
    /// Number of bytes that the task wrote.
    len: u64,
    /// The file that is being filled, and the offsets that it has room for.
    file: Option<(File, Range<u64>)>,
    /// Place where the loss begins that goes on now, and when it was last tried to write.
    losing: Option<(u64, Instant)>,
    /// The end of the stream, whether it was kept or not.
    tail: Vec<u8>,
    tail_len: usize,
    /// Bytes that were put on the disk.
    written: u64,
    #[cfg(test)]
    pub refuses: bool,
}

impl Writer {
    /// For a stream whose file is `path`; it is created with the first byte. `cap`: bytes to keep.
    pub fn new(path: PathBuf, cap: u64, tail: u64) -> Writer {
        Writer::with(path, cap / 2, (cap / 2 / SEGMENTS).max(LEAST), tail)
    }

    fn with(path: PathBuf, head: u64, size: u64, tail: u64) -> Writer {
        Writer {
            path,
            layout: Layout::Plain,
            head,
            size,
            len: 0,
            file: None,
            losing: None,
            tail: Vec::new(),
            tail_len: tail as usize,
            written: 0,
            #[cfg(test)]
            refuses: false,
        }
    }

    /// The stream's first file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes that the task wrote.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Bytes that went to the disk so far, with those that were removed since.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// The last bytes that the task wrote.
    pub fn tail(&self) -> Vec<u8> {
        self.tail[self.tail.len().saturating_sub(self.tail_len)..].to_vec()
    }

    /// Closes the file; the next byte opens it again.
    pub fn close(&mut self) {
        self.file = None;
    }

    /// Adds what the task wrote. What cannot be kept is noted as lost.
    pub fn append(&mut self, mut data: &[u8]) {
        self.remember(data);
        while !data.is_empty() {
            if let Some((since, tried)) = self.losing {
                if tried.elapsed() < RETRY {
                    self.len += data.len() as u64;
                    return;
                }
                self.end_loss(since);
                if self.losing.is_some() {
                    self.len += data.len() as u64;
                    return;
                }
            }
            match self.write(data) {
                Ok(n) => {
                    self.len += n as u64;
                    self.written += n as u64;
                    data = &data[n..];
                }
                Err(error) => {
                    tracing::warn!(path = %self.path.display(), %error, "output is lost");
                    self.file = None;
                    self.losing = Some((self.len, Instant::now()));
                }
            }
        }
    }

    /// Finishes the stream for now: records a current loss.
    pub fn finish(&mut self) {
        if let Some((since, _)) = self.losing {
            self.end_loss(since);
        }
    }

    /// Notes that all from `since` up to now is lost, if the disk takes that.
    fn end_loss(&mut self, since: u64) {
        self.losing = None;
        if let Err(error) = self.lose(since..self.len) {
            tracing::debug!(path = %self.path.display(), %error, "a loss of output is not noted");
            self.losing = Some((since, Instant::now()));
        }
    }

    fn lose(&mut self, gap: Range<u64>) -> io::Result<()> {
        if gap.is_empty() {
            return Ok(());
        }
        let (head, size) = (self.head, self.size);
        let mut layout = match &self.layout {
            Layout::Segments { .. } => self.layout.clone(),
            _ => Layout::Segments { head, size, oldest: 0, gaps: Vec::new() },
        };
        if let Layout::Segments { gaps, .. } = &mut layout {
            match gaps.last_mut() {
                Some(last) if last.end == gap.start => last.end = gap.end,
                _ => gaps.push(gap),
            }
            if gaps.len() > GAPS
                && let Some(last) = gaps.pop()
                && let Some(before) = gaps.last_mut()
            {
                before.end = last.end;
            }
        }
        self.note(layout)
    }

    fn note(&mut self, layout: Layout) -> io::Result<()> {
        self.allowed()?;
        let name = note(&self.path);
        let new = with(&name, "new");
        create(&new, true)?.write_all(layout.text().as_bytes())?;
        fs::rename(new, name)?;
        self.layout = layout;
        Ok(())
    }

    /// Writes the beginning of `data`, as much as the present file has room for.
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.allowed()?;
        let at = self.len;
        if !self.file.as_ref().is_some_and(|(_, room)| room.contains(&at)) {
            self.file = None;
            self.make_room(at)?;
            let (path, room) = self.layout.file(&self.path, at);
            let room = if at < self.head { 0..self.head } else { room };
            self.file = Some((create(&path, false)?, room));
        }
        let Some((file, room)) = &self.file else { return Ok(0) };
        let most = (room.end - at).min(data.len() as u64) as usize;
        match file.write_at(&data[..most], at - room.start)? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            n => Ok(n),
        }
    }

    /// Before a segment is begun: removes the one that is too many.
    fn make_room(&mut self, at: u64) -> io::Result<()> {
        let Some(beyond) = at.checked_sub(self.head) else { return Ok(()) };
        let number = beyond / self.size;
        let (head, size) = (self.head, self.size);
        let (was, gaps) = match &self.layout {
            Layout::Segments { oldest, gaps, .. } => (Some(*oldest), gaps.clone()),
            _ => (None, Vec::new()),
        };
        let oldest = number.saturating_sub(SEGMENTS).max(was.unwrap_or(0));
        if was != Some(oldest) {
            let removed = head + oldest * size;
            let gaps = gaps.into_iter().filter(|g| g.start < head || g.end > removed).collect();
            self.note(Layout::Segments { head, size, oldest, gaps })?;
            // After a long loss most of these never were.
            let was = was.unwrap_or(oldest);
            for gone in was..oldest.min(was + SEGMENTS + 1) {
                let _ = fs::remove_file(segment(&self.path, gone));
            }
        }
        Ok(())
    }

    fn remember(&mut self, data: &[u8]) {
        let from = data.len().saturating_sub(self.tail_len);
        if from > 0 {
            self.tail.clear();
        }
        self.tail.extend_from_slice(&data[from..]);
        if self.tail.len() > 4 * self.tail_len.max(1024) {
            self.tail.drain(..self.tail.len() - self.tail_len);
        }
    }

    /// For tests: a disk that takes nothing.
    fn allowed(&self) -> io::Result<()> {
        #[cfg(test)]
        if self.refuses {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

/// Opens a file for writing, with its folder if somebody tidied up below us.
fn create(path: &Path, fresh: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(fresh).mode(0o600);
    match options.open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(path.parent().unwrap_or(path))?;
            options.open(path)
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::logs;

    /// A generator of its own: xorshift.
    struct Random(u64);

    impl Random {
        fn below(&mut self, n: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % n
        }
    }

    /// The byte at an offset.
    fn byte(at: u64) -> u8 {
        (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
    }

    /// A reader that goes on from where it was.
    #[derive(Default)]
    struct Follower {
        at: u64,
        kept: u64,
        lost: u64,
        notes: u64,
        in_gap: bool,
    }

    impl Follower {
        /// Reads up to the present end, and checks all of it.
        fn read(&mut self, path: &Path, random: &mut Random, len: u64) {
            self.in_gap = false;
            loop {
                let part = logs::read_at(path, self.at, 1 + random.below(300) as usize).unwrap();
                let bytes = part.next_offset - self.at;
                if part.gap {
                    let text = format!("\n[outlast: {bytes} bytes cut here]\n");
                    assert_eq!(part.data, text.as_bytes());
                    assert!(bytes > 0, "a note of nothing");
                    self.notes += 1;
                    self.lost += bytes;
                } else {
                    assert_eq!(bytes, part.data.len() as u64);
                    let right = (self.at..).zip(&part.data).all(|(at, b)| byte(at) == *b);
                    assert!(right, "other bytes at {}", self.at);
                    self.kept += bytes;
                }
                assert!(!(part.gap && self.in_gap), "two notes of one loss at {}", self.at);
                self.in_gap = part.gap;
                self.at = part.next_offset;
                assert!(self.at <= len && self.kept + self.lost == self.at);
                if part.end {
                    return;
                }
                assert!(bytes > 0, "no progress at {}", self.at);
            }
        }
    }

    #[test]
    fn every_kept_byte_is_read_once_in_order_and_each_loss_noted_once() {
        for seed in 1..=40_u64 {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("t.1.out");
            let mut random = Random(seed.wrapping_mul(0x5851_f42d_4c95_7f2d));
            let (head, size) = (random.below(400), 8 + random.below(60));
            let mut writer = Writer::with(path.clone(), head, size, 20);
            let mut followers: Vec<Follower> = Vec::new();
            let (mut losses, mut len) = (0, 0);
            for _ in 0..random.below(60) {
                match random.below(10) {
                    // A disk that is full for a while, and a loss that is over at once.
                    0 => {
                        losses += u64::from(!writer.refuses);
                        writer.refuses = true;
                    }
                    1 | 2 => {
                        writer.refuses = false;
                        writer.losing = writer.losing.map(|(at, _)| (at, Instant::now() - RETRY));
                    }
                    3 => writer.close(),
                    4 => followers.push(Follower::default()),
                    5 if !followers.is_empty() => {
                        let which = random.below(followers.len() as u64) as usize;
                        followers[which].read(&path, &mut random, len);
                    }
                    _ => {
                        let most = if random.below(4) == 0 { 1500 } else { 100 };
                        let data: Vec<u8> = (len..len + random.below(most)).map(byte).collect();
                        len += data.len() as u64;
                        writer.append(&data);
                        assert_eq!(writer.len(), len);
                    }
                }
            }
            writer.refuses = false;
            writer.finish();
            let tail: Vec<u8> = (len.saturating_sub(20)..len).map(byte).collect();
            assert_eq!(writer.tail(), tail);
            followers.push(Follower::default());
            for follower in &mut followers {
                follower.read(&path, &mut random, len);
                assert_eq!(follower.at, len, "seed {seed}: the end is missing");
            }
            let last = followers.last().unwrap();
            assert!(last.notes <= losses + 1, "seed {seed}: {} notes", last.notes);
            if losses == 0 {
                // The first part, and the last: all segments that are full, and one that is not.
                let least = len.min(head + SEGMENTS * size);
                assert!((least..=least + size).contains(&last.kept), "seed {seed}: {}", last.kept);
            }
            let files = fs::read_dir(folder.path()).unwrap().count() as u64;
            assert!(files <= SEGMENTS + 3, "seed {seed}: {files} files");
        }
    }

    #[test]
    fn many_losses_become_few() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.1.out");
        let mut writer = Writer::with(path.clone(), 1 << 20, 4096, 0);
        for n in 0..1000_u64 {
            writer.refuses = n % 2 == 1;
            writer.losing = writer.losing.map(|(at, _)| (at, Instant::now() - RETRY));
            let data: Vec<u8> = (10 * n..10 * n + 10).map(byte).collect();
            writer.append(&data);
        }
        writer.refuses = false;
        writer.finish();
        let mut reader = Follower::default();
        reader.read(&path, &mut Random(7), 10_000);
        assert_eq!((reader.at, reader.notes), (10_000, GAPS as u64));
        assert!(fs::metadata(note(&path)).unwrap().len() < 4096);
    }

    #[test]
    fn notes_of_all_versions_are_understood() {
        let segments = Layout::Segments { head: 5, size: 3, oldest: 2, gaps: vec![1..2, 14..15] };
        assert_eq!(Layout::parse(&segments.text()), Some(segments.clone()));
        assert_eq!(segments.lost(), [1..2, 5..11, 14..15]);
        assert_eq!(Layout::parse("5 9\n"), Some(Layout::Hole(5..9)));
        for broken in ["", "5", "a b", "segments 1 0 0", "segments 1 2", "segments 1 2 3\nlost 4"] {
            assert_eq!(Layout::parse(broken), None, "{broken:?}");
        }
        // A log that a former version cut: one file with a hole.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.1.out");
        let mut all: Vec<u8> = (0..100).map(byte).collect();
        all[20..70].fill(0);
        fs::write(&path, &all).unwrap();
        fs::write(note(&path), "20 70\n").unwrap();
        let mut reader = Follower::default();
        reader.read(&path, &mut Random(3), 100);
        assert_eq!((reader.at, reader.lost, reader.notes), (100, 50, 1));
    }
}
