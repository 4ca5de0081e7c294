//! Progress notes of a draining worker, and its time limit for a coordinator that is away.

use outlast_core::stats::ConnectionState;
use outlast_worker::shell::Agent;
use std::path::Path;
use std::time::{Duration, Instant};

/// Default time for which a drain waits for a coordinator that is away.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Time between two checks.
pub(crate) const LOOK: Duration = Duration::from_secs(1);
/// Time between two progress notes.
const NOTE: Duration = Duration::from_secs(15);

/// A drain in progress.
pub(crate) struct Drain<'a> {
    patience: Duration,
    coordinator: String,
    folder: &'a Path,
    noted: Instant,
    /// Time since which nothing runs and the coordinator is away.
    alone: Option<Instant>,
}

impl<'a> Drain<'a> {
    /// Starts a drain with this time limit; zero means none.
    pub fn new(patience: Duration, coordinator: String, folder: &'a Path) -> Drain<'a> {
        Drain { patience, coordinator, folder, noted: Instant::now(), alone: None }
    }

    /// Returns true once the time limit has passed. To be called every [`LOOK`].
    pub fn look(&mut self, agent: &Agent) -> bool {
        let (running, waiting, results) = agent.load();
        let (state, why) = agent.status().borrow().clone();
        let connected = state == ConnectionState::Connected;
        if running + waiting > 0 || connected {
            self.alone = None;
        } else if self.alone.get_or_insert_with(Instant::now).elapsed() >= self.patience {
            return !self.patience.is_zero();
        }
        if self.noted.elapsed() >= NOTE {
            self.noted = Instant::now();
            let coordinator = &self.coordinator;
            let away = match connected {
                true => String::new(),
                false => format!("; there is no link to {coordinator} ({why})"),
            };
            tracing::info!(
                "still draining: {running} tasks run, {results} results are not delivered{away}; \
                 they are kept in {}; SIGTERM or Ctrl-C again ends this worker now",
                self.folder.display()
            );
        }
        false
    }

    /// Message about undelivered results when the time limit has passed.
    pub fn leaves(&self, agent: &Agent) -> String {
        let results = agent.load().2;
        format!(
            "drained, except for {results} results: the coordinator {} is away; they are kept in {}, \
             and the next worker with that folder delivers them",
            self.coordinator,
            self.folder.display()
        )
    }
}
