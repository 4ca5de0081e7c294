//! Running tasks: requests to them, and their checkpoints, artifacts and states.

use crate::client::{Client, escape};
use crate::error::{Error, chain};
use futures_util::{Stream, StreamExt};
use outlast_wire::api::{ArtifactList, CheckpointList, Explanation, MoveTo, Task, TaskStateView};
use reqwest::Method;
use serde_json::Value;
use std::time::Duration;

/// Time that the data of one checkpoint may take.
const DOWNLOAD: Duration = Duration::from_secs(7 * 86_400);

/// The description of data, before it comes.
///
/// # Examples
/// ```
/// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
/// # common::with_worker(async |client| {
/// use outlast::{Call, NewTask, Run, TaskSpec};
///
/// let call = Call { function: "train".into(), args: serde_json::Value::Null };
/// let (task, _) = client.submit(&NewTask::new(TaskSpec::new(Run::Call(call)))).await?;
/// client.wait(&task.id).await?;
/// # common::until("the artifact", async || {
/// #     client.artifacts(&task.id).await.is_ok_and(|all| !all.artifacts.is_empty())
/// # }).await;
/// let (head, _) = client.artifact_data(&task.id, "notes.txt", 0).await?;
/// assert_eq!(head.size, 9);
/// # Ok(())
/// # });
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct DataHead {
    /// The checkpoint's id, or that of the artifact's record.
    pub id: String,
    /// The size of all of it, in bytes.
    pub size: u64,
    /// The metadata of its checkpoint.
    pub meta: Value,
}

impl Client {
    /// Pauses a task: one that runs is stopped where it is, one that waits is not assigned.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// # Examples
    /// ```
    /// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
    /// # common::with_worker(async |client| {
    /// use outlast::{NewTask, Run, TaskSpec};
    ///
    /// let spec = TaskSpec::new(Run::Command(vec!["sleep".into(), "60".into()]));
    /// let (task, _) = client.submit(&NewTask::new(spec)).await?;
    /// let task = client.pause(&task.id).await?;
    /// println!("{} is {} and paused: {}", task.id, task.state, task.paused);
    /// # client.cancel(&task.id).await?;
    /// # Ok(())
    /// # });
    /// ```
    pub async fn pause(&self, id: &str) -> Result<Task, Error> {
        self.post(&format!("/api/v1/tasks/{}/pause", escape(id))).await
    }

    /// Lets a paused task go on.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// # Examples
    /// ```
    /// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
    /// # common::with_worker(async |client| {
    /// use outlast::{NewTask, Run, TaskSpec};
    ///
    /// let spec = TaskSpec::new(Run::Command(vec!["sleep".into(), "60".into()]));
    /// let (task, _) = client.submit(&NewTask::new(spec)).await?;
    /// client.pause(&task.id).await?;
    /// let task = client.resume(&task.id).await?;
    /// assert!(!task.state.is_terminal());
    /// # client.cancel(&task.id).await?;
    /// # Ok(())
    /// # });
    /// ```
    pub async fn resume(&self, id: &str) -> Result<Task, Error> {
        self.post(&format!("/api/v1/tasks/{}/resume", escape(id))).await
    }

    /// Requests a checkpoint of a task.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// # Examples
    /// ```
    /// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
    /// # common::with_worker(async |client| {
    /// use outlast::{NewTask, Run, TaskSpec};
    ///
    /// let spec = TaskSpec::new(Run::Command(vec!["sleep".into(), "60".into()]));
    /// let (task, _) = client.submit(&NewTask::new(spec)).await?;
    /// # common::until("the task to start", async || {
    /// #     client.task(&task.id).await.is_ok_and(|task| task.started_at.is_some())
    /// # }).await;
    /// let task = client.ask_checkpoint(&task.id).await?;
    /// assert_eq!(task.worker.as_deref(), Some("w1"));
    /// # client.cancel(&task.id).await?;
    /// # Ok(())
    /// # });
    /// ```
    pub async fn ask_checkpoint(&self, id: &str) -> Result<Task, Error> {
        self.post(&format!("/api/v1/tasks/{}/checkpoint", escape(id))).await
    }

    /// Lets a task go on at this worker, or at any but the one that has it.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// # Examples
    /// ```
    /// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
    /// # common::with_worker(async |client| {
    /// use outlast::{NewTask, Run, TaskSpec};
    ///
    /// let spec = TaskSpec::new(Run::Command(vec!["sleep".into(), "60".into()]));
    /// let (task, _) = client.submit(&NewTask::new(spec)).await?;
    /// let error = client.move_task(&task.id, Some("no-such-worker")).await.unwrap_err();
    /// assert_eq!(error.status(), Some(404));
    /// # client.cancel(&task.id).await?;
    /// # Ok(())
    /// # });
    /// ```
    pub async fn move_task(&self, id: &str, to: Option<&str>) -> Result<Task, Error> {
        let path = format!("/api/v1/tasks/{}/move", escape(id));
        let body = MoveTo { to: to.map(ToOwned::to_owned) };
        let send = || self.request(Method::POST, &path).json(&body);
        self.read(self.send(send).await?).await
    }

    /// The checkpoints of a task, also those that are not kept any more.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// # Examples
    /// ```
    /// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
    /// # common::with_worker(async |client| {
    /// use outlast::{Call, NewTask, Run, TaskSpec};
    ///
    /// let call = Call { function: "train".into(), args: serde_json::Value::Null };
    /// let (task, _) = client.submit(&NewTask::new(TaskSpec::new(Run::Call(call)))).await?;
    /// client.wait(&task.id).await?;
    /// # common::until("the checkpoint", async || {
    /// #     client.checkpoints(&task.id).await.is_ok_and(|all| !all.checkpoints.is_empty())
    /// # }).await;
    /// let list = client.checkpoints(&task.id).await?;
    /// assert_eq!(list.checkpoints[0].meta["user"]["step"], 1);
    /// # Ok(())
    /// # });
    /// ```
    pub async fn checkpoints(&self, id: &str) -> Result<CheckpointList, Error> {
        self.get(&format!("/api/v1/tasks/{}/checkpoints", escape(id))).await
    }

    /// The files that a task kept for its result.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// # Examples
    /// ```
    /// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
    /// # common::with_worker(async |client| {
    /// use outlast::{Call, NewTask, Run, TaskSpec};
    ///
    /// let call = Call { function: "train".into(), args: serde_json::Value::Null };
    /// let (task, _) = client.submit(&NewTask::new(TaskSpec::new(Run::Call(call)))).await?;
    /// client.wait(&task.id).await?;
    /// # common::until("the artifact", async || {
    /// #     client.artifacts(&task.id).await.is_ok_and(|all| !all.artifacts.is_empty())
    /// # }).await;
    /// let list = client.artifacts(&task.id).await?;
    /// assert_eq!(list.artifacts[0].artifact.as_deref(), Some("notes.txt"));
    /// # Ok(())
    /// # });
    /// ```
    pub async fn artifacts(&self, id: &str) -> Result<ArtifactList, Error> {
        self.get(&format!("/api/v1/tasks/{}/artifacts", escape(id))).await
    }

    /// The state that a task reported last.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// # Examples
    /// ```
    /// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
    /// # common::with_worker(async |client| {
    /// use outlast::{Call, NewTask, Run, TaskSpec};
    ///
    /// let call = Call { function: "train".into(), args: serde_json::Value::Null };
    /// let (task, _) = client.submit(&NewTask::new(TaskSpec::new(Run::Call(call)))).await?;
    /// client.wait(&task.id).await?;
    /// # common::until("the state", async || {
    /// #     client.task_state(&task.id).await.is_ok_and(|state| state.progress.is_some())
    /// # }).await;
    /// let state = client.task_state(&task.id).await?;
    /// assert_eq!(state.progress, Some(1.0));
    /// # Ok(())
    /// # });
    /// ```
    pub async fn task_state(&self, id: &str) -> Result<TaskStateView, Error> {
        self.get(&format!("/api/v1/tasks/{}/state", escape(id))).await
    }

    /// The explanation of a task in sentences.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// # Examples
    /// ```
    /// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
    /// # common::with_worker(async |client| {
    /// use outlast::{NewTask, Run, TaskSpec};
    ///
    /// let spec = TaskSpec::new(Run::Command(vec!["echo".into(), "hello".into()]));
    /// let (task, _) = client.submit(&NewTask::new(spec)).await?;
    /// client.wait(&task.id).await?;
    /// let story = client.explain(&task.id).await?;
    /// println!("{}\n{}", story.sentences.join("\n"), story.now);
    /// assert!(story.now.contains("succeeded"));
    /// # Ok(())
    /// # });
    /// ```
    pub async fn explain(&self, id: &str) -> Result<Explanation, Error> {
        self.get(&format!("/api/v1/tasks/{}/explain", escape(id))).await
    }

    /// The data of a checkpoint from `offset` on: `latest`, or its id such as `2-14`.
    ///
    /// # Errors
    /// See [`Error`]. A stream that breaks off can be requested again from where it ended.
    ///
    /// # Examples
    /// ```
    /// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
    /// # common::with_worker(async |client| {
    /// use futures_util::StreamExt;
    /// use outlast::{Call, NewTask, Run, TaskSpec};
    ///
    /// let call = Call { function: "train".into(), args: serde_json::Value::Null };
    /// let (task, _) = client.submit(&NewTask::new(TaskSpec::new(Run::Call(call)))).await?;
    /// client.wait(&task.id).await?;
    /// # common::until("the checkpoint", async || {
    /// #     client.checkpoints(&task.id).await.is_ok_and(|all| !all.checkpoints.is_empty())
    /// # }).await;
    /// let (head, data) = client.checkpoint_data(&task.id, "latest", 0).await?;
    /// let mut data = std::pin::pin!(data);
    /// let mut bytes = Vec::new();
    /// while let Some(part) = data.next().await {
    ///     bytes.extend(part?);
    /// }
    /// assert_eq!((head.size, &bytes[..]), (7, &b"weights"[..]));
    /// # Ok(())
    /// # });
    /// ```
    pub async fn checkpoint_data(
        &self,
        id: &str,
        which: &str,
        offset: u64,
    ) -> Result<(DataHead, impl Stream<Item = Result<Vec<u8>, Error>> + use<>), Error> {
        let path = format!("/api/v1/tasks/{}/checkpoints/{}/data", escape(id), escape(which));
        self.data(&path, offset).await
    }

    /// The content of a file that a task kept for its result, from `offset` on.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// # Examples
    /// ```
    /// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
    /// # common::with_worker(async |client| {
    /// use futures_util::StreamExt;
    /// use outlast::{Call, NewTask, Run, TaskSpec};
    ///
    /// let call = Call { function: "train".into(), args: serde_json::Value::Null };
    /// let (task, _) = client.submit(&NewTask::new(TaskSpec::new(Run::Call(call)))).await?;
    /// client.wait(&task.id).await?;
    /// # common::until("the artifact", async || {
    /// #     client.artifacts(&task.id).await.is_ok_and(|all| !all.artifacts.is_empty())
    /// # }).await;
    /// let (_, data) = client.artifact_data(&task.id, "notes.txt", 3).await?;
    /// let mut data = std::pin::pin!(data);
    /// let mut bytes = Vec::new();
    /// while let Some(part) = data.next().await {
    ///     bytes.extend(part?);
    /// }
    /// assert_eq!(bytes, b"learns");
    /// # Ok(())
    /// # });
    /// ```
    pub async fn artifact_data(
        &self,
        id: &str,
        name: &str,
        offset: u64,
    ) -> Result<(DataHead, impl Stream<Item = Result<Vec<u8>, Error>> + use<>), Error> {
        let path = format!("/api/v1/tasks/{}/artifacts/{}/data", escape(id), escape(name));
        self.data(&path, offset).await
    }

    async fn data(
        &self,
        path: &str,
        offset: u64,
    ) -> Result<(DataHead, impl Stream<Item = Result<Vec<u8>, Error>> + use<>), Error> {
        let send = || {
            let request = self.request(Method::GET, path).timeout(DOWNLOAD);
            match offset {
                0 => request,
                n => request.header("range", format!("bytes={n}-")),
            }
        };
        let response = self.send(send).await?;
        let text = |name: &str| {
            let value = response.headers().get(name);
            value.map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned()).unwrap_or_default()
        };
        let ranged = text("content-range");
        let size = match ranged.rsplit_once('/') {
            Some((_, all)) => all.parse().ok(),
            None => response.content_length(),
        };
        let url = self.url().to_owned();
        let strange = |why: &str| Error::Strange { url: url.clone(), why: why.into() };
        let size = size.ok_or_else(|| strange("it does not say how long the data is"))?;
        if offset > 0 && ranged.is_empty() {
            return Err(strange("it cannot go on within the data"));
        }
        let meta = serde_json::from_str(&text("outlast-checkpoint-meta")).unwrap_or_default();
        let head = DataHead { id: text("outlast-checkpoint"), size, meta };
        let data = response.bytes_stream().map(move |part| match part {
            Ok(bytes) => Ok(bytes.to_vec()),
            Err(e) => Err(Error::Unreachable { url: url.clone(), why: chain(&e) }),
        });
        Ok((head, data))
    }
}
