//! Short names for records, and the two kinds of store behind one face.
#![allow(dead_code)] // each test binary uses a part

use outlast_core::records::{Batch, CoordRecord, TaskState, WorkerRecord, WorkerRow};
use outlast_model::{Cause, Checkpoint, LinkCause, StateUpdate, TaskOutcome};
use outlast_model::{Run, TaskSpec};
use outlast_store::sim::{SimCoordStore, SimWorkerStore};
use outlast_store::*;
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;

pub const RESULTS: outlast_model::Lane = outlast_model::Lane::Results;

pub fn spec(name: &str) -> Arc<TaskSpec> {
    Arc::new(TaskSpec::new(Run::Shell(format!("echo {name}"))))
}
pub fn outcome(task: &str, epoch: u64, started_at_ms: i64) -> Arc<TaskOutcome> {
    let message = format!("{task}/{epoch}");
    Arc::new(TaskOutcome {
        task: task.into(),
        epoch,
        message,
        started_at_ms,
        ..TaskOutcome::default()
    })
}
pub fn submitted(task: &str, number: u64, at: i64) -> CoordRecord {
    let owner = None;
    CoordRecord::Submitted { task: task.into(), number, spec: spec(task), after: 0, owner, at }
}
pub fn assigned(task: &str, epoch: u64, worker: &str, at: i64) -> CoordRecord {
    CoordRecord::Assigned { task: task.into(), epoch, worker: worker.into(), at }
}
pub fn started(task: &str, epoch: u64, at: i64) -> CoordRecord {
    CoordRecord::Started { task: task.into(), epoch, started_at: at, at: at + 1 }
}
pub fn requeued(task: &str, epoch: u64, retries: u32, at: i64) -> CoordRecord {
    let (reason, cause, outcome) = ("lost".to_owned(), Cause::Network, None);
    CoordRecord::Requeued { task: task.into(), epoch, retries, reason, cause, outcome, at }
}
pub fn succeeded(task: &str, epoch: u64, worker: &str, at: i64) -> CoordRecord {
    let (state, reason, cause) = (TaskState::Succeeded, String::new(), Cause::Done);
    let (outcome, worker) = (Some(outcome(task, epoch, 0)), Some(worker.into()));
    CoordRecord::Ended { task: task.into(), epoch, state, reason, cause, outcome, worker, at }
}
pub fn cancelled(task: &str, at: i64) -> CoordRecord {
    let (state, reason, cause) = (TaskState::Cancelled, "asked".into(), Cause::Cancelled);
    let (task, epoch, outcome, worker) = (task.into(), 0, None, None);
    CoordRecord::Ended { task, epoch, state, reason, cause, outcome, worker, at }
}
pub fn superseded(task: &str, epoch: u64, worker: &str, at: i64) -> CoordRecord {
    let (reason, outcome) = ("late".to_owned(), outcome(task, epoch, 0));
    let worker = worker.into();
    CoordRecord::Superseded { task: task.into(), epoch, reason, outcome, worker, at }
}
pub fn cursor(worker: &str, seq: u64) -> CoordRecord {
    CoordRecord::Cursor { worker: worker.into(), lane: RESULTS, seq }
}
pub fn worker_row(store_id: &str, name: &str) -> Arc<WorkerRow> {
    Arc::new(WorkerRow {
        store_id: store_id.into(),
        name: name.into(),
        incarnation: 3,
        connection: 4,
        slots: 2,
        prefetch: 1,
        capabilities: r#"{"cores":8}"#.into(),
        labels: [("site".to_owned(), "b".to_owned())].into(),
        version: "0.1".into(),
        drained: false,
        nonce: u64::MAX,
        principal: "fleet".into(),
    })
}
pub fn gone(worker: &str, reason: &str, at: i64) -> CoordRecord {
    let (worker, reason, cause) = (worker.into(), reason.into(), LinkCause::Closed);
    CoordRecord::WorkerGone { worker, reason, cause, at }
}
pub fn checkpoint(task: &str, epoch: u64, number: u64, dropped: bool) -> Arc<Checkpoint> {
    Arc::new(Checkpoint {
        task: task.into(),
        epoch,
        number,
        manifest: format!("{task}.{epoch}.{number}").into_bytes().into(),
        size: 7,
        created_at_ms: 9,
        meta_json: b"{}".to_vec().into(),
        dropped,
        artifact: String::new(),
    })
}
pub fn state(task: &str, epoch: u64, version: u64) -> Arc<StateUpdate> {
    let state_json = format!("{{\"n\":{version}}}").into_bytes().into();
    let task = task.into();
    Arc::new(StateUpdate { task, epoch, version, state_json, ..Default::default() })
}
pub fn accepted(task: &str, epoch: u64) -> WorkerRecord {
    let (task, spec) = (task.into(), spec(task));
    let (checkpoint, paused, after) = (None, false, epoch / 2);
    WorkerRecord::Accepted { task, epoch, spec, checkpoint, paused, after }
}
pub fn seen(store_id: &str, name: &str, at: i64) -> CoordRecord {
    CoordRecord::WorkerSeen { worker: worker_row(store_id, name), at }
}
pub fn batch<R>(records: Vec<R>) -> Batch<R> {
    Batch { number: 1, records }
}

/// Operations of both kinds of coordinator's store.
pub trait Coord: CoordStorage {
    fn fresh() -> Self;
    /// Ends the process and starts another on the same disk.
    fn reopen(self) -> Self;
    fn history(&self, id: &str) -> Vec<StoredEvent>;
    fn outcome(&self, id: &str) -> Option<Arc<TaskOutcome>>;
    fn superseded(&self, id: &str) -> Vec<PastOutcome>;
    fn put(&mut self, records: Vec<CoordRecord>) {
        self.commit(&[batch(records)]).expect("valid records");
    }
    /// Kind and attempt of each entry.
    fn story(&self, id: &str) -> Vec<(EventKind, u64)> {
        self.history(id).iter().map(|e| (e.kind, e.epoch)).collect()
    }
}

pub struct SqlCoord {
    pub folder: TempDir,
    pub store: CoordStore,
    pub reader: CoordReader,
}

impl SqlCoord {
    fn at(folder: TempDir) -> Self {
        let (store, snapshot) = CoordStore::open(&folder.path().join("c.db")).expect("opens");
        assert_eq!(snapshot, store.snapshot().expect("reads"));
        let reader = store.reader().expect("opens");
        SqlCoord { folder, store, reader }
    }
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("c.db")
    }
}

impl CoordStorage for SqlCoord {
    fn commit(&mut self, batches: &[Batch<CoordRecord>]) -> Result<(), StoreError> {
        self.store.commit(batches)
    }
    fn snapshot(&self) -> Result<outlast_core::records::CoordSnapshot, StoreError> {
        self.store.snapshot()
    }
    fn task_row(&self, id: &str) -> Result<Option<outlast_core::records::TaskRow>, StoreError> {
        self.reader.task_row(id)
    }
}

impl Coord for SqlCoord {
    fn fresh() -> Self {
        Self::at(TempDir::new().expect("a folder"))
    }
    fn reopen(self) -> Self {
        let SqlCoord { folder, store, reader } = self;
        drop((store, reader));
        Self::at(folder)
    }
    fn history(&self, id: &str) -> Vec<StoredEvent> {
        self.reader.history(id).expect("reads")
    }
    fn outcome(&self, id: &str) -> Option<Arc<TaskOutcome>> {
        self.reader.outcome(id).expect("reads")
    }
    fn superseded(&self, id: &str) -> Vec<PastOutcome> {
        self.reader.superseded(id).expect("reads")
    }
}

impl Coord for SimCoordStore {
    fn fresh() -> Self {
        SimCoordStore::new("c")
    }
    fn reopen(mut self) -> Self {
        self.crash();
        self
    }
    fn history(&self, id: &str) -> Vec<StoredEvent> {
        self.history(id)
    }
    fn outcome(&self, id: &str) -> Option<Arc<TaskOutcome>> {
        self.outcome(id)
    }
    fn superseded(&self, id: &str) -> Vec<PastOutcome> {
        self.superseded(id)
    }
}

/// Operations of both kinds of worker's store.
pub trait Worker: WorkerStorage {
    fn fresh() -> Self;
    /// Ends the process and starts another on the same disk.
    fn reopen(self) -> Self;
    fn outbox_len(&self) -> usize;
    fn put(&mut self, records: Vec<WorkerRecord>) {
        self.commit(&[batch(records)]).expect("valid records");
    }
}

pub struct SqlWorker {
    pub folder: TempDir,
    pub store: WorkerStore,
}

impl SqlWorker {
    fn at(folder: TempDir) -> Self {
        let (store, snapshot) = WorkerStore::open(&folder.path().join("w.db")).expect("opens");
        assert_eq!(snapshot, store.snapshot().expect("reads"));
        SqlWorker { folder, store }
    }
}

impl WorkerStorage for SqlWorker {
    fn commit(&mut self, batches: &[Batch<WorkerRecord>]) -> Result<(), StoreError> {
        self.store.commit(batches)
    }
    fn snapshot(&self) -> Result<outlast_core::records::WorkerSnapshot, StoreError> {
        self.store.snapshot()
    }
}

impl Worker for SqlWorker {
    fn fresh() -> Self {
        Self::at(TempDir::new().expect("a folder"))
    }
    fn reopen(self) -> Self {
        let SqlWorker { folder, store } = self;
        let before = store.outbox().expect("reads");
        drop(store);
        let again = Self::at(folder);
        assert_eq!(again.store.outbox().expect("reads"), before);
        again
    }
    fn outbox_len(&self) -> usize {
        self.store.outbox().expect("reads").0 as usize
    }
}

impl Worker for SimWorkerStore {
    fn fresh() -> Self {
        let mut store = SimWorkerStore::new("w");
        store.open();
        store
    }
    fn reopen(mut self) -> Self {
        self.crash();
        self.open();
        self
    }
    fn outbox_len(&self) -> usize {
        self.outbox_len()
    }
}
