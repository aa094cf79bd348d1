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
use tokio::task::JoinSet;
use transport::{Body, Frame, Pool, Protocol, Target};

use crate::node::Probed;
use crate::upstream::{self, EndpointState, Member};

/// Probes for every endpoint of a generation; they end when this is dropped.
pub struct Checks(#[expect(dead_code, reason = "held for its tasks")] JoinSet<()>);

impl Checks {
    /// Must be called on a local runtime.
    pub fn start(upstreams: &[Probed], gauges: &Gauges) -> Checks {
        let mut tasks = JoinSet::new();
        for (upstream, members, tls) in upstreams {
            let Some(health) = &upstream.health else {
                for Member { state, .. } in members {
                    state.healthy.store(true, Ordering::Relaxed);
                    gauges.endpoint(&state.upstream, &state.url, true);
                }
                continue;
            };
            for Member { endpoint, state } in members {
                let target = probe_target(upstream, endpoint, state, tls.as_ref(), &health.probe);
                let authority = endpoint.authority.clone();
                gauges.endpoint(&state.upstream, &state.url, state.is_healthy());
                tasks.spawn_local(watch(health.clone(), Pool::new(target), authority, state.clone(), gauges.clone()));
            }
        }
        Checks(tasks)
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
