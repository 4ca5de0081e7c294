//! The faults of workers of the v1 dialect: links are cut, swallow messages and repeat them, processes
//! forget everything.

use super::peer::V1Event;
use crate::world::World;
use rand::Rng;

impl World {
    /// Makes something go wrong.
    pub(super) fn v1_strike(&mut self) {
        let j = self.v1.rng.random_range(0..self.v1.peers.len());
        let all = self.v1.peers[j].others.iter().copied().chain(self.v1.peers[j].link);
        let all: Vec<u64> = all.collect();
        let pick = self.v1.rng.random_range(0..all.len().max(1));
        let link = all.get(pick).copied();
        let time = self.v1.rng.random_range(500..60_000);
        let name = match self.v1.rng.random_range(0..8) {
            0..=2 => {
                link.into_iter().for_each(|link| self.v1_breaks(link));
                "v1 cut"
            }
            3 => {
                let (up, down) =
                    [(true, true), (true, false), (false, true)][self.v1.rng.random_range(0..3)];
                if let Some(l) = link.and_then(|link| self.v1.links.get_mut(&link)) {
                    (l.mute_up, l.mute_down) = (l.mute_up || up, l.mute_down || down);
                }
                "v1 half-open"
            }
            4 => {
                self.v1.peers[j].refused_until = self.now + time;
                all.iter().for_each(|link| self.v1_breaks(*link));
                "v1 partition"
            }
            5 => {
                // The same worker dials again while its former link is still there.
                if !self.v1.peers[j].twofold {
                    self.v1.peers[j].link = None;
                }
                self.v1_dials(j);
                "v1 second link"
            }
            6 => {
                if let Some(link) = self.v1.peers[j].link {
                    self.v1_resumes(j);
                    self.say(|| format!("link {link} says everything again"));
                }
                "v1 repeats"
            }
            _ => {
                let peer = &mut self.v1.peers[j];
                (peer.alive, peer.link, peer.life) = (false, None, peer.life + 1);
                peer.others.clear();
                peer.active.clear();
                peer.results.clear();
                peer.saved.clear();
                peer.unkept.clear();
                peer.zombies.clear();
                // Also those that the process had left open and forgotten.
                let open = self.v1.links.iter().filter(|(_, link)| link.peer == j);
                let open: Vec<u64> = open.map(|(link, _)| *link).collect();
                open.into_iter().for_each(|link| self.v1_breaks(link));
                self.later(time, V1Event::Start(j));
                "v1 worker crash"
            }
        };
        self.say(|| format!("FAULT {name} (v1 worker {j})"));
        self.count(name, 1);
        let next = self.v1.rng.random_range(300..15_000);
        self.later(next, V1Event::Strike);
    }

    /// Ends all faults of these workers.
    pub fn v1_heal(&mut self) {
        for j in 0..self.v1.peers.len() {
            self.v1.peers[j].refused_until = self.now;
            self.later(1, V1Event::Start(j));
        }
    }
}
