//! Whose calls are counted together: what of a call makes up the key of a rule.

use std::net::IpAddr;

use base::Call;

use super::spec::Per;

/// Writes what tells this call's key apart from others, the same on every node. `route` is the place of the call.
pub(super) fn write(per: &[Per], route: &[u8; 8], call: &Call, to: &mut dyn FnMut(&[u8])) {
    for per in per {
        match own(per, route, call, to) {
            Some(()) => {}
            None => address(call, to),
        }
    }
}

/// `None` if the call has nothing of the kind.
fn own(per: &Per, route: &[u8; 8], call: &Call, to: &mut dyn FnMut(&[u8])) -> Option<()> {
    match per {
        Per::Consumer => part(1, call.consumer.as_ref()?.name.as_bytes(), to),
        Per::Team => part(2, call.consumer.as_ref()?.team.as_ref()?.as_bytes(), to),
        Per::Address => address(call, to),
        Per::Route => part(3, route, to),
        Per::All => part(4, &[], to),
        Per::Header(name) => {
            let mut values = call.head.headers.get_all(name).peekable();
            values.peek()?;
            values.for_each(|value| part(5, value, to));
        }
        Per::Claim(name) => match call.claims.as_ref()?.get(name)? {
            serde_json::Value::Null => return None,
            serde_json::Value::String(text) => part(6, text.as_bytes(), to),
            // As JSON: the number 1 is not the text 1.
            other => part(7, other.to_string().as_bytes(), to),
        },
    }
    Some(())
}

fn address(call: &Call, to: &mut dyn FnMut(&[u8])) {
    part(0, &network(call.client.addr).to_be_bytes(), to);
}

/// With its kind and its length before it, so that no two lists of parts look the same.
fn part(kind: u8, bytes: &[u8], to: &mut dyn FnMut(&[u8])) {
    let mut head = [kind, 0, 0, 0, 0];
    head[1..].copy_from_slice(&(bytes.len() as u32).to_be_bytes());
    to(&head);
    to(bytes);
}

/// The address as it counts: an IPv4 address, or the first 64 bits of an IPv6 one.
pub(crate) fn network(addr: IpAddr) -> u64 {
    match addr.to_canonical() {
        IpAddr::V4(addr) => u64::from(addr.to_bits()),
        IpAddr::V6(addr) => (addr.to_bits() >> 64) as u64,
    }
}
