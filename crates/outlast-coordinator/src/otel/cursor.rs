//! The position up to which traces are exported: a small file beside the store, so that a restart goes on
//! from there.
//! Without it tasks that ended before are not exported.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Least time between writes; a coordinator that is killed repeats what it sent since.
const EVERY: Duration = Duration::from_secs(5);

/// All tasks that ended before this are out.
#[derive(Debug)]
pub(super) struct Cursor {
    file: PathBuf,
    at: i64,
    written: (i64, Instant),
}

impl Cursor {
    /// Reads the file; `now` (Unix ms) is what holds when there is none.
    pub fn open(file: &Path, now: i64) -> io::Result<Cursor> {
        let text = match std::fs::read_to_string(file) {
            Ok(text) => Some(text),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        let at = match text.as_deref().map(|t| t.trim().parse::<i64>()) {
            Some(Ok(at)) => at.min(now),
            Some(Err(_)) => {
                tracing::warn!("{}: holds no time; traces start again from now", file.display());
                now
            }
            None => now,
        };
        write(file, at)?;
        Ok(Cursor { file: file.into(), at, written: (at, Instant::now()) })
    }

    pub fn at(&self) -> i64 {
        self.at
    }

    /// Moves to `at`: all that ended before are exported; written now and then.
    pub async fn advance(&mut self, at: i64) {
        self.at = at;
        if self.written.1.elapsed() >= EVERY {
            self.save().await;
        }
    }

    /// Writes it. What cannot be written is said, and only means that more is repeated.
    pub async fn save(&mut self) {
        if self.written.0 == self.at {
            return;
        }
        self.written = (self.at, Instant::now());
        let (file, at) = (self.file.clone(), self.at);
        let done = tokio::task::spawn_blocking(move || write(&file, at)).await;
        if let Err(error) = done.unwrap_or_else(|e| Err(io::Error::other(e))) {
            tracing::warn!("{}: {error}", self.file.display());
        }
    }
}

fn write(file: &Path, at: i64) -> io::Result<()> {
    let new = file.with_extension("new");
    let mut made = std::fs::File::create(&new)?;
    writeln!(made, "{at}")?;
    made.sync_all()?;
    std::fs::rename(&new, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_goes_on_where_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("otlp-cursor");
        let mut cursor = Cursor::open(&file, 100).unwrap();
        assert_eq!(cursor.at(), 100);
        // At once, so that what ends from now on is known to be due.
        assert_eq!(Cursor::open(&file, 200).unwrap().at(), 100);
        cursor.advance(150).await;
        cursor.save().await;
        assert_eq!(Cursor::open(&file, 200).unwrap().at(), 150);
        // The clock was set back.
        assert_eq!(Cursor::open(&file, 120).unwrap().at(), 120);
        std::fs::write(&file, "nonsense").unwrap();
        assert_eq!(Cursor::open(&file, 300).unwrap().at(), 300);
    }
}
