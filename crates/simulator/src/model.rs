//! A provider of models, for those who call one: OpenAI's chat completions, responses, embeddings and list of models;
//! Anthropic's messages and count of tokens; Gemini's content and embeddings; Bedrock's Converse, and its
//! models of embeddings.
//!
//! What it says is made up, how it says it follows what the vendors publish. [`words`] is how a call is told what to become,
//! [`books`] is what it will have cost.

mod anthropic;
mod ask;
mod bedrock;
pub(crate) mod books;
mod chat;
mod embed;
mod fault;
mod frames;
mod gemini;
mod piece;
mod play;
mod responses;
mod schema;
pub(crate) mod script;
pub(crate) mod sigv4;
mod target;
#[cfg(test)]
mod tests;
mod vendor;
mod words;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;
use tokio::time::sleep;

use crate::answer::{Answer, full, typed};
use crate::model::ask::Form;
use crate::model::books::{Books, Ended, Entry};
use crate::model::piece::{fresh_id, monotonic_ns, now_s};
use crate::model::play::{Booking, Plan, Play, Then};
use crate::model::script::{Script, Usage};
use crate::model::target::Service;
pub(crate) use crate::model::target::Target;
use crate::model::vendor::Refusal;
use crate::model::words::Words;
use crate::stream::now_ns;

pub(crate) struct Provider {
    pub(crate) books: Arc<Books>,
    /// How often words with `times` were met.
    met: Mutex<HashMap<String, u32>>,
    /// The same bytes mean the same answer: a load asks for one thing over and over.
    plans: Mutex<Vec<(Asked, Arc<Plan>)>>,
}

/// All that an answer depends on.
#[derive(PartialEq)]
struct Asked {
    body: Bytes,
    uri: http::Uri,
    key: String,
    words: String,
    version: bool,
}

const PLANS: usize = 8;

impl Provider {
    pub(crate) fn new(entries: usize) -> Self {
        Self { books: Arc::new(Books::new(entries)), met: Mutex::default(), plans: Mutex::default() }
    }

    pub(crate) async fn call(&self, target: Target, request: Request<Incoming>) -> Answer {
        let (at_ns, came) = (now_ns(), monotonic_ns());
        let (head, body) = request.into_parts();
        let body = match body.collect().await {
            Ok(whole) => whole.to_bytes(),
            Err(error) => return crate::answer::text(StatusCode::BAD_REQUEST, format!("{error}\n")),
        };
        let id = fresh_id();
        let key = vendor::key(&target, &head);
        let mut booking = Booking::new(
            self.books.clone(),
            Entry {
                number: 0,
                at_ns,
                id: id.clone(),
                vendor: target.vendor.name(),
                service: target.service.name(),
                model: target.model.clone().unwrap_or_default(),
                key: key.clone().unwrap_or_default(),
                tag: None,
                stream: false,
                status: 0,
                ended: Ended::Refused,
                usage: Usage::default(),
                told: false,
                body: body.clone(),
            },
        );
        let plan = match self.plan(&target, &head, key, body, &mut booking) {
            Ok(plan) => plan,
            Err(refusal) => {
                if let Some(entry) = &mut booking.entry {
                    entry.status = refusal.status.as_u16();
                    if let Some((model, tag)) = refusal.call.as_deref() {
                        entry.model.clone_from(model);
                        entry.tag.clone_from(tag);
                    }
                }
                return refusal.answer(&target, &id);
            }
        };
        if plan.content_type.starts_with("text/html") {
            return typed(StatusCode::OK, plan.content_type, full(plan.pieces[0].fill(&id, 0, came)));
        }
        booking.begins(&plan);
        if !plan.stream {
            let takes = plan.takes();
            if !takes.is_zero() {
                sleep(takes).await;
            }
            if plan.then == Then::Hang {
                std::future::pending::<()>().await;
            }
        }
        let mut answer = Answer::new(Play::body(plan.clone(), booking, id.clone(), now_s(), came));
        let headers = answer.headers_mut();
        headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(plan.content_type));
        vendor::headers(&target, headers, &id, &plan);
        answer
    }

    fn plan(
        &self,
        target: &Target,
        head: &Parts,
        key: Option<String>,
        body: Bytes,
        booking: &mut Booking,
    ) -> Result<Arc<Plan>, Refusal> {
        let Some(key) = key else { return Err(Refusal::no_key(target.vendor)) };
        sigv4::check(target, head, &body)?;
        let asked = Asked {
            body,
            uri: head.uri.clone(),
            key,
            words: said(&head.headers, "x-simulate").to_owned(),
            version: head.headers.contains_key("anthropic-version"),
        };
        let known = self.plans().iter().find(|(known, _)| *known == asked).map(|(_, plan)| plan.clone());
        let plan = match known {
            Some(plan) => plan,
            None => {
                let (plan, lasting) = self.make(target, &asked)?;
                let plan = Arc::new(plan);
                if lasting {
                    let mut plans = self.plans();
                    plans.truncate(PLANS - 1);
                    plans.insert(0, (asked, plan.clone()));
                }
                plan
            }
        };
        if let Some(entry) = &mut booking.entry {
            entry.model.clone_from(&plan.model);
            entry.tag.clone_from(&plan.tag);
            entry.status = 200;
        }
        Ok(plan)
    }

    /// An answer, and whether the same request may have it again.
    fn make(&self, target: &Target, asked: &Asked) -> Result<(Plan, bool), Refusal> {
        let body: Value = match target.service {
            Service::Models | Service::Model => Value::Null,
            _ => serde_json::from_slice(&asked.body).map_err(|error| {
                Refusal::wrong(format!("We could not parse the JSON body of your request: {error}"))
            })?,
        };
        if target.vendor == vendor::Vendor::Anthropic && !asked.version {
            return Err(Refusal::wrong("anthropic-version: header is required".into()));
        }
        let mut words = Words::default();
        let mut read = |text: &str| words.read(text).map_err(Refusal::wrong);
        read(Words::split(&asked.key).1)?;
        let plain = target.plain(&body);
        if let Some(plain) = plain {
            // What generates nothing has no words but those of its key, its model and its header.
            let (model, answer, input) = plain.map_err(Refusal::from)?;
            read(Words::split(&model).1)?;
            read(&asked.words)?;
            self.refuses(target, &words, &model)?;
            let usage = Usage { input: if target.service.billed() { input } else { 0 }, ..Usage::default() };
            let piece = piece::Piece::new(answer.to_string()).telling(true);
            return Ok((fault::plan(target, &words, (model, Form::Whole), vec![piece], usage), words.times.is_none()));
        }
        let mut ask = target.ask(&body)?;
        read(Words::split(&ask.model).1)?;
        read(Words::within(&ask.prompt))?;
        read(&asked.words)?;
        self.refuses(target, &words, &ask.model)?;
        if words.echo {
            ask.prompt = without_words(&ask.prompt);
        }
        let script = Script::of(&ask, &words);
        let pieces = match ask.form {
            Form::Whole => vec![target.whole(&ask, &script).tokens(script.usage.output as usize).telling(script.told)],
            _ => target.events(&ask, &script),
        };
        let plan = fault::plan(target, &words, (ask.model, ask.form), pieces, script.usage);
        Ok((plan, words.times.is_none() && target.service != Service::Converse))
    }

    fn refuses(&self, target: &Target, words: &Words, model: &str) -> Result<(), Refusal> {
        if model.starts_with("no-such") {
            return Err(Refusal::no_model(target.vendor, model).of(model, words.tag.as_deref()));
        }
        let Some(status) = words.status else { return Ok(()) };
        if let Some(times) = words.times {
            let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
            let met = met.entry(format!("{words:?}")).or_default();
            *met += 1;
            if *met > times {
                return Ok(());
            }
        }
        Err(Refusal::asked(target.vendor, status, words.retry_after).of(model, words.tag.as_deref()))
    }

    fn plans(&self) -> MutexGuard<'_, Vec<(Asked, Arc<Plan>)>> {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn said<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn without_words(prompt: &str) -> String {
    let words = Words::within(prompt);
    if words.is_empty() { prompt.to_owned() } else { prompt.replace(&format!("[sim {words}]"), "").trim().to_owned() }
}
