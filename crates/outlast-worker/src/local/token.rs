//! Proof that a client belongs to the attempt that it names: a token in each attempt's environment. It
//! is derived from a key of the state folder, so that the next worker process recognizes tasks that
//! outlive the previous one.

use super::error::HostError;
use super::problem::{Problem, Refusal};
use super::types::{Attempt, TOKEN_VARIABLE};
use axum::http::{HeaderMap, StatusCode, header};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The longest file, in bytes: it names the tasks that ran when it was made.
const MAX_FILE: u64 = 64 << 20;
/// The file of the key in a worker's state folder.
pub const KEY_FILE: &str = "task-key";
/// The first line begins with it.
const MARK: &str = "outlast task key 1 ";

/// The tokens of one worker's attempts.
#[derive(Debug)]
pub struct Tokens {
    key: [u8; 32],
    /// Attempts that a worker of a former version started: they have none, and need none.
    without: HashSet<Attempt>,
}

impl Tokens {
    /// Reads the key, or makes one. Attempts that run when it is made have been started without.
    ///
    /// # Errors
    /// Those of the file; `InvalidData` if it holds something else.
    pub fn open(path: &Path, running: impl IntoIterator<Item = Attempt>) -> io::Result<Tokens> {
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        match fs::metadata(path) {
            Ok(meta) if meta.len() <= MAX_FILE => {
                let text = fs::read_to_string(path).map_err(named)?;
                let strange = || io::Error::new(io::ErrorKind::InvalidData, "is no key of tasks");
                Tokens::parse(&text).ok_or_else(|| named(strange()))
            }
            Ok(_) => Err(named(io::ErrorKind::FileTooLarge.into())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let mut key = [0; 32];
                File::open("/dev/urandom")
                    .and_then(|mut f| io::Read::read_exact(&mut f, &mut key))?;
                let tokens = Tokens { key, without: running.into_iter().collect() };
                tokens.keep(path).map_err(named)?;
                Ok(tokens)
            }
            Err(e) => Err(named(e)),
        }
    }

    fn parse(text: &str) -> Option<Tokens> {
        let mut lines = text.lines();
        let key = *blake3::Hash::from_hex(lines.next()?.strip_prefix(MARK)?).ok()?.as_bytes();
        let without = lines.map(|line| {
            let (epoch, task) = line.split_once(' ')?;
            Some(Attempt { task: task.into(), epoch: epoch.parse().ok()? })
        });
        Some(Tokens { key, without: without.collect::<Option<_>>()? })
    }

    /// Durable before the first token is given out.
    fn keep(&self, path: &Path) -> io::Result<()> {
        let mut text = format!("{MARK}{}\n", blake3::Hash::from_bytes(self.key).to_hex());
        for Attempt { task, epoch } in &self.without {
            text += &format!("{epoch} {task}\n");
        }
        let new = path.with_extension("new");
        let _ = fs::remove_file(&new);
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    }

    /// The token of an attempt.
    pub fn of(&self, task: &str, epoch: u64) -> String {
        self.hash(task, epoch).to_hex()[..32].to_owned()
    }

    fn hash(&self, task: &str, epoch: u64) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&epoch.to_le_bytes()).update(task.as_bytes());
        hasher.finalize()
    }

    /// Lets a request of an attempt pass, or says why not.
    pub(super) fn check(&self, at: &Attempt, headers: &HeaderMap) -> Result<(), Refusal> {
        let said = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
        let token = said.and_then(|said| {
            let (scheme, token) = said.split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"bearer ").then_some(token.trim_ascii())
        });
        let Some(token) = token else {
            if self.without.contains(at) {
                return Ok(());
            }
            let detail = format!(
                "say who you are: send the header `Authorization: Bearer ${TOKEN_VARIABLE}`; each \
                 attempt has that variable"
            );
            let status = StatusCode::UNAUTHORIZED;
            return Err(Problem::new(status, "no-token", "a token is needed", detail).into());
        };
        // Hashes are compared in the same time wherever they differ.
        let told = blake3::hash(token);
        if told == blake3::hash(self.of(&at.task, at.epoch).as_bytes()) {
            return Ok(());
        }
        Err(HostError::Denied(format!(
            "this token is not that of attempt {} of task {}: ${TOKEN_VARIABLE} is of the attempt \
             that it was given to, and speaks for no other",
            at.epoch, at.task
        ))
        .into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn at(task: &str, epoch: u64) -> Attempt {
        Attempt { task: task.into(), epoch }
    }

    fn with(token: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, token.parse().unwrap());
        headers
    }

    #[test]
    fn a_token_speaks_for_one_attempt_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("task-key");
        let tokens = Tokens::open(&path, [at("old", 3)]).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let mine = tokens.of("t", 1);
        assert_eq!(mine.len(), 32);
        for tokens in [tokens, Tokens::open(&path, [at("new", 1)]).unwrap()] {
            assert_eq!(tokens.of("t", 1), mine);
            for scheme in ["Bearer", "bearer", "BEARER"] {
                assert!(tokens.check(&at("t", 1), &with(&format!("{scheme} {mine}"))).is_ok());
            }
            let bearer = with(&format!("Bearer {mine}"));
            for other in [at("t", 2), at("u", 1), at("old", 3)] {
                assert!(tokens.check(&other, &bearer).is_err(), "{other:?}");
            }
            for wrong in ["Bearer", "Bearer ", "Bearer x", &mine, "Basic eDp5"] {
                assert!(tokens.check(&at("t", 1), &with(wrong)).is_err(), "{wrong}");
            }
            // What a former version started has none; nothing else goes without.
            assert!(tokens.check(&at("old", 3), &HeaderMap::new()).is_ok());
            for other in [at("t", 1), at("old", 4), at("new", 1)] {
                assert!(tokens.check(&other, &HeaderMap::new()).is_err(), "{other:?}");
            }
        }
        // Another worker's are others.
        let other = Tokens::open(&dir.path().join("other"), []).unwrap();
        assert_ne!(other.of("t", 1), mine);
        fs::write(&path, "something else").unwrap();
        assert_eq!(Tokens::open(&path, []).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
