//! A coordinator and a worker of two slots, with a proxy for faults between them.

use super::{Base, Process};
use outlast_chaos::Proxy;

/// The processes and the proxy; ended with the test.
pub struct Rig {
    pub base: Base,
    pub coordinator: Process,
    pub proxy: Proxy,
    _worker: Process,
}

impl Rig {
    /// Starts them, and waits until the worker is connected.
    pub async fn new() -> Rig {
        let base = Base::new();
        let coordinator = base.coordinator();
        let proxy = Proxy::bind("127.0.0.1:0", &base.at).await.unwrap();
        let via = format!("http://{}", proxy.local_addr());
        let _worker = base.worker("w", &via, &["--slots", "2"]);
        base.connected("w").await;
        Rig { base, coordinator, proxy, _worker }
    }
}
