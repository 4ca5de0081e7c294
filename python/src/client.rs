//! The client. Every call waits with the GIL released and can be interrupted by Ctrl-C.

use crate::errors::{client_error, error, system};
use crate::follow::Follower;
use crate::wait::{SLICE, wait};
use outlast::{Error, NewTask, TaskQuery, TaskSpec};
use pyo3::prelude::*;
use serde_json::Value;
use std::future::Future;
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::{Builder, Handle, Runtime};

/// One runtime for all clients of a process; its threads know nothing of Python.
static RUNTIME: Mutex<Option<(u32, Runtime)>> = Mutex::new(None);

pub(crate) fn runtime() -> PyResult<Handle> {
    let mut runtime = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    let here = std::process::id();
    if runtime.as_ref().is_none_or(|(process, _)| *process != here) {
        // That of a parent has no threads here, and must not be waited for.
        std::mem::forget(runtime.take());
        let mut builder = Builder::new_multi_thread();
        let made = builder.worker_threads(1).thread_name("outlast-client").enable_all().build();
        *runtime = Some((here, made.map_err(|e| system("starting a thread", &e))?));
    }
    let found = runtime.as_ref().map(|(_, r)| r.handle().clone());
    found.ok_or_else(|| system("starting a thread", &std::io::ErrorKind::Other.into()))
}

/// The answer, or nothing if it takes longer than so many seconds.
async fn within<T>(
    limit: Option<f64>,
    ask: impl Future<Output = Result<T, Error>>,
) -> Result<Option<T>, Error> {
    let Some(seconds) = limit else { return ask.await.map(Some) };
    let limit = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    tokio::time::timeout(limit, ask).await.map_or(Ok(None), |answer| answer.map(Some))
}

/// A client of a coordinator, by HTTP.
#[pyclass(frozen, module = "outlast._outlast")]
pub struct Client {
    url: String,
    key: Option<String>,
    ca: Option<PathBuf>,
    patience: Duration,
    made: Mutex<(u32, outlast::Client)>,
}

fn build(
    url: &str,
    key: &Option<String>,
    ca: &Option<PathBuf>,
    patience: Duration,
) -> Result<outlast::Client, Error> {
    outlast::Client::builder(url).api_key(key.clone()).ca(ca.clone()).patience(patience).build()
}

pub(crate) fn spec(mut document: Value) -> Result<NewTask, String> {
    let id = document.as_object_mut().and_then(|o| o.remove("id"));
    let spec: TaskSpec = serde_json::from_value(document).map_err(|e| e.to_string())?;
    let mut task = NewTask::new(spec);
    match id {
        None | Some(Value::Null) => {}
        Some(Value::String(id)) => task.id = id,
        Some(other) => return Err(format!("id: {other} is no text")),
    }
    Ok(task)
}

impl Client {
    pub(crate) fn client(&self, py: Python<'_>) -> PyResult<outlast::Client> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let here = std::process::id();
        if made.0 != here {
            // After a fork: connections must not be shared with the parent.
            let new = build(&self.url, &self.key, &self.ca, self.patience);
            let new = new.map_err(|e| client_error(py, &e))?;
            std::mem::forget(std::mem::replace(&mut *made, (here, new)));
        }
        Ok(made.1.clone())
    }

    pub(crate) fn block<T: Send + 'static, F: Future<Output = Result<T, Error>> + Send>(
        &self,
        py: Python<'_>,
        ask: impl FnOnce(outlast::Client) -> F + Send + 'static,
    ) -> PyResult<T> {
        let client = self.client(py)?;
        let (tx, rx) = sync_channel(1);
        let task = runtime()?.spawn(async move {
            let _ = tx.send(ask(client).await);
        });
        let rx = Mutex::new(rx);
        let answer = wait(py, || {
            let rx = rx.lock().unwrap_or_else(PoisonError::into_inner);
            match rx.recv_timeout(SLICE) {
                Ok(answer) => Some(Some(answer)),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(None),
            }
        });
        let answer = answer.inspect_err(|_| task.abort())?;
        match answer {
            Some(Ok(value)) => Ok(value),
            Some(Err(e)) => Err(client_error(py, &e)),
            None => Err(error(py, "OutlastError", "the request was cancelled")),
        }
    }
}

pub(crate) fn json<T: serde::Serialize>(py: Python<'_>, value: &T) -> PyResult<String> {
    serde_json::to_string(value).map_err(|e| error(py, "OutlastError", e.to_string().as_str()))
}

#[pymethods]
impl Client {
    #[new]
    #[pyo3(signature = (url, api_key=None, ca=None, patience=60.0))]
    fn new(
        py: Python<'_>,
        url: &str,
        api_key: Option<String>,
        ca: Option<PathBuf>,
        patience: f64,
    ) -> PyResult<Client> {
        let patience = Duration::try_from_secs_f64(patience)
            .map_err(|e| error(py, "ConfigurationError", format!("patience: {e}").as_str()))?;
        let made = build(url, &api_key, &ca, patience).map_err(|e| client_error(py, &e))?;
        let url = made.url().to_owned();
        let made = Mutex::new((std::process::id(), made));
        Ok(Client { url, key: api_key, ca, patience, made })
    }

    /// Returns the coordinator's full address.
    #[getter]
    fn url(&self) -> &str {
        &self.url
    }

    /// (the task as JSON, whether it is new)
    fn submit(&self, py: Python<'_>, task: &str) -> PyResult<(String, bool)> {
        let document = serde_json::from_str(task).map_err(|e| e.to_string());
        let task = document.and_then(spec).map_err(|e| error(py, "InvalidData", e.as_str()))?;
        let (task, new) = self.block(py, |c| async move { c.submit(&task).await })?;
        Ok((json(py, &task)?, new))
    }

    /// The ids, in order; None if it takes longer than `limit` seconds. They may have arrived then.
    #[pyo3(signature = (tasks, limit=None))]
    fn submit_all(
        &self,
        py: Python<'_>,
        tasks: &str,
        limit: Option<f64>,
    ) -> PyResult<Option<Vec<String>>> {
        let tasks: Result<Vec<NewTask>, String> = py.detach(|| {
            let documents: Vec<Value> = serde_json::from_str(tasks).map_err(|e| e.to_string())?;
            documents.into_iter().map(spec).collect()
        });
        let tasks = tasks.map_err(|e| error(py, "InvalidData", e.as_str()))?;
        let ids = tasks.iter().map(|t| t.id.clone()).collect();
        let ask =
            move |c: outlast::Client| async move { within(limit, c.submit_all(&tasks)).await };
        Ok(self.block(py, ask)?.map(|_| ids))
    }

    /// Returns the end of a task as JSON, if the task ends within this many seconds (at most 60) and the
    /// answer takes no longer than `limit` seconds.
    #[pyo3(signature = (id, wait, limit=None))]
    fn result(
        &self,
        py: Python<'_>,
        id: String,
        wait: u64,
        limit: Option<f64>,
    ) -> PyResult<Option<String>> {
        let ask = move |c: outlast::Client| async move { within(limit, c.result(&id, wait)).await };
        self.block(py, ask)?.flatten().map(|r| json(py, &r)).transpose()
    }

    /// Follows tasks until they end.
    fn follow(&self, py: Python<'_>) -> PyResult<Follower> {
        Ok(Follower::start(runtime()?, self.client(py)?))
    }

    fn task(&self, py: Python<'_>, id: String) -> PyResult<String> {
        json(py, &self.block(py, move |c| async move { c.task(&id).await })?)
    }
    fn history(&self, py: Python<'_>, id: String) -> PyResult<String> {
        json(py, &self.block(py, move |c| async move { c.history(&id).await })?)
    }
    fn state(&self, py: Python<'_>, id: String) -> PyResult<String> {
        json(py, &self.block(py, move |c| async move { c.task_state(&id).await })?)
    }
    fn checkpoints(&self, py: Python<'_>, id: String) -> PyResult<String> {
        json(py, &self.block(py, move |c| async move { c.checkpoints(&id).await })?)
    }
    fn explain(&self, py: Python<'_>, id: String) -> PyResult<String> {
        json(py, &self.block(py, move |c| async move { c.explain(&id).await })?)
    }
    fn cancel(&self, py: Python<'_>, id: String) -> PyResult<String> {
        json(py, &self.block(py, move |c| async move { c.cancel(&id).await })?)
    }
    fn retry(&self, py: Python<'_>, id: String) -> PyResult<String> {
        json(py, &self.block(py, move |c| async move { c.retry(&id).await })?)
    }
    fn pause(&self, py: Python<'_>, id: String) -> PyResult<String> {
        json(py, &self.block(py, move |c| async move { c.pause(&id).await })?)
    }
    fn resume(&self, py: Python<'_>, id: String) -> PyResult<String> {
        json(py, &self.block(py, move |c| async move { c.resume(&id).await })?)
    }
    fn workers(&self, py: Python<'_>) -> PyResult<String> {
        json(py, &self.block(py, |c| async move { c.workers().await })?)
    }
    fn counts(&self, py: Python<'_>) -> PyResult<String> {
        json(py, &self.block(py, |c| async move { c.counts().await })?)
    }

    /// A page of tasks with these states and labels.
    #[pyo3(signature = (states, labels, limit=None, cursor=None))]
    fn tasks(
        &self,
        py: Python<'_>,
        states: Vec<String>,
        labels: Vec<(String, String)>,
        limit: Option<usize>,
        cursor: Option<String>,
    ) -> PyResult<String> {
        let query = TaskQuery { states, labels, limit, cursor, ..Default::default() };
        json(py, &self.block(py, move |c| async move { c.tasks(&query).await })?)
    }
}
