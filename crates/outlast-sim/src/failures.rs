//! The failures of tasks and of hardware: which tasks fail, and how.

use crate::world::World;
use outlast_core::AttemptId;
use outlast_model::OutcomeKind;
use outlast_wire::TaskSpec;
use outlast_wire::recovery::Recovery;
use rand::Rng;
use serde_json::json;

/// The label with the largest batch size a task has enough memory; 0: at none.
const FITS: &str = "fits";

impl World {
    /// Some tasks have knobs, budgets and delays of their own.
    pub fn may_fail(&mut self, spec: &mut TaskSpec) {
        let rng = &mut self.rng;
        if rng.random_bool(0.3) {
            let sizes = [64, 32, 16, 8].map(|n| json!(n));
            let from = rng.random_range(0..4);
            spec.knobs.insert("batch_size".into(), sizes[from..].to_vec());
            let fits = [64, 32, 16, 8, 0][rng.random_range(0..5)];
            spec.labels.insert(FITS.into(), fits.to_string());
            spec.max_oom_retries = rng.random_bool(0.3).then(|| rng.random_range(0..4));
            spec.task_type = ["a", "b"][rng.random_range(0..2)].into();
        }
        if rng.random_bool(0.2) {
            let base_delay = Some([0.0, 0.5, 20.0][rng.random_range(0..3)]);
            let own = Recovery { base_delay, max_delay: Some(30.0), ..Recovery::default() };
            spec.recovery = Some(Box::new(own));
        }
    }

    /// Returns how an attempt ends by itself, and what it writes.
    pub fn fate(
        &mut self,
        i: usize,
        id: &AttemptId,
        spec: &TaskSpec,
    ) -> (OutcomeKind, &'static str) {
        use OutcomeKind::{Failed, Succeeded};
        if let Some(size) = spec.env.get("OUTLAST_KNOB_BATCH_SIZE") {
            self.oracle.runs_with(id, &self.coord.store, size);
            let fits: u32 = spec.labels.get(FITS).and_then(|f| f.parse().ok()).unwrap_or(64);
            if size.parse::<u32>().is_ok_and(|size| size > fits) {
                return (Failed, "MemoryError");
            }
        }
        if self.workers[i].bad_until > self.now && self.rng.random_bool(0.9) {
            return (Failed, "RuntimeError: CUDA error: unspecified launch failure");
        }
        match self.rng.random_range(0..20) {
            0 => (Failed, "RuntimeError: CUDA error: device-side assert triggered"),
            1 => (Failed, "Error: read ECONNRESET"),
            _ => (Succeeded, ""),
        }
    }
}
