//! Packs as objects in an S3-class bucket, by the `object_store` crate.

use super::{PackStore, PackWriter};
use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, WriteMultipart};
use std::io::{self, IoSlice};
use std::sync::{Arc, mpsc};
use tokio::runtime::{Builder, Handle, Runtime};

/// Bytes of a part of an upload; a pack that is smaller goes up in one request.
const PART: usize = 8 << 20;
/// Parts on their way at a time.
const PARTS: usize = 3;
/// Prefix of object names.
const FOLDER: &str = "packs";

/// Packs as objects named `packs/<pack>` in a bucket, or below a prefix of it when `store` is
/// one of `object_store`'s prefixes. Stores may share a bucket: no two use the same pack names.
///
/// What an interrupted upload has left in the bucket without completing it has no name; have
/// the bucket expire that by a lifecycle rule. Memory: 40 MiB for each pack being written.
pub struct ObjectPacks {
    inner: Inner,
    place: String,
    /// Requests run here, so that blocking callers need no runtime of their own.
    runtime: Option<Runtime>,
}

#[derive(Clone)]
struct Inner {
    store: Arc<dyn ObjectStore>,
    handle: Handle,
}

impl ObjectPacks {
    /// The packs in this object store, which `place` names.
    ///
    /// # Errors
    /// When the thread for requests cannot be started.
    pub fn new(store: Arc<dyn ObjectStore>, place: impl Into<String>) -> io::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        let runtime =
            builder.worker_threads(1).thread_name("outlast-blob-s3").enable_all().build()?;
        let inner = Inner { store, handle: runtime.handle().clone() };
        Ok(Self { inner, place: place.into(), runtime: Some(runtime) })
    }
}

impl Drop for ObjectPacks {
    fn drop(&mut self) {
        // Waiting for it would panic in an asynchronous caller.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Inner {
    /// Runs a request and waits for it, from whatever thread.
    fn run<T, F>(&self, request: F) -> io::Result<T>
    where
        T: Send + 'static,
        F: Future<Output = object_store::Result<T>> + Send + 'static,
    {
        let (done, result) = mpsc::sync_channel(1);
        self.handle.spawn(async move {
            let _ = done.send(request.await);
        });
        let stopped = |_| io::Error::other("the request was dropped");
        result.recv().map_err(stopped)?.map_err(to_io)
    }
}

impl PackStore for ObjectPacks {
    fn place(&self) -> Option<&str> {
        Some(&self.place)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn PackWriter>> {
        let (inner, path) = (self.inner.clone(), path(name));
        Ok(Box::new(ObjectWriter { inner, path, small: Vec::new(), upload: None }))
    }

    fn sync_names(&self) -> io::Result<()> {
        // An upload that is acknowledged is durable, name and all.
        Ok(())
    }

    fn read_at(&self, name: &str, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        let (store, path) = (self.inner.store.clone(), path(name));
        let range = pos..pos + buf.len() as u64;
        let bytes = self.inner.run(async move { store.get_range(&path, range).await })?;
        if bytes.len() != buf.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buf.copy_from_slice(&bytes);
        Ok(())
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        let (store, path) = (self.inner.store.clone(), path(name));
        match self.inner.run(async move { store.delete(&path).await }) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(&str, u64)) -> io::Result<()> {
        let store = self.inner.store.clone();
        let listing = async move { store.list(Some(&Path::from(FOLDER))).try_collect().await };
        let found: Vec<ObjectMeta> = self.inner.run(listing)?;
        for object in found {
            if let Some(name) = object.location.filename().filter(|n| n.starts_with(prefix)) {
                each(name, object.size);
            }
        }
        Ok(())
    }
}

struct ObjectWriter {
    inner: Inner,
    path: Path,
    /// The beginning, until it is more than a part.
    small: Vec<u8>,
    upload: Option<WriteMultipart>,
}

impl ObjectWriter {
    fn begin(&mut self) -> io::Result<WriteMultipart> {
        let (store, path) = (self.inner.store.clone(), self.path.clone());
        let upload = self.inner.run(async move { store.put_multipart(&path).await })?;
        Ok(WriteMultipart::new_with_chunk_size(upload, PART))
    }
}

impl PackWriter for ObjectWriter {
    fn append(&mut self, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        let more: usize = parts.iter().map(|part| part.len()).sum();
        if self.upload.is_none() && self.small.len() + more <= PART {
            parts.iter().for_each(|part| self.small.extend_from_slice(part));
            return Ok(());
        }
        let mut upload = match self.upload.take() {
            Some(upload) => upload,
            None => self.begin()?,
        };
        // Full parts start on their way by themselves; that needs the runtime.
        let runtime = self.inner.handle.enter();
        upload.write(&std::mem::take(&mut self.small));
        parts.iter().for_each(|part| upload.write(part));
        drop(runtime);
        let upload = self.inner.run(async move {
            upload.wait_for_capacity(PARTS).await?;
            Ok(upload)
        })?;
        self.upload = Some(upload);
        Ok(())
    }

    fn seal(mut self: Box<Self>) -> io::Result<()> {
        if let Some(upload) = self.upload.take() {
            return self.inner.run(upload.finish()).map(drop);
        }
        let (store, path) = (self.inner.store.clone(), self.path.clone());
        let pack = std::mem::take(&mut self.small);
        self.inner.run(async move { store.put(&path, pack.into()).await }).map(drop)
    }
}

impl Drop for ObjectWriter {
    fn drop(&mut self) {
        if let Some(upload) = self.upload.take() {
            let _ = self.inner.run(upload.abort());
        }
    }
}

fn path(name: &str) -> Path {
    Path::from_iter([FOLDER, name])
}

/// Keeps the kind of what lies at the bottom; what a remote store says otherwise has been
/// retried for a while and may pass.
fn to_io(error: object_store::Error) -> io::Error {
    use object_store::Error as E;
    let kind = match &error {
        E::NotFound { .. } => io::ErrorKind::NotFound,
        E::AlreadyExists { .. } => io::ErrorKind::AlreadyExists,
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => io::ErrorKind::PermissionDenied,
        E::Generic { source, .. } => {
            let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&**source);
            let mut kind = io::ErrorKind::TimedOut;
            while let Some(inner) = cause {
                if let Some(io) = inner.downcast_ref::<io::Error>() {
                    kind = io.kind();
                }
                cause = inner.source();
            }
            kind
        }
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}
