use super::*;
use crate::specs::{Places, tasks};
use serde_json::json;
use std::path::Path;

/// A task of this kind, and how it would go well: two attempts, the second goes on from the first
/// one's second checkpoint.
fn well(kind: Kind) -> Evidence {
    let here = Path::new("x");
    let places = Places { outlast: here, torture: here, ledger: here };
    let plan = tasks(1, 500, &places).into_iter().find(|p| p.kind == kind).expect("there is one");
    let (id, last) = (plan.task.id.clone(), plan.steps);
    let line = |attempt, at, fact| Line { attempt, at, pid: attempt as u32, fact };
    let mut lines = vec![line(1, 1000, Fact::Start("w1".into())), line(1, 1001, Fact::Fresh)];
    lines.extend((1..=10).map(|n| line(1, 1001 + i64::from(n), Fact::Step(n))));
    lines.push(line(1, 1020, Fact::Made((1, 1), 5)));
    lines.push(line(1, 1021, Fact::Made((1, 2), 10)));
    lines.push(line(2, 3000, Fact::Start("w2".into())));
    lines.push(line(2, 3001, Fact::Restored((1, 2), 10)));
    lines.extend((11..=last).map(|n| line(2, 3001 + i64::from(n), Fact::Step(n))));
    lines.push(line(2, 9000, Fact::End(0)));
    let event = |ms: i64, event, attempt| {
        let at = jiff::Timestamp::from_millisecond(ms).expect("a time").to_string();
        json!({ "at": at, "event": event, "attempt": attempt })
    };
    let events =
        [event(900, "assigned", 1), event(2000, "assigned", 2), event(9100, "succeeded", 2)];
    let stdout = format!("done {id} {last}\n");
    let spec = plan.task.spec.clone();
    let one = |number: u64, step| Listed {
        id: (1, number),
        kept: true,
        dropped: false,
        step: Some(step),
        recorded: Some(1100),
    };
    Evidence {
        task: serde_json::from_value(json!({ "id": id, "number": 1, "state": "succeeded",
            "spec": spec, "attempt": 2, "retries": 1, "cancelling": false,
            "submitted_at": "1970-01-01T00:00:00Z", "has_result": true }))
        .expect("a task"),
        result: serde_json::from_value(json!({ "id": id, "attempt": 2, "state": "succeeded",
            "exit_code": 0, "stdout": stdout }))
        .ok(),
        history: serde_json::from_value(json!({ "events": events })).expect("a history"),
        lines,
        listed: Some(vec![one(1, 5), one(2, 10)]),
        seen: BTreeMap::new(),
        plan,
    }
}

/// Returns the violations after one change to valid evidence.
fn found(kind: Kind, change: impl FnOnce(&mut Evidence), destroyed: &[&str]) -> String {
    let mut e = well(kind);
    change(&mut e);
    let destroyed = destroyed.iter().map(|name| (*name).to_owned()).collect();
    judge(&e, &destroyed, &mut Totals::default()).join("; ")
}

#[test]
fn nothing_is_found_where_all_is_well() {
    assert_eq!(found(Kind::Plain, |_| (), &[]), "");
}

#[test]
fn what_must_not_be_is_found() {
    let says = |text: &str, change: fn(&mut Evidence)| {
        let found = found(Kind::Plain, change, &[]);
        assert!(found.contains(text), "{text:?} is not in {found:?}");
    };
    says("still assigned", |e| e.task.state = TaskState::Assigned);
    says("no result", |e| e.result = None);
    says("its history ends with", |e| {
        let again = e.history.events.last().cloned();
        e.history.events.extend(again);
    });
    says("ended failed", |e| e.task.state = TaskState::Failed);
    says("succeeded with", |e| e.lines.retain(|l| l.fact != Fact::Step(15)));
    says("never came to its end", |e| e.lines.retain(|l| l.fact != Fact::End(0)));
    says("output ends with", |e| e.result.as_mut().expect("there is one").stdout.clear());
    says("the coordinator had (1, 2) before", |e| {
        let at = e.lines.iter().position(|l| matches!(l.fact, Fact::Restored(..)));
        e.lines[at.expect("there is one")].fact = Fact::Restored((1, 1), 5);
    });
    says("w1 itself had acknowledged", |e| {
        // The coordinator did not know, but the worker is the same.
        e.listed = None;
        for line in &mut e.lines {
            match &mut line.fact {
                Fact::Start(worker) => *worker = "w1".into(),
                Fact::Restored(id, _) => *id = (1, 1),
                _ => {}
            }
        }
    });
    let listed = |e: &mut Evidence, change: fn(&mut Vec<Listed>)| {
        change(e.listed.as_mut().expect("it is listed"));
    };
    let lost = found(Kind::Plain, |e| listed(e, |l| l.truncate(1)), &[]);
    assert!(lost.contains("does not know checkpoint (1, 2)"), "{lost}");
    let gone = found(Kind::Plain, |e| listed(e, |l| l[1].kept = false), &[]);
    assert!(gone.contains("the newest checkpoint, (1, 2), is not kept"), "{gone}");
    let dropped = found(Kind::Plain, |e| listed(e, |l| l[1].dropped = true), &[]);
    assert!(dropped.contains("was dropped, and it was the newest"), "{dropped}");
    says("must not be", |e| e.lines[1].fact = Fact::Wrong("this must not be".into()));
}

#[test]
fn what_a_destroyed_worker_had_may_be_lost() {
    let found = found(
        Kind::Plain,
        |e| {
            e.listed.as_mut().expect("it is listed").pop();
            for line in &mut e.lines {
                if let Fact::Restored(id, step) = &mut line.fact {
                    (*id, *step) = ((1, 1), 10);
                }
            }
        },
        &["w1"],
    );
    assert_eq!(found, "");
}

#[test]
fn at_most_once_is_once() {
    let found = found(Kind::Once, |_| (), &[]);
    assert!(found.contains("it must not run twice"), "{found}");
}
