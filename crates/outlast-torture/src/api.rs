//! Documents of the coordinator's API, including routes that its client does not have yet.

use anyhow::Context;
use serde_json::Value;
use std::time::Duration;

/// Asks the coordinator, once.
#[derive(Clone)]
pub(crate) struct Api {
    http: reqwest::Client,
    base: String,
}

/// A checkpoint as the coordinator lists it; read leniently.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub id: (u64, u64),
    pub kept: bool,
    pub dropped: bool,
    pub step: Option<u32>,
    /// Time at which the coordinator recorded it (Unix ms), if it says.
    pub recorded: Option<i64>,
}

impl Api {
    /// After a client of the library: that one chooses the provider of cryptography.
    pub fn new(base: &str, _client: &outlast::Client) -> anyhow::Result<Api> {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(10)).build()?;
        Ok(Api { http, base: base.to_owned() })
    }

    /// Fetches a document; None if the route or object does not exist.
    pub async fn get(&self, path: &str) -> anyhow::Result<Option<Value>> {
        let answer = self.http.get(format!("{}{path}", self.base)).send().await?;
        if answer.status() == 404 {
            return Ok(None);
        }
        Ok(Some(answer.error_for_status()?.json().await?))
    }

    /// Lists the coordinator's checkpoints of a task.
    pub async fn checkpoints(&self, task: &str) -> anyhow::Result<Option<Vec<Listed>>> {
        let Some(all) = self.get(&format!("/api/v1/tasks/{task}/checkpoints")).await? else {
            return Ok(None);
        };
        let all = all["checkpoints"].as_array().context("no list of checkpoints")?;
        let one = |c: &Value| {
            let id = c["id"].as_str().and_then(crate::ledger::checkpoint_id)?;
            let step = c["meta"]["user"]["step"].as_u64().or(c["user"]["step"].as_u64());
            let kept = c["kept"].as_bool().unwrap_or(false);
            let dropped = c["dropped"].as_bool().unwrap_or(false);
            let recorded = c["recorded_at"].as_str().map(unix_ms).filter(|ms| *ms > 0);
            Some(Listed {
                id,
                kept,
                dropped,
                recorded,
                step: step.and_then(|n| u32::try_from(n).ok()),
            })
        };
        all.iter()
            .map(|c| one(c).with_context(|| format!("a strange checkpoint: {c}")))
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// The bytes of a checkpoint and its id; `which` is an id, or `latest`.
    pub async fn data(
        &self,
        task: &str,
        which: &str,
    ) -> anyhow::Result<(Option<(u64, u64)>, Vec<u8>)> {
        let path = format!("{}/api/v1/tasks/{task}/checkpoints/{which}/data", self.base);
        let answer = self.http.get(path).send().await?;
        let status = answer.status();
        anyhow::ensure!(status.is_success(), "{status}: {}", answer.text().await?);
        let id = answer.headers().get("outlast-checkpoint").and_then(|v| v.to_str().ok());
        let id = id.and_then(crate::ledger::checkpoint_id);
        Ok((id, answer.bytes().await?.to_vec()))
    }
}

/// Unix milliseconds of an RFC 3339 time; 0 if it is none.
pub(crate) fn unix_ms(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>().map_or(0, |t| t.as_millisecond())
}
