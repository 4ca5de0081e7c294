//! Blobs, for workers: which chunks are missing, chunks and manifests in and out. Bodies are
//! binary (see `outlast_wire::blobframe`); the store is used from blocking threads only.

use crate::app::App;
use crate::blobs::uploads::{Upload, Uploader};
use crate::clock;
use crate::extract::WorkerScope;
use crate::intake::{BodyReader, announced, too_large};
use crate::listen::Connection;
use crate::problem::Refusal;
use crate::sessions::Scope;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use outlast_blob::{BlobError, Blobs, Hash, Ingest, MAX_CHUNKS, Packed};
use outlast_wire::WORKER_HEADER;
use outlast_wire::blobframe::{self, Decoder, Frame, MAX_BODY, MAX_HASHES, MAX_WANTED};
use std::ops::Deref;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// Time that a request waits for its turn.
const TURN: Duration = Duration::from_secs(10);
/// Bytes of frames that go to a blocking thread in one go.
const BATCH: usize = 1 << 20;
/// The shortest part of a manifest that is sent in parts, in bytes; the last may be shorter.
const PART: usize = 16 << 10;
/// The longest manifest in bytes, and from where on it counts as large.
const MANIFEST: (usize, usize) = (16 + 35 * MAX_CHUNKS, 1 << 20);
const OCTETS: (header::HeaderName, &str) = (header::CONTENT_TYPE, "application/octet-stream");

/// Returns the chunks that are missing here: concatenated hashes in, concatenated hashes out.
pub(crate) async fn missing(
    State(app): State<App>,
    _: WorkerScope,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let asked = hashes(&app, &headers, body, MAX_HASHES).await?;
    let missing = app.blobs.missing(&asked).await?;
    Ok(listed(StatusCode::OK, &missing))
}

/// Takes chunks; they are durable when this answers 200. All of them, or none.
pub(crate) async fn put_chunks(
    State(app): State<App>,
    _: WorkerScope,
    headers: HeaderMap,
    ConnectInfo(connection): ConnectInfo<Connection>,
    body: Body,
) -> Result<Response, Refusal> {
    if announced(&headers).is_some_and(|length| length > MAX_BODY as u64) {
        return Err(too_large(MAX_BODY));
    }
    let name = headers.get(WORKER_HEADER).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let upload = turn(&app, &connection, name).await?;
    let from = app.quality.named(name);
    let mut body = BodyReader::new(body);
    let mut decoder = Decoder::default();
    let mut ingest = app.blobs.blobs.ingest();
    let (mut batch, mut waiting) = (Vec::new(), 0);
    while let Some(data) = body.next(|| upload.must_leave()).await? {
        upload.got(body.got());
        if let Some(worker) = &from {
            worker.meter().bulk(clock::micros(), data.len());
        }
        if body.got() > MAX_BODY {
            return Err(too_large(MAX_BODY));
        }
        // In pieces, so that memory stays small whatever the server reads at a time.
        for piece in data.chunks(BATCH) {
            decoder.push(piece);
            while let Some(frame) = decoder.next().map_err(|e| Refusal::bad(&e.to_string()))? {
                waiting += size_of::<Frame>() + frame.bytes.len();
                batch.push(frame);
            }
            if waiting >= BATCH {
                ingest = add(&app, ingest, std::mem::take(&mut batch)).await?;
                waiting = 0;
            }
        }
    }
    decoder.end().map_err(|e| Refusal::bad(&e.to_string()))?;
    let ingest = add(&app, ingest, batch).await?;
    let done = app.blobs.run(move |_| ingest.commit()).await?;
    let count = [("outlast-new-chunks", done.new_chunks.to_string())];
    Ok((StatusCode::OK, count).into_response())
}

async fn add(app: &App, mut ingest: Ingest, batch: Vec<Frame>) -> Result<Ingest, Refusal> {
    if batch.is_empty() {
        return Ok(ingest);
    }
    let add = move |_: &Blobs| {
        for Frame { hash, raw_len, compressed, bytes } in batch {
            let packed = Packed { raw_len, compressed, bytes: bytes.into() };
            ingest.add(Hash::from_bytes(hash), packed)?;
        }
        Ok(ingest)
    };
    app.blobs.run(add).await
}

/// Takes a manifest all of whose chunks are here; durable when this answers 204. 409 carries
/// the hashes that are missing.
pub(crate) async fn put_manifest(
    State(app): State<App>,
    WorkerScope(scope): WorkerScope,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let bytes = app.intake.read(&headers, body, MANIFEST.0).await?;
    // After it has arrived: a slow one keeps nobody waiting.
    let _turn = if bytes.len() > MANIFEST.1 { Some(large(&app).await?) } else { None };
    accept(&app, scope, bytes).await
}

/// Takes a manifest by the hashes of its parts, which were sent as chunks: for ways on which it is
/// too large for one body. Answers as [`put_manifest`] does.
pub(crate) async fn put_manifest_parts(
    State(app): State<App>,
    WorkerScope(scope): WorkerScope,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let parts = hashes(&app, &headers, body, MANIFEST.0.div_ceil(PART)).await?;
    let _turn = large(&app).await?;
    let missing = app.blobs.missing(&parts).await?;
    if !missing.is_empty() {
        return Ok(listed(StatusCode::CONFLICT, &missing));
    }
    let join = move |blobs: &Blobs| {
        let mut all = Vec::new();
        for part in &parts {
            let packed = blobs.load(part)?;
            if packed.compressed || all.len() + packed.bytes.len() > MANIFEST.0 {
                return Err(BlobError::TooLarge);
            }
            all.extend_from_slice(&packed.bytes);
        }
        Ok(all)
    };
    let bytes = app.blobs.run(join).await?;
    accept(&app, scope, bytes).await
}

async fn accept(
    app: &App,
    scope: Scope,
    bytes: impl Deref<Target = [u8]> + Send + 'static,
) -> Result<Response, Refusal> {
    let accept = move |blobs: &Blobs| match blobs.accept_manifest(&bytes) {
        Ok(hash) => Ok(Ok(hash)),
        Err(BlobError::Missing(missing)) => Ok(Err(missing)),
        Err(error) => Err(error),
    };
    match app.blobs.run(accept).await? {
        Ok(hash) => {
            match scope {
                Scope::All => app.blobs.accepted(hash, ""),
                Scope::Stores(stores) => {
                    stores.iter().for_each(|store| app.blobs.accepted(hash, store));
                }
            }
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        Err(missing) => Ok(listed(StatusCode::CONFLICT, &missing)),
    }
}

/// One manifest, encoded.
pub(crate) async fn get_manifest(
    State(app): State<App>,
    WorkerScope(scope): WorkerScope,
    Path(hash): Path<String>,
) -> Result<Response, Refusal> {
    let hash: Hash = hash.parse().map_err(|e| Refusal::bad(&format!("{e}")))?;
    if let Scope::Stores(stores) = scope
        && !app.blobs.is_from(&hash, &stores)
    {
        let manifest = *hash.as_bytes();
        let mine = app.read(move |r| r.may_read(&manifest, &stores)).await;
        // As if there were none: that there is one is nobody else's business.
        if !mine? {
            return Err(Refusal::no_blob(&hash.to_string()));
        }
    }
    let found = app.blobs.run(move |blobs| {
        // Looking pins it, so that its chunks can be fetched next.
        if !blobs.has_manifest(&hash)? {
            return Ok(None);
        }
        Ok(blobs.manifest(&hash)?.map(|m| m.encode()))
    });
    let bytes = found.await?.ok_or_else(|| Refusal::no_blob(&hash.to_string()))?;
    Ok(([OCTETS], bytes).into_response())
}

/// Gives chunks, as frames in the order asked for. 404 carries the hashes that are not here.
pub(crate) async fn get_chunks(
    State(app): State<App>,
    _: WorkerScope,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let wanted = hashes(&app, &headers, body, MAX_WANTED).await?;
    let missing = app.blobs.missing(&wanted).await?;
    if !missing.is_empty() {
        return Ok(listed(StatusCode::NOT_FOUND, &missing));
    }
    let from = (app.blobs.blobs.clone(), wanted, 0);
    let stream = futures_util::stream::unfold(Some(from), |from| async {
        let (blobs, wanted, at) = from?;
        if at >= wanted.len() {
            return None;
        }
        let load = move || {
            let (mut out, mut at) = (Vec::new(), at);
            while at < wanted.len() && out.len() < BATCH / 2 {
                let packed = blobs.load(&wanted[at])?;
                let hash = wanted[at].as_bytes();
                blobframe::encode(hash, packed.raw_len, packed.compressed, &packed.bytes, &mut out);
                at += 1;
            }
            Ok::<_, BlobError>((Bytes::from(out), (blobs, wanted, at)))
        };
        match tokio::task::spawn_blocking(load).await {
            Ok(Ok((bytes, rest))) => Some((Ok(bytes), Some(rest))),
            // The answer breaks off: its reader asks again for what it lacks.
            Ok(Err(error)) => Some((Err(error.to_string()), None)),
            Err(error) => Some((Err(error.to_string()), None)),
        }
    });
    Ok(([OCTETS], Body::from_stream(stream)).into_response())
}

/// A turn to upload.
async fn turn(app: &App, connection: &Connection, worker: &str) -> Result<Upload, Refusal> {
    let from = (!connection.seat.is_shared()).then(|| connection.seat.group());
    let who = Uploader { from, worker: worker.into() };
    match tokio::time::timeout(TURN, app.blobs.uploads.take(who)).await {
        Ok(Some(upload)) => Ok(upload),
        _ => Err(Refusal::busy("many uploads are on their way")),
    }
}

/// A turn to work with a large manifest.
async fn large(app: &App) -> Result<OwnedSemaphorePermit, Refusal> {
    match tokio::time::timeout(TURN, app.blobs.large.clone().acquire_owned()).await {
        Ok(Ok(permit)) => Ok(permit),
        _ => Err(Refusal::busy("many large manifests are worked with")),
    }
}

async fn hashes(
    app: &App,
    headers: &HeaderMap,
    body: Body,
    limit: usize,
) -> Result<Vec<Hash>, Refusal> {
    let bytes = app.intake.read(headers, body, limit * 32).await?;
    let (hashes, rest) = bytes.as_chunks::<32>();
    if !rest.is_empty() {
        let detail = format!("{} bytes are no whole number of 32-byte hashes", bytes.len());
        return Err(Refusal::bad(&detail));
    }
    Ok(hashes.iter().map(|hash| Hash::from_bytes(*hash)).collect())
}

/// An answer that lists hashes, one after the other.
fn listed(status: StatusCode, hashes: &[Hash]) -> Response {
    let bytes: Vec<u8> = hashes.iter().flat_map(|h| *h.as_bytes()).collect();
    (status, [OCTETS], bytes).into_response()
}
