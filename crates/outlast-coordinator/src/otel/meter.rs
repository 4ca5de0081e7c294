//! Metrics as OTLP has them, and their delivery at an interval. What was not delivered is not
//! repeated: the next values say it all.

use super::proto::{
    self, AggregationTemporality, Data, ExportMetricsServiceRequest, Gauge, Metric,
    NumberDataPoint, Resource, ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint,
    number_data_point,
};
use super::send::{Sender, Tried};
use crate::clock;
use crate::families::{Family, Kind, Label};
use crate::problem::Refusal;
use prost::Message;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// Sends the metrics that `gather` returns for ever. `started_at` (Unix ms) is when their counters began.
pub(super) async fn run<R: Future<Output = Result<Vec<Family>, Refusal>>>(
    gather: impl Fn() -> R,
    started_at: i64,
    mut sender: Sender,
    resource: Resource,
    every: Duration,
) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Ok(families) = gather().await else { continue };
        let (request, points) = request(&families, resource.clone(), started_at, clock::wall());
        if let Tried::Again(_) = sender.attempt(request.encode_to_vec(), points).await {
            sender.give_up(points);
        }
    }
}

/// The request, and how many points it has.
fn request(
    families: &[Family],
    resource: Resource,
    started_at: i64,
    now: i64,
) -> (ExportMetricsServiceRequest, u64) {
    let metrics: Vec<Metric> = families.iter().map(|f| metric(f, started_at, now)).collect();
    let points = families.iter().map(|f| f.values.len() as u64).sum();
    let scope_metrics =
        vec![ScopeMetrics { scope: Some(proto::scope()), metrics, ..Default::default() }];
    let resource = Some(resource);
    let resource_metrics = vec![ResourceMetrics { resource, scope_metrics, ..Default::default() }];
    (ExportMetricsServiceRequest { resource_metrics }, points)
}

fn metric(family: &Family, started_at: i64, now: i64) -> Metric {
    let counter = matches!(family.kind, Kind::Counter | Kind::Seconds);
    let point = |(label, value): &(Label, f64)| NumberDataPoint {
        attributes: label.iter().map(|(key, word)| proto::text(key, word)).collect(),
        start_time_unix_nano: if counter { proto::nanos(started_at) } else { 0 },
        time_unix_nano: proto::nanos(now.max(started_at)),
        value: Some(match family.kind == Kind::Counter {
            true => number_data_point::Value::AsInt(*value as i64),
            false => number_data_point::Value::AsDouble(*value),
        }),
        ..Default::default()
    };
    let data_points = family.values.iter().map(point).collect();
    let data = match family.kind {
        Kind::Counter | Kind::Seconds => Data::Sum(Sum {
            data_points,
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
            is_monotonic: true,
        }),
        Kind::Gauge => Data::Gauge(Gauge { data_points }),
        Kind::Summary => {
            let value = |n: usize| family.values.get(n).map_or(0.0, |(_, value)| *value);
            let point = SummaryDataPoint {
                start_time_unix_nano: proto::nanos(started_at),
                time_unix_nano: proto::nanos(now.max(started_at)),
                sum: value(0),
                count: value(1) as u64,
                ..Default::default()
            };
            Data::Summary(Summary { data_points: vec![point] })
        }
    };
    // As it is called at /metrics once a collector has made it Prometheus' again.
    let name = family.name.strip_suffix("_total").unwrap_or(family.name);
    Metric {
        name: format!("outlast.{name}"),
        description: family.help.into(),
        unit: unit(name).into(),
        data: Some(data),
        ..Default::default()
    }
}

/// In UCUM, where the name says it.
fn unit(name: &str) -> &'static str {
    match name {
        _ if name.ends_with("_bytes") => "By",
        _ if name.ends_with("_bytes_per_second") => "By/s",
        _ if name.ends_with("_ms") => "ms",
        _ if name.ends_with("_seconds") => "s",
        _ => "1",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::families::{NONE, label};

    #[test]
    fn counters_are_monotonic_sums_and_the_rest_gauges() {
        let values = vec![(label("state", "failed"), 3.0), (label("state", "cancelled"), 0.0)];
        let ended = Family { name: "ended_total", kind: Kind::Counter, help: "Ended.", values };
        let made = metric(&ended, 1_000, 5_000);
        assert_eq!(made.name, "outlast.ended");
        let Some(Data::Sum(sum)) = made.data else { panic!("no sum") };
        assert!(sum.is_monotonic);
        assert_eq!(sum.aggregation_temporality(), AggregationTemporality::Cumulative);
        let point = &sum.data_points[0];
        assert_eq!(point.start_time_unix_nano, 1_000_000_000);
        assert_eq!(point.time_unix_nano, 5_000_000_000);
        assert_eq!(point.value, Some(number_data_point::Value::AsInt(3)));
        assert_eq!(point.attributes, [proto::text("state", "failed")]);
        let values = vec![(NONE, 1.5), (NONE, 3.0)];
        let summary = Family { name: "a_seconds", kind: Kind::Summary, help: "A.", values };
        let made = metric(&summary, 1_000, 5_000);
        assert_eq!((made.name.as_str(), made.unit.as_str()), ("outlast.a_seconds", "s"));
        let Some(Data::Summary(summary)) = made.data else { panic!("no summary") };
        assert_eq!((summary.data_points[0].sum, summary.data_points[0].count), (1.5, 3));
        let values = vec![(NONE, 0.25)];
        let time = Family { name: "b_seconds_total", kind: Kind::Seconds, help: "B.", values };
        let Some(Data::Sum(sum)) = metric(&time, 1_000, 5_000).data else { panic!("no sum") };
        let value = sum.data_points[0].value;
        assert_eq!(value, Some(number_data_point::Value::AsDouble(0.25)), "not cut to seconds");
        let values = vec![(NONE, 0.5)];
        let gauge = Family { name: "blob_bytes", kind: Kind::Gauge, help: "Bytes.", values };
        let made = metric(&gauge, 1_000, 5_000);
        assert_eq!((made.name.as_str(), made.unit.as_str()), ("outlast.blob_bytes", "By"));
        let Some(Data::Gauge(gauge)) = made.data else { panic!("no gauge") };
        assert_eq!(gauge.data_points[0].value, Some(number_data_point::Value::AsDouble(0.5)));
    }
}
