//! From which networks calls may come.

use std::net::IpAddr;

use base::{Call, IpNet, Network};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{CompileEnv, Outside, Policy, Refusal, Spec, Stop};

/// From which networks calls may come. Looked at is the caller's address: the connection's, or what one of the
/// listener's `trusted-proxies` says of it. A caller over a Unix socket has the address `0.0.0.0`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct IpSpec {
    /// Networks or addresses that may call, and then no others. Everybody may if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<Network>>,
    /// Networks or addresses that may not call, also where `allow` has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<Network>,
}

/// The policy.
#[derive(Debug)]
pub struct Ip {
    allow: Option<Networks>,
    deny: Networks,
}

/// Ranges of addresses, sorted and apart from each other, so that one is found among thousands in a few steps.
#[derive(Debug, Default, PartialEq)]
struct Networks {
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
}

impl Policy for Ip {
    const NAME: &'static str = "ip";
    type Spec = IpSpec;
    type Memo = ();

    fn compile(spec: &IpSpec, env: &mut CompileEnv<'_>) -> Option<Ip> {
        let IpSpec { allow, deny } = spec;
        match allow {
            Some(allow) if allow.is_empty() => {
                env.error("ip.allow", "lets nobody call; expected at least one network, or none of it");
                return None;
            }
            None if deny.is_empty() => {
                env.error("ip", "has no networks; expected `allow`, `deny` or both, or `none`");
                return None;
            }
            _ => {}
        }
        Some(Ip { allow: allow.as_deref().map(Networks::new), deny: Networks::new(deny) })
    }

    async fn request(&self, call: &mut Call, _: &dyn Outside) -> Result<(), Stop> {
        let addr = call.client.addr;
        let allowed = self.allow.as_ref().is_none_or(|allow| allow.has(addr)) && !self.deny.has(addr);
        if allowed { Ok(()) } else { Err(Refusal::Forbidden.into()) }
    }
}

// === impl Networks ===

impl Networks {
    fn new(networks: &[Network]) -> Networks {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for Network(network) in networks {
            match network {
                IpNet::V4(network) => v4.push((network.network().to_bits(), network.broadcast().to_bits())),
                IpNet::V6(network) => {
                    match (network.network().to_ipv4_mapped(), network.broadcast().to_ipv4_mapped()) {
                        // A caller's address is never in this form: it is that of IPv4.
                        (Some(first), Some(last)) => v4.push((first.to_bits(), last.to_bits())),
                        _ => v6.push((network.network().to_bits(), network.broadcast().to_bits())),
                    }
                }
            }
        }
        Networks { v4: apart(v4), v6: apart(v6) }
    }

    fn has(&self, addr: IpAddr) -> bool {
        match addr {
            IpAddr::V4(addr) => has(&self.v4, addr.to_bits()),
            IpAddr::V6(addr) => has(&self.v6, addr.to_bits()),
        }
    }
}

/// Sorted, and those that overlap as one.
fn apart<T: Copy + Ord>(mut ranges: Vec<(T, T)>) -> Box<[(T, T)]> {
    ranges.sort_unstable();
    ranges.dedup_by(|(first, last), (_, before)| {
        let overlaps = *first <= *before;
        if overlaps {
            *before = (*before).max(*last);
        }
        overlaps
    });
    ranges.into()
}

fn has<T: Ord>(ranges: &[(T, T)], addr: T) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= addr);
    after.checked_sub(1).is_some_and(|at| addr <= ranges[at].1)
}

impl Spec for IpSpec {
    const EXPECTED: &'static str = "`none`, or networks, such as `allow: [10.0.0.0/8]`";
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Nowhere;
    use crate::testing::{call, compile, errors, ready};

    fn admits(policy: &Ip, from: &str) -> bool {
        let mut call = call(&[]);
        call.client.addr = from.parse().unwrap();
        ready(policy.request(&mut call, &Nowhere)).is_ok()
    }

    #[test]
    fn deny_wins_and_allow_is_for_those_alone() {
        let check = |ip: &str, allowed: &[&str], refused: &[&str]| {
            let policy = compile(&format!(r#"{{"ip":{ip}}}"#)).ip.unwrap();
            for from in allowed {
                assert!(admits(&policy, from), "{ip} {from}");
            }
            for from in refused {
                assert!(!admits(&policy, from), "{ip} {from}");
            }
        };
        check(r#"{"deny":["10.0.0.0/8"]}"#, &["9.255.255.255", "11.0.0.0", "::1"], &["10.0.0.0", "10.255.255.255"]);
        check(r#"{"allow":["10.0.0.0/8"]}"#, &["10.1.2.3"], &["9.9.9.9", "::1", "::ffff:10.1.2.3"]);
        check(
            r#"{"allow":["10.0.0.0/8"],"deny":["10.1.0.0/16","10.2.3.4"]}"#,
            &["10.2.3.5"],
            &["10.1.2.3", "10.2.3.4"],
        );
        check(r#"{"allow":["2001:db8::/32","10.0.0.1"]}"#, &["2001:db8::1", "10.0.0.1"], &["2001:db9::1", "10.0.0.2"]);
        check(r#"{"allow":["::ffff:10.0.0.0/104"]}"#, &["10.1.2.3"], &["11.0.0.0"]);
        check(r#"{"allow":["0.0.0.0/0"]}"#, &["0.0.0.0", "255.255.255.255"], &["::1"]);
        check(r#"{"deny":["::/0","0.0.0.0/0"]}"#, &[], &["0.0.0.0", "::", "ffff::1"]);
        // With the bits of a host: the network it is in.
        check(r#"{"allow":["10.1.2.3/8"]}"#, &["10.9.9.9"], &["11.1.2.3"]);
    }

    #[test]
    fn lists_that_say_nothing_are_told() {
        assert_eq!(errors(r#"{"ip":{}}"#), ["ip"]);
        assert_eq!(errors(r#"{"ip":{"allow":[]}}"#), ["ip.allow"]);
        assert_eq!(errors(r#"{"ip":{"allow":[],"deny":["::1"]}}"#), ["ip.allow"]);
    }

    proptest! {
        /// As if each network was asked in turn.
        #[test]
        fn among_many_the_right_one_is_found(
            networks in prop::collection::vec((0u32..4096, 20u8..=32), 0..40),
            addr in 0u32..4096,
        ) {
            let networks: Vec<Network> = networks
                .into_iter()
                .map(|(addr, prefix)| Network(IpNet::new_assert(std::net::Ipv4Addr::from(addr).into(), prefix)))
                .collect();
            let addr = IpAddr::V4(addr.into());
            let expected = networks.iter().any(|network| network.0.contains(&addr));
            let networks = Networks::new(&networks);
            prop_assert_eq!(networks.has(addr), expected);
            prop_assert!(networks.v4.windows(2).all(|pair| pair[0].1 < pair[1].0));
        }
    }
}
