//! From what the store and the core have to what the API says.

use crate::app::App;
use crate::clock::text;
use crate::intake::DOCUMENT;
use crate::problem::Refusal;
use outlast_core::TaskId;
use outlast_core::coord::WorkerView;
use outlast_core::records::TaskState;
use outlast_model::{LinkCause, OutcomeKind, TaskOutcome};
use outlast_store::{Counts, StoredCheckpoint, StoredTask, StoredWorker, TaskExtra};
use outlast_wire::api::{Checkpoint, Copied, CountsView, Disk, JsonText, Task, TaskResult, Worker};

pub(super) fn task(t: &StoredTask, extra: Option<&TaskExtra>) -> Task {
    let extra = extra.copied().unwrap_or_default();
    Task {
        id: t.id.to_string(),
        number: t.number,
        state: t.state,
        spec: (*t.spec).clone(),
        attempt: t.epoch,
        retries: t.retries,
        cancelling: t.cancelling,
        worker: t.worker_name.as_ref().or(t.worker.as_ref()).map(ToString::to_string),
        submitted_at: text(t.submitted_at),
        assigned_at: t.assigned_at.map(text),
        started_at: t.started_at.map(text),
        ended_at: t.ended_at.map(text),
        reason: t.reason.clone(),
        has_result: t.has_outcome,
        cause: extra.cause,
        paused: extra.paused,
        progress: extra.progress,
        waiting_for: None,
        owner: t.owner.clone(),
    }
}

/// One task, with why it waits.
pub(super) async fn one(app: &App, id: &TaskId) -> Result<Task, Refusal> {
    let wanted = id.clone();
    let read = app.read(move |r| {
        let Some(task) = r.task(&wanted)? else { return Ok(None) };
        let extra = r.extras(&[task.number])?.remove(&task.number);
        Ok(Some((task, extra)))
    });
    let stored = read.await?;
    let (stored, extra) = stored.ok_or_else(|| Refusal::no_task(id))?;
    let mut view = task(&stored, extra.as_ref());
    if view.paused && stored.state == TaskState::Pending {
        view.waiting_for = Some("it is paused".into());
    } else if stored.state == TaskState::Pending {
        let id = id.clone();
        let why = app.query(move |core| core.explain(&id)).await;
        view.waiting_for = why?;
    }
    Ok(view)
}

pub(super) fn result(t: &StoredTask, outcome: Option<&TaskOutcome>) -> TaskResult {
    let blank = TaskOutcome::default();
    let o = outcome.unwrap_or(&blank);
    let time = |ms: i64| (ms > 0).then(|| text(ms));
    let began = o.started_at_ms > 0 && o.finished_at_ms > 0;
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    TaskResult {
        id: t.id.to_string(),
        attempt: t.ended_epoch,
        state: t.state,
        outcome: Some(o.kind).filter(|kind| *kind != OutcomeKind::Unspecified),
        exit_code: o.exit_code,
        signal: o.signal,
        message: if o.message.is_empty() { t.reason.clone() } else { o.message.clone() },
        worker: t.worker_name.as_ref().map(ToString::to_string),
        started_at: time(o.started_at_ms),
        finished_at: time(o.finished_at_ms),
        duration_ms: began.then(|| (o.finished_at_ms - o.started_at_ms).max(0)),
        max_rss_bytes: o.max_rss_bytes,
        cpu_ms: o.cpu_ms,
        stdout: lossy(&o.stdout_tail),
        stderr: lossy(&o.stderr_tail),
        stdout_bytes: o.stdout_bytes,
        stderr_bytes: o.stderr_bytes,
        stdout_truncated: o.stdout_bytes > o.stdout_tail.len() as u64,
        stderr_truncated: o.stderr_bytes > o.stderr_tail.len() as u64,
        value: JsonText::of(&o.value_json),
    }
}

pub(super) fn counts(c: Counts, filtered: bool) -> CountsView {
    CountsView {
        filtered,
        pending: c.pending,
        assigned: c.assigned,
        running: c.running,
        succeeded: c.succeeded,
        failed: c.failed,
        cancelled: c.cancelled,
        paused: c.paused,
        total: c.total(),
    }
}

/// Returns the time, cause and reason of the end of a worker's link. A link that the store still has
/// was lost with the coordinator's former process, which ended at `started_at` or before.
pub(super) fn gone(stored: &StoredWorker, started_at: i64) -> (i64, LinkCause, &str) {
    match stored.gone_at {
        Some(at) => (at, stored.gone_cause, &stored.gone_reason),
        None => (started_at, LinkCause::Restarted, "the coordinator was restarted"),
    }
}

pub(super) fn worker(w: &WorkerView, stored: Option<&StoredWorker>, started_at: i64) -> Worker {
    let gone = stored.filter(|_| w.conn.is_none()).map(|s| gone(s, started_at));
    Worker {
        name: w.row.name.to_string(),
        store_id: w.row.store_id.to_string(),
        state: w.state.as_str().into(),
        incarnation: w.row.incarnation,
        connection: w.row.connection,
        slots: w.row.slots,
        held: w.attempts as u64,
        running: w.running,
        queued: w.queued,
        unacked: w.unacked,
        rtt_ms: w.rtt_ms,
        capabilities: serde_json::from_str(&w.row.capabilities).unwrap_or_default(),
        labels: w.row.labels.clone(),
        version: w.row.version.clone(),
        seen_at: stored.map(|s| text(s.seen_at)),
        gone_at: gone.map(|(at, ..)| text(at)),
        gone_reason: gone.map_or("", |(.., reason)| reason).into(),
        gone_cause: gone.map(|(_, cause, _)| cause).unwrap_or_default(),
        drained: w.row.drained,
        quarantine: w.isolation.as_str().into(),
        copied: w.copied.as_ref().map(|c| Copied {
            at: text(c.at),
            times: c.times,
            host: c.host.clone(),
        }),
        bound_to: w.row.principal.to_string(),
        disk: (w.disk != (0, 0, 0)).then(|| {
            let (used, budget, refused) = w.disk;
            Disk { used, budget, refused }
        }),
        unfit: w.faults.as_ref().map_or_else(String::new, |f| f.says.clone()),
        unfit_since: w.faults.as_ref().map(|f| text(f.since)),
    }
}

/// One worker, by name or store id.
pub(super) async fn one_worker(app: &App, name: &str) -> Result<Worker, Refusal> {
    let wanted = name.to_owned();
    let view = app.query(move |core| core.worker(&wanted)).await?;
    let view = view.ok_or_else(|| Refusal::no_worker(name))?;
    let store_id = view.row.store_id.clone();
    let stored = app.read(move |r| r.worker(&store_id)).await?;
    Ok(worker(&view, stored.as_ref(), app.started_at))
}

pub(super) fn checkpoint(c: &StoredCheckpoint) -> Checkpoint {
    let of = &c.checkpoint;
    Checkpoint {
        id: of.id(),
        attempt: of.epoch,
        number: of.number,
        artifact: Some(&of.artifact).filter(|a| !a.is_empty()).cloned(),
        kept: c.kept,
        dropped: of.dropped,
        size: of.size,
        manifest: hex(&of.manifest),
        created_at: text(of.created_at_ms),
        recorded_at: text(c.at),
        gone_at: c.gone_at.map(text),
        worker: c.worker_name.as_ref().or(c.worker.as_ref()).map(ToString::to_string),
        meta: DOCUMENT.read(&of.meta_json).unwrap_or_default(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
