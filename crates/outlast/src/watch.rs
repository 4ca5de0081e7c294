//! Links and workers as they are measured: the fleet in short, metrics, timelines, alerts.

use crate::client::{Client, escape};
use crate::error::Error;
use outlast_wire::api::{AlertList, FleetPage, WorkerMetrics, WorkerTimeline};

impl Client {
    /// All workers in short; those after `cursor`, which is `next` of the page before.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// # Examples
    /// ```
    /// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
    /// # common::with_worker(async |client| {
    /// let page = client.fleet(None).await?;
    /// println!("{} of {} workers are connected", page.totals.connected, page.totals.workers);
    /// # Ok(())
    /// # });
    /// ```
    pub async fn fleet(&self, cursor: Option<&str>) -> Result<FleetPage, Error> {
        let query = cursor.map_or(String::new(), |c| format!("?cursor={}", escape(c)));
        self.get(&format!("/api/v1/fleet{query}")).await
    }

    /// The measurements of a worker, and their history: `1s`, `1m` or `1h`, from this time on (Unix
    /// milliseconds; none: the default).
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// # Examples
    /// ```
    /// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
    /// # common::with_worker(async |client| {
    /// let metrics = client.worker_metrics("w1", "1s", None).await?;
    /// assert_eq!((&*metrics.name, metrics.series.step_ms), ("w1", 1000));
    /// # Ok(())
    /// # });
    /// ```
    pub async fn worker_metrics(
        &self,
        name: &str,
        resolution: &str,
        from: Option<i64>,
    ) -> Result<WorkerMetrics, Error> {
        let from = from.map_or(String::new(), |ms| format!("&from={ms}"));
        let name = escape(name);
        self.get(&format!("/api/v1/workers/{name}/metrics?resolution={resolution}{from}")).await
    }

    /// The timeline of a worker's link, from this time on (Unix milliseconds; none: a day).
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// # Examples
    /// ```
    /// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
    /// # common::with_worker(async |client| {
    /// let timeline = client.timeline("w1", None).await?;
    /// println!("w1 was in {} states", timeline.intervals.len());
    /// # Ok(())
    /// # });
    /// ```
    pub async fn timeline(&self, name: &str, from: Option<i64>) -> Result<WorkerTimeline, Error> {
        let from = from.map_or(String::new(), |ms| format!("?from={ms}"));
        self.get(&format!("/api/v1/workers/{}/timeline{from}", escape(name))).await
    }

    /// Alerts: those that are firing, then those that were cleared. `state` is firing or cleared.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// # Examples
    /// ```
    /// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
    /// # common::with_worker(async |client| {
    /// let list = client.alerts(Some("firing")).await?;
    /// assert!(list.alerts.is_empty() && !list.rules.is_empty());
    /// # Ok(())
    /// # });
    /// ```
    pub async fn alerts(&self, state: Option<&str>) -> Result<AlertList, Error> {
        let query = state.map_or(String::new(), |s| format!("?state={}", escape(s)));
        self.get(&format!("/api/v1/alerts{query}")).await
    }
}
