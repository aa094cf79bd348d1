//! Who calls, and by what they are known.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use base::Consumer;
use policy::{Credentials, Key, Keys, certificate_name};

use super::{Context, key};
use crate::document::{self, Named};

impl Context<'_> {
    pub(super) fn consumers(
        &mut self,
        Named(written): Named<document::Consumer>,
    ) -> (Vec<Arc<Consumer>>, Arc<Credentials>) {
        let mut consumers = Vec::new();
        let mut keys = Vec::new();
        let mut seen: HashMap<[u8; 32], String> = HashMap::new();
        let mut certificates: HashMap<String, Arc<Consumer>> = HashMap::new();
        for (index, (name, consumer)) in written.into_iter().enumerate() {
            let at = key("consumers", &name);
            let document::Consumer { team, keys: written, certificates: shown } = consumer;
            let consumer =
                Arc::new(Consumer { index: index as u32, name: name.as_str().into(), team: team.map(Into::into) });
            for (index, document::Key { id, hash, not_before, expires }) in written.into_iter().enumerate() {
                let at = format!("{at}.keys[{index}]");
                let from = self.moment(&format!("{at}.not-before"), not_before);
                let until = self.moment(&format!("{at}.expires"), expires);
                if from.zip(until).is_some_and(|(from, until)| from >= until) {
                    self.error(&format!("{at}.expires"), "ceases to be valid before it begins to");
                }
                let at = format!("{at}.hash");
                let Some(hash) = parse_hash(&hash) else {
                    self.error(&at, "not a key's hash; expected `sha256:` and 64 hex digits");
                    continue;
                };
                if let Some(first) = seen.insert(hash, format!("{name}/{id}")) {
                    self.error(&at, format!("`{first}` has the same key"));
                    continue;
                }
                keys.push(Key { id: id.into(), hash, consumer: consumer.clone(), from, until });
            }
            for (index, shown) in shown.into_iter().enumerate() {
                let at = format!("{at}.certificates[{index}]");
                let Some(known_by) = self.client_certificate(&at, shown) else { continue };
                if let Some(first) = certificates.insert(known_by, consumer.clone()) {
                    self.error(&at, format!("`{}` has the same certificate", first.name));
                }
            }
            consumers.push(consumer);
        }
        let by_name = consumers.iter().map(|it| (it.name.clone(), it.clone())).collect();
        let credentials = Credentials { keys: Keys::new(keys), consumers: by_name, certificates };
        (consumers, Arc::new(credentials))
    }

    fn client_certificate(&mut self, at: &str, written: document::ClientCertificate) -> Option<String> {
        let document::ClientCertificate { san, spiffe, subject, fingerprint } = written;
        let all = [("san", san), ("spiffe", spiffe), ("subject", subject), ("fingerprint", fingerprint)];
        let mut given = all.into_iter().filter_map(|(kind, text)| Some((kind, text?)));
        match (given.next(), given.next()) {
            (Some((kind, text)), None) => match certificate_name(kind, &text) {
                Ok(name) => Some(name),
                Err(message) => {
                    self.error(&format!("{at}.{kind}"), message);
                    None
                }
            },
            _ if self.broken(at) => None,
            _ => {
                self.error(at, "expected one of `san`, `spiffe`, `subject` and `fingerprint`");
                None
            }
        }
    }

    fn moment(&mut self, at: &str, written: Option<String>) -> Option<SystemTime> {
        match written?.parse::<jiff::Timestamp>() {
            Ok(moment) => Some(moment.into()),
            Err(_) => {
                self.error(at, "not a moment; expected one such as `2027-01-31T00:00:00Z`");
                None
            }
        }
    }
}

fn parse_hash(text: &str) -> Option<[u8; 32]> {
    let hex =
        text.strip_prefix("sha256:").filter(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()))?;
    let mut hash = [0; 32];
    for (byte, at) in hash.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&hex[at..at + 2], 16).ok()?;
    }
    Some(hash)
}
