//! Recovery from failures: the table, what is learned, and how to overrule it.

use crate::client::{Client, escape};
use crate::error::Error;
use outlast_wire::api::{OfType, RecoveryPatterns, RecoveryTable};
use reqwest::Method;

impl Client {
    /// The table of what is tried after which failure.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// # Examples
    /// ```
    /// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
    /// # common::with_worker(async |client| {
    /// use outlast::api::Strategy;
    ///
    /// let table = client.recovery().await?;
    /// assert!(table.errors["out_of_memory"].contains(&Strategy::ReducedBatchSize));
    /// # Ok(())
    /// # });
    /// ```
    pub async fn recovery(&self) -> Result<RecoveryTable, Error> {
        self.get("/api/v1/recovery").await
    }

    /// The patterns of failures, the quarantined workers, and the knobs that worked.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// # Examples
    /// ```
    /// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
    /// # common::with_worker(async |client| {
    /// let found = client.recovery_patterns().await?;
    /// assert!(found.patterns.is_empty() && found.quarantined.is_empty());
    /// # Ok(())
    /// # });
    /// ```
    pub async fn recovery_patterns(&self) -> Result<RecoveryPatterns, Error> {
        self.get("/api/v1/recovery/patterns").await
    }

    /// Gives a quarantined worker work again.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// # Examples
    /// ```
    /// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
    /// # common::with_worker(async |client| {
    /// client.quarantine("w1").await?;
    /// client.release("w1").await?;
    /// assert!(client.recovery_patterns().await?.quarantined.is_empty());
    /// # Ok(())
    /// # });
    /// ```
    pub async fn release(&self, worker: &str) -> Result<(), Error> {
        let path = format!("/api/v1/workers/{}/release", escape(worker));
        self.send(|| self.request(Method::POST, &path)).await.map(drop)
    }

    /// Gives a worker no work but probes.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// # Examples
    /// ```
    /// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
    /// # common::with_worker(async |client| {
    /// client.quarantine("w1").await?;
    /// assert_eq!(client.recovery_patterns().await?.quarantined[0].worker, "w1");
    /// # Ok(())
    /// # });
    /// ```
    pub async fn quarantine(&self, worker: &str) -> Result<(), Error> {
        let path = format!("/api/v1/workers/{}/quarantine", escape(worker));
        self.send(|| self.request(Method::POST, &path)).await.map(drop)
    }

    /// Discards the failures of this type.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// # Examples
    /// ```
    /// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
    /// # common::with_worker(async |client| {
    /// // No task of this type has failed lately.
    /// let error = client.allow_type("train").await.unwrap_err();
    /// assert_eq!(error.status(), Some(404));
    /// # Ok(())
    /// # });
    /// ```
    pub async fn allow_type(&self, task_type: &str) -> Result<(), Error> {
        self.of_type("/api/v1/recovery/allow", Some(task_type)).await
    }

    /// Forgets the knobs that worked, for a type or (none) for all.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// # Examples
    /// ```
    /// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
    /// # common::with_worker(async |client| {
    /// client.forget_knobs(None).await?;
    /// # Ok(())
    /// # });
    /// ```
    pub async fn forget_knobs(&self, task_type: Option<&str>) -> Result<(), Error> {
        self.of_type("/api/v1/recovery/forget", task_type).await
    }

    async fn of_type(&self, path: &str, task_type: Option<&str>) -> Result<(), Error> {
        let body = OfType { task_type: task_type.map(ToOwned::to_owned) };
        self.send(|| self.request(Method::POST, path).json(&body)).await.map(drop)
    }
}
