//! The holder of a lock: it signs the locked file, so that others that find it locked can name it.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The longest signature that is accepted, in bytes.
const LONGEST: usize = 1000;

/// Signs a file that is locked by this process. It is for people, and may fail.
pub fn sign(mut file: &File) {
    let program = std::env::args_os().next().unwrap_or_default();
    let program = Path::new(&program).file_name().unwrap_or_default().display().to_string();
    // Later arguments may be secret.
    let command = std::env::args().nth(1).filter(|word| !word.starts_with('-'));
    let command = command.map_or(String::new(), |word| format!(" {word}"));
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let text =
        format!("{}\n{}\n{program}{command}\n{}\n", process::id(), now().as_secs(), host.trim());
    let _ = file.set_len(0).and_then(|()| file.write_all(text.as_bytes()));
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The signer of this file, in words; "another process" if nobody did.
pub fn signed(file: &Path) -> String {
    read(file).unwrap_or_else(|| "another process".to_owned())
}

/// The holder of the store at this path, in words.
pub fn of_store(path: &Path) -> String {
    signed(&lock_of(path))
}

/// The file beside a store that its holder locks and signs.
pub(crate) fn lock_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

fn read(file: &Path) -> Option<String> {
    let text = fs::read_to_string(file).ok().filter(|text| text.len() <= LONGEST)?;
    let mut lines = text.lines();
    let pid: u32 = lines.next()?.parse().ok()?;
    let since: u64 = lines.next()?.parse().ok()?;
    // It is shown in a terminal.
    let clean = |text: &str| text.chars().filter(|c| !c.is_control()).collect::<String>();
    let (command, host) = (clean(lines.next()?), clean(lines.next()?));
    let minutes = now().as_secs().saturating_sub(since) / 60;
    let time = match minutes {
        0 => "less than a minute".to_owned(),
        1..120 => format!("{minutes} min"),
        _ => format!("{} h", minutes / 60),
    };
    Some(format!("process {pid} ({command}) on {host}, for {time}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_signed_is_named_and_nonsense_is_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let file = File::create(&path).unwrap();
        assert_eq!(signed(&path), "another process");
        sign(&file);
        let text = signed(&path);
        assert!(text.starts_with(&format!("process {} (", process::id())), "{text}");
        assert!(text.ends_with(", for less than a minute"), "{text}");
        fs::write(&path, "7\n0\nout\x1b[31mlast\nhere\n").unwrap();
        assert!(signed(&path).starts_with("process 7 (out[31mlast) on here, for "));
        for nonsense in ["x\n", "7\n", "7\nsoon\na\nb\n"] {
            fs::write(&path, nonsense).unwrap();
            assert_eq!(signed(&path), "another process");
        }
    }
}
