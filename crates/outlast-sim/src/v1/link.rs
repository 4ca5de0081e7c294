//! The links of workers of the v1 dialect: dials, heartbeats, and messages both ways.

use super::peer::{BEAT, DIALS, REST, V1Event, V1Link};
use crate::Bug;
use crate::event::Event;
use crate::world::World;
use outlast_core::AttemptId;
use outlast_model::LinkCause;
use outlast_wire::Bytes;
use outlast_wire::v1::{FromWorker, ToWorker, parse};
use rand::Rng;
use rand::seq::SliceRandom;
use serde_json::{Value, json};

impl World {
    /// Plans an event of these workers.
    pub fn later(&mut self, after: u64, event: V1Event) {
        self.at(self.now + after, Event::V1(event));
    }

    /// The workers start.
    pub fn start_v1(&mut self) {
        for j in 0..self.v1.peers.len() {
            self.later(10, V1Event::Dial(j, 0));
            self.later(BEAT.0, V1Event::Watch(j, 0));
        }
        if !self.v1.peers.is_empty() {
            self.later(1_000, V1Event::Strike);
        }
    }

    /// Carries out an event of these workers.
    pub fn on_v1_event(&mut self, event: V1Event) {
        match event {
            V1Event::Up(link, text) => self.v1_arrives(link, &text),
            V1Event::Pong(link, seq)
                if self.v1.links.get(&link).is_some_and(|l| l.life == self.coord.life) =>
            {
                self.feed_coord(|core, now| core.on_pong(now, link, seq));
            }
            V1Event::Down(link, message) => {
                if let Some(j) = self.v1.peers.iter().position(|p| p.has(link)) {
                    let beat = matches!(*message, ToWorker::Heartbeat { .. });
                    if beat || !self.v1.peers[j].twofold {
                        self.v1.peers[j].heard = self.now;
                    }
                    self.v1_hears(j, *message);
                }
            }
            V1Event::Closed(link, true) => {
                self.v1.links.remove(&link);
                let cause = LinkCause::Closed;
                self.feed_coord(|core, now| core.on_close(now, link, cause, "the link ended"));
            }
            V1Event::Closed(link, false) => {
                if let Some(j) = self.v1.peers.iter().position(|p| p.has(link)) {
                    self.v1_lost(j, link);
                }
            }
            V1Event::Dial(j, life) if self.v1_lives(j, life) => self.v1_dials(j),
            V1Event::Watch(j, life) if self.v1_lives(j, life) && self.v1.peers[j].twofold => {
                if self.now >= self.v1.peers[j].heard + BEAT.1 {
                    self.say(|| format!("v1 worker {j} opens a second link"));
                    self.v1_dials(j);
                } else {
                    self.v1_beats(j);
                }
                self.later(BEAT.0, V1Event::Watch(j, life));
            }
            V1Event::Beat(j, link)
                if self.v1.peers[j].link == Some(link) && !self.v1.peers[j].twofold =>
            {
                if self.now >= self.v1.peers[j].heard + BEAT.1 {
                    self.v1_hangs_up(j);
                } else {
                    self.v1_beats(j);
                    self.later(BEAT.0, V1Event::Beat(j, link));
                }
            }
            V1Event::Ends(j, life, run) if self.v1_lives(j, life) => self.v1_ends(j, run),
            V1Event::Reports(j, life, run) if self.v1_lives(j, life) => self.v1_reports(j, run),
            V1Event::Start(j) if !self.v1.peers[j].alive => {
                self.v1.peers[j].alive = true;
                let life = self.v1.peers[j].life;
                self.later(1, V1Event::Dial(j, life));
                self.later(BEAT.0, V1Event::Watch(j, life));
            }
            V1Event::Strike if !self.healed => self.v1_strike(),
            _ => {}
        }
    }

    fn v1_lives(&self, j: usize, life: u32) -> bool {
        self.v1.peers[j].alive && self.v1.peers[j].life == life
    }

    pub(super) fn v1_dials(&mut self, j: usize) {
        let life = self.v1.peers[j].life;
        let twofold = self.v1.peers[j].twofold;
        if (self.v1.peers[j].link.is_some() && !twofold) || !self.v1.peers[j].alive {
            return;
        }
        if self.healed {
            self.v1_counts_dial(j);
        }
        if self.v1.peers[j].refused_until > self.now || self.coord.machine.is_none() {
            let after = self.v1.rng.random_range(500..4_000);
            return self.later(after, V1Event::Dial(j, life));
        }
        self.last_link += 1;
        let link = self.last_link;
        let now = self.now;
        let new = V1Link {
            peer: j,
            life: self.coord.life,
            open: false,
            mute_up: false,
            mute_down: false,
            last_up: now,
            last_down: now,
        };
        self.v1.links.insert(link, new);
        self.v1.owners.insert(link, j);
        let peer = &mut self.v1.peers[j];
        peer.others.extend(peer.link.take());
        (self.v1.peers[j].link, self.v1.peers[j].heard) = (Some(link), now);
        self.say(|| format!("v1 worker {j} dials on link {link}"));
        self.v1_resumes(j);
        self.later(BEAT.0, V1Event::Beat(j, link));
    }

    /// Once everything works links come to rest.
    fn v1_counts_dial(&mut self, j: usize) {
        let (now, from) = (self.now, self.heal_at + REST);
        let dialled = &mut self.v1.peers[j].dialled;
        dialled.push(now);
        let since = now.saturating_sub(DIALS.0).max(from);
        let lately = dialled.iter().filter(|at| **at >= since).count();
        if lately > DIALS.1 {
            let s = DIALS.0 / 1000;
            let text = format!("I8: v1 worker {j} dialled {lately} times within {s} s of calm");
            self.oracle.fail(text);
        }
    }

    /// Registration, results, states, a heartbeat; in another order, or twice, now and then.
    pub(super) fn v1_resumes(&mut self, j: usize) {
        let mut all = vec![json!({ "type": "registration", "capabilities": { "slots": 2 } })];
        all.extend(self.v1.peers[j].results.values().cloned());
        for task in self.v1.peers[j].active.keys() {
            all.push(json!({ "type": "task_state", "task_id": &**task, "state": { "back": 1 } }));
        }
        all.extend(self.v1.peers[j].unkept.values().cloned());
        if self.v1.rng.random_bool(0.3) {
            all.extend(self.v1.peers[j].results.values().cloned().collect::<Vec<_>>());
        }
        if self.v1.rng.random_bool(0.2) {
            all.shuffle(&mut self.v1.rng);
        }
        for message in all {
            self.v1_says(j, &message);
        }
        if self.v1.rng.random_bool(0.7) {
            self.v1_beats(j);
        }
    }

    fn v1_beats(&mut self, j: usize) {
        let active: Vec<&str> = self.v1.peers[j].active.keys().map(|t| &**t).collect();
        let beat = json!({ "type": "heartbeat", "sequence": self.now, "active_tasks": active });
        self.v1_says(j, &beat);
    }

    /// A worker sends.
    pub fn v1_says(&mut self, j: usize, message: &Value) {
        let Some(link) = self.v1.peers[j].link else { return };
        let late = self.v1.rng.random_range(0..=self.latency);
        let now = self.now;
        let Some(l) = self.v1.links.get_mut(&link).filter(|l| !l.mute_up) else { return };
        l.last_up = l.last_up.max(now + late);
        let (at, text) = (l.last_up, message.to_string());
        self.at(at, Event::V1(V1Event::Up(link, text)));
    }

    fn v1_arrives(&mut self, link: u64, text: &str) {
        let life = self.coord.life;
        let Some(state) = self.v1.links.get_mut(&link).filter(|l| l.life == life) else { return };
        let name = self.v1.peers[state.peer].name.clone();
        let peer = state.peer;
        if !std::mem::replace(&mut state.open, true) {
            self.feed_coord(|core, now| core.on_open_v1(now, link, &name));
        }
        let message = match parse(text, &name) {
            Ok(message) => message,
            Err(error) => {
                self.oracle.fail(format!("v1: {text}: {error}"));
                return;
            }
        };
        if self.bug == Some(Bug::V1AcksAtOnce)
            && let FromWorker::TaskResult { task_id, .. } = &message
        {
            let ack = ToWorker::ResultAck { task_id: task_id.clone() };
            self.v1_sends(link, ack);
        }
        let mut blob = None;
        if let FromWorker::CheckpointData { task_id, checkpoint_id, data } = &message {
            let name = format!("{task_id}/{checkpoint_id}/{peer}");
            let manifest = [name.as_bytes(), b"/", data].concat();
            let sent = (link, task_id.clone(), checkpoint_id.clone(), manifest.clone());
            self.v1.peers[peer].data.push_back(sent);
            let mixes = self.bug == Some(Bug::V1MixesAttempts);
            let first = self.v1.named.entry(name).or_insert_with(|| manifest.clone());
            let manifest = if mixes { first.clone() } else { manifest };
            self.blobs.insert(manifest.clone(), self.now);
            blob = Some(Bytes::from(manifest));
        }
        self.feed_coord(|core, now| core.on_v1(now, link, message, blob));
    }

    /// The coordinator sends on a link of this dialect.
    pub fn v1_sends(&mut self, link: u64, message: ToWorker) {
        let Some(peer) = self.v1.owners.get(&link).copied() else { return };
        let store = self.v1.peers[peer].store.clone();
        match &message {
            ToWorker::ResultAck { task_id } => {
                let known = self.coord.store.attempts(task_id, &store);
                // Of a task that was removed meanwhile nothing is left.
                let removed = self.coord.store.former(task_id) > 0;
                // Of an answer that it runs, to a task that is not the worker's any more.
                let no_result = self.v1.peers[peer].accepts;
                if known.iter().all(|a| a.outcomes.is_empty()) && !removed && !no_result {
                    let text = format!(
                        "I2: {store} had an acknowledgement of {task_id}, which is not kept"
                    );
                    self.oracle.fail(text);
                }
            }
            ToWorker::CheckpointDataAck { task_id, checkpoint_id } => {
                let (_, kept) = self.coord.store.committed_told(task_id);
                let removed = self.coord.store.former(task_id) > 0;
                // The data itself, not another attempt's of that name.
                let is_kept = |blob: &[u8]| kept.iter().any(|c| c.manifest == blob);
                let known = self.v1.peers[peer].acknowledged(task_id, checkpoint_id, is_kept);
                if !known && !removed {
                    let text = format!(
                        "I4: {checkpoint_id} of {task_id} was acknowledged, and is not kept"
                    );
                    self.oracle.fail(text);
                }
            }
            ToWorker::Error { task_id: Some(task_id), .. } => {
                self.v1.peers[peer].refused(task_id);
            }
            ToWorker::TaskAssignment { task_id, attempt, checkpoint, .. } => {
                self.say(|| format!("link {link} assigns {task_id}.{attempt} to {store}"));
                let task = task_id.as_str().into();
                self.oracle.assignment(AttemptId { task, epoch: *attempt });
                if let Some(from) = checkpoint {
                    let c = self.coord.store.checkpoints(task_id);
                    let c = c.into_iter().map(|(c, _)| c).find(|c| c.manifest == from.manifest);
                    if let Some(c) = c {
                        self.oracle.goes_on_from(&c, &self.coord.store, &self.blobs);
                    }
                }
            }
            ToWorker::RegistrationAck { .. } if self.bug == Some(Bug::V1EndsFormer) => {
                let others = self.v1.links.iter().filter(|(id, l)| l.peer == peer && **id != link);
                let others: Vec<u64> = others.map(|(id, _)| *id).collect();
                for former in others {
                    self.v1_closes(former);
                    self.later(0, V1Event::Closed(former, true));
                }
            }
            _ => {}
        }
        let late = self.v1.rng.random_range(0..=self.latency);
        let now = self.now;
        let Some(l) = self.v1.links.get_mut(&link).filter(|l| !l.mute_down) else { return };
        l.last_down = l.last_down.max(now + late);
        let at = l.last_down;
        self.at(at, Event::V1(V1Event::Down(link, Box::new(message))));
    }

    /// The coordinator pings.
    pub fn v1_pings(&mut self, link: u64, seq: u64) {
        let round = 2 * self.latency;
        let Some(l) = self.v1.links.get(&link) else { return };
        if !l.mute_down && !l.mute_up {
            self.later(round, V1Event::Pong(link, seq));
        }
    }

    /// The coordinator closes a link. Returns whether it is one of this dialect.
    pub fn v1_closes(&mut self, link: u64) -> bool {
        let Some(l) = self.v1.links.get_mut(&link) else { return false };
        let (muted, at) = (l.mute_down, l.last_down);
        l.life = 0;
        if !muted {
            self.at(at, Event::V1(V1Event::Closed(link, false)));
        }
        true
    }

    pub(super) fn v1_breaks(&mut self, link: u64) {
        let Some(l) = self.v1.links.get_mut(&link) else { return };
        (l.mute_up, l.mute_down) = (true, true);
        let after = self.latency;
        self.later(after, V1Event::Closed(link, false));
        self.later(after, V1Event::Closed(link, true));
    }

    /// The coordinator's process is gone: so are its links.
    pub fn v1_orphaned(&mut self) {
        for link in self.v1.links.keys().copied().collect::<Vec<_>>() {
            self.v1_breaks(link);
        }
        self.v1.peers.iter_mut().for_each(|p| p.data.clear());
    }

    fn v1_lost(&mut self, j: usize, link: u64) {
        let life = self.v1.peers[j].life;
        self.v1.peers[j].others.retain(|other| *other != link);
        self.v1.peers[j].link.take_if(|newest| *newest == link);
        let after = self.v1.rng.random_range(100..3_000);
        self.later(after, V1Event::Dial(j, life));
    }

    fn v1_hangs_up(&mut self, j: usize) {
        if let Some(link) = self.v1.peers[j].link {
            let at = self.latency;
            if self.v1.links.get(&link).is_some_and(|l| !l.mute_up) {
                self.later(at, V1Event::Closed(link, true));
            }
            self.v1_lost(j, link);
        }
    }
}
