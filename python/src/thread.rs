//! Tasks in threads of this process. A thread cannot be killed, only interrupted.

use crate::context::Context;
use crate::interrupt::Thread;
use crate::pool::timed_out;
use crate::watch::Why;
use outlast_worker::shell::{FailedBy, Failure, TaskContext};
use pyo3::prelude::*;
use serde_json::Value;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// Time between two checks whether a task is to stop.
const SLICE: Duration = Duration::from_millis(100);

/// The answer of `call`: whether it went well; the value, or the details of the failure, as JSON;
/// the failure's message; whether it let `TaskStopped` pass.
type Answer = (bool, String, String, bool);

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
    if overdue || (stopped && thread.why() == Some(Why::Timeout)) {
        return Err(timed_out(&context));
    }
    let value = match json.as_str() {
        "" => Value::Null,
        json => serde_json::from_str(json).map_err(|e| format!("the result is no JSON: {e}"))?,
    };
    if good { Ok(value) } else { Err(Failure { message, details: value, by: FailedBy::Itself }) }
}

/// Interrupts a task at its time limit, or when it had to stop and has not within its grace; and reports it if
/// it goes on after that.
async fn watch(context: TaskContext, thread: Arc<Thread>, began: Instant) {
    let limit = context.timeout.and_then(|limit| began.checked_add(limit));
    let why = loop {
        let now = Instant::now();
        if context.control().cancel {
            break Why::Stop;
        }
        let left = limit.map_or(SLICE, |limit| limit.saturating_duration_since(now));
        if left.is_zero() {
            break Why::Timeout;
        }
        tokio::time::sleep(left.min(SLICE)).await;
    };
    if why == Why::Stop {
        tokio::time::sleep(context.kill_grace).await;
    }
    let raise = thread.clone();
    with_python(move |py| raise.interrupt(py, why)).await;
    // Its place is taken until it ends, so somebody has to know.
    tokio::time::sleep(context.kill_grace.max(SLICE)).await;
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

/// Works on a thread that may wait for the GIL.
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
