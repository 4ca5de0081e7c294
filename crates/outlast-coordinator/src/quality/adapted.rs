//! Settings that either side adapted to a link: where they differ from the configuration now.

use crate::clock;
use outlast_wire::api::Adaptation;
use std::collections::BTreeMap;

/// Settings that are remembered of one side: there are five.
const MOST: usize = 8;

/// The side that adapted something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    Coordinator,
    Worker,
}

impl Side {
    pub fn word(self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator",
            Self::Worker => "worker",
        }
    }
}

/// A change as it was reported.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub setting: String,
    pub from: String,
    pub to: String,
    pub why: String,
}

impl Change {
    /// For the log and the history.
    pub fn line(&self, side: Side) -> String {
        let Change { setting, from, to, why } = self;
        format!("{setting} ({}): {from} → {to}: {why}", side.word())
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Adapted {
    now: BTreeMap<(Side, String), (i64, Change)>,
    /// Settings of the worker's former link: reported again, they are no news.
    before: BTreeMap<(Side, String), (i64, Change)>,
}

impl Adapted {
    /// A setting changed; `configured`: it is as configured again.
    pub fn put(&mut self, side: Side, at: i64, mut change: Change, configured: bool) {
        let key = (side, change.setting.clone());
        let old = self.now.remove(&key);
        if configured || (old.is_none() && self.now.len() >= 2 * MOST) {
            return;
        }
        if let Some((_, old)) = old {
            // What it differs from is the configuration.
            change.from = old.from;
        }
        self.now.insert(key, (at, change));
    }
    /// Marks all settings of a side as old: over its new link the worker reports again those that still
    /// hold.
    pub fn doubt(&mut self, side: Side) {
        let all = std::mem::take(&mut self.now);
        (self.before, self.now) = all.into_iter().partition(|((of, _), _)| *of == side);
    }
    /// Returns whether this was so before.
    pub fn has(&self, side: Side, change: &Change) -> bool {
        let key = (side, change.setting.clone());
        let old = self.now.get(&key).or_else(|| self.before.get(&key));
        old.is_some_and(|(_, old)| old.to == change.to)
    }
    /// Lists the settings for people.
    pub fn list(&self) -> Vec<Adaptation> {
        let one = |((side, _), (at, change)): (&(Side, String), &(i64, Change))| {
            let Change { setting, from, to, why } = change.clone();
            Adaptation { side: side.word().into(), setting, from, to, why, at: clock::text(*at) }
        };
        self.now.iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_listed_and_repeated_ones_are_no_news() {
        let change = |from: &str, to: &str| Change {
            setting: "heartbeat".into(),
            from: from.into(),
            to: to.into(),
            why: "so".into(),
        };
        let mut a = Adapted::default();
        a.put(Side::Worker, 1, change("15 s", "22 s"), false);
        a.put(Side::Worker, 2, change("22 s", "30 s"), false);
        let list = a.list();
        assert_eq!((list[0].from.as_str(), list[0].to.as_str()), ("15 s", "30 s"));
        a.put(Side::Coordinator, 3, change("15 s", "20 s"), false);
        a.doubt(Side::Worker);
        assert_eq!(a.list().len(), 1, "it may have restarted");
        assert!(a.has(Side::Worker, &change("15 s", "30 s")));
        assert!(!a.has(Side::Worker, &change("15 s", "40 s")));
        a.put(Side::Coordinator, 4, change("20 s", "15 s"), true);
        assert!(a.list().is_empty());
        for n in 0..100 {
            let setting = format!("made up {n}");
            a.put(Side::Worker, n, Change { setting, ..change("a", "b") }, false);
        }
        assert!(a.list().len() <= 2 * MOST);
    }
}
