//! Expressions of a document: compiled or refused, and if compiled then evaluated, whatever the call is like.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::SystemTime;

use base::{Call, Client, Headers, Method, Peer, RequestHead, Scheme, Time, Version};
use libfuzzer_sys::fuzz_target;
use policy::{Expr, Gives, Scope};

fuzz_target!(|data: &[u8]| {
    let Some((gives, text)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let gives = [Gives::Truth, Gives::Number, Gives::Text, Gives::Value][usize::from(*gives) % 4];
    let Ok(expr) = Expr::compile(text, gives) else { return };
    let call = call();
    let scope = Scope::of(&call);
    let _ = match gives {
        Gives::Truth => expr.truth(&scope).map(drop),
        Gives::Number => expr.number(&scope).map(drop),
        Gives::Text => expr.string(&scope).map(drop),
        Gives::Value => expr.value(&scope).map(drop),
    };
});

fn call() -> Call {
    let head = RequestHead {
        method: Method::GET,
        scheme: Scheme::Http,
        authority: "h:80".into(),
        target: "/a/%41?x=1&y=%zz".into(),
        version: Version::HTTP_11,
        headers: Headers::from_iter([("x-a", &b"1"[..]), ("x-bytes", b"\xff")]),
    };
    let peer = Arc::new(Peer { remote: None, local: None, tls: None });
    let client = Client { addr: IpAddr::V4(Ipv4Addr::LOCALHOST), peer };
    let mut call = Call::new(head, client, Time::from_nanos(1), SystemTime::UNIX_EPOCH);
    call.claims = serde_json::from_str(r#"{"scope":"a b","n":1,"l":[1,"x",null],"m":{"k":1.5}}"#).ok().map(Arc::new);
    call
}
