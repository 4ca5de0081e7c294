//! Delays: a task that waits for its retry is not assigned before its time.

use outlast_core::TaskId;
use outlast_core::records::CoordRecord;
use std::collections::BTreeMap;

/// Tasks that wait for their retry, with the times from which they may be assigned.
#[derive(Default)]
pub(crate) struct Delays {
    earliest: BTreeMap<TaskId, Earliest>,
}

/// A time in true milliseconds, by a wall clock that was this far off.
struct Earliest {
    at: u64,
    skew: i64,
    synced: bool,
}

impl Delays {
    /// The coordinator crashed: decisions that were not synced are gone.
    pub fn coord_crashed(&mut self) {
        self.earliest.retain(|_, e| e.synced);
    }

    /// An operator does not want the task to wait.
    pub fn end(&mut self, id: &TaskId) {
        self.earliest.remove(id);
    }

    /// The decision that this task waits is durable.
    pub fn synced(&mut self, id: &TaskId) {
        if let Some(wait) = self.earliest.get_mut(id) {
            wait.synced = true;
        }
    }

    /// Notes what the coordinator decided, and returns what is wrong with it. `newest` gives a task's
    /// newest attempt.
    pub fn decided(
        &mut self,
        (now, skew): (u64, i64),
        records: &[CoordRecord],
        newest: impl Fn(&TaskId) -> Option<u64>,
    ) -> Option<String> {
        let mut wrong = None;
        for record in records {
            match record {
                CoordRecord::Recovered { task, decision, .. } if decision.delay_ms > 0 => {
                    let at = now + decision.delay_ms;
                    self.earliest.insert(task.clone(), Earliest { at, skew, synced: false });
                }
                CoordRecord::Requeued { task, .. } | CoordRecord::Retried { task, .. } => {
                    self.end(task);
                }
                CoordRecord::TasksRemoved { tasks, .. } => {
                    tasks.iter().for_each(|task| self.end(task));
                }
                CoordRecord::Assigned { task, epoch, .. } => {
                    let Some(wait) = self.earliest.remove(task) else { continue };
                    // Its worker runs it still: then there is nothing to wait for.
                    let readopted = newest(task) == Some(*epoch);
                    if now + 1 < wait.at && wait.skew == skew && !readopted {
                        let early = wait.at - now;
                        wrong.get_or_insert(format!(
                            "{task} was given out {early} ms before its time"
                        ));
                    }
                }
                _ => {}
            }
        }
        wrong
    }
}
