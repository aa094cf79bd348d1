//! Endpoints that name servers know of: what the document says of all of them, made into each by its SRV record.

use base::Srv;

use crate::snapshot::{Destination, Endpoint, Upstream};

/// All places of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// The name that has the records.
    pub service: String,
    /// What its endpoints are like; their address and weight come from the records.
    pub like: Endpoint,
}

impl Upstream {
    /// Every endpoint, those that were found included: `found` is what each of [`Upstream::discoveries`] stands for.
    pub fn endpoints_with<'a>(&self, found: impl IntoIterator<Item = &'a [Srv]>) -> Vec<Endpoint> {
        let mut endpoints = self.endpoints.clone();
        for (discovery, places) in self.discoveries.iter().zip(found) {
            endpoints.extend(places.iter().map(|place| discovery.endpoint(place, places)));
        }
        group(&mut endpoints, self.own_zone.as_deref());
        endpoints
    }

    /// What the document says of endpoints: of each, or of all that are found in one place.
    pub fn written(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.iter().chain(self.discoveries.iter().map(|it| &it.like))
    }
}

impl Discovery {
    /// The endpoint at `place`, which is one of `all`.
    fn endpoint(&self, place: &Srv, all: &[Srv]) -> Endpoint {
        let like = &self.like;
        let Srv { priority, weight: _, port, target } = place;
        let scheme = if like.tls { "https" } else { "http" };
        let authority = format!("{target}:{port}");
        Endpoint {
            url: format!("{scheme}://{authority}{}", like.base_path).into(),
            address: match target.parse() {
                Ok(ip) => Destination::Ip(std::net::SocketAddr::new(ip, *port)),
                Err(_) => Destination::Name { host: target.clone(), port: *port },
            },
            authority,
            weight: like.weight.saturating_mul(share(place, all)).min(HEAVIEST),
            order: *priority,
            ..like.clone()
        }
    }
}

/// A record's weight as a share that is never nothing. Zero is a very small chance beside others, and an equal one
/// where all are zero (RFC 2782).
fn share(place: &Srv, all: &[Srv]) -> u32 {
    let mut equals = all.iter().filter(|it| it.priority == place.priority).map(|it| it.weight);
    let (some, none) =
        equals.by_ref().fold((false, false), |(some, none), weight| (some || weight > 0, none || weight == 0));
    match place.weight {
        0 => 1,
        weight if some && none => u32::from(weight) * 16,
        weight => weight.into(),
    }
}

/// Gives each endpoint its level: by priority and order, and among equals the node's own zone first.
pub(crate) fn group(endpoints: &mut [Endpoint], own: Option<&str>) {
    let rank =
        |endpoint: &Endpoint| (endpoint.priority, endpoint.order, own.is_some() && endpoint.zone.as_deref() != own);
    let mut ranks: Vec<_> = endpoints.iter().map(rank).collect();
    ranks.sort_unstable();
    ranks.dedup();
    for endpoint in endpoints {
        endpoint.level = ranks.binary_search(&rank(endpoint)).unwrap_or(0) as u32;
    }
}

/// So that the weights of a thousand endpoints can be added up.
const HEAVIEST: u32 = 1 << 20;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Source, compile};

    fn upstream(yaml: &str) -> Arc<Upstream> {
        let text = format!(
            "version: 1\nnode: {{ zone: here }}\nupstreams: {{ s: {yaml} }}\napis: {{ a: {{ upstream: s }} }}\n"
        );
        let files = crate::Disk { base: "/".into() };
        let (snapshot, _) = compile(&Source::new("test.yaml", text), &files, None).unwrap();
        snapshot.upstreams[0].clone()
    }

    fn srv(priority: u16, weight: u16, port: u16, target: &str) -> Srv {
        Srv { priority, weight, port, target: target.into() }
    }

    #[test]
    fn a_record_says_where_how_much_and_before_whom() {
        let upstream = upstream(
            "{ endpoints: [http://a:1, { url: 'srv+https://_s._tcp.example/base', weight: 2 }, { url: http://b:1, zone: here }] }",
        );
        let found = [srv(5, 3, 7001, "x.example"), srv(9, 1, 7002, "10.0.0.1")];
        let endpoints = upstream.endpoints_with([&found[..]]);
        let told: Vec<_> = endpoints.iter().map(|it| (&*it.url, it.weight, it.level, it.tls)).collect();
        assert_eq!(
            told,
            [
                ("http://a:1", 1, 1, false),
                ("http://b:1", 1, 0, false),
                ("https://x.example:7001/base", 6, 2, true),
                ("https://10.0.0.1:7002/base", 2, 3, true),
            ]
        );
        assert_eq!(endpoints[2].authority, "x.example:7001");
        assert!(matches!(endpoints[3].address, Destination::Ip(_)));
        assert_eq!(upstream.endpoints_with([&[][..]]).len(), 2);
    }

    #[test]
    fn no_weight_is_little_beside_others_and_a_share_among_its_like() {
        let upstream = upstream("{ endpoints: ['srv+http://s.example'] }");
        let weights = |records: &[(u16, u16)]| -> Vec<u32> {
            let found: Vec<_> = records.iter().map(|(priority, weight)| srv(*priority, *weight, 1, "x")).collect();
            upstream.endpoints_with([&found[..]]).iter().map(|it| it.weight).collect()
        };
        for (records, expected) in [
            (&[(0, 0), (0, 0)][..], &[1, 1][..]),
            (&[(0, 0), (0, 10)], &[1, 160]),
            (&[(0, 0), (1, 10)], &[1, 10]),
            (&[(0, 65_535), (0, 0)], &[1_048_560, 1]),
        ] {
            assert_eq!(weights(records), expected, "{records:?}");
        }
    }
}
