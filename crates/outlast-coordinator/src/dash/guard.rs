//! Checks of requests that browsers may send, whatever the route: no page of another site acts through the
//! browser of somebody who is logged in, or who runs a coordinator without keys on this machine.

use super::session;
use crate::app::App;
use crate::auth::Auth;
use crate::clock;
use crate::intake::announced;
use crate::listen::Connection;
use crate::problem::Refusal;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use outlast_store::Role;
use std::net::IpAddr;

/// A page of another site cannot send it without being asked first, which nobody answers.
const OURS: &str = "outlast-dashboard";

/// Strict transport security for 30 days. Browsers apply it to all ports of this name, so not for
/// longer.
const HSTS: &str = "max-age=2592000";
/// Path where a body may come from anybody: it carries a key.
const LOGIN: &str = "/api/v1/session";

pub(crate) async fn guard(State(app): State<App>, mut request: Request, next: Next) -> Response {
    if let Err(refusal) = allow(&app, &mut request) {
        return refusal.into_response();
    }
    if let Err(refusal) = stranger(&app, &request) {
        return refusal.into_response();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    // What the API says is for who asked, and true for a moment; files of the page have an ETag.
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if app.tls {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static(HSTS));
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let own = HeaderName::from_static("cross-origin-resource-policy");
    headers.insert(own, HeaderValue::from_static("same-origin"));
    response
}

fn allow(app: &App, request: &mut Request) -> Result<(), Refusal> {
    let host = host(request.uri(), request.headers());
    // Without keys whoever reaches us may do everything: no name that others can point here.
    if !app.auth.needed() && !host.as_deref().is_some_and(is_local) {
        return Err(refused(
            "wrong-host",
            "this coordinator has no keys and answers to local names only",
            "use http://127.0.0.1 or http://localhost; make keys with `outlast keys add` to reach \
             it by another name",
        ));
    }
    let changes = !request.method().is_safe() || request.headers().contains_key(header::UPGRADE);
    if changes && crosses(request.headers(), host.as_deref()) {
        return Err(refused(
            "cross-site",
            "a page of another site asked for this",
            "open the coordinator's own /dashboard",
        ));
    }
    if request.headers().contains_key(header::AUTHORIZATION) || !app.auth.needed() {
        return Ok(());
    }
    let token = session::cookie(request.headers(), &app.sessions.cookie);
    let Some(key) = token.and_then(|t| app.sessions.key(t, clock::wall())) else { return Ok(()) };
    if changes && !request.headers().contains_key(OURS) {
        return Err(refused(
            "csrf",
            "a logged-in page must say that it is ours",
            "send the header `outlast-dashboard: 1` beside the cookie",
        ));
    }
    // From here on the request is one with that key.
    if let Ok(value) = HeaderValue::from_str(&format!("Bearer {key}")) {
        request.headers_mut().insert(header::AUTHORIZATION, value);
    }
    Ok(())
}

/// Refuses a body of somebody without a valid key before anything of it is read; the handlers look
/// at the role. A connection that brings a valid key is one that need not make room for others.
fn stranger(app: &App, request: &Request) -> Result<(), Refusal> {
    let known = !app.auth.needed() || {
        let token = Auth::token(request.headers());
        token.map(|token| app.auth.role(token)).transpose()?.flatten().is_some()
    };
    if known {
        if let Some(ConnectInfo(connection)) = request.extensions().get::<ConnectInfo<Connection>>()
        {
            connection.seat.known();
        }
        return Ok(());
    }
    let headers = request.headers();
    let body = headers.contains_key(header::TRANSFER_ENCODING)
        || announced(headers).is_some_and(|length| length > 0);
    if !body || request.uri().path() == LOGIN {
        return Ok(());
    }
    // Says whether there is none, or it is wrong.
    app.auth.check(headers, Role::Worker)?;
    Err(Refusal::wrong_key())
}

fn refused(word: &str, title: &str, detail: &str) -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, word, title, detail)
}

/// Returns the host that the client named, with its port.
fn host(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let named = headers.get(header::HOST).and_then(|h| h.to_str().ok()).map(str::to_owned);
    named.or_else(|| uri.authority().map(ToString::to_string))
}

/// Returns whether nobody else can make this name point here: an address, or `localhost`.
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|h| h.split_once(']')) {
        Some((v6, _)) => v6,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

/// Returns whether a browser says that a page of another site sent the request. Programs say nothing of
/// the kind.
fn crosses(headers: &HeaderMap, host: Option<&str>) -> bool {
    let text = |name| headers.get(name).map(|v| v.to_str().unwrap_or("?"));
    // Browsers send it to TLS and local addresses only; it holds behind a proxy, too.
    if let Some(site) = text(HeaderName::from_static("sec-fetch-site")) {
        return !matches!(site, "same-origin" | "none");
    }
    let Some(origin) = text(header::ORIGIN) else { return false };
    let from = origin.split_once("://").map(|(_, host)| host);
    from.is_none() || from != host
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_names() {
        for good in
            ["127.0.0.1:7117", "localhost", "LOCALHOST:1", "[::1]:7117", "[::1]", "10.0.0.1"]
        {
            assert!(is_local(good), "{good}");
        }
        for bad in
            ["evil.example:7117", "", "localhost.evil.example", "127.0.0.1.evil.example", "[x]"]
        {
            assert!(!is_local(bad), "{bad}");
        }
    }

    #[test]
    fn other_sites_are_known_by_what_browsers_say() {
        let check = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, value.parse().unwrap());
            }
            crosses(&headers, Some("hub:7117"))
        };
        assert!(!check(&[]), "a program");
        assert!(!check(&[("origin", "http://hub:7117")]));
        assert!(check(&[("origin", "http://hub:80")]));
        assert!(check(&[("origin", "null")]));
        assert!(!check(&[("sec-fetch-site", "same-origin"), ("origin", "https://proxy")]));
        for site in ["cross-site", "same-site", "odd"] {
            assert!(check(&[("sec-fetch-site", site), ("origin", "http://hub:7117")]));
        }
    }
}
