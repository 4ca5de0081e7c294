//! A worker that comes with the name of another store: a machine that lost its disk, a container or
//! spot instance that is started again; or two workers with one name by mistake.
//!
//! A name is one store's at a time. A newcomer gets it once the former store is not connected and,
//! where that holds tasks, has been away for a while, so that a link that drops for a moment hands
//! nothing over. Then the former store's attempts are lost, as with a worker that does not know them
//! any more; what it still says is fenced like everything late. Until then the newcomer waits.

use super::coordinator::Coordinator;
use crate::scheduler::WorkerKey;
use crate::{AttemptId, Millis, Now};
use outlast_model::Cause;
use outlast_model::message::Hello;

/// A store that holds tasks must have been away for so long before another takes its name.
const AWAY: Millis = 30_000;

impl Coordinator {
    /// Explains why the name of a connecting worker is not available for now.
    pub(super) fn name_is_taken(&self, now: Now, hello: &Hello) -> Option<String> {
        let other = self.fleet.get(self.fleet.by_name(&hello.worker_id)?);
        if *other.row.store_id == *hello.store_id {
            return None;
        }
        let name = &hello.worker_id;
        if other.link.conn.is_some() {
            return Some(format!(
                "the name {name} belongs to another worker, with another state folder, that is \
                 connected; this one waits until that has left. If both are to run, give this one \
                 another name"
            ));
        }
        let away = now.mono.saturating_sub(other.link.gone);
        if other.held.attempts.is_empty() || away >= AWAY {
            return None;
        }
        Some(format!(
            "the name {name} belongs to another worker, with another state folder, that holds tasks \
             and was connected {} s ago; this one takes its place if that does not return within \
             {} s (`outlast workers forget {name}`: at once)",
            away / 1000,
            (AWAY - away).div_ceil(1000)
        ))
    }

    /// Another store has the name now: what the former one held is lost.
    pub(super) fn replace_store(&mut self, now: Now, key: WorkerKey) {
        let member = self.fleet.get(key);
        let reason = format!("worker {} came back with an empty state folder", member.row.name);
        let held: Vec<AttemptId> = member.held.attempts.keys().cloned().collect();
        for id in held {
            self.fleet.get_mut(key).drop_attempt(&id);
            if self.tasks.get(&id.task).is_some_and(|t| t.is_current(key, id.epoch)) {
                self.lose(now, &id.task, &reason, Cause::Lost, None);
            }
        }
        self.forget(now, key);
    }
}
