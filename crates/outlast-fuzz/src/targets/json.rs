//! JSON: values, texts of v1 workers, tasks and the bodies of requests.

use crate::memory::measure;
use crate::target::{Run, Target, said};
use outlast_wire::TaskSpec;
use outlast_wire::json::{Limit, Parts};
use outlast_wire::spec::MAX_SPEC_WEIGHT;
use outlast_wire::{api, v1};
use rand::Rng;
use rand::rngs::SmallRng;
use serde_json::Value;

const TALK: usize = 8 << 10;
/// Bytes that a refusal takes for each byte of the input. The parser quotes a value that has the wrong
/// type, with up to six bytes for one, in a text that doubles as it grows.
const QUOTED: usize = 24;

const WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\u0000",
    "null",
    "true",
    "1e999",
    "-0",
    "NaN",
    "\"a\":",
    "[[",
    "]]",
    "{}",
    "[]",
    "[1],",
    "{\"a\":1},",
];

const V1: &[&str] = &[
    "\"type\":",
    "\"registration\"",
    "\"heartbeat\"",
    "\"task_result\"",
    "\"task_state\"",
    "\"checkpoint\"",
    "\"checkpoint_data\"",
    "\"error\":",
    "\"task_id\":\"t\"",
    "\"state\":{",
    "\"capabilities\":{",
    "\"active_tasks\":[",
    "\"data\":",
    "\"result\":",
    "{",
    "}",
    "[",
    "]",
    ",",
    "\"t\",",
    "{\"task_id\":\"t\"},",
    "NaN",
    "null",
];

const SPEC: &[&str] = &[
    "\"command\":[",
    "\"shell\":\"a\"",
    "\"call\":{",
    "\"function\":\"f\"",
    "\"args\":",
    "\"env\":{",
    "\"labels\":{",
    "\"requires\":{",
    "\"knobs\":{",
    "\"recovery\":{",
    "\"browser\":{",
    "\"id\":\"i\"",
    "\"a\":\"b\",",
    "[1],",
    "{",
    "}",
    "[",
    "]",
    ",",
    "\"a\",",
    "{knob.b}",
    "null",
    "1e9",
    "-1",
];

/// A JSON value, which may be deep, wide or both.
fn value(rng: &mut SmallRng, depth: u32) -> String {
    let many = if rng.random_ratio(1, 6) { 1 << rng.random_range(0..14) } else { 3 };
    let many: usize = rng.random_range(0..=many);
    match rng.random_range(0..if depth > 0 { 6 } else { 3 }) {
        0 => rng.random_range(-5..1000).to_string(),
        1 => format!("\"{}\"", "x".repeat(rng.random_range(0..20))),
        2 => "{}".into(),
        3 => {
            let one = value(rng, depth - 1);
            let most = (256 << 10) / (one.len() + 1);
            format!("[{}]", vec![one; many.min(most)].join(","))
        }
        _ => {
            let one = value(rng, depth - 1);
            let most = (256 << 10) / (one.len() + 8);
            let all: Vec<String> = (0..many.min(most)).map(|n| format!("\"{n}\":{one}")).collect();
            format!("{{{}}}", all.join(","))
        }
    }
}

fn texts(all: &[&str]) -> Vec<Vec<u8>> {
    all.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// The targets of this module.
pub(super) fn targets() -> Vec<Target> {
    vec![
        json_target(),
        v1_target(),
        spec_target(),
        submit_target(),
        document_target(),
        recovery_target(),
    ]
}

fn json_target() -> Target {
    Target {
        name: "json",
        what: "values, against what was counted",
        seeds: || texts(&["1", "[1,2]", r#"{"a":{"b":[{"c":1}]}}"#, "[[],{}]", r#""\ud800""#]),
        words: WORDS,
        make: Some(|rng| value(rng, 5).into_bytes()),
        run: |input| {
            let limit = Limit { bytes: 1 << 20, weight: 64 << 20 };
            let (done, peak) = measure(|| limit.read::<Value>(input));
            let bound = match limit.check(input) {
                Ok(()) => Parts::of(input).weight() + 3 * input.len() + TALK,
                Err(_) => TALK,
            };
            Run { said: said(done, |v| v.is_object().to_string()), peak, bound }
        },
    }
}

fn v1_target() -> Target {
    Target {
        name: "v1",
        what: "texts of v1 workers",
        seeds: || {
            let deep = "{\"a\":".repeat(100_000);
            let nested = format!(r#"{{"type":"registration","capabilities":{deep}"#);
            let name = "n".repeat(1_000);
            let wide = format!(r#"{{"{name}":{{{}"a":1}}}}"#, r#""b":1,"#.repeat(1_000));
            let wide = format!(r#"{{"type":"registration","capabilities":{wide}}}"#);
            v1_texts().into_iter().chain([nested.into(), wide.into()]).collect()
        },
        words: V1,
        make: Some(make_v1),
        run: |input| {
            let text = String::from_utf8_lossy(input).into_owned();
            let (done, peak) = measure(|| v1::parse(&text, "w"));
            // Fields are kept as text, once more where NaN is mended; of one field values are made.
            let bound = 6 * text.len() + (17 << 20);
            Run { said: said(done, |m| format!("{m:?}").chars().take(30).collect()), peak, bound }
        },
    }
}

fn spec_target() -> Target {
    Target {
        name: "spec",
        what: "tasks",
        seeds: specs,
        words: SPEC,
        make: Some(|rng| {
            let (args, knobs) = (value(rng, 4), value(rng, 2));
            format!(r#"{{"call":{{"function":"f","args":{args}}},"knobs":{knobs}}}"#).into_bytes()
        }),
        run: |input| {
            let read = || TaskSpec::from_json(input).map(|spec| (spec.to_json(), spec));
            let (done, peak) = measure(read);
            if let Ok((json, spec)) = &done {
                let again = TaskSpec::from_json(json);
                assert!(again.as_ref().is_ok_and(|again| again.is_same(spec)), "{again:?}");
            }
            // Flattened fields are read twice, and once more to find out which is to blame.
            let values = 4 * MAX_SPEC_WEIGHT.min(Parts::of(input).weight());
            let bound = values + if done.is_ok() { 8 } else { QUOTED } * input.len();
            let said = said(done, |(_, spec)| format!("{:?}", spec.run));
            Run { said: said.chars().take(60).collect(), peak, bound: bound + TALK }
        },
    }
}

fn submit_target() -> Target {
    Target {
        name: "submit",
        what: "bodies that submit tasks",
        seeds: || {
            let all = specs();
            let lists = all.iter().map(|spec| [b"[", &spec[..], b"]"].concat());
            lists.chain(all.clone()).collect()
        },
        words: SPEC,
        make: Some(|rng| {
            let args = value(rng, 3);
            let one = format!(r#"{{"call":{{"function":"f","args":{args}}}}}"#);
            let most = (1 << 20) / one.len();
            format!("[{}]", vec![one; rng.random_range(0..300).min(most)].join(",")).into_bytes()
        }),
        run: |input| {
            let (done, peak) = measure(|| outlast_coordinator::fuzz::submit(input));
            let bound = 4 * Parts::of(input).weight() + QUOTED * input.len() + TALK;
            Run { said: said(done, |n| n.to_string()), peak, bound }
        },
    }
}

fn document_target() -> Target {
    Target {
        name: "document",
        what: "other documents of requests and answers",
        seeds: || {
            texts(&[
                r#"{"ids":["a","b"],"wait":5}"#,
                r#"{"type":"resend_task_results","task_ids":["a"]}"#,
                r#"{"type":"urn:x","title":"t","status":400,"detail":"d"}"#,
                &quoted("\u{7f}"),
            ])
        },
        words: WORDS,
        make: Some(|rng| value(rng, 3).into_bytes()),
        run: |input| {
            let limit = Limit { bytes: 1 << 20, weight: 4 << 20 };
            let read = || {
                let ids = limit.read::<api::WhichEnded>(input).map(drop);
                let act = limit.read::<api::WorkerAction>(input).map(drop);
                let problem = limit.read::<api::Problem>(input).map(drop);
                ids.or(act).or(problem)
            };
            let (done, peak) = measure(read);
            let bound = Parts::of(input).weight() + QUOTED * input.len() + TALK;
            Run { said: said(done, |()| "read".into()), peak, bound }
        },
    }
}

fn recovery_target() -> Target {
    Target {
        name: "recovery",
        what: "tables of recovery, in TOML",
        seeds: || {
            texts(&[
                "max_retries = 3\nbase_delay = 1.5\n[errors]\ndevice = [\"delayed_retry\"]\n",
                "jitter = 0.1\n[[patterns]]\npattern = \"x+\"\nclass = \"network\"\n",
            ])
        },
        words: &["[errors]\n", "[[patterns]]\n", "a = 1\n", "[", "]", "\"", "=", "\n", "{", "}"],
        make: None,
        run: |input| {
            let text = String::from_utf8_lossy(input).into_owned();
            let read = || toml::from_str::<outlast_wire::recovery::Recovery>(&text);
            let (done, peak) = measure(read);
            // The user's own file; its parser is not ours.
            Run {
                said: said(done, |_| "a table".into()),
                peak,
                bound: 2_000 * text.len() + (1 << 20),
            }
        },
    }
}

fn specs() -> Vec<Vec<u8>> {
    texts(&[
        r#"{"command":["true"]}"#,
        r#"{"shell":"cd x && python3 y.py {knob.b}","knobs":{"b":[1,2]},"env":{"A":"b"}}"#,
        r#"{"call":{"function":"f","args":{"a":[1,{"b":null}]}},"labels":{"l":"m"}}"#,
        r#"{"browser":{"script":"1"},"recovery":{"errors":{"device":["delayed_retry"]}},"id":"i"}"#,
        &quoted("a\u{7f}"),
        &quoted("\u{7f}"),
        &format!(r#"{{"shell":"a","slots":{}}}"#, quoted("\u{7f}")),
        &format!(r#"{{"shell":"a","recovery":{{"errors":{}}}}}"#, quoted("\u{7f}")),
    ])
}

/// A text where an object, or a number, belongs. The parser quotes it, in a text that has just doubled.
fn quoted(part: &str) -> String {
    format!("\"{}\"", part.repeat((171 << 10) / part.len()))
}

pub(super) fn v1_texts() -> Vec<Vec<u8>> {
    texts(&[
        r#"{"type":"registration","worker_id":"w","capabilities":{"gpu":{"name":"x"},"slots":2}}"#,
        r#"{"type":"registration","capabilities":["a","b"]}"#,
        r#"{"type":"heartbeat","sequence":3,"active_tasks":["t",{"task_id":"u"}]}"#,
        r#"{"type":"task_result","task_id":"t","result":{"a":NaN},"error":{"message":"m"}}"#,
        r#"{"type":"task_state","task_id":"t","state":{"progress":0.5,"a":null}}"#,
        r#"{"type":"checkpoint","task_id":"t","checkpoint_id":"c"}"#,
        r#"{"type":"checkpoint_data","task_id":"t","checkpoint_id":"c","data":{"step":1}}"#,
        r#"{"type":"checkpoint_error","task_id":"t","error":"none"}"#,
        r#"{"type":"task_cancelled","task_id":"t"}"#,
    ])
}

fn make_v1(rng: &mut SmallRng) -> Vec<u8> {
    let value = value(rng, 5);
    let field = ["capabilities", "active_tasks", "state", "error", "result", "data", "sequence"];
    let kind = ["registration", "heartbeat", "task_state", "task_result", "checkpoint_data"];
    let (field, kind) = (field[rng.random_range(0..7)], kind[rng.random_range(0..5)]);
    format!(r#"{{"type":"{kind}","task_id":"t","checkpoint_id":"c","{field}":{value}}}"#)
        .into_bytes()
}
