//! Report of a browser task's program, in addition to its exit code: a file that it leaves, and that
//! becomes part of the outcome.

use outlast_model::{Cause, OutcomeKind, TaskOutcome};
use outlast_spawn::User;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// The largest result, in bytes of JSON.
pub const MAX_VALUE: usize = 1 << 20;
/// The largest file. Text may take some more than what it says.
const MAX_FILE: u64 = MAX_VALUE as u64 + (64 << 10);
/// The longest message, in characters.
const MAX_MESSAGE: usize = 1000;

/// The content of the file that `OUTLAST_RESULT_FILE` names.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Reason why it failed, in a line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The result, or more about its failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Box<RawValue>>,
}

impl Report {
    /// Leaves it in a file: complete, or not at all.
    ///
    /// # Errors
    /// Those of writing.
    pub fn leave(&self, path: &Path) -> io::Result<()> {
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        drop(file);
        fs::rename(new, path)
    }
}

/// Takes the file, if there is one, into the outcome of a program that ended by itself: of one that
/// was stopped, or killed, the executor knows more. The file must be the task's: it is in a folder where
/// the task may put anything.
pub(super) fn take(path: &Path, user: Option<&User>, outcome: &mut TaskOutcome) {
    let mut text = Vec::new();
    let read = open(path, user).and_then(|f| f.take(MAX_FILE + 1).read_to_end(&mut text));
    let _ = fs::remove_file(path);
    if read.is_err() || !matches!(outcome.cause, Cause::Done | Cause::Exit) {
        return;
    }
    match serde_json::from_slice::<Report>(&text) {
        Ok(report) if report.value.as_ref().is_none_or(|v| v.get().len() <= MAX_VALUE) => {
            if outcome.kind == OutcomeKind::Failed && !report.message.is_empty() {
                outcome.message = report.message.chars().take(MAX_MESSAGE).collect();
            }
            let value = report.value.map(|v| v.get().as_bytes().to_vec());
            // As of a function: nothing says null.
            outcome.value_json = value.filter(|v| v != b"null").unwrap_or_default().into();
        }
        _ => tracing::warn!(path = %path.display(), "the result cannot be used"),
    }
}

/// Opens a file that is one, and the user's, without following a link and without waiting.
fn open(path: &Path, user: Option<&User>) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    let meta = file.metadata()?;
    match meta.is_file() && user.is_none_or(|user| user.uid == meta.uid()) {
        true => Ok(file),
        false => Err(io::ErrorKind::PermissionDenied.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_becomes_part_of_the_outcome() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.1.res");
        let report = |message: &str, value: &str| Report {
            message: message.into(),
            value: Some(RawValue::from_string(value.into()).unwrap()),
        };
        let end = |cause| {
            let (kind, message) = (OutcomeKind::Failed, "exit code 1".into());
            TaskOutcome { kind, cause, message, ..TaskOutcome::default() }
        };
        report("TypeError: x", r#"{"stack":"at x"}"#).leave(&path).unwrap();
        let mut outcome = end(Cause::Exit);
        take(&path, None, &mut outcome);
        assert_eq!(outcome.message, "TypeError: x");
        assert_eq!(&outcome.value_json[..], br#"{"stack":"at x"}"#);
        assert!(!path.exists());
        // None, a broken one, one that is too large, and one of an attempt that was stopped.
        take(&path, None, &mut outcome);
        assert_eq!(outcome.message, "TypeError: x");
        let large = format!(r#"{{"message":"m","value":"{}"}}"#, "x".repeat(MAX_VALUE));
        for (text, cause) in [
            ("{".to_owned(), Cause::Exit),
            (large, Cause::Exit),
            (r#"{"message":"m","value":1}"#.into(), Cause::OutOfMemory),
        ] {
            fs::write(&path, text).unwrap();
            let mut outcome = end(cause);
            take(&path, None, &mut outcome);
            assert_eq!(outcome, end(cause));
        }
    }
}
