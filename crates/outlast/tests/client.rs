//! The client against a coordinator, and against others.

mod common;

use common::{until, with_coordinator, with_worker};
use futures_util::StreamExt;
use outlast::api::WorkerAction;
use outlast::{Call, Client, Error, NewTask, Run, TaskQuery, TaskSpec, TaskState};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

fn call(function: &str, args: Value) -> NewTask {
    NewTask::new(TaskSpec::new(Run::Call(Call { function: function.into(), args })))
}

fn shell(line: &str) -> NewTask {
    NewTask::new(TaskSpec::new(Run::Shell(line.into())))
}

#[test]
fn a_thousand_tasks_are_submitted_once_and_all_end() {
    with_worker(async |client| {
        let tasks: Vec<_> = (0..1000).map(|n| call("double", json!(n))).collect();
        let first = client.submit_all(&tasks).await?;
        assert!(first.iter().all(|task| task.created));
        let again = client.submit_all(&tasks).await?;
        assert!(again.iter().all(|task| !task.created));
        let mut left: Vec<String> = tasks.iter().map(|task| task.id.clone()).collect();
        while !left.is_empty() {
            let ended = client.results(&left, 30).await?;
            assert!(ended.unknown.is_empty());
            for result in ended.results {
                let n = tasks.iter().position(|task| task.id == result.id).unwrap();
                assert_eq!(result.value.get(), (2 * n).to_string());
                left.retain(|id| *id != result.id);
            }
        }
        assert_eq!(client.counts().await?.succeeded, 1000);
        Ok(())
    });
}

#[test]
fn pages_of_tasks_follow_each_other() {
    with_coordinator(async |url, _| {
        let client = Client::builder(url).build()?;
        let tasks: Vec<_> = (0..7).map(|_| shell("true")).collect();
        client.submit_all(&tasks).await?;
        let mut query = TaskQuery {
            states: vec!["pending".into()],
            limit: Some(3),
            oldest: true,
            ..Default::default()
        };
        let mut seen = Vec::new();
        loop {
            let page = client.tasks(&query).await?;
            seen.extend(page.tasks.into_iter().map(|task| (task.id, task.state)));
            match page.next {
                Some(next) => query.cursor = Some(next),
                None => break,
            }
        }
        let all: Vec<_> = tasks.into_iter().map(|t| (t.id, TaskState::Pending)).collect();
        assert_eq!(seen, all);
        Ok(())
    });
}

#[test]
fn a_refusal_is_a_problem_with_a_word() {
    with_worker(async |client| {
        let task = shell("true");
        client.submit(&task).await?;
        let other = NewTask { id: task.id.clone(), ..shell("false") };
        match client.submit(&other).await.unwrap_err() {
            Error::Problem(problem) => {
                assert_eq!((problem.word(), problem.status), ("id-taken", 409));
                assert_eq!(problem.conflicts, [task.id]);
            }
            error => panic!("{error}"),
        }
        let action = WorkerAction::ResetConnectionStats;
        assert_eq!(client.act("no-such-worker", &action).await.unwrap_err().status(), Some(404));
        Ok(())
    });
}

#[test]
fn what_a_function_kept_is_read_from_any_offset() {
    with_worker(async |client| {
        let (task, _) = client.submit(&call("train", Value::Null)).await?;
        let result = client.wait(&task.id).await?;
        assert_eq!(result.state, TaskState::Succeeded, "{}", result.message);
        until("the checkpoint", async || {
            client.checkpoints(&task.id).await.is_ok_and(|all| !all.checkpoints.is_empty())
        })
        .await;
        let list = client.checkpoints(&task.id).await?.checkpoints;
        assert_eq!(list.len(), 1, "{list:#?}");
        assert_eq!(list[0].meta["user"]["step"], 1, "{list:#?}");
        let (head, data) = client.checkpoint_data(&task.id, &list[0].id, 3).await?;
        assert_eq!((head.size, &head.meta["user"]), (7, &json!({ "step": 1 })));
        let parts: Vec<_> = data.collect().await;
        let bytes: Vec<u8> = parts.into_iter().flat_map(Result::unwrap).collect();
        assert_eq!(bytes, b"ghts");
        Ok(())
    });
}

/// Answers each connection with the next of these bodies; the last one again and again.
async fn answering(bodies: &'static [(u16, &'static str)]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for n in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let (status, body) = bodies[n.min(bodies.len() - 1)];
            let answer = format!(
                "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
                 connection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    url
}

#[tokio::test]
async fn an_unknown_state_is_an_error_that_names_it_and_an_unknown_cause_is_none() {
    const TASK: &str = r#"{"id":"t","number":1,"state":"succeeded","spec":{"shell":"true"},"attempt":1,
        "retries":0,"cancelling":false,"submitted_at":"","has_result":true,"cause":"newer","colour":3}"#;
    let client = Client::builder(&answering(&[(200, TASK)]).await).build().unwrap();
    let task = client.task("t").await.unwrap();
    assert_eq!((task.state, task.cause), (TaskState::Succeeded, outlast::Cause::Unspecified));
    const PARKED: &str = r#"{"id":"t","attempt":1,"state":"parked"}"#;
    let client = Client::builder(&answering(&[(200, PARKED)]).await).build().unwrap();
    let error = client.wait("t").await.unwrap_err().to_string();
    assert!(error.contains("unknown task state \"parked\""), "{error}");
}

#[tokio::test]
async fn an_overloaded_coordinator_is_asked_again_and_the_outage_reported() {
    const BUSY: (u16, &str) =
        (503, r#"{"type":"urn:outlast:problem:busy","title":"busy","status":503}"#);
    const INFO: (u16, &str) =
        (200, r#"{"pending":1,"assigned":0,"succeeded":0,"failed":0,"cancelled":0,"total":1}"#);
    let notices = Arc::new(Mutex::new(Vec::new()));
    let heard = notices.clone();
    let client = Client::builder(&answering(&[BUSY, BUSY, INFO]).await)
        .on_outage(move |why| heard.lock().unwrap().push(why.map(ToOwned::to_owned)))
        .build()
        .unwrap();
    assert_eq!(client.counts().await.unwrap().pending, 1);
    assert_eq!(*notices.lock().unwrap(), [Some("busy".to_owned()), None]);
    let client = Client::builder(&answering(&[BUSY]).await).patience(Duration::ZERO);
    let error = client.build().unwrap().counts().await.unwrap_err();
    assert_eq!(error.status(), Some(503));
}
