//! A host in memory, behind the real server. Shared with the tests of the command.

use outlast_worker::local::*;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Task `t`, attempt 2, is here; `fenced` and `full` are what they say.
pub struct Fake {
    pub checkpoints: Mutex<Vec<(CheckpointView, Vec<u8>)>>,
    pub artifacts: Mutex<BTreeMap<String, Vec<u8>>>,
    pub state: Mutex<StateView>,
    pub control: watch::Sender<Control>,
}

impl Fake {
    pub fn new() -> Arc<Fake> {
        Arc::new(Fake {
            checkpoints: Mutex::default(),
            artifacts: Mutex::default(),
            state: Mutex::default(),
            control: watch::Sender::new(Control::default()),
        })
    }
}

fn check(at: &Attempt) -> Result<(), HostError> {
    match (at.task.as_str(), at.epoch) {
        ("t", 2) => Ok(()),
        ("t", 1) => Err(HostError::Ended("it was cancelled".into())),
        ("fenced", _) => Err(HostError::Fenced("attempt 3 has it".into())),
        ("full", _) => Err(HostError::Full {
            budget: 10,
            used: 9,
            detail: "checkpoints wait for the coordinator".into(),
            retry_after: None,
        }),
        _ => Err(HostError::NoSuchAttempt),
    }
}

async fn read(source: Source) -> Result<(Kind, Vec<u8>), HostError> {
    let read = move || {
        let (kind, mut body) = source.open()?;
        let mut all = Vec::new();
        body.read_to_end(&mut all).map(|_| (kind, all))
    };
    let all = tokio::task::spawn_blocking(read).await.unwrap();
    all.map_err(|e| HostError::of_file("cannot read it", &e))
}

impl Host for Fake {
    async fn info(&self, at: &Attempt) -> Result<TaskInfo, HostError> {
        check(at)?;
        let (task, attempt) = (at.task.clone(), at.epoch);
        let spec = json!({"run": {"shell": "true"}});
        Ok(TaskInfo { task, attempt, worker: "w".into(), started_at_ms: 1, spec })
    }
    async fn checkpoint(
        &self,
        at: &Attempt,
        source: Source,
        meta: CheckpointMeta,
    ) -> Result<CheckpointView, HostError> {
        check(at)?;
        let (kind, data) = read(source).await?;
        assert_eq!(kind, meta.kind);
        let mut all = self.checkpoints.lock().unwrap();
        if let Some((view, _)) = all.iter().find(|c| c.0.meta.request == meta.request)
            && meta.request.is_some()
        {
            return Ok(view.clone());
        }
        let view = CheckpointView {
            id: format!("c{}", all.len() + 1),
            attempt: at.epoch,
            bytes: data.len() as u64,
            created_at_ms: 1_700_000_000_000,
            delivered: false,
            meta,
        };
        all.push((view.clone(), data));
        Ok(view)
    }
    async fn checkpoints(&self, at: &Attempt) -> Result<Vec<CheckpointView>, HostError> {
        check(at)?;
        Ok(self.checkpoints.lock().unwrap().iter().map(|(view, _)| view.clone()).collect())
    }
    async fn restore(
        &self,
        at: &Attempt,
        which: Option<String>,
    ) -> Result<Option<Restore>, HostError> {
        check(at)?;
        let damaged = || HostError::Damaged("its data is damaged".into());
        match which.as_deref() {
            Some("damaged") => return Err(damaged()),
            Some("breaks") => {
                let view = CheckpointView {
                    id: "breaks".into(),
                    attempt: 1,
                    bytes: 1,
                    created_at_ms: 1,
                    delivered: true,
                    meta: CheckpointMeta {
                        kind: Kind::Raw,
                        name: "x".into(),
                        user: Map::new(),
                        request: None,
                    },
                };
                return Ok(Some(Restore { view, body: Box::new(Breaks(damaged())) }));
            }
            _ => {}
        }
        let all = self.checkpoints.lock().unwrap();
        let found = match &which {
            Some(id) => all.iter().find(|(view, _)| view.id == *id),
            None => all.last(),
        };
        Ok(found.map(|(view, data)| Restore {
            view: view.clone(),
            body: Box::new(std::io::Cursor::new(data.clone())),
        }))
    }
    async fn update_state(
        &self,
        at: &Attempt,
        patch: Map<String, Value>,
        progress: Option<f64>,
    ) -> Result<StateView, HostError> {
        check(at)?;
        let mut state = self.state.lock().unwrap();
        for (key, value) in patch {
            match value {
                Value::Null => state.state.remove(&key),
                value => state.state.insert(key, value),
            };
        }
        state.progress = progress.or(state.progress);
        state.updates += 1;
        Ok(state.clone())
    }
    async fn state(&self, at: &Attempt) -> Result<StateView, HostError> {
        check(at)?;
        Ok(self.state.lock().unwrap().clone())
    }
    async fn artifact(
        &self,
        at: &Attempt,
        name: String,
        source: Source,
    ) -> Result<ArtifactView, HostError> {
        check(at)?;
        let (_, data) = read(source).await?;
        let bytes = data.len() as u64;
        self.artifacts.lock().unwrap().insert(name.clone(), data);
        Ok(ArtifactView { name, bytes, created_at_ms: 1 })
    }
    async fn control(
        &self,
        at: &Attempt,
        seen: Control,
        wait: Duration,
    ) -> Result<Control, HostError> {
        check(at)?;
        let mut control = self.control.subscribe();
        let _ = tokio::time::timeout(wait, control.wait_for(|now| *now != seen)).await;
        let now = *control.borrow();
        Ok(now)
    }
}

/// Data that turns out to be damaged when it is read.
struct Breaks(HostError);

impl std::io::Read for Breaks {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Err(std::io::Error::other(self.0.clone()))
    }
}

const PATIENCE: Duration = Duration::from_secs(10);

/// The real server before a fake host, with small limits.
pub fn start(dir: &Path, fake: &Arc<Fake>) -> LocalServer {
    let config = || Config {
        max_upload: 8 << 20,
        spool_budget: 12 << 20,
        body_patience: Duration::from_secs(20),
        max_connections: 16,
        ..Config::new(dir)
    };
    let began = Instant::now();
    loop {
        match serve(config(), fake.clone()) {
            // Another test's child, between its fork and its exec, still has the former listener.
            Err(e) if e.kind() == ErrorKind::AddrInUse && began.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(10));
            }
            served => return served.unwrap(),
        }
    }
}
