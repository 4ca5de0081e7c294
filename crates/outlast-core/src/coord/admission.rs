//! Admission control: after a restart, workers are admitted at a limited rate, each at a time that it is
//! notified of.

use crate::Millis;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Largest number of workers with an admission time; further ones get the last time.
const TURNS: usize = 100_000;
/// Time in milliseconds after which an unused admission time is passed on.
const PATIENCE: Millis = 30_000;
/// Milliseconds by which a worker may be early.
const EARLY: Millis = 20;

/// See the module.
#[derive(Debug)]
pub(super) struct Admission {
    /// Hellos accepted per second, once the burst is used up; 0: no limit.
    per_second: u32,
    burst: u32,
    /// Next free admission time; up to a burst in the past.
    next: i64,
    turns: BTreeMap<Arc<str>, Millis>,
    /// The same by time, to find those that were missed.
    by_time: BTreeMap<(Millis, Arc<str>), ()>,
}

impl Admission {
    pub fn new(per_second: u32, burst: u32) -> Self {
        let (turns, by_time) = (BTreeMap::new(), BTreeMap::new());
        Admission { per_second, burst, next: i64::MIN, turns, by_time }
    }

    /// Admits the worker, or returns the milliseconds until its admission time.
    pub fn ask(&mut self, store: &Arc<str>, now: Millis) -> Result<(), Millis> {
        if self.per_second == 0 {
            return Ok(());
        }
        while let Some(((at, of), ())) = self.by_time.first_key_value()
            && at + PATIENCE < now
        {
            let key = (*at, of.clone());
            self.by_time.remove(&key);
            self.turns.remove(&key.1);
        }
        if let Some(&turn) = self.turns.get(store) {
            if turn > now + EARLY {
                return Err(turn - now);
            }
            self.turns.remove(store);
            self.by_time.remove(&(turn, store.clone()));
            return Ok(());
        }
        let each = 1000.0 / f64::from(self.per_second);
        let (clock, slack) = (now as i64, (f64::from(self.burst) * each) as i64);
        let step = (each.ceil() as i64).max(1);
        // Virtual time: workers are admitted up to a burst ahead of the rate.
        self.next = self.next.max(clock - slack);
        let turn = self.next;
        if turn <= clock {
            self.next = turn + step;
            return Ok(());
        }
        let turn = turn as Millis;
        if self.turns.len() < TURNS {
            self.next += step;
            self.turns.insert(store.clone(), turn);
            self.by_time.insert((turn, store.clone()), ());
        }
        Err(turn - now)
    }

    /// Workers that wait for their turn.
    pub fn waiting(&self) -> usize {
        self.turns.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_let_in_at_its_pace_and_nobody_waits_past_its_turn() {
        let mut a = Admission::new(500, 100);
        let name = |n: u64| -> Arc<str> { format!("s{n}").into() };
        let mut back: Vec<(Millis, u64)> = Vec::new();
        let mut let_in = 0;
        for n in 0..10_000 {
            match a.ask(&name(n), 1_000_000) {
                Ok(()) => let_in += 1,
                Err(after) => back.push((after, n)),
            }
        }
        assert!((90..=110).contains(&let_in), "{let_in}");
        back.sort_unstable();
        for (place, (after, n)) in back.iter().enumerate() {
            let fair = (place as u64 + 1) * 2;
            assert!(*after <= fair * 2 + 2, "place {place} waits {after} ms");
            // Early is too early, on time is in time.
            assert!(*after < 50 || a.ask(&name(*n), 1_000_000 + after / 2).is_err());
            assert_eq!(a.ask(&name(*n), 1_000_000 + after), Ok(()));
        }
        assert_eq!(a.waiting(), 0);
    }

    #[test]
    fn missed_turns_are_forgotten() {
        let mut a = Admission::new(10, 1);
        for n in 0..50 {
            let _ = a.ask(&format!("s{n}").into(), 0);
        }
        assert!(a.waiting() > 40);
        let _ = a.ask(&"late".into(), 100_000);
        assert_eq!(a.waiting(), 0);
    }

    #[test]
    fn turns_that_are_remembered_have_a_limit() {
        let mut a = Admission::new(1, 1);
        (0..TURNS + 10).for_each(|n| _ = a.ask(&n.to_string().into(), 0));
        assert_eq!(a.waiting(), TURNS);
    }
}
