//! Decide, commit, release: records that are decided and not durable yet, and the outputs that wait for them.
//! Both machines write through one of these; it knows neither's records nor outputs.

use crate::Step;
use crate::invariants::{Checked, must};
use crate::records::Batch;
use std::collections::VecDeque;

/// Records on their way to the disk, in numbered batches, and outputs on their way to the driver.
#[derive(Debug)]
pub(crate) struct Journal<R, O> {
    /// Records decided and not handed out.
    records: Vec<R>,
    /// Number of the batch that they will be.
    open: u64,
    durable: u64,
    ready: VecDeque<O>,
    /// Outputs that are released once their batch is durable.
    held: VecDeque<(u64, O)>,
}

impl<R, O> Default for Journal<R, O> {
    fn default() -> Self {
        let (records, ready, held) = (Vec::new(), VecDeque::new(), VecDeque::new());
        Journal { records, open: 1, durable: 0, ready, held }
    }
}

impl<R, O> Journal<R, O> {
    /// Adds a fact to the open batch.
    pub fn record(&mut self, record: R) {
        self.records.push(record);
    }

    /// Gives an output to the driver at once: it rests on no fact that is not durable.
    pub fn output(&mut self, output: O) {
        self.ready.push_back(output);
    }

    /// Gives an output to the driver as soon as everything decided so far is durable.
    pub fn release(&mut self, output: O) {
        let batch = self.newest();
        match batch <= self.durable {
            true => self.ready.push_back(output),
            false => self.held.push_back((batch, output)),
        }
    }

    /// Releases what waited for this batch and those before it.
    pub fn persisted(&mut self, batch: u64) {
        self.durable = self.durable.max(batch);
        while self.held.front().is_some_and(|(b, _)| *b <= self.durable) {
            self.ready.extend(self.held.pop_front().map(|(_, output)| output));
        }
    }

    /// Returns the next output; once there is none, the open batch.
    pub fn next(&mut self) -> Option<Step<R, O>> {
        if let Some(output) = self.ready.pop_front() {
            return Some(Step::Perform(output));
        }
        if self.records.is_empty() {
            return None;
        }
        let batch = Batch { number: self.open, records: std::mem::take(&mut self.records) };
        self.open += 1;
        Some(Step::Persist(batch))
    }

    /// Returns the number of the batch that a record decided now is part of.
    pub fn open(&self) -> u64 {
        self.open
    }

    /// Returns the batch that must be durable for everything decided so far to be.
    pub fn newest(&self) -> u64 {
        if self.records.is_empty() { self.open - 1 } else { self.open }
    }

    /// Returns the newest batch that is durable, with all before it.
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// Returns true if something was decided and not handed out yet.
    pub fn has_records(&self) -> bool {
        !self.records.is_empty()
    }

    /// Returns the outputs that the driver does not have yet: those that are ready, then those that wait.
    pub fn outputs_mut(&mut self) -> impl Iterator<Item = &mut O> {
        self.ready.iter_mut().chain(self.held.iter_mut().map(|(_, output)| output))
    }

    /// Returns the number of outputs that wait for a batch.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Checks that what is kept until batches above `settled`, oldest first, is in order, and none of it needless.
    pub fn check_waits(
        &self,
        what: &str,
        settled: u64,
        batches: impl Iterator<Item = u64>,
    ) -> Checked {
        let all: Vec<u64> = batches.collect();
        let good = all.is_sorted() && all.iter().all(|b| *b > settled && *b <= self.open);
        must(good, || format!("{what} wait for {all:?}; {settled} is settled"))
    }

    /// Checks the journal's own queue.
    pub fn invariants(&self) -> Checked {
        self.check_waits("outputs", self.durable, self.held.iter().map(|(batch, _)| *batch))
    }
}

#[cfg(test)]
mod tests {
    use super::{Journal, Step};

    #[test]
    fn outputs_wait_for_what_was_decided_before_them() {
        let mut journal: Journal<u8, String> = Journal::default();
        journal.release("nothing was decided".into());
        journal.record(1);
        journal.release("rests on 1".into());
        journal.output("rests on nothing".into());
        let next = |j: &mut Journal<u8, String>| {
            j.next().map(|step| match step {
                Step::Perform(output) => output,
                Step::Persist(b) => format!("persist {} {:?}", b.number, b.records),
            })
        };
        assert_eq!(next(&mut journal).as_deref(), Some("nothing was decided"));
        assert_eq!(next(&mut journal).as_deref(), Some("rests on nothing"));
        assert_eq!(next(&mut journal).as_deref(), Some("persist 1 [1]"));
        journal.record(2);
        journal.release("rests on 2".into());
        assert_eq!((journal.newest(), journal.held()), (2, 2));
        journal.persisted(1);
        journal.invariants().unwrap();
        assert_eq!(next(&mut journal).as_deref(), Some("rests on 1"));
        assert_eq!(next(&mut journal).as_deref(), Some("persist 2 [2]"));
        assert_eq!(next(&mut journal), None);
        journal.persisted(2);
        assert_eq!(next(&mut journal).as_deref(), Some("rests on 2"));
    }
}
