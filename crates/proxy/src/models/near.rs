//! Questions that are near to each other: what was said is asked for its vector, and that is compared with those of what was
//! said before, to the same model in the same circumstances.
//!
//! A vector that does not come, or not in time, is no vector: then a provider is asked as if there were no cache.

use std::sync::{Arc, Weak};

use awareness::Exchange;
use aws_lc_rs::digest::{Context, SHA256};
use base::{Call, Headers, Method, RequestHead, Time, Version};
use cache::{Asks, Entry, Fit, Partition, Vector};
use ledger::Class;
use policy::Semantic;

use super::Place;
use super::books;
use super::send;
use super::understand::{Asked, Errand};
use crate::trip::Trip;

/// What is asked, and of whom an answer may come.
pub struct Question<'q> {
    pub semantic: &'q Semantic,
    /// The last thing the user says.
    pub said: &'q str,
    /// A digest of all around it.
    pub around: &'q [u8],
    pub owner: Option<&'q str>,
}

pub enum Near {
    /// An answer, and how near its question is.
    Found(f32, Arc<Entry>),
    /// Nothing near; and where the question is to be remembered.
    Nothing(Option<Remember>),
}

/// Where a question is remembered once it is answered.
pub struct Remember {
    near: Arc<cache::Near<Weak<Entry>>>,
    partition: Partition,
    vector: Vector,
}

/// More than models of embeddings read, and than anybody asks in the same words.
const LONGEST: usize = 16 << 10;
/// Times 64 vectors that are compared before others of this core have their turn.
const TURN: usize = 8;

impl Remember {
    pub fn answer(self, entry: &Arc<Entry>) {
        self.near.insert(self.partition, &self.vector, Arc::downgrade(entry));
    }
}

/// The answer to what is nearest to a question, if that is near enough.
pub async fn look(
    place: &Place<'_>,
    question: &Question<'_>,
    asks: &Asks,
    call: &Call,
    exchange: Option<&Exchange>,
    asked: &Asked,
) -> Near {
    let Question { semantic, said, .. } = *question;
    if said.len() > LONGEST {
        return Near::Nothing(None);
    }
    let errand = Errand {
        class: Class::Lookup,
        credential: books::credential(asked, exchange),
        task: books::task(asked, exchange),
    };
    let Some(vector) = vector(place, semantic, said, errand, call).await else { return Near::Nothing(None) };
    let partition = partition(place, question);
    let now = Time::now();
    let usable =
        |entry: &Weak<Entry>| entry.upgrade().filter(|entry| !entry.is_gone() && entry.fit(asks, now) == Fit::Fresh);
    let mut search = semantic.near.search(partition, vector.clone());
    let mut steps = 0;
    while search.step(|entry| usable(entry).is_some()) {
        steps += 1;
        if steps % TURN == 0 {
            tokio::task::yield_now().await;
        }
    }
    let best = search.best().filter(|(similarity, _)| *similarity >= semantic.threshold);
    match best.and_then(|(similarity, entry)| Some((similarity, usable(&entry)?))) {
        Some((similarity, entry)) => Near::Found(similarity, entry),
        None => Near::Nothing(Some(Remember { near: semantic.near.clone(), partition, vector })),
    }
}

/// The vector of a text, by way of the gateway's own path of models.
async fn vector(place: &Place<'_>, semantic: &Semantic, text: &str, errand: Errand, call: &Call) -> Option<Vector> {
    // Nothing that the caller says goes to the provider of vectors but the text.
    let head = RequestHead {
        method: Method::POST,
        scheme: call.head.scheme,
        authority: call.head.authority.clone(),
        target: "/v1/embeddings".into(),
        version: Version::HTTP_11,
        headers: Headers::new(),
    };
    let mut own = Call::new(head, call.client.clone(), call.now, call.wall);
    own.consumer.clone_from(&call.consumer);
    own.place.clone_from(&call.place);
    let models = &place.local.generation.snapshot.models;
    let asked = Asked::vector(models, &semantic.model, text, errand, &mut own)?;
    let mut trip = Trip::unseen(place.worker);
    let asking = async {
        let mut response = super::ask(*place, &asked, &mut own, &mut trip).await.map_err(|failure| failure.name())?;
        let body = send::read(&mut response.body, place.llm.answer).await.map_err(|failure| failure.name())?;
        let numbers = llm::again::vector(&body).ok_or("the answer has no vector")?;
        Vector::new(&numbers).ok_or("the vector has no direction")
    };
    let found = tokio::time::timeout(semantic.timeout, Box::pin(asking)).await.unwrap_or(Err("it took too long"));
    found.inspect_err(|why| tracing::debug!(model = %semantic.model, why, "there is no vector")).ok()
}

/// Whose answers are looked at: of the route, of who may be given them, in the circumstances, by vectors of one model.
fn partition(place: &Place<'_>, question: &Question<'_>) -> Partition {
    let Question { semantic, said: _, around, owner } = *question;
    let mut context = Context::new(&SHA256);
    let owner = owner.map(str::as_bytes);
    for part in [&place.route.scope[..], around, owner.unwrap_or_default(), semantic.model.as_bytes()] {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part);
    }
    context.update(&[u8::from(owner.is_some())]);
    let mut partition = Partition::default();
    partition.copy_from_slice(&context.finish().as_ref()[..16]);
    partition
}
