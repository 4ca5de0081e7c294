//! The key of a user's own coordinator: where the coordinator leaves it, how clients of the same user
//! find it, and which key goes to whom.

use crate::Url;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Ending of key files, after the port that the coordinator listens on.
const END: &str = ".key";
/// The longest file of a key, in bytes.
const MAX_FILE: u64 = 1024;

/// A key, and how it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// The key.
    pub token: String,
    /// Source of the key.
    pub source: Source,
}

/// Source of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The key was given explicitly for this coordinator.
    Given,
    /// This user's coordinator of that port left it in this file.
    Own(PathBuf),
    /// The key belongs to this user's only coordinator, which listens on another port: this one may lead
    /// there.
    Guessed,
}

/// Answer to a challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// The peer proved that it knows the key.
    Proof,
    /// The peer does not know the key.
    Unknown,
    /// The peer requires no key.
    NoKeys,
    /// The peer does not know challenges: an older version, or another program.
    Nothing,
}

impl Credential {
    /// The key for a coordinator: the one that is given, else that of this user's own coordinator,
    /// if the address is on this machine.
    pub fn find(url: &Url, given: Option<&str>) -> Option<Credential> {
        if let Some(token) = given {
            return Some(Credential { token: token.trim().into(), source: Source::Given });
        }
        is_local(&url.host).then(|| find_in(&folder()?, url.port)).flatten()
    }

    /// Returns the key if it may be sent without TLS to a peer that gave this answer.
    ///
    /// # Errors
    /// The warning that the peer may not be the coordinator, in which case no key may be sent.
    pub fn after(&self, said: Said, at: &str) -> Result<Option<&str>, String> {
        let who = format!("whoever listens at {at} is not the coordinator that");
        match (&self.source, said) {
            // An older coordinator has no proof to give.
            (_, Said::Proof) | (Source::Given, Said::Nothing) => Ok(Some(&self.token)),
            (Source::Given, Said::NoKeys) | (Source::Guessed, _) => Ok(None),
            (Source::Given, Said::Unknown) => {
                Err(format!("{who} this API key is of, or has revoked it: it was not sent"))
            }
            (Source::Own(file), _) => Err(format!(
                "{who} this user's key for that port is of, and was not sent it. If the \
                 coordinator there is meant, give a key of it as OUTLAST_API_KEY, or remove {} if \
                 it has none",
                file.display()
            )),
        }
    }
}

/// Returns true if a host name always refers to this machine, regardless of a resolver.
pub fn is_local(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The folder of the keys of this user's coordinators.
pub fn folder() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let data = set("XDG_DATA_HOME").or_else(|| Some(set("HOME")?.join(".local/share")))?;
    Some(data.join("outlast/local"))
}

fn find_in(folder: &Path, port: u16) -> Option<Credential> {
    let file = folder.join(format!("{port}{END}"));
    if let Some(token) = read(&file) {
        return Some(Credential { token, source: Source::Own(file) });
    }
    let mut files = fs::read_dir(folder).ok()?.flatten();
    let mut keys = files.by_ref().filter(|e| e.file_name().to_string_lossy().ends_with(END));
    let (only, None) = (keys.next()?, keys.next()) else { return None };
    Some(Credential { token: read(&only.path())?, source: Source::Guessed })
}

/// The key in a file that only its owner may read and write.
pub fn read(file: &Path) -> Option<String> {
    let open = File::open(file).ok()?;
    let meta = open.metadata().ok()?;
    if !meta.is_file() || meta.mode() & 0o077 != 0 {
        return None;
    }
    let mut text = String::new();
    open.take(MAX_FILE).read_to_string(&mut text).ok()?;
    Some(text.trim().to_owned()).filter(|key| !key.is_empty())
}

/// Keeps a key in a file that only its owner may read.
///
/// # Errors
/// Those of writing.
pub fn write(file: &Path, token: &str) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let new = file.with_extension("new");
    let _ = fs::remove_file(&new);
    let mut open = File::options().write(true).create_new(true).mode(0o600).open(&new)?;
    open.write_all(format!("{token}\n").as_bytes())?;
    open.sync_all()?;
    fs::rename(&new, file)
}

/// Leaves the key of a coordinator on this port for this user's clients; without one, what a former
/// coordinator left goes. Returns the file.
///
/// # Errors
/// Those of writing. Where the user has no home there is nowhere to leave it.
pub fn leave(port: u16, token: Option<&str>) -> io::Result<PathBuf> {
    let folder =
        folder().ok_or_else(|| io::Error::other("neither HOME nor XDG_DATA_HOME is set"))?;
    let file = folder.join(format!("{port}{END}"));
    match token {
        Some(token) => write(&file, token)?,
        None => match fs::remove_file(&file) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        },
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_are_found_by_port_or_if_there_is_one_only() {
        let dir = std::env::temp_dir().join(format!("outlast-local-{}", std::process::id()));
        let of = |port: u16| dir.join(format!("{port}{END}"));
        assert_eq!(find_in(&dir, 7117), None);
        write(&of(7117), "olk_a_1").unwrap();
        assert_eq!(fs::metadata(of(7117)).unwrap().mode() & 0o777, 0o600);
        let found = find_in(&dir, 7117).unwrap();
        assert_eq!((found.token.as_str(), &found.source), ("olk_a_1", &Source::Own(of(7117))));
        assert_eq!(find_in(&dir, 7118).unwrap().source, Source::Guessed);
        write(&of(7200), "olk_b_2").unwrap();
        assert_eq!(find_in(&dir, 7118), None);
        assert_eq!(find_in(&dir, 7200).unwrap().token, "olk_b_2");
        // One that others may read is not trusted.
        fs::set_permissions(of(7200), fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(find_in(&dir, 7200), None);
        fs::remove_dir_all(dir).unwrap();
        for (host, local) in [
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("::1", true),
            ("LocalHost", true),
            ("10.0.0.1", false),
            ("localhost.example", false),
        ] {
            assert_eq!(is_local(host), local, "{host}");
        }
    }

    #[test]
    fn a_key_goes_to_who_proved_to_know_it() {
        let of = |source| Credential { token: "olk_a_1".into(), source };
        let (given, own) = (of(Source::Given), of(Source::Own("/f".into())));
        let guessed = of(Source::Guessed);
        for credential in [&given, &own, &guessed] {
            assert_eq!(credential.after(Said::Proof, "x"), Ok(Some("olk_a_1")));
        }
        assert_eq!(given.after(Said::Nothing, "x"), Ok(Some("olk_a_1")));
        assert_eq!(given.after(Said::NoKeys, "x"), Ok(None));
        assert!(given.after(Said::Unknown, "x").unwrap_err().contains("was not sent"));
        for said in [Said::Unknown, Said::NoKeys, Said::Nothing] {
            assert!(own.after(said, "x").unwrap_err().contains("remove /f"), "{said:?}");
            assert_eq!(guessed.after(said, "x"), Ok(None));
        }
    }
}
