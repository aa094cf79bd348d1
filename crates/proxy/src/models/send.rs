//! One candidate: the call in its provider's words, sent with one key after another, and what came back.

use std::time::Duration;

use base::{Call, Headers, Method, RequestHead, ResponseHead, Secret, Time, Version};
use bytes::Bytes;
use llm::catalogue::KeyPlace;
use llm::translate::{self, Refused};
use llm::{Dialect, Lost, Operation, Splice, sigv4};
use transport::{Body, Frame, Response};

use super::books::Account;
use super::choose::Chosen;
use super::keep::Note;
use super::stream::Streamed;
use super::understand::Asked;
use super::words::{self, Failure};
use super::{Place, answer};
use crate::attempt::{self, Way};
use crate::refusal::Refusal;
use crate::trip::Trip;

pub enum Tried {
    Served(Response),
    Failed { failure: Failure, account: Account },
}

/// The call in the words of one provider.
struct Request {
    head: RequestHead,
    body: Bytes,
    lost: Vec<Lost>,
    hide_usage: bool,
    model: String,
}

/// Tries one candidate, with each of its keys that does not rest at most once.
pub async fn try_candidate(
    place: &Place<'_>,
    asked: &Asked,
    chosen: &Chosen,
    last_resort: bool,
    call: &mut Call,
    trip: &mut Trip,
    mut account: Account,
) -> Tried {
    let (candidate, states) = (&*chosen.candidate, &place.local.generation.models);
    let (provider, state) = (&states.providers[candidate.provider.index], &states.candidates[candidate.index]);
    let mut request = match request(asked, chosen, call) {
        Ok(request) => request,
        Err(failure) => return Tried::Failed { failure, account },
    };
    let keys = candidate.provider.keys.len().max(1);
    let mut failure = Failure::NoCandidate;
    for _ in 0..keys {
        let now = Time::now();
        let key = match provider.key(now) {
            Ok(key) => key,
            // Where there is nobody else to ask, the provider may have its say.
            Err((key, _)) if last_resort && matches!(failure, Failure::NoCandidate) => key,
            Err((_, wait)) => {
                // What the provider itself said of it, if it was asked just now, says more.
                if matches!(failure, Failure::NoCandidate) {
                    failure = Failure::Resting(wait);
                }
                break;
            }
        };
        account.tries(place, candidate, &request.model);
        if let Err(unsigned) = sign(&mut request, chosen, key, call) {
            return Tried::Failed { failure: unsigned, account };
        }
        let began = Time::now();
        let response = match send(place, chosen, &request, call, trip).await {
            Ok(response) => response,
            Err(refusal) => {
                state.failed(Time::now());
                // Where the request may have arrived, the provider may charge for it.
                let asked = matches!(refusal, Refusal::BadGateway | Refusal::Timeout);
                let account = if asked { account.garbled() } else { account.unanswered() };
                return Tried::Failed { account, failure: Failure::Upstream(refusal) };
            }
        };
        note_room(provider, key, &response.head.headers);
        let status = response.head.status.as_u16();
        if response.head.status.is_success() {
            return served(place, asked, chosen, request, response, began, trip, account).await;
        }
        let refused = answer::refused(asked, chosen, response, place.llm.answer).await;
        account = account.unanswered();
        let said = match &refused {
            Failure::Answered { body, .. } => &body[..],
            _ => &[],
        };
        if asked.target.operation == Operation::CountTokens && candidate.provider.row.says_uncounted(status, said) {
            return Tried::Failed { failure: Failure::Uncounted, account };
        }
        match status {
            429 => provider.exhausted(key, refused.retry_after(), Time::now()),
            401 | 403 => {
                tracing::warn!(provider = %candidate.provider.name, status, "a key was refused");
                provider.refused(key, Time::now());
            }
            408 | 500.. => state.failed(Time::now()),
            _ => {}
        }
        failure = if matches!(status, 401 | 403) { Failure::KeyRefused } else { refused };
        if !matches!(status, 401 | 403 | 429) {
            break;
        }
    }
    Tried::Failed { failure, account }
}

/// A success: a stream from its first token on, or an answer that is whole.
#[allow(clippy::too_many_arguments)]
async fn served(
    place: &Place<'_>,
    asked: &Asked,
    chosen: &Chosen,
    request: Request,
    response: Response,
    began: Time,
    trip: &mut Trip,
    account: Account,
) -> Tried {
    let (caller, spoken) = (asked.target.dialect, chosen.speaks.dialect);
    let state = place.local.generation.models.candidates[chosen.candidate.index].clone();
    let Response { head, body, .. } = response;
    let tokens = spoken.tokens_field().and_then(|field| head.headers.get_str(field)?.trim().parse().ok());
    let is_stream = match head.headers.media_type() {
        Some(kind) => kind.eq_ignore_ascii_case(spoken.stream_type()),
        None => asked.stream,
    };
    // Whoever waits for events cannot read an answer that is whole, nor the other way round.
    if is_stream != asked.stream {
        state.failed(Time::now());
        return Tried::Failed { failure: Failure::Garbled, account: account.garbled() };
    }
    let mut head = told(head, caller == spoken);
    head.headers.set("weir-model", [&*chosen.candidate.provider.name, "/", &request.model].concat());
    for standing in account.standings().iter().filter(|it| it.warns.is_some()) {
        head.headers.append("weir-budget", words::warning(standing));
    }
    if !request.lost.is_empty() {
        head.headers.set("weir-lost", lost(&request.lost));
    }
    let note = Note {
        dialect: spoken,
        stream: is_stream,
        provider: chosen.candidate.provider.name.clone(),
        model: request.model.as_str().into(),
        price: account.price(),
        prompt: account.prompt(),
        lost: head.headers.get("weir-lost").map(|lost| (caller, lost.into())),
        similarity: None,
    };
    if !is_stream {
        return answer::whole(place, asked, chosen, head, body, tokens, account, &state, began, note).await;
    }
    let (id, now) = place.named();
    let options = llm::stream::Options {
        hide_usage: request.hide_usage,
        model: &asked.name,
        id: &id,
        now,
        max_event: place.llm.answer,
    };
    let Some(stream) = llm::Stream::new(caller, spoken, &options) else {
        return Tried::Failed { failure: Failure::NotSpoken, account };
    };
    let keeps = asked.keep.take();
    if let Some(keep) = &keeps {
        keep.status(head.status).write(&mut head.headers);
    }
    let streamed = Streamed::new(body, stream, account, state.clone(), began, keeps, note);
    let patience = shorter(chosen.candidate.first_token, chosen.candidate.forward.timeouts.idle);
    match streamed.until_first(trip.timers(), patience).await {
        Ok(streamed) => {
            if let Some(first) = streamed.first_token() {
                trip.mark(awareness::Stamp::FirstToken, first);
            }
            head.headers.set("content-type", caller.stream_type());
            Tried::Served(Response::new(head, Body::Source(streamed)))
        }
        Err((failure, account, keep)) => {
            state.failed(Time::now());
            asked.keep.set(keep);
            Tried::Failed { failure, account }
        }
    }
}

fn shorter(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

async fn send(
    place: &Place<'_>,
    chosen: &Chosen,
    request: &Request,
    call: &mut Call,
    trip: &mut Trip,
) -> Result<Response, Refusal> {
    let Place { worker, local, listener, found, .. } = *place;
    let way = Way { worker, local, listener, forward: &chosen.candidate.forward, found, upgrade: None };
    // The policies on the way back, and the next candidate, see the call as it came.
    let came = std::mem::replace(&mut call.head, request.head.clone());
    let mut body = Body::from(request.body.clone());
    let answer = attempt::send(way, call, &mut body, trip).await;
    call.head = came;
    answer
}

// === In the provider's words ===

fn request(asked: &Asked, chosen: &Chosen, call: &Call) -> Result<Request, Failure> {
    let (caller, spoken) = (asked.target.dialect, chosen.speaks.dialect);
    let model = chosen.candidate.model_for(&asked.rest).into_owned();
    // Without it the books would have to guess.
    let include_usage = spoken == Dialect::OpenAiChat && asked.stream && chosen.candidate.provider.row.tells_usage;
    let (body, lost) = if caller == spoken {
        let splice = Splice { model: Some(&model), include_usage };
        let body = match llm::splice(&asked.body, &asked.peek, &splice) {
            std::borrow::Cow::Borrowed(_) => asked.body.clone(),
            std::borrow::Cow::Owned(body) => Bytes::from(body),
        };
        (body, Vec::new())
    } else {
        let options = translate::Options {
            model: &model,
            strict: asked.model.strict,
            stream: asked.stream,
            include_usage,
            max_output: Some(chosen.candidate.max_output).filter(|most| *most > 0),
            count: asked.target.operation == Operation::CountTokens,
            quirks: chosen.candidate.provider.row.quirks,
            ..translate::Options::default()
        };
        let translated =
            translate::request(caller, spoken, &asked.body, &options).map_err(|refused| match refused {
                Refused::Malformed(malformed) => Failure::Malformed(malformed),
                Refused::Lost(lost) => Failure::Lost(lost),
                Refused::Pair(..) => Failure::NotSpoken,
            })?;
        (Bytes::from(translated.body), translated.lost)
    };
    let target = chosen.speaks.target(&asked.target, &model, asked.stream).ok_or(Failure::NotSpoken)?;
    let mut headers = Headers::with_capacity(512);
    if caller == spoken {
        for (name, value) in call.head.headers.iter().filter(|(name, _)| is_for_the_provider(name)) {
            headers.append(name, value);
        }
    }
    headers.set("content-type", "application/json");
    for (name, value) in chosen.candidate.provider.row.headers {
        if !headers.contains(name) {
            headers.append(name, *value);
        }
    }
    let hide_usage = asked.hides_usage();
    let head = RequestHead {
        method: Method::POST,
        scheme: call.head.scheme,
        authority: call.head.authority.clone(),
        target,
        version: Version::HTTP_11,
        headers,
    };
    Ok(Request { head, body, lost, hide_usage, model })
}

/// What a caller says to a provider of its own dialect: versions, betas, ids. Nothing by which it is known to us, and
/// nothing that would have the answer come so that it cannot be read.
fn is_for_the_provider(name: &str) -> bool {
    const OURS: [&str; 15] = [
        "authorization",
        "x-api-key",
        "api-key",
        "x-goog-api-key",
        "cookie",
        "accept-encoding",
        "content-length",
        "content-type",
        "content-encoding",
        "expect",
        "forwarded",
        "via",
        "x-real-ip",
        "openai-organization",
        "openai-project",
    ];
    !OURS.iter().any(|ours| name.eq_ignore_ascii_case(ours))
        && !name.get(..12).is_some_and(|begin| begin.eq_ignore_ascii_case("x-forwarded-"))
}

fn sign(request: &mut Request, chosen: &Chosen, key: usize, call: &Call) -> Result<(), Failure> {
    let provider = &chosen.candidate.provider;
    let Some(key) = provider.keys.get(key) else { return Ok(()) };
    let secret = key.secret.expose();
    match provider.row.key {
        KeyPlace::Bearer => request.head.headers.set("authorization", [b"Bearer ", secret].concat()),
        KeyPlace::Field(name) => request.head.headers.set(name, secret),
        KeyPlace::Signature(service) => {
            let text = String::from_utf8_lossy(secret);
            let mut parts = text.splitn(3, ':');
            let mut part = || parts.next().unwrap_or_default();
            let credentials = sigv4::Credentials {
                id: part().to_owned(),
                secret: Secret::new(part().as_bytes()),
                session_token: Some(part()).filter(|it| !it.is_empty()).map(|it| Secret::new(it.as_bytes())),
            };
            let endpoint = chosen.candidate.forward.split.first().and_then(|it| it.upstream.endpoints.first());
            let Some(endpoint) = endpoint else { return Err(Failure::KeyRefused) };
            // As it will be sent: what the endpoint's URL has in its path stands before it.
            let path_and_query = format!("{}{}", endpoint.base_path, request.head.target);
            let signed = sigv4::Request {
                method: "POST",
                host: &endpoint.authority,
                path_and_query: &path_and_query,
                headers: &[("content-type", "application/json")],
                body: &request.body,
            };
            let region = provider.region.as_deref().unwrap_or("us-east-1");
            let now = call.wall.duration_since(std::time::UNIX_EPOCH).map_or(0, |it| it.as_secs());
            for (name, value) in sigv4::sign(&credentials, region, service, now, &signed) {
                request.head.headers.set(name, value);
            }
        }
    }
    Ok(())
}

// === What came back ===

/// The head as the caller sees it. Of a provider of its own dialect it learns what is not about our account there.
fn told(head: ResponseHead, same: bool) -> ResponseHead {
    let mut told = ResponseHead::new(head.status);
    for (name, value) in head.headers.iter() {
        if name.eq_ignore_ascii_case("content-type") || (same && is_for_the_caller(name)) {
            told.headers.append(name, value);
        }
    }
    told
}

fn is_for_the_caller(name: &str) -> bool {
    const OURS: [&str; 9] = [
        "content-length",
        "set-cookie",
        "openai-organization",
        "openai-project",
        "server",
        "alt-svc",
        "strict-transport-security",
        "date",
        "retry-after",
    ];
    let name = name.as_bytes();
    let has = |part: &[u8]| name.windows(part.len()).any(|it| it.eq_ignore_ascii_case(part));
    !OURS.iter().any(|ours| name.eq_ignore_ascii_case(ours.as_bytes()))
        && !has(b"ratelimit")
        && !name.get(..3).is_some_and(|begin| begin.eq_ignore_ascii_case(b"cf-"))
}

/// Names of what was lost, as far as a field should be long.
fn lost(lost: &[Lost]) -> String {
    const MOST: usize = 1024;
    let mut field = String::new();
    for (at, one) in lost.iter().enumerate() {
        let one = one.to_string();
        if field.len() + one.len() + 2 > MOST {
            field.push_str(&format!(", and {} more", lost.len() - at));
            break;
        }
        if at > 0 {
            field.push_str(", ");
        }
        // Keys come from the caller; a field takes only what can be printed.
        field.extend(one.chars().map(|it| if it.is_ascii_graphic() { it } else { '?' }));
    }
    field
}

/// What a provider says is left of what our key may ask for, whichever of its two kinds is less.
fn note_room(provider: &super::state::ProviderState, key: usize, headers: &Headers) {
    let number = |name: &str| headers.get_str(name)?.trim().parse::<f64>().ok();
    let mut least = None::<f64>;
    for (limit, left) in [
        ("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests"),
        ("x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens"),
        ("anthropic-ratelimit-requests-limit", "anthropic-ratelimit-requests-remaining"),
        ("anthropic-ratelimit-tokens-limit", "anthropic-ratelimit-tokens-remaining"),
    ] {
        if let (Some(limit), Some(left)) = (number(limit), number(left))
            && limit > 0.0
        {
            let part = left / limit;
            least = Some(least.map_or(part, |least| least.min(part)));
        }
    }
    if let Some(left) = least {
        // Both count by the minute.
        provider.told(key, left, Duration::from_secs(60), Time::now());
    }
}

/// A body read whole, up to a bound.
pub async fn read(body: &mut Body, most: usize) -> Result<Bytes, Failure> {
    let mut pieces: Vec<Bytes> = Vec::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(Frame::Data(data)) => {
                length += data.len();
                if length > most {
                    return Err(Failure::AnswerTooLarge(most));
                }
                pieces.push(data);
            }
            Ok(Frame::Trailers(_)) => {}
            Err(_) => return Err(Failure::Upstream(Refusal::BadGateway)),
        }
    }
    Ok(match pieces.len() {
        1 => pieces.swap_remove(0),
        _ => Bytes::from(pieces.concat()),
    })
}
