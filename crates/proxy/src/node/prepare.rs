//! The first half of a change: certificates loaded, addresses bound, names asked. Whatever can fail of it is told all at
//! once, and changes nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use config::{Address, Snapshot, Upstream};
use rustls::ServerConfig;
use transport::dns::{Names, Service};
use transport::listen::{self, Listening};

use super::tls::{admin_tls, client_tls, collector_tls, server_tls};
use super::{Bound, Passed, Problem};
use crate::acme::{Acme, Certificate};
use crate::control::found;
use crate::crowd::Crowd;
use crate::models::States;
use crate::upstream::{self, UpstreamState};
use crate::worker::Generation;

/// All that a snapshot needs before it can be put in force.
pub(super) struct Prepared {
    pub(super) generation: Arc<Generation>,
    pub(super) sockets: Vec<(Arc<str>, Arc<Listening>)>,
    /// Those of the sockets that do not listen yet: they go on for others, which end.
    successors: Vec<(Arc<str>, Arc<Listening>)>,
    /// Those others.
    pub(super) left: Vec<Arc<Listening>>,
    pub(super) bound: HashMap<Arc<str>, Bound>,
    pub(super) telemetry: telemetry::Settings,
    pub(super) admin_tls: Option<Arc<ServerConfig>>,
}

/// The first half: whatever can fail.
pub(super) fn prepare(
    snapshot: &Arc<Snapshot>,
    workers: usize,
    old: Option<&Generation>,
    bound: &HashMap<Arc<str>, Bound>,
    mut inherited: Vec<Passed>,
    names: &Names,
    acme: &Acme,
) -> Result<Prepared, Vec<Problem>> {
    let mut problems = Vec::new();
    let certificates = certificates(snapshot, acme);
    let server_configs = server_tls(snapshot, old, &certificates, &mut problems);
    let client_tls = client_tls(snapshot, &mut problems);
    let admin_tls = admin_tls(snapshot, &mut problems);
    let telemetry = settings(snapshot, &mut problems);
    let mut sockets = Vec::new();
    let mut now_bound = HashMap::new();
    let stays = |name: &Arc<str>, there: &Bound| {
        snapshot.listeners.iter().any(|it| it.name == *name && it.address == there.address)
    };
    let ending: Vec<&Arc<Listening>> =
        bound.iter().filter(|(name, there)| !stays(name, there)).map(|(_, there)| &there.listening).collect();
    let mut successors = Vec::new();
    for listener in &snapshot.listeners {
        if let Some(there) = bound.get(&listener.name).filter(|bound| bound.address == listener.address) {
            now_bound.insert(listener.name.clone(), there.clone());
            continue;
        }
        let place = place(&listener.address);
        // One that changes its name, or moves to where it was before among other addresses, goes on for the one it was.
        let before: Vec<&Listening> = ending.iter().filter(|it| it.overlaps(&place)).map(|it| &***it).collect();
        let rival = now_bound.values().any(|other: &Bound| other.listening.overlaps(&place));
        let passed = inherited.iter().position(|it| it.is_for(&listener.name, &listener.address));
        let listening = match passed {
            Some(passed) => Listening::inherit(&place, inherited.swap_remove(passed).sockets, workers),
            None if before.is_empty() || rival => Listening::bind(&place, workers),
            None => Listening::succeed(&place, &before, workers),
        };
        // Whoever connected to a successor would be lost if something else is wrong with the document.
        let at_once = |it: Listening| if before.is_empty() { it.listen().map(|()| it) } else { Ok(it) };
        match listening.and_then(at_once) {
            Ok(listening) => {
                let listening = Arc::new(listening);
                if !before.is_empty() {
                    successors.push((listener.name.clone(), listening.clone()));
                }
                let bound = Bound { address: listener.address.clone(), listening: listening.clone() };
                now_bound.insert(listener.name.clone(), bound);
                sockets.push((listener.name.clone(), listening));
            }
            Err(error) => problems.push(Problem {
                at: format!("listeners.{}.address", listener.name),
                message: cannot_listen(&listener.address, &error),
            }),
        }
    }
    let left = ending.into_iter().filter(|it| successors.iter().any(|(_, new)| it.overlaps(new.local_addr())));
    let left = left.cloned().collect();
    if !problems.is_empty() {
        return Err(problems);
    }
    // Nothing can fail any more: certificates of listeners that stay are changed in place.
    let server_tls = server_configs
        .into_iter()
        .zip(&snapshot.listeners)
        .map(|(config, listener)| {
            let config = config?;
            let before = old.and_then(|old| {
                let at = old.snapshot.listeners.iter().position(|it| it.name == listener.name)?;
                old.server_tls[at].clone()
            });
            Some(match before {
                Some(current) => {
                    current.store(config);
                    current
                }
                None => Arc::new(ArcSwap::new(config)),
            })
        })
        .collect();
    let upstreams = snapshot.upstreams.iter().map(|upstream| upstream_state(upstream, old)).collect();
    let services = services(snapshot, names);
    let members = snapshot.upstreams.iter().zip(&services).map(|(upstream, services)| {
        let at = old.and_then(|old| old.snapshot.upstreams.iter().position(|it| it.name == upstream.name));
        let known = old.zip(at).map(|(old, at)| old.members[at].load_full());
        let endpoints = found(upstream, services);
        ArcSwap::from_pointee(upstream::members(upstream, endpoints, known.as_deref().map(Vec::as_slice), names))
    });
    let members = members.collect();
    let crowds = crowds(snapshot, old);
    let models = States::new(&snapshot.models, old.map(|old| (&old.snapshot.models, &old.models)));
    let snapshot = snapshot.clone();
    let tokens = acme.tokens().clone();
    let generation = Arc::new(Generation {
        snapshot,
        upstreams,
        members,
        services,
        client_tls,
        models,
        certificates,
        tokens,
        server_tls,
        crowds,
    });
    Ok(Prepared { generation, sockets, successors, left, bound: now_bound, telemetry, admin_tls })
}

impl Prepared {
    /// Lets clients connect to the successors of listeners that end. The last of what can fail: whoever has connected
    /// to one is not lost by what comes after it.
    pub(super) fn listen(&self) -> Result<(), Vec<Problem>> {
        for (name, listening) in &self.successors {
            if let Err(error) = listening.listen() {
                let address = &self.bound[name].address;
                let at = format!("listeners.{name}.address");
                return Err(vec![Problem { at, message: cannot_listen(address, &error) }]);
            }
        }
        Ok(())
    }
}

fn cannot_listen(address: &Address, error: &std::io::Error) -> String {
    format!("cannot listen on {}: {error}", shown(address))
}

/// Those of listeners that stay go on counting.
fn crowds(snapshot: &Snapshot, old: Option<&Generation>) -> Vec<Arc<Crowd>> {
    let before: Vec<_> = old.iter().flat_map(|old| old.snapshot.listeners.iter().zip(&old.crowds)).collect();
    let node = before.first().map(|(_, crowd)| crowd.node().clone()).unwrap_or_default();
    let crowds = snapshot.listeners.iter().map(|listener| {
        let same = before.iter().find(|(it, _)| it.name == listener.name && it.address == listener.address);
        let crowd = same.map_or_else(|| Crowd::new(node.clone()), |(_, crowd)| (*crowd).clone());
        crowd.allow(&listener.limits, snapshot.node.connections);
        crowd
    });
    crowds.collect()
}

/// Certificates that are issued, as the snapshot's listeners. Those that want the same one share it.
fn certificates(snapshot: &Snapshot, acme: &Acme) -> Vec<Option<Arc<Certificate>>> {
    let mut certificates: Vec<Option<Arc<Certificate>>> = Vec::new();
    for listener in &snapshot.listeners {
        let wanted = listener.tls.as_ref().and_then(|tls| tls.acme.as_ref());
        let certificate = wanted.map(|wanted| {
            let same = certificates.iter().flatten().find(|it| it.wanted == *wanted).cloned();
            same.unwrap_or_else(|| acme.certificate(wanted))
        });
        certificates.push(certificate);
    }
    certificates
}

/// An upstream's state; one that was there before keeps what is known of it.
fn upstream_state(upstream: &Upstream, old: Option<&Generation>) -> Arc<UpstreamState> {
    let known = old.and_then(|old| old.upstreams.iter().find(|state| state.name == upstream.name).cloned());
    known.unwrap_or_else(|| Arc::new(UpstreamState::new(upstream)))
}

/// Whom to ask for endpoints. The first answers are waited for, so that the first calls find some; but not for long: a
/// node also starts while name servers are down.
fn services(snapshot: &Snapshot, names: &Names) -> Vec<Vec<Arc<Service>>> {
    let of_one = |upstream: &Arc<Upstream>| upstream.discoveries.iter().map(|it| names.service(&it.service)).collect();
    let services: Vec<Vec<_>> = snapshot.upstreams.iter().map(of_one).collect();
    let all: Vec<_> = services.iter().flatten().cloned().collect();
    if !all.is_empty() {
        names.wait_for(all, FIRST_ANSWERS);
    }
    services
}

impl Passed {
    /// A listener may have another name by now; one that has any port is known by nothing else.
    fn is_for(&self, name: &str, address: &Address) -> bool {
        let any_port = matches!(address, Address::Ip(address) if address.port() == 0);
        self.address == *address && (!any_port || self.name == name)
    }
}

pub(super) fn settings(snapshot: &Snapshot, problems: &mut Vec<Problem>) -> telemetry::Settings {
    let told = &snapshot.telemetry;
    telemetry::Settings {
        metrics: told.metrics,
        access_log: told.access_log.clone().map(|log| match log {
            config::AccessLog::Stdout => telemetry::AccessLog::Stdout,
            config::AccessLog::File(path) => telemetry::AccessLog::File(path),
        }),
        otlp: told.otlp.clone().map(|otlp| {
            let config::Otlp { endpoint, tls, host, protocol, headers, every, traces, metrics, resource } = otlp;
            let tls = tls.and_then(|tls| collector_tls(&tls, host, protocol, problems));
            let protocol = match protocol {
                config::OtlpProtocol::Http => telemetry::OtlpProtocol::Http,
                config::OtlpProtocol::Grpc => telemetry::OtlpProtocol::Grpc,
            };
            telemetry::Otlp { endpoint, tls, protocol, headers, every, traces, metrics, resource }
        }),
        max_series: told.max_series,
    }
}

fn place(address: &Address) -> listen::Address {
    match address {
        Address::Ip(address) => listen::Address::Ip(*address),
        Address::Unix(path) => listen::Address::Unix(path.clone()),
    }
}

fn shown(address: &Address) -> String {
    match address {
        Address::Ip(address) => address.to_string(),
        Address::Unix(path) => format!("unix:{}", path.display()),
    }
}

/// How long a start and a reload wait for name servers.
const FIRST_ANSWERS: Duration = Duration::from_secs(3);
