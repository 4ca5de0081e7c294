//! Retention of a task's checkpoints: a pure rule, the same everywhere.

use crate::Epoch;
use outlast_model::Checkpoint;
use outlast_model::spec::KeepCheckpoints;
use std::sync::Arc;

/// The most checkpoints of one task that are kept, whatever its rule says.
pub const MAX_KEPT: usize = 1000;

/// Returns those of `all` (by epoch and number, oldest first) that the rule does not keep.
///
/// The rule keeps the newest `last`, and the first one in each `every` seconds, counted from the Unix
/// epoch, so that the choice does not depend on when it is made. The newest is always kept.
pub fn prunable(all: &[Arc<Checkpoint>], rule: &KeepCheckpoints) -> Vec<(Epoch, u64)> {
    let last = (rule.last.max(1) as usize).min(MAX_KEPT);
    let older = &all[..all.len().saturating_sub(last)];
    let window = rule.every.map(|s| (s * 1000.0) as i64).filter(|ms| *ms > 0);
    let mut seen = None;
    let mut gone: Vec<(Epoch, u64)> = Vec::new();
    let mut kept = Vec::new();
    for c in older {
        let bucket = window.map(|ms| c.created_at_ms.div_euclid(ms));
        if bucket.is_some() && bucket != seen {
            seen = bucket;
            kept.push((c.epoch, c.number));
        } else {
            gone.push((c.epoch, c.number));
        }
    }
    let excess = (kept.len() + last).saturating_sub(MAX_KEPT);
    gone.extend(kept.drain(..excess));
    gone
}

/// Puts a checkpoint into its place among those of its task, by (epoch, number). Returns the one that is there: of two
/// with one number, as copies of a state folder make them, the first.
pub(crate) fn keep(kept: &mut Vec<Arc<Checkpoint>>, new: &Arc<Checkpoint>) -> Arc<Checkpoint> {
    let at = kept.binary_search_by_key(&new.place(), |c| c.place());
    let at = at.unwrap_or_else(|at| {
        kept.insert(at, new.clone());
        at
    });
    kept[at].clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(number: u64, created_at_ms: i64) -> Arc<Checkpoint> {
        Arc::new(Checkpoint { epoch: 1, number, created_at_ms, ..Default::default() })
    }

    #[test]
    fn the_last_and_the_first_of_each_interval_stay() {
        let all: Vec<_> = (1..=10).map(|n| at(n, n as i64 * 10_000)).collect();
        let rule = KeepCheckpoints { last: 3, every: None, failed: true };
        let gone = prunable(&all, &rule);
        assert_eq!(gone, (1..=7).map(|n| (1, n)).collect::<Vec<_>>());
        let rule = KeepCheckpoints { last: 2, every: Some(30.0), failed: true };
        // 10 and 20 s are of the first half minute, 30 to 50 of the second, 60 to 80 of the third.
        assert_eq!(prunable(&all, &rule), [(1, 2), (1, 4), (1, 5), (1, 7), (1, 8)]);
        assert!(prunable(&all[..2], &rule).is_empty());
        assert!(prunable(&[], &rule).is_empty());
    }

    #[test]
    fn the_choice_is_stable() {
        let rule = KeepCheckpoints { last: 2, every: Some(30.0), failed: true };
        let mut all: Vec<Arc<Checkpoint>> = Vec::new();
        for n in 1..=40 {
            all.push(at(n, n as i64 * 7_000));
            let gone = prunable(&all, &rule);
            all.retain(|c| !gone.contains(&(c.epoch, c.number)));
            assert_eq!(all.last().map(|c| c.number), Some(n));
            assert!(prunable(&all, &rule).is_empty());
        }
    }

    #[test]
    fn the_newest_stays_and_no_rule_keeps_more_than_there_may_be() {
        let rule = KeepCheckpoints { last: 0, every: None, failed: true };
        assert!(prunable(&[at(1, 0)], &rule).is_empty());
        let all: Vec<_> = (1..=1_500).map(|n| at(n, n as i64 * 2_000)).collect();
        let rule = KeepCheckpoints { last: 1, every: Some(1.0), failed: true };
        assert_eq!(all.len() - prunable(&all, &rule).len(), MAX_KEPT);
    }
}
