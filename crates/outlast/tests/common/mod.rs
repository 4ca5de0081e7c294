// A coordinator and a worker within this process, for tests and for the examples of the documentation,
// which include this file.

use outlast::Client;
use outlast::worker::{TaskContext, Worker};
use outlast_coordinator::{Config, Coordinator};
use serde_json::{Map, Value, json};
use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

type Outcome = Result<(), Box<dyn Error>>;

/// Runs an example with the address of a coordinator, and a folder of its own.
#[allow(dead_code)]
pub fn with_coordinator(example: impl AsyncFnOnce(&str, &Path) -> Outcome) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let coordinator = Coordinator::start(config(&folder.path().join("data"))).await.unwrap();
        let url = format!("http://{}", coordinator.local_addr());
        example(&url, folder.path()).await.unwrap();
        coordinator.shutdown().await;
    });
}

/// Runs an example with a client of a coordinator. Its one worker, `w1`, has the functions `double` and
/// `train`; the latter keeps a checkpoint and an artifact, and reports a state.
#[allow(dead_code)]
pub fn with_worker(example: impl AsyncFnOnce(Client) -> Outcome) {
    with_coordinator(async |url, folder| {
        let client = Client::builder(url).build()?;
        let worker = Worker::builder(url, folder.join("w1"))
            .name("w1")
            .function("double", |task| Ok(json!(2 * task.args.as_i64().unwrap_or(0))))
            .function("train", |task| train(&task).map_err(|e| e.to_string()))
            .start()?;
        until("the worker to connect", async || worker.is_connected()).await;
        example(client).await?;
        worker.stop().await;
        Ok(())
    });
}

/// Waits until a condition holds.
#[allow(dead_code)]
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds().await {
        assert!(Instant::now() < deadline, "waited for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn config(data_dir: &Path) -> Config {
    Config {
        listen: ([127, 0, 0, 1], 0).into(),
        data_dir: data_dir.into(),
        tls: None,
        blobs: Default::default(),
        retention: Default::default(),
        core: Default::default(),
        ping: Default::default(),
        watch: Default::default(),
        connections: Default::default(),
    }
}

fn train(task: &TaskContext) -> Result<Value, Box<dyn Error>> {
    let meta = Map::from_iter([("step".to_owned(), json!(1))]);
    task.checkpoint("weights", meta)?;
    let notes = std::env::temp_dir().join(format!("{}.notes", task.task_id));
    std::fs::write(&notes, "it learns")?;
    task.artifact("notes.txt", &notes)?;
    std::fs::remove_file(&notes)?;
    task.progress(1.0)?;
    Ok(json!({ "loss": 0.5 }))
}
