//! What callers of models are told when they are not served: in their own dialect, so that their SDK raises the error it
//! would have raised at the provider. The status and the kind of each are here alone.

use std::time::Duration;

use base::{Headers, ResponseHead, StatusCode};
use bytes::Bytes;
use ledger::{Allowance, Exhausted, Moment, Standing, Why};
use llm::error::{self, Kind};
use llm::{Dialect, Lost, Malformed};
use transport::{Body, Response};

use crate::path::Halt;
use crate::refusal::{self, Refusal};
use crate::trip::Trip;

/// Why a call to a model was not served.
#[derive(Debug)]
pub enum Failure {
    // === The caller's ===
    Malformed(Malformed),
    TooLarge(usize),
    RequestBody,
    NoModel,
    UnknownModel(String),
    /// No candidate is for calls like this.
    NothingFits,
    /// No candidate's provider speaks anything into which these words can be translated.
    NotSpoken,
    /// None of them is asked for embeddings.
    NoVectors,
    /// None of them makes vectors of so many texts at once.
    TooManyTexts {
        most: usize,
        came: usize,
    },
    /// What cannot be carried, where the document says that this is refused.
    Lost(Vec<Lost>),
    /// And when that was found.
    Budget(Box<Exhausted>, Moment),
    // === The provider's ===
    /// All keys rest, this long at least.
    Resting(Duration),
    /// There was no answer.
    Upstream(Refusal),
    /// No token came in time.
    FirstToken(Duration),
    /// An answer that is no success, in the caller's dialect by now.
    Answered {
        status: u16,
        body: Vec<u8>,
        retry_after: Option<Duration>,
    },
    /// What it said in a stream that had not begun.
    Said {
        status: u16,
        kind: Kind,
        message: String,
    },
    /// The provider does not know our key: none of the caller's business.
    KeyRefused,
    /// An answer that cannot be understood.
    Garbled,
    /// One that is larger than is taken.
    AnswerTooLarge(usize),
    /// It does not count the tokens of this model, or not for us.
    Uncounted,
    NoCandidate,
}

// === impl Failure ===

impl Failure {
    /// The answer for it, with a word in the books of the call.
    pub fn halt(self, dialect: Dialect, trip: &mut Trip) -> Halt {
        trip.note(|exchange| exchange.error = Some(self.name()));
        tracing::debug!(failure = ?self, "a call to a model is not served");
        Halt::Answer(Box::new(self.render(dialect)))
    }

    /// A stable name, for the log and the metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Failure::Malformed(_) => "model-request-malformed",
            Failure::TooLarge(_) => "content-too-large",
            Failure::RequestBody => "request-body",
            Failure::NoModel | Failure::UnknownModel(_) => "model-unknown",
            Failure::NothingFits | Failure::NoCandidate => "model-nothing-fits",
            Failure::NotSpoken | Failure::NoVectors | Failure::TooManyTexts { .. } => "model-not-spoken",
            Failure::Lost(_) => "model-lossy",
            Failure::Budget(..) => "budget-exhausted",
            Failure::Resting(_) => "provider-keys-rest",
            Failure::Upstream(refusal) => refusal.name(),
            Failure::FirstToken(_) => "first-token-timeout",
            Failure::Answered { .. } | Failure::Said { .. } => "provider-refused",
            Failure::KeyRefused => "provider-key-refused",
            Failure::Garbled => "provider-garbled",
            Failure::AnswerTooLarge(_) => "answer-too-large",
            Failure::Uncounted => "provider-refused",
        }
    }

    /// Another candidate would be told, or would say, the same.
    pub fn is_the_callers(&self) -> bool {
        match self {
            Failure::Malformed(_) | Failure::TooLarge(_) | Failure::RequestBody => true,
            // What a provider finds wrong with a request; but 404 is a model that it does not have, and 408, 409 and
            // 429 are its own state.
            Failure::Answered { status, .. } => {
                (400..500).contains(status) && !matches!(status, 401 | 402 | 403 | 404 | 408 | 409 | 425 | 429)
            }
            _ => false,
        }
    }

    fn render(self, dialect: Dialect) -> Response {
        let retry_after = self.retry_after();
        let (status, body) = match self {
            Failure::Answered { status, body, .. } => (status, body),
            other => {
                let (status, kind, message) = other.words();
                (status, error::body(dialect, status, kind, &message))
            }
        };
        let mut head = ResponseHead::new(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY));
        head.headers.append("content-type", "application/json");
        head.headers.append("cache-control", "no-store");
        if let Some(wait) = retry_after {
            head.headers.append("retry-after", seconds(wait));
        }
        Response::new(head, Body::from(body))
    }

    pub fn words(&self) -> (u16, Kind, String) {
        match self {
            Failure::Malformed(malformed) => (400, Kind::Invalid, malformed.to_string()),
            Failure::TooLarge(most) => {
                (413, Kind::TooLarge, format!("the request's body is larger than the {most} bytes that are taken here"))
            }
            Failure::RequestBody => (400, Kind::Invalid, "the request's body did not arrive".into()),
            Failure::NoModel => {
                (400, Kind::Invalid, "`model` is missing; expected the name of one, see /v1/models".into())
            }
            Failure::UnknownModel(name) => {
                (404, Kind::NotFound, format!("the model `{name}` does not exist here; /v1/models lists those that do"))
            }
            Failure::NothingFits | Failure::NoCandidate => {
                (400, Kind::Invalid, "no provider of this model takes calls like this one".into())
            }
            Failure::NotSpoken => {
                (400, Kind::Invalid, "no provider of this model can be asked this in these words".into())
            }
            Failure::NoVectors => (
                400,
                Kind::Invalid,
                "no provider of this model is asked for embeddings here; expected one that makes them in OpenAI's or Gemini's \
                 words, such as openai, azure, gemini, mistral or cohere, or of bedrock a text model of Titan's or Cohere's"
                    .into(),
            ),
            Failure::TooManyTexts { most, came } => {
                let texts = if *most == 1 { "one text".to_owned() } else { format!("at most {most} texts") };
                let message = format!("{came} texts are asked for; the provider of this model takes {texts} in a call");
                (400, Kind::Invalid, message)
            }
            Failure::Lost(lost) => {
                let names: Vec<String> = lost.iter().map(ToString::to_string).collect();
                let message = format!("the provider of this model cannot be told {}", names.join(", "));
                (400, Kind::Invalid, message)
            }
            Failure::Budget(exhausted, _) => match (exhausted.why, exhausted.allowance) {
                (Why::Unbooked | Why::Crowded | Why::Unlent | Why::Away, _) => {
                    (503, Kind::Overloaded, exhausted.to_string())
                }
                (_, Allowance::Money(_)) => (402, Kind::Budget, exhausted.to_string()),
                (_, Allowance::Tokens(_) | Allowance::Calls(_)) => (429, Kind::Budget, exhausted.to_string()),
            },
            Failure::Resting(wait) => (
                429,
                Kind::RateLimited,
                format!("the provider's limits are reached; try again in {} s", seconds(*wait)),
            ),
            Failure::Upstream(refusal) => {
                let (status, title) = refusal::words(refusal);
                (status.as_u16(), Kind::of_status(status.as_u16()), title.to_owned())
            }
            Failure::FirstToken(wait) => {
                (504, Kind::Timeout, format!("the provider sent no token within {} s", seconds(*wait)))
            }
            Failure::Answered { status, .. } => (*status, Kind::of_status(*status), "the provider refused".into()),
            Failure::Said { status, kind, message } => (*status, *kind, message.clone()),
            Failure::KeyRefused => (502, Kind::Upstream, "the provider does not take this gateway's key".into()),
            Failure::Garbled => (502, Kind::Upstream, "the provider's answer cannot be understood".into()),
            Failure::AnswerTooLarge(most) => {
                (502, Kind::Upstream, format!("the provider's answer is larger than {most} bytes"))
            }
            Failure::Uncounted => (502, Kind::Upstream, "the provider does not count the tokens of this model".into()),
        }
    }

    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Failure::Resting(wait) => Some(*wait),
            Failure::Answered { retry_after, .. } => *retry_after,
            Failure::Upstream(refusal) => refusal.retry_after(),
            Failure::Budget(exhausted, now) => match exhausted.why {
                Why::Unlent | Why::Away => Some(Duration::from_secs(1)),
                Why::Spent | Why::Unbooked | Why::Crowded => exhausted.renews.map(|at| now.until(at)),
                Why::TooLarge => None,
            },
            _ => None,
        }
    }
}

/// The answer to a call that a policy or the path refused, with its fields as they are and its body in the caller's
/// dialect.
pub fn in_dialect(refusal: &Refusal, mut response: Response, dialect: Dialect) -> Response {
    let (status, title) = refusal::words(refusal);
    let body = error::body(dialect, status.as_u16(), Kind::of_status(status.as_u16()), title);
    response.head.headers.set("content-type", "application/json");
    if dialect == Dialect::Bedrock {
        response.head.headers.set("x-amzn-errortype", error::bedrock_exception(Kind::of_status(status.as_u16())));
    }
    response.body = Body::from(Bytes::from(body));
    response
}

/// A budget that is nearly spent, as a field: `research;spent="8.2 USD";of="10 USD";renews="2026-12-01T00:00:00Z"`.
pub fn warning(standing: &Standing) -> String {
    let Standing { budget, spent, allowance, renews, .. } = standing;
    let renews = renews.map(|at| format!(";renews=\"{at}\"")).unwrap_or_default();
    format!("{budget};spent=\"{spent}\";of=\"{allowance}\"{renews}")
}

/// Whole seconds, at least one.
fn seconds(wait: Duration) -> String {
    wait.as_secs_f64().ceil().max(1.0).to_string()
}

/// `Retry-After` in seconds, as providers send it; and OpenAI's in milliseconds, which is finer.
pub fn retry_after(headers: &Headers) -> Option<Duration> {
    let number =
        |name: &str| headers.get_str(name)?.trim().parse::<f64>().ok().filter(|it| it.is_finite() && *it >= 0.0);
    let millis = number("retry-after-ms").map(|millis| millis / 1000.0);
    millis.or_else(|| number("retry-after")).map(|seconds| Duration::from_secs_f64(seconds.min(86_400.0)))
}
