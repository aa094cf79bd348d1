//! Active health checks: probes on the control thread, verdicts in a flag that all cores read.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base::{Headers, Method, RequestHead, Scheme, Time, Version};
use bytes::Bytes;
use config::{Health, Probe, Upstream};
use rustls::ClientConfig;
use telemetry::Gauges;
use tokio::task::AbortHandle;
use transport::{Body, Frame, Pool, Protocol, Target};

use crate::upstream::{self, EndpointState, Member};

/// The probes under way. Each lasts for as long as its endpoint is there and is asked the same way.
#[derive(Default)]
pub struct Checks(Vec<Check>);

struct Check {
    upstream: Arc<str>,
    state: Arc<EndpointState>,
    health: Health,
    task: AbortHandle,
}

impl Checks {
    /// Upstreams that are no more are asked no more.
    pub fn keep(&mut self, upstreams: &[Arc<Upstream>]) {
        self.0.retain(|check| upstreams.iter().any(|it| it.name == check.upstream));
    }

    /// The upstream has these endpoints from now on. Must be called on a local runtime.
    pub fn set(&mut self, upstream: &Upstream, members: &[Member], tls: Option<&Arc<ClientConfig>>, gauges: &Gauges) {
        let (mut before, others) = std::mem::take(&mut self.0).into_iter().partition(|it| it.upstream == upstream.name);
        self.0 = others;
        for Member { endpoint, state } in members {
            let Some(health) = &upstream.health else {
                state.healthy.store(true, Ordering::Relaxed);
                gauges.endpoint(&state.upstream, &state.url, true);
                continue;
            };
            gauges.endpoint(&state.upstream, &state.url, state.is_healthy());
            let same = |it: &Check| Arc::ptr_eq(&it.state, state) && it.health == *health;
            if let Some(at) = before.iter().position(same) {
                self.0.push(before.swap_remove(at));
                continue;
            }
            let target = probe_target(upstream, endpoint, state, tls, &health.probe);
            let authority = endpoint.authority.clone();
            let probing = watch(health.clone(), Pool::new(target), authority, state.clone(), gauges.clone());
            // Its owner is the check.
            let task = tokio::task::spawn_local(probing).abort_handle();
            self.0.push(Check { upstream: upstream.name.clone(), state: state.clone(), health: health.clone(), task });
        }
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn probe_target(
    upstream: &Upstream,
    endpoint: &config::Endpoint,
    state: &EndpointState,
    tls: Option<&Arc<ClientConfig>>,
    probe: &Probe,
) -> Target {
    let mut target = upstream::target(upstream, endpoint, state, tls);
    if matches!(probe, Probe::Grpc { .. }) {
        target.protocol = Protocol::Http2;
    }
    // Each probe proves that a connection can be made.
    target.idle = 0;
    target
}

async fn watch(health: Health, pool: Pool, authority: String, state: Arc<EndpointState>, gauges: Gauges) {
    let (mut good, mut bad) = (0u32, 0u32);
    // Endpoints of one upstream are not all probed in the same instant.
    let spread = health.every.mul_f64((Time::now().nanos() % 1000) as f64 / 4000.0);
    tokio::time::sleep(spread).await;
    loop {
        let verdict =
            tokio::time::timeout(health.timeout, probe(&health.probe, &pool, &authority, health.timeout)).await;
        let verdict = verdict.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")));
        match &verdict {
            Ok(()) => (good, bad) = (good + 1, 0),
            Err(_) => (good, bad) = (0, bad + 1),
        }
        let healthy = state.is_healthy();
        if healthy && bad >= health.unhealthy_after {
            let error = verdict.err().map(|error| error.to_string()).unwrap_or_default();
            tracing::warn!(upstream = %state.upstream, endpoint = %state.url, error, "endpoint became unhealthy");
            state.healthy.store(false, Ordering::Relaxed);
            gauges.endpoint(&state.upstream, &state.url, false);
        } else if !healthy && good >= health.healthy_after {
            tracing::info!(upstream = %state.upstream, endpoint = %state.url, "endpoint is healthy again");
            state.came_back(Time::now());
            state.healthy.store(true, Ordering::Relaxed);
            gauges.endpoint(&state.upstream, &state.url, true);
        }
        tokio::time::sleep(health.every).await;
    }
}

async fn probe(probe: &Probe, pool: &Pool, authority: &str, timeout: Duration) -> io::Result<()> {
    let lease = pool.lease(true, timeout, &mut awareness::Timeline::default()).await.map_err(io::Error::other)?;
    let request = |method, authority: &str, target: &str, headers| RequestHead {
        method,
        scheme: Scheme::Http,
        authority: authority.to_owned(),
        target: target.to_owned(),
        version: Version::HTTP_11,
        headers,
    };
    match probe {
        Probe::Tcp => Ok(()),
        Probe::Http { path, host } => {
            let headers = Headers::from_iter([("user-agent", "weir-health")]);
            let head = request(Method::GET, host.as_deref().unwrap_or(authority), path, headers);
            let response = lease.send(&head, None, Body::Empty, Default::default()).await.map_err(io::Error::other)?;
            if response.head.status.is_success() {
                return Ok(());
            }
            Err(io::Error::other(format!("answered {}", response.head.status)))
        }
        Probe::Grpc { service } => {
            let headers = Headers::from_iter([
                ("content-type", "application/grpc"),
                ("te", "trailers"),
                ("user-agent", "weir-health"),
            ]);
            let head = request(Method::POST, authority, "/grpc.health.v1.Health/Check", headers);
            let body = Body::from(health_request(service));
            let mut response = lease.send(&head, None, body, Default::default()).await.map_err(io::Error::other)?;
            let mut answer = Vec::new();
            let mut status = response.head.headers.get("grpc-status").map(<[u8]>::to_vec);
            while let Some(frame) = response.body.frame().await {
                match frame.map_err(io::Error::other)? {
                    Frame::Data(data) => answer.extend_from_slice(&data),
                    Frame::Trailers(trailers) => status = trailers.get("grpc-status").map(<[u8]>::to_vec),
                }
            }
            // A message with field 1 (status) = 1 (SERVING).
            if status.as_deref() == Some(b"0") && answer.get(5..) == Some(&[0x08, 0x01]) {
                return Ok(());
            }
            Err(io::Error::other("the health service does not say SERVING"))
        }
    }
}

/// `HealthCheckRequest { service }` as one gRPC message.
fn health_request(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push((length as u8 & 0x7f) | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.extend_from_slice(&message);
    framed.into()
}
