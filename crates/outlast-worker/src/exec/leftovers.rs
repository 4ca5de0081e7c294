//! The files that attempts leave: their output is ended, empty folders go, and the oldest of many are pruned.

use super::attempt::Attempt;
use super::disk::too_little_left;
use super::engine::Engine;
use super::lock::lock;
use super::logs;
use super::remove::remove_folder;
use super::spares::Folder;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Bytes that ended attempts must have left before pruning is worth its while where room is short.
const WORTH_PRUNING: u64 = 256 << 10;

impl Attempt {
    /// Ends the files of the attempt; an empty folder goes. Returns the bytes written to stdout and
    /// stderr, and the last of them.
    ///
    /// `deserted`: no process is left that could write there, so empty ones may be used again.
    pub(super) fn clear_away(
        &self,
        engine: &Arc<Engine>,
        folder: Option<Folder>,
        deserted: bool,
    ) -> [(u64, Vec<u8>); 2] {
        let mut kept = 0;
        let mut ends = [(0, Vec::new()), (0, Vec::new())];
        let streams = lock(&self.output).take();
        for (end, stream) in ends.iter_mut().zip(streams.into_iter().flatten()) {
            *end = engine.outputs.end(&stream, deserted);
            kept += end.0.min(engine.config.output_cap);
        }
        let folder = match folder {
            Some(folder) if deserted => lock(&engine.spares).give_folder(folder).err(),
            folder => folder,
        };
        if let Some(folder) = folder
            && fs::remove_dir(&folder.path).is_err_and(|e| e.kind() != io::ErrorKind::NotFound)
            && let Some(name) = folder.path.file_name()
            && symlink(name, &self.paths.work).is_ok()
        {
            kept += 64 << 10; // a guess: it is not worth a walk
        }
        if engine.config.user.is_some()
            && self.is_browser()
            && let Some(folder) = self.paths.result.parent()
        {
            let _ = remove_folder(folder);
        }
        engine.count_kept(kept);
        ends
    }
}

impl Engine {
    /// Counts the bytes that an attempt left on disk, and prunes now and then.
    fn count_kept(self: &Arc<Self>, bytes: u64) {
        if bytes == 0 {
            return;
        }
        // Even a byte takes a block.
        let kept = self.kept.fetch_add(bytes + 4096, Ordering::Relaxed);
        // Where room is short, results and checkpoints need it more than what has ended.
        let short = too_little_left(&self.config).map(|free| self.config.reserve_bytes - free);
        let worth = if short.is_some() { WORTH_PRUNING } else { self.config.keep_logs_bytes / 8 };
        if kept < worth || self.pruning.swap(true, Ordering::AcqRel) {
            return;
        }
        self.kept.store(0, Ordering::Relaxed);
        let engine = Arc::clone(self);
        let pruner = std::thread::Builder::new().name("outlast-prune".to_owned());
        let started = pruner.spawn(move || {
            let running = |stem: &str| {
                let runs = lock(&engine.table).running.values().any(|a| a.stem() == stem);
                runs || engine.outputs.lingers(stem)
            };
            let keep = engine.config.keep_logs_bytes;
            match logs::prune(&engine.config.root, keep, short.unwrap_or(0), running) {
                Ok(freed) => tracing::debug!(freed, "pruned logs"),
                Err(error) => tracing::warn!(%error, "could not prune logs"),
            }
            engine.pruning.store(false, Ordering::Release);
        });
        if started.is_err() {
            self.pruning.store(false, Ordering::Release);
        }
    }
}
