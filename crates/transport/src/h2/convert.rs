//! Heads between the words of the gateway and those of `http`, which `h2` speaks.
//!
//! `h2` itself refuses upper case and control characters in fields, pseudo-headers that are missing, doubled
//! or late, connection-specific fields, `te` other than `trailers`, and an empty `:path`. The rest is here.

use base::{Headers, RequestHead, ResponseHead, Scheme, StatusCode};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery};
use http::{Method, Uri, Version, request, response};

use crate::h1::{is_authority, is_target};

/// Why a head is refused, and with which status.
pub(super) type Refusal = (StatusCode, &'static str);

/// A request that came, and the protocol an extended CONNECT asks for.
pub(super) fn request_in(
    parts: request::Parts,
    tls: bool,
    fields: usize,
) -> Result<(RequestHead, Option<String>), Refusal> {
    let bad = |why| (StatusCode::BAD_REQUEST, why);
    if parts.headers.len() > fields {
        return Err((StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "too many fields"));
    }
    let protocol = parts.extensions.get::<h2::ext::Protocol>().map(|protocol| protocol.as_str().to_owned());
    // That of the connection, whatever the client claims: upstreams are told it, and believe it.
    let scheme = if tls { Scheme::Https } else { Scheme::Http };
    if !matches!(parts.uri.scheme_str(), None | Some("http" | "https")) {
        return Err(bad("unknown scheme"));
    }
    let mut authority = parts.uri.authority().map(|authority| authority.as_str().to_owned());
    let mut headers = Headers::with_capacity(512);
    let mut host = None;
    let mut lengths = 0;
    let mut cookies = Vec::new();
    for (name, value) in &parts.headers {
        // That it has no control characters, its type says.
        if value.as_bytes() != value.as_bytes().trim_ascii() {
            return Err(bad("malformed field value"));
        }
        match name.as_str() {
            "host" if host.is_some() => return Err(bad("more than one host")),
            "host" => host = Some(value.to_str().map_err(|_| bad("malformed host"))?),
            // RFC 9113, 8.2.3: crumbs are put together again before they leave HTTP/2.
            "cookie" => {
                if !cookies.is_empty() {
                    cookies.extend_from_slice(b"; ");
                }
                cookies.extend_from_slice(value.as_bytes());
            }
            name => {
                lengths += usize::from(name == "content-length");
                headers.append(name, value.as_bytes());
            }
        }
    }
    if lengths > 1 {
        return Err(bad("more than one content-length"));
    }
    if !cookies.is_empty() {
        headers.append("cookie", cookies);
    }
    if let Some(host) = host {
        match &authority {
            Some(authority) if !authority.eq_ignore_ascii_case(host) => {
                return Err(bad("host and :authority differ"));
            }
            Some(_) => {}
            None => authority = Some(host.to_owned()),
        }
    }
    let authority = authority.filter(|authority| !authority.is_empty()).ok_or(bad("no authority"))?;
    if !is_authority(&authority) {
        return Err(bad("the authority is not a name"));
    }
    let target = if parts.method == Method::CONNECT && protocol.is_none() {
        authority.clone()
    } else {
        let path = parts.uri.path_and_query().map_or("", PathAndQuery::as_str);
        let asterisk = path == "*" && parts.method == Method::OPTIONS;
        let is_path = path.starts_with('/') && is_target(path);
        if !is_path && !asterisk {
            return Err(bad("malformed :path"));
        }
        path.to_owned()
    };
    let head = RequestHead { method: parts.method, scheme, authority, target, version: Version::HTTP_2, headers };
    Ok((head, protocol))
}

/// A request to send; with `protocol` it becomes an extended CONNECT (RFC 8441).
pub(super) fn request_out(head: &RequestHead, protocol: Option<&str>) -> Result<http::Request<()>, &'static str> {
    let mut request = http::Request::new(());
    let authority: Authority = head.authority.parse().map_err(|_| "malformed authority")?;
    let mut uri = http::uri::Parts::default();
    uri.authority = Some(authority);
    if head.method != Method::CONNECT || protocol.is_some() {
        uri.scheme = Some(match head.scheme {
            Scheme::Http => http::uri::Scheme::HTTP,
            Scheme::Https => http::uri::Scheme::HTTPS,
        });
        uri.path_and_query = Some(head.target.parse().map_err(|_| "malformed target")?);
    }
    *request.uri_mut() = Uri::from_parts(uri).map_err(|_| "malformed target")?;
    *request.method_mut() = if protocol.is_some() { Method::CONNECT } else { head.method.clone() };
    *request.version_mut() = Version::HTTP_2;
    let mut headers = fields_out(&head.headers)?;
    if head.headers.contains("host") {
        headers.remove(http::header::HOST);
    }
    if head.headers.has_token("te", "trailers") {
        headers.insert(http::header::TE, HeaderValue::from_static("trailers"));
    }
    *request.headers_mut() = headers;
    if let Some(protocol) = protocol {
        request.headers_mut().remove(http::header::SEC_WEBSOCKET_KEY);
        request.extensions_mut().insert(h2::ext::Protocol::from(protocol));
    }
    Ok(request)
}

pub(super) fn response_in(parts: response::Parts) -> ResponseHead {
    ResponseHead { status: parts.status, headers: fields_in(&parts.headers) }
}

pub(super) fn response_out(head: &ResponseHead) -> Result<http::Response<()>, &'static str> {
    let mut response = http::Response::new(());
    *response.status_mut() = head.status;
    *response.version_mut() = Version::HTTP_2;
    *response.headers_mut() = fields_out(&head.headers)?;
    Ok(response)
}

/// Fields of an answer, or trailers. Space around a value says nothing, so it goes rather than the message.
pub(super) fn fields_in(map: &HeaderMap) -> Headers {
    let mut headers = Headers::with_capacity(512);
    for (name, value) in map {
        headers.append(name.as_str(), value.as_bytes().trim_ascii());
    }
    headers
}

/// Fields to send, without those that speak of an HTTP/1 connection (RFC 9113, 8.2.2) or, as `te` does, of what its
/// sender accepts.
pub(super) fn fields_out(headers: &Headers) -> Result<HeaderMap, &'static str> {
    let mut map = HeaderMap::with_capacity(headers.len());
    let names_others = headers.contains("connection");
    for (name, value) in headers.iter_bytes() {
        let is_named = || std::str::from_utf8(name).is_ok_and(|name| headers.has_token("connection", name));
        if is_of_connection(name) || (names_others && is_named()) {
            continue;
        }
        let name = match well_known(name) {
            Some(name) => name,
            None => HeaderName::from_bytes(name).map_err(|_| "malformed field name")?,
        };
        let value = HeaderValue::from_bytes(value).map_err(|_| "malformed field value")?;
        map.try_append(name, value).map_err(|_| "too many fields")?;
    }
    Ok(map)
}

fn is_of_connection(name: &[u8]) -> bool {
    matches!(name, b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade" | b"te")
}

/// Names that nearly every message has, which need no reading.
fn well_known(name: &[u8]) -> Option<HeaderName> {
    use http::header::*;
    Some(match name {
        b"accept" => ACCEPT,
        b"cache-control" => CACHE_CONTROL,
        b"content-length" => CONTENT_LENGTH,
        b"content-type" => CONTENT_TYPE,
        b"date" => DATE,
        b"etag" => ETAG,
        b"last-modified" => LAST_MODIFIED,
        b"server" => SERVER,
        b"user-agent" => USER_AGENT,
        b"vary" => VARY,
        _ => return None,
    })
}
