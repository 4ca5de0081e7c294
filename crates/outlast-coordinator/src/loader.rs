//! The thread that reads what the core asks for: rows of tasks that have ended, earlier attempts, blobs, keys.
//! No other thread waits for these reads; a store that cannot be read after a few tries ends the coordinator.

use crate::blobs::service::BlobService;
use outlast_blob::Hash;
use outlast_core::coord::{Fact, LoadId, Query};
use outlast_model::Bytes;
use outlast_store::{CoordReader, StoreError};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Tries before the store counts as unreadable, and the pause between them.
const TRIES: (u32, Duration) = (5, Duration::from_millis(100));

/// Loads that go to the thread together, so that one wake-up serves all.
pub(crate) type Loads = Vec<(LoadId, Vec<Query>)>;
/// The facts of loads that went together, or why the store cannot be read.
pub(crate) type Loaded = Result<Vec<(LoadId, Vec<Fact>)>, String>;

/// The way to the thread. When this is dropped the thread ends, and with it lets go of store and blobs.
pub(crate) struct Loader {
    queue: Option<mpsc::Sender<Loads>>,
    thread: Option<JoinHandle<()>>,
}

impl Loader {
    /// Starts the thread; its answers come in the order of the loads.
    pub fn start(
        reader: CoordReader,
        blobs: BlobService,
    ) -> std::io::Result<(Loader, UnboundedReceiver<Loaded>)> {
        let (queue, loads) = mpsc::channel();
        let (answers, loaded) = unbounded_channel();
        let source = Source { reader, blobs };
        let thread = std::thread::Builder::new()
            .name("loads".into())
            .spawn(move || source.serve(&loads, &answers))?;
        Ok((Loader { queue: Some(queue), thread: Some(thread) }, loaded))
    }

    /// Asks for the facts of these loads.
    pub fn load(&self, loads: Loads) {
        // The thread has ended only if the store cannot be read, which it has reported.
        let _ = self.queue.as_ref().map(|queue| queue.send(loads));
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Source {
    reader: CoordReader,
    blobs: BlobService,
}

impl Source {
    fn serve(&self, batches: &mpsc::Receiver<Loads>, answers: &UnboundedSender<Loaded>) {
        for loads in batches {
            let facts = |(load, queries): (LoadId, Vec<Query>)| {
                let facts = queries.iter().map(|query| self.answer_in_the_end(query));
                Ok((load, facts.collect::<Result<Vec<Fact>, StoreError>>()?))
            };
            let all: Result<Vec<_>, StoreError> = loads.into_iter().map(facts).collect();
            let failed = all.is_err();
            if answers.send(all.map_err(|error| error.to_string())).is_err() || failed {
                return;
            }
        }
    }

    /// Reads a fact, a few times if need be.
    fn answer_in_the_end(&self, query: &Query) -> Result<Fact, StoreError> {
        for _ in 1..TRIES.0 {
            match self.answer(query) {
                Err(error) => tracing::warn!("the store could not be read, trying again: {error}"),
                fact => return fact,
            }
            std::thread::sleep(TRIES.1);
        }
        self.answer(query)
    }

    fn answer(&self, query: &Query) -> Result<Fact, StoreError> {
        let reader = &self.reader;
        Ok(match query {
            Query::Task(id) => Fact::Task(reader.task_row(id)?.map(Box::new)),
            Query::Former(id) => Fact::Epoch(reader.former(id)?),
            Query::Owned(id, owner) => Fact::Is(reader.is_owned(id, owner)?),
            Query::Blob(manifest, store) => Fact::Is(self.has_blob(manifest, store)?),
            Query::Attempts(id, worker) => Fact::Attempts(reader.attempts(id, worker)?),
            Query::Given(id, epoch) => Fact::Given(reader.given(id, *epoch)?),
            Query::Key(name) => Fact::Is(reader.key_is_valid(name)?),
            Query::State(id) => Fact::State(reader.state(id)?.map(Arc::new)),
            Query::Checkpoints(id) => {
                let all = reader.checkpoints(id)?;
                Fact::Checkpoints(all.into_iter().map(|c| c.checkpoint).collect())
            }
        })
    }

    fn has_blob(&self, manifest: &Bytes, store: &str) -> Result<bool, StoreError> {
        let stores = [store.to_owned()];
        // A worker that knows no more of a blob than its name cannot make it its own.
        let of = |hash| self.blobs.is_from(&Hash::from_bytes(hash), &stores);
        if !<[u8; 32]>::try_from(&manifest[..]).is_ok_and(of)
            && !self.reader.may_read(manifest, &stores)?
        {
            return Ok(false);
        }
        // Its worker uploads again what was here all the time; nothing is lost.
        Ok(self.blobs.has(manifest).unwrap_or_else(|error| {
            tracing::warn!("a blob could not be looked up: {error}");
            false
        }))
    }
}
