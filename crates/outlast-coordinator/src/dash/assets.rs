//! The built page. Its names do not change, so browsers ask each time whether it is still the
//! same (an ETag), and a new coordinator never meets an old page.

use crate::problem::Refusal;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::sync::LazyLock;

/// Content security policy: only content of this server, no inline script or style, no frame around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' data:; form-action 'none'; frame-ancestors 'none'; base-uri 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

struct Asset {
    name: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
}

macro_rules! built {
    ($name:literal, $kind:literal) => {
        Asset {
            name: $name,
            kind: $kind,
            bytes: include_bytes!(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../../dashboard/dist/",
                $name
            )),
        }
    };
}

const PAGE: &str = "index.html";
const BUILT: [Asset; 4] = [
    built!("index.html", "text/html; charset=utf-8"),
    built!("app.js", "text/javascript; charset=utf-8"),
    built!("app.css", "text/css; charset=utf-8"),
    built!("icon.svg", "image/svg+xml"),
];

/// ETags, in the order of the assets: FNV-1a, which need not withstand anybody.
static TAGS: LazyLock<[String; BUILT.len()]> = LazyLock::new(|| {
    BUILT.each_ref().map(|asset| {
        let step = |h: u64, b: &u8| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3);
        format!("\"{:016x}\"", asset.bytes.iter().fold(0xcbf2_9ce4_8422_2325, step))
    })
});

pub(super) async fn page(headers: HeaderMap) -> Response {
    send(PAGE, &headers).unwrap_or_else(IntoResponse::into_response)
}

pub(super) async fn file(
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    send(&name, &headers)
}

fn send(name: &str, headers: &HeaderMap) -> Result<Response, Refusal> {
    let Some(at) = BUILT.iter().position(|a| a.name == name) else {
        let detail = format!("the dashboard has no file {name:?}; it is at /dashboard");
        return Err(Refusal::new(StatusCode::NOT_FOUND, "no-route", "no such address", &detail));
    };
    let (asset, tag) = (&BUILT[at], TAGS[at].as_str());
    let known = headers.get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok());
    let mut response = match known {
        Some(known) if known.split(',').any(|k| k.trim().trim_start_matches("W/") == tag) => {
            StatusCode::NOT_MODIFIED.into_response()
        }
        _ => ([(header::CONTENT_TYPE, asset.kind)], asset.bytes).into_response(),
    };
    let all: [(HeaderName, &str); 7] = [
        (header::ETAG, tag),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (
            HeaderName::from_static("permissions-policy"),
            "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
        ),
    ];
    for (name, value) in all {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    }
    Ok(response)
}
