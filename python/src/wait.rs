//! Waits that release the GIL and that Ctrl-C interrupts.

use pyo3::prelude::*;
use std::time::Duration;

/// Time between two checks of a waiting call whether Ctrl-C was pressed.
pub(crate) const SLICE: Duration = Duration::from_millis(100);

/// Waits with the GIL released, and checks signals meanwhile. `slice` returns what it waited
/// for, or nothing after about [`SLICE`].
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
