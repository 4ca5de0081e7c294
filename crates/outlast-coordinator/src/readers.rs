//! Connections for reading the store, a few, used from blocking threads.

use outlast_store::{CoordReader, CoordStore, StoreError};
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Readers at a time; others wait.
const READERS: usize = 4;

#[derive(Clone)]
pub(crate) struct Readers {
    idle: Arc<Mutex<Vec<CoordReader>>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    pub fn new(store: &CoordStore) -> Result<Readers, StoreError> {
        let idle = (0..READERS).map(|_| store.reader()).collect::<Result<Vec<_>, _>>()?;
        Ok(Readers { idle: Arc::new(Mutex::new(idle)), permits: Semaphore::new(READERS).into() })
    }

    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&CoordReader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, String> {
        let ended = || "the coordinator ends".to_owned();
        let _permit = self.permits.acquire().await.map_err(|_| ended())?;
        let idle = self.idle.clone();
        let reader = idle.lock().pop().ok_or_else(|| "a reader was lost to a panic".to_owned())?;
        let done = tokio::task::spawn_blocking(move || {
            let result = read(&reader);
            idle.lock().push(reader);
            result
        });
        done.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
    }
}
