//! One call under way: its record and its passage through the policies. Settles and is booked when dropped,
//! wherever the call ends: after the last byte, at a refusal, when the client leaves.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use awareness::{Attempt, Cached, Ending, Exchange, ModelUse, Outcome, Stamp, Step, StepEnd, Timeline};
use base::{Call, StatusCode, Time};
use config::Route;
use llm::{Dialect, Operation, Target};
use policy::{Filter as _, Passage, Spent, Steps, Stop, Usage, Waited};
use transport::{Body, Response};

use crate::count::Bytes;
use crate::deadline::Timers;
use crate::filtered::{Stopped, filtered};
use crate::meter::Meter;
use crate::refusal::Refusal;
use crate::tap::Patience;
use crate::upstream::Seat;
use crate::worker::Worker;

/// What a call to a model came to.
pub struct Came {
    pub told: ModelUse,
    pub spent: Spent,
}

pub struct Trip {
    worker: Rc<Worker>,
    pub exchange: Option<Box<Exchange>>,
    /// In a box, since most of it is room for what policies may leave there, and it moves with the call.
    passage: Option<Box<Passage>>,
    /// Bytes of the request's body that have passed.
    bytes_in: Option<Bytes>,
    /// The place at the endpoint that is at work for this call.
    busy: Option<Seat>,
    complete: bool,
    /// Why a policy stopped the request's body on its way.
    stopped: Option<Stopped>,
    pub patience: Patience,
    /// For a call whose cost is measured.
    pub meter: Option<Meter>,
    /// What the cache had to do with it, where there is no record.
    pub cached: Option<Cached>,
    /// What a call to an api of models asks, by its path; and in whose words it is to be answered.
    pub target: Option<Box<Target>>,
    pub dialect: Option<Dialect>,
    /// What a call to a model comes to, once that is known.
    pub model: Option<Rc<Cell<Option<Box<Came>>>>>,
}

impl Trip {
    pub fn begin(worker: &Rc<Worker>, exchange: Box<Exchange>) -> Trip {
        worker.began();
        Trip {
            worker: worker.clone(),
            exchange: Some(exchange),
            passage: None,
            bytes_in: None,
            busy: None,
            complete: false,
            stopped: None,
            patience: Patience::default(),
            meter: None,
            cached: None,
            target: None,
            dialect: None,
            model: None,
        }
    }

    /// Of an errand of our own, of which there is no record.
    pub fn unseen(worker: &Rc<Worker>) -> Trip {
        Trip {
            worker: worker.clone(),
            exchange: None,
            passage: None,
            bytes_in: None,
            busy: None,
            complete: false,
            stopped: None,
            patience: Patience::default(),
            meter: None,
            cached: None,
            target: None,
            dialect: None,
            model: None,
        }
    }

    pub fn timers(&self) -> &Rc<Timers> {
        &self.worker.timers
    }

    /// The last moment that was noted: its answer's head, or its own.
    pub fn now(&self) -> Time {
        self.exchange.as_ref().map_or_else(Time::now, |exchange| {
            exchange.attempts.last().and_then(|it| it.timeline.at(Stamp::FirstByte)).unwrap_or(exchange.started)
        })
    }

    /// How long the call has taken until now.
    pub fn since_began(&self) -> std::time::Duration {
        self.exchange.as_ref().map_or_else(Default::default, |exchange| Time::now() - exchange.started)
    }

    pub fn enter(&mut self, route: &Arc<Route>) {
        self.passage = (!route.policies.is_empty()).then(|| Box::new(Passage::new(route.policies.clone())));
        self.note(|exchange| {
            exchange.api = Some(route.api.name.clone());
            exchange.route = Some(route.name.clone());
        });
    }

    /// It is a call to an api of models.
    pub fn asks(&mut self, call: &mut Call) {
        self.target = llm::target(call.head.method.as_str(), &call.head.target).map(Box::new);
        self.dialect = self.target.as_ref().map(|it| it.dialect);
        call.to_model = self.target.as_ref().is_some_and(|it| it.operation != Operation::Models);
    }

    pub async fn inwards(&mut self, call: &mut Call) -> Result<(), Stop> {
        let Some(passage) = &mut self.passage else { return Ok(()) };
        let mut steps = Steps::new();
        let verdict = passage.request(call, &self.worker.outside, &mut steps).await;
        let end = if matches!(verdict, Err(Stop::Answer(..))) { StepEnd::Answered } else { StepEnd::Refused };
        self.note(|exchange| {
            exchange.consumer = call.consumer.as_ref().map(|consumer| consumer.name.clone());
            exchange.credential = call.credential.take();
            exchange.steps = steps
                .as_slice()
                .iter()
                .map(|(policy, passed)| Step { policy, end: if *passed { StepEnd::Passed } else { end } })
                .collect();
        });
        verdict
    }

    /// It is known what the call asks of a model.
    pub async fn understood(&mut self, call: &mut Call) -> Result<(), Stop> {
        let Some(passage) = &mut self.passage else { return Ok(()) };
        let verdict = passage.understood(call, &self.worker.outside).await;
        verdict.map_err(|(by, stop)| {
            let end = if matches!(stop, Stop::Answer(..)) { StepEnd::Answered } else { StepEnd::Refused };
            self.note(|exchange| {
                exchange.steps.iter_mut().filter(|step| step.policy == by).for_each(|step| step.end = end);
            });
            stop
        })
    }

    /// The call goes to its upstream.
    pub fn forward(&mut self, call: &Call) -> Result<(), Refusal> {
        let Some(passage) = &mut self.passage else { return Ok(()) };
        passage.forward(call, &self.worker.outside).map_err(Refusal::Policy)
    }

    /// The request's body as policies let it through.
    pub fn sends(&mut self, call: &mut Call, body: &mut Body) -> Result<(), Stop> {
        if let Some(passage) = &mut self.passage
            && !body.is_empty()
        {
            let mut filters = passage.request_body(&mut call.head);
            filters.begin(body.length())?;
            *body =
                filtered(std::mem::take(body), filters, &self.worker.helper, self.meter.as_ref(), &mut self.stopped);
        }
        Ok(())
    }

    /// What a policy said that stopped the request's body.
    pub fn stopped(&self) -> Option<Stop> {
        self.stopped.as_ref()?.borrow_mut().take()
    }

    /// The answer as policies let it through; a stop is for another answer, which passes through them in its turn.
    pub fn outwards(&mut self, response: &mut Response) -> Result<(), Stop> {
        if let Some(passage) = &mut self.passage {
            passage.response(&mut response.head);
        }
        let status = response.head.status;
        self.note(|exchange| exchange.status = Some(status));
        if let Some(passage) = &mut self.passage
            && response.tunnel.is_none()
            && !response.body.is_empty()
        {
            let length = response.body.length();
            // Answers that come from no upstream have their length written last; policies may want to know it.
            if let Some(length) = length
                && !response.head.headers.contains("content-length")
            {
                response.head.headers.append("content-length", length.to_string());
            }
            let mut filters = passage.response_body(&mut response.head);
            filters.begin(length)?;
            if !filters.keeps_length() {
                response.head.headers.remove("content-length");
            }
            let (body, helper) = (std::mem::take(&mut response.body), &self.worker.helper);
            response.body = filtered(body, filters, helper, self.meter.as_ref(), &mut self.stopped);
        }
        Ok(())
    }

    pub fn refused(&mut self, refusal: &Refusal) {
        self.note(|exchange| exchange.error = exchange.error.or(Some(refusal.name())));
    }

    /// Where the bytes of the request's body are counted.
    pub fn reads(&mut self, bytes: Bytes) {
        self.bytes_in = Some(bytes);
    }

    /// A try begins. Gives its number.
    pub fn attempt(&mut self, attempt: Attempt) -> usize {
        let Some(exchange) = &mut self.exchange else { return 0 };
        exchange.attempts.push(attempt);
        exchange.attempts.len() - 1
    }

    pub fn failed(&mut self, attempt: usize, error: &'static str) {
        self.note(|exchange| {
            if let Some(attempt) = exchange.attempts.get_mut(attempt) {
                attempt.outcome = Outcome::Failed(error);
            }
            exchange.error = Some(error);
        });
    }

    /// The try that this seat was for has an answer, and is the last in the books: what is noted from now on is its.
    pub fn answered(&mut self, attempt: usize, seat: Seat, status: StatusCode, now: Time) {
        self.busy = Some(seat);
        self.note(|exchange| {
            if attempt + 1 < exchange.attempts.len() {
                let winner = exchange.attempts.remove(attempt);
                exchange.attempts.push(winner);
            }
            if let Some(attempt) = exchange.attempts.last_mut() {
                attempt.outcome = Outcome::Answered(status);
            }
            exchange.error = None;
        });
        self.mark(Stamp::FirstByte, now);
    }

    pub fn mark(&mut self, stamp: Stamp, at: Time) {
        self.note(|exchange| {
            if let Some(attempt) = exchange.attempts.last_mut() {
                attempt.timeline.mark(stamp, at);
            }
        });
    }

    pub fn mark_all(&mut self, stamps: &Timeline) {
        self.note(|exchange| {
            if let Some(attempt) = exchange.attempts.last_mut() {
                attempt.timeline.mark_all(stamps);
            }
        });
    }

    /// All of the answer has been taken by the connection.
    pub fn complete(&mut self) {
        self.complete = true;
    }

    /// The answer broke off.
    pub fn broke(&mut self, ending: Ending, error: &'static str) {
        self.complete = true;
        self.note(|exchange| {
            exchange.ending = ending;
            exchange.error = Some(error);
        });
    }

    /// Says what the cache had to do with it.
    pub fn cached(&mut self, cached: Cached) {
        match &mut self.exchange {
            Some(exchange) => exchange.cache = Some(cached),
            None => self.cached = Some(cached),
        }
    }

    pub fn note(&mut self, note: impl FnOnce(&mut Exchange)) {
        if let Some(exchange) = &mut self.exchange {
            note(exchange);
        }
    }
}

impl Drop for Trip {
    fn drop(&mut self) {
        self.busy = None;
        let Some(mut exchange) = self.exchange.take() else { return };
        exchange.finished = Time::now();
        let came = self.model.as_ref().and_then(|model| model.take());
        let spent = came.as_ref().map(|came| came.spent);
        exchange.model = came.map(|came| Box::new(came.told));
        exchange.cpu = self.meter.take().map(|meter| meter.stands_for()).unwrap_or_default();
        exchange.bytes_in = self.bytes_in.as_ref().map_or(0, |bytes| bytes.get());
        if !self.complete {
            exchange.ending = Ending::ClientGone;
            if let Some(attempt) = exchange.attempts.last_mut()
                && attempt.timeline.at(Stamp::FirstByte).is_none()
                && !matches!(attempt.outcome, Outcome::Failed(_))
            {
                attempt.outcome = Outcome::Abandoned;
            }
        }
        let finished = exchange.finished;
        if let Some(attempt) = exchange.attempts.last_mut() {
            attempt.timeline.mark(Stamp::ClientDrained, finished);
        }
        if let Some(passage) = &mut self.passage {
            let Exchange { bytes_in, bytes_out, status, .. } = *exchange;
            let upstream = exchange.attempts.last().and_then(|attempt| waited(attempt, bytes_in > 0, finished));
            passage.settle(Usage { bytes_in, bytes_out, status, finished, upstream, model: spent });
        }
        self.worker.ended(exchange);
    }
}

/// How long the upstream took to answer; of a request with a body since that was sent, which may have been slow to come.
fn waited(attempt: &Attempt, has_body: bool, finished: Time) -> Option<Waited> {
    let at = |stamp| attempt.timeline.at(stamp);
    let sent = at(Stamp::RequestSent).filter(|_| has_body);
    let since = sent.or(at(Stamp::EndpointChosen))?;
    let first = at(Stamp::FirstByte);
    // What could not be connected to says nothing of how long answers take.
    if first.is_none() && at(Stamp::RequestSent).is_none() && matches!(attempt.outcome, Outcome::Failed(_)) {
        return None;
    }
    Some(Waited { time: first.unwrap_or(finished) - since, answered: first.is_some() })
}
