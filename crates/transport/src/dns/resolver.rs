//! One question, one answer: of a host `/etc/hosts` first, then the name servers for both families; of a service its SRV
//! records.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use base::Srv;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::{Hosts, TokioResolver};

pub struct Resolver(TokioResolver);

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    /// Sorted.
    pub found: Vec<T>,
    /// How long this may be believed: between a second and five minutes.
    pub ttl: Duration,
}

#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot resolve `{host}`: {reason}")]
pub struct DnsError {
    pub host: String,
    pub reason: String,
    /// A server has said that there is nothing by this name. Otherwise none has said anything of use.
    pub is_nothing: bool,
}

impl Resolver {
    /// Asks the name servers of `/etc/resolv.conf`.
    pub fn system() -> Result<Resolver, DnsError> {
        let mut builder = TokioResolver::builder_tokio().map_err(|error| DnsError::new("/etc/resolv.conf", error))?;
        tune(builder.options_mut());
        builder.build().map(Resolver).map_err(|error| DnsError::new("/etc/resolv.conf", error))
    }

    /// Asks these name servers, by UDP and, for long answers, TCP.
    pub fn with_servers(servers: &[SocketAddr]) -> Result<Resolver, DnsError> {
        let servers = servers.iter().map(|server| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                connection.port = server.port();
                connection
            });
            NameServerConfig::new(server.ip(), true, connections.into())
        });
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        tune(builder.options_mut());
        builder.build().map(Resolver).map_err(|error| DnsError::new("name servers", error))
    }

    /// Every address of the host, of both families; never none.
    pub async fn addresses(&self, host: &str) -> Result<Answer<IpAddr>, DnsError> {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(Answer { found: vec![address], ttl: LONGEST });
        }
        let name = Name::from_utf8(host).map_err(|error| DnsError::new(host, error))?;
        if let Some(found) = from_hosts(&name) {
            return Ok(Answer { found, ttl: HOSTS });
        }
        if is_localhost(host) {
            // Never asked of a name server (RFC 6761, 6.3).
            return Ok(Answer { found: vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()], ttl: LONGEST });
        }
        let lookup = self.0.lookup_ip(name).await.map_err(|error| DnsError::of(host, &error))?;
        let records = lookup.as_lookup().answers();
        let found = addresses(records);
        if found.is_empty() {
            return Err(DnsError::nothing(host, "it has no address"));
        }
        Ok(Answer { found, ttl: ttl(records) })
    }

    /// Every place of the service; none if it says of itself that it is nowhere (a target of `.`).
    pub async fn places(&self, service: &str) -> Result<Answer<Srv>, DnsError> {
        let name = Name::from_ascii(service).map_err(|error| DnsError::new(service, error))?;
        let lookup = self.0.lookup(name, RecordType::SRV).await.map_err(|error| DnsError::of(service, &error))?;
        let records = lookup.answers();
        let places = records.iter().filter_map(|record| match &record.data {
            RData::SRV(srv) => Some(srv),
            _ => None,
        });
        if places.clone().next().is_none() {
            return Err(DnsError::nothing(service, "it has no SRV record"));
        }
        let places = places.filter(|srv| !srv.target.is_root()).map(|srv| Srv {
            priority: srv.priority,
            weight: srv.weight,
            port: srv.port,
            target: srv.target.to_ascii().trim_end_matches('.').to_ascii_lowercase(),
        });
        let mut found: Vec<Srv> = places.collect();
        found.sort_unstable();
        found.dedup();
        if found.len() > MOST_PLACES {
            tracing::warn!(service, places = found.len(), "it has too many places; the first {MOST_PLACES} are used");
            found.truncate(MOST_PLACES);
        }
        Ok(Answer { found, ttl: ttl(records) })
    }
}

impl DnsError {
    fn new(host: &str, reason: impl ToString) -> DnsError {
        DnsError { host: host.into(), reason: reason.to_string(), is_nothing: false }
    }

    fn nothing(host: &str, reason: impl ToString) -> DnsError {
        DnsError { is_nothing: true, ..DnsError::new(host, reason) }
    }

    fn of(host: &str, error: &NetError) -> DnsError {
        match error {
            // What a server is asked of and refuses, or fails at, comes as an answer without records too.
            NetError::Dns(hickory_resolver::net::DnsError::NoRecordsFound(none)) => match none.response_code {
                ResponseCode::NXDomain => DnsError::nothing(host, "there is no such name"),
                ResponseCode::NoError => DnsError::nothing(host, "it has no such record"),
                code => DnsError::new(host, format!("the name server says {code}")),
            },
            error => DnsError::new(host, error),
        }
    }
}

fn tune(options: &mut ResolverOpts) {
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    // We read the file ourselves: a name in it must not be asked of a server for the family it lacks.
    options.use_hosts_file = ResolveHosts::Never;
    // We keep the answers; a second cache would only make them older.
    options.cache_size = 0;
    options.timeout = Duration::from_secs(2);
}

fn ttl(records: &[Record]) -> Duration {
    let ttl = records.iter().map(|record| record.ttl).min().unwrap_or_default();
    Duration::from_secs(ttl.into()).clamp(SHORTEST, LONGEST)
}

/// Read anew each time, since it may change while we run; it is small.
fn from_hosts(name: &Name) -> Option<Vec<IpAddr>> {
    let hosts = Hosts::from_system().ok()?;
    let mut found = Vec::new();
    for family in [RecordType::A, RecordType::AAAA] {
        if let Some(lookup) = hosts.lookup_static_host(&Query::query(name.clone(), family)) {
            found.extend(addresses(lookup.answers()));
        }
    }
    (!found.is_empty()).then_some(found)
}

/// Sorted, so that servers which answer in turns do not look like servers that change their mind.
fn addresses(records: &[Record]) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = records
        .iter()
        .filter_map(|record| match &record.data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        })
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn is_localhost(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    host.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("localhost"))
}

const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);
/// How soon an edit of `/etc/hosts` is noticed.
const HOSTS: Duration = Duration::from_secs(5);
/// Places of one service: each is an endpoint, with its state and its connections.
const MOST_PLACES: usize = 1000;
