//! The download of blobs from the coordinator when a task requests one: parts that are missing here, or
//! damaged.

use super::refusals::of_blobs;
use super::transfer::{MoveError, block, hash, ok};
use crate::local::HostError;
use crate::local::client::escape;
use bytes::Bytes;
use outlast_blob::{BlobError, BlobReader, Blobs, Hash, Manifest, Packed};
use outlast_model::Checkpoint;
use outlast_net::{Dialler, Http};
use outlast_wire::blobframe::{self, Decoder, MAX_WANTED};
use outlast_wire::v2;
use prost::Message;
use std::collections::HashSet;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;
use tokio::runtime::Handle;

/// Brings here what is missing of a blob, or damaged; durable when it returns.
pub(super) async fn download(
    dialler: &Dialler,
    blobs: &Blobs,
    manifest: &[u8],
) -> Result<Hash, MoveError> {
    let id = hash(manifest)?;
    let mut http = Http::new(dialler);
    let (here, mut damage) = local_manifest(blobs, id).await?;
    let (known, encoded) = match here {
        Some(known) => (known, None),
        None => {
            let path = format!("/api/v2/blobs/manifests/{id}");
            let answer = ok(http.ask("GET", &path, Bytes::new()).await?);
            let encoded = answer.map_err(|e| lost(e, damage.as_deref()))?;
            (Manifest::decode(&encoded).map_err(MoveError::Blob)?, Some(encoded))
        }
    };
    let mut seen = HashSet::new();
    let chunks = known.chunks().iter().map(|(h, _)| *h).filter(|h| seen.insert(*h));
    let chunks: Vec<Hash> = chunks.collect();
    for part in chunks.chunks(MAX_WANTED / 4) {
        let (store, part) = (blobs.clone(), part.to_vec());
        let missing = block(move || store.missing(&part)).await?;
        if missing.is_empty() {
            continue;
        }
        // A manifest is stored after its chunks: they were here.
        if encoded.is_none() && damage.is_none() {
            damage = Some(BlobError::Missing(missing.clone()).to_string());
            tracing::warn!("blob {id} is damaged here and is fetched again in part");
        }
        let body: Vec<u8> = missing.iter().flat_map(|h| h.as_bytes()).copied().collect();
        let answer = ok(http.ask("POST", "/api/v2/blobs/chunks", body.into()).await?);
        let body = answer.map_err(|e| lost(e, damage.as_deref()))?;
        let store = blobs.clone();
        let stored = block(move || Ok(ingest(&store, &body))).await?;
        stored?;
    }
    let Some(encoded) = encoded else { return Ok(id) };
    let store = blobs.clone();
    block(move || store.accept_manifest(&encoded)).await
}

/// The checkpoints of a task that the coordinator keeps, oldest first.
pub(super) async fn kept(dialler: &Dialler, task: &str) -> Result<Vec<Checkpoint>, MoveError> {
    let path = format!("/api/v2/tasks/{}/checkpoints", escape(task));
    let answer = Http::new(dialler).ask("GET", &path, Bytes::new()).await?;
    if answer.status == 404 {
        let (word, text) = answer.problem();
        return match word.as_str() {
            "not-found" => Ok(Vec::new()),
            _ => Err(MoveError::Refused(404, text)),
        };
    }
    let (mut body, mut all) = (ok(answer)?, Vec::new());
    while !body.is_empty() {
        let next = v2::Checkpoint::decode_length_delimited(&mut body);
        all.push(next.map_err(|e| MoveError::Strange(e.to_string()))?.into());
    }
    Ok(all)
}

/// The manifest, if it is here; and what is wrong with it.
async fn local_manifest(
    blobs: &Blobs,
    id: Hash,
) -> Result<(Option<Manifest>, Option<String>), MoveError> {
    let store = blobs.clone();
    let query = move || {
        // Asking pins it, so that it stays until it is read.
        if !store.has_manifest(&id)? {
            return Ok((None, None));
        }
        match store.manifest(&id) {
            Err(e @ BlobError::ManifestDamaged { .. }) => Ok((None, Some(e.to_string()))),
            known => Ok((known?, None)),
        }
    };
    block(query).await
}

/// Turns a missing blob at the coordinator into a permanent error, if the local one is damaged.
fn lost(error: MoveError, damage: Option<&str>) -> MoveError {
    match (error, damage) {
        (MoveError::Gone, Some(damage)) => MoveError::Lost(damage.into()),
        (error, _) => error,
    }
}

fn ingest(blobs: &Blobs, body: &[u8]) -> Result<(), MoveError> {
    let strange = |e: blobframe::FrameError| MoveError::Strange(e.to_string());
    let mut decoder = Decoder::default();
    decoder.push(body);
    let mut ingest = blobs.ingest();
    while let Some(frame) = decoder.next().map_err(strange)? {
        let (raw_len, compressed) = (frame.raw_len, frame.compressed);
        let packed = Packed { raw_len, compressed, bytes: frame.bytes.to_vec() };
        ingest.add(Hash::from_bytes(frame.hash), packed)?;
    }
    decoder.end().map_err(strange)?;
    ingest.commit()?;
    Ok(())
}

/// Place where a checkpoint's data is, and may be had again.
#[derive(Clone)]
pub(super) struct Origin {
    pub dialler: Arc<Dialler>,
    pub blobs: Blobs,
    pub manifest: Bytes,
    /// Id of the checkpoint, for messages.
    pub id: String,
    /// True if the coordinator has it.
    pub delivered: bool,
}

impl Origin {
    /// Brings here what is missing.
    async fn complete(&self) -> Result<Hash, HostError> {
        let done = download(&self.dialler, &self.blobs, &self.manifest).await;
        done.map_err(|error| match error {
            MoveError::Blob(error) if !is_damage(&error) => of_blobs(error),
            MoveError::Blob(_) | MoveError::Lost(_) => self.damaged(&error),
            // Nobody else has it: waiting for the coordinator would not help.
            error if !self.delivered => self.damaged(&error),
            error => HostError::Unavailable(format!("checkpoint {}: {error}", self.id)),
        })
    }

    fn damaged(&self, why: &dyn std::fmt::Display) -> HostError {
        HostError::Damaged(format!(
            "the data of checkpoint {} is damaged on this worker's disk and cannot be had from \
             the coordinator: {why}",
            self.id
        ))
    }

    /// The bytes, which mend themselves while they are read.
    pub async fn open(self) -> Result<Box<dyn Read + Send>, HostError> {
        let hash = self.complete().await?;
        let reader = self.blobs.reader(&hash).map_err(of_blobs)?;
        let runtime = Handle::current();
        Ok(Box::new(Mending { origin: self, hash, reader, at: 0, mended: None, runtime }))
    }
}

fn is_damage(error: &BlobError) -> bool {
    matches!(
        error,
        BlobError::ChunkDamaged { .. }
            | BlobError::ManifestDamaged { .. }
            | BlobError::Missing(_)
            | BlobError::Unknown(_)
    )
}

/// Reads a blob, on a blocking thread. Whether a chunk is sound is known only when it is read: one
/// that is not is fetched, once. Fails with a [`HostError`] inside the [`io::Error`].
struct Mending {
    origin: Origin,
    hash: Hash,
    reader: BlobReader,
    at: u64,
    /// Place where the last damage was.
    mended: Option<u64>,
    runtime: Handle,
}

impl Mending {
    fn mend(&mut self, error: &io::Error) -> Result<(), HostError> {
        let found = error.get_ref().and_then(|e| e.downcast_ref::<BlobError>());
        if !found.is_some_and(is_damage) {
            return Err(HostError::Internal(error.to_string()));
        }
        if self.mended.replace(self.at) == Some(self.at) {
            return Err(self.origin.damaged(error));
        }
        tracing::warn!("checkpoint {}: {error}; fetching it again", self.origin.id);
        let (tx, rx) = std::sync::mpsc::channel();
        let origin = self.origin.clone();
        self.runtime.spawn(async move {
            let _ = tx.send(origin.complete().await);
        });
        let done = rx.recv();
        done.map_err(|_| HostError::Unavailable("the worker ends".into()))??;
        // A new reader, since the old one has the damaged bytes in memory.
        let mut reader = self.origin.blobs.reader(&self.hash).map_err(of_blobs)?;
        let sought = reader.seek(SeekFrom::Start(self.at));
        sought.map_err(|e| HostError::Internal(e.to_string()))?;
        self.reader = reader;
        Ok(())
    }
}

impl Read for Mending {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.reader.read(buf) {
                Ok(n) => {
                    self.at += n as u64;
                    return Ok(n);
                }
                Err(error) => self.mend(&error).map_err(io::Error::other)?,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::extract::{Path, State};
    use axum::http::StatusCode;
    use axum::routing::{get, post};
    use outlast_blob::Config;

    /// Serves a download like a coordinator.
    async fn manifest(
        State(blobs): State<Blobs>,
        Path(hash): Path<String>,
    ) -> Result<Vec<u8>, StatusCode> {
        let found = blobs.manifest(&hash.parse().unwrap()).unwrap();
        found.map(|m| m.encode()).ok_or(StatusCode::NOT_FOUND)
    }

    async fn chunks(State(blobs): State<Blobs>, body: Bytes) -> Result<Vec<u8>, StatusCode> {
        let mut out = Vec::new();
        for wanted in body.chunks(32) {
            let packed = blobs.load(&hash(wanted).unwrap()).map_err(|_| StatusCode::NOT_FOUND)?;
            blobframe::encode(
                wanted.try_into().unwrap(),
                packed.raw_len,
                packed.compressed,
                &packed.bytes,
                &mut out,
            );
        }
        Ok(out)
    }

    struct Rig {
        dir: tempfile::TempDir,
        origin: Origin,
        data: Vec<u8>,
    }

    /// A checkpoint that lies here, and at a coordinator if it is delivered.
    async fn rig(delivered: bool) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let [here, there] =
            ["here", "there"].map(|n| Blobs::open(dir.path().join(n), Config::default()).unwrap());
        // Chunks that differ, and do not shrink.
        let mut seed = 7_u64;
        let data = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as u8
        });
        let data: Vec<u8> = data.take(1_500_000).collect();
        let put = here.put(&data[..]).unwrap();
        if delivered {
            there.put(&data[..]).unwrap();
        }
        let app = Router::new()
            .route("/api/v2/blobs/manifests/{hash}", get(manifest))
            .route("/api/v2/blobs/chunks", post(chunks))
            .with_state(there);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        let dialler = Arc::new(Dialler::new(&at, "w", None, None).unwrap());
        let manifest = Bytes::copy_from_slice(put.manifest.as_bytes());
        let origin = Origin { dialler, blobs: here, manifest, id: "1-1".into(), delivered };
        Rig { dir, origin, data }
    }

    impl Rig {
        /// Flips a bit near the end of every pack.
        fn damage(&self) {
            for pack in std::fs::read_dir(self.dir.path().join("here/packs")).unwrap() {
                let path = pack.unwrap().path();
                if path.is_file() {
                    let mut bytes = std::fs::read(&path).unwrap();
                    let at = bytes.len() * 3 / 4;
                    bytes[at] ^= 1;
                    std::fs::write(&path, bytes).unwrap();
                }
            }
        }
        async fn read(&self) -> Result<Vec<u8>, HostError> {
            let mut body = self.origin.clone().open().await?;
            let read = tokio::task::spawn_blocking(move || {
                let mut all = Vec::new();
                body.read_to_end(&mut all).map(|_| all)
            });
            read.await.unwrap().map_err(|e| HostError::of_file("x", &e))
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn damage_is_mended_from_the_coordinator() {
        let rig = rig(true).await;
        rig.damage();
        // Found while it is read.
        assert!(rig.read().await.unwrap() == rig.data);
        assert_eq!(rig.origin.blobs.usage().damaged, 0);
        rig.damage();
        // Known before: somebody else read it.
        let hash = hash(&rig.origin.manifest).unwrap();
        let mut plain = rig.origin.blobs.reader(&hash).unwrap();
        plain.read_to_end(&mut Vec::new()).unwrap_err();
        assert_ne!(rig.origin.blobs.usage().damaged, 0);
        assert!(rig.read().await.unwrap() == rig.data);
        assert_eq!(rig.origin.blobs.usage().damaged, 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn damage_that_nobody_can_mend_is_said() {
        let rig = rig(false).await;
        assert!(rig.read().await.unwrap() == rig.data);
        rig.damage();
        // While it is read, and before.
        for _ in 0..2 {
            let error = rig.read().await.unwrap_err();
            assert!(matches!(&error, HostError::Damaged(_)), "{error:?}");
            assert!(error.to_string().contains("checkpoint 1-1 is damaged"), "{error}");
        }
    }
}
