//! The stage "already known" of calls to models: an answer that is kept is given again, in the words of who asks and as a
//! stream if one is wanted; else one call asks a provider for all that want the same.
//!
//! Which requests are the same is decided in [`llm::identity`], what an answer becomes in [`llm::again`], where answers lie
//! and who waits for whom in the crate `cache`; here it is done. A given answer takes nothing of any budget and is booked as
//! what it saved.

use std::sync::Arc;
use std::time::Duration;

use awareness::Cached;
use aws_lc_rs::digest::{Context, SHA256};
use base::{Call, ResponseHead, StatusCode, Time};
use cache::{Asks, Boarded, Entry, Fit, Found, Joined, Key, Reader};
use ledger::Outcome;
use llm::Operation;
use llm::again::{self, Given, Kept};
use llm::identity::{Apart, Identity, identity};
use policy::AnswerCache;
use transport::{Body, Response};

use super::Place;
use super::books::Saving;
use super::keep::{ForOthers, Keep, Note};
use super::near::{self, Near, Question};
use super::replay::Replay;
use super::understand::Asked;
use super::words::Failure;
use crate::known::status::{Forwarded, Status};
use crate::refusal::Refusal;
use crate::trip::Trip;

/// What is known of a call before any provider is asked.
pub enum Known {
    Given(Response),
    Ask(Box<Keep>),
}

/// How long one waits for somebody else's first token, where the document does not bound that.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often one looks again whether the others' core is done with the shard, first at once and then after a nap each: a thread
/// that is stopped with the lock is back within a few slices of the kernel's, and to ask a provider twice takes longer.
const TURNS: u32 = 16;
const NAPS: u32 = 10;
const NAP: Duration = Duration::from_millis(2);

/// An answer that is kept, or that another call has just asked for; or what is to be done with that of a provider.
pub async fn look(
    place: &Place<'_>,
    cache: &AnswerCache,
    asked: &Asked,
    call: &Call,
    trip: &mut Trip,
) -> Result<Known, Failure> {
    let bypass = |why, detail, trip: &mut Trip| {
        trip.cached(Cached::Bypass);
        Ok(Known::Ask(Box::new(Keep { why, detail, for_others: None })))
    };
    let asks = Asks::of(&call.head.headers);
    let Some(by) = cache.applies(call) else { return bypass(Forwarded::Bypass, None, trip) };
    if asks.no_store {
        return bypass(Forwarded::Request, None, trip);
    }
    let found = match identity(asked.target.dialect, asked.target.operation, &asked.body, asked.stream) {
        Ok(identity) if cache.coldest && !identity.coldest => Err("temperature"),
        Ok(identity) => Ok(identity),
        Err(apart) => Err(word(apart)),
    };
    let identity = match found {
        Ok(identity) => identity,
        Err(detail) => return bypass(Forwarded::Bypass, Some(detail), trip),
    };
    let owner = cache.owner(call, identity.user.as_deref());
    let key = key(place, asked, &identity, owner.as_deref(), &by, call);

    let store = &place.worker.store;
    let found = store.find(&mut place.worker.front.borrow_mut(), &key, &call.head.headers, false);
    let mut why = Forwarded::Miss;
    if let Found::Entry(entry) = found {
        match entry.fit(&asks, call.now) {
            Fit::Fresh => {
                let (status, cached) = hit(&entry, call.now);
                if let Some(response) = given(place, asked, call, trip, &entry, status).await {
                    trip.cached(cached);
                    return Ok(Known::Given(response));
                }
            }
            _ if entry.age(call.now) < entry.plan.lifetime => why = Forwarded::Request,
            _ => why = Forwarded::Stale,
        }
    }
    if asks.only_if_cached {
        return Err(Failure::Upstream(Refusal::NotStored));
    }
    let candidate = asked.model.candidates.first();
    let patience = candidate.and_then(|it| it.forward.timeouts.first_byte).unwrap_or(PATIENCE);
    let mut apart = asks.no_cache;
    let (mut turns, mut naps) = (TURNS, NAPS);
    let ticket = loop {
        let flight = match store.board(&key, apart, Time::now()) {
            Boarded::Lead(ticket) => {
                // Whoever had it on the way may have landed between the look and the lead.
                let again = store.find(&mut place.worker.front.borrow_mut(), &key, &call.head.headers, false);
                let landed = match again {
                    Found::Entry(entry) if !apart && entry.fit(&asks, Time::now()) == Fit::Fresh => entry,
                    _ => break Some(ticket),
                };
                let (status, cached) = hit(&landed, Time::now());
                let Some(response) = given(place, asked, call, trip, &landed, status).await else {
                    break Some(ticket);
                };
                ticket.found(landed);
                trip.cached(cached);
                return Ok(Known::Given(response));
            }
            // Another core is at it for a moment; a provider is far enough to look again.
            Boarded::Alone if turns > 0 => {
                turns -= 1;
                tokio::task::yield_now().await;
                continue;
            }
            // Or it was stopped in the middle of that: the kernel gave its core to somebody else.
            Boarded::Alone if naps > 0 => {
                naps -= 1;
                tokio::time::sleep(NAP).await;
                continue;
            }
            Boarded::Alone => break None,
            Boarded::Follow(flight) => flight,
        };
        let joined = tokio::time::timeout(patience, flight.join()).await.unwrap_or(Joined::Alone);
        let now = Time::now();
        let status = Status::collapsed(why);
        let followed = match joined {
            Joined::Entry(entry) if entry.fit(&asks, now) == Fit::Fresh => {
                given(place, asked, call, trip, &entry, status).await
            }
            Joined::Stream(head, reader) => along(place, asked, call, trip, &head, reader, status).await,
            // One of those who waited goes in its place.
            Joined::Again => continue,
            _ => None,
        };
        if let Some(response) = followed {
            trip.cached(Cached::Collapsed);
            return Ok(Known::Given(response));
        }
        // At once, and whatever the others do: waiting again would be waiting in a row.
        apart = true;
    };
    let mut remember = None;
    if let (Some(semantic), Some(said), false) = (&cache.semantic, &identity.said, asks.no_cache) {
        let around = digest(asked, &said.around, &by, call);
        let question = Question { semantic, said: &said.text, around: &around, owner: owner.as_deref() };
        match near::look(place, &question, &asks, call, trip.exchange.as_deref(), asked).await {
            Near::Found(similarity, entry) => {
                let found = note(&entry).map(|note| Note { similarity: Some(similarity), ..note.clone() });
                if let Some(found) = found {
                    // Known by this question too from now on, as old as it is; but nothing is near to it for that.
                    let entry = entry.under(&key, Arc::new(found));
                    let (status, cached) = hit(&entry, Time::now());
                    if let Some(response) = given(place, asked, call, trip, &entry, status).await {
                        if let Some(ticket) = ticket {
                            ticket.land(entry);
                        }
                        trip.cached(cached);
                        return Ok(Known::Given(response));
                    }
                }
            }
            Near::Nothing(place) => remember = place,
        }
    }
    trip.cached(Cached::Miss);
    let for_others = ticket.map(|ticket| ForOthers {
        worker: place.worker.clone(),
        ticket,
        key,
        api: place.route.api.name.clone(),
        ttl: cache.ttl,
        tags: tags(asked, call),
        most: cache.entry,
        remember,
    });
    Ok(Known::Ask(Box::new(Keep { why, detail: None, for_others })))
}

/// What is said of an answer that is kept: to this question, or to one that is near to it.
fn hit(entry: &Entry, now: Time) -> (Status, Cached) {
    match note(entry).and_then(|note| note.similarity) {
        Some(_) => (Status::near(entry, now), Cached::Near),
        None => (Status::hit(entry, now), Cached::Hit),
    }
}

/// A kept answer, as this caller wants it; `None` if it cannot be that.
async fn given(
    place: &Place<'_>,
    asked: &Asked,
    call: &Call,
    trip: &mut Trip,
    entry: &Entry,
    status: Status,
) -> Option<Response> {
    let note = note(entry)?;
    let kept = Kept { dialect: note.dialect, stream: note.stream, body: &entry.body };
    let Given { body, usage } = written(place, asked, &kept)?;
    if let Some(booked) = Saving::new(place, asked, call, trip, note).book(usage, body.len(), Outcome::Answered) {
        booked.await;
    }
    Some(Response::new(head(asked, entry, note, status), Body::from(body)))
}

/// What another call is being answered, as it comes.
async fn along(
    place: &Place<'_>,
    asked: &Asked,
    call: &Call,
    trip: &mut Trip,
    entry: &Entry,
    mut reader: Reader,
    status: Status,
) -> Option<Response> {
    let note = note(entry)?;
    if !asked.stream {
        let mut body = Vec::new();
        while let Some(piece) = std::future::poll_fn(|cx| reader.poll(cx)).await {
            body.extend_from_slice(&piece.ok()?);
        }
        let kept = Kept { dialect: note.dialect, stream: true, body: &body };
        // It may have come to an end that is not worth keeping; whoever asks for it whole may get a better one.
        again::worth_keeping(&kept)?;
        let Given { body, usage } = written(place, asked, &kept)?;
        if let Some(booked) = Saving::new(place, asked, call, trip, note).book(usage, body.len(), Outcome::Answered) {
            booked.await;
        }
        return Some(Response::new(head(asked, entry, note, status), Body::from(body)));
    }
    let (id, now) = place.named();
    let stream = llm::Stream::new(asked.target.dialect, note.dialect, &options(place, asked, &id, now))?;
    let saving = Saving::new(place, asked, call, trip, note);
    Some(Response::new(head(asked, entry, note, status), Body::source(Replay::new(reader, stream, saving))))
}

fn written(place: &Place<'_>, asked: &Asked, kept: &Kept<'_>) -> Option<Given> {
    if asked.target.operation == Operation::Embed {
        if kept.dialect != asked.target.dialect {
            return None;
        }
        let usage = llm::translate::glance(kept.dialect, kept.body).ok()?.usage;
        return Some(Given { body: kept.body.to_vec(), usage });
    }
    let (id, now) = place.named();
    again::give(kept, asked.target.dialect, asked.stream, &options(place, asked, &id, now))
}

fn options<'o>(place: &Place<'_>, asked: &'o Asked, id: &'o str, now: u64) -> llm::stream::Options<'o> {
    llm::stream::Options { hide_usage: asked.hides_usage(), model: &asked.name, id, now, max_event: place.llm.answer }
}

fn head(asked: &Asked, entry: &Entry, note: &Note, status: Status) -> ResponseHead {
    let mut head = ResponseHead::new(StatusCode::OK);
    let dialect = asked.target.dialect;
    head.headers.append("content-type", if asked.stream { dialect.stream_type() } else { "application/json" });
    head.headers.append("weir-model", format!("{}/{}", note.provider, note.model));
    if let Some((_, lost)) = note.lost.as_ref().filter(|(of, _)| *of == dialect) {
        head.headers.append("weir-lost", &**lost);
    }
    if let Some(similarity) = note.similarity {
        head.headers.append("weir-similarity", format!("{similarity:.3}"));
    }
    head.headers.append("age", entry.age(Time::now()).as_secs().to_string());
    status.write(&mut head.headers);
    head
}

fn note(entry: &Entry) -> Option<&Note> {
    entry.note.as_ref()?.downcast_ref()
}

/// What a purge can name: the model, by the name of callers; the consumer and the team that it was asked for.
fn tags(asked: &Asked, call: &Call) -> Vec<String> {
    let mut tags = vec![format!("model:{}", asked.name)];
    if let Some(consumer) = &call.consumer {
        tags.push(format!("consumer:{}", consumer.name));
        tags.extend(consumer.team.iter().map(|team| format!("team:{team}")));
    }
    tags
}

/// What an answer is found by. Beside what is asked: for whom, of which route, and who would serve it, so that what another
/// model said under the same name is not given.
fn key(place: &Place<'_>, asked: &Asked, identity: &Identity, owner: Option<&str>, by: &str, call: &Call) -> Key {
    let name = format!("model:{}/{}", asked.name, hex(&digest(asked, &identity.digest, by, call)));
    Key::named(&place.route.scope, owner, &name)
}

/// A digest of a digest, and of what else tells answers apart.
fn digest(asked: &Asked, of: &[u8], by: &str, call: &Call) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    let mut word = |word: &[u8]| {
        context.update(&(word.len() as u64).to_le_bytes());
        context.update(word);
    };
    word(of);
    word(asked.name.as_bytes());
    word(by.as_bytes());
    for candidate in &asked.model.candidates {
        let upstream = candidate.forward.split.first().map_or("", |it| &*it.upstream.name);
        for part in [&*candidate.provider.name, candidate.provider.row.name, &*candidate.model, upstream] {
            word(part.as_bytes());
        }
    }
    // By these callers switch on what changes answers; they go on to providers of the same dialect.
    for field in ["anthropic-beta", "openai-beta"] {
        for value in call.head.headers.get_all(field) {
            word(field.as_bytes());
            word(value);
        }
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Why a call has nothing to do with the cache, for `Cache-Status`.
fn word(apart: Apart) -> &'static str {
    match apart {
        Apart::NoQuestion => "no-question",
        Apart::State => "state",
        Apart::Choices => "choices",
        Apart::Tools => "tools",
    }
}
