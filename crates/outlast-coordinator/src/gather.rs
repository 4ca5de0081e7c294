//! Gathers all metrics, for `/metrics` and for OpenTelemetry.

use crate::app::App;
use crate::families::Family;
use crate::health::Health;
use crate::metrics::{self, Sample};
use crate::problem::Refusal;
use crate::quality::prom;

/// All metrics; `workers` is how many of them are to have series of their own.
pub(crate) async fn families(app: &App, workers: Option<usize>) -> Result<Vec<Family>, Refusal> {
    let sample = app.query(Sample::of).await?;
    let counts = app.read(|r| r.counts()).await?;
    let writable = *app.health.borrow() == Health::Good;
    let usage = app.blobs.run(|blobs| Ok(blobs.usage())).await?;
    let mut all = metrics::families(&sample, counts, writable, usage, app.blobs.totals());
    all.extend(prom::families(&app.quality, workers));
    all.extend(app.otel.iter().flat_map(|otel| otel.families()));
    Ok(all)
}
