//! Keeps what this process must not show from other processes: `/proc` shows a process's arguments
//! to everybody, and its first environment and its memory to whoever runs as the same user.
#![allow(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::ops::Range;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Set to 1, it lets processes of the same user at this one, as for a debugger or a core.
const DUMPABLE: &str = "OUTLAST_DUMPABLE";

/// Keeps other processes of the same user from this one's memory, environment and descriptors.
/// Nobody but the superuser can attach a debugger then, and no core is dumped. Programs that this
/// process starts are as open as any.
pub fn undumpable() {
    if std::env::var_os(DUMPABLE).is_some_and(|value| value == "1") {
        return;
    }
    #[cfg(target_os = "linux")]
    // SAFETY: the call takes numbers only.
    unsafe {
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
    }
}

/// Takes a variable out of the environment: the value also goes from where the system shows it, and
/// no child inherits it.
///
/// # Safety
/// No other thread may look at the environment meanwhile, as for [`std::env::remove_var`].
pub unsafe fn take_variable(name: &str) -> Option<OsString> {
    let value = std::env::var_os(name)?;
    // SAFETY: the caller's.
    unsafe { std::env::remove_var(name) };
    let prefix = [name.as_bytes(), b"="].concat();
    // SAFETY: the caller's; nothing in this process points there any more.
    unsafe {
        overwrite(&block().1, 0, |entry| {
            let at = entry.starts_with(&prefix).then_some(prefix.len())?;
            Some(at..entry.len())
        });
    }
    Some(value)
}

/// Overwrites a secret wherever it is, whole or behind a `=`, among this process's arguments.
///
/// # Safety
/// No other thread may look at the arguments meanwhile.
pub unsafe fn conceal(secret: &OsStr) {
    let secret = secret.as_bytes();
    if secret.is_empty() {
        return;
    }
    // SAFETY: the caller's. As many bytes as before: who reads the arguments still finds their ends.
    unsafe {
        overwrite(&block().0, b'*', |argument| {
            let at = argument.len().checked_sub(secret.len())?;
            let whole = argument.ends_with(secret) && (at == 0 || argument[at - 1] == b'=');
            whole.then_some(at..argument.len())
        });
    }
}

/// Place where the system shows the arguments and the first environment from: addresses in this process.
fn block() -> (Range<usize>, Range<usize>) {
    let text = std::fs::read("/proc/self/stat").map(OsString::from_vec).unwrap_or_default();
    let text = text.to_string_lossy();
    // The name of the program may have anything in it, but no later field has a bracket.
    let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields: Vec<usize> =
        fields.split_ascii_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
    // The third field is the first here; these are from the 48th on.
    let at = |n: usize| fields.get(n - 3).copied().unwrap_or(0);
    (at(48)..at(49), at(50)..at(51))
}

/// Overwrites, of each piece that ends with a zero, what `which` says.
///
/// # Safety
/// The range must be memory of this process that nobody else uses meanwhile.
unsafe fn overwrite(range: &Range<usize>, with: u8, which: impl Fn(&[u8]) -> Option<Range<usize>>) {
    // None, or something is wrong with it: the block is never larger than this on any system.
    if range.start == 0 || range.len() > 64 << 20 {
        return;
    }
    let start = std::ptr::with_exposed_provenance_mut::<u8>(range.start);
    // SAFETY: the caller's.
    let all = unsafe { std::slice::from_raw_parts_mut(start, range.len()) };
    for piece in all.split_mut(|&byte| byte == 0) {
        if let Some(range) = which(piece) {
            piece[range].fill(with);
        }
    }
}
