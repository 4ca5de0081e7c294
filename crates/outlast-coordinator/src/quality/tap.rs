//! The tap: measures one link's frames (sizes, heartbeats, errors). Counts for the worker from its welcome
//! on; what came before is added then.

use super::meters::{Entry, Quality};
use crate::clock;
use outlast_core::coord::ConnId;
use outlast_core::quality::{Beat, Size};
use outlast_wire::v2::body::Kind;
use parking_lot::Mutex;
use std::sync::{Arc, OnceLock};

#[derive(Default)]
struct Before {
    store_id: Option<String>,
    up: Vec<Size>,
}

/// The tap of one link.
pub(crate) struct Tap {
    quality: Arc<Quality>,
    conn: ConnId,
    entry: OnceLock<Arc<Entry>>,
    before: Mutex<Before>,
}

/// Frames before the welcome that are remembered: a hello and an inventory of a million attempts
/// have no more.
const FRAMES: usize = 4096;

impl Tap {
    pub fn new(quality: Arc<Quality>, conn: ConnId) -> Tap {
        Tap { quality, conn, entry: OnceLock::new(), before: Mutex::default() }
    }

    /// Returns the heartbeat or the reply that a frame is.
    pub fn beat(kind: &Kind) -> Beat {
        match kind {
            Kind::Heartbeat(beat) => Beat::Beat(beat.seq),
            Kind::HeartbeatReply(reply) => Beat::Reply(reply.seq),
            _ => Beat::None,
        }
    }

    pub fn received(&self, kind: &Kind, size: Size) {
        if let (Kind::Hello(hello), None) = (kind, self.entry.get()) {
            self.of(&hello.store_id);
        }
        self.arrived(size, Tap::beat(kind));
        if let (Kind::Heartbeat(beat), Some(entry)) = (kind, self.entry.get()) {
            entry.meter().expect(beat.interval_ms);
        }
    }

    /// Names the worker of the link.
    pub fn of(&self, store_id: &str) {
        let mut before = self.before.lock();
        before.store_id.get_or_insert_with(|| store_id.to_owned());
    }

    pub fn arrived(&self, size: Size, beat: Beat) {
        if let Some(entry) = self.entry.get() {
            return entry.meter().received(clock::micros(), self.conn, size, beat);
        }
        let mut before = self.before.lock();
        if before.up.len() < FRAMES {
            before.up.push(size);
        }
    }

    pub fn malformed(&self) {
        if let Some(entry) = self.entry.get() {
            entry.meter().errored();
        }
    }

    /// `welcome`: it is the one.
    pub fn sent(&self, size: Size, beat: Beat, welcome: bool) {
        if welcome {
            self.attach();
        }
        if let Some(entry) = self.entry.get() {
            entry.meter().sent(clock::micros(), self.conn, size, beat);
        }
    }

    /// Attaches to the worker's meter once it is accepted: the core has reported it before.
    fn attach(&self) {
        let before = std::mem::take(&mut *self.before.lock());
        let Some(entry) = before.store_id.and_then(|id| self.quality.entry(&id)) else { return };
        let mut meter = entry.meter();
        for size in before.up {
            meter.received(clock::micros(), self.conn, size, Beat::None);
        }
        drop(meter);
        let _ = self.entry.set(entry);
    }
}
