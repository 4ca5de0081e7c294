//! A machine with the performer of its outputs.

use crate::group::{Decided, Pace};
use outlast_core::records::Batch;
use outlast_core::{Machine, Now, Step, Wake};
use std::ops::Deref;
use std::time::Duration;

/// Performer of what a machine puts out. None of these functions may wait for a disk or a link.
pub trait Effects<M: Machine> {
    /// Carries out an output, or queues it for somebody who may wait.
    fn perform(&mut self, machine: &M, output: M::Output);

    /// Returns how long a batch that was decided now may wait for others.
    fn pace(&self, machine: &M, batch: &Batch<M::Record>) -> Pace;

    /// Called when the machine has nothing more to put out. Returns true if the machine was fed again, with
    /// what performing its outputs led to.
    fn settled(&mut self, _machine: &mut M, _decided: &Decided<M::Record>) -> bool {
        false
    }
}

/// A machine, its effects, and the queue that its batches go to.
#[derive(Debug)]
pub struct Engine<M: Machine, E> {
    machine: M,
    effects: E,
    decided: Decided<M::Record>,
}

impl<M: Machine, E: Effects<M>> Engine<M, E> {
    /// An engine that has not begun: what the machine puts out first comes with the first input.
    pub fn new(machine: M, effects: E, decided: Decided<M::Record>) -> Self {
        Engine { machine, effects, decided }
    }

    /// Feeds the machine, and carries out its outputs in order. Returns what `input` does.
    pub fn feed<T>(&mut self, input: impl FnOnce(&mut M, &mut E) -> T) -> T {
        let done = input(&mut self.machine, &mut self.effects);
        loop {
            while let Some(step) = self.machine.poll() {
                match step {
                    Step::Persist(batch) => {
                        let pace = self.effects.pace(&self.machine, &batch);
                        self.decided.push(batch, pace);
                    }
                    Step::Perform(output) => self.effects.perform(&self.machine, output),
                }
            }
            if !self.effects.settled(&mut self.machine, &self.decided) {
                return done;
            }
        }
    }

    /// Returns the time until the machine is to be woken, at most `longest`.
    pub fn sleep(&self, now: Now, longest: Duration) -> Duration {
        Duration::from_millis(self.machine.next_wake().at.saturating_sub(now.mono)).min(longest)
    }

    /// Wakes the machine if it is time.
    pub fn wake(&mut self, now: Now) {
        let Wake { at, why } = self.machine.next_wake();
        if at <= now.mono {
            tracing::trace!(?why, "the core wakes");
            self.feed(|machine, _| machine.on_tick(now));
        }
    }

    /// Returns the performer of its outputs.
    pub fn effects(&mut self) -> &mut E {
        &mut self.effects
    }

    /// Closes the queue of batches; those in it are still written.
    pub fn close(&self) {
        self.decided.close();
    }
}

/// The machine, to be read; it changes only by [`Engine::feed`].
impl<M: Machine, E> Deref for Engine<M, E> {
    type Target = M;
    fn deref(&self) -> &M {
        &self.machine
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::group;
    use outlast_core::Millis;
    use std::collections::VecDeque;

    /// Puts out what it is fed, and a batch for each even number.
    #[derive(Default)]
    struct Echo {
        out: VecDeque<Step<u8, u8>>,
        batches: u64,
        due: Millis,
    }

    impl Echo {
        fn on(&mut self, n: u8) {
            if n.is_multiple_of(2) {
                self.batches += 1;
                self.out.push_back(Step::Persist(Batch { number: self.batches, records: vec![n] }));
            }
            self.out.push_back(Step::Perform(n));
        }
    }

    impl Machine for Echo {
        type Record = u8;
        type Output = u8;
        type Timer = ();
        fn poll(&mut self) -> Option<Step<u8, u8>> {
            self.out.pop_front()
        }
        fn next_wake(&self) -> Wake<()> {
            Wake { at: self.due, why: () }
        }
        fn on_tick(&mut self, now: Now) {
            self.due = now.mono + 1_000;
            self.on(101);
        }
    }

    /// Performs nothing: it notes what it should perform, and feeds 7 once more where it sees 5.
    #[derive(Default)]
    struct Noted(Vec<u8>);

    impl Effects<Echo> for Noted {
        fn perform(&mut self, _: &Echo, output: u8) {
            self.0.push(output);
        }
        fn pace(&self, _: &Echo, _: &Batch<u8>) -> Pace {
            Pace::AT_ONCE
        }
        fn settled(&mut self, machine: &mut Echo, _: &Decided<u8>) -> bool {
            let again = self.0.last() == Some(&5);
            if again {
                machine.on(7);
            }
            again
        }
    }

    #[test]
    fn outputs_are_carried_out_in_order_until_there_are_none() {
        let (decided, mut written) = group(1);
        let mut engine = Engine::new(Echo::default(), Noted::default(), decided);
        engine.feed(|echo, _| [2, 3, 4, 5].into_iter().for_each(|n| echo.on(n)));
        assert_eq!(engine.effects().0, [2, 3, 4, 5, 7]);
        engine.close();
        let numbers: Vec<u64> = written.take().unwrap().iter().map(|b| b.number).collect();
        assert_eq!((numbers, engine.batches), (vec![1, 2], 2));
    }

    #[test]
    fn it_is_woken_when_it_is_time_and_not_before() {
        let (decided, _written) = group(1);
        let mut engine =
            Engine::new(Echo { due: 50, ..Echo::default() }, Noted::default(), decided);
        let at = |mono| Now { mono, wall: 0 };
        let longest = Duration::from_millis(30);
        assert_eq!(engine.sleep(at(40), longest), Duration::from_millis(10));
        assert_eq!(engine.sleep(at(0), longest), longest);
        assert_eq!(engine.sleep(at(60), longest), Duration::ZERO);
        engine.wake(at(49));
        assert!(engine.effects().0.is_empty());
        engine.wake(at(50));
        assert_eq!((engine.effects().0.len(), engine.due), (1, 1_050));
    }
}
