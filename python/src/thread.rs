//! Tasks in threads of this process. A thread cannot be killed: what can be done is to raise
//! `TaskStopped` in it, which ends what comes back to Python code and lets it pass.
#![allow(unsafe_code)]

use crate::context::Context;
use crate::pool::timed_out;
use crate::watch::Why;
use outlast_worker::shell::{FailedBy, Failure, TaskContext};
use pyo3::prelude::*;
use serde_json::Value;
use std::ffi::{c_long, c_ulong};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// Interval of checks for a request to stop a task.
const LOOK: Duration = Duration::from_millis(100);

/// Result of `call`: success; the value, or the report of the failure, as JSON; the failure's
/// message; true if `TaskStopped` was raised through it.
type Answer = (bool, String, String, bool);

/// The thread of a task, as long as something may be raised in it. It is looked at and changed with
/// the GIL held only.
#[derive(Default)]
pub struct Thread(Mutex<State>);

#[derive(Default)]
struct State {
    id: Option<c_ulong>,
    /// First reason for which `TaskStopped` was raised in it.
    why: Option<Why>,
}

impl Thread {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls it in this thread; meanwhile it may be interrupted. Nothing is raised any more once
    /// this has returned.
    pub fn run<'py>(&self, work: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = work.py();
        let id = py.import("threading")?.call_method0("get_ident")?.extract()?;
        self.lock().id = Some(id);
        let done = work.call0();
        let mut state = self.lock();
        state.id = None;
        // SAFETY: the GIL is held; null takes back what was not raised yet.
        unsafe { pyo3::ffi::PyThreadState_SetAsyncExc(id as c_long, std::ptr::null_mut()) };
        drop(state);
        done
    }

    /// Has it raise `TaskStopped`, if it runs still.
    pub fn interrupt(&self, py: Python<'_>, why: Why) -> PyResult<()> {
        let class = py.import("outlast.errors")?.getattr("TaskStopped")?;
        let mut state = self.lock();
        let Some(id) = state.id else { return Ok(()) };
        state.why.get_or_insert(why);
        // SAFETY: the GIL is held, and the class is alive; the thread takes a reference of its own.
        unsafe { pyo3::ffi::PyThreadState_SetAsyncExc(id as c_long, class.as_ptr()) };
        Ok(())
    }

    fn runs(&self) -> bool {
        self.lock().id.is_some()
    }
}

/// Runs one task by the Python function, on the thread that the agent gave it.
pub fn run(call: &Py<PyAny>, context: TaskContext, runtime: &Handle) -> Result<Value, Failure> {
    let (began, thread) = (Instant::now(), Arc::new(Thread::default()));
    let watch = runtime.spawn(watch(context.clone(), thread.clone(), began));
    let answer = Python::try_attach(|py| {
        let raw = Bound::new(py, Context { inner: context.clone(), thread: thread.clone() })?;
        call.bind(py).call1((raw,))?.extract::<Answer>()
    });
    watch.abort();
    let (good, json, message, stopped) = match answer {
        Some(Ok(answer)) => answer,
        Some(Err(e)) => return Err(format!("the worker's own code failed: {e}").into()),
        None => return Err("the interpreter ends".to_owned().into()),
    };
    // What would have been killed by then is over, whatever it returns.
    let last = context.timeout.and_then(|limit| limit.checked_add(context.kill_grace));
    let overdue = last.is_some_and(|last| began.elapsed() >= last);
    if overdue || (stopped && thread.lock().why == Some(Why::Timeout)) {
        return Err(timed_out(&context));
    }
    let value = match json.as_str() {
        "" => Value::Null,
        json => serde_json::from_str(json).map_err(|e| format!("the result is no JSON: {e}"))?,
    };
    if good { Ok(value) } else { Err(Failure { message, details: value, by: FailedBy::Itself }) }
}

/// Interrupts a task at its time limit, or when it was told to stop and has not within its grace;
/// and says so if it goes on after that.
async fn watch(context: TaskContext, thread: Arc<Thread>, began: Instant) {
    let limit = context.timeout.and_then(|limit| began.checked_add(limit));
    let why = loop {
        let now = Instant::now();
        if context.control().cancel {
            break Why::Stop;
        }
        let left = limit.map_or(LOOK, |limit| limit.saturating_duration_since(now));
        if left.is_zero() {
            break Why::Timeout;
        }
        tokio::time::sleep(left.min(LOOK)).await;
    };
    if why == Why::Stop {
        tokio::time::sleep(context.kill_grace).await;
    }
    let raise = thread.clone();
    with_python(move |py| raise.interrupt(py, why)).await;
    // Its place is taken until it ends, so somebody has to know.
    tokio::time::sleep(context.kill_grace.max(LOOK)).await;
    let what = match why {
        Why::Stop => "was told to stop",
        Why::Timeout => "ran longer than its time limit",
    };
    let (task, attempt) = (context.task_id.clone(), context.epoch);
    with_python(move |py| {
        if thread.runs() {
            py.import("outlast._runner")?.call_method1("_goes_on", (task, attempt, what))?;
        }
        Ok(())
    })
    .await;
}

/// On a thread that may wait for the GIL.
async fn with_python(work: impl FnOnce(Python<'_>) -> PyResult<()> + Send + 'static) {
    let done = tokio::task::spawn_blocking(move || {
        Python::try_attach(|py| {
            if let Err(e) = work(py) {
                e.write_unraisable(py, None);
            }
        })
    });
    let _ = done.await;
}
