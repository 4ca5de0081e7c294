//! What a worker that drains waits for, said now and then, and how long it waits for a coordinator
//! that is away.

use outlast_core::stats::ConnectionState;
use outlast_worker::shell::Agent;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a drain waits, by default, for a coordinator that is away.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
pub(crate) const LOOK: Duration = Duration::from_secs(1);
/// Between two notes about what it waits for.
const NOTE: Duration = Duration::from_secs(15);

/// A drain under way.
pub(crate) struct Drain<'a> {
    patience: Duration,
    coordinator: String,
    folder: &'a Path,
    noted: Instant,
    /// Since when nothing runs, and the coordinator is away.
    alone: Option<Instant>,
}

impl<'a> Drain<'a> {
    /// Without a limit if `patience` is zero.
    pub fn new(patience: Duration, coordinator: String, folder: &'a Path) -> Drain<'a> {
        Drain { patience, coordinator, folder, noted: Instant::now(), alone: None }
    }

    /// To be called now and then; whether it has waited for long enough.
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
                "draining still: {running} tasks run, {results} results are not delivered{away}; \
                 they are kept in {}; SIGTERM or Ctrl-C again ends this worker now",
                self.folder.display()
            );
        }
        false
    }

    /// For people: what is left when it has waited for long enough.
    pub fn leaves(&self, agent: &Agent) -> String {
        let results = agent.load().2;
        format!(
            "drained, but for {results} results: the coordinator {} is away; they are kept in {}, \
             and the next worker with that folder delivers them",
            self.coordinator,
            self.folder.display()
        )
    }
}
