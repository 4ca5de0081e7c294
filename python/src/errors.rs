//! The exceptions of the package: classes of `outlast.errors`.

use outlast::Error;
use outlast_worker::local::HostError;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

/// An exception of `outlast.errors`.
pub(crate) fn error(py: Python<'_>, class: &str, arguments: impl Arguments) -> PyErr {
    let made = py.import("outlast.errors").and_then(|m| m.getattr(class)).and_then(|class| {
        let made = arguments.call(&class)?;
        Ok(PyErr::from_value(made))
    });
    made.unwrap_or_else(|e| e)
}

/// The arguments of an exception.
pub(crate) trait Arguments {
    fn call<'py>(self, class: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>>;
}
impl Arguments for &str {
    fn call<'py>(self, class: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        class.call1((self,))
    }
}
impl Arguments for (&str, u16) {
    fn call<'py>(self, class: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        class.call1(self)
    }
}

/// An error of the system.
pub(crate) fn system(what: &str, error: &std::io::Error) -> PyErr {
    PyRuntimeError::new_err(format!("{what}: {error}"))
}

/// The exception for an error of the client.
pub(crate) fn client_error(py: Python<'_>, e: &Error) -> PyErr {
    let text = e.to_string();
    match e {
        Error::Problem(problem) if problem.status == 404 => {
            error(py, "NotFound", (text.as_str(), 404))
        }
        Error::Problem(problem) => error(py, "Refused", (text.as_str(), problem.status)),
        Error::Unreachable { .. } => error(py, "Unreachable", text.as_str()),
        Error::Strange { .. } => error(py, "Unreachable", text.as_str()),
        Error::Setup(_) => error(py, "ConfigurationError", text.as_str()),
    }
}

/// The class in `outlast.errors` for an error of a task's interface.
pub(crate) fn class(e: &HostError) -> &'static str {
    match e {
        HostError::NoSuchAttempt | HostError::Fenced(_) | HostError::Ended(_) => "TaskNotRunning",
        HostError::Full { .. } => "StorageFull",
        HostError::Unavailable(_) => "Unreachable",
        HostError::Invalid(_) | HostError::TooLarge { .. } => "InvalidData",
        HostError::NoSuchCheckpoint(_)
        | HostError::Conflict(_)
        | HostError::Damaged(_)
        | HostError::Denied(_)
        | HostError::Internal(_) => "OutlastError",
    }
}
