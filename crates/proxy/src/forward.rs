//! A request's head on its way upstream, an answer's on its way back: what is taken out, what is put in.

use std::fmt::Write as _;
use std::net::IpAddr;

use base::{Client, Headers, Method, Peer, RequestHead};
use base64::Engine as _;
use config::{HostRewrite, PathRewrite, Rewrite};
use ipnet::IpNet;

/// Fields that concern one connection only (RFC 9110, 7.6.1), framing included: the next one gets its own.
fn is_hop_by_hop(name: &str) -> bool {
    match name.len() {
        2 => name == "te",
        6 => name == "expect",
        7 => name == "upgrade",
        10 => matches!(name, "connection" | "keep-alive"),
        14 => name == "content-length" || name == "http2-settings",
        16 => name == "proxy-connection",
        17 => name == "transfer-encoding",
        _ => false,
    }
}

/// Takes out what was meant for this connection, and what its `Connection` field names.
pub fn strip_request(headers: &mut Headers) {
    let trailers = headers.has_token("te", "trailers");
    strip_named(headers);
    headers.retain(|name, _| !is_hop_by_hop(name));
    if trailers {
        headers.append("te", "trailers");
    }
}

/// The same for an answer; its Content-Length stays, since it may describe a body that is not sent.
pub fn strip_response(headers: &mut Headers) {
    strip_named(headers);
    headers.retain(|name, _| name == "content-length" || !is_hop_by_hop(name));
}

fn strip_named(headers: &mut Headers) {
    if !headers.contains("connection") {
        return;
    }
    let named: Vec<String> = headers
        .get_all("connection")
        .flat_map(|value| value.split(|b| *b == b','))
        .filter_map(|token| std::str::from_utf8(token.trim_ascii()).ok())
        .filter(|token| !token.eq_ignore_ascii_case("close") && !token.eq_ignore_ascii_case("keep-alive"))
        .map(str::to_owned)
        .collect();
    for name in named {
        headers.remove(&name);
    }
}

/// An extended CONNECT of HTTP/2 (RFC 8441) as the upgrade that it is in HTTP/1, which routes and upstreams know.
/// A WebSocket then needs a key (RFC 6455, 4.1), and any will do: it proves nothing but that the answer is to it.
pub fn as_upgrade(head: &mut RequestHead, protocol: &str, random: [u64; 2]) {
    if head.method != Method::CONNECT {
        return;
    }
    head.method = Method::GET;
    if protocol.eq_ignore_ascii_case("websocket") {
        let key: Vec<u8> = random.iter().flat_map(|part| part.to_le_bytes()).collect();
        head.headers.set("sec-websocket-key", base64::engine::general_purpose::STANDARD.encode(key));
    }
}

/// The caller, as the connection or a trusted proxy before us tells.
pub fn client_of(peer: &std::sync::Arc<Peer>, headers: &Headers, trusted: &[IpNet]) -> Client {
    const NOBODY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
    let direct = peer.remote.map_or(NOBODY, |remote| remote.ip().to_canonical());
    let is_trusted = |addr: &IpAddr| trusted.iter().any(|net| net.contains(addr));
    let mut addr = direct;
    if !trusted.is_empty() && is_trusted(&direct) {
        // From the nearest proxy outwards, as long as each was told by one that is believed.
        for told in chain(headers).into_iter().rev() {
            let Some(told) = told else { break };
            addr = told;
            if !is_trusted(&told) {
                break;
            }
        }
    }
    Client { addr, peer: peer.clone() }
}

/// The addresses of `Forwarded` (RFC 7239), or else of `X-Forwarded-For`; `None` where one is unreadable.
fn chain(headers: &Headers) -> Vec<Option<IpAddr>> {
    let list = |name: &'static str| {
        headers
            .get_all(name)
            .flat_map(|value| value.split(|b| *b == b','))
            .map(|item| std::str::from_utf8(item).unwrap_or_default().trim().to_owned())
            .collect::<Vec<_>>()
    };
    if headers.contains("forwarded") {
        return list("forwarded")
            .iter()
            .map(|element| {
                let pairs = element.split(';').filter_map(|pair| pair.split_once('='));
                pairs
                    .into_iter()
                    .find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))
                    .and_then(|(_, node)| address(node))
            })
            .collect();
    }
    list("x-forwarded-for").iter().map(|node| address(node)).collect()
}

/// `192.0.2.1`, `192.0.2.1:80`, `"[2001:db8::1]:80"`, `2001:db8::1`.
fn address(node: &str) -> Option<IpAddr> {
    let node = node.trim().trim_matches('"');
    if let Ok(addr) = node.parse::<IpAddr>() {
        return Some(addr.to_canonical());
    }
    if let Some(rest) = node.strip_prefix('[') {
        return rest.split(']').next()?.parse().ok();
    }
    node.rsplit_once(':')?.0.parse().ok()
}

/// Tells the upstream who called. What a client that is not trusted says of itself is not passed on.
pub fn add_forwarded(head: &mut RequestHead, client: &Client, trusted: &[IpNet]) {
    let scheme = head.scheme.as_str();
    let direct = client.peer.remote.map(|remote| remote.ip().to_canonical());
    let believed = direct.is_some_and(|addr| trusted.iter().any(|net| net.contains(&addr)));
    if !believed {
        head.headers.retain(|name, _| !(name == "forwarded" || name.starts_with("x-forwarded-")));
    }
    let mut node = String::with_capacity(48);
    match direct {
        Some(addr) => drop(write!(node, "{addr}")),
        None => node.push_str("unknown"),
    }
    append_to_list(&mut head.headers, "x-forwarded-for", &node);
    if !head.headers.contains("x-forwarded-proto") {
        head.headers.append("x-forwarded-proto", scheme);
    }
    if !head.headers.contains("x-forwarded-host") {
        head.headers.append("x-forwarded-host", &head.authority);
    }
    let mut element = String::with_capacity(96);
    let _ = match direct {
        Some(IpAddr::V6(addr)) => write!(element, "for=\"[{addr}]\""),
        _ => write!(element, "for={node}"),
    };
    let _ = write!(element, ";proto={scheme}");
    if !head.authority.is_empty() {
        let _ = write!(element, ";host=\"{}\"", head.authority);
    }
    append_to_list(&mut head.headers, "forwarded", &element);
}

fn append_to_list(headers: &mut Headers, name: &str, item: &str) {
    if !headers.contains(name) {
        return headers.append(name, item);
    }
    let mut list: Vec<u8> = headers.get_all(name).collect::<Vec<_>>().join(&b", "[..]);
    list.extend_from_slice(b", ");
    list.extend_from_slice(item.as_bytes());
    headers.set(name, list);
}

/// The target for the upstream: its base path, and the route's rewrite.
pub fn rewrite_target(
    head: &mut RequestHead,
    rewrite: &Rewrite,
    base_path: &str,
    prefix: usize,
    params: &[(std::sync::Arc<str>, String)],
) {
    if rewrite.path.is_none() && base_path.is_empty() {
        return;
    }
    let (path, query) = match head.target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (&*head.target, None),
    };
    let mut target = String::with_capacity(head.target.len() + base_path.len() + 16);
    target.push_str(base_path);
    match &rewrite.path {
        Some(rewrite) => target.push_str(&rewritten(rewrite, path, prefix, params)),
        None => target.push_str(path),
    }
    if let Some(query) = query {
        target.push('?');
        target.push_str(query);
    }
    head.target = target;
}

/// A path as a rewrite or a redirect makes it.
pub fn rewritten(rewrite: &PathRewrite, path: &str, prefix: usize, params: &[(std::sync::Arc<str>, String)]) -> String {
    match rewrite {
        PathRewrite::Full(template) => {
            let mut full = template.clone();
            for (name, value) in params {
                full = full.replace(&format!("{{{name}}}"), value);
            }
            full
        }
        PathRewrite::Prefix(new) => {
            let rest = path.get(prefix..).unwrap_or_default();
            let joined = format!("{}/{}", new.trim_end_matches('/'), rest.trim_start_matches('/'));
            if rest.is_empty() && joined.len() > 1 { joined.trim_end_matches('/').to_owned() } else { joined }
        }
    }
}

pub fn rewrite_host(head: &mut RequestHead, rewrite: &Rewrite, endpoint: &str) {
    match &rewrite.host {
        None => {}
        Some(HostRewrite::Endpoint) => endpoint.clone_into(&mut head.authority),
        Some(HostRewrite::To(name)) => name.clone_into(&mut head.authority),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use base::{Scheme, Version};

    use super::*;

    fn peer(remote: &str) -> Arc<Peer> {
        Arc::new(Peer { remote: Some(remote.parse().unwrap()), local: None, tls: None })
    }

    fn head(headers: Headers) -> RequestHead {
        RequestHead {
            method: Method::GET,
            scheme: Scheme::Http,
            authority: "h".into(),
            target: "/a/b?c".into(),
            version: Version::HTTP_11,
            headers,
        }
    }

    #[test]
    fn the_caller_is_whom_the_last_trusted_proxy_names() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        for (remote, fields, caller) in [
            ("9.9.9.9:1", vec![("x-forwarded-for", "1.1.1.1")], "9.9.9.9"),
            ("10.0.0.1:1", vec![("x-forwarded-for", "1.1.1.1")], "1.1.1.1"),
            ("10.0.0.1:1", vec![("x-forwarded-for", "6.6.6.6, 1.1.1.1, 10.0.0.2")], "1.1.1.1"),
            ("10.0.0.1:1", vec![("x-forwarded-for", "6.6.6.6, junk, 10.0.0.2")], "10.0.0.2"),
            ("10.0.0.1:1", vec![("forwarded", "for=\"[2001:db8::1]:4\";proto=https")], "2001:db8::1"),
            ("10.0.0.1:1", vec![], "10.0.0.1"),
            ("[::ffff:10.0.0.1]:1", vec![("x-forwarded-for", "1.1.1.1")], "1.1.1.1"),
        ] {
            let headers = Headers::from_iter(fields.clone());
            assert_eq!(client_of(&peer(remote), &headers, &trusted).addr.to_string(), caller, "{remote} {fields:?}");
        }
    }

    #[test]
    fn what_a_stranger_says_of_itself_is_replaced() {
        let mut head = head(Headers::from_iter([("x-forwarded-for", "1.1.1.1"), ("forwarded", "for=1.1.1.1")]));
        let client = client_of(&peer("9.9.9.9:1"), &head.headers, &[]);
        add_forwarded(&mut head, &client, &[]);
        assert_eq!(head.headers.get_str("x-forwarded-for"), Some("9.9.9.9"));
        assert_eq!(head.headers.get_str("forwarded"), Some("for=9.9.9.9;proto=http;host=\"h\""));
    }

    #[test]
    fn named_fields_go_and_trailers_stay_announced() {
        let mut headers = Headers::from_iter([
            ("connection", "x-secret, keep-alive"),
            ("x-secret", "1"),
            ("te", "gzip, trailers"),
            ("upgrade", "h2c"),
            ("x-kept", "1"),
        ]);
        strip_request(&mut headers);
        assert_eq!(headers, Headers::from_iter([("x-kept", "1"), ("te", "trailers")]));
    }

    #[test]
    fn a_websocket_over_http_2_becomes_an_upgrade() {
        let mut head = head(Headers::new());
        as_upgrade(&mut head, "websocket", [1, 2]);
        assert!(head.headers.is_empty(), "an upgrade already");
        head.method = Method::CONNECT;
        as_upgrade(&mut head, "websocket", [1, 2]);
        assert_eq!(head.method, Method::GET);
        assert_eq!(head.headers.get_str("sec-websocket-key"), Some("AQAAAAAAAAACAAAAAAAAAA=="));
    }

    #[test]
    fn paths_are_rewritten() {
        let params = [(Arc::from("id"), "7".to_owned())];
        for (rewrite, base, prefix, target) in [
            (None, "", 0, "/a/b?c"),
            (None, "/base", 0, "/base/a/b?c"),
            (Some(PathRewrite::Prefix("/x".into())), "", 2, "/x/b?c"),
            (Some(PathRewrite::Prefix("/".into())), "", 2, "/b?c"),
            (Some(PathRewrite::Prefix("/".into())), "", 4, "/?c"),
            (Some(PathRewrite::Prefix("/x/".into())), "", 4, "/x?c"),
            (Some(PathRewrite::Full("/v/{id}/{id}".into())), "/b", 0, "/b/v/7/7?c"),
        ] {
            let mut head = head(Headers::new());
            rewrite_target(&mut head, &Rewrite { path: rewrite.clone(), host: None }, base, prefix, &params);
            assert_eq!(head.target, target, "{rewrite:?}");
        }
    }
}
