//! A request's head on its way upstream, an answer's on its way back: what is taken out, what is put in.

use std::net::IpAddr;

use aws_lc_rs::digest;
use base::{Client, Headers, Method, Peer, RequestHead, ResponseHead, StatusCode};
use base64::Engine as _;
use config::{HostRewrite, PathRewrite, Rewrite};
use ipnet::IpNet;
use smallvec::SmallVec;

/// Fields that concern one connection only (RFC 9110, 7.6.1), framing included: the next one gets its own. What reads as
/// framing where an underscore is taken for a dash goes too.
fn is_hop_by_hop(name: &[u8]) -> bool {
    match name.len() {
        2 => name == b"te",
        6 => name == b"expect",
        7 => name == b"upgrade",
        10 => name == b"connection" || name == b"keep-alive",
        14 => name == b"content-length" || name == b"http2-settings" || name == b"content_length",
        16 => name == b"proxy-connection",
        17 => name == b"transfer-encoding" || name == b"transfer_encoding",
        _ => false,
    }
}

/// The mark of those but Content-Length: few messages have any. Marks know nothing of what is within a name, so an
/// underscore there has the mark of a dash.
const HOP_BY_HOP: u64 = Headers::mark(&[
    "te",
    "expect",
    "upgrade",
    "connection",
    "keep-alive",
    "http2-settings",
    "proxy-connection",
    "transfer-encoding",
]);

/// Takes out what was meant for this connection, and what its `Connection` field names.
pub fn strip_request(headers: &mut Headers) {
    if !headers.may_have_any(HOP_BY_HOP | Headers::mark(&["content-length"])) {
        return;
    }
    let (mut named, mut trailers) = (Vec::new(), false);
    headers.retain_bytes(|name, value| {
        let stays = !is_hop_by_hop(name);
        if !stays && name == b"connection" {
            read_named(value, &mut named);
        }
        if !stays && name == b"te" {
            trailers |= value.split(|b| *b == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(b"trailers"));
        }
        stays
    });
    for name in named {
        headers.remove(&name);
    }
    if trailers {
        headers.append("te", "trailers");
    }
}

/// The same for an answer; its Content-Length stays, since it may describe a body that is not sent.
pub fn strip_response(headers: &mut Headers) {
    if !headers.may_have_any(HOP_BY_HOP) {
        return;
    }
    let mut named = Vec::new();
    headers.retain_bytes(|name, value| {
        let stays = !is_hop_by_hop(name) || name == b"content-length";
        if !stays && name == b"connection" {
            read_named(value, &mut named);
        }
        stays
    });
    for name in named {
        headers.remove(&name);
    }
}

/// The fields that a `Connection` field declares to be its own.
fn read_named(value: &[u8], named: &mut Vec<String>) {
    if value.eq_ignore_ascii_case(b"keep-alive") || value.eq_ignore_ascii_case(b"close") {
        return;
    }
    let tokens = value.split(|b| *b == b',').filter_map(|token| std::str::from_utf8(token.trim_ascii()).ok());
    let names = tokens.filter(|it| !it.eq_ignore_ascii_case("close") && !it.eq_ignore_ascii_case("keep-alive"));
    named.extend(names.map(str::to_owned));
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

/// The answer that opens a tunnel, as HTTP/1 says it, whichever version the upstream speaks: over HTTP/2 it is a `200`
/// that need not know of any key (RFC 8441, 5). What a client of HTTP/2 is told of it is the connection's business.
pub fn as_switched(head: &mut ResponseHead, protocol: &str, request: &RequestHead) {
    head.headers.remove("connection");
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    strip_response(&mut head.headers);
    head.headers.remove("content-length");
    head.status = StatusCode::SWITCHING_PROTOCOLS;
    head.headers.set("upgrade", protocol);
    if protocol.eq_ignore_ascii_case("websocket")
        && let Some(key) = request.headers.get("sec-websocket-key")
    {
        head.headers.set("sec-websocket-accept", websocket_accept(key));
    }
}

/// RFC 6455, 4.2.2.
fn websocket_accept(key: &[u8]) -> String {
    let mut sha1 = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    sha1.update(key);
    sha1.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    base64::engine::general_purpose::STANDARD.encode(sha1.finish())
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
    let direct = client.peer.remote.map(|remote| remote.ip().to_canonical());
    let believed = direct.is_some_and(|addr| trusted.iter().any(|net| net.contains(&addr)));
    let (node, scheme) = (text_of(direct), head.scheme.as_str().as_bytes());
    let RequestHead { authority, headers, .. } = head;
    let authority = authority.as_bytes();
    let (before, after): (&[u8], &[u8]) = match direct {
        Some(IpAddr::V6(_)) => (b"for=\"[", b"]\";proto="),
        _ => (b"for=", b";proto="),
    };
    let (host, end): (&[u8], &[u8]) = if authority.is_empty() { (b"", b"") } else { (b";host=\"", b"\"") };
    let element = [before, &node, after, scheme, host, authority, end];
    if believed {
        append_to_list(headers, "x-forwarded-for", &[&node]);
        if !headers.contains("x-forwarded-proto") {
            headers.append("x-forwarded-proto", scheme);
        }
        if !headers.contains("x-forwarded-host") {
            headers.append("x-forwarded-host", authority);
        }
        return append_to_list(headers, "forwarded", &element);
    }
    headers.retain_bytes(|name, _| !is_forwarded(name));
    // Every call of a stranger has these four, so they are written in one go.
    headers.append_written(160 + 2 * (node.len() + authority.len()), |lines| {
        lines.extend_from_slice(b"x-forwarded-for: ");
        lines.extend_from_slice(&node);
        lines.extend_from_slice(b"\r\nx-forwarded-proto: ");
        lines.extend_from_slice(scheme);
        lines.extend_from_slice(b"\r\nx-forwarded-host: ");
        lines.extend_from_slice(authority);
        lines.extend_from_slice(b"\r\nforwarded: ");
        let start = lines.len();
        for piece in element {
            lines.extend_from_slice(piece);
        }
        let length = lines.len() - start;
        lines.extend_from_slice(b"\r\n");
        [(15, node.len()), (17, scheme.len()), (16, authority.len()), (9, length)]
    });
}

/// Also where an underscore stands for a dash: services behind CGI and its like cannot tell them apart.
fn is_forwarded(name: &[u8]) -> bool {
    match name.strip_prefix(b"x") {
        None => name == b"forwarded",
        Some([b'-' | b'_', rest @ ..]) => matches!(rest.strip_prefix(b"forwarded"), Some([b'-' | b'_', ..])),
        Some(_) => false,
    }
}

/// An address as text; that of IPv4 without the machinery of formatting, since every call has one.
fn text_of(addr: Option<IpAddr>) -> SmallVec<[u8; 40]> {
    let mut text = SmallVec::new();
    match addr {
        Some(IpAddr::V4(addr)) => {
            for (at, octet) in addr.octets().into_iter().enumerate() {
                if at > 0 {
                    text.push(b'.');
                }
                for (unit, least) in [(100, 100), (10, 10), (1, 0)] {
                    if octet >= least {
                        text.push(b'0' + octet / unit % 10);
                    }
                }
            }
        }
        Some(IpAddr::V6(addr)) => text.extend_from_slice(addr.to_string().as_bytes()),
        None => text.extend_from_slice(b"unknown"),
    }
    text
}

fn append_to_list(headers: &mut Headers, name: &str, item: &[&[u8]]) {
    if !headers.contains(name) {
        return headers.append_pieces(name, item);
    }
    let mut list: Vec<u8> = headers.get_all(name).collect::<Vec<_>>().join(&b", "[..]);
    list.extend_from_slice(b", ");
    list.extend_from_slice(&item.concat());
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
        let fields = [
            ("x-forwarded-for", "1.1.1.1"),
            ("forwarded", "for=1.1.1.1"),
            ("x-forwarded-client-cert", "Subject=\"CN=admin\""),
        ];
        let mut head = head(Headers::from_iter(fields));
        let client = client_of(&peer("9.9.9.9:1"), &head.headers, &[]);
        add_forwarded(&mut head, &client, &[]);
        assert_eq!(head.headers.get_str("x-forwarded-for"), Some("9.9.9.9"));
        assert!(!head.headers.contains("x-forwarded-client-cert"));
        assert_eq!(head.headers.get_str("forwarded"), Some("for=9.9.9.9;proto=http;host=\"h\""));
    }

    #[test]
    fn addresses_are_written_as_the_library_writes_them() {
        for addr in ["0.0.0.0", "1.20.109.255", "10.100.99.9", "255.255.255.255", "::1", "2001:db8::8:800:200c:417a"] {
            assert_eq!(&*text_of(Some(addr.parse().unwrap())), addr.as_bytes());
        }
        let mut head = head(Headers::new());
        add_forwarded(&mut head, &client_of(&peer("[2001:db8::1]:1"), &Headers::new(), &[]), &[]);
        assert_eq!(head.headers.get_str("x-forwarded-for"), Some("2001:db8::1"));
        assert_eq!(head.headers.get_str("forwarded"), Some("for=\"[2001:db8::1]\";proto=http;host=\"h\""));
    }

    #[test]
    fn what_a_trusted_proxy_says_is_kept_and_added_to() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        let told = [("x-forwarded-for", "1.1.1.1"), ("x-forwarded-proto", "https"), ("forwarded", "for=1.1.1.1")];
        let mut head = head(Headers::from_iter(told));
        let client = client_of(&peer("10.0.0.1:1"), &head.headers, &trusted);
        add_forwarded(&mut head, &client, &trusted);
        assert_eq!(head.headers.get_str("x-forwarded-for"), Some("1.1.1.1, 10.0.0.1"));
        assert_eq!(head.headers.get_str("x-forwarded-proto"), Some("https"));
        assert_eq!(head.headers.get_str("x-forwarded-host"), Some("h"));
        assert_eq!(head.headers.get_str("forwarded"), Some("for=1.1.1.1, for=10.0.0.1;proto=http;host=\"h\""));
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
    fn a_stream_that_became_a_tunnel_is_a_switch() {
        let request = head(Headers::from_iter([("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")]));
        let mut answer = ResponseHead::new(StatusCode::OK);
        answer.headers.append("sec-websocket-protocol", "chat");
        as_switched(&mut answer, "websocket", &request);
        assert_eq!(answer.status, 101);
        let expected = [
            ("sec-websocket-protocol", "chat"),
            ("upgrade", "websocket"),
            ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        ];
        assert_eq!(answer.headers, Headers::from_iter(expected));
        // What an upstream of HTTP/1 says of the key is its own.
        answer.headers.set("sec-websocket-accept", "its own");
        as_switched(&mut answer, "websocket", &request);
        assert_eq!(answer.headers.get_str("sec-websocket-accept"), Some("its own"));
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
