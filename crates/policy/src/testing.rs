//! What the unit tests of this crate share.

use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::SystemTime;

use base::{Call, Client, Consumer, Headers, Method, ModelCall, Peer, RequestHead, Scheme, Time, Version};

use crate::{CompileEnv, Credentials, Key, Keys, Policies};

pub(crate) const KEY: &str = "secret-key-1";

pub(crate) fn consumer(name: &str) -> Arc<Consumer> {
    Arc::new(Consumer { index: 0, name: name.into(), team: None })
}

pub(crate) fn keys() -> Arc<Credentials> {
    let key = |id: &str, text: &str, name: &str| Key {
        id: id.into(),
        hash: Keys::hash(text.as_bytes()),
        consumer: consumer(name),
        from: None,
        until: None,
    };
    let consumers = ["agent", "other"].map(|name| (name.into(), consumer(name)));
    Arc::new(Credentials {
        keys: Keys::new(vec![key("k1", KEY, "agent"), key("k2", "secret-key-2", "other")]),
        consumers: consumers.into(),
        certificates: [("spiffe:spiffe://td/agent".to_owned(), consumer("agent"))].into(),
    })
}

pub(crate) fn call(headers: &[(&str, &str)]) -> Call {
    Call::new(
        RequestHead {
            method: Method::GET,
            scheme: Scheme::Http,
            authority: "h".into(),
            target: "/".into(),
            version: Version::HTTP_11,
            headers: Headers::from_iter(headers.iter().copied()),
        },
        Client { addr: IpAddr::V4(Ipv4Addr::LOCALHOST), peer: Arc::new(Peer { remote: None, local: None, tls: None }) },
        Time::from_nanos(1),
        SystemTime::UNIX_EPOCH,
    )
}

/// What it asks of a model, once that is understood.
pub(crate) fn model(prompt: u64, output: u64, cost: u64) -> Option<Box<ModelCall>> {
    Some(Box::new(ModelCall {
        dialect: "anthropic",
        model: "smart".into(),
        stream: true,
        prompt,
        output,
        cost,
        tools: true,
        images: false,
        audio: false,
        documents: false,
        json_schema: false,
        reasoning: false,
    }))
}

/// The policies of a document's `policies`, which must be right.
pub(crate) fn compile(json: &str) -> Policies {
    let mut env = CompileEnv::new(keys(), "policies");
    let policies = Policies::compile(&serde_json::from_str(json).unwrap(), &mut env);
    assert!(env.errors.is_empty(), "{:?}", env.errors);
    policies
}

/// Where a document's `policies` are wrong.
pub(crate) fn errors(json: &str) -> Vec<String> {
    let mut env = CompileEnv::new(keys(), "policies");
    Policies::compile(&serde_json::from_str(json).unwrap(), &mut env);
    env.errors.into_iter().map(|(path, _)| path).collect()
}

/// The output of a future that waits for nothing.
pub(crate) fn ready<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the future waits"),
    }
}
