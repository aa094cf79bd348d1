//! Errors in the words of a dialect: so that a caller's SDK raises the error it would have raised at the provider.

use crate::dialect::Dialect;
use crate::event_stream;
use crate::json::Out;
use crate::sse;

/// What went wrong, in the terms in which the dialects agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request is not right (400, 405, 409, 415, 422).
    Invalid,
    /// Who calls is not known (401).
    Unauthenticated,
    /// Who calls may not (403).
    Forbidden,
    /// No such model, or nothing there (404).
    NotFound,
    /// The request is larger than is taken (413).
    TooLarge,
    /// What may be spent is spent (402, or 429 that no waiting cures).
    Budget,
    /// Too many calls or tokens in this time (429).
    RateLimited,
    /// Somebody cannot keep up (503, 529).
    Overloaded,
    /// The provider did not answer in time (504, 408).
    Timeout,
    /// The provider failed, or said what cannot be understood (500, 502).
    Upstream,
}

impl Kind {
    /// What a status means, where nothing else says more.
    pub fn of_status(status: u16) -> Kind {
        match status {
            401 => Kind::Unauthenticated,
            402 => Kind::Budget,
            403 => Kind::Forbidden,
            404 => Kind::NotFound,
            408 | 504 => Kind::Timeout,
            413 => Kind::TooLarge,
            429 => Kind::RateLimited,
            503 | 529 => Kind::Overloaded,
            400..500 => Kind::Invalid,
            _ => Kind::Upstream,
        }
    }

    /// The status that says it.
    pub const fn status(self) -> u16 {
        match self {
            Kind::Invalid => 400,
            Kind::Unauthenticated => 401,
            Kind::Budget => 402,
            Kind::Forbidden => 403,
            Kind::NotFound => 404,
            Kind::TooLarge => 413,
            Kind::RateLimited => 429,
            Kind::Upstream => 502,
            Kind::Overloaded => 503,
            Kind::Timeout => 504,
        }
    }

    /// What a provider's word for an error means, whatever its dialect.
    pub fn of_word(word: &str) -> Option<Kind> {
        let kind = match word {
            "invalid_request_error" | "INVALID_ARGUMENT" | "FAILED_PRECONDITION" | "OUT_OF_RANGE" => Kind::Invalid,
            "context_length_exceeded" | "validationException" | "ValidationException" => Kind::Invalid,
            "authentication_error" | "invalid_api_key" | "UNAUTHENTICATED" => Kind::Unauthenticated,
            "permission_error" | "PERMISSION_DENIED" | "AccessDeniedException" => Kind::Forbidden,
            "not_found_error" | "model_not_found" | "NOT_FOUND" | "ResourceNotFoundException" => Kind::NotFound,
            "request_too_large" => Kind::TooLarge,
            "insufficient_quota" | "billing_error" | "ServiceQuotaExceededException" => Kind::Budget,
            "rate_limit_error" | "rate_limit_exceeded" | "tokens" | "requests" => Kind::RateLimited,
            "RESOURCE_EXHAUSTED" | "ThrottlingException" | "throttlingException" => Kind::RateLimited,
            "overloaded_error" | "overloaded" | "UNAVAILABLE" | "ServiceUnavailableException" => Kind::Overloaded,
            "serviceUnavailableException" | "ModelNotReadyException" => Kind::Overloaded,
            "timeout_error" | "timeout" | "DEADLINE_EXCEEDED" | "ModelTimeoutException" => Kind::Timeout,
            "api_error" | "server_error" | "INTERNAL" | "UNKNOWN" | "InternalServerException" => Kind::Upstream,
            "internalServerException" | "modelStreamErrorException" | "ModelErrorException" => Kind::Upstream,
            _ => return None,
        };
        Some(kind)
    }
}

/// The body of an error, as JSON. The status is what the answer will have.
pub fn body(dialect: Dialect, status: u16, kind: Kind, message: &str) -> Vec<u8> {
    let mut to = Vec::with_capacity(message.len() + 96);
    write(dialect, status, kind, message, &mut to);
    to
}

/// An error as the last event of a stream whose head has gone out: what comes after it is the end of the body.
pub fn event(dialect: Dialect, status: u16, kind: Kind, message: &str, to: &mut Vec<u8>) {
    event_after(dialect, None, status, kind, message, to);
}

/// The same after so many events, where the dialect counts them and that is known.
pub(crate) fn event_after(
    dialect: Dialect,
    events: Option<u64>,
    status: u16,
    kind: Kind,
    message: &str,
    to: &mut Vec<u8>,
) {
    match dialect {
        Dialect::OpenAiChat | Dialect::OpenAiEmbeddings | Dialect::Gemini | Dialect::GeminiEmbeddings => {
            sse::write(None, to, |to| write(dialect, status, kind, message, to));
        }
        Dialect::Anthropic => sse::write(Some("error"), to, |to| write(dialect, status, kind, message, to)),
        Dialect::OpenAiResponses => sse::write(Some("error"), to, |to| {
            Out::object(to, |error| {
                error.text("type", "error");
                if let Some(number) = events {
                    error.number("sequence_number", number);
                }
                error.text("code", openai_code(kind).unwrap_or(openai_type(kind)));
                error.text("message", message);
                error.null("param");
            });
        }),
        Dialect::Bedrock | Dialect::BedrockTitan | Dialect::BedrockCohere => {
            event_stream::write(true, bedrock_stream_exception(kind), to, |to| {
                write(dialect, status, kind, message, to);
            })
        }
    }
}

fn write(dialect: Dialect, status: u16, kind: Kind, message: &str, to: &mut Vec<u8>) {
    match dialect {
        Dialect::OpenAiChat | Dialect::OpenAiResponses | Dialect::OpenAiEmbeddings => Out::object(to, |body| {
            body.fields("error", |error| {
                error.text("message", message);
                error.text("type", openai_type(kind));
                error.null("param");
                match openai_code(kind) {
                    Some(code) => error.text("code", code),
                    None => error.null("code"),
                }
            });
        }),
        Dialect::Anthropic => Out::object(to, |body| {
            body.text("type", "error");
            body.fields("error", |error| {
                error.text("type", anthropic_type(kind));
                error.text("message", message);
            });
        }),
        Dialect::Gemini | Dialect::GeminiEmbeddings => Out::object(to, |body| {
            body.fields("error", |error| {
                error.number("code", status);
                error.text("message", message);
                error.text("status", google_status(kind));
            });
        }),
        // Which exception it is stands in a header: `bedrock_exception`.
        Dialect::Bedrock | Dialect::BedrockTitan | Dialect::BedrockCohere => {
            Out::object(to, |body| body.text("message", message));
        }
    }
}

fn openai_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Invalid | Kind::NotFound | Kind::TooLarge => "invalid_request_error",
        Kind::Unauthenticated => "authentication_error",
        Kind::Forbidden => "permission_error",
        Kind::Budget => "insufficient_quota",
        Kind::RateLimited => "rate_limit_error",
        Kind::Overloaded | Kind::Timeout | Kind::Upstream => "server_error",
    }
}

fn openai_code(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Unauthenticated => Some("invalid_api_key"),
        Kind::NotFound => Some("model_not_found"),
        Kind::Budget => Some("insufficient_quota"),
        Kind::RateLimited => Some("rate_limit_exceeded"),
        Kind::Overloaded => Some("overloaded"),
        Kind::Timeout => Some("timeout"),
        Kind::Invalid | Kind::Forbidden | Kind::TooLarge | Kind::Upstream => None,
    }
}

fn anthropic_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Invalid => "invalid_request_error",
        Kind::Unauthenticated => "authentication_error",
        Kind::Forbidden => "permission_error",
        Kind::NotFound => "not_found_error",
        Kind::TooLarge => "request_too_large",
        Kind::Budget => "billing_error",
        Kind::RateLimited => "rate_limit_error",
        Kind::Overloaded => "overloaded_error",
        Kind::Timeout => "timeout_error",
        Kind::Upstream => "api_error",
    }
}

fn google_status(kind: Kind) -> &'static str {
    match kind {
        Kind::Invalid | Kind::TooLarge => "INVALID_ARGUMENT",
        Kind::Unauthenticated => "UNAUTHENTICATED",
        Kind::Forbidden => "PERMISSION_DENIED",
        Kind::NotFound => "NOT_FOUND",
        Kind::Budget | Kind::RateLimited => "RESOURCE_EXHAUSTED",
        Kind::Overloaded => "UNAVAILABLE",
        Kind::Timeout => "DEADLINE_EXCEEDED",
        Kind::Upstream => "INTERNAL",
    }
}

/// Streams have a few exceptions only.
fn bedrock_stream_exception(kind: Kind) -> &'static str {
    match kind {
        Kind::Invalid | Kind::TooLarge | Kind::NotFound => "validationException",
        Kind::Unauthenticated | Kind::Forbidden => "validationException",
        Kind::Budget | Kind::RateLimited => "throttlingException",
        Kind::Overloaded => "serviceUnavailableException",
        Kind::Timeout => "modelStreamErrorException",
        Kind::Upstream => "internalServerException",
    }
}

/// The value of `x-amzn-errortype` that goes with a body of Bedrock's.
pub fn bedrock_exception(kind: Kind) -> &'static str {
    match kind {
        Kind::Invalid | Kind::TooLarge => "ValidationException",
        Kind::Unauthenticated | Kind::Forbidden => "AccessDeniedException",
        Kind::NotFound => "ResourceNotFoundException",
        Kind::Budget => "ServiceQuotaExceededException",
        Kind::RateLimited => "ThrottlingException",
        Kind::Overloaded => "ServiceUnavailableException",
        Kind::Timeout => "ModelTimeoutException",
        Kind::Upstream => "InternalServerException",
    }
}
