//! The v1 JSON dialect, from the outside: what a worker of the replaced system says and hears.

mod client;
#[path = "../common/mod.rs"]
mod common;
mod links;
mod shared;
mod values;

use client::{Memory, dial, join};
use common::*;
use outlast_coordinator::Coordinator;
use outlast_core::coord::CoordConfig;
use outlast_store::{Keys, Role};
use serde_json::{Value, json};
use std::time::Duration;
use tokio_tungstenite::tungstenite::Error;

async fn start() -> (tempfile::TempDir, Coordinator) {
    let dir = tempfile::tempdir().unwrap();
    let c = Coordinator::start(config(dir.path())).await.unwrap();
    (dir, c)
}

async fn submit(c: &Coordinator, id: &str, extra: Value) {
    let mut task = json!({ "id": id, "call": { "function": "f", "args": { "n": 3 } } });
    task.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let (status, body) = post(c, "/api/v1/tasks", &task).await;
    assert_eq!(status, 201, "{body}");
}

async fn task(c: &Coordinator, id: &str) -> Value {
    get(c, &format!("/api/v1/tasks/{id}")).await.1
}

async fn events(c: &Coordinator, id: &str) -> Vec<String> {
    let (_, history) = get(c, &format!("/api/v1/tasks/{id}/history")).await;
    let name = |e: &Value| e["event"].as_str().unwrap().to_owned();
    history["events"].as_array().unwrap().iter().map(name).collect()
}

fn count(events: &[String], name: &str) -> usize {
    events.iter().filter(|e| *e == name).count()
}

async fn until(c: &Coordinator, id: &str, state: &str) {
    for _ in 0..200 {
        if task(c, id).await["state"] == state {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{id} is not {state}: {}", task(c, id).await);
}

#[tokio::test]
async fn a_task_goes_there_and_its_result_comes_back_once() {
    let (_dir, c) = start().await;
    submit(&c, "t", json!({})).await;
    let argv = json!({ "id": "argv", "command": ["true"] });
    assert_eq!(post(&c, "/api/v1/tasks", &argv).await.0, 201);
    let mut w =
        join(c.local_addr(), "w-1", json!({ "hardware": ["cpu"], "gpu": { "gb": 8 } })).await;
    let given = w.expect("task_assignment").await;
    assert_eq!((&given["task_id"], &given["config"]), (&json!("t"), &json!({ "n": 3 })));
    assert_eq!((&given["attempt"], &given["function"]), (&json!(1), &json!("f")));
    // It has one answer, as soon as what that rests on is durable.
    assert_eq!(w.beat(1, &["t"]).await["actions"], json!([{ "type": "sync_state" }]));
    w.say(json!({ "type": "task_state", "task_id": "t", "state": { "a": 1, "progress": 0.5 } }))
        .await
        .unwrap();
    w.expect("task_state_ack").await;
    w.say(json!({ "type": "task_state", "task_id": "t", "state": { "b": 2 } })).await.unwrap();
    w.expect("task_state_ack").await;
    let (_, state) = get(&c, "/api/v1/tasks/t/state").await;
    assert_eq!(state["state"], json!({ "a": 1, "b": 2, "progress": 0.5 }));
    assert_eq!((&state["progress"], &state["version"]), (&json!(0.5), &json!(2)));
    for _ in 0..3 {
        let result = json!({ "type": "task_result", "task_id": "t", "result": { "x": [1, null] } });
        w.say(result).await.unwrap();
        assert_eq!(w.expect("task_result_ack").await["task_id"], "t");
    }
    let (_, result) = get(&c, "/api/v1/tasks/t/result").await;
    assert_eq!((&result["value"], &result["worker"]), (&json!({ "x": [1, null] }), &json!("w-1")));
    assert_eq!(events(&c, "t").await, ["submitted", "assigned", "started", "succeeded"]);
    // Command lines do not go to workers that did not ask for them.
    assert_eq!(task(&c, "argv").await["state"], "pending");
    let why = task(&c, "argv").await["waiting_for"].as_str().unwrap().to_owned();
    assert!(why.contains("runs commands"), "{why}");
    let (_, worker) = get(&c, "/api/v1/workers/w-1").await;
    assert_eq!((&worker["version"], &worker["slots"]), (&json!("v1"), &json!(1)));
    let mut other = join(c.local_addr(), "w-2", json!({ "commands": true })).await;
    let given = other.expect("task_assignment").await;
    assert_eq!(given["config"]["command"], json!(["true"]));
}

#[tokio::test]
async fn a_failure_has_its_traceback_and_capabilities_decide() {
    let (_dir, c) = start().await;
    submit(&c, "t", json!({ "requires": { "gpu.gb": ">=8", "hardware": "cuda" } })).await;
    let mut small = join(c.local_addr(), "small", json!({ "hardware": ["cuda"] })).await;
    small.beat(1, &[]).await;
    let caps = json!({ "hardware": ["cpu", "cuda"], "gpu": { "gb": 8 } });
    let mut w = join(c.local_addr(), "big", caps).await;
    w.expect("task_assignment").await;
    let error = json!({ "message": "boom", "traceback": "line 1\nline 2" });
    w.say(json!({ "type": "task_result", "task_id": "t", "result": {}, "error": error }))
        .await
        .unwrap();
    w.expect("task_result_ack").await;
    let (_, result) = get(&c, "/api/v1/tasks/t/result").await;
    assert_eq!((&result["state"], &result["message"]), (&json!("failed"), &json!("boom")));
    assert_eq!(result["value"]["traceback"], "line 1\nline 2");
    // A result that is too large fails its task; it is not sent again for ever.
    submit(&c, "large", json!({ "requires": { "hardware": "cpu" } })).await;
    w.expect("task_assignment").await;
    let result = json!({ "data": "x".repeat(1_200_000) });
    w.say(json!({ "type": "task_result", "task_id": "large", "result": result })).await.unwrap();
    w.expect("task_result_ack").await;
    let (_, result) = get(&c, "/api/v1/tasks/large/result").await;
    assert!(result["message"].as_str().unwrap().contains("the limit is 1048576"), "{result}");
}

#[tokio::test]
async fn through_twenty_cuts_each_of_200_results_counts_once() {
    let (dir, c) = {
        let dir = tempfile::tempdir().unwrap();
        let core = CoordConfig { max_unfinished: 500, ..Default::default() };
        let config = outlast_coordinator::Config { core, ..config(dir.path()) };
        let c = Coordinator::start(config).await.unwrap();
        (dir, c)
    };
    let tasks: Vec<Value> = (0..200)
        .map(|n| json!({ "id": format!("t{n}"), "call": { "function": "sq", "args": { "n": n } } }))
        .collect();
    let (status, body) = post(&c, "/api/v1/tasks", &json!(tasks)).await;
    assert!(status < 300, "{body}");
    let mut memory = Memory::default();
    let (mut cuts, mut turns) = (0, 0);
    let mut addr = c.local_addr();
    let mut c = Some(c);
    while memory.acked.len() < 200 {
        turns += 1;
        assert!(turns < 5_000, "{} of 200", memory.acked.len());
        let mut link = match dial(addr, "old-1", "").await {
            Ok(link) => link,
            Err(_) => continue,
        };
        memory.resume(&mut link).await.unwrap();
        // The link lives for some messages, then its socket is dropped, wherever that is.
        let life = if cuts < 20 { 6 + 4 * (cuts % 5) } else { u64::MAX };
        for n in 0..life {
            let next = tokio::time::timeout(Duration::from_millis(300), link.hear()).await;
            match next {
                Ok(Some(message)) => memory.hear(&message),
                Ok(None) => break,
                Err(_) => memory.beat(&mut link).await.unwrap(),
            }
            if n % 3 == 2 || memory.active.len() == 4 {
                let _ = memory.finish(&mut link).await;
            }
            if memory.acked.len() == 200 {
                break;
            }
        }
        if memory.acked.len() < 200 {
            cuts += 1;
            // Results that may or may not have arrived.
            let _ = memory.finish(&mut link).await;
        }
        drop(link);
        if cuts == 10 {
            // Meanwhile the coordinator restarts, and re-adopts what its worker has.
            let old = c.take().unwrap();
            old.shutdown().await;
            let core = CoordConfig { max_unfinished: 500, ..Default::default() };
            let config = outlast_coordinator::Config { core, ..config(dir.path()) };
            let new = Coordinator::start(config).await.unwrap();
            addr = new.local_addr();
            c = Some(new);
            cuts += 1;
        }
    }
    let c = c.unwrap();
    assert!(cuts >= 20, "only {cuts} cuts");
    assert!(memory.sent > 200, "nothing was sent twice: {}", memory.sent);
    for n in 0..200 {
        let id = format!("t{n}");
        let events = events(&c, &id).await;
        assert_eq!(count(&events, "succeeded"), 1, "{id}: {events:?}");
        assert_eq!(count(&events, "superseded"), 0, "{id}: {events:?}");
        let (_, result) = get(&c, &format!("/api/v1/tasks/{id}/result")).await;
        assert_eq!(result["value"], json!({ "square": n * n }));
    }
}

#[tokio::test]
async fn cancel_pause_and_resume_are_asked_and_acknowledged() {
    let (_dir, c) = start().await;
    submit(&c, "t", json!({})).await;
    let mut w = join(c.local_addr(), "w", json!({})).await;
    w.expect("task_assignment").await;
    for (path, asked, done) in
        [("pause", "pause_task", "task_paused"), ("resume", "resume_task", "task_resumed")]
    {
        assert_eq!(post(&c, &format!("/api/v1/tasks/t/{path}"), &json!({})).await.0, 200);
        assert_eq!(w.expect(asked).await["task_id"], "t");
        for _ in 0..2 {
            w.say(json!({ "type": done, "task_id": "t" })).await.unwrap();
            assert_eq!(w.expect(&format!("{done}_ack")).await["task_id"], "t");
        }
    }
    assert_eq!(count(&events(&c, "t").await, "noted"), 2);
    post(&c, "/api/v1/tasks/t/cancel", &json!({})).await;
    assert_eq!(w.expect("cancel_task").await["task_id"], "t");
    for _ in 0..2 {
        w.say(json!({ "type": "task_cancelled", "task_id": "t" })).await.unwrap();
        assert_eq!(w.expect("task_cancelled_ack").await["task_id"], "t");
    }
    let told = events(&c, "t").await;
    assert_eq!((count(&told, "cancelled"), count(&told, "superseded")), (1, 0), "{told:?}");
    // A thread that the cancel did not stop: on record, and of no effect; once.
    for _ in 0..2 {
        w.say(json!({ "type": "task_result", "task_id": "t", "result": {} })).await.unwrap();
        w.expect("task_result_ack").await;
    }
    let told = events(&c, "t").await;
    assert_eq!((count(&told, "cancelled"), count(&told, "superseded")), (1, 1), "{told:?}");
    assert_eq!(task(&c, "t").await["state"], "cancelled");
}

#[tokio::test]
async fn checkpoints_are_fetched_kept_and_restored_elsewhere() {
    let (_dir, c) = start().await;
    submit(&c, "t", json!({})).await;
    let mut w = join(c.local_addr(), "w", json!({})).await;
    assert_eq!(w.expect("task_assignment").await.get("checkpoint"), None);
    // Reported: its data is requested.
    w.say(json!({ "type": "checkpoint", "task_id": "t", "checkpoint_id": "c1" })).await.unwrap();
    assert_eq!(w.expect("checkpoint_request").await["checkpoint_id"], "c1");
    w.expect("checkpoint_ack").await;
    for _ in 0..2 {
        let data = json!({ "type": "checkpoint_data", "task_id": "t", "checkpoint_id": "c1",
            "data": { "step": 1 } });
        w.say(data).await.unwrap();
        assert_eq!(w.expect("checkpoint_data_ack").await["checkpoint_id"], "c1");
    }
    let (_, list) = get(&c, "/api/v1/tasks/t/checkpoints").await;
    assert_eq!(list["checkpoints"].as_array().unwrap().len(), 1, "{list}");
    // An operator requests one: the newest is sent.
    assert_eq!(post(&c, "/api/v1/tasks/t/checkpoint", &json!({})).await.0, 200);
    let asked = w.expect("checkpoint_request").await;
    assert_eq!(asked.get("checkpoint_id"), None);
    let text = r#"{"type": "checkpoint_data", "task_id": "t", "checkpoint_id": "c2",
        "data": {"step": 2, "big": 123456789012345678901234567890}}"#;
    w.text(text.into()).await.unwrap();
    w.expect("checkpoint_data_ack").await;
    let got = send(&c, "GET", "/api/v1/tasks/t/checkpoints/latest/data", "", b"").await;
    assert_eq!(
        String::from_utf8(got.body).unwrap(),
        r#"{"step": 2, "big": 123456789012345678901234567890}"#
    );
    // There is none: said where somebody asked.
    post(&c, "/api/v1/tasks/t/checkpoint", &json!({})).await;
    w.expect("checkpoint_request").await;
    w.say(json!({ "type": "checkpoint_error", "task_id": "t", "error": "none" })).await.unwrap();
    // Too large: an error, and the link stays.
    let data = json!({ "type": "checkpoint_data", "task_id": "t", "checkpoint_id": "c3",
        "data": { "x": "x".repeat(17 << 20) } });
    w.say(data).await.unwrap();
    let error = w.expect("error").await;
    assert!(error["message"].as_str().unwrap().contains("the limit"), "{error}");
    assert!(events(&c, "t").await.iter().any(|e| e == "noted"));
    // It goes on elsewhere, from there.
    let mut other = join(c.local_addr(), "other", json!({})).await;
    post(&c, "/api/v1/tasks/t/move", &json!({ "to": "other" })).await;
    // Whoever moves a paused task wants it to go on.
    w.expect("resume_task").await;
    w.expect("cancel_task").await;
    w.say(json!({ "type": "task_cancelled", "task_id": "t" })).await.unwrap();
    w.expect("task_cancelled_ack").await;
    let given = other.expect("task_assignment").await;
    assert_eq!(given["checkpoint"]["checkpoint_id"], "c2");
    assert_eq!(given["checkpoint"]["data"]["step"], 2);
    assert_eq!(given["attempt"], 2);
    assert_eq!(task(&c, "t").await["retries"], 0, "a move is no loss");
}

#[tokio::test]
async fn late_results_are_honoured_or_fenced_as_the_task_says() {
    let (_dir, c) = start().await;
    let late = json!({ "reconnect_window": 0.2, "late_result": "accept" });
    submit(&c, "accepts", late).await;
    let fence = json!({ "reconnect_window": 0.2, "late_result": "fence" });
    submit(&c, "fences", fence).await;
    let mut old = join(c.local_addr(), "old", json!({ "slots": 2 })).await;
    old.expect("task_assignment").await;
    old.expect("task_assignment").await;
    drop(old);
    until(&c, "accepts", "pending").await;
    until(&c, "fences", "pending").await;
    let mut new = join(c.local_addr(), "new", json!({ "slots": 2 })).await;
    for _ in 0..2 {
        assert_eq!(new.expect("task_assignment").await["attempt"], 2);
    }
    let mut old = join(c.local_addr(), "old", json!({ "slots": 2 })).await;
    for id in ["accepts", "fences", "fences", "accepts"] {
        let result = json!({ "type": "task_result", "task_id": id, "result": { "by": "old" } });
        old.say(result).await.unwrap();
        assert_eq!(old.expect("task_result_ack").await["task_id"], id);
    }
    assert_eq!(new.expect("cancel_task").await["task_id"], "accepts");
    assert_eq!(task(&c, "accepts").await["state"], "succeeded");
    assert_eq!(task(&c, "fences").await["state"], "assigned");
    // What the old one still runs and is another's now it is told to stop.
    let actions = old.beat(1, &["fences"]).await["actions"].clone();
    assert_eq!(actions, json!([{ "type": "cancel_tasks", "task_ids": ["fences"] }]));
    new.say(json!({ "type": "task_result", "task_id": "fences", "result": { "by": "new" } }))
        .await
        .unwrap();
    new.expect("task_result_ack").await;
    let (_, result) = get(&c, "/api/v1/tasks/fences/result").await;
    assert_eq!(result["value"]["by"], "new");
    assert_eq!(count(&events(&c, "fences").await, "superseded"), 1);
    assert_eq!(count(&events(&c, "accepts").await, "superseded"), 0);
    // Of a task that it was never given.
    old.say(json!({ "type": "task_result", "task_id": "nobody", "result": {} })).await.unwrap();
    old.expect("task_result_ack").await;
}

#[tokio::test]
async fn what_cannot_be_understood_is_answered_and_the_link_stays() {
    let (_dir, c) = start().await;
    let mut w = join(c.local_addr(), "w", json!({})).await;
    for (text, says) in [
        ("", "not a JSON object"),
        ("nonsense", "not a JSON object"),
        ("[1, 2]", "not a JSON object"),
        ("{}", "no \"type\""),
        (r#"{"type": "greeting"}"#, "unknown message type \"greeting\""),
        (r#"{"type": "task_result"}"#, "task_id"),
        (r#"{"type": "heartbeat", "worker_id": "someone-else"}"#, "belongs to"),
        (r#"{"type": "heartbeat", "active_tasks": 7}"#, "active_tasks"),
    ] {
        w.text(text.into()).await.unwrap();
        let error = w.expect("error").await;
        assert!(error["message"].as_str().unwrap().contains(says), "{text}: {error}");
    }
    w.bytes(vec![0, 159, 146, 150]).await.unwrap();
    assert!(w.expect("error").await["message"].as_str().unwrap().contains("binary"));
    w.say(json!({ "type": "task_state", "task_id": "x", "state": { "x": "y".repeat(300_000) } }))
        .await
        .unwrap();
    assert!(w.expect("error").await["message"].as_str().unwrap().contains("the limit is 262144"));
    w.beat(9, &[]).await;
    // Larger than any message may be: the answer says so, then the link ends.
    let _ = w.text(" ".repeat(25 << 20)).await;
    assert!(w.expect("error").await["message"].as_str().unwrap().contains("link ends"));
    w.closed().await;
}

#[tokio::test]
async fn a_wrong_key_or_id_gets_no_link_and_a_second_connection_ends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = outlast_coordinator::Config::store_file(dir.path());
    Coordinator::start(config(dir.path())).await.unwrap().shutdown().await;
    let key = Keys::open(&file).unwrap().add_key("w", Role::Worker).unwrap().token;
    let c = Coordinator::start(config(dir.path())).await.unwrap();
    let status = |e: Result<client::Link, Error>| match e.err() {
        Some(Error::Http(response)) => response.status().as_u16(),
        other => panic!("{other:?}"),
    };
    assert_eq!(status(dial(c.local_addr(), "w", "wrong").await), 401);
    assert_eq!(status(dial(c.local_addr(), "w", "").await), 401);
    assert_eq!(status(dial(c.local_addr(), "a%20b", &key).await), 400);
    assert_eq!(status(dial(c.local_addr(), &"x".repeat(129), &key).await), 400);
    let mut first = dial(c.local_addr(), "w", &key).await.unwrap();
    first.expect("welcome").await;
    first.say(json!({ "type": "heartbeat", "sequence": 1, "active_tasks": [] })).await.unwrap();
    let error = first.expect("error").await;
    assert!(error["message"].as_str().unwrap().contains("registration"), "{error}");
    first.say(json!({ "type": "registration", "capabilities": {} })).await.unwrap();
    first.expect("registration_ack").await;
    let mut second = dial(c.local_addr(), "w", &key).await.unwrap();
    second.expect("welcome").await;
    // Known by now: whatever it says first makes it the worker's link.
    second.say(json!({ "type": "heartbeat", "sequence": 1, "active_tasks": [] })).await.unwrap();
    second.expect("heartbeat").await;
    second.expect("registration_ack").await;
    first.beat(2, &[]).await;
    second.beat(3, &[]).await;
}

#[tokio::test]
async fn what_a_returning_worker_has_not_is_asked_for_then_given_again_or_lost() {
    let (_dir, c) = start().await;
    submit(&c, "never-arrived", json!({})).await;
    submit(&c, "was-running", json!({})).await;
    let mut w = join(c.local_addr(), "w", json!({ "slots": 2 })).await;
    w.expect("task_assignment").await;
    w.expect("task_assignment").await;
    w.beat(1, &["was-running"]).await;
    drop(w);
    // Its process is a new one: it has nothing.
    let mut w = join(c.local_addr(), "w", json!({ "slots": 2 })).await;
    let actions = w.beat(1, &[]).await["actions"].clone();
    let both =
        json!([{ "type": "resend_task_results", "task_ids": ["never-arrived", "was-running"] }]);
    assert_eq!(actions, both);
    tokio::time::sleep(Duration::from_millis(600)).await;
    w.say(json!({ "type": "heartbeat", "sequence": 2, "active_tasks": [] })).await.unwrap();
    let given = w.expect_among("task_assignment").await;
    assert_eq!((&given["task_id"], &given["attempt"]), (&json!("never-arrived"), &json!(1)));
    tokio::time::sleep(Duration::from_millis(2_600)).await;
    w.say(json!({ "type": "heartbeat", "sequence": 3, "active_tasks": ["never-arrived"] }))
        .await
        .unwrap();
    let given = w.expect_among("task_assignment").await;
    assert_eq!((&given["task_id"], &given["attempt"]), (&json!("was-running"), &json!(2)));
    assert_eq!(task(&c, "never-arrived").await["retries"], 0);
    assert_eq!(task(&c, "was-running").await["retries"], 1);
}
