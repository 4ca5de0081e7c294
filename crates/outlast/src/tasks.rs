//! Tasks: submitted, listed, waited for, cancelled.

use crate::client::{Client, OnCut, escape};
use crate::error::Error;
use outlast_wire::TaskSpec;
use outlast_wire::api::{
    CountsView, EndedTasks, History, MAX_BATCH, MAX_BODY, Submitted, SubmittedTask, Task, TaskList,
    TaskResult, WhichEnded,
};
use reqwest::{Method, StatusCode};
use serde::Serialize;

/// Seconds that one request waits for a result.
const WAIT: u64 = 30;
/// Size above which a body that was cut on its way may have been too large for a proxy, in bytes.
const SUSPECT: usize = 64 << 10;
/// A task to submit.
///
/// # Examples
/// ```
/// use outlast::{NewTask, Run, TaskSpec};
///
/// let mut spec = TaskSpec::new(Run::Shell("make test".into()));
/// spec.timeout = Some(600.0);
/// let task = NewTask { id: "nightly:42".into(), spec };
/// assert_eq!(task.spec.max_retries, 3);
/// ```
#[derive(Debug, Clone, Serialize)]
pub struct NewTask {
    /// The id; the same id and spec submitted again is the same task.
    pub id: String,
    /// The work to run.
    #[serde(flatten)]
    pub spec: TaskSpec,
}

impl NewTask {
    /// A task with a new id.
    ///
    /// # Examples
    /// ```
    /// use outlast::{NewTask, Run, TaskSpec};
    ///
    /// let spec = TaskSpec::new(Run::Shell("make test".into()));
    /// assert_ne!(NewTask::new(spec.clone()).id, NewTask::new(spec).id);
    /// ```
    pub fn new(spec: TaskSpec) -> Self {
        NewTask { id: uuid::Uuid::now_v7().to_string(), spec }
    }
}

/// A query of tasks.
///
/// # Examples
/// ```
/// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
/// # common::with_worker(async |client| {
/// use outlast::{NewTask, Run, TaskQuery, TaskSpec};
///
/// let spec = TaskSpec::new(Run::Command(vec!["echo".into(), "hello".into()]));
/// let (task, _) = client.submit(&NewTask::new(spec)).await?;
/// let query = TaskQuery { states: vec!["pending".into()], limit: Some(10), ..Default::default() };
/// println!("{} of the newest tasks wait", client.tasks(&query).await?.tasks.len());
/// # client.wait(&task.id).await?;
/// # Ok(())
/// # });
/// ```
#[derive(Debug, Clone, Default)]
pub struct TaskQuery {
    /// States, any of which a task has; empty: any state.
    pub states: Vec<String>,
    /// Only unfinished tasks that are paused.
    pub paused: bool,
    /// Labels, all of which a task has.
    pub labels: Vec<(String, String)>,
    /// The queue of tasks.
    pub queue: Option<String>,
    /// The worker that holds the tasks, or held them last.
    pub worker: Option<String>,
    /// The beginning of ids.
    pub prefix: Option<String>,
    /// The number of tasks at most (1 to 1000).
    pub limit: Option<usize>,
    /// The cursor of a former page.
    pub cursor: Option<String>,
    /// The oldest tasks come first.
    pub oldest: bool,
}

impl TaskQuery {
    /// The parameters of the query, except those of the page.
    fn filter(&self) -> Vec<(&'static str, String)> {
        let mut pairs: Vec<(&str, String)> = Vec::new();
        if !self.states.is_empty() {
            pairs.push(("state", self.states.join(",")));
        }
        pairs.extend(self.labels.iter().map(|(k, v)| ("label", format!("{k}={v}"))));
        let optional = [
            ("paused", self.paused.then(|| "true".into())),
            ("queue", self.queue.clone()),
            ("worker", self.worker.clone()),
            ("prefix", self.prefix.clone()),
        ];
        pairs.extend(optional.into_iter().filter_map(|(k, v)| v.map(|v| (k, v))));
        pairs
    }
}

impl Client {
    /// Submits a task. Returns it, and whether it is new.
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
    /// let task = NewTask::new(TaskSpec::new(Run::Shell("exit 3".into())));
    /// let (_, new) = client.submit(&task).await?;
    /// let (again, new_again) = client.submit(&task).await?;
    /// assert_eq!((new, new_again, again.id), (true, false, task.id));
    /// # Ok(())
    /// # });
    /// ```
    pub async fn submit(&self, task: &NewTask) -> Result<(Task, bool), Error> {
        let send = || self.request(Method::POST, "/api/v1/tasks").json(task);
        let response = self.send(send).await?;
        let created = response.status() == StatusCode::CREATED;
        Ok((self.read(response).await?, created))
    }

    /// Submits any number of tasks, in parts of up to 10,000; each part as a whole or not at all.
    /// A part that the coordinator can never take at once is sent as smaller ones.
    ///
    /// # Errors
    /// See [`Error`]; former parts stay submitted, and submitting all of them again is safe.
    ///
    /// # Examples
    /// ```
    /// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
    /// # common::with_worker(async |client| {
    /// use outlast::{Call, NewTask, Run, TaskSpec};
    ///
    /// let call = |n: i32| Run::Call(Call { function: "double".into(), args: n.into() });
    /// let tasks: Vec<_> = (0..100).map(|n| NewTask::new(TaskSpec::new(call(n)))).collect();
    /// let submitted = client.submit_all(&tasks).await?;
    /// assert!(submitted.iter().all(|task| task.created));
    /// # Ok(())
    /// # });
    /// ```
    pub async fn submit_all(&self, tasks: &[NewTask]) -> Result<Vec<SubmittedTask>, Error> {
        let mut done = Vec::with_capacity(tasks.len());
        let (mut left, mut most, mut room) = (tasks, MAX_BATCH, MAX_BODY / 4);
        while !left.is_empty() {
            let (part, count) = part(left, most, room)?;
            let bytes = part.len();
            let send = || {
                self.request(Method::POST, "/api/v1/tasks")
                    .header("content-type", "application/json")
                    .body(part.clone())
            };
            let cut = if bytes > SUSPECT && count > 1 { OnCut::Split } else { OnCut::Again };
            match self.send_cut(send, cut).await {
                Err(e) if e.is("too-many-tasks") && count > 1 => most = count / 2,
                Err(e) if e.status() == Some(413) && count > 1 => room = bytes / 2,
                // A proxy may cut what is too large for it.
                Err(Error::Unreachable { .. }) if cut == OnCut::Split => room = bytes / 2,
                Err(Error::Problem(mut problem)) if problem.status == 413 => {
                    let id = &left[0].id;
                    problem.detail += &format!("; task {id} alone is {bytes} bytes");
                    return Err(Error::Problem(problem));
                }
                Err(e) => return Err(e),
                Ok(response) => {
                    done.extend(self.read::<Submitted>(response).await?.tasks);
                    left = &left[count..];
                }
            }
        }
        Ok(done)
    }

    /// A page of tasks.
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
    /// let page = client.tasks(&Default::default()).await?;
    /// assert_eq!((page.tasks[0].id.as_str(), page.next), (&*task.id, None));
    /// # client.wait(&task.id).await?;
    /// # Ok(())
    /// # });
    /// ```
    pub async fn tasks(&self, query: &TaskQuery) -> Result<TaskList, Error> {
        let mut pairs = query.filter();
        let page = [
            ("limit", query.limit.map(|n| n.to_string())),
            ("cursor", query.cursor.clone()),
            ("order", query.oldest.then(|| "oldest".into())),
        ];
        pairs.extend(page.into_iter().filter_map(|(k, v)| v.map(|v| (k, v))));
        let send = || self.request(Method::GET, "/api/v1/tasks").query(&pairs);
        self.read(self.send(send).await?).await
    }

    /// One task.
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
    /// let task = client.task(&task.id).await?;
    /// println!("{} is {}", task.id, task.state);
    /// # client.wait(&task.id).await?;
    /// # Ok(())
    /// # });
    /// ```
    pub async fn task(&self, id: &str) -> Result<Task, Error> {
        self.get(&format!("/api/v1/tasks/{}", escape(id))).await
    }

    /// The result of a task, if it has ended within so many seconds (at most 60).
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
    /// assert_eq!(client.result(&task.id, 0).await?, None);
    /// # client.cancel(&task.id).await?;
    /// # Ok(())
    /// # });
    /// ```
    pub async fn result(&self, id: &str, wait: u64) -> Result<Option<TaskResult>, Error> {
        match self.get(&format!("/api/v1/tasks/{}/result?wait={wait}", escape(id))).await {
            Ok(result) => Ok(Some(result)),
            Err(Error::Problem(problem)) if problem.word() == "not-finished" => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits for a task to end.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// # Examples
    /// ```
    /// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
    /// # common::with_worker(async |client| {
    /// use outlast::{Call, NewTask, Run, TaskSpec, TaskState};
    ///
    /// let call = Call { function: "double".into(), args: 21.into() };
    /// let (task, _) = client.submit(&NewTask::new(TaskSpec::new(Run::Call(call)))).await?;
    /// let result = client.wait(&task.id).await?;
    /// assert_eq!((result.state, result.value.get()), (TaskState::Succeeded, "42"));
    /// # Ok(())
    /// # });
    /// ```
    pub async fn wait(&self, id: &str) -> Result<TaskResult, Error> {
        loop {
            if let Some(result) = self.result(id, WAIT).await? {
                return Ok(result);
            }
        }
    }

    /// The ended ones of up to 1,000 tasks; waits up to `wait` seconds (at most 60) for the
    /// first. May leave some out: request again those that it does not name.
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
    /// let ended = client.results(&[task.id, "no-such-task".into()], 30).await?;
    /// assert_eq!(ended.unknown, ["no-such-task"]);
    /// # Ok(())
    /// # });
    /// ```
    pub async fn results(&self, ids: &[String], wait: u64) -> Result<EndedTasks, Error> {
        let which = WhichEnded { ids: ids.to_vec(), wait };
        let send = || self.request(Method::POST, "/api/v1/results").json(&which);
        self.read(self.send(send).await?).await
    }

    /// The history of a task.
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
    /// let history = client.history(&task.id).await?;
    /// let events: Vec<_> = history.events.iter().map(|event| &*event.event).collect();
    /// assert_eq!((events.first(), events.last()), (Some(&"submitted"), Some(&"succeeded")));
    /// # Ok(())
    /// # });
    /// ```
    pub async fn history(&self, id: &str) -> Result<History, Error> {
        self.get(&format!("/api/v1/tasks/{}/history", escape(id))).await
    }

    /// Cancels a task.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// # Examples
    /// ```
    /// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
    /// # common::with_worker(async |client| {
    /// use outlast::TaskState;
    /// use outlast::{NewTask, Run, TaskSpec};
    ///
    /// let spec = TaskSpec::new(Run::Command(vec!["sleep".into(), "60".into()]));
    /// let (task, _) = client.submit(&NewTask::new(spec)).await?;
    /// client.cancel(&task.id).await?;
    /// assert_eq!(client.wait(&task.id).await?.state, TaskState::Cancelled);
    /// # Ok(())
    /// # });
    /// ```
    pub async fn cancel(&self, id: &str) -> Result<Task, Error> {
        self.post(&format!("/api/v1/tasks/{}/cancel", escape(id))).await
    }

    /// Runs a task again that failed or was cancelled.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// # Examples
    /// ```
    /// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
    /// # common::with_worker(async |client| {
    /// use outlast::{NewTask, Run, TaskSpec, TaskState};
    ///
    /// let (task, _) = client.submit(&NewTask::new(TaskSpec::new(Run::Shell("exit 3".into())))).await?;
    /// assert_eq!(client.wait(&task.id).await?.state, TaskState::Failed);
    /// client.retry(&task.id).await?;
    /// assert_eq!(client.wait(&task.id).await?.attempt, 2);
    /// # Ok(())
    /// # });
    /// ```
    pub async fn retry(&self, id: &str) -> Result<Task, Error> {
        self.post(&format!("/api/v1/tasks/{}/retry", escape(id))).await
    }

    /// The number of tasks in each state.
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
    /// assert_eq!(client.counts().await?.succeeded, 1);
    /// # Ok(())
    /// # });
    /// ```
    pub async fn counts(&self) -> Result<CountsView, Error> {
        self.get("/api/v1/counts").await
    }

    /// The number of tasks of a query in each state; its page does not matter.
    ///
    /// # Errors
    /// See [`Error`]; also if the coordinator is too old to count some only.
    ///
    /// # Examples
    /// ```
    /// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
    /// # common::with_worker(async |client| {
    /// use outlast::TaskQuery;
    /// use outlast::{NewTask, Run, TaskSpec};
    ///
    /// let spec = TaskSpec::new(Run::Command(vec!["echo".into(), "hello".into()]));
    /// let (task, _) = client.submit(&NewTask::new(spec)).await?;
    /// let query = TaskQuery { prefix: Some("nightly:".into()), ..Default::default() };
    /// assert_eq!(client.counts_of(&query).await?.total, 0);
    /// # client.wait(&task.id).await?;
    /// # Ok(())
    /// # });
    /// ```
    pub async fn counts_of(&self, query: &TaskQuery) -> Result<CountsView, Error> {
        let pairs = query.filter();
        let send = || self.request(Method::GET, "/api/v1/counts").query(&pairs);
        let counts: CountsView = self.read(self.send(send).await?).await?;
        if !pairs.is_empty() && !counts.filtered {
            let why = "it is of an older version, and can count only all tasks".into();
            return Err(Error::Strange { url: self.base.clone(), why });
        }
        Ok(counts)
    }
}

/// The first of these tasks as an array, and their number: one at least, no more than `most`, and than
/// `room` bytes hold.
fn part(tasks: &[NewTask], most: usize, room: usize) -> Result<(Vec<u8>, usize), Error> {
    let (mut part, mut count) = (Vec::from(b"["), 0);
    for task in tasks.iter().take(most) {
        let before = part.len();
        if count > 0 {
            part.push(b',');
        }
        serde_json::to_writer(&mut part, task).map_err(|e| Error::Setup(e.to_string()))?;
        if count > 0 && part.len() >= room {
            part.truncate(before);
            break;
        }
        count += 1;
    }
    part.push(b']');
    Ok((part, count))
}
