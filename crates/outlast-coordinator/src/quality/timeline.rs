//! The states of a link over time, as intervals without gaps. Pure.

use outlast_model::LinkCause;
use outlast_store::{LinkEntry, LinkEntryKind};
use outlast_wire::api::Interval;

/// Makes intervals of entries (oldest first) and of the times that the coordinator ran, from
/// `from` on and up to `to`.
pub(crate) fn intervals(
    entries: &[LinkEntry],
    runs: &[(i64, i64)],
    from: i64,
    to: i64,
) -> Vec<Interval> {
    let mut all = Builder::default();
    // Between two runs: (last known to be alive, began again).
    let mut stops = runs.windows(2).map(|w| (w[0].1, w[1].0)).peekable();
    for e in entries {
        while let Some((stopped, began)) = stops.next_if(|(_, began)| *began <= e.at) {
            all.stop(stopped, began);
        }
        match e.kind {
            LinkEntryKind::Connected => {
                all.begin("resync", e.at, LinkCause::Unspecified, String::new())
            }
            LinkEntryKind::Resynced => all.resynced(e.at, &e.reason),
            LinkEntryKind::Suspect => all.lost("suspect", e),
            LinkEntryKind::Away => all.lost("away", e),
            LinkEntryKind::Adapted => {}
        }
    }
    for (stopped, began) in stops {
        all.stop(stopped, began);
    }
    let mut found = all.done;
    found.retain(|i| i.to.is_none_or(|end| end > from) && i.from <= to);
    for i in &mut found {
        i.from = i.from.max(from);
        i.to = i.to.filter(|end| *end <= to).or((to < i.to.unwrap_or(i64::MAX)).then_some(to));
    }
    // The last one goes on: nothing that came after it is known.
    if let Some(last) = found.last_mut()
        && last.to == Some(to)
    {
        last.to = None;
    }
    found
}

#[derive(Default)]
struct Builder {
    done: Vec<Interval>,
}

impl Builder {
    fn open(&mut self) -> Option<&mut Interval> {
        self.done.last_mut().filter(|i| i.to.is_none())
    }

    fn begin(&mut self, state: &str, at: i64, cause: LinkCause, reason: String) {
        // Clocks may jump: no interval ends before it began.
        let at = self.done.last().map_or(at, |i| at.max(i.to.unwrap_or(i.from)));
        if let Some(open) = self.open() {
            open.to = Some(at);
        }
        let state = state.to_owned();
        self.done.push(Interval { state, from: at, to: None, cause, reason });
    }

    fn resynced(&mut self, at: i64, took: &str) {
        if let Some(open) = self.open().filter(|i| i.state == "resync") {
            took.clone_into(&mut open.reason);
            self.begin("connected", at, LinkCause::Unspecified, String::new());
        }
    }

    fn lost(&mut self, state: &str, e: &LinkEntry) {
        // Of a worker that is away already only the state changes.
        let known = self.open().map(|i| (i.state.clone(), i.cause, i.reason.clone()));
        let (mut cause, mut reason) = (e.cause, e.reason.clone());
        if let Some((was, c, r)) = known
            && matches!(was.as_str(), "suspect" | "away")
        {
            if was == state {
                return;
            }
            if e.cause == LinkCause::Unspecified || c == cause {
                (cause, reason) = (c, format!("{r}; {reason}"));
            }
        }
        self.begin(state, e.at, cause, reason);
    }

    /// The coordinator did not run: what was there is not known.
    fn stop(&mut self, stopped: i64, began: i64) {
        let there = |i: &mut Interval| matches!(i.state.as_str(), "connected" | "resync");
        if began > stopped && self.open().is_some_and(there) {
            let reason = "the coordinator did not run".to_owned();
            self.begin("unknown", stopped, LinkCause::Restarted, reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use LinkEntryKind as K;

    fn entry(at: i64, kind: K, cause: LinkCause, reason: &str) -> LinkEntry {
        LinkEntry { worker: "w".into(), at, kind, cause, reason: reason.into() }
    }

    fn short(all: &[Interval]) -> Vec<(&str, i64, Option<i64>, &str)> {
        all.iter().map(|i| (i.state.as_str(), i.from, i.to, i.cause.word())).collect()
    }

    const NONE: LinkCause = LinkCause::Unspecified;

    #[test]
    fn a_cut_is_an_interval_with_its_cause() {
        let entries = [
            entry(100, K::Connected, NONE, ""),
            entry(120, K::Resynced, NONE, "20 ms"),
            entry(500, K::Suspect, LinkCause::Silent, "silent for 15 s"),
            entry(900, K::Away, LinkCause::Silent, "leases expired"),
            entry(1000, K::Connected, NONE, ""),
            entry(1050, K::Resynced, NONE, "50 ms"),
        ];
        let runs = [(50, 2000)];
        let all = intervals(&entries, &runs, 0, 2000);
        let want = [
            ("resync", 100, Some(120), ""),
            ("connected", 120, Some(500), ""),
            ("suspect", 500, Some(900), "silent"),
            ("away", 900, Some(1000), "silent"),
            ("resync", 1000, Some(1050), ""),
            ("connected", 1050, None, ""),
        ];
        assert_eq!(short(&all), want);
        assert_eq!((all[0].reason.as_str(), all[2].reason.as_str()), ("20 ms", "silent for 15 s"));
        assert_eq!(all[3].reason, "silent for 15 s; leases expired");
        let cut = intervals(&entries, &runs, 400, 950);
        let want = [
            ("connected", 400, Some(500), ""),
            ("suspect", 500, Some(900), "silent"),
            ("away", 900, None, "silent"),
        ];
        assert_eq!(short(&cut), want);
    }

    #[test]
    fn while_the_coordinator_did_not_run_nothing_is_known() {
        let entries = [
            entry(100, K::Connected, NONE, ""),
            entry(100, K::Resynced, NONE, "0 ms"),
            entry(700, K::Suspect, LinkCause::Restarted, "the coordinator was restarted"),
            entry(710, K::Connected, NONE, ""),
        ];
        let all = intervals(&entries, &[(50, 600), (700, 800)], 0, 800);
        let want = [
            ("resync", 100, Some(100), ""),
            ("connected", 100, Some(600), ""),
            ("unknown", 600, Some(700), "coordinator_restarted"),
            ("suspect", 700, Some(710), "coordinator_restarted"),
            ("resync", 710, None, ""),
        ];
        assert_eq!(short(&all), want);
    }

    #[test]
    fn clocks_that_jump_make_no_interval_end_before_it_began() {
        let entries = [
            entry(1000, K::Connected, NONE, ""),
            entry(400, K::Suspect, LinkCause::Closed, ""),
            entry(450, K::Connected, NONE, ""),
        ];
        for i in intervals(&entries, &[], 0, 5000) {
            assert!(i.to.is_none_or(|to| to >= i.from), "{i:?}");
        }
        assert!(intervals(&[], &[(1, 2)], 0, 10).is_empty());
    }
}
