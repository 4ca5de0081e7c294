//! Removes what ended long ago: tasks with their history, and workers that never came back. Without
//! it the store would grow for ever.

use crate::clock::Ages;
use crate::input::Driver;
use crate::readers::Readers;
use outlast_core::coord::Request;
use outlast_core::coord::Response;
use outlast_core::records::TaskState;
use outlast_store::{AgedTask, TaskFilter};
use std::sync::Arc;
use std::time::Duration;

/// Before the first look, or less when they are closer together.
const FIRST: Duration = Duration::from_secs(90);
/// Tasks that are removed in one commit, and the pause after it: others commit in between.
const AT_ONCE: usize = 200;
const PAUSE: Duration = Duration::from_millis(20);
/// Rows read at a time.
const PAGE: usize = 2_000;

/// The retention of finished tasks.
#[derive(Debug, Clone)]
pub struct RetentionConfig {
    /// Tasks are removed so long after they ended, and workers so long after they were last
    /// seen; 90 days.
    pub keep: Duration,
    /// Ended tasks that stay at most: the oldest go first; 2,000,000.
    pub most: u64,
    /// Time between two removals; 10 min.
    pub every: Duration,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        let keep = Duration::from_secs(90 * 24 * 3600);
        RetentionConfig { keep, most: 2_000_000, every: Duration::from_secs(600) }
    }
}

/// Works until the coordinator ends.
pub(crate) async fn run(config: RetentionConfig, ages: Ages, driver: Driver, readers: Readers) {
    let mut wait = config.every.min(FIRST);
    loop {
        tokio::time::sleep(wait).await;
        wait = config.every;
        let before = ages.before(config.keep);
        // However old they are, only so many stay.
        match tasks(&driver, &readers, before.unwrap_or(i64::MIN), config.most).await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "tasks that ended long ago were removed"),
            Err(why) => tracing::warn!("old tasks were not removed: {why}"),
        }
        let Some(before) = before else { continue };
        if let Err(why) = workers(&driver, &readers, before).await {
            tracing::warn!("workers that never came back were not forgotten: {why}");
        }
    }
}

async fn tasks(
    driver: &Driver,
    readers: &Readers,
    before: i64,
    most: u64,
) -> Result<usize, String> {
    let counts = readers.read(|reader| reader.counts()).await?;
    let over = counts.succeeded + counts.failed + counts.cancelled;
    let mut surplus = over.saturating_sub(most);
    let orphans = readers.read(move |reader| reader.has_orphans(before)).await?;
    if orphans {
        remove(driver, Vec::new(), before).await?;
    }
    let (mut after, mut removed) = (0, 0);
    loop {
        let page = readers.read(move |reader| reader.aged(after, PAGE)).await?;
        let Some(last) = page.last() else { return Ok(removed) };
        after = last.number;
        let mut old = Vec::new();
        for task in &page {
            let Some(ended) = task.ended_at else { continue };
            if ended < before || surplus > 0 {
                surplus = surplus.saturating_sub(1);
                old.push(Arc::clone(&task.id));
            }
        }
        for part in old.chunks(AT_ONCE) {
            removed += remove(driver, part.to_vec(), before).await?;
            tokio::time::sleep(PAUSE).await;
        }
        // Whatever was submitted later has ended later.
        let young = |task: &AgedTask| task.submitted_at >= before;
        if surplus == 0 && page.iter().any(young) {
            return Ok(removed);
        }
    }
}

async fn remove(driver: &Driver, tasks: Vec<Arc<str>>, before: i64) -> Result<usize, String> {
    let asked = driver.request(Request::Remove(tasks, before)).await;
    match asked.map_err(|_| "the coordinator ends".to_owned())? {
        Response::Removed(count) => Ok(count),
        other => Err(format!("unexpected answer: {other:?}")),
    }
}

/// Forgets workers that never came back. One that does is a new one, and its unacknowledged results are
/// taken.
async fn workers(driver: &Driver, readers: &Readers, before: i64) -> Result<(), String> {
    let gone = readers.read(move |reader| {
        let mut gone = Vec::new();
        for worker in reader.workers()? {
            if worker.gone_at.unwrap_or(worker.seen_at) >= before {
                continue;
            }
            let held = TaskFilter {
                states: vec![TaskState::Assigned],
                worker: Some(worker.row.store_id.to_string()),
                ..TaskFilter::default()
            };
            // A task may allow it to stay away for longer.
            if reader.list(&held, None, 1, false)?.tasks.is_empty() {
                gone.push(worker.row.store_id.to_string());
            }
        }
        Ok(gone)
    });
    for worker in gone.await? {
        let asked = driver.request(Request::Forget(worker.clone())).await;
        if let Response::Forgotten = asked.map_err(|_| "the coordinator ends".to_owned())? {
            tracing::info!(worker, "forgotten: it was not seen for too long");
        }
    }
    Ok(())
}
