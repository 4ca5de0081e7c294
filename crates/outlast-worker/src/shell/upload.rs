//! The upload of blobs to the coordinator: one at a time, in the background and over a connection
//! of their own. For the way back see `fetch`.

use super::collection;
use super::driver::Driver;
use super::now;
use super::transfer::{MoveError, block, hash, ok};
use bytes::Bytes;
use outlast_blob::{BlobError, Blobs, Hash, Manifest, Squeezer};
use outlast_net::{Answer, BodyLimit, DialError, Dialler, Http, Stopped};
use outlast_wire::blobframe::{self, HEAD, MANIFEST_PARTS, MAX_HASHES, MAX_RAW};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Bytes of a part of a manifest.
const PART: usize = 64 << 10;
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

/// The same while a proxy lets through less than one chunk.
const NARROW: Duration = Duration::from_secs(60);
/// Number of refused blobs that are remembered, so that each is reported once.
const MANY: usize = 1000;

/// Keeps uploading whatever the core wants uploaded.
pub(super) async fn run(
    dialler: Arc<Dialler>,
    blobs: Blobs,
    mut wanted: watch::Receiver<Option<Bytes>>,
    driver: Arc<Driver>,
) {
    let mut delay = RETRY.0;
    // Whether it was said that not even one chunk passes.
    let mut narrowed = false;
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
            done = upload_one(&dialler, &blobs, &manifest, &driver) => done,
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
                    driver.room.crowded();
                    collection::report(&blobs, &driver);
                }
                tried.insert(manifest.clone());
                settle(&mut wanted, &driver, &manifest);
                driver.feed(|core| core.on_no_room(&manifest));
                continue;
            }
            Err(error) => {
                let narrow = matches!(error, MoveError::TooLarge(_));
                if !(narrow && narrowed) {
                    tracing::warn!("a checkpoint waits to be sent: {error}");
                }
                narrowed = narrow;
                tokio::select! {
                    () = tokio::time::sleep(if narrow { NARROW } else { delay }) => {}
                    changed = wanted.changed() => if changed.is_err() { return },
                }
                delay = (delay * 2).min(RETRY.1);
                continue;
            }
        };
        (delay, narrowed) = (RETRY.0, false);
        crowded.remove(&manifest);
        settle(&mut wanted, &driver, &manifest);
        driver.feed(|core| core.on_uploaded(&manifest, outcome));
    }
}

/// Ends the current transfer; the core decides what comes next.
fn settle(wanted: &mut watch::Receiver<Option<Bytes>>, driver: &Driver, manifest: &Bytes) {
    wanted.borrow_and_update();
    driver.outlets.uploads.send_if_modified(|now| {
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
    driver: &Arc<Driver>,
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
    let limit = &dialler.limit;
    let mut rest = &chunks[..];
    while !rest.is_empty() {
        let most = (limit.bytes(Instant::now()) / 32).clamp(1, MAX_HASHES);
        let part = &rest[..most.min(rest.len())];
        let Some(missing) = ask_missing(&mut http, limit, part).await? else { continue };
        send_chunks(&mut http, limit, blobs, &missing, driver).await?;
        rest = &rest[part.len()..];
    }
    let encoded = Bytes::from(known.encode());
    // What was there a moment ago may have been collected since: asked again, it stays.
    for _ in 0..3 {
        let answer = put_manifest(&mut http, limit, &encoded).await?;
        if answer.status != 409 {
            return ok(answer).map(drop);
        }
        let missing = hashes(&answer.body)?;
        send_chunks(&mut http, limit, blobs, &missing, driver).await?;
    }
    Err(MoveError::Strange("the coordinator keeps losing what it was sent".into()))
}

/// Asks which of these are missing there; none: ask for fewer at a time.
async fn ask_missing(
    http: &mut Http<'_>,
    limit: &BodyLimit,
    part: &[Hash],
) -> Result<Option<Vec<Hash>>, MoveError> {
    let body = concatenated(part);
    let answer = passes(http, limit, "POST", "/api/v2/blobs/missing", body, part.len() > 1).await?;
    answer.map(|answer| hashes(&ok(answer)?)).transpose()
}

fn concatenated(hashes: &[Hash]) -> Bytes {
    hashes.iter().flat_map(|h| h.as_bytes()).copied().collect::<Vec<u8>>().into()
}

/// Sends a request. None if its body did not pass and less of it may, which is remembered;
/// `less` says whether there is less to send.
async fn passes(
    http: &mut Http<'_>,
    limit: &BodyLimit,
    method: &str,
    path: &str,
    body: Bytes,
    less: bool,
) -> Result<Option<Answer>, MoveError> {
    let bytes = body.len();
    let (why, answer) = match http.ask(method, path, body).await {
        Ok(answer) => match answer.status {
            413 => (Stopped::Refused, Ok(answer)),
            // It came too slowly.
            408 | 504 => (Stopped::Cut, Ok(answer)),
            _ => {
                limit.passed(bytes);
                return Ok(Some(answer));
            }
        },
        Err(error @ DialError::Cut { .. }) => (Stopped::Cut, Err(error)),
        Err(error) => return Err(error.into()),
    };
    // What is no larger than a chunk was cut for another reason.
    if !less || (why == Stopped::Cut && bytes <= MAX_RAW) {
        return match answer {
            Ok(answer) if answer.status == 413 => Err(MoveError::TooLarge(bytes)),
            Ok(answer) => Ok(Some(answer)),
            Err(error) => Err(error.into()),
        };
    }
    let next = limit.stopped(bytes, why, Instant::now());
    if why == Stopped::Refused {
        tracing::info!(
            "a request of {bytes} bytes is too large for a proxy in the path: {next} now"
        );
    } else {
        tracing::debug!("a request of {bytes} bytes was cut: {next} now");
    }
    Ok(None)
}

/// Sends a manifest: as one body, or where that does not pass in parts, as chunks are.
async fn put_manifest(
    http: &mut Http<'_>,
    limit: &BodyLimit,
    encoded: &Bytes,
) -> Result<Answer, MoveError> {
    const PATH: &str = "/api/v2/blobs/manifests";
    let parts = encoded.len() > PART;
    if encoded.len() <= limit.bytes(Instant::now())
        && let Some(answer) = passes(http, limit, "PUT", PATH, encoded.clone(), parts).await?
    {
        return Ok(answer);
    }
    let mut names = Vec::new();
    for part in encoded.chunks(PART) {
        let (hash, raw_len) = (Hash::of(part), u32::try_from(part.len()).unwrap_or(u32::MAX));
        let mut frame = Vec::new();
        blobframe::encode(hash.as_bytes(), raw_len, false, part, &mut frame);
        let sent = passes(http, limit, "PUT", "/api/v2/blobs/chunks", frame.into(), false).await?;
        sent.map(ok).transpose()?;
        names.push(hash);
    }
    let body = concatenated(&names);
    let answer = passes(http, limit, "PUT", MANIFEST_PARTS, body, false).await?;
    let answer = answer.ok_or_else(|| MoveError::Strange("nothing was sent".into()))?;
    if answer.status == 409 && hashes(&answer.body)?.iter().any(|lost| names.contains(lost)) {
        return Err(MoveError::Strange("the coordinator lost parts of a manifest".into()));
    }
    Ok(answer)
}

/// Chunks per request: more while the link is fast, so that fewer syncs wait
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
    limit: &BodyLimit,
    blobs: &Blobs,
    missing: &[Hash],
    driver: &Arc<Driver>,
) -> Result<(), MoveError> {
    let mut pace = Pace(LEAST * 4);
    let mut rest = missing;
    let level = driver.lock().packing().level;
    let squeezer = Arc::new(Mutex::new(Squeezer::with_level(level)?));
    let most = |pace: &Pace| (pace.0, limit.bytes(Instant::now()));
    let mut begins = rest;
    let mut next = load(blobs, &squeezer, &mut rest, most(&pace)).await?;
    while let Some(body) = next {
        let (began, bytes) = (Instant::now(), body.len() as u64);
        let (chunks, following) = (begins.len() - rest.len(), rest);
        // The disk works while the link does.
        let send = passes(http, limit, "PUT", "/api/v2/blobs/chunks", body.into(), chunks > 1);
        let (sent, loaded) = tokio::join!(send, load(blobs, &squeezer, &mut rest, most(&pace)));
        let Some(answer) = sent? else {
            // The same again, in smaller parts.
            rest = begins;
            next = load(blobs, &squeezer, &mut rest, most(&pace)).await?;
            continue;
        };
        ok(answer)?;
        begins = following;
        let took = began.elapsed();
        pace.learn(took);
        driver.feed(|core| core.on_carried(now(), bytes, took.as_millis() as u64));
        next = loaded?;
    }
    Ok(())
}

/// The next request's body, of at most so many chunks and bytes, but of one chunk at least; none
/// when nothing is left. What lies here as it was, since the disk is fast, is compressed for the link.
async fn load(
    blobs: &Blobs,
    squeezer: &Arc<Mutex<Squeezer>>,
    rest: &mut &[Hash],
    (chunks, most): (usize, usize),
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
            if taken > 0 && body.len() + HEAD + packed.bytes.len() > most {
                break;
            }
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

fn hashes(body: &[u8]) -> Result<Vec<Hash>, MoveError> {
    if !body.len().is_multiple_of(32) {
        return Err(MoveError::Strange("hashes of an odd length".into()));
    }
    body.chunks(32).map(hash).collect()
}
