//! The one place that knows which status a refusal has, and the words a client may read.
//!
//! Answers that Weir itself gives are `application/problem+json` (RFC 9457) with a stable `type`; to gRPC
//! they are a status in a trailers-only answer. Nothing of the upstream or of our insides gets out.

use std::time::Duration;

use base::{Headers, RequestHead, ResponseHead, StatusCode};
use transport::{Body, Response};

/// Why a call was not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    BadRequest(&'static str),
    NoRoute,
    Policy(policy::Refusal),
    /// The body is larger than what may be kept or forwarded.
    MethodNotSupported,
    /// No endpoint could be chosen.
    NoEndpoint,
    /// The upstream has as much under way as it may.
    Full,
    /// The upstream fails, and is left alone for this long.
    Open(Duration),
    /// No connection to any endpoint.
    Unreachable,
    /// The upstream broke off, or what it said was not HTTP.
    BadGateway,
    /// The upstream speaks HTTP/2 and takes no upgrades over it.
    NoUpgrade,
    /// The upstream did not answer in time.
    Timeout,
    /// The client's own body failed.
    RequestBody,
    Stopping,
    /// The client wanted a stored answer or none.
    NotStored,
}

impl Refusal {
    pub fn status(&self) -> StatusCode {
        self.words().0
    }

    /// A stable name, for the log, the metrics and the problem's type.
    pub fn name(&self) -> &'static str {
        self.words().1
    }

    fn words(&self) -> (StatusCode, &'static str, &'static str) {
        use policy::Refusal as Policy;
        match self {
            Refusal::BadRequest(_) => (StatusCode::BAD_REQUEST, "bad-request", "The request is malformed"),
            Refusal::NoRoute => (StatusCode::NOT_FOUND, "no-route", "No route takes this request"),
            Refusal::MethodNotSupported => {
                (StatusCode::METHOD_NOT_ALLOWED, "method-not-supported", "This method is not supported here")
            }
            Refusal::Policy(Policy::Unauthenticated { .. }) => {
                (StatusCode::UNAUTHORIZED, "unauthenticated", "A valid credential is needed")
            }
            Refusal::Policy(Policy::KeysUnavailable { .. }) => {
                (StatusCode::SERVICE_UNAVAILABLE, "keys-unavailable", "Tokens cannot be verified at the moment")
            }
            Refusal::Policy(Policy::RateLimited { .. }) => {
                (StatusCode::TOO_MANY_REQUESTS, "rate-limited", "Too many requests")
            }
            Refusal::Policy(Policy::LimiterUnavailable) => {
                (StatusCode::SERVICE_UNAVAILABLE, "limiter-unavailable", "Limits cannot be checked at the moment")
            }
            Refusal::Policy(Policy::Overloaded { .. }) => {
                (StatusCode::SERVICE_UNAVAILABLE, "overloaded", "There is no room for this call at the moment")
            }
            Refusal::Policy(Policy::ContentTooLarge) => {
                (StatusCode::PAYLOAD_TOO_LARGE, "content-too-large", "The request's body is too large")
            }
            Refusal::Policy(Policy::MediaType) => {
                let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
                (status, "unsupported-media-type", "The request's body is not of a type that is taken here")
            }
            Refusal::Policy(Policy::ContentUnusable) => {
                (StatusCode::BAD_REQUEST, "content-unusable", "The request's body is not what its type says")
            }
            Refusal::Policy(Policy::TargetTooLong) => {
                (StatusCode::URI_TOO_LONG, "uri-too-long", "The request's path and query are too long")
            }
            Refusal::Policy(Policy::FieldsTooLarge) => {
                let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
                (status, "fields-too-large", "The request's fields are too large or too many")
            }
            Refusal::Policy(Policy::Undecided) => {
                let status = StatusCode::SERVICE_UNAVAILABLE;
                (status, "authorizer-unavailable", "It cannot be decided whether this is allowed")
            }
            Refusal::Policy(Policy::AnswerUnusable) => {
                (StatusCode::BAD_GATEWAY, "answer-unusable", "The upstream's answer cannot be passed on")
            }
            Refusal::Policy(Policy::AnswerTooLarge) => {
                (StatusCode::BAD_GATEWAY, "answer-too-large", "The upstream's answer is too large")
            }
            Refusal::Policy(_) => (StatusCode::FORBIDDEN, "forbidden", "This is not allowed"),
            Refusal::NoEndpoint => (StatusCode::SERVICE_UNAVAILABLE, "no-endpoint", "No endpoint is available"),
            Refusal::Full => {
                (StatusCode::SERVICE_UNAVAILABLE, "upstream-full", "The upstream has no room for more calls")
            }
            Refusal::Open(_) => (StatusCode::SERVICE_UNAVAILABLE, "upstream-open", "The upstream fails; try later"),
            Refusal::Unreachable => (StatusCode::BAD_GATEWAY, "upstream-unreachable", "The upstream cannot be reached"),
            Refusal::BadGateway => (StatusCode::BAD_GATEWAY, "upstream-broken", "The upstream's answer was broken"),
            Refusal::NoUpgrade => {
                (StatusCode::NOT_IMPLEMENTED, "upgrade-not-supported", "The upstream does not support this upgrade")
            }
            Refusal::Timeout => (StatusCode::GATEWAY_TIMEOUT, "upstream-timeout", "The upstream took too long"),
            Refusal::RequestBody => (StatusCode::BAD_REQUEST, "request-body", "The request's body did not arrive"),
            Refusal::NotStored => (StatusCode::GATEWAY_TIMEOUT, "not-stored", "No stored answer can be used"),
            Refusal::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping", "This node is stopping"),
        }
    }

    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Refusal::Policy(
                policy::Refusal::RateLimited { retry_after }
                | policy::Refusal::Overloaded { retry_after }
                | policy::Refusal::KeysUnavailable { retry_after },
            ) => Some(*retry_after),
            Refusal::Open(wait) => Some(*wait),
            Refusal::Policy(policy::Refusal::LimiterUnavailable)
            | Refusal::NoEndpoint
            | Refusal::Full
            | Refusal::Stopping => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    fn grpc_status(&self) -> &'static str {
        match self.status().as_u16() {
            400 => "13",
            401 => "16",
            415 => "3",
            403 => "7",
            404 | 405 | 501 => "12",
            413 | 414 | 429 | 431 => "8",
            504 => "4",
            500 => "13",
            _ => "14",
        }
    }
}

/// What a caller is told.
pub fn words(refusal: &Refusal) -> (StatusCode, &'static str) {
    let (status, _, title) = refusal.words();
    (status, title)
}

/// What a caller is told of a policy's refusal.
pub fn refusal_words(refusal: &policy::Refusal) -> (StatusCode, &'static str) {
    words(&Refusal::Policy(refusal.clone()))
}

/// The answer for a refusal, in the caller's protocol.
pub fn render(refusal: &Refusal, request: &RequestHead) -> Response {
    let (status, name, title) = refusal.words();
    let mut headers = Headers::with_capacity(192);
    if let Some(wait) = refusal.retry_after() {
        headers.append("retry-after", wait.as_secs_f64().ceil().max(1.0).to_string());
    }
    if let Refusal::Policy(policy::Refusal::Unauthenticated { challenge }) = refusal {
        headers.append("www-authenticate", challenge);
    }
    if is_grpc(request) {
        headers.append("content-type", "application/grpc");
        headers.append("grpc-status", refusal.grpc_status());
        headers.append("grpc-message", title);
        return Response::new(ResponseHead { status: StatusCode::OK, headers }, Body::Empty);
    }
    headers.append("content-type", "application/problem+json");
    headers.append("cache-control", "no-store");
    let mut problem =
        format!("{{\"type\":\"urn:weir:problem:{name}\",\"title\":\"{title}\",\"status\":{}", status.as_u16());
    if let Refusal::BadRequest(detail) = refusal {
        // The details are words of our own, without a character that JSON would escape.
        problem.push_str(&format!(",\"detail\":\"{detail}\""));
    }
    problem.push_str("}\n");
    Response::new(ResponseHead { status, headers }, Body::from(problem.into_bytes()))
}

/// For requests whose head could not be understood, so that nothing else is known of them.
pub fn render_status(status: StatusCode, why: &'static str) -> Response {
    let mut head = ResponseHead::new(status);
    head.headers.append("content-type", "application/problem+json");
    let problem = format!(
        "{{\"type\":\"urn:weir:problem:bad-request\",\"title\":\"{}\",\"status\":{},\"detail\":\"{why}\"}}\n",
        status.canonical_reason().unwrap_or("The request is malformed"),
        status.as_u16()
    );
    Response::new(head, Body::from(problem.into_bytes()))
}

pub fn is_grpc(request: &RequestHead) -> bool {
    request.headers.get("content-type").is_some_and(|it| {
        it.strip_prefix(b"application/grpc").is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
    })
}

#[cfg(test)]
mod tests {
    use base::{Method, Scheme, Version};

    use super::*;

    fn request(content_type: &str) -> RequestHead {
        RequestHead {
            method: Method::POST,
            scheme: Scheme::Http,
            authority: "h".into(),
            target: "/".into(),
            version: Version::HTTP_11,
            headers: Headers::from_iter([("content-type", content_type)]),
        }
    }

    #[test]
    fn a_refusal_is_a_problem_or_a_grpc_status() {
        let refusal = Refusal::Policy(policy::Refusal::RateLimited { retry_after: Duration::from_millis(1200) });
        let answer = render(&refusal, &request("text/plain"));
        assert_eq!(answer.head.status, 429);
        assert_eq!(answer.head.headers.get_str("retry-after"), Some("2"));
        assert_eq!(answer.head.headers.get_str("content-type"), Some("application/problem+json"));
        let answer = render(&refusal, &request("application/grpc+proto"));
        assert_eq!(answer.head.status, 200);
        assert_eq!(answer.head.headers.get_str("grpc-status"), Some("8"));
        assert!(!is_grpc(&request("application/grpc-web")));
    }
}
