//! The network between workers and coordinator: dials, messages in order, late or lost, and ends of links.

use crate::event::Event;
use crate::link::Link;
use crate::world::World;
use outlast_model::message::ToCoordinator;
use outlast_wire::v2::body::Kind;
use rand::Rng;

impl World {
    /// The worker that takes this link for its own.
    pub fn believer(&self, link: u64) -> Option<usize> {
        self.workers.iter().position(|w| w.link == Some(link))
    }

    /// A worker dials.
    pub fn dial(&mut self, i: usize) {
        self.last_link += 1;
        let (link, life) = (self.last_link, self.workers[i].peer.life);
        let after = self.rng.random_range(0..=self.latency * 2 + 1);
        self.workers[i].link = Some(link);
        self.at(self.now + after, Event::Dialled(i, life, link));
    }

    /// A worker checks whether the coordinator's address accepts connections.
    pub fn probe(&mut self, i: usize) {
        let life = self.workers[i].peer.life;
        let after = self.rng.random_range(0..=self.latency * 2 + 1);
        self.at(self.now + after, Event::Probed(i, life));
    }

    /// A worker's probe has an answer.
    pub fn on_probed(&mut self, i: usize) {
        let reached = self.refused_until[i] <= self.now && self.coord.machine.is_some();
        self.feed_worker(i, |core, now| core.on_probed(now, reached));
    }

    /// A worker's dial reaches the coordinator's machine.
    pub fn on_dialled(&mut self, i: usize, link: u64) {
        if self.workers[i].link != Some(link) {
            return;
        }
        // A stopped coordinator's kernel still accepts.
        if self.refused_until[i] > self.now || self.coord.machine.is_none() {
            self.workers[i].link = None;
            return self.feed_worker(i, |core, now| core.on_unreachable(now, "refused"));
        }
        self.links.insert(link, Link::new(i, self.coord.life, self.now));
        self.feed_worker(i, |core, now| core.on_connected(now));
    }

    /// A message reaches the coordinator.
    pub fn arrives_up(&mut self, link: u64, kind: Kind) {
        let life = self.coord.life;
        let Some(state) = self.links.get_mut(&link).filter(|l| l.life == life) else { return };
        if !std::mem::replace(&mut state.open, true) {
            self.feed_coord(|core, now| core.on_open(now, link));
        }
        match ToCoordinator::try_from(kind) {
            Ok(message) => {
                let message = self.plant_above(message);
                self.message_coord(link, message);
            }
            Err(error) => self.oracle.fail(format!("a worker's message: {error}")),
        }
    }

    /// Puts a message on the link: in order, late, or nowhere.
    pub fn send(&mut self, link: u64, up: bool, kind: Kind) {
        let late = self.rng.random_range(0..=self.latency);
        let now = self.now;
        let Some(l) = self.links.get_mut(&link) else { return };
        if if up { l.mute_up } else { l.mute_down } {
            return;
        }
        let last = if up { &mut l.last_up } else { &mut l.last_down };
        *last = (*last).max(now + late);
        let at = *last;
        // Through the real framing, now and then: it costs time.
        let kind = if self.rng.random_bool(0.1) {
            match outlast_wire::decode(outlast_wire::encode(kind)) {
                Ok(kind) => kind,
                Err(error) => {
                    self.oracle.fail(format!("framing: {error}"));
                    return;
                }
            }
        } else {
            kind
        };
        self.at(at, Event::Arrives(link, up, Box::new(kind)));
    }

    /// One side closes: the other learns it, unless the link swallows messages.
    pub fn close(&mut self, link: u64, by_coord: bool) {
        let Some(l) = self.links.get(&link) else { return };
        let muted = if by_coord { l.mute_down } else { l.mute_up };
        let at = if by_coord { l.last_down } else { l.last_up };
        if !muted {
            self.at(at, Event::Closed(link, !by_coord));
        }
        if by_coord && let Some(l) = self.links.get_mut(&link) {
            (l.open, l.life) = (false, 0);
        }
    }

    /// The link breaks between the two; without power neither side learns of it.
    pub fn break_link(&mut self, link: u64, silent: bool) {
        let Some(l) = self.links.get_mut(&link) else { return };
        (l.mute_up, l.mute_down) = (true, true);
        if !silent {
            let after = self.latency;
            self.at(self.now + after, Event::Closed(link, false));
            self.at(self.now + after, Event::Closed(link, true));
        }
    }
}
