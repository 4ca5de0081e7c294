//! Looks at the coordinator all the time while it is hurt: what it shows must never go back.

use crate::api::Api;
use crate::ledger::{CheckpointId, wall};
use outlast::api::{Task, TaskState};
use outlast::{Client, TaskQuery};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Time between two checks.
const EVERY: Duration = Duration::from_millis(700);
/// Tasks whose checkpoints and states are fetched in one check.
const SAMPLE: usize = 12;

/// Observations.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub wrong: Vec<String>,
    /// Time at which a checkpoint was first seen to be kept by the coordinator (Unix ms, after the answer).
    pub kept: BTreeMap<(String, CheckpointId), i64>,
    pub looks: u64,
    pub failed: u64,
    tasks: BTreeMap<String, (u64, TaskState)>,
    states: BTreeMap<String, (u64, u64)>,
    /// Place where the sample goes on.
    next: usize,
}

/// Looks until `stop`. `told`: the coordinator serves checkpoints and states.
pub(crate) async fn watch(client: Client, api: Api, told: bool, stop: Arc<AtomicBool>) -> Seen {
    let mut seen = Seen::default();
    while !stop.load(Ordering::Relaxed) {
        match look(&mut seen, &client, &api, told).await {
            Ok(()) => seen.looks += 1,
            // It is down, or ends in mid-answer.
            Err(_) => seen.failed += 1,
        }
        tokio::time::sleep(EVERY).await;
    }
    seen
}

async fn look(seen: &mut Seen, client: &Client, api: &Api, told: bool) -> anyhow::Result<()> {
    let mut query = TaskQuery { limit: Some(1000), oldest: true, ..TaskQuery::default() };
    let mut running = Vec::new();
    loop {
        let page = client.tasks(&query).await?;
        for task in &page.tasks {
            on_task(seen, task);
            if task.attempt > 0 {
                running.push(task.id.clone());
            }
        }
        match page.next {
            Some(next) => query.cursor = Some(next),
            None => break,
        }
    }
    if !told || running.is_empty() {
        return Ok(());
    }
    for _ in 0..SAMPLE.min(running.len()) {
        seen.next = (seen.next + 1) % running.len();
        let id = running[seen.next].clone();
        if let Some(state) = api.get(&format!("/api/v1/tasks/{id}/state")).await? {
            let now = (state["attempt"].as_u64(), state["version"].as_u64());
            let now = (now.0.unwrap_or(0), now.1.unwrap_or(0));
            let before = seen.states.insert(id.clone(), now).unwrap_or_default();
            if now < before {
                seen.wrong.push(format!("{id}: its state went back from {before:?} to {now:?}"));
            }
        }
        let all = api.checkpoints(&id).await?.unwrap_or_default();
        let now = wall();
        let ids: BTreeSet<_> = all.iter().map(|c| c.id).collect();
        let known = seen.kept.range((id.clone(), (0, 0))..=(id.clone(), (u64::MAX, u64::MAX)));
        let gone: Vec<_> = known.filter(|((_, c), _)| !ids.contains(c)).collect();
        if let Some(((_, gone), _)) = gone.first() {
            seen.wrong.push(format!("{id}: the coordinator forgot checkpoint {gone:?}"));
        }
        for one in all.iter().filter(|c| c.kept) {
            seen.kept.entry((id.clone(), one.id)).or_insert(now);
        }
    }
    Ok(())
}

fn on_task(seen: &mut Seen, task: &Task) {
    let now = (task.attempt, task.state);
    let Some((attempt, state)) = seen.tasks.insert(task.id.clone(), now) else { return };
    let id = &task.id;
    if task.attempt < attempt {
        seen.wrong.push(format!("{id}: attempt {attempt} became {}", task.attempt));
    }
    // A success that arrives after its attempt was abandoned counts.
    let honoured = state == TaskState::Failed && task.state == TaskState::Succeeded;
    if state.is_terminal() && task.state != state && !honoured {
        seen.wrong.push(format!("{id}: it was {state}, and is {} now", task.state));
    }
}
