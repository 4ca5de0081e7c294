//! What either side adapted to a link: where it differs from the configuration now, for those who
//! look.

use crate::clock;
use outlast_wire::api::Adaptation;
use std::collections::BTreeMap;

/// Settings that are remembered of one side: there are five.
const MOST: usize = 8;

/// Who adapted something.
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

/// A change as it was told.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub setting: String,
    pub from: String,
    pub to: String,
    pub why: String,
}

impl Told {
    /// For the log and the history.
    pub fn line(&self, side: Side) -> String {
        let Told { setting, from, to, why } = self;
        format!("{setting} ({}): {from} → {to}: {why}", side.word())
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Adapted {
    now: BTreeMap<(Side, String), (i64, Told)>,
    /// Of the worker's former link: told again, it is no news.
    before: BTreeMap<(Side, String), (i64, Told)>,
}

impl Adapted {
    /// A setting changed; `configured`: it is as configured again.
    pub fn put(&mut self, side: Side, at: i64, mut told: Told, configured: bool) {
        let key = (side, told.setting.clone());
        let old = self.now.remove(&key);
        if configured || (old.is_none() && self.now.len() >= 2 * MOST) {
            return;
        }
        if let Some((_, old)) = old {
            // What it differs from is the configuration.
            told.from = old.from;
        }
        self.now.insert(key, (at, told));
    }
    /// The worker has a new link, over which it tells anew what it adapted, if it still does.
    pub fn doubt(&mut self, side: Side) {
        let all = std::mem::take(&mut self.now);
        (self.before, self.now) = all.into_iter().partition(|((of, _), _)| *of == side);
    }
    /// Whether this was so before.
    pub fn has(&self, side: Side, told: &Told) -> bool {
        let key = (side, told.setting.clone());
        let old = self.now.get(&key).or_else(|| self.before.get(&key));
        old.is_some_and(|(_, old)| old.to == told.to)
    }
    /// For people.
    pub fn list(&self) -> Vec<Adaptation> {
        let one = |((side, _), (at, told)): (&(Side, String), &(i64, Told))| {
            let Told { setting, from, to, why } = told.clone();
            Adaptation { side: side.word().into(), setting, from, to, why, at: clock::text(*at) }
        };
        self.now.iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_listed_and_what_is_told_again_is_no_news() {
        let told = |from: &str, to: &str| Told {
            setting: "heartbeat".into(),
            from: from.into(),
            to: to.into(),
            why: "so".into(),
        };
        let mut a = Adapted::default();
        a.put(Side::Worker, 1, told("15 s", "22 s"), false);
        a.put(Side::Worker, 2, told("22 s", "30 s"), false);
        let list = a.list();
        assert_eq!((list[0].from.as_str(), list[0].to.as_str()), ("15 s", "30 s"));
        a.put(Side::Coordinator, 3, told("15 s", "20 s"), false);
        a.doubt(Side::Worker);
        assert_eq!(a.list().len(), 1, "it may have started anew");
        assert!(a.has(Side::Worker, &told("15 s", "30 s")));
        assert!(!a.has(Side::Worker, &told("15 s", "40 s")));
        a.put(Side::Coordinator, 4, told("20 s", "15 s"), true);
        assert!(a.list().is_empty());
        for n in 0..100 {
            let setting = format!("made up {n}");
            a.put(Side::Worker, n, Told { setting, ..told("a", "b") }, false);
        }
        assert!(a.list().len() <= 2 * MOST);
    }
}
