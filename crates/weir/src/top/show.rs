//! What is seen, as lines of a width.

use clap::ValueEnum;

use super::Seen;
use crate::admin::{CircuitState, Flow, Kind};
use crate::terminal::{Ink, Paint};

#[derive(Clone, Copy, Debug)]
pub struct Shown {
    pub routes: bool,
    pub sort: Sort,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    Calls,
    Velocity,
    Errors,
    Time,
    Burst,
    Dispersion,
    Name,
}

/// A column: its head, its width, what stands in it; the least width of a line that has room for it.
struct Column {
    head: &'static str,
    width: usize,
    from: usize,
    cell: fn(&Flow) -> String,
}

#[rustfmt::skip]
const COLUMNS: &[Column] = &[
    Column { head: "CALLS/S", width: 8, from: 0, cell: |it| number(it.volume.calls_per_second.short) },
    Column { head: "1 MIN", width: 8, from: 120, cell: |it| number(it.volume.calls_per_second.medium) },
    Column { head: "10 MIN", width: 8, from: 120, cell: |it| number(it.volume.calls_per_second.long) },
    Column { head: "CHANGE", width: 7, from: 0, cell: |it| signed(it.velocity.calls) },
    Column { head: "ERR", width: 5, from: 0, cell: errors },
    Column { head: "BYTES/S", width: 8, from: 100, cell: |it| bytes(it.volume.bytes_per_second.short) },
    Column { head: "P50", width: 7, from: 0, cell: |it| it.variance.latency_millis.map_or_else(none, |it| millis(it.p50)) },
    Column { head: "P99", width: 7, from: 0, cell: |it| it.variance.latency_millis.map_or_else(none, |it| millis(it.p99)) },
    Column { head: "VARY", width: 5, from: 110, cell: |it| it.variance.latency_millis.map_or_else(none, |it| number(it.variation)) },
    Column { head: "BURST", width: 5, from: 0, cell: |it| it.variance.burst.map_or_else(none, number) },
    Column { head: "DISP", width: 5, from: 0, cell: |it| it.variance.dispersion.map_or_else(none, number) },
    Column { head: "MIX", width: 4, from: 90, cell: |it| it.variance.entropy_bits.map_or_else(none, number) },
    Column { head: "CORES", width: 6, from: 110, cell: |it| number(it.volume.cores.short) },
    Column { head: "MEM", width: 7, from: 130, cell: |it| bytes(it.volume.memory_bytes.short) },
    Column { head: "CALLS", width: 8, from: 140, cell: |it| count(it.volume.calls) },
];

// === impl Sort ===

impl Sort {
    pub fn by_key(key: char) -> Option<Sort> {
        let sorts = [Sort::Calls, Sort::Velocity, Sort::Errors, Sort::Time, Sort::Burst, Sort::Dispersion, Sort::Name];
        sorts.into_iter().find(|sort| sort.word().starts_with(key))
    }

    fn word(self) -> &'static str {
        match self {
            Sort::Calls => "calls",
            Sort::Velocity => "velocity",
            Sort::Errors => "errors",
            Sort::Time => "time",
            Sort::Burst => "burst",
            Sort::Dispersion => "dispersion",
            Sort::Name => "name",
        }
    }

    /// What is larger stands above.
    fn weight(self, flow: &Flow) -> f64 {
        match self {
            Sort::Calls => flow.volume.calls_per_second.short,
            Sort::Velocity => flow.velocity.calls.abs(),
            Sort::Errors => share_of_errors(flow),
            Sort::Time => flow.variance.latency_millis.map_or(0.0, |spread| spread.p99),
            Sort::Burst => flow.variance.burst.unwrap_or_default(),
            Sort::Dispersion => flow.variance.dispersion.unwrap_or_default(),
            Sort::Name => 0.0,
        }
    }
}

/// At most `height` lines, each with its line break.
pub fn text(seen: &Seen, shown: Shown, width: usize, height: usize, paint: Paint) -> String {
    let width = width.max(40);
    let mut lines = head(seen, width, paint);
    let upstreams = upstreams(seen, width, paint);
    let consumers = flows(seen, Kind::Consumer, shown.sort, width, paint);
    let (kind, title) = if shown.routes { (Kind::Route, "ROUTE") } else { (Kind::Api, "API") };
    let main = flows(seen, kind, shown.sort, width, paint);
    // Each has its share of the lines, and what another leaves.
    let sections = [(title, main), ("CONSUMER", consumers)];
    let mut left = height.saturating_sub(lines.len() + upstreams.len() + 1);
    let mut others = sections.iter().filter(|(_, rows)| !rows.is_empty()).count();
    for (title, rows) in sections {
        if rows.is_empty() && title == "CONSUMER" {
            continue;
        }
        let room = (left / others.max(1)).saturating_sub(2).max(1);
        others = others.saturating_sub(1);
        lines.push(String::new());
        lines.push(paint.paint(Ink::Heading, &headings(title, width)));
        let hidden = rows.len().saturating_sub(room);
        let before = lines.len();
        if rows.is_empty() {
            lines.push(paint.paint(Ink::Dim, "no calls yet"));
        }
        lines.extend(rows.into_iter().take(if hidden > 0 { room.saturating_sub(1) } else { room }));
        if hidden > 0 {
            lines.push(paint.paint(Ink::Dim, &format!("... {} more", hidden + 1)));
        }
        left = left.saturating_sub(lines.len() - before + 2);
    }
    lines.push(String::new());
    lines.extend(upstreams);
    lines.truncate(height);
    lines.into_iter().map(|line| line + "\n").collect()
}

pub fn footer(shown: Shown, paused: bool, trouble: Option<&str>, width: usize) -> String {
    let paint = Paint(true);
    let last = match trouble {
        Some(message) => paint.paint(Ink::Bad, &cut(&format!("{message}; trying again"), width)),
        None => {
            let paused = if paused { "  paused" } else { "" };
            let keys = "q quit  r routes  space pause  sort: c v e t b d n";
            paint.paint(Ink::Dim, &cut(&format!("{keys} ({}){paused}", shown.sort.word()), width))
        }
    };
    format!("\n{last}\n")
}

fn head(seen: &Seen, width: usize, paint: Paint) -> Vec<String> {
    let Seen { health, resources, .. } = seen;
    let ready = if health.ready { paint.paint(Ink::Good, "ready") } else { paint.paint(Ink::Bad, "not ready") };
    let connections: i64 = health.listeners.iter().map(|listener| listener.connections).sum();
    let uptime = uptime(health.uptime_seconds);
    let name = format!("weir {}", health.version);
    let first =
        cut(&format!("  {}  revision {}  up {uptime}", health.document, health.revision), width.saturating_sub(24));
    let workers: f64 = resources.workers.iter().sum();
    let mut second = format!(
        "{} calls under way  {connections} connections  {} of {} cores",
        resources.active_calls,
        number(workers),
        resources.workers.len(),
    );
    if let Some(process) = &resources.process {
        second.push_str(&format!("  {} resident", bytes(process.resident_bytes as f64)));
        let most = process.max_fds.map(|most| format!("/{most}")).unwrap_or_default();
        second.push_str(&format!("  {}{most} fds", process.open_fds));
    }
    if let Some(most) = resources.cgroup.as_ref().and_then(|cgroup| cgroup.memory_max_bytes) {
        second.push_str(&format!("  at most {}", bytes(most as f64)));
    }
    vec![format!("{}{first}  {ready}", paint.paint(Ink::Heading, &name)), cut(&second, width)]
}

fn columns(width: usize) -> impl Iterator<Item = &'static Column> {
    COLUMNS.iter().filter(move |column| column.from <= width)
}

/// What the columns leave for the name.
fn name_width(width: usize) -> usize {
    let taken: usize = columns(width).map(|column| column.width + 1).sum();
    width.saturating_sub(taken).clamp(8, 40)
}

fn headings(title: &str, width: usize) -> String {
    let mut line = pad(title, name_width(width));
    columns(width).for_each(|column| line.push_str(&format!(" {:>1$}", column.head, column.width)));
    line
}

fn flows(seen: &Seen, kind: Kind, sort: Sort, width: usize, paint: Paint) -> Vec<String> {
    let mut flows: Vec<_> = seen.flows.iter().filter(|flow| flow.kind == kind).collect();
    flows.sort_by(|a, b| sort.weight(b).total_cmp(&sort.weight(a)).then_with(|| a.name().cmp(b.name())));
    let rows = flows.into_iter().map(|flow| {
        let mut line = pad(flow.name(), name_width(width));
        for column in columns(width) {
            let cell = format!(" {:>1$}", (column.cell)(flow), column.width);
            let ink = match column.head {
                "ERR" if share_of_errors(flow) >= 0.01 => Some(Ink::Bad),
                "DISP" if flow.variance.dispersion.is_some_and(|it| it >= 5.0) => Some(Ink::Heading),
                _ if flow.volume.calls_per_second.short < 0.005 => Some(Ink::Dim),
                _ => None,
            };
            line.push_str(&ink.map_or(cell.clone(), |ink| paint.paint(ink, &cell)));
        }
        line
    });
    rows.collect()
}

fn upstreams(seen: &Seen, width: usize, paint: Paint) -> Vec<String> {
    let name = (width / 4).clamp(8, 30);
    let title = format!(
        "{} {:>7} {:<12} {:<8} {:>5} {:>7} {:>7}",
        pad("UPSTREAM", name),
        "HEALTHY",
        "SLOWEST",
        "LAYER",
        "SHARE",
        "P50",
        "P99"
    );
    let mut lines = vec![paint.paint(Ink::Heading, &title)];
    for upstream in &seen.upstreams {
        let well = upstream.endpoints.iter().filter(|endpoint| endpoint.takes_calls()).count();
        let all = upstream.endpoints.len();
        let healthy = format!("{:>7}", format!("{well}/{all}"));
        let healthy = if well < all { paint.paint(Ink::Bad, &healthy) } else { healthy };
        let slowest = match upstream.segments.first() {
            _ if upstream.breaker.state == CircuitState::Open => paint.paint(Ink::Bad, "the breaker is open"),
            Some(segment) => format!(
                "{:<12} {:<8} {:>4.0}% {:>7} {:>7}",
                segment.name,
                segment.layer,
                segment.share * 100.0,
                millis(segment.millis.p50),
                millis(segment.millis.p99),
            ),
            None => paint.paint(Ink::Dim, "no attempts of late"),
        };
        lines.push(format!("{} {healthy} {slowest}", pad(&upstream.name, name)));
    }
    lines
}

fn share_of_errors(flow: &Flow) -> f64 {
    let (calls, errors) = (flow.volume.calls_per_second.short, flow.volume.errors_per_second.short);
    if calls > 1e-6 { (errors / calls).min(1.0) } else { 0.0 }
}

fn errors(flow: &Flow) -> String {
    let percent = share_of_errors(flow) * 100.0;
    if percent == 0.0 {
        "0%".into()
    } else if percent < 10.0 {
        format!("{percent:.1}%")
    } else {
        format!("{percent:.0}%")
    }
}

/// Three digits that matter.
fn number(value: f64) -> String {
    match value.abs() {
        ..0.005 => "0".into(),
        ..9.995 => format!("{value:.2}"),
        ..99.95 => format!("{value:.1}"),
        ..99_999.5 => format!("{value:.0}"),
        ..9_999_500.0 => format!("{:.0}k", value / 1e3),
        _ => format!("{:.0}M", value / 1e6),
    }
}

fn signed(value: f64) -> String {
    let text = number(value);
    if value >= 0.005 { format!("+{text}") } else { text }
}

fn count(value: u64) -> String {
    number(value as f64).trim_end_matches(".00").trim_end_matches(".0").into()
}

fn bytes(value: f64) -> String {
    let units = ["B", "K", "M", "G", "T"];
    let mut value = value;
    let mut unit = 0;
    while value >= 1023.5 && unit < units.len() - 1 {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 || value >= 99.95 {
        format!("{value:.0}{}", units[unit])
    } else {
        format!("{value:.1}{}", units[unit])
    }
}

fn millis(value: f64) -> String {
    match value {
        ..0.9995 => format!("{:.0}us", value * 1e3),
        ..99.95 => format!("{value:.1}ms"),
        ..999.5 => format!("{value:.0}ms"),
        _ => format!("{:.1}s", value / 1e3),
    }
}

fn uptime(seconds: f64) -> String {
    let seconds = seconds as u64;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

fn none() -> String {
    "-".into()
}

/// Cut or filled up. What a name may be is up to a document or a token: only what can be shown is.
fn pad(text: &str, width: usize) -> String {
    let text = cut(text, width);
    let missing = width - text.chars().count();
    text + &" ".repeat(missing)
}

fn cut(text: &str, width: usize) -> String {
    let clean: String = text.chars().map(|it| if it.is_control() { '?' } else { it }).collect();
    if clean.chars().count() <= width {
        return clean;
    }
    clean.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admin::{Flows, Upstreams};

    fn flow(kind: &str, name: &str, calls: f64, errors: f64) -> serde_json::Value {
        let over = |value: f64| json!({ "10s": value, "1m": value, "10m": value });
        let spread = json!({ "mean": 2.0, "p50": 1.5, "p90": 3.0, "p99": 12.0, "variation": 0.8 });
        json!({
            "kind": kind, kind: name,
            "volume": {
                "calls": 1234, "errors": 0, "bytes_in": 0, "bytes_out": 0, "cpu_seconds": 0.0,
                "calls_per_second": over(calls), "errors_per_second": over(errors), "bytes_per_second": over(2048.0),
                "cores": over(0.1), "memory_bytes": over(0.0),
            },
            "velocity": { "calls": 1.5, "errors": 0.0, "bytes": 0.0 },
            "variance": {
                "burst": 2.5, "dispersion": 7.25, "entropy_bits": 1.0, "operations": [],
                "latency_millis": spread, "body_bytes": null,
            },
        })
    }

    fn seen() -> Seen {
        let mut flows = vec![flow("api", "orders", 120.0, 6.0), flow("api", "users", 300.0, 0.0)];
        flows.extend((0..30).map(|at| flow("consumer", &format!("agent-{at}\x1b[2J"), f64::from(at), 0.0)));
        let Flows { flows } = serde_json::from_value(json!({ "flows": flows })).unwrap();
        let spread = json!({ "mean": 2.0, "p50": 1.5, "p90": 3.0, "p99": 1200.0, "variation": 0.8 });
        let closed = json!({ "state": "closed", "open_seconds": null });
        let endpoint = |url: &str, healthy: bool| {
            json!({
                "url": url, "zone": null, "priority": 0, "weight": 1, "healthy": healthy, "ejection": closed,
                "ejections": 0, "draining": false, "in_flight": 0, "latency_millis": null, "connections": 0,
            })
        };
        let Upstreams { upstreams } = serde_json::from_value(json!({ "upstreams": [{
            "name": "orders", "breaker": closed, "breaker_opened": 0, "in_flight": 0, "waiting": 0, "connections": 0,
            "refused_full": 0, "refused_open": 0, "hedges": 0, "hedges_won": 0,
            "endpoints": [endpoint("a", false), endpoint("b", true)],
            "segments": [{ "name": "upstream", "layer": "upstream", "share": 0.93, "millis": spread }],
        }] }))
        .unwrap();
        Seen {
            health: serde_json::from_value(json!({
                "ready": true, "version": "0.1.0", "revision": "0123456789ab", "document": "weir.yaml", "uptime_seconds": 192.0,
                "listeners": [{ "name": "web", "address": "127.0.0.1:8080", "tls": false, "connections": 3 }],
            })).unwrap(),
            resources: serde_json::from_value(json!({ "active_calls": 2, "workers": [0.5, 0.25], "process": null, "cgroup": null, "cache": { "memory_bytes": 0, "apis": [], "consumers": [] } })).unwrap(),
            flows,
            upstreams,
        }
    }

    const SHOWN: Shown = Shown { routes: false, sort: Sort::Calls };

    #[test]
    fn every_line_fits_whatever_the_width() {
        for width in [40, 60, 80, 100, 120, 160, 200] {
            for height in [5, 24, 50] {
                let text = text(&seen(), SHOWN, width, height, Paint(false));
                assert!(text.lines().count() <= height, "{width}x{height}\n{text}");
                if width >= 80 {
                    let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
                    assert!(widest <= width, "{widest} in {width}\n{text}");
                }
                assert!(!text.contains('\x1b'), "a name reached the terminal as it was");
            }
        }
    }

    #[test]
    fn what_is_sorted_by_stands_above() {
        let first = |sort: Sort| {
            let text = text(&seen(), Shown { sort, ..SHOWN }, 80, 24, Paint(false));
            let lines: Vec<_> = text.lines().collect();
            let at = lines.iter().position(|line| line.starts_with("API")).unwrap();
            lines[at + 1].split_whitespace().next().unwrap().to_owned()
        };
        assert_eq!(first(Sort::Calls), "users");
        assert_eq!(first(Sort::Errors), "orders");
        assert_eq!(first(Sort::Name), "orders");
    }

    #[test]
    fn the_slowest_segment_of_an_upstream_is_told() {
        let text = text(&seen(), SHOWN, 80, 24, Paint(false));
        assert!(text.contains("orders                   1/2 upstream     upstream   93%   1.5ms    1.2s"), "{text}");
        assert!(text.contains("more"), "{text}");
    }

    #[test]
    fn numbers_keep_three_digits() {
        let shown: Vec<_> =
            [0.0, 0.123, 9.99, 12.34, 123.4, 99_999.0, 123_456.0, 2e7].into_iter().map(number).collect();
        assert_eq!(shown, ["0", "0.12", "9.99", "12.3", "123", "99999", "123k", "20M"]);
        assert_eq!((bytes(12.0), bytes(2048.0), bytes(300.0 * 1024.0)), ("12B".into(), "2.0K".into(), "300K".into()));
        assert_eq!(
            (millis(0.25), millis(12.0), millis(250.0), millis(2500.0)),
            ("250us".into(), "12.0ms".into(), "250ms".into(), "2.5s".into())
        );
        assert_eq!((signed(1.0), signed(-1.0), signed(0.0)), ("+1.00".into(), "-1.00".into(), "0".into()));
    }
}
