//! Credentials as a client sends them, tokens above all: made up whole, or signed with the right secret over claims that
//! are made up. None of the former gets in.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Waker};
use std::time::{Duration, SystemTime};

use base::{Call, Client, Headers, Method, Peer, RequestHead, Scheme, Time, Version};
use config::{Files, Snapshot, Source};
use libfuzzer_sys::fuzz_target;
use policy::{Nowhere, Passage, Steps};

const DOCUMENT: &str = "
version: 1
policies:
  authenticate: { api-key: {}, jwt: [{ issuer: me, audience: [a], secret: 'file:secret', unknown: allow }] }
apis: { a: { routes: [{ respond: { body: ok } }] } }
";

struct Secret;

impl Files for Secret {
    fn read(&self, _: &base::SecretRef) -> Result<Vec<u8>, String> {
        Ok(b"a secret that nobody who makes up tokens knows".to_vec())
    }
}

fn snapshot() -> &'static Snapshot {
    static SNAPSHOT: OnceLock<Snapshot> = OnceLock::new();
    SNAPSHOT.get_or_init(|| {
        let compiled = config::compile(&Source::new("fuzz.yaml", DOCUMENT.into()), &Secret, None);
        compiled.map(|(snapshot, _)| snapshot).unwrap_or_else(|wrong| panic!("{wrong:?}"))
    })
}

fuzz_target!(|data: &[u8]| {
    // One field a line; what is no field is left out.
    let mut headers = Headers::new();
    for line in data.split(|byte| *byte == b'\n') {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let (Some(name), Some(value)) = (parts.next(), parts.next()) else { continue };
        if let Ok(name) = std::str::from_utf8(name)
            && Headers::is_name(name)
            && Headers::is_value(value)
        {
            headers.append(name, value);
        }
    }
    let head = RequestHead {
        method: Method::GET,
        scheme: Scheme::Http,
        authority: "h".into(),
        target: "/".into(),
        version: Version::HTTP_11,
        headers,
    };
    let peer = Arc::new(Peer { remote: None, local: None, tls: None });
    let client = Client { addr: IpAddr::V4(Ipv4Addr::LOCALHOST), peer };
    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let mut call = Call::new(head, client, Time::from_nanos(1), wall);
    let mut passage = Passage::new(snapshot().routes[0].policies.clone());
    let mut steps = Steps::new();
    let mut asking = pin!(passage.request(&mut call, &Nowhere, &mut steps));
    let told = asking.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(told, std::task::Poll::Ready(Err(_))), "it got in");
});
