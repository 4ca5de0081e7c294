//! The extension module under the Python package `outlast`. It is thin: documents travel as JSON
//! text, exceptions are classes of `outlast.errors`, and whatever blocks releases the GIL.

mod agent;
mod aio;
mod buffer;
mod child;
mod client;
mod context;
mod follow;
mod pool;
mod recovery;
mod requests;
mod thread;
mod watch;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use std::time::Duration;

/// Interval at which a waiting call checks for Ctrl-C.
pub(crate) const LOOK: Duration = Duration::from_millis(100);

/// An exception of `outlast.errors`.
pub(crate) fn error(py: Python<'_>, class: &str, arguments: impl Arguments) -> PyErr {
    let made = py.import("outlast.errors").and_then(|m| m.getattr(class)).and_then(|class| {
        let made = arguments.call(&class)?;
        Ok(PyErr::from_value(made))
    });
    made.unwrap_or_else(|e| e)
}

/// Arguments of an exception.
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

/// Waits with the GIL released, and looks at signals meanwhile. `slice` returns what it waited
/// for, or nothing after about [`LOOK`].
pub(crate) fn wait<T: Send>(
    py: Python<'_>,
    mut slice: impl FnMut() -> Option<T> + Send,
) -> PyResult<T> {
    loop {
        if let Some(done) = py.detach(&mut slice) {
            return Ok(done);
        }
        py.check_signals()?;
    }
}

pub(crate) fn system(what: &str, error: &std::io::Error) -> PyErr {
    PyRuntimeError::new_err(format!("{what}: {error}"))
}

#[pymodule]
fn _outlast(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<agent::Agent>()?;
    module.add_class::<aio::Mailbox>()?;
    module.add_class::<buffer::Held>()?;
    module.add_class::<context::Context>()?;
    module.add("FAILURE_TYPES", recovery::failure_types())?;
    module.add_function(wrap_pyfunction!(recovery::recovery_plan, module)?)?;
    module.add_function(wrap_pyfunction!(recovery::recovery_patterns, module)?)?;
    module.add_function(wrap_pyfunction!(recovery::recovery_spec, module)?)?;
    module.add_function(wrap_pyfunction!(recovery::recovery_ask, module)?)?;
    module.add_class::<follow::Follower>()?;
    module.add_class::<client::Client>()
}
