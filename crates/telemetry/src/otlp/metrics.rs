//! The cells as cumulative sums and histograms.

use std::time::SystemTime;

use awareness::BOUNDS;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::{attribute, nanos, scope, text};
use crate::Shared;
use crate::metrics::{Labels, Sample};

pub(super) fn request(resource: Resource, shared: &Shared, now: SystemTime) -> ExportMetricsServiceRequest {
    let (start, now) = (nanos(shared.started), nanos(now));
    let number = |labels: &Labels, value: i64| NumberDataPoint {
        attributes: labels.iter().map(|(key, value)| attribute(key, text(value))).collect(),
        start_time_unix_nano: start,
        time_unix_nano: now,
        value: Some(Value::AsInt(value)),
        ..NumberDataPoint::default()
    };
    let cumulative = AggregationTemporality::Cumulative.into();
    let mut metrics = Vec::new();
    for (family, series) in shared.registry.samples() {
        let (name, unit, description) = family.describe();
        let (mut numbers, mut histograms) = (Vec::new(), Vec::new());
        for (labels, sample) in &series {
            match sample {
                Sample::Count(count) => numbers.push(number(labels, *count as i64)),
                Sample::Histogram(histogram) => histograms.push(HistogramDataPoint {
                    attributes: labels.iter().map(|(key, value)| attribute(key, text(value))).collect(),
                    start_time_unix_nano: start,
                    time_unix_nano: now,
                    count: histogram.count(),
                    sum: Some(histogram.sum_nanos as f64 / 1e9),
                    bucket_counts: histogram.buckets.to_vec(),
                    explicit_bounds: BOUNDS.iter().map(|bound| bound.as_secs_f64()).collect(),
                    ..HistogramDataPoint::default()
                }),
            }
        }
        let data = if family.is_histogram() {
            Data::Histogram(Histogram { data_points: histograms, aggregation_temporality: cumulative })
        } else {
            Data::Sum(Sum { data_points: numbers, aggregation_temporality: cumulative, is_monotonic: true })
        };
        metrics.push(metric(name, unit, description, data));
    }

    let active = Gauge { data_points: vec![number(&vec![], shared.registry.active())] };
    metrics.push(metric("weir_active_requests", "{request}", "Calls under way", Data::Gauge(active)));
    let connections = shared.registry.connections();
    let data_points =
        connections.iter().map(|(listener, open)| number(&vec![("listener", listener.to_string())], *open));
    let connections = Gauge { data_points: data_points.collect() };
    metrics.push(metric("weir_connections_open", "{connection}", "Connections from clients", Data::Gauge(connections)));

    let scope_metrics = vec![ScopeMetrics { scope: Some(scope()), metrics, ..Default::default() }];
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics { resource: Some(resource), scope_metrics, ..Default::default() }],
    }
}

fn metric(name: &str, unit: &str, description: &str, data: Data) -> Metric {
    Metric {
        name: name.into(),
        unit: unit.into(),
        description: description.into(),
        data: Some(data),
        ..Metric::default()
    }
}
