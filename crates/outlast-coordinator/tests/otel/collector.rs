//! An OTLP collector for tests: decodes what arrives and keeps it; it can be away, and refuse.

#![allow(dead_code)] // each test binary uses a part

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::Event;
use prost::Message;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Longer than anything takes on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Default)]
pub struct Got {
    pub spans: Vec<Span>,
    pub metrics: Vec<Metric>,
    pub resources: Vec<Resource>,
    pub headers: Vec<HeaderMap>,
    /// Status to answer instead of taking it.
    pub refuse: Option<StatusCode>,
    /// Spans of each request to refuse after all.
    pub reject: i64,
    pub refused: usize,
}

pub struct Collector {
    pub addr: SocketAddr,
    pub got: Arc<Mutex<Got>>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

type Shared = Arc<Mutex<Got>>;

fn heard(got: &Shared, headers: &HeaderMap) -> Option<Response> {
    let mut got = got.lock().unwrap();
    assert_eq!(headers["content-type"], "application/x-protobuf");
    got.headers.push(headers.clone());
    let refuse = got.refuse?;
    got.refused += 1;
    Some(refuse.into_response())
}

async fn traces(State(got): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    if let Some(no) = heard(&got, &headers) {
        return no;
    }
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    let mut got = got.lock().unwrap();
    for of in request.resource_spans {
        got.resources.extend(of.resource);
        got.spans.extend(of.scope_spans.into_iter().flat_map(|s| s.spans));
    }
    let mut answer = ExportTraceServiceResponse::default();
    if got.reject > 0 {
        let (rejected_spans, error_message) = (got.reject, "too old".into());
        answer.partial_success = Some(ExportTracePartialSuccess { rejected_spans, error_message });
    }
    answer.encode_to_vec().into_response()
}

async fn metrics(State(got): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    if let Some(no) = heard(&got, &headers) {
        return no;
    }
    let request = ExportMetricsServiceRequest::decode(body).unwrap();
    let mut got = got.lock().unwrap();
    got.metrics.clear();
    for of in request.resource_metrics {
        got.metrics.extend(of.scope_metrics.into_iter().flat_map(|s| s.metrics));
    }
    Vec::new().into_response()
}

impl Collector {
    pub async fn start() -> Collector {
        Collector::at(([127, 0, 0, 1], 0).into()).await
    }

    pub async fn at(addr: SocketAddr) -> Collector {
        let got = Shared::default();
        let app = Router::new()
            .route("/v1/traces", post(traces))
            .route("/v1/metrics", post(metrics))
            .with_state(got.clone());
        let listener = tokio::net::TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Collector { addr, got, server }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Waits until what it got is enough.
    pub async fn until<T>(&self, what: &str, mut enough: impl FnMut(&Got) -> Option<T>) -> T {
        let wait = async {
            loop {
                if let Some(found) = enough(&self.got.lock().unwrap()) {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, wait).await;
        waited.unwrap_or_else(|_| {
            let got = self.got.lock().unwrap();
            panic!("{what}: got {:#?}, refused {}", got.spans, got.refused)
        })
    }

    /// The spans of a task, its own first, once that is there: the newest of each id.
    pub async fn trace(&self, task: &str) -> Vec<Span> {
        self.until(task, |got| {
            let mine = |s: &&Span| text(&s.attributes, "outlast.task.id") == task;
            let mut spans: Vec<Span> = Vec::new();
            for span in got.spans.iter().filter(mine) {
                match spans.iter_mut().find(|s| s.span_id == span.span_id) {
                    Some(known) => *known = span.clone(),
                    None => spans.push(span.clone()),
                }
            }
            (!spans.is_empty()).then_some(spans)
        })
        .await
    }
}

pub fn value<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Value> {
    attributes.iter().find(|a| a.key == key)?.value.as_ref()?.value.as_ref()
}

pub fn text<'a>(attributes: &'a [KeyValue], key: &str) -> &'a str {
    match value(attributes, key) {
        Some(Value::StringValue(text)) => text,
        _ => "",
    }
}

pub fn number(attributes: &[KeyValue], key: &str) -> Option<i64> {
    match value(attributes, key) {
        Some(Value::IntValue(n)) => Some(*n),
        _ => None,
    }
}

pub fn names(span: &Span) -> Vec<&str> {
    span.events.iter().map(|e| e.name.as_str()).collect()
}

pub fn event<'a>(span: &'a Span, name: &str) -> &'a Event {
    let found = span.events.iter().find(|e| e.name == name);
    found.unwrap_or_else(|| panic!("no event {name} in {:?}", names(span)))
}
