//! Some room on the disk that is taken in good times, so that on a full disk a collection can
//! still write down what it deletes. Owns one file, which has no content.

use fs4::FileExt;
use outlast_sqlite::private;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

/// Growth of the index's log before it is copied back, with a margin.
const BYTES: u64 = 6 << 20;
const NAME: &str = "reserve";

/// Gives the room that a store in this folder keeps in reserve to whoever needs it more: on a full
/// disk nothing can be collected before everything else is open. Only while the store is closed;
/// whether there was any.
pub fn free_reserve(dir: impl AsRef<Path>) -> bool {
    fs::remove_file(dir.as_ref().join(NAME)).is_ok()
}

#[derive(Debug)]
pub(crate) struct Reserve {
    file: PathBuf,
}

impl Reserve {
    /// Takes the room. That it cannot be had is no error: there may be some later.
    pub fn take(dir: &Path) -> Self {
        let reserve = Self { file: dir.join(NAME) };
        reserve.refill();
        reserve
    }

    fn refill(&self) {
        let mut options = OpenOptions::new();
        let file = private(options.write(true).create(true).truncate(false)).open(&self.file);
        if file.and_then(|file| FileExt::allocate(&file, BYTES)).is_err() {
            let _ = fs::remove_file(&self.file);
        }
    }

    /// Lets the room be used until what is returned is dropped.
    pub fn lend(&self) -> Lent<'_> {
        let _ = fs::remove_file(&self.file);
        Lent(self)
    }
}

pub(crate) struct Lent<'a>(&'a Reserve);

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.0.refill();
    }
}
