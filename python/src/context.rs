//! The context of a running task: its requests to the worker.

use crate::buffer::{View, Views};
use crate::errors::{class, error};
use crate::interrupt::Thread;
use crate::watch::Why;
use outlast_worker::local::HostError;
use outlast_worker::shell::{Checkpoint, TaskContext};
use pyo3::prelude::*;
use pyo3::types::PyByteArray;
use serde_json::{Map, Value};
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

/// Bytes of a checkpoint that are read at a time.
const READ: usize = 1 << 20;

/// One attempt of a task. Its methods block, with the GIL released.
#[pyclass(frozen, module = "outlast._outlast")]
pub struct Context {
    pub inner: TaskContext,
    /// The thread in which it runs.
    pub thread: Arc<Thread>,
}

fn host(py: Python<'_>, e: HostError) -> PyErr {
    error(py, class(&e), e.to_string().as_str())
}

fn object(py: Python<'_>, json: &str) -> PyResult<Map<String, Value>> {
    serde_json::from_str(json).map_err(|e| error(py, "InvalidData", e.to_string().as_str()))
}

#[pymethods]
impl Context {
    #[getter]
    fn task_id(&self) -> &str {
        &self.inner.task_id
    }
    #[getter]
    fn attempt(&self) -> u64 {
        self.inner.epoch
    }
    #[getter]
    fn function(&self) -> &str {
        &self.inner.function
    }
    #[getter]
    fn traceparent(&self) -> Option<&str> {
        self.inner.traceparent.as_deref()
    }
    #[getter]
    fn tracestate(&self) -> Option<&str> {
        self.inner.tracestate.as_deref()
    }
    #[getter]
    fn args(&self) -> String {
        self.inner.args.to_string()
    }

    /// Keeps a checkpoint of these buffers, one behind the other; `meta` is a JSON object. Its id.
    fn checkpoint(
        &self,
        py: Python<'_>,
        parts: Vec<Bound<'_, PyAny>>,
        meta: &str,
    ) -> PyResult<String> {
        let meta = object(py, meta)?;
        let views = Arc::new(Views::of(&parts)?);
        let made = py.detach(|| self.inner.checkpoint_memory(views, meta));
        made.map(|view| view.id).map_err(|e| host(py, e))
    }

    /// Keeps a file or folder as a checkpoint. Its id.
    fn checkpoint_path(&self, py: Python<'_>, path: PathBuf, meta: &str) -> PyResult<String> {
        let meta = object(py, meta)?;
        let made = py.detach(|| self.inner.checkpoint_path(&path, meta));
        made.map(|view| view.id).map_err(|e| host(py, e))
    }

    /// The newest checkpoint: its id, its `meta` as JSON, its bytes in a `bytearray`.
    fn latest_checkpoint<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<Option<(String, String, Bound<'py, PyAny>)>> {
        let found = py.detach(|| self.inner.latest_checkpoint()).map_err(|e| host(py, e))?;
        let Some(Checkpoint { view, mut body }) = found else { return Ok(None) };
        let room = py.get_type::<PyByteArray>().call1((view.bytes,))?;
        let target = View::write(&room)?;
        let wrong = |e: &dyn std::fmt::Display| {
            host(py, HostError::Internal(format!("reading the checkpoint: {e}")))
        };
        let read = py.detach(|| {
            let mut at = 0;
            let mut piece = vec![0; READ];
            loop {
                match body.read(&mut piece) {
                    Ok(0) => return Ok(at),
                    Ok(n) => {
                        target.copy_in(at, &piece[..n]);
                        at += n;
                    }
                    Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(e),
                }
            }
        });
        let read = read.map_err(|e| wrong(&e))?;
        if read != target.len() {
            return Err(wrong(&format_args!("{read} bytes, not {}", target.len())));
        }
        let meta = Value::Object(view.meta.user).to_string();
        Ok(Some((view.id, meta, room)))
    }

    /// Merges a JSON object into the task's state, and says how far it is, 0 to 1.
    #[pyo3(signature = (patch, progress=None))]
    fn update_state(&self, py: Python<'_>, patch: &str, progress: Option<f64>) -> PyResult<()> {
        let patch = object(py, patch)?;
        py.detach(|| self.inner.tell(patch, progress)).map(drop).map_err(|e| host(py, e))
    }

    /// Keeps a file for the result.
    fn artifact(&self, py: Python<'_>, name: &str, path: PathBuf) -> PyResult<()> {
        py.detach(|| self.inner.artifact(name, &path)).map(drop).map_err(|e| host(py, e))
    }

    /// Calls `work()`; this thread may be interrupted meanwhile, and not afterwards.
    fn run<'py>(&self, work: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.thread.run(work)
    }

    /// Raises `TaskStopped` in what `run` runs, if it does.
    fn interrupt(&self, py: Python<'_>) -> PyResult<()> {
        self.thread.interrupt(py, Why::Stop)
    }

    /// Returns the current requests to the task: cancel, pause, number of checkpoint requests.
    fn control(&self) -> (bool, bool, u64) {
        let now = self.inner.control();
        (now.cancel, now.pause, now.checkpoint_request)
    }
}
