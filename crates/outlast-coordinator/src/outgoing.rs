//! Requests that the coordinator sends itself: to webhooks and to collectors of telemetry.

use std::net::IpAddr;

/// A client for requests to this host: it follows no redirects, and uses no proxy where the host is
/// this machine.
pub(crate) fn client(host: Option<&str>) -> Result<reqwest::Client, String> {
    // Somebody may have chosen another provider before: that one serves as well.
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("outlast/", env!("CARGO_PKG_VERSION")));
    let host = host.unwrap_or_default().trim_matches(['[', ']']);
    let local = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let client = if local { client.no_proxy() } else { client };
    client.build().map_err(|e| e.to_string())
}
