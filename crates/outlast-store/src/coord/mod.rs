//! The coordinator's store: one owner that commits, any number of readers beside it.

mod apply;
mod copy;
mod current;
mod history;
mod history_rows;
mod list;
mod load;
mod reader;
mod recovery;
mod removal;
mod reports;
pub(crate) mod schema;
mod summary;
mod transaction;

pub(crate) use load::{outcome as load_outcome, spec as load_spec};
pub use reader::CoordReader;
pub use removal::AgedTask;
pub use summary::TaskExtra;

use crate::{CoordStorage, StoreError};
use outlast_core::records::{Batch, CoordRecord, CoordSnapshot, TaskRow};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The coordinator's durable state. Whoever has it is alone in writing tasks and workers.
#[derive(Debug)]
pub struct CoordStore {
    conn: Connection,
    path: PathBuf,
    coordinator_id: Arc<str>,
    /// Store id to number, of workers that this process has met.
    refs: HashMap<Arc<str>, i64>,
    _lock: outlast_sqlite::Lock,
}

impl CoordStore {
    /// Opens the store, creating it when it is missing, and loads what is not over.
    ///
    /// # Errors
    /// [`StoreError`] says what is wrong with the file; a file that is not a store of this
    /// kind and version is left as it was.
    pub fn open(path: &Path) -> Result<(CoordStore, CoordSnapshot), StoreError> {
        let (conn, lock) = outlast_sqlite::open_owned(path, &schema::KIND)?;
        let known: Option<String> = conn
            .query_row("SELECT value FROM meta WHERE key = 'coordinator_id'", [], |r| r.get(0))
            .optional()?;
        let coordinator_id: Arc<str> = match known {
            Some(id) => id.into(),
            None => {
                let id = uuid::Uuid::new_v4().to_string();
                conn.execute("INSERT INTO meta VALUES ('coordinator_id', ?1)", [&id])?;
                id.into()
            }
        };
        let path = path.to_path_buf();
        let store = CoordStore { conn, path, coordinator_id, refs: HashMap::new(), _lock: lock };
        let snapshot = store.snapshot()?;
        Ok((store, snapshot))
    }

    /// Applies all batches, in order, in one transaction, and syncs it.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing was applied and the same batches may be given again.
    pub fn commit(&mut self, batches: &[Batch<CoordRecord>]) -> Result<(), StoreError> {
        let result = self.try_commit(batches);
        if result.is_err() {
            // Some of the numbers may have been given in what was rolled back.
            self.refs.clear();
        }
        result
    }

    fn try_commit(&mut self, batches: &[Batch<CoordRecord>]) -> Result<(), StoreError> {
        if !self.conn.is_autocommit() {
            // The rollback of an earlier failure failed as well.
            self.conn.execute_batch("ROLLBACK")?;
        }
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut writing = transaction::Transaction::new(&tx, &mut self.refs);
        for record in batches.iter().flat_map(|b| &b.records) {
            writing.apply(record)?;
        }
        writing.finish()?;
        tx.commit()?;
        Ok(())
    }

    /// The snapshot that a coordinator that starts now is given.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    pub fn snapshot(&self) -> Result<CoordSnapshot, StoreError> {
        load::snapshot(&self.conn, self.coordinator_id.clone())
    }

    /// For tests of a full disk: the store may not grow beyond so many pages.
    #[doc(hidden)]
    pub fn limit_pages(&self, pages: u32) -> Result<(), StoreError> {
        self.conn.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?;
        Ok(())
    }
}

impl CoordStorage for CoordStore {
    fn commit(&mut self, batches: &[Batch<CoordRecord>]) -> Result<(), StoreError> {
        CoordStore::commit(self, batches)
    }
    fn snapshot(&self) -> Result<CoordSnapshot, StoreError> {
        CoordStore::snapshot(self)
    }
    fn task_row(&self, id: &str) -> Result<Option<TaskRow>, StoreError> {
        load::task_row(&self.conn, id)
    }
}
