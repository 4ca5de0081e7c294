//! The attempts that an executor was given: as many run as there are slots, the others wait in
//! the order in which they came.
//!
//! The thread that ended one starts the next itself, without asking anybody.

use super::events::{Event, HeldAttempt, Start};
use crate::exec::{Executor, Handle, Note, Signal, StopKind, Unbegun, never_begun};
use outlast_core::AttemptId;
use outlast_model::{OutcomeKind, TaskOutcome};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Callback for events. The flag requests prompt delivery: for an end that is not a success, or for
/// slots that are free, or soon will be, for lack of waiting attempts.
pub(crate) type Told = dyn Fn(Event, bool) + Send + Sync;

/// See the module.
pub struct Line {
    executor: Executor,
    state: Mutex<State>,
    tell: Box<Told>,
}

struct State {
    slots: u64,
    used: u64,
    /// Waiting attempts, in order.
    waiting: VecDeque<AttemptId>,
    held: HashMap<AttemptId, Entry>,
}

struct Entry {
    slots: u64,
    stage: Stage,
}

enum Stage {
    Waiting { start: Start, paused: bool },
    Given(Handle),
}

type Launch = (AttemptId, Handle, Option<crate::exec::Refusal>);

impl Line {
    /// `tell` is called on threads of the executor's and on those that call the line; it may call
    /// the line, but not shut it down.
    pub(crate) fn new(
        executor: Executor,
        slots: u32,
        tell: impl Fn(Event, bool) + Send + Sync + 'static,
    ) -> Arc<Line> {
        let slots = u64::from(slots.max(1));
        let (waiting, held) = (VecDeque::new(), HashMap::new());
        let state = Mutex::new(State { slots, used: 0, waiting, held });
        let line = Arc::new(Line { executor, state, tell: Box::new(tell) });
        let watched: Weak<Line> = Arc::downgrade(&line);
        line.executor.set_watch(Box::new(move |task, epoch, note| {
            let Some(line) = watched.upgrade() else { return };
            let id = AttemptId { task: task.into(), epoch };
            if line.lock().held.contains_key(&id) {
                let event = match note {
                    Note::Started(at_ms) => Event::Started { id, at_ms },
                    Note::Paused => Event::Paused(id),
                    Note::Resumed => Event::Resumed(id),
                };
                (line.tell)(event, true);
            }
        }));
        let watched: Weak<Line> = Arc::downgrade(&line);
        line.executor.set_fitness_watch(Box::new(move |reason| {
            if let Some(line) = watched.upgrade() {
                (line.tell)(Event::Unfit(reason.map(ToOwned::to_owned)), true);
            }
        }));
        line
    }

    pub(crate) fn executor(&self) -> &Executor {
        &self.executor
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes how many slots there are; what runs goes on.
    pub(crate) fn set_slots(self: &Arc<Self>, slots: u32) {
        let mut state = self.lock();
        state.slots = u64::from(slots.max(1));
        let launches = self.give(&mut state);
        drop(state);
        self.launch(launches);
    }

    pub(crate) fn start(self: &Arc<Self>, start: Start) {
        let mut state = self.lock();
        if state.held.contains_key(&start.id) {
            return;
        }
        let slots = u64::from(start.spec.slots);
        state.waiting.push_back(start.id.clone());
        let id = start.id.clone();
        state.held.insert(id, Entry { slots, stage: Stage::Waiting { start, paused: false } });
        let launches = self.give(&mut state);
        drop(state);
        self.launch(launches);
    }

    /// Hands those that are next to the executor, as far as slots are free. Strictly in order,
    /// so that one that needs many slots is not passed for ever; one that needs more than there
    /// are runs alone.
    fn give(&self, state: &mut State) -> Vec<Launch> {
        let mut launches = Vec::new();
        let State { slots, used, waiting, held } = state;
        loop {
            let ready = |id: &AttemptId| {
                let stage = held.get(id).map(|entry| &entry.stage);
                !matches!(stage, Some(Stage::Waiting { paused: true, .. }))
            };
            let Some(next) = waiting.iter().position(ready) else { break };
            let Some(entry) = held.get_mut(&waiting[next]) else {
                waiting.remove(next);
                continue;
            };
            if *used > 0 && *used + entry.slots > *slots {
                break;
            }
            let Some(id) = waiting.remove(next) else { break };
            let Stage::Waiting { start, .. } = &mut entry.stage else { continue };
            let (spec, env) = (Arc::clone(&start.spec), std::mem::take(&mut start.env));
            let (handle, refused) =
                self.executor.enter(&id.task, id.epoch, spec, &start.worker, env);
            *used += entry.slots;
            entry.stage = Stage::Given(handle.clone());
            launches.push((id, handle, refused));
        }
        launches
    }

    fn launch(self: &Arc<Self>, launches: Vec<Launch>) {
        for (id, handle, refused) in launches {
            let line = Arc::clone(self);
            let done = Box::new(move |ended| line.finished(&id, ended));
            self.executor.launch(&handle, refused, done);
        }
    }

    fn finished(self: &Arc<Self>, id: &AttemptId, ended: TaskOutcome) {
        let mut state = self.lock();
        // It stays held until it is reported: a query meanwhile must not miss it.
        let State { used, held, .. } = &mut *state;
        if let Some(entry) = held.get_mut(id) {
            *used -= std::mem::take(&mut entry.slots);
        }
        let launches = self.give(&mut state);
        let starving = (state.waiting.len() as u64) < state.slots;
        drop(state);
        self.launch(launches);
        // What went wrong, or was asked for, somebody may wait for.
        let hurry = starving || ended.kind != OutcomeKind::Succeeded;
        (self.tell)(Event::Finished(ended), hurry);
        self.lock().held.remove(id);
    }

    /// Drops one that waits; false if it does not.
    fn drop_waiting(self: &Arc<Self>, id: &AttemptId, why: Unbegun) -> bool {
        let mut state = self.lock();
        if !matches!(state.held.get(id), Some(Entry { stage: Stage::Waiting { .. }, .. })) {
            return false;
        }
        state.held.remove(id);
        state.waiting.retain(|waiting| waiting != id);
        // It may have been what held up the others.
        let launches = self.give(&mut state);
        drop(state);
        self.launch(launches);
        (self.tell)(Event::Finished(never_begun(&id.task, id.epoch, why)), true);
        true
    }

    fn handle(&self, id: &AttemptId) -> Option<Handle> {
        match self.lock().held.get(id) {
            Some(Entry { stage: Stage::Given(handle), .. }) => Some(handle.clone()),
            _ => None,
        }
    }

    pub(crate) fn stop(self: &Arc<Self>, id: &AttemptId, kind: StopKind) {
        let why = match kind {
            StopKind::Cancel => Unbegun::Cancelled,
            StopKind::Interrupt => Unbegun::Stopped,
        };
        if !self.drop_waiting(id, why)
            && let Some(handle) = self.handle(id)
        {
            handle.stop(kind);
        }
    }

    pub(crate) fn recall(self: &Arc<Self>, id: &AttemptId) {
        if !self.drop_waiting(id, Unbegun::Recalled)
            && let Some(handle) = self.handle(id)
        {
            handle.recall();
        }
    }

    pub(crate) fn pause(self: &Arc<Self>, id: &AttemptId, pause: bool) {
        let mut state = self.lock();
        match state.held.get_mut(id).map(|entry| &mut entry.stage) {
            Some(Stage::Waiting { paused, .. }) if *paused != pause => {
                *paused = pause;
                let launches = self.give(&mut state);
                drop(state);
                self.launch(launches);
                let id = id.clone();
                (self.tell)(if pause { Event::Paused(id) } else { Event::Resumed(id) }, true);
            }
            Some(Stage::Given(handle)) => {
                let handle = handle.clone();
                drop(state);
                if pause { handle.pause() } else { handle.resume() }
            }
            _ => {}
        }
    }

    pub(crate) fn signal(&self, id: &AttemptId, signal: Signal) {
        if let Some(handle) = self.handle(id) {
            handle.signal(signal);
        }
    }

    /// Returns whether the attempt waits or runs.
    pub(crate) fn holds(&self, id: &AttemptId) -> bool {
        self.lock().held.contains_key(id)
    }

    /// Returns all waiting and running attempts.
    pub(crate) fn held(&self) -> Vec<HeldAttempt> {
        let state = self.lock();
        let held = state.held.iter().map(|(id, entry)| match &entry.stage {
            Stage::Waiting { paused, .. } => {
                HeldAttempt { id: id.clone(), started_at_ms: None, paused: *paused }
            }
            Stage::Given(handle) => HeldAttempt {
                id: id.clone(),
                started_at_ms: handle.started_at_ms(),
                paused: handle.is_paused(),
            },
        });
        held.collect()
    }

    /// Returns the number of waiting and running attempts.
    pub(crate) fn len(&self) -> usize {
        self.lock().held.len()
    }

    pub(crate) fn shutdown(self: &Arc<Self>, kind: StopKind) {
        self.stop_waiting(kind);
        self.executor.shutdown(kind);
    }

    /// Shuts down immediately.
    pub(crate) fn abandon(self: &Arc<Self>) {
        self.stop_waiting(StopKind::Interrupt);
        self.executor.abandon();
    }

    fn stop_waiting(self: &Arc<Self>, kind: StopKind) {
        let waiting: Vec<AttemptId> = self.lock().waiting.iter().cloned().collect();
        // From the last: nothing becomes free for those that are given back after it.
        waiting.iter().rev().for_each(|id| self.stop(id, kind));
    }
}
