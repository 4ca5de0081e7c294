//! Failure recovery: queries and overrides.

use crate::client::{Client, Error, escape};
use outlast_wire::api::{OfType, RecoveryPatterns, RecoveryTable};
use reqwest::Method;

impl Client {
    /// Returns the recovery actions for each class of failure.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn recovery(&self) -> Result<RecoveryTable, Error> {
        self.get("/api/v1/recovery").await
    }

    /// Returns repeated failures, quarantined workers, and knob values that worked.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn recovery_patterns(&self) -> Result<RecoveryPatterns, Error> {
        self.get("/api/v1/recovery/patterns").await
    }

    /// Gives a quarantined worker work again.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn release(&self, worker: &str) -> Result<(), Error> {
        let path = format!("/api/v1/workers/{}/release", escape(worker));
        self.send(|| self.request(Method::POST, &path)).await.map(drop)
    }

    /// Gives a worker no work but probes.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn quarantine(&self, worker: &str) -> Result<(), Error> {
        let path = format!("/api/v1/workers/{}/quarantine", escape(worker));
        self.send(|| self.request(Method::POST, &path)).await.map(drop)
    }

    /// Discards the failures of a type of task.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn allow_type(&self, task_type: &str) -> Result<(), Error> {
        self.of_type("/api/v1/recovery/allow", Some(task_type)).await
    }

    /// Forgets the knobs that worked, for a type or (none) for all.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn forget_knobs(&self, task_type: Option<&str>) -> Result<(), Error> {
        self.of_type("/api/v1/recovery/forget", task_type).await
    }

    async fn of_type(&self, path: &str, task_type: Option<&str>) -> Result<(), Error> {
        let body = OfType { task_type: task_type.map(ToOwned::to_owned) };
        self.send(|| self.request(Method::POST, path).json(&body)).await.map(drop)
    }
}
