//! The agent behind a task's own interface: checkpoints go into blobs and the outbox, states into the outbox,
//! and requests to the task are passed on.

use super::controls::Controls;
use super::driver::Driver;
use super::fetch::{self, Origin};
use super::refusals::{of_blobs, refused};
use super::{collection, disk, now};
use crate::local::{
    ArtifactView, Attempt, CheckpointMeta, CheckpointView, Control, Host, HostError, Restore,
    Source, StateView, TaskInfo,
};
use bytes::Bytes;
use outlast_blob::{BlobError, Blobs, Put};
use outlast_core::TaskId;
use outlast_core::stats::ConnectionState;
use outlast_core::worker::{Answer, Worker};
use outlast_model::{Checkpoint, StatePatch, StateUpdate};
use outlast_net::Dialler;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Checkpoints that are being stored at a time; others wait.
const STORING: usize = 2;
/// Requests whose answers are remembered, in case that they got lost.
const REMEMBERED: usize = 256;

/// The host of tasks: see the module.
pub(crate) struct TaskHost {
    driver: Arc<Driver>,
    blobs: Blobs,
    dialler: Arc<Dialler>,
    storing: Semaphore,
    recent: Mutex<Recent>,
}

#[derive(Default)]
struct Recent {
    answers: HashMap<(Attempt, String), CheckpointView>,
    order: VecDeque<(Attempt, String)>,
}

fn view(c: &Checkpoint, delivered: bool) -> CheckpointView {
    let meta = serde_json::from_slice(&c.meta_json).unwrap_or(CheckpointMeta {
        kind: crate::local::Kind::Raw,
        name: String::new(),
        user: Map::new(),
        request: None,
    });
    CheckpointView {
        id: c.id(),
        attempt: c.epoch,
        bytes: c.size,
        created_at_ms: c.created_at_ms,
        delivered,
        meta,
    }
}

/// A checkpoint, and whether the coordinator has it.
type Known = (Arc<Checkpoint>, bool);

/// Returns whether there may be checkpoints that this worker does not know. A first attempt that made none
/// has none: that is known without a link, too.
fn may_have_older(at: &Attempt, known: &[Known]) -> bool {
    at.epoch > 1 || !known.is_empty()
}

fn state_view(state: Option<&StateUpdate>) -> StateView {
    let Some(s) = state else { return StateView::default() };
    StateView {
        progress: s.progress,
        state: serde_json::from_slice(&s.state_json).unwrap_or_default(),
        updates: s.version,
    }
}

impl TaskHost {
    pub fn new(driver: Arc<Driver>, blobs: Blobs, dialler: Arc<Dialler>) -> TaskHost {
        let (storing, recent) = (Semaphore::new(STORING), Mutex::default());
        TaskHost { driver, blobs, dialler, storing, recent }
    }

    fn controls(&self) -> &Controls {
        &self.driver.controls
    }

    /// The requests to an attempt, as they are now.
    pub fn control_now(&self, at: &Attempt) -> Control {
        self.controls().get(at)
    }

    fn held(&self, at: &Attempt) -> Result<TaskId, HostError> {
        match self.driver.lock().reported(&at.task, at.epoch) {
            Some(_) => Ok(at.task.as_str().into()),
            None => Err(HostError::NoSuchAttempt),
        }
    }

    /// The checkpoints that this worker knows: those on their way, and the newest.
    fn known(&self, at: &Attempt) -> Vec<Known> {
        self.driver.lock().known_checkpoints(&at.task, at.epoch)
    }

    /// These checkpoints and those that the coordinator keeps, oldest first.
    async fn with_older(&self, at: &Attempt, known: Vec<Known>) -> Result<Vec<Known>, HostError> {
        let unknown = |why: &dyn std::fmt::Display| {
            let task = &at.task;
            HostError::Unavailable(format!(
                "which older checkpoints {task} has, only the coordinator knows: {why}"
            ))
        };
        let (state, why) = self.driver.outlets.status.borrow().clone();
        if state != ConnectionState::Connected {
            return Err(unknown(&format!("there is no link to it ({why})")));
        }
        let kept = fetch::kept(&self.dialler, &at.task).await.map_err(|e| unknown(&e))?;
        let of = |c: &Checkpoint| (c.epoch, c.number);
        let mut all: BTreeMap<_, _> = known.into_iter().map(|k| (of(&k.0), k)).collect();
        for c in kept {
            all.entry(of(&c)).or_insert_with(|| (Arc::new(c), true)).1 = true;
        }
        Ok(all.into_values().collect())
    }

    /// Stores the bytes, durably. When there is no room, what nobody needs is collected first.
    async fn store(&self, source: Source) -> Result<Put, HostError> {
        let permit = self.storing.acquire().await;
        let _permit = permit.map_err(|_| HostError::Unavailable("the worker ends".into()))?;
        let source = Arc::new(source);
        let put = |blobs: Blobs, source: Arc<Source>, small: bool| {
            let (_, body) = source.open().map_err(BlobError::Source)?;
            if small { blobs.put_small(body) } else { blobs.put(body) }
        };
        for tried in [false, true] {
            let (blobs, from) = (self.blobs.clone(), source.clone());
            let done = tokio::task::spawn_blocking(move || put(blobs, from, tried)).await;
            match done.map_err(|e| HostError::Internal(e.to_string()))? {
                Err(BlobError::Full { .. } | BlobError::DiskFull) if !tried => {
                    collection::make_room(&self.blobs, &self.driver).await;
                }
                result => {
                    disk::note(&self.driver, &result);
                    collection::report(&self.blobs, &self.driver);
                    return result.map_err(of_blobs);
                }
            }
        }
        Err(HostError::Internal("no try was made".into()))
    }

    async fn record(
        &self,
        at: &Attempt,
        put: &Put,
        meta: Vec<u8>,
        artifact: &str,
    ) -> Result<Arc<Checkpoint>, HostError> {
        let (task, epoch): (TaskId, _) = (at.task.as_str().into(), at.epoch);
        let (manifest, size) = (Bytes::copy_from_slice(put.manifest.as_bytes()), put.size);
        let ask = |core: &mut Worker, n| {
            core.on_checkpoint(now(), n, &task, epoch, manifest, size, meta, artifact);
        };
        match self.driver.question(ask).await? {
            Answer::Checkpoint(c) => Ok(c),
            Answer::Refused(why) => Err(refused(&why)),
            Answer::State(_) => Err(HostError::Internal("another answer was expected".into())),
        }
    }

    fn remembered(&self, at: &Attempt, request: &Option<String>) -> Option<CheckpointView> {
        let key = (at.clone(), request.clone()?);
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(view) = recent.answers.get(&key) {
            return Some(view.clone());
        }
        drop(recent);
        // A former process of this worker may have made it.
        let known = self.driver.lock().known_checkpoints(&at.task, at.epoch);
        known.iter().map(|(c, d)| view(c, *d)).find(|v| v.meta.request == *request)
    }

    fn remember(&self, at: &Attempt, made: &CheckpointView) {
        let Some(request) = made.meta.request.clone() else { return };
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (at.clone(), request);
        recent.answers.insert(key.clone(), made.clone());
        recent.order.push_back(key);
        if recent.order.len() > REMEMBERED
            && let Some(oldest) = recent.order.pop_front()
        {
            recent.answers.remove(&oldest);
        }
    }
}

impl Host for TaskHost {
    async fn info(&self, at: &Attempt) -> Result<TaskInfo, HostError> {
        let (spec, started_at_ms) =
            self.driver.lock().held_spec(&at.task, at.epoch).ok_or(HostError::NoSuchAttempt)?;
        Ok(TaskInfo {
            task: at.task.clone(),
            attempt: at.epoch,
            worker: self.driver.name.clone(),
            started_at_ms,
            spec: serde_json::to_value(&*spec).unwrap_or(Value::Null),
        })
    }

    async fn checkpoint(
        &self,
        at: &Attempt,
        source: Source,
        meta: CheckpointMeta,
    ) -> Result<CheckpointView, HostError> {
        self.held(at)?;
        if let Some(made) = self.remembered(at, &meta.request) {
            return Ok(made);
        }
        let _using = self.driver.room.using();
        let put = self.store(source).await?;
        let meta = serde_json::to_vec(&meta).map_err(|e| HostError::Invalid(e.to_string()))?;
        let made = self.record(at, &put, meta, "").await?;
        let made = view(&made, false);
        self.remember(at, &made);
        Ok(made)
    }

    async fn checkpoints(&self, at: &Attempt) -> Result<Vec<CheckpointView>, HostError> {
        self.held(at)?;
        let known = self.known(at);
        let all =
            if may_have_older(at, &known) { self.with_older(at, known).await? } else { known };
        Ok(all.iter().map(|(c, delivered)| view(c, *delivered)).collect())
    }

    async fn restore(
        &self,
        at: &Attempt,
        which: Option<String>,
    ) -> Result<Option<Restore>, HostError> {
        self.held(at)?;
        let mut known = self.known(at);
        if let Some(id) = &which {
            if !known.iter().any(|(c, _)| c.id() == *id) && may_have_older(at, &known) {
                known = self.with_older(at, known).await?;
            }
            known.retain(|(c, _)| c.id() == *id);
        }
        let Some((c, delivered)) = known.last() else {
            return which.map_or(Ok(None), |id| Err(HostError::NoSuchCheckpoint(id)));
        };
        let _using = self.driver.room.using();
        let origin = Origin {
            dialler: self.dialler.clone(),
            blobs: self.blobs.clone(),
            manifest: c.manifest.clone(),
            id: c.id(),
            delivered: *delivered,
        };
        let body = origin.open().await?;
        self.driver.feed(Worker::on_restored);
        Ok(Some(Restore { view: view(c, *delivered), body }))
    }

    async fn update_state(
        &self,
        at: &Attempt,
        members: Map<String, Value>,
        progress: Option<f64>,
    ) -> Result<StateView, HostError> {
        let task = self.held(at)?;
        let epoch = at.epoch;
        let patch = StatePatch { members, progress };
        let ask = |core: &mut Worker, n| core.on_state(now(), n, &task, epoch, patch);
        match self.driver.question(ask).await? {
            Answer::State(state) => Ok(state_view(Some(&state))),
            Answer::Refused(why) => Err(refused(&why)),
            Answer::Checkpoint(_) => Err(HostError::Internal("another answer was expected".into())),
        }
    }

    async fn state(&self, at: &Attempt) -> Result<StateView, HostError> {
        let reported = self.driver.lock().reported(&at.task, at.epoch);
        let (_, state) = reported.ok_or(HostError::NoSuchAttempt)?;
        Ok(state_view(state.as_deref()))
    }

    async fn artifact(
        &self,
        at: &Attempt,
        name: String,
        source: Source,
    ) -> Result<ArtifactView, HostError> {
        self.held(at)?;
        let _using = self.driver.room.using();
        let put = self.store(source).await?;
        let made = self.record(at, &put, b"{}".to_vec(), &name).await?;
        Ok(ArtifactView { name, bytes: made.size, created_at_ms: made.created_at_ms })
    }

    async fn control(
        &self,
        at: &Attempt,
        seen: Control,
        wait: Duration,
    ) -> Result<Control, HostError> {
        self.held(at)?;
        self.driver.feed(|core| core.on_listens(&at.task, at.epoch));
        Ok(self.controls().wait(at, seen, wait).await)
    }
}
