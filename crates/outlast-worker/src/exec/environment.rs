//! The environment that tasks inherit from the worker.

use super::user::{is_of_session, of_session};
use outlast_spawn::User;
use outlast_wire::trace::{TRACEPARENT, TRACESTATE};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, OsString};
use std::os::unix::ffi::OsStrExt;

/// The prefix of the variables that describe a task to itself.
const OURS: &[u8] = b"OUTLAST_";
/// The places of programs when there is no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// The variables that all tasks inherit: the worker's environment without any `OUTLAST_*`, which may be secret,
/// and without the trace of the worker's own start.
#[derive(Debug)]
pub(super) struct Inherited {
    /// The length of the name, and `NAME=value`.
    entries: Vec<(usize, CString)>,
    pub path: OsString,
}

impl Inherited {
    /// The variables of this process's own environment; for another user, with that user's home and name.
    pub fn take(user: Option<&User>) -> Inherited {
        let session = user.map(of_session).into_iter().flatten();
        let session = session.map(|(name, value)| (name.into(), value.into()));
        let entries = std::env::vars_os()
            .filter(|(name, _)| !name.as_encoded_bytes().starts_with(OURS))
            .filter(|(name, _)| name != TRACEPARENT && name != TRACESTATE)
            .filter(|(name, _)| user.is_none() || !is_of_session(name))
            .chain(session)
            .filter_map(|(name, value)| {
                Some((name.len(), entry(name.as_bytes(), value.as_bytes()).ok()?))
            });
        let path = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
        Inherited { entries: entries.collect(), path }
    }

    /// All variables except those that `own` has too, which comes after it.
    pub fn with(&self, own: &BTreeMap<&[u8], &[u8]>) -> Result<Vec<Cow<'_, CStr>>, String> {
        // Names that begin like ours are never inherited.
        let ours = |name: &&[u8]| !name.starts_with(OURS);
        let clash: Vec<&[u8]> = own.keys().copied().filter(ours).collect();
        let kept = self
            .entries
            .iter()
            .filter(|(name, entry)| clash.binary_search(&&entry.as_bytes()[..*name]).is_err());
        kept.map(|(_, entry)| Ok(Cow::from(entry.as_c_str())))
            .chain(own.iter().map(|(name, value)| entry(name, value).map(Cow::from)))
            .collect()
    }
}

fn entry(name: &[u8], value: &[u8]) -> Result<CString, String> {
    CString::new([name, b"=", value].concat()).map_err(|_| {
        format!("the environment variable {:?} contains a NUL", String::from_utf8_lossy(name))
    })
}
