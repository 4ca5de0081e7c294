//! The history of links: what survives, what is summed up, what is removed.

use outlast_core::quality::Point;
use outlast_model::LinkCause;
use outlast_store::{LinkEntry, LinkEntryKind, LinkStore, Resolution};
use std::sync::Arc;

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const BUDGET: u64 = 64 << 20;
/// The beginning of an hour.
const T0: i64 = 500_000 * HOUR;

fn point(bytes_up: u64) -> Point {
    Point { span_ms: 60_000, connected_ms: 60_000, bytes: (bytes_up, 0), ..Point::default() }
}

fn entry(at: i64, kind: LinkEntryKind, cause: LinkCause) -> LinkEntry {
    LinkEntry { worker: "a".into(), at, kind, cause, reason: "why".into() }
}

#[test]
fn points_survive_and_make_hours() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("links.db");
    let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
    let mut store = LinkStore::open(&path, BUDGET, T0).unwrap();
    for n in 0..90 {
        let at = T0 + n * MINUTE;
        let points = [(a.clone(), point(n as u64)), (b.clone(), point(1))];
        store.put_minute(at, &points, at + MINUTE).unwrap();
    }
    // The second half of a minute after a restart adds to the first.
    drop(store);
    let now = T0 + 90 * MINUTE;
    let mut store = LinkStore::open(&path, BUDGET, now).unwrap();
    let half = Point { span_ms: 30_000, ..point(1000) };
    store.put_minute(T0 + 89 * MINUTE, &[(a.clone(), half)], now).unwrap();
    let all = store.points("a", Resolution::Minutes, T0, now).unwrap();
    assert_eq!(all.len(), 90);
    assert_eq!((all[89].0, all[89].1.bytes.0, all[89].1.span_ms), (T0 + 89 * MINUTE, 1089, 90_000));
    // Hours are there before they were made, and the same after.
    let before = store.points("a", Resolution::Hours, T0, now).unwrap();
    store.tidy(now).unwrap();
    let after = store.points("a", Resolution::Hours, T0, now).unwrap();
    assert_eq!(before, after);
    let sums: Vec<_> = after.iter().map(|(at, p)| (*at, p.bytes.0)).collect();
    assert_eq!(sums, [(T0, (0..60).sum()), (T0 + HOUR, (60..90).sum::<u64>() + 1000)]);
    store.tidy(now + 2 * HOUR).unwrap();
    assert_eq!(store.points("a", Resolution::Hours, T0, now).unwrap(), after);
    assert_eq!(store.points("b", Resolution::Hours, T0, now).unwrap()[0].1.bytes.0, 60);
    assert!(store.points("nobody", Resolution::Minutes, T0, now).unwrap().is_empty());
    assert_eq!(store.runs().unwrap(), [(T0, now), (now, now)]);
}

#[test]
fn what_is_old_or_too_much_goes() {
    let dir = tempfile::tempdir().unwrap();
    let budget = 1 << 20;
    let mut store = LinkStore::open(&dir.path().join("links.db"), budget, T0).unwrap();
    let fleet: Vec<_> = (0..500).map(|n| (Arc::from(format!("w{n}")), point(n))).collect();
    for n in 0..100 {
        let at = T0 + n * MINUTE;
        store.put_minute(at, &fleet, at).unwrap();
    }
    let now = T0 + 100 * MINUTE;
    assert!(store.used().unwrap() > budget);
    store.tidy(now).unwrap();
    assert!(store.used().unwrap() <= budget, "{}", store.used().unwrap());
    let left = store.points("w3", Resolution::Minutes, T0, now).unwrap();
    assert!(!left.is_empty() && left.len() < 100 && left.last().unwrap().0 == now - MINUTE);
    let hours = store.points("w3", Resolution::Hours, T0, now).unwrap();
    assert_eq!(hours[0].1.bytes.0, 180, "the hour was made before its minutes went");
    store.tidy(now + 25 * HOUR).unwrap();
    assert!(store.points("w3", Resolution::Minutes, T0, now).unwrap().is_empty());
}

#[test]
fn what_happened_to_links_is_kept_within_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("links.db");
    let mut store = LinkStore::open(&path, BUDGET, T0).unwrap();
    let entries: Vec<_> = (0..1500)
        .flat_map(|n| {
            let cut = entry(T0 + n * 10, LinkEntryKind::Suspect, LinkCause::Silent);
            [cut, entry(T0 + n * 10 + 5, LinkEntryKind::Connected, LinkCause::Unspecified)]
        })
        .collect();
    store.put_links(&entries, T0 + 20_000).unwrap();
    drop(store);
    let mut store = LinkStore::open(&path, BUDGET, T0 + 30_000).unwrap();
    let kept = store.links("a", i64::MAX, 5000).unwrap();
    assert!((1000..=1001).contains(&kept.len()), "{}", kept.len());
    assert_eq!(kept.last(), entries.last());
    assert_eq!(store.links("a", T0 + 14_000, 1).unwrap()[0].at, T0 + 13_995);
    store.forget("a").unwrap();
    assert!(store.links("a", i64::MAX, 10).unwrap().is_empty());
    store.put_links(&entries[..1], T0 + 40_000).unwrap();
    assert_eq!(store.links("a", i64::MAX, 10).unwrap(), entries[..1]);
}

#[test]
fn alerts_that_stand_survive_a_restart() {
    use outlast_store::AlertEntry;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("links.db");
    let entry = |rule: &str, alert: Option<&str>| AlertEntry {
        worker: "w".into(),
        rule: rule.into(),
        alert: alert.map(Into::into),
    };
    let mut store = LinkStore::open(&path, 1 << 30, 1).unwrap();
    store.put_alerts(&[entry("latency", Some("1")), entry("reconnects", Some("2"))]).unwrap();
    store.put_alerts(&[entry("latency", None), entry("reconnects", Some("3"))]).unwrap();
    drop(store);
    let store = LinkStore::open(&path, 1 << 30, 2).unwrap();
    assert_eq!(store.alerts().unwrap(), ["3"]);
}
