//! Heads of messages: from bytes to our types and back. Strict where leniency would be ambiguous.

use std::mem::MaybeUninit;

use base::{Headers, Method, RequestHead, ResponseHead, Scheme, StatusCode, Version};
use bytes::{Buf, BytesMut};

use super::framing::{Decoder, Framing};
use super::plain;

/// Why a head was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    #[error("the head is malformed: {0}")]
    Malformed(&'static str),
    #[error("the head is larger than its limit")]
    TooLarge,
    #[error("the head has more fields than its limit")]
    TooManyFields,
    #[error("the request target is longer than its limit")]
    TargetTooLong,
    #[error("this version of HTTP is not supported")]
    Version,
    #[error("this transfer coding is not supported")]
    TransferCoding,
}

/// What a head may be at most.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    pub bytes: usize,
    pub fields: usize,
}

/// A request's head with what only the connection needs to know.
pub struct ParsedRequest {
    pub head: RequestHead,
    pub body: Decoder,
    pub keep_alive: bool,
    pub expects_continue: bool,
    pub upgrade: Option<String>,
}

pub struct ParsedResponse {
    pub head: ResponseHead,
    pub body: Decoder,
    pub keep_alive: bool,
}

/// The most fields any limit can allow; they are parsed on the stack.
pub const MAX_FIELDS: usize = 256;

/// Takes a request's head off the front of `buffer`; `None` while it is not whole.
pub fn parse_request(
    buffer: &mut BytesMut,
    scheme: Scheme,
    limits: HeadLimits,
) -> Result<Option<Box<ParsedRequest>>, HeadError> {
    buffer.advance(empty_lines(buffer));
    let Some((parsed, length)) = read_request(buffer, scheme, limits)? else { return Ok(None) };
    buffer.advance(length);
    Ok(Some(parsed))
}

/// A request's head at the front of `bytes`, and how long it is; `None` while it is not whole. In a box, since it goes
/// from hand to hand before it is a call.
pub fn read_request(
    bytes: &[u8],
    scheme: Scheme,
    limits: HeadLimits,
) -> Result<Option<(Box<ParsedRequest>, usize)>, HeadError> {
    let most = limits.fields.min(MAX_FIELDS);
    // Nothing beyond the limit is looked at, so that it does not matter in which pieces a head comes.
    let allowed = &bytes[..bytes.len().min(limits.bytes)];
    let request = match plain::request(allowed, most) {
        Some(request) => request,
        None => match read_any_request(allowed, most, bytes.len() < limits.bytes)? {
            Some(request) => request,
            None => return Ok(None),
        },
    };
    let plain::Request { method, target: raw_target, version, mut headers, length } = request;
    let method = Method::from_bytes(method).map_err(|_| HeadError::Malformed("the method is not a token"))?;
    let framing = Framing::of_request(&headers, version)?;
    let (authority, target) = target(&method, raw_target, &headers, version)?;

    let upgrade = (version == Version::HTTP_11 && headers.has_token("connection", "upgrade"))
        .then(|| upgrade(headers.get_str("upgrade")?))
        .flatten();
    let keep_alive = keep_alive(&headers, version);
    let expects_continue =
        version == Version::HTTP_11 && headers.get("expect").is_some_and(|it| it.eq_ignore_ascii_case(b"100-continue"));
    headers.remove("host");
    let head = RequestHead { method, scheme, authority, target, version, headers };
    let parsed = ParsedRequest { head, body: framing.decoder(), keep_alive, expects_continue, upgrade };
    Ok(Some((Box::new(parsed), length)))
}

/// However it is written, if that is allowed; `None` while it is not whole and `may_grow`.
fn read_any_request(allowed: &[u8], most: usize, may_grow: bool) -> Result<Option<plain::Request<'_>>, HeadError> {
    // Not initialised: clearing the whole array would cost more than parsing a usual head.
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(allowed, &mut fields[..most]) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if may_grow => return Ok(None),
        Ok(httparse::Status::Partial) if memchr::memchr(b'\n', allowed).is_none() => {
            return Err(HeadError::TargetTooLong);
        }
        Ok(httparse::Status::Partial) => return Err(HeadError::TooLarge),
        Err(error) => return Err(error.into()),
    };
    let headers = fields_of(&allowed[..length], request.headers)?;
    let version = version(request.version)?;
    let method = request.method.unwrap_or_default().as_bytes();
    let target = request.path.unwrap_or_default();
    Ok(Some(plain::Request { method, target, version, headers, length }))
}

/// Takes the head of the answer to a `method` request off the front of `buffer`; `None` while it is not whole.
pub fn parse_response(
    buffer: &mut BytesMut,
    method: &Method,
    limits: HeadLimits,
) -> Result<Option<ParsedResponse>, HeadError> {
    let Some((parsed, length)) = read_response(buffer, method, limits)? else { return Ok(None) };
    buffer.advance(length);
    Ok(Some(parsed))
}

/// The head of the answer to a `method` request at the front of `bytes`, and how long it is; `None` while it is not
/// whole.
pub fn read_response(
    bytes: &[u8],
    method: &Method,
    limits: HeadLimits,
) -> Result<Option<(ParsedResponse, usize)>, HeadError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let most = limits.fields.min(MAX_FIELDS);
    let allowed = &bytes[..bytes.len().min(limits.bytes)];
    let response = match plain::response(allowed, most) {
        Some(response) => response,
        None => match read_any_response(allowed, most, bytes.len() < limits.bytes)? {
            Some(response) => response,
            None => return Ok(None),
        },
    };
    let plain::Response { status, version, headers, length } = response;
    let status =
        StatusCode::from_u16(status).map_err(|_| HeadError::Malformed("the status is not a number from 100 to 999"))?;
    let framing = Framing::of_response(&headers, version, method, status)?;
    let keep_alive = keep_alive(&headers, version) && framing != Framing::UntilClose;
    let parsed = ParsedResponse { head: ResponseHead { status, headers }, body: framing.decoder(), keep_alive };
    Ok(Some((parsed, length)))
}

fn read_any_response(allowed: &[u8], most: usize, may_grow: bool) -> Result<Option<plain::Response>, HeadError> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let parsing = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        allowed,
        &mut fields[..most],
    );
    let length = match parsing {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if may_grow => return Ok(None),
        Ok(httparse::Status::Partial) => return Err(HeadError::TooLarge),
        Err(error) => return Err(error.into()),
    };
    let headers = fields_of(&allowed[..length], response.headers)?;
    let version = version(response.version)?;
    Ok(Some(plain::Response { status: response.code.unwrap_or_default(), version, headers, length }))
}

/// Writes a request's head. Hop-by-hop fields were taken out by the caller; framing is added here.
pub fn write_request(out: &mut Vec<u8>, head: &RequestHead, framing: Framing, upgrade: Option<&str>) {
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    out.extend_from_slice(head.authority.as_bytes());
    out.extend_from_slice(b"\r\n");
    write_fields(out, &head.headers);
    write_framing(out, framing, &head.method);
    if let Some(protocol) = upgrade {
        out.extend_from_slice(b"connection: upgrade\r\nupgrade: ");
        out.extend_from_slice(protocol.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// What the connection line of an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// HTTP/1.1 and the connection stays: nothing is said.
    Default,
    /// HTTP/1.0 asked for it and gets it.
    KeepAlive,
    Close,
    /// `101`: the connection becomes something else.
    Upgrade,
}

/// Writes an answer's head. Its length may be said by its fields already.
pub fn write_response(
    out: &mut Vec<u8>,
    head: &ResponseHead,
    framing: Framing,
    is_said: bool,
    persistence: Persistence,
) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(head.status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.status.canonical_reason().unwrap_or("").as_bytes());
    out.extend_from_slice(b"\r\n");
    write_fields(out, &head.headers);
    match framing {
        Framing::None | Framing::UntilClose => {}
        Framing::Length(_) if is_said => {}
        Framing::Length(length) => write_length(out, length),
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    out.extend_from_slice(match persistence {
        Persistence::Default => b"",
        Persistence::KeepAlive => &b"connection: keep-alive\r\n"[..],
        Persistence::Close => b"connection: close\r\n",
        Persistence::Upgrade => b"connection: upgrade\r\n",
    });
    out.extend_from_slice(b"\r\n");
}

/// True if the fields say this length already, as we would say it.
pub fn says_length(headers: &Headers, length: u64) -> bool {
    let mut lines = headers.get_all("content-length");
    let said = lines.next().is_some_and(|said| said == itoa::Buffer::new().format(length).as_bytes());
    said && lines.next().is_none()
}

pub fn write_fields(out: &mut Vec<u8>, headers: &Headers) {
    for lines in headers.lines() {
        out.extend_from_slice(lines);
    }
}

fn write_framing(out: &mut Vec<u8>, framing: Framing, method: &Method) {
    match framing {
        // A method that usually has content says that it has none (RFC 9110, 8.6).
        Framing::None if matches!(*method, Method::POST | Method::PUT | Method::PATCH) => write_length(out, 0),
        Framing::None | Framing::UntilClose => {}
        Framing::Length(length) => write_length(out, length),
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
}

fn write_length(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"content-length: ");
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The target's form decides where the authority comes from (RFC 9112, 3.2 and 3.3). The scheme is that of the
/// connection, whatever a URL claims: upstreams are told it, and believe it.
fn target(method: &Method, raw: &str, headers: &Headers, version: Version) -> Result<(String, String), HeadError> {
    let mut hosts = headers.get_all("host");
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(HeadError::Malformed("more than one Host field"));
    }
    if host.is_none() && version == Version::HTTP_11 {
        return Err(HeadError::Malformed("no Host field"));
    }
    let host = std::str::from_utf8(host.unwrap_or_default()).map_err(|_| HeadError::Malformed("Host is not a name"))?;
    if !is_authority(host) {
        return Err(HeadError::Malformed("Host is not a name"));
    }
    if *method == Method::CONNECT {
        if !is_authority(raw) || raw.is_empty() {
            return Err(HeadError::Malformed("the target of CONNECT is not an authority"));
        }
        return Ok((raw.to_owned(), raw.to_owned()));
    }
    if raw.starts_with('/') {
        return Ok((host.to_owned(), checked_target(raw)?));
    }
    if raw == "*" && *method == Method::OPTIONS {
        return Ok((host.to_owned(), raw.to_owned()));
    }
    let rest = strip_prefix_ignore_case(raw, "http://").or_else(|| strip_prefix_ignore_case(raw, "https://"));
    let rest = rest.ok_or(HeadError::Malformed("the target is neither a path nor a URL"))?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.is_empty() || !is_authority(authority) {
        return Err(HeadError::Malformed("the target's authority is not a name"));
    }
    let path = if path.starts_with('/') { checked_target(path)? } else { checked_target(&format!("/{path}"))? };
    Ok((authority.to_owned(), path))
}

fn checked_target(target: &str) -> Result<String, HeadError> {
    if !is_target(target) {
        return Err(HeadError::Malformed("the target holds a character that must be escaped"));
    }
    Ok(target.to_owned())
}

/// Nothing that ends a request line or a target for some reader.
pub(crate) fn is_target(target: &str) -> bool {
    !target.bytes().any(|b| b == b'#' || b <= b' ' || b == 0x7f)
}

/// A host and a port, without user information, which has no place in HTTP.
pub(crate) fn is_authority(text: &str) -> bool {
    text.bytes().all(|byte| AUTHORITY[usize::from(byte)])
}

/// The bytes that may be in one.
const AUTHORITY: [bool; 256] = {
    let (mut may_be, others, mut byte) = ([false; 256], b"-._~%!$&'()*+,;=:[]", 0);
    while byte < 128 {
        may_be[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut at = 0;
    while at < others.len() {
        may_be[others[at] as usize] = true;
        at += 1;
    }
    may_be
};

fn strip_prefix_ignore_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let head = text.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then(|| &text[prefix.len()..])
}

/// The fields of a whole head.
fn fields_of(head: &[u8], parsed: &[httparse::Header<'_>]) -> Result<Headers, HeadError> {
    if memchr::memchr(0, head).is_some() {
        return Err(HeadError::Malformed("a field holds a NUL"));
    }
    // Longer ones cannot be kept; a part of one is another name.
    if parsed.iter().any(|field| field.name.len() > Headers::MAX_NAME) {
        return Err(HeadError::TooLarge);
    }
    // Room for the fields that the path adds.
    let mut headers = Headers::with_capacity(head.len() + 256);
    if let Some(lines) = plain_lines(head, parsed) {
        headers.append_lines(lines, parsed.iter().map(|field| (field.name.len(), field.value.len())));
        return Ok(headers);
    }
    strict_lines(head)?;
    for field in parsed {
        headers.append(field.name, field.value.trim_ascii());
    }
    Ok(headers)
}

/// The lines of the fields, if they are written as we would write them, and nothing else is in the head but the line
/// before them: no empty lines, no other space round values, no line that ends in anything but CRLF.
fn plain_lines<'a>(head: &'a [u8], parsed: &[httparse::Header<'_>]) -> Option<&'a [u8]> {
    let place = |of: &[u8]| (of.as_ptr() as usize).wrapping_sub(head.as_ptr() as usize);
    let start = place(parsed.first()?.name.as_bytes());
    if !head.get(..start)?.ends_with(b"\r\n") || head[0] == b'\r' || head[0] == b'\n' {
        return None;
    }
    let mut at = start;
    for field in parsed {
        let value = at + field.name.len() + 2;
        let end = value + field.value.len();
        let as_written = place(field.name.as_bytes()) == at
            && place(field.value) == value
            && head.get(value - 2..value)? == b": "
            && head.get(end..end + 2)? == b"\r\n"
            && !matches!(field.value, [b' ' | b'\t', ..] | [.., b' ' | b'\t']);
        if !as_written {
            return None;
        }
        at = end + 2;
    }
    (head.get(at..)? == b"\r\n").then(|| &head[start..at])
}

fn version(minor: Option<u8>) -> Result<Version, HeadError> {
    match minor {
        Some(1) => Ok(Version::HTTP_11),
        Some(0) => Ok(Version::HTTP_10),
        _ => Err(HeadError::Version),
    }
}

fn keep_alive(headers: &Headers, version: Version) -> bool {
    if headers.has_token("connection", "close") {
        return false;
    }
    version == Version::HTTP_11 || headers.has_token("connection", "keep-alive")
}

/// What a client asks to change to. `h2c` is no longer a part of HTTP (RFC 9113, 3.1), and passed on it would make a
/// tunnel in which other requests go by unseen.
fn upgrade(wanted: &str) -> Option<String> {
    let wanted: Vec<_> = wanted.split(',').map(str::trim).filter(|it| !it.eq_ignore_ascii_case("h2c")).collect();
    (!wanted.is_empty()).then(|| wanted.join(", ")).filter(|it| !it.is_empty())
}

/// A lone LF ends a line for some and not for others; so it ends nothing here. (A lone CR is no part of a
/// field for the parser of lines either.)
fn strict_lines(head: &[u8]) -> Result<(), HeadError> {
    if has_lone_lf(head) {
        return Err(HeadError::Malformed("a line ends in LF without CR"));
    }
    Ok(())
}

pub(super) fn has_lone_lf(lines: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', lines).any(|at| at == 0 || lines[at - 1] != b'\r')
}

/// How long the empty lines before a request line are: they are ignored (RFC 9112, 2.2), as long as they are few.
fn empty_lines(bytes: &[u8]) -> usize {
    (0..4).take_while(|line| bytes[2 * line..].starts_with(b"\r\n")).count() * 2
}

impl From<httparse::Error> for HeadError {
    fn from(error: httparse::Error) -> HeadError {
        HeadError::Malformed(match error {
            httparse::Error::TooManyHeaders => return HeadError::TooManyFields,
            httparse::Error::Version => return HeadError::Version,
            httparse::Error::HeaderName => "a field's name",
            httparse::Error::HeaderValue => "a field's value",
            httparse::Error::NewLine => "the end of a line",
            httparse::Error::Status => "the status",
            httparse::Error::Token => "the request line",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: HeadLimits = HeadLimits { bytes: 4096, fields: 20 };

    fn parse(text: &str) -> Result<Option<Box<ParsedRequest>>, HeadError> {
        parse_request(&mut BytesMut::from(text), Scheme::Http, LIMITS)
    }

    #[test]
    fn targets_of_all_forms() {
        for (line, authority, target) in [
            ("GET /a?b HTTP/1.1\r\nHost: h:1\r\n", "h:1", "/a?b"),
            ("GET http://other/x HTTP/1.1\r\nHost: h\r\n", "other", "/x"),
            ("GET http://other?q HTTP/1.1\r\nHost: h\r\n", "other", "/?q"),
            ("OPTIONS * HTTP/1.1\r\nHost: h\r\n", "h", "*"),
            ("CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n", "h:443", "h:443"),
            ("GET / HTTP/1.0\r\n", "", "/"),
        ] {
            let parsed = parse(&format!("{line}\r\n")).unwrap().unwrap();
            assert_eq!((&*parsed.head.authority, &*parsed.head.target), (authority, target), "{line}");
            assert!(!parsed.head.headers.contains("host"));
        }
    }

    #[test]
    fn what_is_ambiguous_is_refused() {
        for head in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
            "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET / HTTP/1.1\r\nHost: a\r\nx: b\r\n c\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nx: a\rb\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        ] {
            assert!(parse(head).is_err(), "{head:?}");
        }
    }

    #[test]
    fn a_head_arrives_in_any_pieces() {
        let head = "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nX-A: b\r\n\r\n";
        for end in 0..head.len() {
            assert!(parse(&head[..end]).unwrap().is_none(), "{end}");
        }
        assert!(parse(head).unwrap().is_some());
    }

    #[test]
    fn upgrades_are_asked_for_but_for_h2c() {
        for (fields, expected) in [
            ("Connection: Upgrade\r\nUpgrade: websocket\r\n", Some("websocket")),
            ("Connection: upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n", None),
            ("Connection: upgrade\r\nUpgrade: H2C, a, b/1\r\n", Some("a, b/1")),
            ("Connection: upgrade\r\nUpgrade: \r\n", None),
            ("Connection: keep-alive\r\nUpgrade: websocket\r\n", None),
            ("Connection: upgrade\r\n", None),
        ] {
            let parsed = parse(&format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n")).unwrap().unwrap();
            assert_eq!(parsed.upgrade.as_deref(), expected, "{fields}");
        }
    }

    #[test]
    fn limits_hold() {
        let many = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "a: b\r\n".repeat(30));
        assert_eq!(parse(&many).err(), Some(HeadError::TooManyFields));
        let large = format!("GET / HTTP/1.1\r\nHost: h\r\na: {}", "b".repeat(5000));
        assert_eq!(parse(&large).err(), Some(HeadError::TooLarge));
        let long = format!("GET /{}", "b".repeat(5000));
        assert_eq!(parse(&long).err(), Some(HeadError::TargetTooLong));
    }

    #[test]
    fn what_is_too_large_is_told_so_whole_and_in_pieces() {
        let long = "a".repeat(5000);
        let fields = "a: b\r\n".repeat(10);
        for (head, expected) in [
            (format!("GET /{long} HTTP/1.1\r\nhost: h\r\n\r\n"), HeadError::TargetTooLong),
            // What stands behind the limit is not looked at, however wrong.
            (format!("GET /{long} HTTP/7.1\r\nhost : h\r\n\r\n"), HeadError::TargetTooLong),
            (format!("GET / HTTP/1.1\r\nhost: h\r\na: {long}\r\n{fields}\r\n"), HeadError::TooLarge),
            (format!("GET / HTTP/1.1\r\nhost: h\r\na: {long}\r\nb\0: c\r\n\r\n"), HeadError::TooLarge),
        ] {
            for piece in [1, 7, 4095, 4096, 4097, head.len()] {
                let mut buffer = BytesMut::new();
                let mut told = None;
                for piece in head.as_bytes().chunks(piece) {
                    buffer.extend_from_slice(piece);
                    match parse_request(&mut buffer, Scheme::Http, LIMITS) {
                        Ok(None) => {}
                        Ok(Some(_)) => panic!("taken"),
                        Err(error) => {
                            told = Some(error);
                            break;
                        }
                    }
                }
                assert_eq!(told, Some(expected), "in pieces of {piece}: {}", &head[..20]);
            }
        }
        // Exactly as large as allowed.
        let rest = 4096 - "GET / HTTP/1.1\r\nhost: h\r\na: \r\n\r\n".len();
        let exact = format!("GET / HTTP/1.1\r\nhost: h\r\na: {}\r\n\r\n", "b".repeat(rest));
        assert!(parse(&exact).unwrap().is_some());
    }

    const USUAL: [&str; 4] = ["Host: h\r\n", "A: b\r\n", "x-a_b: 1, 2;c=\"d\"\r\n", "Content-Length: 3\r\n"];
    const ODD: [&str; 8] =
        ["a:b\r\n", "a: \r\n", "a: b \r\n", "a:  b\r\n", "a: b\tc\r\n", "a: b\n", "A\u{e4}: b\r\n", "a: \u{e4}\r\n"];

    /// A head in which most bytes are where they belong, and some are not.
    fn heads(first: &'static str) -> impl Strategy<Value = Vec<u8>> {
        let line = prop_oneof![6 => prop::sample::select(&USUAL[..]), 1 => prop::sample::select(&ODD[..])];
        let lines = prop::collection::vec(line, 0..6);
        let changed = prop::option::weighted(0.5, (any::<prop::sample::Index>(), any::<u8>()));
        (lines, changed).prop_map(move |(lines, changed)| {
            let mut head = format!("{first}{}\r\nbehind", lines.concat()).into_bytes();
            if let Some((at, byte)) = changed {
                let at = at.index(head.len());
                head[at] = byte;
            }
            head
        })
    }

    proptest! {
        #[test]
        fn a_plain_request_is_what_any_reader_makes_of_it(head in heads("GET /a?b HTTP/1.1\r\n")) {
            if let Some(plain) = plain::request(&head, 5) {
                let any = read_any_request(&head, 5, true).unwrap().unwrap();
                prop_assert_eq!((plain.method, plain.target, plain.version), (any.method, any.target, any.version));
                prop_assert_eq!((plain.headers, plain.length), (any.headers, any.length));
            }
        }

        #[test]
        fn a_plain_answer_is_what_any_reader_makes_of_it(head in heads("HTTP/1.1 200 All right\r\n")) {
            if let Some(plain) = plain::response(&head, 5) {
                let any = read_any_response(&head, 5, true).unwrap().unwrap();
                prop_assert_eq!((plain.status, plain.version), (any.status, any.version));
                prop_assert_eq!((plain.headers, plain.length), (any.headers, any.length));
            }
        }
    }

    #[test]
    fn answers_know_whether_they_have_a_body() {
        let parse =
            |text: &str, method: Method| parse_response(&mut BytesMut::from(text), &method, LIMITS).unwrap().unwrap();
        assert!(parse("HTTP/1.1 204 No Content\r\n\r\n", Method::GET).body.is_done());
        assert!(parse("HTTP/1.1 304 x\r\ncontent-length: 5\r\n\r\n", Method::GET).body.is_done());
        assert!(parse("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", Method::HEAD).body.is_done());
        assert!(!parse("HTTP/1.1 200 OK\r\n\r\n", Method::GET).keep_alive);
        assert!(parse("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", Method::GET).keep_alive);
        assert!(!parse("HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", Method::GET).keep_alive);
    }
}
