//! The agent: a worker that runs. Its start opens everything and connects the parts.

use super::config::AgentConfig;
use super::context::Link;
use super::driver::{Driver, Settings};
use super::host::TaskHost;
use super::outbound::ToLink;
use super::runs::Runs;
use super::start_error::StartError;
use super::state_folder::{BLOBS, PROVED};
use super::status::{Ended, Status};
use super::{
    collection, disk, identity, link, now, run_as, state_folder, takeover, timer, upload, writer,
};
use crate::exec::{Config as ExecConfig, StopKind};
use crate::local::{self, LocalServer, Rights, Tokens};
use crate::runner::{Held, Runner};
use outlast_blob::Blobs;
use outlast_core::stats::{ConnectionState, ConnectionStats};
use outlast_core::worker::{Worker, WorkerConfig};
use outlast_driver::group;
use outlast_net::Dialler;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// A worker that runs.
pub struct Agent {
    driver: Arc<Driver>,
    runs: Arc<Runs>,
    writer: Option<std::thread::JoinHandle<()>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    local: Option<LocalServer>,
}

impl Agent {
    /// Opens the state folder, goes on from what it holds, and dials. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`StartError`] says what to correct.
    pub fn start(config: AgentConfig) -> Result<Agent, StartError> {
        let dialler = Arc::new(dialler_of(&config)?);
        run_as::open_folder(&config)?;
        identity::settle(&config.state_dir, config.identity)?;
        // The store first: it says clearly when another process has the folder.
        let (store, snapshot, short) = state_folder::open_store(&config.state_dir)?;
        let (exec, mut socket) = interface(&config)?;
        let budget = outlast_blob::Config { budget: config.blob_budget, ..Default::default() };
        let blobs = Blobs::open(config.state_dir.join(BLOBS), budget)?;
        let (runner, held) = Runner::open(exec, config.core.slots, config.keeper.clone())?;
        if socket.rights.is_none() {
            run_as::close_folder_of(&config.state_dir)?;
        }
        if held.swept > 0 {
            tracing::warn!("ended {} processes of a former worker", held.swept);
        }
        let tokens = Arc::new(tokens(&config.state_dir, &held)?);
        socket.tokens = Some(tokens.clone());
        let seed = now().wall as u64 ^ u64::from(std::process::id()) << 32;
        let core = WorkerConfig { nonce: identity::nonce(), ..config.core.clone() };
        let core = Worker::new(core, snapshot, takeover::alive(&held), seed, now());
        let (writer, written) = group::group(writer::ALONE);
        let (link, linked) = mpsc::unbounded_channel();
        let settings = Settings {
            name: config.core.name.clone(),
            state_dir: config.state_dir.clone(),
            tasks_root: runner.root().to_owned(),
            ping: config.ping,
        };
        let driver = Arc::new(Driver::new(core, writer, link, settings));
        let runs = Arc::new(Runs::new(runner, config.functions, config.core.name.clone(), tokens));
        driver.set_performer(runs.clone());
        let listener = Arc::downgrade(&driver);
        runs.runner().listen(Box::new(move |events| {
            let Some(driver) = listener.upgrade() else { return };
            driver.on_events(events);
        }));
        let folder = config.state_dir.clone();
        let thread = writer::start(store, written, driver.clone(), folder);
        let thread = thread.map_err(StartError::Thread)?;
        let wanted = driver.outlets.uploads.subscribe();
        let tasks = vec![
            tokio::spawn(link::run(dialler.clone(), linked, driver.clone())),
            tokio::spawn(timer::run(driver.clone())),
            tokio::spawn(upload::run(dialler.clone(), blobs.clone(), wanted, driver.clone())),
            tokio::spawn(collection::run(blobs.clone(), driver.clone())),
            tokio::spawn(disk::watch(config.state_dir.clone(), blobs.clone(), driver.clone())),
        ];
        let host = Arc::new(TaskHost::new(driver.clone(), blobs.clone(), dialler.clone()));
        let runtime = tokio::runtime::Handle::current();
        runs.set_link(Link { host: Arc::downgrade(&host), runtime });
        let local = local::serve(socket, host).map_err(StartError::Local)?;
        driver.take_over(&runs, held);
        driver.feed(|_| ());
        if short {
            driver.room.is_short();
        }
        Ok(Agent { driver, runs, writer: Some(thread), tasks, local: Some(local) })
    }

    /// Takes no new work, finishes and delivers what it has, and ends.
    pub fn drain(&self) {
        self.driver.feed(|core| core.drain(now()));
    }
    /// Stops what runs, keeps every result on disk, ends. The next start delivers them.
    pub fn stop(&self) {
        self.driver.feed(|core| core.stop(now()));
    }
    /// Dials at once. An agent that had abandoned its link has not ended then.
    pub fn force_reconnect(&self) {
        if self.status().borrow().0 == ConnectionState::Failed {
            self.driver.outlets.ended.send_replace(None);
        }
        self.driver.feed(|core| core.force_reconnect(now()));
    }
    /// The state of the link, and the reason; follows changes.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.driver.outlets.status.subscribe()
    }
    /// The end of the agent, once it has ended; follows changes.
    pub fn ended(&self) -> watch::Receiver<Option<Ended>> {
        self.driver.outlets.ended.subscribe()
    }
    /// Statistics of the link.
    pub fn stats(&self) -> ConnectionStats {
        self.driver.lock().stats().clone()
    }
    /// Resets the statistics of the link.
    pub fn reset_stats(&self) {
        self.driver.feed(|core| core.reset_stats(now()));
    }
    /// The load: attempts that run, attempts that wait, unacknowledged results.
    pub fn load(&self) -> (usize, usize, usize) {
        self.driver.lock().load()
    }

    /// Waits until it has ended, and gives back what it used.
    pub async fn wait(mut self) -> Ended {
        let mut ended = self.driver.outlets.ended.subscribe();
        let result = ended.wait_for(Option::is_some).await.map(|e| e.clone());
        let ended = result.ok().flatten();
        if let Some(local) = self.local.take() {
            local.shutdown().await;
        }
        // The link has a moment to say goodbye.
        let _ = self.driver.outlets.link.send(ToLink::End);
        let last = self.tasks.swap_remove(0);
        let _ = tokio::time::timeout(Duration::from_secs(2), last).await;
        for task in &self.tasks {
            task.abort();
        }
        self.driver.close();
        let (runs, writer) = (self.runs.clone(), self.writer.take());
        let _ = tokio::task::spawn_blocking(move || {
            runs.shutdown(StopKind::Interrupt);
            writer.map(std::thread::JoinHandle::join)
        })
        .await;
        ended.unwrap_or(Ended { failed: true, reason: "the agent was dropped".into() })
    }
}

/// The dialler, with a warning where the key can be read on the way.
fn dialler_of(config: &AgentConfig) -> Result<Dialler, StartError> {
    let (key, ca) = (config.api_key.as_deref(), config.ca_file.as_deref());
    let dialler = Dialler::new(&config.coordinator, &config.core.name, key, ca)?;
    let dialler = dialler.noting(config.state_dir.join(PROVED));
    if dialler.is_exposed() {
        tracing::warn!(
            "the API key goes to {} unencrypted, and whoever is on the way can read it: give \
             the coordinator a certificate, and use https://",
            config.coordinator
        );
    }
    Ok(dialler)
}

/// The settings of the executor and of the socket by which its tasks reach this agent.
fn interface(config: &AgentConfig) -> Result<(ExecConfig, local::Config), StartError> {
    let exec = config.exec.clone();
    let mut exec = exec.unwrap_or_else(|| ExecConfig::new(config.state_dir.join("tasks")));
    let mut socket = local::Config::new(&config.state_dir);
    let place = std::path::absolute(&socket.socket)
        .map_err(|e| StartError::Folder(config.state_dir.clone(), e))?;
    exec.extra_env.push((local::SOCKET_VARIABLE.into(), place.display().to_string()));
    let rights = config.run_as.clone().map(|run_as| Arc::new(Rights::new(run_as)));
    if let Some(rights) = &rights {
        exec.user = Some(rights.user().clone());
        run_as::check(rights, &exec.root, &place)?;
    }
    socket.rights = rights;
    Ok((exec, socket))
}

/// The tokens of tasks, with those of attempts that run already.
fn tokens(state_dir: &Path, held: &Held) -> Result<Tokens, StartError> {
    let running = held
        .running
        .iter()
        .map(|one| local::Attempt { task: one.id.task.to_string(), epoch: one.id.epoch });
    Tokens::open(&state_dir.join(local::KEY_FILE), running).map_err(StartError::Local)
}
