//! Replacement of a keeper that is gone: finds the reason, ends the remaining processes, and connects
//! to another keeper.

use super::client::{Client, Ours, Place, id_of};
use super::connect::{Connection, Wish};
use super::proto::{self, Ask, Forget, Frames, ToKeeper};
use crate::exec::{self, plain};
use crate::runner::events::Event;
use outlast_core::AttemptId;
use outlast_model::{Cause, OutcomeKind};
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
    /// Connects to another keeper after the connection broke. If the keeper died, its tasks are ended and
    /// reported. `None`: this agent disconnects on purpose.
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
            state.ours.insert(one.id, Ours::Given { connection, started_at_ms, place: None });
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
        let reason =
            died.unwrap_or("the connection to the keeper broke before it received the attempt");
        self.tell(self.orphans(reason, died.is_none()));
        frames
    }

    /// The outcomes of attempts that were given over a former connection and that no keeper has:
    /// `returned` if none can have begun there. If some can, what waited behind them is given back,
    /// since nobody else's end should count against it.
    fn orphans(&self, reason: &str, returned: bool) -> Vec<Event> {
        let mut state = self.lock();
        let now = state.connection;
        let former: Vec<_> = state
            .ours
            .iter()
            .filter_map(|(id, ours)| match *ours {
                Ours::Given { connection, started_at_ms, place } if connection < now => {
                    Some(Former { id: id.clone(), started_at_ms, place })
                }
                _ => None,
            })
            .collect();
        let mut events = Vec::new();
        let line = in_line(former, u64::from(self.slots.max(1)));
        let ran = line.iter().filter(|(_, began)| *began).count();
        for (one, began) in line {
            let (kind, cause) = match returned || !began {
                true => (OutcomeKind::Returned, Cause::NotStarted),
                false => (OutcomeKind::Interrupted, Cause::WorkerCrashed),
            };
            let mut outcome = plain(&one.id.task, one.id.epoch, kind, cause, reason);
            outcome.started_at_ms = one.started_at_ms;
            if cause == Cause::WorkerCrashed {
                outcome.beside = u32::try_from(ran - 1).unwrap_or(u32::MAX);
            }
            state.ours.insert(one.id, Ours::Told);
            events.push(Event::Finished(outcome));
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

    /// Explains why there is no keeper any more.
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

/// An attempt that a former keeper had.
#[derive(Debug, Clone)]
struct Former {
    id: AttemptId,
    /// Start time; 0 if the start was not reported, which happens only after a while.
    started_at_ms: i64,
    place: Option<Place>,
}

/// In the order of the line, whether each may have begun: those that said so, and those that are next
/// as far as slots go. What may be wrong about the line makes it more: a place that is not known, and
/// one that must not run twice.
fn in_line(mut former: Vec<Former>, slots: u64) -> Vec<(Former, bool)> {
    let size = |one: &Former| one.place.map_or(1, |place| place.slots);
    former.sort_by_key(|one| (one.started_at_ms == 0, one.place.map_or(0, |p| p.number)));
    let mut used = 0;
    let began = former.into_iter().map(|one| {
        let fits = used == 0 || used + size(&one) <= slots;
        let certain = one.started_at_ms > 0 || one.place.is_none_or(|place| place.once);
        let began = certain || fits;
        if began {
            used += size(&one);
        } else {
            // Strictly in order: nothing passes it.
            used = slots;
        }
        (one, began)
    });
    began.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waited_behind_others_had_not_begun() {
        let one = |name: &str, started_at_ms, number, slots| Former {
            id: AttemptId { task: name.into(), epoch: 1 },
            started_at_ms,
            place: Some(Place { number, slots, once: false }),
        };
        let began = |slots, former: &[Former]| {
            let all = in_line(former.to_vec(), slots).into_iter();
            let mut names: Vec<_> =
                all.filter(|(_, began)| *began).map(|(f, _)| f.id.task.to_string()).collect();
            names.sort();
            names.join(" ")
        };
        // Two run, one of them too short to have said so.
        let line = [one("d", 0, 4, 1), one("a", 5, 1, 1), one("c", 0, 3, 1), one("b", 0, 2, 1)];
        assert_eq!(began(2, &line), "a b");
        assert_eq!(began(1, &line), "a");
        assert_eq!(began(9, &line), "a b c d");
        // One that needs more than is free holds up those behind it; alone it always fits.
        let wide = [one("a", 5, 1, 1), one("wide", 0, 2, 4), one("c", 0, 3, 1)];
        assert_eq!(began(4, &wide), "a");
        assert_eq!(began(2, &wide[1..]), "wide");
        // What is not known counts as begun.
        let mut odd = line.clone();
        odd[0].place = None;
        odd[2].place = odd[2].place.map(|place| Place { once: true, ..place });
        assert_eq!(began(1, &odd), "a c d");
    }
}
