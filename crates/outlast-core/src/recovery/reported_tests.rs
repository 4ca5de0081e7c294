//! Answers to programs that report a failure.

use super::*;

fn report(seen: &Value, state: &Value, retries: &Value) -> String {
    let worker = |name: &str, there| json!({"name": name, "there": there, "slots": 1, "labels": {}, "capabilities": {}});
    let table = json!({"jitter": 0, "rules": [{"pattern": "flux", "class": "device"}]});
    let spec = json!({"shell": "x", "knobs": {"batch_size": [4, 2], "device": ["cuda", "cpu"]},
        "requires": {"gpu": "*"}, "max_oom_retries": 9});
    let workers = [("w1", true), ("w2", true), ("w3", false)].map(|(n, there)| {
        let mut made = worker(n, there);
        made["capabilities"]["gpu"] = "A100".into();
        made
    });
    json!({"table": table, "task": "t", "attempt": 1, "spec": spec, "state": state,
        "retries": retries, "seen": seen, "worker": "w1", "workers": workers, "now": 5,
        "jitter": 0.0})
    .to_string()
}

#[test]
fn a_program_is_told_what_a_coordinator_would_do() {
    let oom = json!({"stderr": "MemoryError"});
    let mut last = json!({"state": {}, "retries": 0});
    let mut strategies = Vec::new();
    loop {
        last = decide(&report(&oom, &last["state"], &last["retries"])).unwrap();
        strategies.push(last["strategy"].as_str().unwrap().to_owned());
        assert_eq!((&last["class"], &last["retries"]), (&json!("out_of_memory"), &json!(0)));
        match strategies.len() {
            1 => assert_eq!(last["spec"]["knobs"]["batch_size"], json!([2])),
            2 => {
                assert_eq!(last["others"], json!(["w2"]));
                assert_eq!(last["requires"], json!({"gpu": "*", "worker": "!=w1"}));
            }
            3 => assert_eq!(last["spec"]["requires"], json!({"worker": "!=w1"})),
            _ => break,
        }
    }
    let expected = ["reduced_batch_size", "different_worker", "fallback_cpu", "escalation"];
    assert_eq!(strategies, expected);
    let own = decide(&report(&json!({"stderr": "flux"}), &json!({}), &json!(1))).unwrap();
    assert_eq!((&own["class"], &own["retries"]), (&json!("device"), &json!(2)));
    assert_eq!((&own["strategy"], &own["spec"]), (&json!("delayed_retry"), &Value::Null));
    let spent = decide(&report(&json!({"stderr": "flux"}), &json!({}), &json!(3))).unwrap();
    assert_eq!(spent["reason"], "no further attempts, since max_retries is 3");
}

#[test]
fn a_report_that_is_wrong_says_where() {
    let seen = json!({"cause": "tired"});
    let error = decide(&report(&seen, &json!({}), &json!(0))).unwrap_err();
    assert!(error.starts_with("cause: \"tired\""), "{error}");
    assert!(decide("{}").unwrap_err().contains("missing field"));
}

#[test]
fn a_task_that_must_not_run_twice_is_given_up() {
    let seen = json!({"stderr": "flux"});
    let mut asked: Value = serde_json::from_str(&report(&seen, &json!({}), &json!(0))).unwrap();
    asked["spec"]["rerun"] = "never".into();
    let found = decide(&asked.to_string()).unwrap();
    assert_eq!(found["strategy"], "escalation");
    assert!(found["reason"].as_str().unwrap().contains("rerun is \"never\""), "{found}");
}

fn asked(of: &Value) -> Value {
    decide(&of.to_string()).unwrap()
}

fn bare(seen: &Value) -> Value {
    let worker = |name: &str, hardware: Value| {
        json!({"name": name, "there": true, "slots": 1,
        "labels": {}, "capabilities": {"hardware": hardware}})
    };
    let workers = [
        worker("w1", json!(["cpu", "cuda"])),
        worker("w2", json!("cpu")),
        worker("w3", json!("cuda")),
    ];
    json!({"table": {"jitter": 0}, "task": "t", "attempt": 1, "spec": {"shell": "x"}, "seen": seen,
        "worker": "w1", "workers": workers, "now": 5, "jitter": 0.0})
}

#[test]
fn a_type_that_is_said_decides_and_the_evidence_only_refines_it() {
    for (said, class) in TYPES {
        let mut r = bare(&json!({"message": "socket hang up", "stderr": "MemoryError: flux",
            "cause": "timed_out", "exit_code": 139}));
        r["table"]["rules"] = json!([{"pattern": "flux", "class": "disk"}]);
        r["failure_type"] = said.into();
        let found = asked(&r);
        let wanted = if said == "TIMEOUT" { FailureClass::Timeout } else { class };
        assert_eq!((&found["failure_type"], &found["class"]), (&json!(said), &json!(wanted)));
        let text = found["message"].as_str().unwrap();
        assert!(text.contains(&format!("(reported as {said}: \"socket hang up\")")), "{text}");
    }
    for (said, text, class) in [
        ("RESOURCE_EXHAUSTION", "No space left on device", "disk"),
        ("RESOURCE_EXHAUSTION", "too many open files", "unknown"),
        ("RESOURCE_EXHAUSTION", "", "out_of_memory"),
        ("BROWSER_FAILURE", "WebGL context lost", "context_lost"),
        ("BROWSER_FAILURE", "WebGL", "browser_crash"),
        ("TRANSIENT_ERROR", "worker was drained", "worker_stopped"),
    ] {
        let mut r = bare(&json!({ "message": text }));
        r["failure_type"] = said.into();
        let found = asked(&r);
        assert_eq!((&found["failure_type"], &found["class"]), (&json!(said), &json!(class)));
    }
    let mut r = bare(&json!({}));
    r["failure_type"] = "TIRED".into();
    assert!(decide(&r.to_string()).unwrap_err().contains("\"TIRED\" is none"));
}

#[test]
fn another_worker_has_the_device_that_the_task_asks_for() {
    let device = |name: &str| json!([{"device": name, "from": "task.args.device"}]);
    let tried =
        json!({"tried": [{"class": "device", "strategy": "delayed_retry", "worker": "w1"}]});
    let mut r = bare(&json!({"message": "CUDA error: x"}));
    (r["state"], r["asked"]) = (tried, device("cuda"));
    let found = asked(&r);
    assert_eq!(
        (&found["strategy"], &found["others"]),
        (&json!("different_worker"), &json!(["w3"]))
    );
    assert_eq!(found["requires"], json!({"worker": "!=w1", "device": "cuda"}));
    // Where the coordinator places it, it must not meet another one.
    assert_eq!(found["spec"]["requires"], json!({"worker": "w3"}));
    // What names no device is none.
    r["asked"] = device("/dev/sda");
    assert_eq!(asked(&r)["others"], json!(["w2", "w3"]));
    // Nobody has it.
    r["asked"] = device("webgpu");
    r["workers"][1]["there"] = false.into();
    let found = asked(&r);
    assert_eq!((&found["strategy"], &found["others"]), (&json!("delayed_retry"), &json!([])));
    let text = found["message"].as_str().unwrap();
    for part in [
        "different_worker: no other connected worker has webgpu, which task.args.device asks for",
        "(not offered without it: w3)",
        "start a worker that has it, or give the task a knob device that ends with cpu",
        "1 cannot be reached",
    ] {
        assert!(text.contains(part), "{text}");
    }
    // It is kept off those that have it.
    (r["asked"], r["spec"]["requires"]) = (device("cuda"), json!({"worker": "w1"}));
    let found = asked(&r);
    let text = found["message"].as_str().unwrap();
    assert!(text.contains("(w3 does not meet worker); start one"), "{text}");
    // Nor what it requires.
    (r["asked"], r["spec"]["requires"]) = (json!([]), json!({"gpu": "*"}));
    let found = asked(&r);
    let text = found["message"].as_str().unwrap();
    assert!(text.contains("(w3 does not meet gpu); start one that has what it requires"), "{text}");
}

#[test]
fn what_a_person_wants_is_done_whatever_was_tried() {
    let mut r: Value = serde_json::from_str(&report(&json!({}), &json!({}), &json!(9))).unwrap();
    r["state"] = json!({"tried": [{"class": "unknown", "strategy": "different_worker"}]});
    for (strategy, requires) in [
        ("reduced_batch_size", json!({"gpu": "*"})),
        ("different_worker", json!({"gpu": "*", "worker": "w2"})),
        ("fallback_cpu", Value::Null),
    ] {
        r["strategy"] = strategy.into();
        let found = asked(&r);
        assert_eq!((&found["strategy"], &found["spec"]["requires"]), (&json!(strategy), &requires));
    }
    r["strategy"] = "reduced_precision".into();
    assert_eq!(asked(&r), json!({"why_not": "it has no knob precision"}));
    r["strategy"] = "escalation".into();
    assert!(
        asked(&r)["reason"]
            .as_str()
            .unwrap()
            .starts_with("no further attempts, since an operator requested it")
    );
}

#[test]
fn a_message_names_what_matched_and_what_it_has_in_common() {
    let mut r = bare(&json!({"message": "it says: CUDA error 700"}));
    let first = asked(&r);
    assert_eq!(
        first["message"],
        "device (its message: \"it says: CUDA error 700\", by \"CUDA error\"): it is tried again \
         after 2.0 s"
    );
    let failures: Vec<Value> = (1..=2)
        .map(|n| {
            let mut f = first["failure"].clone();
            (f["number"], f["task"]) = (n.into(), format!("t{n}").into());
            f
        })
        .collect();
    r["failures"] = failures.into();
    let found = asked(&r);
    assert_eq!(found["strategy"], "different_worker");
    let text = found["message"].as_str().unwrap();
    for part in [
        "another worker than w1 gets it; not delayed_retry: 3 device failures of 3 tasks on w1",
        "3 device failures of 3 tasks on 1 worker within 60 min, a pattern (",
        "worker w1: 3 failures of 3 tasks on 1 worker",
    ] {
        assert!(text.contains(part), "{text}");
    }
    // On several workers it is the type of task.
    (r["failures"][0]["worker"], r["failures"][1]["worker"]) = ("w2".into(), "w3".into());
    r["state"] = json!({"tried": [{"class": "device", "strategy": "delayed_retry"}]});
    let found = asked(&r);
    let text = found["message"].as_str().unwrap();
    assert!(
        text.contains("different_worker: 3 device failures of its type, on 3 workers"),
        "{text}"
    );
}
