//! How upstreams and their endpoints are, for whoever asks; and the one thing an operator may set.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use base::Time;
use telemetry::{Figure, Row};

use crate::circuit::{Circuit, State};
use crate::upstream::{EndpointState, Member};
use crate::worker::Generation;

/// A node's upstreams, for as long as the node lives. May be asked from any thread; asks nobody else.
#[derive(Clone)]
pub struct Upstreams(Arc<ArcSwap<Generation>>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamStatus {
    pub name: Arc<str>,
    /// Closed where there is none.
    pub breaker: CircuitStatus,
    /// How often the breaker has opened.
    pub breaker_opened: u64,
    /// Tries under way.
    pub in_flight: u32,
    /// Calls that wait for room.
    pub waiting: u32,
    pub connections: u32,
    /// Calls refused because there was no room, and because the breaker was open.
    pub refused_full: u64,
    pub refused_open: u64,
    /// Tries made beside a slow one, and those of them that were quicker.
    pub hedges: u64,
    pub hedges_won: u64,
    pub endpoints: Vec<EndpointStatus>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointStatus {
    pub url: Arc<str>,
    pub zone: Option<Arc<str>>,
    pub priority: u32,
    pub weight: u32,
    /// What probes say; true where there are none.
    pub healthy: bool,
    /// Open while it is ejected.
    pub ejection: CircuitStatus,
    /// How often it was ejected.
    pub ejections: u64,
    /// It gets no new calls, by the document or by an operator.
    pub draining: bool,
    pub in_flight: u32,
    /// Average time to an answer; `None` if it was not measured.
    pub latency: Option<Duration>,
    pub connections: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CircuitStatus {
    Closed,
    /// For so long yet.
    Open {
        left: Duration,
    },
    /// The next call tries whether it is well.
    OnTrial,
}

impl Upstreams {
    pub(crate) fn new(generation: &Arc<Generation>) -> Upstreams {
        Upstreams(Arc::new(ArcSwap::new(generation.clone())))
    }

    pub(crate) fn set(&self, generation: &Arc<Generation>) {
        self.0.store(generation.clone());
    }

    pub(crate) fn generation(&self) -> Arc<Generation> {
        self.0.load_full()
    }

    pub fn status(&self) -> Vec<UpstreamStatus> {
        let (generation, now) = (self.0.load(), Time::now());
        let pairs = generation.upstreams.iter().zip(&generation.members);
        let status = pairs.map(|(state, members)| {
            let endpoints: Vec<_> = members.load().iter().map(|member| EndpointStatus::of(member, now)).collect();
            let count = &state.counts;
            UpstreamStatus {
                name: state.name.clone(),
                breaker: CircuitStatus::of(&state.breaker, now),
                breaker_opened: state.breaker.opened(),
                in_flight: endpoints.iter().map(|endpoint| endpoint.in_flight).sum(),
                waiting: state.waiting(),
                connections: state.slots.open(),
                refused_full: count.refused_full.load(Ordering::Relaxed),
                refused_open: count.refused_open.load(Ordering::Relaxed),
                hedges: count.hedges.load(Ordering::Relaxed),
                hedges_won: count.hedges_won.load(Ordering::Relaxed),
                endpoints,
            }
        });
        status.collect()
    }

    /// The same as numbers.
    pub(crate) fn figures(&self) -> Vec<Figure> {
        let all = self.status();
        let of_upstreams = |name, help, counter, value: fn(&UpstreamStatus) -> u64| {
            let row = |it: &UpstreamStatus| Row { labels: vec![("upstream", it.name.clone())], value: value(it) };
            Figure { name, help, counter, rows: all.iter().map(row).collect() }
        };
        let of_endpoints = |name, help, counter, value: fn(&EndpointStatus) -> u64| {
            let rows = all.iter().flat_map(|upstream| {
                upstream.endpoints.iter().map(move |it| Row {
                    labels: vec![("upstream", upstream.name.clone()), ("endpoint", it.url.clone())],
                    value: value(it),
                })
            });
            Figure { name, help, counter, rows: rows.collect() }
        };
        vec![
            of_endpoints("weir_endpoint_ejected", "0 takes calls, 1 left out, 2 on trial", false, |it| {
                it.ejection.number()
            }),
            of_endpoints("weir_endpoint_ejections", "Times an endpoint was left out", true, |it| it.ejections),
            of_endpoints("weir_endpoint_draining", "Whether it gets no new calls", false, |it| it.draining.into()),
            of_endpoints("weir_endpoint_in_flight", "Tries under way", false, |it| it.in_flight.into()),
            of_endpoints("weir_endpoint_connections", "Connections open", false, |it| it.connections.into()),
            of_upstreams("weir_upstream_breaker", "0 closed, 1 open, 2 on trial", false, |it| it.breaker.number()),
            of_upstreams("weir_upstream_breaker_openings", "Times a breaker opened", true, |it| it.breaker_opened),
            of_upstreams("weir_upstream_waiting", "Calls that wait for room", false, |it| it.waiting.into()),
            of_upstreams("weir_upstream_refused_full", "Calls there was no room for", true, |it| it.refused_full),
            of_upstreams("weir_upstream_refused_open", "Calls an open breaker refused", true, |it| it.refused_open),
            of_upstreams("weir_hedges", "Tries made beside a slow one", true, |it| it.hedges),
            of_upstreams("weir_hedges_won", "Those of them that answered first", true, |it| it.hedges_won),
        ]
    }

    /// The endpoint gets no new calls from now on; those under way end as they would. Holds until [`Upstreams::undrain`],
    /// over reloads too, for as long as documents have the endpoint. False if there is none such.
    pub fn drain(&self, upstream: &str, url: &str) -> bool {
        self.set_drained(upstream, url, true)
    }

    /// The endpoint gets calls again, unless the document says otherwise.
    pub fn undrain(&self, upstream: &str, url: &str) -> bool {
        self.set_drained(upstream, url, false)
    }

    fn set_drained(&self, upstream: &str, url: &str, drained: bool) -> bool {
        let mut found = false;
        for state in self.find(upstream, url) {
            found = true;
            if state.drained.swap(drained, Ordering::Relaxed) && !drained {
                state.came_back(Time::now());
            }
        }
        found
    }

    fn find(&self, upstream: &str, url: &str) -> Vec<Arc<EndpointState>> {
        let generation = self.0.load();
        let pairs = generation.upstreams.iter().zip(&generation.members);
        let named = pairs.filter(|(state, _)| *state.name == *upstream);
        let states =
            named.flat_map(|(_, members)| members.load().iter().map(|it| it.state.clone()).collect::<Vec<_>>());
        states.filter(|state| *state.url == *url).collect()
    }
}

impl EndpointStatus {
    fn of(Member { endpoint, state }: &Member, now: Time) -> EndpointStatus {
        EndpointStatus {
            url: state.url.clone(),
            zone: endpoint.zone.clone(),
            priority: endpoint.priority,
            weight: endpoint.weight,
            healthy: state.is_healthy(),
            ejection: CircuitStatus::of(&state.circuit, now),
            ejections: state.circuit.opened(),
            draining: endpoint.drain || state.drained.load(Ordering::Relaxed),
            in_flight: state.load.in_flight(),
            latency: state.load.latency(),
            connections: state.slots.open(),
        }
    }
}

impl CircuitStatus {
    fn number(self) -> u64 {
        match self {
            CircuitStatus::Closed => 0,
            CircuitStatus::Open { .. } => 1,
            CircuitStatus::OnTrial => 2,
        }
    }

    fn of(circuit: &Circuit, now: Time) -> CircuitStatus {
        match circuit.state(now) {
            State::Closed => CircuitStatus::Closed,
            State::Open { until } => CircuitStatus::Open { left: until.since(now) },
            State::OnTrial => CircuitStatus::OnTrial,
        }
    }
}
