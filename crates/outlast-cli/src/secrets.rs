//! Protection of this process's secrets, such as the API key, from other processes.

use crate::config;
use crate::context::Common;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Environment variable with the API key.
const KEY: &str = "OUTLAST_API_KEY";
/// Longest key file in bytes.
const MAX_FILE: u64 = 4096;

/// A kind of process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Process {
    /// A coordinator or worker, which runs on.
    Server,
    /// A keeper, which runs on, and whose tasks get its mask of permissions.
    Keeper,
    /// A command that writes private files.
    Writer,
    /// A command that neither runs on nor writes private files.
    Other,
}

/// Hides the key, and protects long-running processes: other processes of the user, including a
/// worker's tasks, cannot read their memory, and their files are private. To be called first.
pub(crate) fn harden(process: Process, key: Option<&str>) {
    if let Some(key) = key {
        hide(key);
    }
    if matches!(process, Process::Server | Process::Keeper) {
        // Child processes do not inherit descriptors of this process's parent.
        outlast_spawn::tidy();
        outlast_spawn::undumpable();
    }
    // The keeper does so itself, since its tasks get this process's mask.
    if matches!(process, Process::Server | Process::Writer) {
        outlast_spawn::private_files();
    }
}

/// Erases the key from the arguments and the environment that the system shows.
#[allow(unsafe_code)]
fn hide(key: &str) {
    // SAFETY: this process has one thread so far.
    unsafe {
        outlast_spawn::conceal(key.as_ref());
        let _ = outlast_spawn::take_variable(KEY);
    }
}

/// Finds the API key: given directly, in a file, or in the configuration.
pub(crate) fn api_key(common: &Common, config: &config::File) -> Result<Option<String>, String> {
    if let Some(key) = common.api_key.clone().filter(|key| !key.is_empty()) {
        return Ok(Some(key));
    }
    if let Some(file) = common.api_key_file.as_deref().filter(|f| !f.as_os_str().is_empty()) {
        return read(file).map(Some);
    }
    if let Some(key) = config.text("client", "api_key") {
        return Ok(Some(key));
    }
    config.text("client", "api_key_file").map(|file| read(file.as_ref())).transpose()
}

fn read(path: &Path) -> Result<String, String> {
    let named =
        |why: &dyn std::fmt::Display| format!("the API key's file {}: {why}", path.display());
    let file = File::open(path).map_err(|e| named(&e))?;
    let mut text = String::new();
    if file.metadata().is_ok_and(|meta| meta.is_file() && meta.mode() & 0o077 != 0) {
        eprintln!("outlast: {}", named(&"other users can read it; use chmod 600"));
    }
    file.take(MAX_FILE).read_to_string(&mut text).map_err(|e| named(&e))?;
    let key = text.trim();
    if key.is_empty() || key.contains(char::is_whitespace) {
        return Err(named(&"it must contain one key and nothing else"));
    }
    Ok(key.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_one_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let holds = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read(&path)
        };
        assert_eq!(holds("olk_1_2\n").as_deref(), Ok("olk_1_2"));
        assert!(holds("\n").unwrap_err().contains("one key and nothing else"));
        assert!(holds("two keys").unwrap_err().contains("one key and nothing else"));
        let error = read(&dir.path().join("none")).unwrap_err();
        assert!(error.contains("none: No such file"), "{error}");
    }
}
