//! The error for wrong usage, and the exit codes of errors.

use outlast::Error;

/// Wrong usage of the command.
#[derive(Debug)]
pub(crate) struct Usage(pub String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::error::Error for Usage {}

/// The exit code for an error.
pub(crate) fn code_of(error: &anyhow::Error) -> u8 {
    if error.downcast_ref::<Usage>().is_some() {
        return 2;
    }
    match error.downcast_ref::<Error>() {
        Some(Error::Unreachable { .. } | Error::Strange { .. }) => 5,
        Some(Error::Setup(_)) => 2,
        Some(Error::Problem(problem)) => match problem.status {
            400 | 413 => 2,
            404 => 3,
            401 | 403 | 407 => 4,
            409 => 6,
            // The coordinator was reached; the worker is away.
            503 if problem.word() == "no-logs" => 1,
            429 | 502..=504 | 507 => 5,
            _ => 1,
        },
        None => 1,
    }
}
