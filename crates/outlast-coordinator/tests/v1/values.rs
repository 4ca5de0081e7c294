//! Results that JSON parsers refuse or round: what was acknowledged is what is shown.

use super::client::join;
use super::common::*;
use super::{start, submit};
use serde_json::json;

fn text(answer: Answer) -> String {
    String::from_utf8(answer.body).unwrap()
}

#[tokio::test]
async fn a_result_is_shown_as_its_worker_wrote_it() {
    let (_dir, c) = start().await;
    let mut w = join(c.local_addr(), "w", json!({})).await;
    let deep = format!("{{\"x\":{}{}}}", "[".repeat(200), "]".repeat(200));
    let digits = format!("{{\"x\":{}}}", "7".repeat(401));
    let values = [r#"{"x":"\ud800"}"#, r#"{"x":1e400}"#, &digits, &deep, r#"{"x":1.00}"#, "{}"];
    let mut ids = Vec::new();
    for (n, value) in values.iter().enumerate() {
        let id = format!("t{n}");
        submit(&c, &id, json!({})).await;
        w.expect("task_assignment").await;
        let head = r#"{"worker_id":"w","timestamp":"x","type":"task_result","task_id":"#;
        w.text(format!(r#"{head}"{id}","result":{value}}}"#)).await.unwrap();
        w.expect("task_result_ack").await;
        let path = format!("/api/v1/tasks/{id}/result");
        let shown = text(send(&c, "GET", &path, "", b"").await);
        assert!(shown.contains(r#""state":"succeeded""#), "{shown}");
        assert!(shown.ends_with(&format!(r#","value":{value}}}"#)), "{shown}");
        ids.push(id);
    }
    let asked = json!({ "ids": ids }).to_string();
    let shown = text(send(&c, "POST", "/api/v1/results", "", asked.as_bytes()).await);
    for value in values {
        assert!(shown.contains(&format!(r#","value":{value}}}"#)), "{value} in {shown}");
    }
}
