//! Who calls, and their keys.

use std::collections::HashMap;
use std::sync::Arc;

use base::Consumer;
use policy::{Key, Keys};

use super::{Context, key};
use crate::document::{self, Named};

impl Context<'_> {
    pub(super) fn consumers(&mut self, Named(written): Named<document::Consumer>) -> (Vec<Arc<Consumer>>, Arc<Keys>) {
        let mut consumers = Vec::new();
        let mut keys = Vec::new();
        let mut seen: HashMap<[u8; 32], String> = HashMap::new();
        for (index, (name, consumer)) in written.into_iter().enumerate() {
            let at = key("consumers", &name);
            let document::Consumer { team, keys: written } = consumer;
            let consumer =
                Arc::new(Consumer { index: index as u32, name: name.as_str().into(), team: team.map(Into::into) });
            for (index, document::Key { id, hash }) in written.into_iter().enumerate() {
                let at = format!("{at}.keys[{index}].hash");
                let Some(hash) = parse_hash(&hash) else {
                    self.error(&at, "not a key's hash; expected `sha256:` and 64 hex digits");
                    continue;
                };
                if let Some(first) = seen.insert(hash, format!("{name}/{id}")) {
                    self.error(&at, format!("`{first}` has the same key"));
                    continue;
                }
                keys.push(Key { id: id.into(), hash, consumer: consumer.clone() });
            }
            consumers.push(consumer);
        }
        (consumers, Arc::new(Keys::new(keys)))
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
