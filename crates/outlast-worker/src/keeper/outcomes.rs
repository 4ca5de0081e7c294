//! Outcomes that a keeper has yet to deliver to an agent: in memory while one is connected, on disk as
//! soon as none is, or if the agent is slow. Each is kept until an agent forgets it.

use super::out::Out;
use super::proto::{self, Finished, HeldMsg, Id, Say, ToAgent};
use super::spool::Spool;
use crate::runner::events::HeldAttempt;
use outlast_core::AttemptId;
use outlast_model::{Cause, OutcomeKind, TaskOutcome};
use prost::Message;
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// An agent that has an outcome for longer, and has not said that it is durable, is not relied on.
/// Not less: an agent whose disk is slow is not helped by more to write.
const PATIENCE: Duration = Duration::from_secs(10);

/// Numbers that keepers have for causes; that of `Exit` is also that of `Done`.
const NUMBERS: [Cause; 11] = [
    Cause::Unspecified,
    Cause::Exit,
    Cause::Signal,
    Cause::OutOfMemory,
    Cause::TimedOut,
    Cause::Cancelled,
    Cause::Stopped,
    Cause::Disk,
    Cause::NotStarted,
    Cause::WorkerCrashed,
    Cause::Machine,
];

/// The number that keepers have for a cause.
fn number(cause: Cause) -> u32 {
    let cause = if cause == Cause::Done { Cause::Exit } else { cause };
    NUMBERS.iter().position(|one| *one == cause).unwrap_or_default() as u32
}

/// The outcome that a keeper reports, with its cause, also where the keeper is an older one.
pub(super) fn outcome(finished: Finished) -> TaskOutcome {
    let mut outcome = TaskOutcome::from(finished.outcome);
    if outcome.cause == Cause::Unspecified {
        let cause = NUMBERS.get(finished.cause as usize).copied().unwrap_or_default();
        let succeeded = outcome.kind == OutcomeKind::Succeeded;
        outcome.cause = if succeeded && cause == Cause::Exit { Cause::Done } else { cause };
    }
    outcome
}

/// See the module.
pub(super) struct Outcomes {
    state: Mutex<State>,
    out: Arc<Out>,
}

struct State {
    kept: HashMap<AttemptId, Kept>,
    spool: Spool,
    /// True while an agent receives events.
    attached: bool,
    /// The spool could not be written at the last try.
    failing: bool,
}

struct Kept {
    /// An encoded `Finished`.
    message: Vec<u8>,
    since: Instant,
    on_disk: bool,
}

impl Outcomes {
    /// Takes up what former keepers left at `path`.
    pub fn open(path: &Path, out: Arc<Out>) -> io::Result<Outcomes> {
        let (spool, kept) = Spool::open(path)?;
        let since = Instant::now();
        let kept = kept.into_iter().map(|((task, epoch), message)| {
            let id = AttemptId { task: task.as_str().into(), epoch };
            (id, Kept { message, since, on_disk: true })
        });
        let (kept, attached, failing) = (kept.collect(), false, false);
        Ok(Outcomes { state: Mutex::new(State { kept, spool, attached, failing }), out })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an outcome and tells it, or writes it down if there is nobody to tell.
    pub fn finished(&self, outcome: TaskOutcome, hurry: bool) {
        let id = AttemptId { task: outcome.task.clone(), epoch: outcome.epoch };
        let cause = number(outcome.cause);
        let message = Finished { outcome: outcome.into(), cause }.encode_to_vec();
        let mut state = self.lock();
        if state.attached {
            // Under the lock, so that it follows the initial messages to an agent.
            self.out.put(hurry, |bytes| proto::frame_finished(&message, bytes));
        }
        state.kept.insert(id, Kept { message, since: Instant::now(), on_disk: false });
        if !state.attached {
            state.write_down(|_| true);
        }
    }

    /// Tells something that need not be kept.
    pub fn tell(&self, say: Say) {
        if self.lock().attached {
            self.out.push(&ToAgent::from(say), true);
        }
    }

    /// Returns whether the attempt has ended and is not forgotten; if so, tells its outcome again.
    pub fn tell_again(&self, id: &AttemptId) -> bool {
        let state = self.lock();
        let Some(kept) = state.kept.get(id) else { return false };
        self.out.put(true, |bytes| proto::frame_finished(&kept.message, bytes));
        true
    }

    /// Attaches an agent: sends it these attempts and every outcome, then events. An attempt that ends
    /// after `held` was made is sent as an outcome. `unfit` returns why nothing can be started, if so;
    /// changes after its call are sent, too.
    pub fn attach(&self, held: Vec<HeldAttempt>, unfit: impl Fn() -> Option<String>) {
        let mut state = self.lock();
        state.attached = true;
        let reason = unfit();
        self.out.put(true, |bytes| {
            for attempt in held.iter().filter(|held| !state.kept.contains_key(&held.id)) {
                let message = HeldMsg {
                    id: (&attempt.id).into(),
                    started_at_ms: attempt.started_at_ms.unwrap_or_default(),
                    paused: attempt.paused,
                };
                proto::frame(&ToAgent::from(Say::Held(message)), bytes);
            }
            state.kept.values().for_each(|kept| proto::frame_finished(&kept.message, bytes));
            if reason.is_some() {
                proto::frame(&ToAgent::from(Say::Unfit(proto::Unfit { reason })), bytes);
            }
            proto::frame(&ToAgent::from(Say::Ready(proto::Nothing {})), bytes);
        });
    }

    /// The agent is gone: everything goes to disk.
    pub fn detach(&self) {
        let mut state = self.lock();
        state.attached = false;
        self.out.close();
        state.write_down(|_| true);
    }

    /// Forgets outcomes that are durable at the agent.
    pub fn forget(&self, ids: &[Id]) {
        let mut state = self.lock();
        let mut written = false;
        for id in ids {
            let Some(kept) = state.kept.remove(&id.into()) else { continue };
            if kept.on_disk {
                written = true;
                if let Err(error) = state.spool.forget(id) {
                    tracing::warn!("an outcome may be reported again: {error}");
                }
            }
        }
        if written {
            let State { kept, spool, .. } = &mut *state;
            let wanted = kept.values().filter(|kept| kept.on_disk).map(|kept| &kept.message);
            if let Err(error) = spool.tidy(wanted) {
                tracing::warn!("the spool could not be made smaller: {error}");
            }
        }
    }

    /// To be called about once a second.
    pub fn tick(&self) {
        let mut state = self.lock();
        let attached = state.attached;
        state.write_down(|kept| !attached || kept.since.elapsed() > PATIENCE);
    }

    /// Returns whether nothing would be lost if this process ended.
    pub fn are_safe(&self) -> bool {
        self.lock().kept.values().all(|kept| kept.on_disk)
    }
}

impl State {
    /// Writes down those that are not on disk; what fails is tried again later.
    fn write_down(&mut self, which: impl Fn(&Kept) -> bool) {
        let State { kept, spool, failing, .. } = self;
        let mut due: Vec<&mut Kept> =
            kept.values_mut().filter(|kept| !kept.on_disk && which(kept)).collect();
        if due.is_empty() {
            return;
        }
        let written = spool.append(due.iter().map(|kept| &kept.message));
        match &written {
            Ok(()) => due.iter_mut().for_each(|kept| kept.on_disk = true),
            Err(error) if !*failing => {
                tracing::error!("{} outcomes are in memory only: {error}", due.len());
            }
            Err(_) => {}
        }
        *failing = written.is_err();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_keeper_s_number_becomes_the_cause_and_an_older_agent_gets_it() {
        for (kind, cause) in NUMBERS
            .map(|cause| (OutcomeKind::Failed, cause))
            .into_iter()
            .chain([(OutcomeKind::Succeeded, Cause::Done)])
        {
            let made = TaskOutcome { kind, ..TaskOutcome::default() };
            let older = Finished { outcome: made.clone().into(), cause: number(cause) };
            assert_eq!(outcome(older), TaskOutcome { cause, ..made });
        }
        assert_eq!((number(Cause::Done), number(Cause::Machine)), (1, 10));
        let newer = Finished { outcome: TaskOutcome::default().into(), cause: 4711 };
        assert_eq!(outcome(newer).cause, Cause::Unspecified);
    }
}
