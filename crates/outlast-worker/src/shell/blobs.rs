//! Blobs on their way to the coordinator: one at a time, in the background and over a connection
//! of their own. For the way back see `fetch`.

use super::{Shared, now, room};
use bytes::Bytes;
use outlast_blob::{BlobError, Blobs, Hash, Manifest, Squeezer};
use outlast_net::{Answer, DialError, Dialler, Http};
use outlast_wire::blobframe::{self, MAX_HASHES};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// A request ends with the chunk that brings it to this many bytes.
const REQUEST: usize = 6 << 20;
/// Chunks in one request, at least and at most.
const LEAST: usize = 4;
const MOST: usize = 256;
/// Requests that are quicker than this grow, and those that are slower than that shrink.
const QUICK: Duration = Duration::from_millis(300);
const SLOW: Duration = Duration::from_millis(1000);
/// Between tries while the coordinator cannot take an upload: first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// So many refused blobs are remembered, so that each is told of once.
const MANY: usize = 1000;

/// Why a blob did not get where it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum MoveError {
    /// No connection; worth another try.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The coordinator said no.
    #[error("the coordinator answered {0}: {1}")]
    Refused(u16, String),
    /// It has no such blob.
    #[error("the coordinator does not have it any more")]
    Gone,
    /// What lies here is damaged, and the coordinator cannot replace it.
    #[error("it is damaged here, and the coordinator has no other copy: {0}")]
    Lost(String),
    /// This worker's own store.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// What arrived is not what was asked for.
    #[error("{0}")]
    Strange(String),
}

impl MoveError {
    /// Whether no try will ever succeed: the blob is damaged or gone here.
    fn is_final(&self) -> bool {
        matches!(
            self,
            MoveError::Blob(
                BlobError::Unknown(_)
                    | BlobError::ChunkDamaged { .. }
                    | BlobError::ManifestDamaged { .. }
                    | BlobError::Missing(_)
            )
        )
    }
}

pub(super) fn ok(answer: Answer) -> Result<Bytes, MoveError> {
    match answer.status {
        200..=299 => Ok(answer.body),
        404 => Err(MoveError::Gone),
        status => Err(MoveError::Refused(status, answer.problem().1)),
    }
}

/// Runs `work` on a blocking thread.
pub(super) async fn block<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
) -> Result<T, MoveError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|e| MoveError::Strange(e.to_string()))??)
}

/// Keeps uploading whatever the core wants uploaded.
pub(super) async fn upload(
    dialler: Arc<Dialler>,
    blobs: Blobs,
    mut wanted: watch::Receiver<Option<Bytes>>,
    shared: Arc<Shared>,
) {
    let mut delay = RETRY.0;
    // Those that the coordinator has no room for, in this round and at all.
    let (mut tried, mut crowded) = (HashSet::new(), HashSet::new());
    loop {
        let Some(manifest) = wanted.borrow_and_update().clone() else {
            if wanted.changed().await.is_err() {
                return;
            }
            continue;
        };
        if tried.contains(&manifest) {
            // Everything that waits was tried.
            tried.clear();
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                changed = wanted.changed() => if changed.is_ok() { continue } else { return },
            }
            delay = (delay * 2).min(RETRY.1);
        }
        let done = tokio::select! {
            done = upload_one(&dialler, &blobs, &manifest, &shared) => done,
            changed = wanted.changed() => if changed.is_ok() { continue } else { return },
        };
        let outcome = match done {
            Ok(()) => Ok(()),
            Err(error) if error.is_final() => {
                tracing::error!("a checkpoint cannot be sent, its data is damaged: {error}");
                Err(error.to_string())
            }
            Err(error @ MoveError::Refused(507, _)) => {
                if crowded.len() >= MANY {
                    crowded.clear();
                }
                if crowded.insert(manifest.clone()) {
                    tracing::warn!("a checkpoint waits to be sent: {error}");
                    shared.room.crowded();
                    room::say(&blobs, &shared);
                }
                tried.insert(manifest.clone());
                settle(&mut wanted, &shared, &manifest);
                shared.feed(|core| core.on_no_room(&manifest));
                continue;
            }
            Err(error) => {
                tracing::warn!("a checkpoint waits to be sent: {error}");
                tokio::select! {
                    () = tokio::time::sleep(delay) => {}
                    changed = wanted.changed() => if changed.is_err() { return },
                }
                delay = (delay * 2).min(RETRY.1);
                continue;
            }
        };
        delay = RETRY.0;
        crowded.remove(&manifest);
        settle(&mut wanted, &shared, &manifest);
        shared.feed(|core| core.on_uploaded(&manifest, outcome));
    }
}

/// Nothing is wanted now; the core says what comes next.
fn settle(wanted: &mut watch::Receiver<Option<Bytes>>, shared: &Shared, manifest: &Bytes) {
    wanted.borrow_and_update();
    shared.uploads.send_if_modified(|now| {
        let same = now.as_ref() == Some(manifest);
        if same {
            *now = None;
        }
        same
    });
}

async fn upload_one(
    dialler: &Dialler,
    blobs: &Blobs,
    manifest: &[u8],
    shared: &Arc<Shared>,
) -> Result<(), MoveError> {
    let hash = hash(manifest)?;
    let mut http = Http::new(dialler);
    let store = blobs.clone();
    let known = block(move || store.manifest(&hash)).await?;
    let known: Manifest = known.ok_or(MoveError::Blob(BlobError::Unknown(hash)))?;
    let mut chunks: Vec<Hash> = Vec::new();
    let mut seen = HashSet::new();
    chunks.extend(known.chunks().iter().map(|(h, _)| *h).filter(|h| seen.insert(*h)));
    drop(seen);
    for part in chunks.chunks(MAX_HASHES) {
        let missing = ask_missing(&mut http, part).await?;
        send_chunks(&mut http, blobs, &missing, shared).await?;
    }
    let encoded = Bytes::from(known.encode());
    // What was there a moment ago may have been collected since: asked again, it stays.
    for _ in 0..3 {
        let answer = http.ask("PUT", "/api/v2/blobs/manifests", encoded.clone()).await?;
        if answer.status != 409 {
            return ok(answer).map(drop);
        }
        let missing = hashes(&answer.body)?;
        send_chunks(&mut http, blobs, &missing, shared).await?;
    }
    Err(MoveError::Strange("the coordinator keeps losing what it was sent".into()))
}

async fn ask_missing(http: &mut Http<'_>, part: &[Hash]) -> Result<Vec<Hash>, MoveError> {
    let body: Vec<u8> = part.iter().flat_map(|h| h.as_bytes()).copied().collect();
    hashes(&ok(http.ask("POST", "/api/v2/blobs/missing", body.into()).await?)?)
}

/// How many chunks go into one request: more while the link is quick, so that fewer syncs wait
/// for each other; fewer when it is slow, so that little is sent again after a break.
struct Pace(usize);

impl Pace {
    fn learn(&mut self, took: Duration) {
        if took < QUICK {
            self.0 = (self.0 * 2).min(MOST);
        } else if took > SLOW {
            self.0 = (self.0 / 2).max(LEAST);
        }
    }
}

async fn send_chunks(
    http: &mut Http<'_>,
    blobs: &Blobs,
    missing: &[Hash],
    shared: &Arc<Shared>,
) -> Result<(), MoveError> {
    let mut pace = Pace(LEAST * 4);
    let mut rest = missing;
    let level = shared.lock().packing().level;
    let squeezer = Arc::new(Mutex::new(Squeezer::with_level(level)?));
    let mut next = load(blobs, &squeezer, &mut rest, pace.0).await?;
    while let Some(body) = next {
        let (began, bytes) = (std::time::Instant::now(), body.len() as u64);
        // The disk works while the link does.
        let send = http.ask("PUT", "/api/v2/blobs/chunks", body.into());
        let (sent, loaded) = tokio::join!(send, load(blobs, &squeezer, &mut rest, pace.0));
        ok(sent?)?;
        let took = began.elapsed();
        pace.learn(took);
        shared.feed(|core| core.on_carried(now(), bytes, took.as_millis() as u64));
        next = loaded?;
    }
    Ok(())
}

/// The next request's body, of at most so many chunks; none when nothing is left. What lies here
/// as it was, since the disk is fast, is compressed for the link.
async fn load(
    blobs: &Blobs,
    squeezer: &Arc<Mutex<Squeezer>>,
    rest: &mut &[Hash],
    chunks: usize,
) -> Result<Option<Vec<u8>>, MoveError> {
    let part: Vec<Hash> = rest.iter().take(chunks).copied().collect();
    if part.is_empty() {
        return Ok(None);
    }
    let (store, squeezer) = (blobs.clone(), squeezer.clone());
    let (body, taken) = block(move || {
        let mut squeezer = squeezer.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut body, mut taken) = (Vec::new(), 0);
        for chunk in &part {
            if body.len() >= REQUEST {
                break;
            }
            let packed = squeezer.pack(store.load(chunk)?);
            let (hash, raw_len) = (chunk.as_bytes(), packed.raw_len);
            blobframe::encode(hash, raw_len, packed.compressed, &packed.bytes, &mut body);
            taken += 1;
        }
        Ok((body, taken))
    })
    .await?;
    *rest = &rest[taken..];
    Ok(Some(body))
}

pub(super) fn hash(bytes: &[u8]) -> Result<Hash, MoveError> {
    let bytes = bytes.try_into().map_err(|_| MoveError::Strange("no BLAKE3 hash".into()))?;
    Ok(Hash::from_bytes(bytes))
}

fn hashes(body: &[u8]) -> Result<Vec<Hash>, MoveError> {
    if !body.len().is_multiple_of(32) {
        return Err(MoveError::Strange("hashes of an odd length".into()));
    }
    body.chunks(32).map(hash).collect()
}
