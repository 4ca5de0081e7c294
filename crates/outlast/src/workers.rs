//! Workers: listed, drained, forgotten.

use crate::client::{Client, escape};
use crate::error::Error;
use outlast_wire::api::{Worker, WorkerAction, WorkerList};
use reqwest::Method;

impl Client {
    /// All workers.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// # Examples
    /// ```
    /// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
    /// # common::with_worker(async |client| {
    /// for worker in client.workers().await?.workers {
    ///     println!("{}: {}, {} slots", worker.name, worker.state, worker.slots);
    /// }
    /// # Ok(())
    /// # });
    /// ```
    pub async fn workers(&self) -> Result<WorkerList, Error> {
        self.get("/api/v1/workers").await
    }

    /// One worker.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// # Examples
    /// ```
    /// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
    /// # common::with_worker(async |client| {
    /// assert_eq!(client.worker("w1").await?.state, "connected");
    /// # Ok(())
    /// # });
    /// ```
    pub async fn worker(&self, name: &str) -> Result<Worker, Error> {
        self.get(&format!("/api/v1/workers/{}", escape(name))).await
    }

    /// Removes a worker that is gone for good.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// # Examples
    /// ```
    /// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
    /// # common::with_worker(async |client| {
    /// let error = client.forget("no-such-worker").await.unwrap_err();
    /// assert_eq!(error.status(), Some(404));
    /// # Ok(())
    /// # });
    /// ```
    pub async fn forget(&self, name: &str) -> Result<(), Error> {
        let path = format!("/api/v1/workers/{}", escape(name));
        self.send(|| self.request(Method::DELETE, &path)).await.map(drop)
    }

    /// Binds a worker to no API key any more.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// # Examples
    /// ```
    /// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
    /// # common::with_worker(async |client| {
    /// client.unbind("w1").await?;
    /// assert_eq!(client.worker("w1").await?.bound_to, "");
    /// # Ok(())
    /// # });
    /// ```
    pub async fn unbind(&self, name: &str) -> Result<(), Error> {
        let path = format!("/api/v1/workers/{}/unbind", escape(name));
        self.send(|| self.request(Method::POST, &path)).await.map(drop)
    }

    /// Drains a worker: it gets no new work (or gets new work again).
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// # Examples
    /// ```
    /// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
    /// # common::with_worker(async |client| {
    /// assert!(client.drain("w1", true).await?.drained);
    /// assert!(!client.drain("w1", false).await?.drained);
    /// # Ok(())
    /// # });
    /// ```
    pub async fn drain(&self, name: &str, on: bool) -> Result<Worker, Error> {
        let what = if on { "drain" } else { "undrain" };
        self.post(&format!("/api/v1/workers/{}/{what}", escape(name))).await
    }

    /// Requests an action of a worker: at once, or when it is back.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// # Examples
    /// ```
    /// # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
    /// # common::with_worker(async |client| {
    /// use outlast::api::WorkerAction;
    ///
    /// client.act("w1", &WorkerAction::ResetConnectionStats).await?;
    /// # Ok(())
    /// # });
    /// ```
    pub async fn act(&self, name: &str, action: &WorkerAction) -> Result<(), Error> {
        let path = format!("/api/v1/workers/{}/actions", escape(name));
        self.send(|| self.request(Method::POST, &path).json(action)).await.map(drop)
    }
}
