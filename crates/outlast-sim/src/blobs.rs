//! Blobs of checkpoints: uploaded by workers, and collected on both sides.

use crate::Bug;
use crate::event::Event;
use crate::world::World;
use outlast_wire::Bytes;
use rand::Rng;
use std::collections::BTreeSet;

/// Time for which a blob without a reference stays at the coordinator, in virtual milliseconds.
const GRACE: u64 = 60_000;

impl World {
    /// The driver begins an upload, or stops it.
    pub fn on_upload(&mut self, i: usize, manifest: Option<Bytes>) {
        let name = manifest.as_ref().map(|m| String::from_utf8_lossy(m).into_owned());
        self.say(|| format!("worker {i} uploads {name:?}"));
        self.workers[i].upload += 1;
        let (life, upload) = (self.workers[i].peer.life, self.workers[i].upload);
        if let Some(manifest) = manifest {
            let took = self.rng.random_range(1..5_000);
            self.at(self.now + took, Event::Uploaded(i, life, upload, manifest.to_vec()));
        }
    }

    /// An upload reaches its end.
    pub fn on_uploaded(&mut self, i: usize, upload: u64, manifest: Vec<u8>) {
        if self.workers[i].upload != upload {
            return;
        }
        // An upload needs the coordinator as the link does.
        let up = self.coord.machine.is_some() && self.refused_until[i] <= self.now;
        if !up {
            let life = self.workers[i].peer.life;
            return self.at(self.now + 1_000, Event::Uploaded(i, life, upload, manifest));
        }
        if !self.workers[i].blobs.contains(&manifest) {
            // A store that went back behind its copy renumbers what it believes not to be acknowledged, also
            // what was, and is collected.
            if self.oracle.copies.are_of(Some(&self.workers[i].store_id)) {
                let gone = Err("it is not here any more".to_owned());
                return self.feed_worker(i, |core, _| core.on_uploaded(&manifest, gone));
            }
            let name = String::from_utf8_lossy(&manifest).into_owned();
            self.oracle.fail(format!("I4: worker {i} lost the blob {name}"));
        }
        self.blobs.insert(manifest.clone(), self.now);
        self.feed_worker(i, |core, _| core.on_uploaded(&manifest, Ok(())));
    }

    /// Both sides collect blobs that nothing refers to.
    pub fn collect(&mut self) {
        let mut referenced = self.coord.store.referenced();
        let core = self.coord.machine.as_ref();
        referenced.extend(core.into_iter().flat_map(|c| c.unsynced_blobs()).map(|b| b.to_vec()));
        let now = self.now;
        let blind = self.bug == Some(Bug::CollectsReferenced);
        let before: BTreeSet<Vec<u8>> = self.blobs.keys().cloned().collect();
        self.blobs.retain(|m, at| (referenced.contains(m) && !blind) || *at + GRACE > now);
        let gone: Vec<_> = before.into_iter().filter(|m| !self.blobs.contains_key(m)).collect();
        for m in &gone {
            let name = String::from_utf8_lossy(m).into_owned();
            self.say(|| format!("the coordinator's blob {name} is collected"));
        }
        for w in &mut self.workers {
            if let Some(core) = &w.peer.machine {
                let wanted: BTreeSet<Vec<u8>> =
                    core.wanted_blobs().iter().map(|b| b.to_vec()).collect();
                w.blobs.retain(|m| wanted.contains(m));
            }
        }
    }
}
