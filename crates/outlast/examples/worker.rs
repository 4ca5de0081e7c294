//! A worker in a Rust program. Its function counts to a thousand, keeps a checkpoint every
//! hundred steps, and goes on from the newest one wherever it is run again.
//!
//! ```text
//! outlast coordinator &
//! cargo run -p outlast --example worker -- /tmp/counter &
//! curl -d '{"call":{"function":"count","args":{"to":1000}}}' localhost:7117/api/v1/tasks
//! ```

use outlast::worker::{TaskContext, Worker};
use serde_json::{Map, Value, json};
use std::time::Duration;

fn count(task: TaskContext) -> Result<Value, String> {
    let to = task.args["to"].as_u64().unwrap_or(1000);
    let mut done = 0;
    if let Some(mut checkpoint) = task.latest_checkpoint().map_err(|e| e.to_string())? {
        let saved: Value =
            serde_json::from_reader(&mut checkpoint.body).map_err(|e| e.to_string())?;
        done = saved["done"].as_u64().unwrap_or(0);
    }
    let began = done;
    while done < to {
        if !task.wait_while_paused() {
            return Err("stopped".into());
        }
        std::thread::sleep(Duration::from_millis(10));
        done += 1;
        if done % 100 == 0 {
            let data = json!({ "done": done }).to_string();
            task.checkpoint(data, Map::new()).map_err(|e| e.to_string())?;
            task.progress(done as f64 / to as f64).map_err(|e| e.to_string())?;
        }
    }
    Ok(json!({ "counted": done, "went_on_from": began }))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let state = std::env::args().nth(1).ok_or("give a folder for the worker's state")?;
    let worker = Worker::builder("http://127.0.0.1:7117", state)
        .name("counter")
        .slots(4)
        .function("count", count)
        .start()?;
    tokio::signal::ctrl_c().await?;
    println!("finishing what runs…");
    println!("{}", worker.drain().await.reason);
    Ok(())
}
