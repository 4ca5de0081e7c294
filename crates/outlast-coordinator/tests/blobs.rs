//! Blobs over HTTP: what travels, what is refused, and what a collection spares.

mod common;

use common::*;
use outlast_blob::Hash;
use outlast_coordinator::{BlobConfig, Config, Coordinator};
use outlast_store::{Keys, Role};
use outlast_wire::blobframe::{self, Decoder};
use outlast_wire::v2::{self, Lane, outbox_item};
use serde_json::json;
use std::time::{Duration, Instant};

const CHUNKS: &str = "/api/v2/blobs/chunks";
const MANIFESTS: &str = "/api/v2/blobs/manifests";

fn hashes(bytes: &[u8]) -> Vec<Hash> {
    bytes.as_chunks::<32>().0.iter().map(|h| Hash::from_bytes(*h)).collect()
}

#[tokio::test]
async fn a_blob_comes_in_parts_and_goes_out_again() {
    let dir = tempfile::tempdir().unwrap();
    let c = Coordinator::start(config(dir.path())).await.unwrap();
    let data = noise(3 << 20, 1);
    let (frames, manifest) = packed(&data);
    let all: Vec<u8> = frames.iter().flat_map(|(h, _)| *h.as_bytes()).collect();
    let missing = async || send(&c, "POST", "/api/v2/blobs/missing", "", &all).await.body;
    assert_eq!(missing().await, all);
    // The manifest is refused until its chunks are here, and names those that are not.
    let half = frames.len() / 2;
    let body =
        |part: &[(Hash, Vec<u8>)]| part.iter().flat_map(|(_, f)| f.clone()).collect::<Vec<u8>>();
    let sent = send(&c, "PUT", CHUNKS, "", &body(&frames[..half])).await;
    assert_eq!((sent.status, sent.header("outlast-new-chunks")), (200, Some(&*half.to_string())));
    let early = send(&c, "PUT", MANIFESTS, "", &manifest).await;
    assert_eq!(early.status, 409);
    assert_eq!(early.header("content-type"), Some("application/octet-stream"));
    let rest: Vec<Hash> = frames[half..].iter().map(|(h, _)| *h).collect();
    assert_eq!(hashes(&early.body), rest);
    assert_eq!(hashes(&missing().await), rest);
    let name = Hash::of(&manifest);
    assert_eq!(get(&c, &format!("{MANIFESTS}/{name}")).await.0, 404);
    // All of it twice: the second time nothing is new.
    for new in [frames.len() - half, 0] {
        let sent = send(&c, "PUT", CHUNKS, "", &body(&frames)).await;
        assert_eq!(sent.header("outlast-new-chunks"), Some(&*new.to_string()));
    }
    for _ in 0..2 {
        assert_eq!(send(&c, "PUT", MANIFESTS, "", &manifest).await.status, 204);
    }
    c.shutdown().await;
    // What was answered is durable.
    let c = Coordinator::start(config(dir.path())).await.unwrap();
    assert_eq!(send(&c, "GET", &format!("{MANIFESTS}/{name}"), "", b"").await.body, manifest);
    let got = send(&c, "POST", CHUNKS, "", &all).await;
    let mut decoder = Decoder::default();
    decoder.push(&got.body);
    let mut back = Vec::new();
    while let Some(frame) = decoder.next().unwrap() {
        back.push(Hash::from_bytes(frame.hash));
    }
    decoder.end().unwrap();
    assert_eq!(back, hashes(&all));
    assert_eq!(got.body, body(&frames));
    let unknown = [all.clone(), vec![7; 32]].concat();
    let lacking = send(&c, "POST", CHUNKS, "", &unknown).await;
    assert_eq!((lacking.status, lacking.body), (404, vec![7; 32]));
    c.shutdown().await;
}

#[tokio::test]
async fn a_manifest_comes_in_parts_where_it_is_too_large_for_the_way() {
    const PARTS: &str = "/api/v2/blobs/manifests/parts";
    let dir = tempfile::tempdir().unwrap();
    let c = Coordinator::start(config(dir.path())).await.unwrap();
    let (frames, manifest) = packed(&noise(3 << 20, 2));
    let (mut names, mut bodies) = (Vec::new(), Vec::new());
    for part in manifest.chunks(100) {
        let hash = Hash::of(part);
        blobframe::encode(hash.as_bytes(), part.len() as u32, false, part, &mut bodies);
        names.extend_from_slice(hash.as_bytes());
    }
    let early = send(&c, "PUT", PARTS, "", &names).await;
    assert_eq!((early.status, hashes(&early.body)), (409, hashes(&names)), "no part is there");
    assert_eq!(send(&c, "PUT", CHUNKS, "", &bodies).await.status, 200);
    // As with one that comes whole: what it names must be there first.
    let early = send(&c, "PUT", PARTS, "", &names).await;
    let chunks: Vec<Hash> = frames.iter().map(|(h, _)| *h).collect();
    assert_eq!((early.status, hashes(&early.body)), (409, chunks));
    let all: Vec<u8> = frames.into_iter().flat_map(|(_, frame)| frame).collect();
    assert_eq!(send(&c, "PUT", CHUNKS, "", &all).await.status, 200);
    assert_eq!(send(&c, "PUT", PARTS, "", &names).await.status, 204);
    let path = format!("{MANIFESTS}/{}", Hash::of(&manifest));
    assert_eq!(send(&c, "GET", &path, "", b"").await.body, manifest);
    assert_eq!(send(&c, "PUT", PARTS, "", &names[..64]).await.status, 400, "no manifest");
    c.shutdown().await;
}

#[tokio::test]
async fn what_is_no_blob_is_refused_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let c = Coordinator::start(config(dir.path())).await.unwrap();
    let (frames, manifest) = packed(b"some data");
    let (hash, good) = &frames[0];
    let put = async |body: &[u8]| {
        let answer = send(&c, "PUT", CHUNKS, "", body).await;
        (answer.status, answer.json()["detail"].as_str().unwrap_or_default().to_owned())
    };
    let (status, why) = put(&good[..good.len() - 1]).await;
    assert_eq!(status, 400, "{why}");
    let mut lie = good.clone();
    *lie.last_mut().unwrap() ^= 1;
    let (status, why) = put(&lie).await;
    assert!(status == 400 && why.contains(&hash.to_string()), "{status} {why}");
    let mut head = good.clone();
    head[37..41].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(put(&head).await.0, 400);
    assert_eq!(put(&[0; 41]).await.0, 400, "a chunk of nothing");
    // Too much, of frames that are sound.
    let many = good.repeat(blobframe::MAX_BODY / good.len() + 1);
    assert_eq!(put(&many).await.0, 413);
    assert_eq!(send(&c, "PUT", MANIFESTS, "", b"no manifest").await.status, 400);
    assert_eq!(send(&c, "PUT", MANIFESTS, "", &manifest).await.status, 409, "nothing was kept");
    for (method, path, body) in [
        ("POST", "/api/v2/blobs/missing", vec![0; 33]),
        ("POST", CHUNKS, vec![0; 31]),
        ("GET", "/api/v2/blobs/manifests/xyz", vec![]),
    ] {
        assert_eq!(send(&c, method, path, "", &body).await.status, 400, "{method} {path}");
    }
    let too_many = vec![0; 32 * (blobframe::MAX_WANTED + 1)];
    assert_eq!(send(&c, "POST", CHUNKS, "", &too_many).await.status, 413);
    let too_many = vec![0; 32 * (blobframe::MAX_HASHES + 1)];
    assert_eq!(send(&c, "POST", "/api/v2/blobs/missing", "", &too_many).await.status, 413);
    c.shutdown().await;
}

#[tokio::test]
async fn a_full_shelf_says_so_and_workers_only_may_use_it() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = BlobConfig { budget: Some(2 << 20), ..Default::default() };
    let c = Coordinator::start(Config { blobs, ..config(dir.path()) }).await.unwrap();
    let (frames, _) = packed(&noise(4 << 20, 2));
    let body: Vec<u8> = frames.iter().flat_map(|(_, f)| f.clone()).collect();
    let full = send(&c, "PUT", CHUNKS, "", &body).await;
    assert_eq!((full.status, full.header("retry-after")), (507, Some("30")));
    assert_eq!(full.json()["type"], "urn:outlast:problem:blobs-full");
    let (_, metrics) = get(&c, "/metrics").await;
    let metrics = metrics.as_str().unwrap();
    assert!(metrics.contains("outlast_blob_refused_total 1"), "{metrics}");
    let keys = Keys::open(&Config::store_file(dir.path())).unwrap();
    let submit = keys.add_key("s", Role::Submit).unwrap().token;
    let worker = keys.add_key("w", Role::Worker).unwrap().token;
    let boss = keys.add_key("b", Role::Operate).unwrap().token;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    // A worker's key without the session of a connected worker reads nothing.
    let keys = [("", 401), (submit.as_str(), 403), (worker.as_str(), 403), (boss.as_str(), 200)];
    for (key, status) in keys {
        assert_eq!(send(&c, "POST", "/api/v2/blobs/missing", key, b"").await.status, status);
        // There is no such task.
        let status = if status == 200 { 404 } else { status };
        assert_eq!(send(&c, "GET", "/api/v2/tasks/t/checkpoints", key, b"").await.status, status);
    }
    c.shutdown().await;
}

#[tokio::test]
async fn a_collection_spares_what_checkpoints_refer_to() {
    let dir = tempfile::tempdir().unwrap();
    // Longer than a busy machine takes from an upload to its checkpoint.
    let (grace, collect_every) = (Duration::from_millis(1500), Duration::from_millis(400));
    let blobs = BlobConfig { grace, collect_every, ..Default::default() };
    let c = Coordinator::start(Config { blobs, ..config(dir.path()) }).await.unwrap();
    let lost = upload(&c, &noise(300_000, 4)).await;
    let task = json!({ "id": "t", "command": ["x"], "keep_checkpoints": { "last": 1 } });
    post(&c, "/api/v1/tasks", &task).await;
    let mut worker = FakeWorker::join(&c, hello("w", "s", 1), vec![]).await;
    assert_eq!(worker.assigned().await.len(), 1);
    let checkpoint = |number, manifest: Hash| {
        outbox_item::Kind::Checkpoint(v2::Checkpoint {
            task_id: "t".into(),
            epoch: 1,
            number,
            manifest: manifest.as_bytes().to_vec().into(),
            size: 300_000,
            ..Default::default()
        })
    };
    let kept = upload(&c, &noise(300_000, 3)).await;
    worker.report(Lane::Checkpoints, checkpoint(1, kept)).await;
    let gone = async |of: Hash| get(&c, &format!("{MANIFESTS}/{of}")).await.0 == 404;
    // Looking pins it: so not too often.
    let patience = Instant::now();
    tokio::time::sleep(2 * grace).await;
    while !gone(lost).await {
        assert!(patience.elapsed() < Duration::from_secs(120));
        tokio::time::sleep(2 * grace).await;
    }
    let data = send(&c, "GET", "/api/v1/tasks/t/checkpoints/latest/data", "", b"").await;
    assert_eq!((data.status, data.body.len()), (200, 300_000));
    // What was kept until just now may be on its way to a worker.
    let newer = upload(&c, &noise(300_000, 5)).await;
    worker.report(Lane::Checkpoints, checkpoint(2, newer)).await;
    tokio::time::sleep(2 * grace).await;
    assert!(!gone(kept).await && !gone(newer).await);
    let (_, metrics) = get(&c, "/metrics").await;
    let metrics = metrics.as_str().unwrap();
    assert!(metrics.contains("outlast_blob_collected_total{what=\"manifests\"} 1"), "{metrics}");
    c.shutdown().await;
}
