//! What a running task may ask of its worker.

use crate::error;
use outlast_worker::local::HostError;
use outlast_worker::shell::TaskContext;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use serde_json::{Map, Value};
use std::io::Read;
use std::path::PathBuf;

/// One attempt of a task. Its methods block, with the GIL released.
#[pyclass(frozen, module = "outlast._outlast")]
pub struct Context {
    pub inner: TaskContext,
}

/// The class in `outlast.errors`.
pub(crate) fn class(e: &HostError) -> &'static str {
    match e {
        HostError::NoSuchAttempt | HostError::Fenced(_) | HostError::Ended(_) => "TaskNotRunning",
        HostError::Full { .. } => "StorageFull",
        HostError::Unavailable(_) => "Unreachable",
        HostError::Invalid(_) | HostError::TooLarge { .. } => "InvalidData",
        HostError::NoSuchCheckpoint(_) | HostError::Conflict(_) | HostError::Internal(_) => {
            "OutlastError"
        }
    }
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
    fn args(&self) -> String {
        self.inner.args.to_string()
    }

    /// Keeps a checkpoint; `meta` is a JSON object. Its id.
    fn checkpoint(
        &self,
        py: Python<'_>,
        data: &Bound<'_, PyBytes>,
        meta: &str,
    ) -> PyResult<String> {
        let meta = object(py, meta)?;
        let data = data.as_bytes();
        let made = py.detach(|| self.inner.checkpoint(data, meta));
        made.map(|view| view.id).map_err(|e| host(py, e))
    }

    /// Keeps a file or folder as a checkpoint. Its id.
    fn checkpoint_path(&self, py: Python<'_>, path: PathBuf, meta: &str) -> PyResult<String> {
        let meta = object(py, meta)?;
        let made = py.detach(|| self.inner.checkpoint_path(&path, meta));
        made.map(|view| view.id).map_err(|e| host(py, e))
    }

    /// The newest checkpoint: its id, its `meta` as JSON, its bytes.
    fn latest_checkpoint<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<Option<(String, String, Bound<'py, PyBytes>)>> {
        let found = py.detach(|| {
            let Some(mut found) = self.inner.latest_checkpoint()? else { return Ok(None) };
            let mut data = Vec::with_capacity(usize::try_from(found.view.bytes).unwrap_or(0));
            let read = found.body.read_to_end(&mut data);
            read.map_err(|e| HostError::Internal(format!("reading the checkpoint: {e}")))?;
            Ok(Some((found.view, data)))
        });
        let Some((view, data)) = found.map_err(|e| host(py, e))? else { return Ok(None) };
        let meta = Value::Object(view.meta.user).to_string();
        Ok(Some((view.id, meta, PyBytes::new(py, &data))))
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

    /// What is asked of it now: cancel, pause, how often a checkpoint.
    fn control(&self) -> (bool, bool, u64) {
        let now = self.inner.control();
        (now.cancel, now.pause, now.checkpoint_request)
    }
}
