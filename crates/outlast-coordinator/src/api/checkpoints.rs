//! Checkpoints and artifacts of tasks, and their data.

use super::views;
use crate::app::App;
use crate::extract::{Submitter, WorkerScope};
use crate::problem::Refusal;
use crate::sessions::Scope;
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use outlast_blob::{BlobReader, Hash};
use outlast_model::Checkpoint;
use outlast_store::StoredCheckpoint;
use outlast_wire::api::{ArtifactList, CheckpointList};
use outlast_wire::v2;
use prost::Message;
use std::io::{Read, Seek, SeekFrom};

/// Bytes of a checkpoint read at a time.
const PART: usize = 256 << 10;
/// Bytes of checkpoints, without their data, that a worker gets at most.
const MAX_KEPT: usize = 32 << 20;
/// The longest meta that goes into a header.
const MAX_HEADER: usize = 8 << 10;

/// The checkpoints of a task, also those that are not kept any more.
#[utoipa::path(get, path = "/api/v1/tasks/{id}/checkpoints", tag = "tasks", params(("id" = String, Path)),
    responses((status = 200, body = CheckpointList), (status = 404, body = outlast_wire::api::Problem)))]
pub(crate) async fn checkpoints(
    State(app): State<App>,
    _: Submitter,
    Path(id): Path<String>,
) -> Result<Json<CheckpointList>, Refusal> {
    let all = stored(&app, id, Kind::Checkpoints).await?;
    Ok(Json(CheckpointList { checkpoints: all.iter().map(views::checkpoint).collect() }))
}

/// The checkpoints of a task that are kept, oldest first, for the worker that runs it: each a
/// message with its length before it. Of very many the newest.
pub(crate) async fn kept(
    State(app): State<App>,
    WorkerScope(scope): WorkerScope,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    if let Scope::Stores(stores) = scope {
        let wanted = id.clone();
        let mine = app.read(move |r| r.is_assigned(&wanted, &stores)).await;
        // As if there were none: that there is one is nobody else's business.
        if !mine? {
            return Err(Refusal::no_task(&id));
        }
    }
    let mut all = stored(&app, id, Kind::Checkpoints).await?;
    let mut size = 0;
    let fits = |c: &&StoredCheckpoint| {
        size += c.checkpoint.message_size() + 8;
        size <= MAX_KEPT
    };
    all.retain(|c| c.kept && !c.checkpoint.dropped);
    let from = all.len() - all.iter().rev().take_while(fits).count();
    let bytes: Vec<u8> = all[from..]
        .iter()
        .flat_map(|c| {
            v2::Checkpoint::from(Checkpoint::clone(&c.checkpoint)).encode_length_delimited_to_vec()
        })
        .collect();
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response())
}

/// The files that a task kept for its result.
#[utoipa::path(get, path = "/api/v1/tasks/{id}/artifacts", tag = "tasks", params(("id" = String, Path)),
    responses((status = 200, body = ArtifactList), (status = 404, body = outlast_wire::api::Problem)))]
pub(crate) async fn artifacts(
    State(app): State<App>,
    _: Submitter,
    Path(id): Path<String>,
) -> Result<Json<ArtifactList>, Refusal> {
    let all = stored(&app, id, Kind::Artifacts).await?;
    Ok(Json(ArtifactList { artifacts: all.iter().map(views::checkpoint).collect() }))
}

/// The store keeps both in one table.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Checkpoints,
    Artifacts,
}

impl Kind {
    fn of(c: &StoredCheckpoint) -> Kind {
        if c.checkpoint.artifact.is_empty() { Kind::Checkpoints } else { Kind::Artifacts }
    }
}

async fn stored(app: &App, id: String, kind: Kind) -> Result<Vec<StoredCheckpoint>, Refusal> {
    let wanted = id.clone();
    let read = app.read(move |r| {
        let mut all = r.checkpoints(&wanted)?;
        let known = !all.is_empty() || r.task(&wanted)?.is_some();
        all.retain(|c| Kind::of(c) == kind);
        Ok(known.then_some(all))
    });
    read.await?.ok_or_else(|| Refusal::no_task(&id))
}

/// The data of a checkpoint: `latest`, or its id such as `2-14`. The header
/// `outlast-checkpoint` has its id, `outlast-checkpoint-meta` what was said of it.
#[utoipa::path(get, path = "/api/v1/tasks/{id}/checkpoints/{which}/data", tag = "tasks",
    params(("id" = String, Path), ("which" = String, Path, description = "latest, or an id")),
    responses((status = 200, content_type = "application/octet-stream"),
        (status = 404, body = outlast_wire::api::Problem, description = "No such checkpoint, or it is not kept")))]
pub(crate) async fn data(
    State(app): State<App>,
    _: Submitter,
    headers: HeaderMap,
    Path((id, which)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let all = stored(&app, id.clone(), Kind::Checkpoints).await?;
    let found = find(&all, &which).map_err(|why| Refusal::no_checkpoint(&id, &which, why))?;
    give(&app, &found.checkpoint, &headers).await
}

/// The content of a file that a task kept for its result: the newest of that name.
#[utoipa::path(get, path = "/api/v1/tasks/{id}/artifacts/{name}/data", tag = "tasks",
    params(("id" = String, Path), ("name" = String, Path)),
    responses((status = 200, content_type = "application/octet-stream"),
        (status = 404, body = outlast_wire::api::Problem)))]
pub(crate) async fn artifact(
    State(app): State<App>,
    _: Submitter,
    headers: HeaderMap,
    Path((id, name)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let all = stored(&app, id.clone(), Kind::Artifacts).await?;
    match all.iter().rfind(|c| c.kept && c.checkpoint.artifact == name) {
        Some(found) => give(&app, &found.checkpoint, &headers).await,
        None => Err(Refusal::no_checkpoint(&id, &name, "it kept no such file")),
    }
}

async fn give(
    app: &App,
    checkpoint: &Checkpoint,
    headers: &HeaderMap,
) -> Result<Response, Refusal> {
    let manifest = <[u8; 32]>::try_from(&checkpoint.manifest[..]).map(Hash::from_bytes);
    let manifest = manifest.map_err(|_| Refusal::internal("the checkpoint names no blob"))?;
    let reader = app.blobs.run(move |blobs| blobs.reader(&manifest)).await;
    let mut reader = reader.map_err(|refusal| match refusal.problem.status {
        // Other than a checkpoint that is not kept: somebody lost it.
        404 => Refusal::internal("this checkpoint should be here, and its data is missing"),
        _ => refusal,
    })?;
    let size = reader.manifest().size();
    let from = asked_from(headers).filter(|from| *from < size);
    if let Some(from) = from {
        reader.seek(SeekFrom::Start(from)).map_err(|e| Refusal::internal(&e.to_string()))?;
    }
    let (begin, status) = (from.unwrap_or(0), if from.is_some() { 206 } else { 200 });
    let name = checkpoint.id();
    let mut response = (
        [
            (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
            (header::CONTENT_LENGTH, (size - begin).to_string()),
            (header::ACCEPT_RANGES, "bytes".to_owned()),
        ],
        [("outlast-checkpoint", name)],
        Body::from_stream(futures_util::stream::unfold(Some(reader), part)),
    )
        .into_response();
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
    if from.is_some() {
        let range = format!("bytes {begin}-{}/{size}", size - 1);
        let range = HeaderValue::try_from(range);
        let range = range.map_err(|e| Refusal::internal(&e.to_string()))?;
        response.headers_mut().insert(header::CONTENT_RANGE, range);
    }
    // JSON may hold any text, a header only some: others find it in the list.
    if checkpoint.meta_json.len() <= MAX_HEADER
        && let Ok(meta) = HeaderValue::from_bytes(&checkpoint.meta_json)
    {
        response.headers_mut().insert("outlast-checkpoint-meta", meta);
    }
    Ok(response)
}

/// Returns the offset that the data begins at: a download that broke off needs this much of HTTP's
/// ranges.
fn asked_from(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(header::RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}

/// The checkpoint asked for, if it can be restored.
fn find<'a>(
    all: &'a [StoredCheckpoint],
    which: &str,
) -> Result<&'a StoredCheckpoint, &'static str> {
    if which == "latest" {
        return all.iter().rfind(|c| c.kept).ok_or("it has none that is kept");
    }
    let wanted = which.split_once('-').and_then(|(e, n)| Some((e.parse().ok()?, n.parse().ok()?)));
    let Some((epoch, number)) = wanted else { return Err("write `latest`, or an id such as 2-14") };
    let of = |c: &&StoredCheckpoint| (c.checkpoint.epoch, c.checkpoint.number) == (epoch, number);
    match all.iter().find(of) {
        Some(found) if found.kept => Ok(found),
        Some(found) if found.checkpoint.dropped => Err("it was dropped at its worker"),
        Some(_) => Err("it was removed by the task's rule for what is kept"),
        None => Err("it has no such checkpoint"),
    }
}

type Part = (Result<Bytes, std::io::Error>, Option<BlobReader>);

async fn part(reader: Option<BlobReader>) -> Option<Part> {
    let mut reader = reader?;
    let read = tokio::task::spawn_blocking(move || {
        let mut part = vec![0; PART];
        let mut filled = 0;
        while filled < PART {
            match reader.read(&mut part[filled..])? {
                0 => break,
                n => filled += n,
            }
        }
        part.truncate(filled);
        Ok((Bytes::from(part), reader))
    });
    match read.await {
        Ok(Ok((part, _))) if part.is_empty() => None,
        Ok(Ok((part, reader))) => Some((Ok(part), Some(reader))),
        // The body is shorter than announced: its reader sees that it is not whole.
        Ok(Err(error)) => Some((Err(error), None)),
        Err(error) => Some((Err(std::io::Error::other(error)), None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(epoch: u64, number: u64, kept: bool, dropped: bool) -> StoredCheckpoint {
        let checkpoint = Checkpoint { epoch, number, dropped, ..Default::default() };
        let (worker, worker_name, gone_at) = (None, None, None);
        StoredCheckpoint {
            checkpoint: checkpoint.into(),
            kept,
            worker,
            worker_name,
            at: 0,
            gone_at,
        }
    }

    #[test]
    fn checkpoints_are_found_by_name() {
        let all = [stored(1, 9, true, false), stored(2, 1, true, false), stored(2, 2, false, true)];
        let id = |which| find(&all, which).map(|c| (c.checkpoint.epoch, c.checkpoint.number));
        assert_eq!(id("latest"), Ok((2, 1)));
        assert_eq!(id("1-9"), Ok((1, 9)));
        assert!(id("2-2").unwrap_err().contains("dropped"));
        assert!(id("3-1").unwrap_err().contains("no such"));
        for bad in ["", "2", "x-1", "-1", "newest"] {
            assert!(id(bad).unwrap_err().contains("latest"), "{bad}");
        }
        assert!(find(&[], "latest").is_err());
    }
}
