//! The extension module under the Python package `outlast`. It is thin: documents travel as JSON
//! text, exceptions are classes of `outlast.errors`, and whatever blocks releases the GIL.

mod agent;
mod aio;
mod buffer;
mod child;
mod client;
mod context;
mod ends;
mod errors;
mod follow;
mod interrupt;
mod pool;
mod recovery;
mod requests;
mod thread;
mod wait;
mod watch;

use pyo3::prelude::*;

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
