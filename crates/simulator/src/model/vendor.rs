//! What is a vendor's own and the same for all of its services: the key, the errors, the headers.

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};

use crate::answer::{Answer, full, typed};
use crate::model::ask::{Form, Wrong};
use crate::model::piece::now_s;
use crate::model::play::Plan;
use crate::model::said;
use crate::model::target::{Service, Target};
use crate::rest::query_of;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vendor {
    OpenAi,
    Anthropic,
    Gemini,
    Bedrock,
}

impl Vendor {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
            Self::Bedrock => "bedrock",
        }
    }
}

/// What the caller shows of itself. A key that begins with `wrong` is nobody's.
pub(crate) fn key(target: &Target, head: &Parts) -> Option<String> {
    let headers = &head.headers;
    let authorization = said(headers, "authorization");
    let bearer = authorization.strip_prefix("Bearer ").filter(|key| !key.is_empty());
    let header = |name| Some(said(headers, name)).filter(|key| !key.is_empty());
    let key = match target.vendor {
        Vendor::OpenAi => bearer.or_else(|| header("api-key")),
        Vendor::Anthropic => header("x-api-key").or(bearer),
        Vendor::Gemini => header("x-goog-api-key").or_else(|| query_of(&head.uri, "key")).or(bearer),
        Vendor::Bedrock => bearer.or_else(|| {
            let credential = authorization.strip_prefix("AWS4-HMAC-SHA256 ")?.split("Credential=").nth(1)?;
            credential.split('/').next()
        }),
    };
    key.filter(|key| !key.starts_with("wrong")).map(str::to_owned)
}

/// An error in place of an answer.
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    message: String,
    field: Option<&'static str>,
    code: Option<&'static str>,
    retry_after: Option<u64>,
    /// The model and the tag of the call that is refused, for the books.
    pub(crate) call: Option<Box<(String, Option<String>)>>,
}

impl From<Wrong> for Refusal {
    fn from(wrong: Wrong) -> Self {
        Self { field: Some(wrong.field), ..Self::new(StatusCode::BAD_REQUEST, wrong.message) }
    }
}

impl Refusal {
    fn new(status: StatusCode, message: String) -> Self {
        Self { status, message, field: None, code: None, retry_after: None, call: None }
    }

    pub(crate) fn wrong(message: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(crate) fn no_key(vendor: Vendor) -> Self {
        match vendor {
            Vendor::OpenAi => {
                let code = Some("invalid_api_key");
                Self { code, ..Self::new(StatusCode::UNAUTHORIZED, "Incorrect API key provided.".into()) }
            }
            Vendor::Anthropic => Self::new(StatusCode::UNAUTHORIZED, "invalid x-api-key".into()),
            Vendor::Gemini => {
                let code = Some("API_KEY_INVALID");
                let message = "API key not valid. Please pass a valid API key.".into();
                Self { code, ..Self::new(StatusCode::BAD_REQUEST, message) }
            }
            Vendor::Bedrock => {
                let code = Some("UnrecognizedClientException");
                let message = "The security token included in the request is invalid.".into();
                Self { code, ..Self::new(StatusCode::FORBIDDEN, message) }
            }
        }
    }

    pub(crate) fn bad_signature(message: String) -> Self {
        Self { code: Some("InvalidSignatureException"), ..Self::new(StatusCode::FORBIDDEN, message) }
    }

    pub(crate) fn no_model(vendor: Vendor, model: &str) -> Self {
        let message = match vendor {
            Vendor::OpenAi => format!("The model `{model}` does not exist or you do not have access to it."),
            Vendor::Anthropic => format!("model: {model}"),
            Vendor::Gemini => format!("models/{model} is not found for API version v1beta."),
            Vendor::Bedrock => "The provided model identifier is invalid.".into(),
        };
        Self { code: Some("model_not_found"), ..Self::new(StatusCode::NOT_FOUND, message) }
    }

    pub(crate) fn asked(vendor: Vendor, status: StatusCode, retry_after: Option<u64>) -> Self {
        if status == StatusCode::UNAUTHORIZED {
            return Self::no_key(vendor);
        }
        let message = match status.as_u16() {
            429 => "Rate limit reached: the simulator was asked to say so.",
            529 | 503 => "Overloaded",
            _ => "The simulator was asked for this error.",
        };
        Self { retry_after, ..Self::new(status, message.into()) }
    }

    pub(crate) fn of(self, model: &str, tag: Option<&str>) -> Self {
        Self { call: Some(Box::new((model.to_owned(), tag.map(str::to_owned)))), ..self }
    }

    pub(crate) fn answer(&self, target: &Target, id: &str) -> Answer {
        let mut body = error(target.vendor, self.status, &self.message, (self.field, self.code), id);
        if target.service == Service::Content && target.form == Form::Array {
            body = json!([body]);
        }
        let mut answer = typed(self.status, "application/json", full(body.to_string()));
        let headers = answer.headers_mut();
        request_id(target.vendor, headers, id);
        if target.vendor == Vendor::Bedrock {
            let name = self.code.filter(|_| self.status == StatusCode::FORBIDDEN);
            put(headers, "x-amzn-errortype", name.unwrap_or(bedrock_error(self.status)));
        }
        if let Some(after) = self.retry_after {
            put(headers, "retry-after", &after.to_string());
        }
        answer
    }
}

/// An error in the vendor's words.
pub(crate) fn error(
    vendor: Vendor,
    status: StatusCode,
    message: &str,
    (field, code): (Option<&str>, Option<&str>),
    id: &str,
) -> Value {
    match vendor {
        Vendor::OpenAi => {
            let (kind, usual) = match status.as_u16() {
                400..=404 | 409 | 413 | 422 => ("invalid_request_error", None),
                429 => ("requests", Some("rate_limit_exceeded")),
                503 => ("service_unavailable_error", None),
                _ => ("server_error", None),
            };
            json!({"error": {"message": message, "type": kind, "param": field, "code": code.or(usual)}})
        }
        Vendor::Anthropic => {
            let kind = match status.as_u16() {
                401 => "authentication_error",
                402 => "billing_error",
                403 => "permission_error",
                404 => "not_found_error",
                413 => "request_too_large",
                429 => "rate_limit_error",
                504 => "timeout_error",
                529 | 503 => "overloaded_error",
                500.. => "api_error",
                _ => "invalid_request_error",
            };
            json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": format!("req_{id}")})
        }
        Vendor::Gemini => {
            let kind = match status.as_u16() {
                401 => "UNAUTHENTICATED",
                403 => "PERMISSION_DENIED",
                404 => "NOT_FOUND",
                429 => "RESOURCE_EXHAUSTED",
                499 => "CANCELLED",
                503 | 529 => "UNAVAILABLE",
                504 => "DEADLINE_EXCEEDED",
                500.. => "INTERNAL",
                _ => "INVALID_ARGUMENT",
            };
            let mut error = json!({"code": status.as_u16(), "message": message, "status": kind});
            if let Some(code) = code.filter(|code| *code == "API_KEY_INVALID") {
                error["details"] = json!([{
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": code, "domain": "googleapis.com",
                }]);
            }
            json!({"error": error})
        }
        Vendor::Bedrock => json!({"message": message}),
    }
}

pub(crate) fn bedrock_error(status: StatusCode) -> &'static str {
    match status.as_u16() {
        403 => "AccessDeniedException",
        404 => "ResourceNotFoundException",
        408 => "ModelTimeoutException",
        424 => "ModelErrorException",
        429 => "ThrottlingException",
        503 | 529 => "ServiceUnavailableException",
        500.. => "InternalServerException",
        _ => "ValidationException",
    }
}

const REQUESTS: u64 = 10_000;
const TOKENS: u64 = 2_000_000;

/// Those of an answer. The limits are never reached: what they say is left is what the call's words say.
pub(crate) fn headers(target: &Target, headers: &mut HeaderMap, id: &str, plan: &Plan) {
    request_id(target.vendor, headers, id);
    if plan.stream {
        put(headers, "cache-control", "no-cache");
    }
    let requests = plan.remaining_requests.unwrap_or(REQUESTS - 1);
    let used = u64::from(plan.usage.input + plan.usage.output);
    let tokens = plan.remaining_tokens.unwrap_or(TOKENS.saturating_sub(used));
    match target.vendor {
        Vendor::OpenAi => {
            put(headers, "openai-version", "2020-10-01");
            put(headers, "openai-organization", "simulator");
            put(headers, "openai-processing-ms", &plan.first.as_millis().to_string());
            put(headers, "x-ratelimit-limit-requests", &REQUESTS.to_string());
            put(headers, "x-ratelimit-limit-tokens", &TOKENS.to_string());
            put(headers, "x-ratelimit-remaining-requests", &requests.to_string());
            put(headers, "x-ratelimit-remaining-tokens", &tokens.to_string());
            put(headers, "x-ratelimit-reset-requests", "6ms");
            put(headers, "x-ratelimit-reset-tokens", "1m0s");
        }
        Vendor::Anthropic => {
            put(headers, "anthropic-organization-id", "simulator");
            let reset = timestamp(now_s() + 60);
            for (what, limit, left) in [
                ("requests", REQUESTS, requests),
                ("tokens", TOKENS, tokens),
                ("input-tokens", TOKENS, tokens),
                ("output-tokens", TOKENS, tokens),
            ] {
                put(headers, &format!("anthropic-ratelimit-{what}-limit"), &limit.to_string());
                put(headers, &format!("anthropic-ratelimit-{what}-remaining"), &left.to_string());
                put(headers, &format!("anthropic-ratelimit-{what}-reset"), &reset);
            }
        }
        Vendor::Bedrock if target.service == Service::Invoke => {
            put(headers, "x-amzn-bedrock-invocation-latency", "1");
            put(headers, "x-amzn-bedrock-input-token-count", &plan.usage.input.to_string());
        }
        // These two tell nothing of the kind.
        Vendor::Gemini | Vendor::Bedrock => {}
    }
}

fn request_id(vendor: Vendor, headers: &mut HeaderMap, id: &str) {
    match vendor {
        Vendor::OpenAi => put(headers, "x-request-id", &format!("req_{id}")),
        Vendor::Anthropic => put(headers, "request-id", &format!("req_{id}")),
        Vendor::Gemini => put(headers, "server-timing", "gfet4t7; dur=1"),
        Vendor::Bedrock => put(headers, "x-amzn-requestid", id),
    }
}

fn put(headers: &mut HeaderMap, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
        headers.insert(name, value);
    }
}

/// RFC 3339. Years begin in March, so that the leap day is the last of its year.
pub(crate) fn timestamp(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let (day, month) = (day_of_year - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = era * 400 + year + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    #[test]
    fn timestamps() {
        assert_eq!(super::timestamp(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(super::timestamp(1_764_003_661), "2025-11-24T17:01:01Z");
    }
}
