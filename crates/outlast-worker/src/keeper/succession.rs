//! What an agent does when its keeper is gone: finds out why, sees to what it left, and comes by
//! another.

use super::client::{Client, Ours, id_of};
use super::connect::{Connection, Wish};
use super::proto::{self, Ask, Forget, Frames, ToKeeper};
use crate::exec::{self, Cause, plain};
use crate::runner::Event;
use outlast_wire::v2::OutcomeKind;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Between tries to start a new keeper: at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// The system takes this long, at most, to say how a process ended whose socket is closed.
const STATUS: Duration = Duration::from_millis(300);
/// Attempts that are forgotten in one message.
const FORGOTTEN: usize = 10_000;

impl Client {
    /// The connection is broken: comes by another. If the keeper died, what it ran is ended and
    /// told. `None`: this agent leaves.
    pub(super) fn replace(&self, error: io::Error) -> Option<Frames> {
        let mut state = self.lock();
        state.connection += 1;
        state.stream = None;
        self.out.close();
        let former = state.instance;
        drop(state);
        let wish = Wish {
            root: &self.root,
            launch: &self.launch,
            slots: self.slots,
            env: &self.env,
            fresh: false,
        };
        if let Some(taken) = wish.take_present()
            && taken.welcome.instance == former
        {
            tracing::warn!("lost the connection to the keeper, and have it again: {error}");
            return Some(self.adopt(taken, None));
        }
        let reason = self.why();
        tracing::error!("{reason}");
        self.tell(vec![Event::Died(reason.clone())]);
        let mut pause = RETRY.0;
        while !self.leaving.load(Ordering::Relaxed) {
            match wish.take() {
                Ok(taken) => return Some(self.adopt(taken, Some(&reason))),
                Err(error) => tracing::error!("there is no keeper: {error}"),
            }
            // Then what it left is ended from here.
            if exec::sweep(&self.root).is_ok() {
                self.tell(self.orphans(&reason, false));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(RETRY.1);
        }
        None
    }

    /// Goes on with a keeper; `died` is why the former one is no more, if that is so.
    fn adopt(&self, taken: Connection, died: Option<&str>) -> Frames {
        let Connection { stream, frames, welcome, held, child } = taken;
        let mut state = self.lock();
        let connection = state.connection;
        // A new one knows of nothing that the former one could not do.
        let mut events = vec![Event::Unfit(held.unfit)];
        let mut unknown = Vec::new();
        for ended in held.finished {
            let id = id_of(&ended);
            match state.ours.get(&id) {
                Some(Ours::Given { .. }) => {
                    state.ours.insert(id, Ours::Told);
                    events.push(Event::Finished(ended));
                }
                Some(Ours::Told) => {}
                // It was forgotten, and that got lost.
                None => unknown.push(proto::Id::from(&id)),
            }
        }
        for one in held.running {
            let started_at_ms = one.started_at_ms.unwrap_or_default();
            state.ours.insert(one.id, Ours::Given { connection, started_at_ms });
        }
        state.instance = welcome.instance;
        state.pid = welcome.pid;
        if let Some(mut former) = std::mem::replace(&mut state.child, child) {
            // It is dead, or it was the same and is not started here any more.
            match died {
                Some(_) => drop(former.wait()),
                None => state.child = Some(former),
            }
        }
        let stream = Arc::new(stream);
        state.stream = Some(Arc::clone(&stream));
        drop(state);
        for ids in unknown.chunks(FORGOTTEN) {
            let forget = Forget { ids: ids.to_vec() };
            self.out.push(&ToKeeper::from(Ask::Forget(forget)), false);
        }
        self.out.open(stream);
        self.tell(events);
        let reason = died.unwrap_or("the connection to the keeper broke before it was told of it");
        self.tell(self.orphans(reason, died.is_none()));
        frames
    }

    /// The outcomes of attempts that were given over a former connection and that no keeper has:
    /// `returned` if none can have begun there.
    fn orphans(&self, reason: &str, returned: bool) -> Vec<Event> {
        let (kind, cause) = match returned {
            true => (OutcomeKind::OutcomeReturned, Cause::NotStarted),
            false => (OutcomeKind::OutcomeInterrupted, Cause::KeeperDied),
        };
        let mut state = self.lock();
        let now = state.connection;
        let mut events = Vec::new();
        for (id, ours) in &mut state.ours {
            let Ours::Given { connection, started_at_ms } = *ours else { continue };
            if connection >= now {
                continue;
            }
            *ours = Ours::Told;
            let mut outcome = plain(&id.task, id.epoch, kind, reason);
            outcome.started_at_ms = started_at_ms;
            events.push(Event::Finished((outcome, cause)));
        }
        events
    }

    /// This agent leaves: if the keeper died before it had shut down, what it ran is ended.
    pub(super) fn tell_lost(&self) {
        let mut state = self.lock();
        if state.goodbye || !state.shut_down {
            return;
        }
        state.connection += 1;
        drop(state);
        let reason = self.why();
        if exec::sweep(&self.root).is_ok() {
            self.tell(self.orphans(&reason, false));
        }
    }

    /// Why there is no keeper any more.
    fn why(&self) -> String {
        let mut state = self.lock();
        let pid = state.pid;
        let mut how = String::new();
        if let Some(child) = &mut state.child {
            let deadline = Instant::now() + STATUS;
            while how.is_empty() && Instant::now() < deadline {
                match child.try_wait() {
                    Ok(Some(status)) => how = format!(" ({})", exec::describe(status)),
                    _ => std::thread::sleep(Duration::from_millis(1)),
                }
            }
        }
        format!("the keeper of the tasks, process {pid}, died{how}; what it ran was ended")
    }
}
