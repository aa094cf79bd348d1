//! Pools of endpoints; also those that a route names by their URL alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base::{Headers, Percent, StatusCode};

use super::{Context, key};
use crate::diagnostic::{Severity, nearest};
use crate::discovery::{Discovery, group};
use crate::document::{self, Named, OrText};
use crate::snapshot::{
    Balance, Breaker, Circuit, ClientTls, Connections, Destination, Eject, Endpoint, FaultKinds, HashKey, Health,
    Hedge, HedgeAfter, Limits, Probe, Protocol, Retry, Timeouts, Upstream,
};

/// The upstreams while routes still ask for them.
#[derive(Default)]
pub(super) struct Upstreams {
    all: Vec<Arc<Upstream>>,
    by_name: HashMap<String, u32>,
    used: Vec<bool>,
}

impl Context<'_> {
    pub(super) fn upstreams(&mut self, Named(written): Named<document::Upstream>) -> Upstreams {
        let mut upstreams = Upstreams::default();
        for (name, upstream) in written {
            let at = key("upstreams", &name);
            let upstream = self.upstream(&at, &name, upstreams.all.len() as u32, upstream);
            upstreams.add(upstream, false);
        }
        upstreams
    }

    pub(super) fn finish_upstreams(&mut self, upstreams: Upstreams) -> Vec<Arc<Upstream>> {
        // A route that could not be read, or that has the name wrong, may have meant any of them.
        let certain = self.diagnostics.iter().all(|found| found.severity == Severity::Warning);
        for (upstream, used) in upstreams.all.iter().zip(&upstreams.used) {
            if !used && certain {
                self.warn(&key("upstreams", &upstream.name), format!("no route uses upstream `{}`", upstream.name));
            }
        }
        upstreams.all
    }

    /// The upstream of that name or URL, which a route names at `at`.
    pub(super) fn use_upstream(&mut self, at: &str, name: &str, upstreams: &mut Upstreams) -> Option<Arc<Upstream>> {
        if let Some(index) = upstreams.by_name.get(name) {
            upstreams.used[*index as usize] = true;
            return Some(upstreams.all[*index as usize].clone());
        }
        if name.contains("://") || name.starts_with("unix:") {
            let endpoint = OrText(document::Endpoint { url: name.to_owned(), ..Default::default() });
            if let Err(message) = parse_served(name) {
                self.error(at, message);
                return None;
            }
            let written = document::Upstream { endpoints: vec![endpoint], ..Default::default() };
            let upstream = self.upstream(at, name, upstreams.all.len() as u32, written);
            return Some(upstreams.add(upstream, true));
        }
        if !self.is_lost("upstreams", name) {
            let help = nearest(name, upstreams.by_name.keys().map(String::as_str))
                .unwrap_or_else(|| "define it under `upstreams`, or give a URL".into());
            self.error_with(at, format!("there is no upstream `{name}`"), Some(help));
        }
        None
    }

    fn upstream(&mut self, at: &str, name: &str, index: u32, written: document::Upstream) -> Upstream {
        let document::Upstream {
            endpoints,
            protocol,
            balance,
            health,
            retry,
            timeouts,
            tls,
            connections,
            eject: OrText(eject),
            breaker,
            limits,
            zones: document::Zones { spill_below, prefer_own },
            slow_start,
        } = written;
        let lost = self.broken(&format!("{at}.endpoints")) || self.misnamed(at);
        if endpoints.is_empty() && !lost {
            self.error(at, "no endpoint; expected `endpoints: [http://...]`");
        }
        let written = endpoints.into_iter().enumerate();
        let (mut endpoints, mut discoveries) = (Vec::new(), Vec::new());
        for (index, OrText(document::Endpoint { url, weight, zone, priority, drain })) in written {
            let at = format!("{at}.endpoints[{index}]");
            if weight == Some(0) {
                self.error(&format!("{at}.weight"), "an endpoint of weight 0 gets no calls; expected 1 or more");
            }
            let settled = |parsed: Endpoint| Endpoint {
                weight: weight.unwrap_or(1),
                zone: zone.map(Into::into),
                priority: priority.unwrap_or(0),
                drain,
                ..parsed
            };
            match parse_served(&url) {
                Ok(Served::Here(endpoint)) => endpoints.push(settled(endpoint)),
                Ok(Served::Found(Discovery { service, like })) => {
                    discoveries.push(Discovery { service, like: settled(like) });
                }
                Err(message) => self.error(&at, message),
            }
        }
        let mut written = endpoints.iter().chain(discoveries.iter().map(|it| &it.like)).peekable();
        let secure = written.clone().any(|endpoint| endpoint.tls);
        if written.peek().is_some() && written.all(|endpoint| endpoint.drain) {
            self.warn(&format!("{at}.endpoints"), "all endpoints are drained; calls will be refused");
        }
        let own_zone = self.zone.clone().filter(|_| prefer_own.unwrap_or(true));
        group(&mut endpoints, own_zone.as_deref());
        self.check_retry(&format!("{at}.retry"), &retry);
        self.check_timeouts(&format!("{at}.timeouts"), &timeouts);
        if connections.ping.and_then(|it| it.0).is_some_and(|span| span.0.is_zero()) {
            self.error(&format!("{at}.connections.ping"), "expected more than zero, or `none`");
        }
        if spill_below == Some(Percent::whole(0)) {
            self.error(
                &format!("{at}.zones.spill-below"),
                "no group would ever give calls away; expected more than 0%",
            );
        }
        Upstream {
            index,
            name: name.into(),
            balance: self.balance(at, balance),
            health: health.and_then(|health| self.health(&format!("{at}.health"), health)),
            retry: refine_retry(&retry, &default_retry()),
            timeouts: refine_timeouts(&timeouts, &DEFAULT_TIMEOUTS),
            protocol: match protocol {
                None | Some(document::Protocol::Auto) => Protocol::Auto,
                Some(document::Protocol::Http1) => Protocol::Http1,
                Some(document::Protocol::Http2) => Protocol::Http2,
            },
            tls: self.client_tls(&format!("{at}.tls"), tls, secure),
            connections: Connections {
                idle: connections.idle.unwrap_or(256),
                idle_timeout: connections.idle_timeout.map_or(Duration::from_secs(60), |span| span.0),
                streams: connections.streams.unwrap_or(100),
                ping: connections.ping.map_or(Some(Duration::from_secs(10)), |it| it.0.map(|span| span.0)),
            },
            endpoints,
            discoveries,
            own_zone,
            eject: self.eject(&format!("{at}.eject"), eject),
            breaker: breaker.and_then(|breaker| self.breaker(&format!("{at}.breaker"), breaker)),
            limits: limits.map(|limits| self.limits(&format!("{at}.limits"), limits)),
            spill_below: spill_below.unwrap_or(Percent::whole(70)),
            slow_start: slow_start.map_or(Duration::ZERO, |span| span.0),
        }
    }

    fn eject(&mut self, at: &str, eject: document::Eject) -> Option<Eject> {
        let document::Eject { failures, failure_share, window, min_calls, on, r#for, at_most, max_ejected, none } =
            eject;
        if none {
            return None;
        }
        let circuit = Circuit {
            failures: Some(failures.unwrap_or(5)),
            share: failure_share,
            on: self.fault_kinds(at, on.as_deref(), &["connect", "reset", "timeout"]),
            window: window.map_or(Duration::from_secs(10), |span| span.0),
            min_calls: min_calls.unwrap_or(20),
            pause: r#for.map_or(Duration::from_secs(10), |span| span.0),
            longest: at_most.map_or(Duration::from_secs(300), |span| span.0),
        };
        self.check_circuit(at, &circuit, at_most.is_some());
        Some(Eject { circuit, most: max_ejected.unwrap_or(Percent::whole(50)) })
    }

    fn breaker(&mut self, at: &str, breaker: document::Breaker) -> Option<Breaker> {
        let document::Breaker { failures, failure_share, window, min_calls, on, r#for, at_most, trials } = breaker;
        let circuit = Circuit {
            failures,
            share: Some(failure_share.unwrap_or(Percent::whole(50))),
            on: self.fault_kinds(at, on.as_deref(), &["connect", "reset", "timeout", "502", "503", "504"]),
            window: window.map_or(Duration::from_secs(10), |span| span.0),
            min_calls: min_calls.unwrap_or(20),
            pause: r#for.map_or(Duration::from_secs(5), |span| span.0),
            longest: at_most.map_or(Duration::from_secs(60), |span| span.0),
        };
        self.check_circuit(at, &circuit, at_most.is_some());
        if trials == Some(0) {
            self.error(&format!("{at}.trials"), "it would never close again; expected 1 or more");
        }
        Some(Breaker { circuit, trials: trials.unwrap_or(3) })
    }

    fn check_circuit(&mut self, at: &str, circuit: &Circuit, bounded: bool) {
        if circuit.failures == Some(0) {
            self.error(&format!("{at}.failures"), "expected 1 or more");
        }
        if circuit.share == Some(Percent::whole(0)) {
            self.error(&format!("{at}.failure-share"), "expected more than 0%");
        }
        if circuit.min_calls == 0 {
            self.error(&format!("{at}.min-calls"), "expected 1 or more");
        }
        for (name, span) in [("window", circuit.window), ("for", circuit.pause)] {
            if span < Duration::from_millis(10) {
                self.error(&format!("{at}.{name}"), "expected `10ms` or more");
            }
        }
        if bounded && circuit.longest < circuit.pause {
            self.error(&format!("{at}.at-most"), "less than `for`, which is how long the first time takes");
        }
    }

    fn limits(&mut self, at: &str, limits: document::Limits) -> Limits {
        let document::Limits { calls, connections, endpoint, waiting, wait } = limits;
        let document::EndpointLimits { calls: endpoint_calls, connections: endpoint_connections } = endpoint;
        for (name, limit) in [
            ("calls", calls),
            ("connections", connections),
            ("endpoint.calls", endpoint_calls),
            ("endpoint.connections", endpoint_connections),
        ] {
            if limit == Some(0) {
                self.error(&format!("{at}.{name}"), "room for nothing; expected 1 or more");
            }
        }
        if waiting.is_none() && wait.is_some() {
            self.warn(&format!("{at}.wait"), "nothing waits unless `waiting` says how many may");
        }
        let wait = wait.map_or(Duration::from_secs(1), |span| span.0);
        Limits { calls, connections, endpoint_calls, endpoint_connections, waiting: waiting.unwrap_or(0), wait }
    }

    fn fault_kinds(&mut self, at: &str, written: Option<&[String]>, default: &[&str]) -> FaultKinds {
        let mut kinds = FaultKinds::default();
        if let Some(words) = written {
            self.check_fault_kinds(at, words);
        }
        let written = written.map(|words| words.iter().map(String::as_str).collect::<Vec<_>>());
        for word in written.as_deref().unwrap_or(default) {
            // What is wrong with it has been told.
            let _ = kinds.add(word);
        }
        kinds
    }

    fn check_fault_kinds(&mut self, at: &str, words: &[String]) {
        for (index, word) in words.iter().enumerate() {
            if FaultKinds::default().add(word).is_err() {
                self.error_with(
                    &format!("{at}.on[{index}]"),
                    format!(
                        "found `{word}`, expected `connect`, `reset`, `timeout`, `5xx` or a status such as \"503\""
                    ),
                    nearest(word, ["connect", "reset", "timeout", "5xx"]),
                );
            }
        }
    }

    pub(super) fn client_tls(&mut self, at: &str, tls: document::ClientTls, secure: bool) -> Option<ClientTls> {
        let document::ClientTls { authorities, certificate, name, verify } = tls;
        let authorities = authorities.and_then(|reference| self.certificates(&format!("{at}.authorities"), &reference));
        let certificate = certificate.and_then(|written| self.certificate(&format!("{at}.certificate"), &written));
        let verify = verify.unwrap_or(true);
        if !verify {
            self.warn(&format!("{at}.verify"), "anyone on the way can pose as this upstream");
        }
        secure.then(|| ClientTls { at: at.to_owned(), authorities, certificate, name, verify })
    }

    fn balance(&mut self, at: &str, balance: Option<OrText<document::Balance>>) -> Balance {
        let Some(OrText(document::Balance { hash, word })) = balance else { return Balance::LeastLoad };
        match (word.as_deref(), hash) {
            (Some("round-robin"), _) => Balance::RoundRobin,
            (Some(_), _) => Balance::LeastLoad,
            (None, Some(OrText(document::HashBy { header, query, word }))) => match (word.as_deref(), header, query) {
                (Some("consumer"), ..) => Balance::Hash(HashKey::Consumer),
                (Some("path"), ..) => Balance::Hash(HashKey::Path),
                (Some(_), ..) => Balance::Hash(HashKey::Address),
                (None, Some(name), None) => {
                    if !Headers::is_name(&name) {
                        self.error(&format!("{at}.balance.hash.header"), format!("`{name}` is not a header's name"));
                    }
                    Balance::Hash(HashKey::Header(name.to_ascii_lowercase()))
                }
                (None, None, Some(name)) => Balance::Hash(HashKey::Query(name)),
                _ => {
                    self.error(&format!("{at}.balance.hash"), "expected either `header: NAME` or `query: NAME`");
                    Balance::LeastLoad
                }
            },
            (None, None) => {
                self.error(&format!("{at}.balance"), "expected `least-load`, `round-robin` or `hash: ...`");
                Balance::LeastLoad
            }
        }
    }

    fn health(&mut self, at: &str, health: document::Health) -> Option<Health> {
        let document::Health { http, host, grpc, tcp, every, timeout, unhealthy_after, healthy_after } = health;
        let probe = match (http, grpc, tcp) {
            (Some(path), None, false) => {
                if !path.starts_with('/') {
                    self.error(&format!("{at}.http"), "a path begins with `/`");
                }
                Probe::Http { path, host }
            }
            (None, Some(service), false) => Probe::Grpc { service },
            (None, None, true) => Probe::Tcp,
            _ => {
                self.error(at, "expected exactly one of `http: /path`, `grpc: service`, `tcp: true`");
                return None;
            }
        };
        let every = every.map_or(Duration::from_secs(5), |span| span.0);
        if every.is_zero() {
            self.error(&format!("{at}.every"), "expected more than zero");
        }
        for (name, count) in [("unhealthy-after", unhealthy_after), ("healthy-after", healthy_after)] {
            if count == Some(0) {
                self.error(&format!("{at}.{name}"), "expected 1 or more");
            }
        }
        Some(Health {
            probe,
            every,
            timeout: timeout.map_or(Duration::from_secs(2), |span| span.0),
            unhealthy_after: unhealthy_after.unwrap_or(2),
            healthy_after: healthy_after.unwrap_or(2),
        })
    }

    pub(super) fn check_retry(&mut self, at: &str, written: &document::Retry) {
        if written.attempts == Some(0) {
            self.error(&format!("{at}.attempts"), "no try at all; expected 1 (never again) or more");
        }
        self.check_fault_kinds(at, written.on.as_deref().unwrap_or_default());
        if let Some(OrText(document::Hedge { after, attempts, none: false })) = &written.hedge {
            if after.is_none() && !self.broken(&format!("{at}.hedge")) {
                self.error(&format!("{at}.hedge"), "expected `after: 100ms` or `after: p95`");
            }
            if *attempts == Some(0) {
                self.error(
                    &format!("{at}.hedge.attempts"),
                    "no try beside the first; expected 1 or more, or `hedge: none`",
                );
            }
        }
    }

    pub(super) fn check_timeouts(&mut self, at: &str, written: &document::Timeouts) {
        let document::Timeouts { connect, first_byte, idle, call } = written;
        let is_zero =
            |written: &Option<document::OrNone>| written.and_then(|it| it.0).is_some_and(|span| span.0.is_zero());
        for (name, zero) in [
            ("connect", connect.as_ref().is_some_and(|span| span.0.is_zero())),
            ("first-byte", is_zero(first_byte)),
            ("idle", is_zero(idle)),
            ("call", is_zero(call)),
        ] {
            if zero {
                let or = if name == "connect" { "" } else { ", or `none`" };
                self.error(&format!("{at}.{name}"), format!("no time at all; expected more than zero{or}"));
            }
        }
    }
}

impl FaultKinds {
    fn add(&mut self, word: &str) -> Result<(), ()> {
        match word {
            "connect" => self.connect = true,
            "reset" => self.reset = true,
            "timeout" => self.timeout = true,
            "5xx" => self.server_errors = true,
            word => match word.parse::<StatusCode>() {
                Ok(status) if status.as_u16() >= 400 => self.statuses.push(status),
                _ => return Err(()),
            },
        }
        Ok(())
    }
}

/// What is written, over what holds around it.
pub(super) fn refine_retry(written: &document::Retry, around: &Retry) -> Retry {
    let document::Retry {
        attempts,
        on,
        budget,
        min_per_second,
        backoff,
        max_backoff,
        try_timeout,
        unsafe_methods,
        buffer,
        hedge,
    } = written;
    let hedge = match hedge {
        None => around.hedge.clone(),
        Some(OrText(document::Hedge { none: true, .. } | document::Hedge { after: None, .. })) => None,
        Some(OrText(document::Hedge { after: Some(after), attempts, .. })) => Some(Hedge {
            after: match after {
                document::After::Span(span) => HedgeAfter::Time(span.0),
                document::After::Part(part) => HedgeAfter::Part(*part),
            },
            attempts: attempts.unwrap_or(1),
        }),
    };
    let on = on.as_ref().map(|words| {
        let mut on = FaultKinds::default();
        for word in words {
            // What is wrong with it has been told.
            let _ = on.add(word);
        }
        on
    });
    Retry {
        attempts: attempts.unwrap_or(around.attempts),
        on: on.unwrap_or_else(|| around.on.clone()),
        budget: budget.unwrap_or(around.budget),
        min_per_second: min_per_second.unwrap_or(around.min_per_second),
        backoff: backoff.as_ref().map_or(around.backoff, |span| span.0),
        max_backoff: max_backoff.as_ref().map_or(around.max_backoff, |span| span.0),
        try_timeout: try_timeout.as_ref().map(|span| span.0).or(around.try_timeout),
        unsafe_methods: unsafe_methods.unwrap_or(around.unsafe_methods),
        buffer: buffer.as_ref().map_or(around.buffer, |size| size.0 as usize),
        hedge,
    }
}

/// What is written, over what holds around it.
pub(super) fn refine_timeouts(written: &document::Timeouts, around: &Timeouts) -> Timeouts {
    let document::Timeouts { connect, first_byte, idle, call } = written;
    let or_none = |written: &Option<document::OrNone>, around: Option<Duration>| match written {
        Some(written) => written.0.as_ref().map(|span| span.0),
        None => around,
    };
    Timeouts {
        connect: connect.as_ref().map_or(around.connect, |span| span.0),
        first_byte: or_none(first_byte, around.first_byte),
        idle: or_none(idle, around.idle),
        call: or_none(call, around.call),
    }
}

impl Upstreams {
    fn add(&mut self, upstream: Upstream, used: bool) -> Arc<Upstream> {
        let upstream = Arc::new(upstream);
        self.by_name.insert(upstream.name.to_string(), upstream.index);
        self.all.push(upstream.clone());
        self.used.push(used);
        upstream
    }
}

pub(super) fn default_retry() -> Retry {
    Retry {
        attempts: 2,
        on: FaultKinds { connect: true, reset: true, ..FaultKinds::default() },
        budget: Percent::whole(20),
        min_per_second: 3,
        backoff: Duration::from_millis(25),
        max_backoff: Duration::from_millis(250),
        try_timeout: None,
        unsafe_methods: false,
        buffer: 64 << 10,
        hedge: None,
    }
}

/// What a URL among endpoints stands for.
enum Served {
    Here(Endpoint),
    Found(Discovery),
}

/// As [`parse_url`], and `srv+http://name/base`, `srv+https://...`.
fn parse_served(url: &str) -> Result<Served, String> {
    let Some(rest) = url.strip_prefix("srv+") else { return parse_url(url).map(Served::Here) };
    let wrong = || {
        format!("`{url}` is not a service; expected a name without a port, such as `srv+http://_orders._tcp.internal`")
    };
    let like = parse_url(rest).map_err(|_| wrong())?;
    match &like.address {
        // The port is that of the record.
        Destination::Name { host, .. } if *host == like.authority.to_ascii_lowercase() => {
            Ok(Served::Found(Discovery { service: host.clone(), like: Endpoint { url: url.into(), ..like } }))
        }
        _ => Err(wrong()),
    }
}

/// `http://host:port/base`, `https://...` or `unix:/path`.
pub(super) fn parse_url(url: &str) -> Result<Endpoint, String> {
    let endpoint = |address, tls, authority: &str, base_path: &str| Endpoint {
        url: url.into(),
        address,
        tls,
        authority: authority.to_owned(),
        base_path: base_path.to_owned(),
        weight: 1,
        zone: None,
        priority: 0,
        order: 0,
        level: 0,
        drain: false,
    };
    if let Some(path) = url.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        if !path.starts_with('/') {
            return Err(format!("`{url}` is not a socket; expected an absolute path such as `unix:/run/app.sock`"));
        }
        return Ok(endpoint(Destination::Unix(path.into()), false, "localhost", ""));
    }
    let wrong = || {
        format!(
            "`{url}` is not a URL; expected one such as `http://10.0.0.1:8080`, `https://a.internal/base`, `unix:/run/app.sock`"
        )
    };
    let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
    let (tls, default_port) = match scheme {
        "http" => (false, 80),
        "https" => (true, 443),
        _ => return Err(wrong()),
    };
    if rest.contains(['?', '#', '@', ' ']) {
        return Err(format!("`{url}` has more than an endpoint has: no user, query or fragment belongs here"));
    }
    let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => {
            (host, port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wrong)?)
        }
        _ => (authority, default_port),
    };
    let ip = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).parse();
    let address = match ip {
        Ok(ip) => Destination::Ip(std::net::SocketAddr::new(ip, port)),
        Err(_) if is_host(host) => Destination::Name { host: host.to_ascii_lowercase(), port },
        Err(_) => return Err(wrong()),
    };
    Ok(endpoint(address, tls, authority, path.trim_end_matches('/')))
}

/// Labels of letters, digits, `-` and `_`.
pub(super) fn is_host(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

const DEFAULT_TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(5),
    first_byte: Some(Duration::from_secs(60)),
    idle: Some(Duration::from_secs(60)),
    call: None,
};
