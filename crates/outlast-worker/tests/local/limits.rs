//! Clients that are slow, excessive or wrong: they get an answer, and delay nobody else.

use crate::{Rig, client, rest, word};
use outlast_worker::local::Control;
use serde_json::Map;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

const UPLOAD: &str = "POST /v1/tasks/t/2/checkpoints HTTP/1.1\r\nhost: x\r\n";

#[tokio::test]
async fn slow_uploads_block_nobody_and_are_given_up() {
    let rig = Rig::start();
    let mut slow = Vec::new();
    for _ in 0..8 {
        let mut stream = UnixStream::connect(rig.server.path()).await.unwrap();
        let head = format!("{UPLOAD}content-length: 1000000\r\n\r\nabc");
        stream.write_all(head.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    let started = Instant::now();
    for _ in 0..20 {
        rig.client.state().await.unwrap();
    }
    rig.client.checkpoint_bytes(vec![1; 2 << 20].into(), None, &Map::new()).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(19), "{:?}", started.elapsed());
    for mut stream in slow {
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    }
    assert_eq!(std::fs::read_dir(rig.dir.path().join("tmp")).unwrap().count(), 0);
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    let rig = Rig::start();
    // Announced, and not.
    let (status, body) = rig.say(&format!("{UPLOAD}content-length: 99999999\r\n\r\n")).await;
    assert!(status == 413 && body.contains("8388608"), "{status} {body}");
    let mut stream = UnixStream::connect(rig.server.path()).await.unwrap();
    let head = format!("{UPLOAD}transfer-encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let writer = tokio::spawn(async move {
        let piece = vec![0; 1 << 20];
        for _ in 0..12 {
            if write.write_all(b"100000\r\n").await.is_err()
                || write.write_all(&piece).await.is_err()
                || write.write_all(b"\r\n").await.is_err()
            {
                return;
            }
        }
    });
    let mut answer = vec![0; 12];
    read.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 413");
    drop(read);
    writer.await.unwrap();
    let body = format!("{{\"x\": \"{}\"}}", "y".repeat(2 << 20));
    assert_eq!(rig.ask("PATCH", "t/2/state", "application/json", &body).await.0, 413);
    let big = vec![1; 20 << 20];
    assert_eq!(word(rig.client.checkpoint_bytes(big.into(), None, &Map::new()).await), "too-large");
    let long = "y".repeat(20_000);
    let meta = Map::from_iter([("x".to_owned(), long.clone().into())]);
    assert_eq!(word(rig.client.checkpoint_bytes("x".into(), None, &meta).await), "too-large");
    let head = format!("GET /v1/tasks/t/2 HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", long.repeat(4));
    assert_eq!(rig.say(&head).await.0, 431);
    rig.client.state().await.unwrap();
}

#[tokio::test]
async fn the_spool_has_a_budget() {
    let rig = Rig::start();
    // Two uploads of 7 MiB that do not end, in a budget of 12 MiB.
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut stream = UnixStream::connect(rig.server.path()).await.unwrap();
        streams.push(tokio::spawn(async move {
            let head = format!("{UPLOAD}content-length: 8000000\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            let _ = stream.write_all(&vec![0; 7 << 20]).await;
            rest(&mut stream).await
        }));
    }
    let mut answers = Vec::new();
    for stream in streams {
        answers.push(stream.await.unwrap());
    }
    let full = answers.iter().filter(|a| a.starts_with("HTTP/1.1 507")).count();
    assert!(full >= 1, "{answers:?}");
    assert!(answers.iter().any(|a| a.contains("retry-after: 5")));
    // All is given back.
    rig.client.checkpoint_bytes(vec![1; 8 << 20].into(), None, &Map::new()).await.unwrap();
    rig.client.checkpoint_bytes(vec![1; 8 << 20].into(), None, &Map::new()).await.unwrap();
}

#[tokio::test]
async fn too_many_connections_and_waits_are_told_to_come_back() {
    let rig = Rig::start();
    let path = rig.server.path().to_owned();
    let mut waits = Vec::new();
    for _ in 0..8 {
        let waiter = client(&path, "t", 2);
        let wait = async move { waiter.control(Control::default(), Duration::from_secs(30)).await };
        waits.push(tokio::spawn(wait));
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let hasty = client(&path, "t", 2).patience(Duration::ZERO);
    let ninth = hasty.control(Control::default(), Duration::from_secs(30)).await;
    assert_eq!(word(ninth), "unavailable");
    rig.client.state().await.unwrap();
    let mut idle = Vec::new();
    for _ in 0..8 {
        idle.push(UnixStream::connect(&path).await.unwrap());
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    // Their 503, or the end of a connection that nobody read from.
    assert!(hasty.state().await.is_err());
    drop(idle);
    rig.client.state().await.unwrap();
    rig.fake.control.send_modify(|control| control.cancel = true);
    for wait in waits {
        assert!(wait.await.unwrap().unwrap().cancel);
    }
}

#[tokio::test]
async fn a_caller_who_hangs_up_does_not_undo_a_checkpoint() {
    let rig = Rig::start();
    let file = rig.dir.path().join("f");
    std::fs::write(&file, vec![1; 4 << 20]).unwrap();
    let body = format!("{{\"path\": {:?}}}", file.display().to_string());
    let mut stream = UnixStream::connect(rig.server.path()).await.unwrap();
    let head = format!(
        "{UPLOAD}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(stream);
    let deadline = Instant::now() + Duration::from_secs(120);
    while rig.client.checkpoints().await.unwrap().is_empty() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_socket_that_was_removed_is_there_again_and_one_that_stays_away_is_named() {
    let rig = Rig::start();
    let path = rig.server.path().to_owned();
    std::fs::remove_file(&path).unwrap();
    // With a short timeout; the default is much longer.
    let state = rig.client.state().await;
    assert!(state.is_ok(), "{state:?}");
    // With its folder, as a tidied temporary one goes.
    let server = rig.server;
    server.shutdown().await;
    assert!(!path.exists());
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert!(!path.exists(), "one that has ended restores nothing");
    let client = rig.client.patience(std::time::Duration::from_secs(1));
    let error = client.state().await.unwrap_err().to_string();
    assert!(error.contains("its socket is not there"), "{error}");
}
