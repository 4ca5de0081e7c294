//! A task speaks for itself, and for no other.

use crate::fake::Fake;
use crate::{client, rest, word};
use outlast_worker::local::*;
use serde_json::{Map, json};
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

#[tokio::test]
async fn every_call_needs_the_token_of_its_attempt() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = Arc::new(Tokens::open(&dir.path().join("key"), []).unwrap());
    let config = Config { tokens: Some(tokens.clone()), ..Config::new(dir.path()) };
    let fake = Fake::new();
    let server = serve(config, fake.clone()).unwrap();
    let with = |epoch: u64| client(server.path(), "t", 2).token(Some(tokens.of("t", epoch)));
    let mine = with(2);
    let patch = json!({"a": 1}).as_object().unwrap().clone();
    mine.update_state(&patch).await.unwrap();
    std::fs::write(dir.path().join("file"), "mine").unwrap();
    let file = dir.path().join("file");
    mine.checkpoint(&file, None, Map::new()).await.unwrap();
    // Nothing of it for who has another attempt's token, or none.
    for (intruder, expected) in
        [(with(3), "not-yours"), (client(server.path(), "t", 2), "no-token")]
    {
        let bytes = || "forged".into();
        assert_eq!(word(intruder.info().await), expected);
        assert_eq!(word(intruder.state().await), expected);
        assert_eq!(word(intruder.update_state(&patch).await), expected);
        let said = Progress { progress: 0.5, message: None, data: Map::new() };
        assert_eq!(word(intruder.progress(&said).await), expected);
        assert_eq!(word(intruder.checkpoints().await), expected);
        assert_eq!(word(intruder.checkpoint(&file, None, Map::new()).await), expected);
        let made = intruder.checkpoint_bytes(bytes(), None, &Map::new()).await;
        assert_eq!(word(made), expected);
        let out = dir.path().join("out");
        assert_eq!(word(intruder.restore(&out, None, false).await), expected);
        assert!(!out.exists());
        let mut read = Vec::new();
        assert_eq!(word(intruder.data(None, &mut read).await), expected);
        assert!(read.is_empty());
        assert_eq!(word(intruder.artifact(&file, None).await), expected);
        let control = intruder.control(Control::default(), Default::default()).await;
        assert_eq!(word(control), expected);
    }
    assert_eq!(fake.checkpoints.lock().unwrap().len(), 1);
    assert!(fake.artifacts.lock().unwrap().is_empty());
    // The answer says what to send.
    let mut stream = UnixStream::connect(server.path()).await.unwrap();
    let request = "GET /v1/tasks/t/2 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    assert!(answer.contains("Authorization: Bearer $OUTLAST_TASK_TOKEN"), "{answer}");
}
