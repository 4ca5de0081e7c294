//! Recovery for failures that a program reports itself: the core's classification, planner and
//! patterns, over JSON. Nothing is decided here.

use crate::client::{Client, json};
use crate::errors::error;
use outlast::TaskSpec;
use outlast_core::recovery::{FailureClass, reported};
use pyo3::prelude::*;
use std::collections::BTreeMap;

/// The replaced system's name for each class of failure.
pub fn failure_types() -> BTreeMap<&'static str, &'static str> {
    FailureClass::ALL.iter().map(|class| (class.as_str(), class.failure_type())).collect()
}

/// Returns the core's decision about a failure as JSON.
#[pyfunction]
pub fn recovery_plan(py: Python<'_>, report: &str) -> PyResult<String> {
    let decided = py.detach(|| reported::decide(report));
    decided.map(|d| d.to_string()).map_err(|e| error(py, "InvalidData", e.as_str()))
}

/// Returns patterns of failures as JSON.
#[pyfunction]
pub fn recovery_patterns(py: Python<'_>, lookback: &str) -> PyResult<String> {
    let found = reported::in_common(lookback);
    found.map(|f| f.to_string()).map_err(|e| error(py, "InvalidData", e.as_str()))
}

/// The spec as it stands with these values of its knobs, as JSON.
#[pyfunction]
pub fn recovery_spec(py: Python<'_>, task: &str, values: &str) -> PyResult<String> {
    let bad = |e: serde_json::Error| error(py, "InvalidData", e.to_string().as_str());
    let spec: TaskSpec = serde_json::from_str(task).map_err(bad)?;
    let values = serde_json::from_str(values).map_err(bad)?;
    json(py, &reported::from_here(&spec, &values))
}

/// Asks a coordinator about recovery, or overrules it.
#[pyfunction]
#[pyo3(signature = (client, what, subject=None))]
pub fn recovery_ask(
    py: Python<'_>,
    client: PyRef<'_, Client>,
    what: &str,
    subject: Option<String>,
) -> PyResult<String> {
    let named = || subject.ok_or_else(|| error(py, "InvalidData", "nothing is named"));
    match what {
        "table" => json(py, &client.block(py, |c| async move { c.recovery().await })?),
        "patterns" => json(py, &client.block(py, |c| async move { c.recovery_patterns().await })?),
        "quarantine" => {
            let worker = named()?;
            client.block(py, move |c| async move { c.quarantine(&worker).await })?;
            Ok("null".into())
        }
        "release" => {
            let worker = named()?;
            client.block(py, move |c| async move { c.release(&worker).await })?;
            Ok("null".into())
        }
        // The subject: the task, a space, and where it is to go.
        "move" => {
            let subject = named()?;
            let (task, to) = match subject.split_once(' ') {
                Some((task, to)) => (task.to_owned(), Some(to.to_owned())),
                None => (subject, None),
            };
            let moved =
                client.block(py, move |c| async move { c.move_task(&task, to.as_deref()).await });
            json(py, &moved?)
        }
        other => Err(error(py, "InvalidData", format!("no request {other:?}").as_str())),
    }
}
