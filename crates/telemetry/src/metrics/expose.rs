//! The cells as OpenMetrics text.

use std::fmt;
use std::sync::Arc;

use awareness::flow::View;
use awareness::{BOUNDS, Histogram};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry;

use super::process::Process;
use super::{Figure, Reading, Sample};
use crate::{Series, Shared, Subject};

/// The whole exposition, `# EOF` included.
pub(crate) fn render(shared: &Arc<Shared>) -> String {
    let mut registry = registry::Registry::default();
    registry.register_collector(Box::new(Scrape(shared.clone())));
    let mut text = String::with_capacity(16 * 1024);
    // Writing to a string does not fail.
    let _ = text::encode(&mut text, &registry);
    text
}

struct Scrape(Arc<Shared>);

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scrape")
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let shared = &*self.0;
        for (family, series) in shared.registry.samples() {
            let (name, _, help) = family.describe();
            let kind = if family.is_histogram() { MetricType::Histogram } else { MetricType::Counter };
            let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
            for (labels, sample) in series {
                let labels: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (*name, &**value)).collect();
                let mut metric = metric.encode_family(&labels)?;
                match sample {
                    Sample::Count(count) => metric.encode_counter::<NoLabelSet, _, u64>(&count, None)?,
                    Sample::Histogram(histogram) => {
                        let buckets = buckets(&histogram);
                        let sum = histogram.sum_nanos as f64 / 1e9;
                        metric.encode_histogram::<NoLabelSet>(sum, histogram.count(), &buckets, None)?;
                    }
                }
            }
        }

        let e = &mut encoder;
        let reading = shared.gauges.read();
        let figures = reading.figures();
        let Reading { healthy, reloads_good, reloads_bad, last_reload_good, revision, .. } = reading;
        gauge(e, "weir_active_requests", "Calls under way", [(vec![], shared.registry.active())])?;
        let connections = shared.registry.connections();
        let connections = connections.iter().map(|(listener, open)| (vec![("listener", &**listener)], *open));
        gauge(e, "weir_connections_open", "Connections from clients", connections)?;
        let healthy = healthy.iter().map(|((upstream, endpoint), healthy)| {
            (vec![("upstream", &**upstream), ("endpoint", &**endpoint)], i64::from(*healthy))
        });
        gauge(e, "weir_endpoint_healthy", "Whether an endpoint takes calls", healthy)?;
        for Figure { name, help, counter: is_counter, rows } in &figures {
            let rows = rows.iter().map(|row| {
                let labels = row.labels.iter().map(|(name, value)| (*name, &**value));
                (labels.collect(), row.value)
            });
            if *is_counter {
                counter(e, name, help, rows)?;
            } else {
                gauge(e, name, help, rows.map(|(labels, value)| (labels, value as i64)))?;
            }
        }
        let reloads = [(vec![("result", "ok")], reloads_good), (vec![("result", "rejected")], reloads_bad)];
        counter(e, "weir_config_reloads", "Reloads of the document", reloads)?;
        let good = [(vec![], i64::from(last_reload_good))];
        gauge(e, "weir_config_last_reload_successful", "Whether the last document was taken", good)?;
        let revision = [(vec![("revision", &*revision)], 1i64)];
        gauge(e, "weir_config_info", "The document in force", revision)?;
        let folded = shared.registry.folded().into_iter().map(|(family, folded)| (vec![("family", family)], folded));
        counter(e, "weir_metric_series_folded", "Series counted as `other` for want of room", folded)?;
        let dropped = [(vec![], shared.log_dropped())];
        counter(e, "weir_access_log_dropped", "Lines of the access log that were lost", dropped)?;
        counter(e, "weir_otlp_dropped", "Traces that were not exported", [(vec![], shared.otlp_dropped())])?;

        flows(e, &shared.series())?;

        if let Some(process) = Process::read() {
            let Process { resident_bytes, cpu_seconds, open_fds, max_fds, threads, start_seconds } = process;
            gauge(e, "process_resident_memory_bytes", "Resident memory", [(vec![], resident_bytes)])?;
            counter(e, "process_cpu_seconds", "User and system CPU time", [(vec![], cpu_seconds)])?;
            gauge(e, "process_open_fds", "Open file descriptors", [(vec![], open_fds)])?;
            gauge(e, "process_max_fds", "Open file descriptors it may have", max_fds.map(|most| (vec![], most)))?;
            gauge(e, "process_threads", "Threads", [(vec![], threads)])?;
            gauge(e, "process_start_time_seconds", "Start since the epoch", [(vec![], start_seconds)])?;
        }
        Ok(())
    }
}

/// What cannot be made of the other families: how calls change and how unlike each other they are; consumers.
fn flows(encoder: &mut DescriptorEncoder<'_>, series: &[Series]) -> fmt::Result {
    let e = encoder;
    type Value = fn(&View) -> Option<f64>;
    let gauges: [(&str, &str, Value); 6] = [
        ("weir_flow_velocity", "Change of the rate of calls, in calls per second per second", |view| {
            Some(view.calls_velocity)
        }),
        ("weir_flow_burst_ratio", "The busiest second of the last minute over the mean one", |view| view.burst),
        ("weir_flow_dispersion", "Variance over mean of arrivals: 0 regular, 1 by chance, more in bursts", |view| {
            view.dispersion
        }),
        ("weir_flow_entropy_bits", "How mixed the operations are", |view| view.entropy),
        ("weir_flow_latency_variation", "Standard deviation over mean of durations", |view| {
            Some(view.latency?.variation)
        }),
        ("weir_flow_size_variation", "Standard deviation over mean of bodies' sizes", |view| {
            Some(view.sizes?.variation)
        }),
    ];
    for (name, help, value) in gauges {
        let rows = series.iter().filter_map(|it| Some((labels(&it.subject), value(&it.view)?)));
        gauge(e, name, help, rows)?;
    }
    let rows = series.iter().map(|it| (labels(&it.subject), it.view.totals.cpu_nanos as f64 / 1e9));
    counter(e, "weir_flow_cpu_seconds", "Time on a core in the calls, measured for some of them and scaled", rows)?;
    let rows = series.iter().map(|it| (labels(&it.subject), it.view.held[0]));
    gauge(e, "weir_flow_held_bytes", "Bodies kept in memory to be sent again", rows)?;

    type Count = fn(&View) -> u64;
    let counters: [(&str, &str, Count); 4] = [
        ("weir_consumer_requests", "Calls of a consumer", |view| view.totals.calls),
        ("weir_consumer_errors", "Calls of a consumer that the service failed", |view| view.totals.errors),
        ("weir_consumer_request_bytes", "Bytes of a consumer's request bodies", |view| view.totals.bytes_in),
        ("weir_consumer_response_bytes", "Bytes of a consumer's response bodies", |view| view.totals.bytes_out),
    ];
    for (name, help, value) in counters {
        let rows = series.iter().filter_map(|it| match &it.subject {
            Subject::Consumer(consumer) => Some((vec![("consumer", &**consumer)], value(&it.view))),
            Subject::Api(_) | Subject::Route(..) => None,
        });
        counter(e, name, help, rows)?;
    }
    Ok(())
}

fn labels(subject: &Subject) -> Vec<(&str, &str)> {
    match subject {
        Subject::Api(api) => vec![("kind", "api"), ("api", api)],
        Subject::Route(api, route) => vec![("kind", "route"), ("api", api), ("route", route)],
        Subject::Consumer(consumer) => vec![("kind", "consumer"), ("consumer", consumer)],
    }
}

fn buckets(histogram: &Histogram) -> Vec<(f64, u64)> {
    let bounds = BOUNDS.iter().map(|bound| bound.as_secs_f64()).chain([f64::INFINITY]);
    bounds.zip(histogram.buckets).collect()
}

type Row<'a, V> = (Vec<(&'a str, &'a str)>, V);

fn gauge<'a, V: EncodeGaugeValue>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    rows: impl IntoIterator<Item = Row<'a, V>>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in rows {
        // An empty set of labels would be written as `{}`.
        match &*labels {
            [] => metric.encode_gauge(&value)?,
            labels => metric.encode_family(&labels)?.encode_gauge(&value)?,
        }
    }
    Ok(())
}

fn counter<'a, V: EncodeCounterValue>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    rows: impl IntoIterator<Item = Row<'a, V>>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in rows {
        match &*labels {
            [] => metric.encode_counter::<NoLabelSet, _, u64>(&value, None)?,
            labels => metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?,
        }
    }
    Ok(())
}
