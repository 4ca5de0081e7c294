//! OTLP's messages, and short ways to make parts of them.

pub(super) use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
pub(super) use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
pub(super) use opentelemetry_proto::tonic::common::v1::{
    AnyValue, InstrumentationScope, KeyValue, any_value::Value,
};
pub(super) use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
    Summary, SummaryDataPoint, metric::Data, number_data_point,
};
pub(super) use opentelemetry_proto::tonic::resource::v1::Resource;
pub(super) use opentelemetry_proto::tonic::trace::v1::span::{Event, SpanKind};
pub(super) use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
pub(super) use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};

/// The longest text of an attribute, in bytes.
const MAX_TEXT: usize = 2048;

/// Cut to the limit, at a character.
pub(super) fn short(text: &str) -> String {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

fn attribute(key: &str, value: Value) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.into(), value, ..Default::default() }
}

pub(super) fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(short(value)))
}
pub(super) fn integer(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}
pub(super) fn number(key: &str, value: u64) -> KeyValue {
    integer(key, i64::try_from(value).unwrap_or(i64::MAX))
}
pub(super) fn flag(key: &str, value: bool) -> KeyValue {
    attribute(key, Value::BoolValue(value))
}

/// Converts Unix milliseconds.
pub(super) fn nanos(ms: i64) -> u64 {
    u64::try_from(ms).unwrap_or(0).saturating_mul(1_000_000)
}

pub(super) fn event(at: i64, name: &str, attributes: Vec<KeyValue>) -> Event {
    Event { time_unix_nano: nanos(at), name: name.into(), attributes, dropped_attributes_count: 0 }
}

/// Returns the scope: this software.
pub(super) fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "outlast".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..Default::default()
    }
}
