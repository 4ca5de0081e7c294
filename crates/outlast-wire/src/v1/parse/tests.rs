use super::*;
use proptest::prelude::*;
use serde_json::json;

fn read(value: &Value) -> Result<FromWorker, Malformed> {
    parse(&value.to_string(), "w")
}

#[test]
fn messages_of_the_contract_are_read() {
    let t = || "t".to_owned();
    let c = || "c".to_owned();
    let beat = json!({"type": "heartbeat", "worker_id": "w", "sequence": 3, "active_tasks": ["t"],
        "timestamp": "2025-03-13T10:00:00.5"});
    let active_tasks = Some(vec![t()]);
    assert_eq!(read(&beat), Ok(FromWorker::Heartbeat { sequence: 3.into(), active_tasks }));
    let result = json!({"type": "task_result", "task_id": "t", "result": {"a": 1}});
    let wanted = FromWorker::TaskResult {
        task_id: t(),
        attempt: None,
        result: Bytes::from_static(br#"{"a":1}"#),
        error: None,
    };
    assert_eq!(read(&result), Ok(wanted));
    let data = json!({"type": "checkpoint_data", "checkpoint_id": "c", "task_id": "t", "data": {}});
    let wanted = FromWorker::CheckpointData {
        task_id: t(),
        checkpoint_id: c(),
        data: Bytes::from_static(b"{}"),
    };
    assert_eq!(read(&data), Ok(wanted));
    for (kind, what) in [
        ("task_cancelled", Deed::Cancelled),
        ("task_paused", Deed::Paused),
        ("task_resumed", Deed::Resumed),
    ] {
        let done = FromWorker::Done { task_id: t(), what };
        assert_eq!(read(&json!({"type": kind, "task_id": "t"})), Ok(done));
    }
    for kind in ["checkpoint_error", "state_error"] {
        let error = read(&json!({"type": kind, "task_id": "t", "error": "none"})).unwrap();
        assert!(format!("{error:?}").contains("\"none\""));
    }
}

#[test]
fn errors_are_what_python_takes_for_true() {
    let error = |e: Value| {
        let m = json!({"type": "task_result", "task_id": "t", "result": {}, "error": e});
        match read(&m) {
            Ok(FromWorker::TaskResult { error, .. }) => error.map(|e| (e.message, e.traceback)),
            other => panic!("{other:?}"),
        }
    };
    for none in [json!(null), json!({}), json!([]), json!(""), json!(false), json!(0), json!(-0.0)]
    {
        assert_eq!(error(none), None);
    }
    let full = json!({"message": "m", "traceback": "tb"});
    assert_eq!(error(full), Some(("m".into(), "tb".into())));
    assert_eq!(error(json!("boom")), Some(("boom".into(), String::new())));
    assert_eq!(error(json!(1)), Some(("1".into(), String::new())));
    assert_eq!(error(json!([0])), Some(("[0]".into(), String::new())));
    assert!(error(json!({"traceback": "x"})).unwrap().0.contains("did not say"));
}

#[test]
fn capabilities_become_flat() {
    let given = json!({"hardware": ["cpu", "cuda"], "gpu": {"name": "x", "memory": {"gb": 8}}});
    let Ok(FromWorker::Registration { capabilities }) =
        read(&json!({"type": "registration", "capabilities": given}))
    else {
        panic!("no registration")
    };
    let wanted = json!({"hardware": ["cpu", "cuda"], "gpu": true, "gpu.name": "x",
        "gpu.memory": true, "gpu.memory.gb": 8});
    assert_eq!(Value::Object(capabilities), wanted);
}

#[test]
fn what_cannot_be_used_says_why() {
    for (text, says) in [
        ("", "not a JSON object"),
        ("[1]", "not a JSON object"),
        ("{", "not a JSON object"),
        ("{}", "no \"type\""),
        (r#"{"type": 7}"#, "no \"type\""),
        (r#"{"type": "hello"}"#, "unknown message type \"hello\"; known are registration"),
        (r#"{"type": "task_state", "state": {}}"#, "task_id: is missing"),
        (r#"{"type": "task_state", "task_id": "t", "state": 3}"#, "task_state: state:"),
        (r#"{"type": "heartbeat", "sequence": []}"#, "sequence"),
        (r#"{"type": "heartbeat", "worker_id": "x"}"#, "belongs to \"w\""),
        (r#"{"type": "checkpoint_data", "task_id": "t", "checkpoint_id": "c"}"#, "data"),
    ] {
        let why = parse(text, "w").unwrap_err().to_string();
        assert!(why.contains(says), "{text}: {why}");
    }
}

#[test]
fn numbers_that_only_python_writes_become_null() {
    let text = r#"{"type": "task_result", "task_id": "a\"NaN", "result": {"l": [NaN, -Infinity, Infinity, -1], "s": "NaN"}}"#;
    let Ok(FromWorker::TaskResult { task_id, result, .. }) = parse(text, "w") else {
        panic!("not read")
    };
    assert_eq!(task_id, "a\"NaN");
    let value: Value = serde_json::from_slice(&result).unwrap();
    assert_eq!(value, json!({"l": [null, null, null, -1], "s": "NaN"}));
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC*") {
        let _ = parse(&text, "w");
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = parse(&String::from_utf8_lossy(&bytes), "w");
    }

    #[test]
    fn no_near_miss_makes_it_panic(
        kind in proptest::sample::select(&KNOWN[..]),
        field in "task_id|checkpoint_id|state|data|error|result|capabilities|active_tasks|sequence|attempt",
        value in "[\\[{\"]{0,3}(NaN|-|I|1e999|null|\"t\"|é|\\\\u00){0,3}[\\]}\"]{0,3}",
    ) {
        let _ = parse(&format!("{{\"type\":\"{kind}\",\"task_id\":\"t\",\"{field}\":{value}}}"), "w");
    }
}

#[test]
fn a_refused_checkpoint_names_its_task_if_it_can() {
    let of = |m: Value| read(&m).unwrap_err().checkpoint_of().map(ToOwned::to_owned);
    let long = "x".repeat(200);
    assert_eq!(of(json!({"type": "checkpoint_data", "task_id": "t"})), Some("t".into()));
    let m = json!({"type": "checkpoint_data", "task_id": "t", "checkpoint_id": long, "data": {}});
    assert_eq!(of(m), Some("t".into()));
    assert_eq!(of(json!({"type": "checkpoint_data", "task_id": 7, "data": {}})), None);
    assert_eq!(of(json!({"type": "task_state", "task_id": "t", "state": 1})), None);
}
