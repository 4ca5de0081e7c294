//! Keys of routes: the role that each needs. The routes are those of the OpenAPI document, which has
//! all (`openapi.rs` checks that), and those of workers: so no handler can be added without a role.

mod common;

use common::*;
use outlast_coordinator::{Coordinator, openapi};
use outlast_store::{Keys, Role};
use serde_json::Value;

/// Routes that need no key: they say nothing of tasks, or are how a browser comes by its session.
const OPEN: [&str; 8] = [
    "DELETE /api/v1/session",
    "GET /api/v1/info",
    "GET /api/v1/prove",
    "GET /api/v1/session",
    "GET /healthz",
    "GET /readyz",
    "POST /api/v1/session",
    "PUT /api/v1/probe",
];
/// Routes of the document that need an operator's key.
const OPERATE: [&str; 9] = [
    "DELETE /api/v1/workers/{name}",
    "POST /api/v1/recovery/allow",
    "POST /api/v1/recovery/forget",
    "POST /api/v1/workers/{name}/actions",
    "POST /api/v1/workers/{name}/drain",
    "POST /api/v1/workers/{name}/quarantine",
    "POST /api/v1/workers/{name}/release",
    "POST /api/v1/workers/{name}/unbind",
    "POST /api/v1/workers/{name}/undrain",
];
/// Routes of workers, which the document does not have.
const WORKER: [&str; 9] = [
    "GET /api/v1/worker/{name}/ws",
    "GET /api/v2/blobs/manifests/{hash}",
    "GET /api/v2/tasks/{id}/checkpoints",
    "GET /api/v2/worker/{name}/ws",
    "POST /api/v2/blobs/chunks",
    "POST /api/v2/blobs/missing",
    "PUT /api/v2/blobs/chunks",
    "PUT /api/v2/blobs/manifests/parts",
    "PUT /api/v2/blobs/manifests",
];
/// The routes of the document: method and path.
fn documented() -> Vec<String> {
    let document: Value = serde_json::from_str(&openapi()).unwrap();
    let mut all = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            all.push(format!("{} {path}", method.to_uppercase()));
        }
    }
    all.sort();
    assert!(all.len() > 40, "{all:?}");
    all
}

/// The status of an answer; parts of the path in braces are named `x`.
async fn status(c: &Coordinator, route: &str, key: &str) -> u16 {
    let (method, path) = route.split_once(' ').unwrap();
    let path: Vec<&str> =
        path.split('/').map(|part| if part.starts_with('{') { "x" } else { part }).collect();
    send(c, method, &path.join("/"), key, b"").await.status
}

#[tokio::test]
async fn every_route_asks_for_its_role() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let keys = Keys::open(&outlast_coordinator::Config::store_file(dir.path())).unwrap();
    let [worker, submit] =
        [Role::Worker, Role::Submit].map(|role| keys.add_key(role.as_str(), role).unwrap().token);
    let c = Coordinator::start(config).await.unwrap();
    let documented = documented();
    for route in OPEN.iter().chain(&OPERATE) {
        assert!(documented.iter().any(|known| known == route), "{route} is no route");
    }
    for route in &documented {
        let open = OPEN.contains(&route.as_str());
        let without = status(&c, route, "").await;
        assert_eq!(without == 401, !open, "{route} without a key: {without}");
        if open {
            continue;
        }
        assert_eq!(status(&c, route, "olk_000000000000_wrong").await, 401, "{route}");
        assert_eq!(status(&c, route, &worker).await, 403, "{route} with a worker's key");
        // A stream that may be read goes on.
        if route != "GET /api/v1/events" {
            let refused = status(&c, route, &submit).await == 403;
            assert_eq!(refused, OPERATE.contains(&route.as_str()), "{route} with a submitter's");
        }
    }
    for route in WORKER {
        assert_eq!(status(&c, route, "").await, 401, "{route} without a key");
        assert_eq!(status(&c, route, &submit).await, 403, "{route} with a submitter's key");
        let with = status(&c, route, &worker).await;
        assert!(with != 401 && with != 404 && with != 405, "{route} with a worker's key: {with}");
    }
    c.shutdown().await;
}
