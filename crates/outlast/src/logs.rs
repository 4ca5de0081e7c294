//! The logs of tasks.

use crate::client::{Client, escape};
use crate::error::{Error, chain};
use futures_util::{Stream, StreamExt};
use outlast_wire::api::MAX_LOG_PART;
use reqwest::header::HeaderMap;
use reqwest::{Method, Response};

/// A part of a task's log.
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
/// let (mut log, mut at) = (Vec::<u8>::new(), 0);
/// loop {
///     let part = client.log_part(&task.id, false, None, at).await?;
///     log.extend(&part.data);
///     at = part.next;
///     if part.end {
///         break;
///     }
/// }
/// assert_eq!(log, b"hello\n");
/// # Ok(())
/// # });
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogPart {
    /// The bytes; of a gap a line in place of what is lost.
    pub data: Vec<u8>,
    /// Offset at which the next part begins.
    pub next: u64,
    /// The present end: more may follow while the task runs.
    pub end: bool,
    /// The offsets from and to which this part's beginning is lost: cut, or not to be had while
    /// its worker is away.
    pub gap: Option<(u64, u64)>,
    /// Read at its worker; else it is the end of the log, as the task's result has it.
    pub whole: bool,
    /// The attempt that wrote it, where the coordinator says so.
    pub attempt: Option<u64>,
}

impl Client {
    /// A part of a task's log, from `offset` on. Reading on at [`LogPart::next`] gives every
    /// byte that is kept once and in order, and of each loss one line.
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
    /// let part = client.log_part(&task.id, false, None, 2).await?;
    /// assert_eq!((&part.data[..], part.next), (&b"llo\n"[..], 6));
    /// # Ok(())
    /// # });
    /// ```
    pub async fn log_part(
        &self,
        id: &str,
        stderr: bool,
        attempt: Option<u64>,
        offset: u64,
    ) -> Result<LogPart, Error> {
        let limit = Some(MAX_LOG_PART / 4);
        let response = self.ask_logs(id, stderr, attempt, offset, limit).await?;
        let headers = response.headers().clone();
        let data = response.bytes().await.map_err(|e| self.broken(&e))?;
        let whole = is_whole(&headers);
        // An older coordinator sends all there is, and says nothing of offsets.
        Ok(LogPart {
            next: number(&headers, "outlast-log-next").unwrap_or(offset + data.len() as u64),
            end: text(&headers, "outlast-log-end").is_none_or(|end| end == "true"),
            gap: text(&headers, "outlast-log-gap").and_then(range),
            whole,
            attempt: number(&headers, "outlast-log-attempt"),
            data: data.into(),
        })
    }

    /// The log of a task, from `offset` on up to its present end; and whether it is all of it (else
    /// only the end). [`Client::log_part`] can be continued, this not.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// # Examples
    /// ```
    /// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
    /// # common::with_worker(async |client| {
    /// use futures_util::StreamExt;
    /// use outlast::{NewTask, Run, TaskSpec};
    ///
    /// let spec = TaskSpec::new(Run::Command(vec!["echo".into(), "hello".into()]));
    /// let (task, _) = client.submit(&NewTask::new(spec)).await?;
    /// client.wait(&task.id).await?;
    /// let (stream, _) = client.logs(&task.id, false, None, 0).await?;
    /// let mut stream = std::pin::pin!(stream);
    /// let mut log = Vec::new();
    /// while let Some(bytes) = stream.next().await {
    ///     log.extend(bytes?);
    /// }
    /// assert_eq!(log, b"hello\n");
    /// # Ok(())
    /// # });
    /// ```
    pub async fn logs(
        &self,
        id: &str,
        stderr: bool,
        attempt: Option<u64>,
        offset: u64,
    ) -> Result<(impl Stream<Item = Result<Vec<u8>, Error>> + use<>, bool), Error> {
        let response = self.ask_logs(id, stderr, attempt, offset, None).await?;
        let whole = is_whole(response.headers());
        let client = self.clone();
        let data = response.bytes_stream().map(move |part| match part {
            Ok(bytes) => Ok(bytes.to_vec()),
            Err(e) => Err(client.broken(&e)),
        });
        Ok((data, whole))
    }

    async fn ask_logs(
        &self,
        id: &str,
        stderr: bool,
        attempt: Option<u64>,
        offset: u64,
        limit: Option<u32>,
    ) -> Result<Response, Error> {
        let stream = if stderr { "stderr" } else { "stdout" };
        let mut path = format!("/api/v1/tasks/{}/logs?stream={stream}&offset={offset}", escape(id));
        if let Some(attempt) = attempt {
            path += &format!("&attempt={attempt}");
        }
        if let Some(limit) = limit {
            path += &format!("&limit={limit}");
        }
        self.send(|| self.request(Method::GET, &path)).await
    }

    fn broken(&self, error: &reqwest::Error) -> Error {
        Error::Strange { url: self.base.clone(), why: chain(error) }
    }
}

fn is_whole(headers: &HeaderMap) -> bool {
    text(headers, "outlast-log-source").is_none_or(|source| source == "worker")
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    text(headers, name)?.parse().ok()
}

fn range(text: &str) -> Option<(u64, u64)> {
    let (from, to) = text.split_once('-')?;
    Some((from.parse().ok()?, to.parse().ok()?))
}
