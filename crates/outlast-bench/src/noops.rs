//! Tasks that do nothing, and the rate at which they are done.

use crate::procs::Lab;
use outlast::{Call, NewTask, Run, TaskSpec};
use std::time::Instant;

/// New tasks that do nothing.
pub(crate) fn noops(count: usize) -> Vec<NewTask> {
    let call = || Run::Call(Call { function: "noop".into(), args: serde_json::Value::Null });
    (0..count).map(|_| NewTask::new(TaskSpec::new(call()))).collect()
}

/// Submits in batches and waits. Returns tasks per second.
pub(crate) async fn rate(lab: &Lab, count: usize, before: u64) -> anyhow::Result<f64> {
    let tasks = noops(count);
    let start = Instant::now();
    lab.client.submit_all(&tasks).await?;
    lab.succeeded(before + count as u64).await?;
    Ok(count as f64 / start.elapsed().as_secs_f64())
}
