//! The books of one call to a model: its worst case is reserved before anybody is asked, what each attempt cost is written
//! down, and the sum is settled when the call ends, wherever that is.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use awareness::{Exchange, ModelUse};
use base::{Call, Time, TokenUsage};
use config::{Candidate, Sync};
use ledger::{
    CacheUse, Class, Crossed, Demand, Entry, Hold, Moment, Money, Outcome, Price, ServiceTier, Standing, Used, Why,
};
use llm::Operation;
use llm::stream::Seen;
use policy::Spent;
use smallvec::SmallVec;
use tokio::sync::oneshot;

use super::Place;
use super::choose::Chosen;
use super::keep::Note;
use super::state::{BYTES_PER_TOKEN, CandidateState};
use super::understand::{self, Asked};
use super::words::Failure;
use crate::trip::{Came, Trip};
use crate::worker::Worker;

/// What a call owes. Settles when dropped, as far as it is known then.
pub struct Account(Option<Box<Open>>);

struct Open {
    worker: Rc<Worker>,
    /// Of every entry, what does not change from one attempt to the next.
    entry: Entry,
    hold: Option<Hold>,
    began: Time,
    /// What attempts before have come to.
    entries: SmallVec<[Entry; 1]>,
    attempt: Option<Attempt>,
    prompt: u64,
    /// What the money goes for, if it is no call of a caller's.
    class: Option<Class>,
    /// For whoever observes the call.
    told: Rc<Cell<Option<Box<Came>>>>,
    sync: Sync,
}

/// What a call cost, on its way to the disk; where the document says that answers wait for that. Done also when the disk
/// refuses: then budgets know, and an answer that is paid for is not kept back.
pub struct Booked(oneshot::Receiver<bool>);

/// An attempt whose end is not known.
struct Attempt {
    provider: Arc<str>,
    model: Arc<str>,
    price: Option<Arc<Price>>,
    state: Arc<CandidateState>,
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Complete,
    Cut,
    /// The caller left.
    Abandoned,
}

/// What a call is spared that is given a known answer. It takes nothing of any budget.
pub struct Saving {
    worker: Rc<Worker>,
    entry: Entry,
    began: Time,
    price: Option<Arc<Price>>,
    prompt: u64,
    state: Option<Arc<CandidateState>>,
    told: Rc<Cell<Option<Box<Came>>>>,
    sync: Sync,
}

/// The most that a call can cost at a candidate; `None` if nobody knows its price.
pub fn worst_case(candidate: &Candidate, asked: &Asked) -> Option<Money> {
    candidate.price.as_ref().map(|price| price.worst_case(&demand(candidate, asked)))
}

/// What a call may cost at a candidate by what is known of it, in units of money; nothing if nobody knows its price.
pub fn estimate(candidate: &Candidate, prompt: u64, output: u64) -> u64 {
    let demand = Demand { input: prompt, output, cache: CacheUse::None, ..Demand::default() };
    let cost = candidate.price.as_ref().map_or(Money::ZERO, |price| price.worst_case(&demand));
    u64::try_from(cost.units()).unwrap_or(u64::MAX)
}

fn demand(candidate: &Candidate, asked: &Asked) -> Demand {
    let most = candidate.max_output;
    let output = asked.peek.max_output.map_or(most, |wanted| wanted.min(most)) * asked.peek.choices.max(1);
    Demand {
        input: understand::most_of_prompt(&asked.peek),
        output,
        tier: ServiceTier::Standard,
        cache: CacheUse::Long,
        audio: asked.peek.wants.audio,
        images: asked.peek.wants.images,
        searches: 0,
    }
}

// === impl Account ===

impl Account {
    /// Reserves the worst case of a call on every budget above it.
    pub async fn open(
        place: &Place<'_>,
        asked: &Asked,
        candidates: &[Chosen],
        call: &Call,
        trip: &mut Trip,
    ) -> Result<Account, Failure> {
        // Providers charge nothing for a count.
        if asked.target.operation == Operation::CountTokens {
            return Ok(Account(None));
        }
        let exchange = trip.exchange.as_deref();
        let entry = entry(asked, call, exchange);
        let books = &place.local.generation.snapshot.books;
        let demands = candidates.iter().map(|it| (it, demand(&it.candidate, asked)));
        let worst = demands.map(|(it, demand)| {
            let money = it.candidate.price.as_ref().map_or(Money::ZERO, |price| price.worst_case(&demand));
            (money, demand)
        });
        let (money, tokens, dearest) =
            worst.fold((Money::ZERO, 0, None), |(money, tokens, dearest), (cost, demand)| {
                let all = demand.input.saturating_add(demand.output);
                (money.max(cost), all.max(tokens), if cost >= money { Some(demand) } else { dearest })
            });
        let hold = match books.has_budgets() {
            true => {
                let (desk, caller, used) = (&place.worker.desk, entry.caller(), Used::call(money, tokens));
                let hold = match books.reserve(&caller, &used, entry.time) {
                    // Seldom, and so apart.
                    Err(exhausted) if exhausted.why == Why::Unlent => {
                        Box::pin(books.reserve_shared(desk, &caller, &used, entry.time)).await
                    }
                    hold => hold,
                };
                let hold = hold.map_err(|exhausted| Failure::Budget(exhausted, entry.time))?;
                hold.wants().for_each(|want| desk.refill(want));
                Some(hold)
            }
            false => None,
        };
        let told = Rc::<Cell<_>>::default();
        trip.model = Some(told.clone());
        let mut open = Open {
            worker: place.worker.clone(),
            entry,
            hold,
            began: call.now,
            entries: SmallVec::new(),
            attempt: None,
            prompt: call.model.as_deref().map_or(0, |it| it.prompt),
            class: asked.errand.as_ref().map(|errand| errand.class),
            told,
            sync: place.local.generation.snapshot.ledger.sync,
        };
        // Of a call that a crash cuts off, this is what is booked.
        if let (Some(journal), Some(demand)) = (&place.worker.journal, dearest) {
            let worst = Entry {
                model_served: asked.name.clone(),
                class: Class::Abandoned,
                outcome: Outcome::Crashed,
                usage: TokenUsage { input: demand.input, output: demand.output, ..TokenUsage::default() },
                cost: money,
                estimated: true,
                hold: place.worker.random() | 1,
                ..open.entry.clone()
            };
            if journal.open(&worst).is_ok() {
                open.entry.hold = worst.hold;
            }
        }
        Ok(Account(Some(Box::new(open))))
    }

    /// How the budgets above the call stand.
    pub fn standings(&self) -> SmallVec<[Standing; 2]> {
        let open = self.0.as_deref();
        open.and_then(|it| it.hold.as_ref()).map(|hold| hold.standings().collect()).unwrap_or_default()
    }

    /// A provider is asked, from now on.
    pub fn tries(&mut self, place: &Place<'_>, candidate: &Candidate, model: &str) {
        let Some(open) = &mut self.0 else { return };
        let price = match &candidate.price {
            Some(price) => Some(price.clone()),
            // Of a pattern the model is known only now.
            None if candidate.model.ends_with('*') => {
                let book = &place.local.generation.snapshot.books.prices;
                book.find(candidate.provider.row.name, model).map(|found| found.price)
            }
            None => None,
        };
        let state = place.local.generation.models.candidates[candidate.index].clone();
        open.attempt = Some(Attempt { provider: candidate.provider.name.clone(), model: model.into(), price, state });
    }

    /// The price by which the provider that is asked charges, as far as it is known.
    pub fn price(&self) -> Option<Arc<Price>> {
        self.0.as_ref()?.attempt.as_ref()?.price.clone()
    }

    /// Tokens of the prompt, about.
    pub fn prompt(&self) -> u64 {
        self.0.as_ref().map_or(0, |open| open.prompt)
    }

    /// The provider said no, or nothing: it charges for nothing.
    pub fn unanswered(mut self) -> Account {
        if let Some(open) = &mut self.0 {
            open.note(TokenUsage::default(), false, Class::Failed, Outcome::Failed, None);
        }
        self
    }

    /// An answer came that cannot be used, and what it cost was not told.
    pub fn garbled(mut self) -> Account {
        if let Some(open) = &mut self.0 {
            let usage = TokenUsage { input: open.prompt, ..TokenUsage::default() };
            open.note(usage, true, Class::FailedBilled, Outcome::Cut, None);
        }
        self
    }

    /// A stream failed before its first token.
    pub fn failed(mut self, seen: &Seen) -> Account {
        if let Some(open) = &mut self.0 {
            let (usage, estimated) = open.usage(seen);
            open.note(usage, estimated, Class::FailedBilled, Outcome::Failed, None);
        }
        self
    }

    /// A stream has ended, the caller having seen some of it.
    pub fn served(mut self, seen: &Seen, ending: Ending, first: Option<Time>) -> Option<Booked> {
        let open = self.0.as_mut()?;
        let (usage, estimated) = open.usage(seen);
        let (class, outcome) = ending.words();
        open.note(usage, estimated, class, outcome, first);
        self.close()
    }

    /// An answer came whole.
    pub fn answered(mut self, usage: Option<TokenUsage>, bytes: usize, at: Time) -> Option<Booked> {
        let open = self.0.as_mut()?;
        let estimated = usage.is_none();
        let usage = usage.unwrap_or_else(|| self::estimated(open.prompt, bytes));
        open.note(usage, estimated, Class::Useful, Outcome::Answered, Some(at));
        self.close()
    }

    /// What came with the status of a success answers nothing. It is charged for if its provider says so.
    pub fn answered_nothing(mut self, usage: Option<TokenUsage>) -> Option<Booked> {
        let open = self.0.as_mut()?;
        open.note(usage.unwrap_or_default(), false, Class::FailedBilled, Outcome::Failed, None);
        self.close()
    }

    /// Settles what is known. To be waited for by an answer, if there is something to wait for.
    pub fn close(&mut self) -> Option<Booked> {
        let mut open = self.0.take()?;
        if open.attempt.is_some() {
            // The caller left before there was an answer. Whether the provider charges for the prompt is not known.
            let usage = TokenUsage { input: open.prompt, ..TokenUsage::default() };
            open.note(usage, true, Class::Abandoned, Outcome::Cancelled, None);
        }
        open.close()
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.close();
    }
}

impl Future for Booked {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx).map(drop)
    }
}

// === impl Saving ===

impl Saving {
    pub fn new(place: &Place<'_>, asked: &Asked, call: &Call, trip: &mut Trip, note: &Note) -> Saving {
        let mut entry = entry(asked, call, trip.exchange.as_deref());
        (entry.provider, entry.model_served) = (note.provider.clone(), note.model.clone());
        entry.class = Class::Cached;
        let told = Rc::<Cell<_>>::default();
        trip.model = Some(told.clone());
        let served =
            |it: &&Arc<Candidate>| it.provider.name == note.provider && it.model_for(&asked.rest) == *note.model;
        let candidate = asked.model.candidates.iter().find(served);
        let states = &place.local.generation.models.candidates;
        Saving {
            worker: place.worker.clone(),
            entry,
            began: call.now,
            price: note.price.clone(),
            prompt: note.prompt,
            state: candidate.map(|it| states[it.index].clone()),
            told,
            sync: place.local.generation.snapshot.ledger.sync,
        }
    }

    /// The answer is given, or broke off; of so many bytes, if its provider did not tell what it used. To be waited for by its
    /// end, if there is something to wait for.
    pub fn book(self, usage: Option<TokenUsage>, bytes: usize, outcome: Outcome) -> Option<Booked> {
        let Saving { worker, mut entry, began, price, prompt, state, told, sync } = self;
        entry.outcome = outcome;
        entry.estimated = usage.is_none();
        entry.usage = usage.unwrap_or_else(|| estimated(prompt, bytes));
        entry.total = u64::try_from(Time::now().since(began).as_micros()).unwrap_or(u64::MAX);
        entry.first_token = entry.total;
        if let Some(price) = price {
            entry.saved = price.cost(&entry.usage, entry.tier);
            entry.price = price.name();
        }
        if let Some(state) = state {
            state.counts.given(&entry);
        }
        let use_of_it = ModelUse {
            asked: entry.model_asked.clone(),
            served: [&*entry.provider, "/", &*entry.model_served].concat(),
            prompt: entry.usage.prompt(),
            completion: entry.usage.completion(),
            estimated: entry.estimated,
            cost: Money::ZERO.plain(),
            saved: Some(entry.saved.plain()),
        };
        // No provider was asked, so no limit of tokens or money is used up.
        let spent = Spent { prompt: 0, completion: 0, money: Money::ZERO };
        told.set(Some(Box::new(Came { told: use_of_it, spent })));
        append(&worker, &[entry], sync)
    }
}

/// Hands entries over to the journal, if there is one. To be waited for where the document says that answers wait.
fn append(worker: &Worker, entries: &[Entry], sync: Sync) -> Option<Booked> {
    let journal = worker.journal.as_ref()?;
    // The journal tells what it rejects; budgets that fail closed have heard of it.
    let ticket = journal.append(entries).ok()?;
    if sync == Sync::Group {
        return None;
    }
    let (tell, booked) = oneshot::channel();
    journal.when_durable(ticket, move |written| {
        let _ = tell.send(written);
    });
    Some(Booked(booked))
}

/// The usage that nobody told, of an answer of so many bytes.
fn estimated(prompt: u64, bytes: usize) -> TokenUsage {
    TokenUsage { input: prompt, output: (bytes as u64).div_ceil(BYTES_PER_TOKEN), ..TokenUsage::default() }
}

// === impl Open ===

impl Open {
    fn note(&mut self, usage: TokenUsage, estimated: bool, class: Class, outcome: Outcome, first: Option<Time>) {
        let Some(Attempt { provider, model, price, state }) = self.attempt.take() else { return };
        let now = Time::now();
        let micros = |at: Time| u64::try_from(at.since(self.began).as_micros()).unwrap_or(u64::MAX);
        let mut entry = self.entry.clone();
        entry.provider = provider;
        entry.model_served = model;
        entry.usage = usage;
        entry.estimated = estimated;
        entry.class = if class == Class::FailedBilled && usage.is_zero() { Class::Failed } else { class };
        entry.outcome = outcome;
        entry.first_token = first.map_or(0, micros);
        entry.total = micros(now);
        if let Some(price) = price {
            // A provider that said no has charged for nothing, not even for the call.
            if !usage.is_zero() || outcome == Outcome::Answered {
                entry.cost = price.cost(&usage, entry.tier);
            }
            entry.price = price.name();
        }
        state.counts.add(&entry);
        self.entries.push(entry);
    }

    /// As the provider has reported it, or as far as it was seen.
    fn usage(&self, seen: &Seen) -> (TokenUsage, bool) {
        match seen.usage {
            Some(usage) if seen.settled => {
                // Thoughts are counted and not always shown.
                if let (Some(attempt), 0) = (&self.attempt, usage.reasoning) {
                    attempt.state.weighs(seen.text, usage.output);
                }
                (usage, false)
            }
            other => {
                let told = other.unwrap_or(TokenUsage {
                    // Whoever has begun to answer has read the prompt.
                    input: self.prompt,
                    ..TokenUsage::default()
                });
                let seen = self.tokens(seen.text).max(seen.deltas);
                (TokenUsage { output: told.output.max(seen.saturating_sub(told.reasoning)), ..told }, true)
            }
        }
    }

    fn tokens(&self, text: u64) -> u64 {
        self.attempt.as_ref().map_or(text.div_ceil(BYTES_PER_TOKEN), |it| it.state.tokens(text))
    }

    fn close(mut self) -> Option<Booked> {
        if self.entries.is_empty() && self.entry.hold != 0 {
            // Nobody was asked: what was written down beforehand is settled with nothing.
            let nothing = Entry { class: Class::Failed, outcome: Outcome::Failed, ..self.entry.clone() };
            self.entries.push(nothing);
        }
        let mut used = Used::NOTHING;
        let last = self.entries.len().saturating_sub(1);
        for (at, entry) in self.entries.iter_mut().enumerate() {
            if at < last {
                entry.class = Class::Retry;
            }
            entry.class = self.class.unwrap_or(entry.class);
            // All of it is settled with the last.
            entry.hold = if at == last { self.entry.hold } else { 0 };
            let Used { money, tokens, calls } = entry.used();
            used.money = used.money.saturating_add(money);
            used.tokens = used.tokens.saturating_add(tokens);
            used.calls += calls;
        }
        if let Some(last) = self.entries.last().filter(|it| !it.provider.is_empty()) {
            let prompt = self.entries.iter().map(|it| it.usage.prompt()).sum();
            let completion = self.entries.iter().map(|it| it.usage.completion()).sum();
            let told = ModelUse {
                asked: last.model_asked.clone(),
                served: [&*last.provider, "/", &*last.model_served].concat(),
                prompt,
                completion,
                estimated: self.entries.iter().any(|it| it.estimated),
                cost: used.money.plain(),
                saved: None,
            };
            self.told.set(Some(Box::new(Came { told, spent: Spent { prompt, completion, money: used.money } })));
        }
        if let Some(hold) = self.hold.take() {
            for Crossed { share, standing } in hold.settle(&used) {
                tracing::warn!(
                    budget = %standing.budget, of = %standing.whose, spent = %standing.spent,
                    allowance = %standing.allowance, %share, "a budget has reached a share at which it warns"
                );
            }
        }
        append(&self.worker, &self.entries, self.sync)
    }
}

impl Ending {
    pub fn of(seen: &Seen) -> Ending {
        if seen.fault.is_some() { Ending::Cut } else { Ending::Complete }
    }

    fn words(self) -> (Class, Outcome) {
        match self {
            Ending::Complete => (Class::Useful, Outcome::Answered),
            Ending::Cut => (Class::FailedBilled, Outcome::Cut),
            Ending::Abandoned => (Class::Abandoned, Outcome::Cancelled),
        }
    }
}

fn entry(asked: &Asked, call: &Call, exchange: Option<&Exchange>) -> Entry {
    let (api, route) = match call.place.as_deref() {
        Some(place) => (place.api.clone(), place.route.clone()),
        None => Default::default(),
    };
    Entry {
        time: Moment::from(call.wall),
        api,
        route,
        consumer: call.consumer.as_ref().map(|it| it.name.clone()),
        team: call.consumer.as_ref().and_then(|it| it.team.clone()),
        credential: credential(asked, exchange),
        task: task(asked, exchange),
        model_asked: asked.name.clone(),
        ..Entry::default()
    }
}

/// What people call the key that was presented.
pub fn credential(asked: &Asked, exchange: Option<&Exchange>) -> Option<Arc<str>> {
    match &asked.errand {
        Some(errand) => errand.credential.clone(),
        None => exchange.and_then(|it| it.credential.clone()),
    }
}

/// The task that the call belongs to.
pub fn task(asked: &Asked, exchange: Option<&Exchange>) -> Option<[u8; 16]> {
    match &asked.errand {
        Some(errand) => errand.task,
        None => exchange.and_then(|it| it.trace.parent.map(|_| it.trace.trace.0)),
    }
}
