//! The request path: every stage of a call, in order, on one screen.
//!
//! find route → policies inwards → already known → choose and attempt → policies outwards → stream and settle.
//! A stage that says stop ends the call; what it says becomes an answer in [`crate::refusal`] alone.

use std::rc::Rc;
use std::sync::Arc;

use awareness::Arrival;
use base::{Call, Peer, StatusCode};
use config::router::{self, Found};
use config::{Action, Route};
use policy::Stop;
use transport::{Body, Handler, Request, Response};

use crate::answer;
use crate::attempt::{self, Way};
use crate::forward;
use crate::known::{self, Known};
use crate::models;
use crate::refusal::{self, Refusal};
use crate::tap;
use crate::trip::Trip;
use crate::worker::{Local, LocalListener, Worker};

/// What answers the requests of one listener on one core.
#[derive(Clone)]
pub struct Gateway {
    pub worker: Rc<Worker>,
    pub listener: Rc<LocalListener>,
}

impl Handler for Gateway {
    async fn handle(&self, request: Request) -> Response {
        let local = self.worker.local();
        let Request { mut head, mut body, peer, arrival, upgrade } = request;
        if let Some(protocol) = &upgrade {
            forward::as_upgrade(&mut head, protocol, [self.worker.random(), self.worker.random()]);
        }
        let client = forward::client_of(&peer, &head.headers, &self.listener.trusted());
        let mut call = Call::new(head, client, arrival.head_read, self.worker.wall_at(arrival.head_read));
        call.length = body.length();
        let mut trip = Trip::begin(&self.worker, self.worker.exchange(&call, arrival));
        trip.meter = self.worker.meter();

        let served = match trip.meter.clone() {
            None => self.serve(&local, &mut trip, &mut call, &mut body, upgrade.as_deref()).await,
            // Seldom, and so apart: the future of all the others stays as small as it was.
            Some(meter) => {
                let serve = self.serve(&local, &mut trip, &mut call, &mut body, upgrade.as_deref());
                Box::pin(meter.measure(serve)).await
            }
        };
        let mut response = match served {
            Ok(response) => response,
            // What stopped the request's body is the reason, not that the upstream did not get all of it.
            Err(halt) => halted(trip.stopped().map_or(halt, Halt::from), &mut trip, &call),
        };
        answer::date(&mut response, call.wall);
        // Refused calls too: what policies queued for the client must reach it.
        if let Err(stop) = trip.outwards(&mut response) {
            response = halted(stop.into(), &mut trip, &call);
            answer::date(&mut response, call.wall);
            // What stands in for an answer is not stopped again.
            let _ = trip.outwards(&mut response);
        }
        tap::attach(response, trip)
    }

    fn refuse(&self, status: StatusCode, why: &'static str, peer: &Arc<Peer>, arrival: Arrival) -> Response {
        answer::unreadable(&self.worker, status, why, peer, arrival)
    }
}

/// Why a call goes no further down the path.
pub enum Halt {
    Refuse(Refusal),
    Answer(Box<Response>),
}

fn halted(halt: Halt, trip: &mut Trip, call: &Call) -> Response {
    match halt {
        Halt::Answer(response) => *response,
        Halt::Refuse(refusal) => {
            trip.refused(&refusal);
            let response = refusal::render(&refusal, &call.head);
            match trip.dialect {
                None => response,
                Some(dialect) => models::in_dialect(&refusal, response, dialect),
            }
        }
    }
}

impl Gateway {
    async fn serve(
        &self,
        local: &Rc<Local>,
        trip: &mut Trip,
        call: &mut Call,
        body: &mut Body,
        upgrade: Option<&str>,
    ) -> Result<Response, Halt> {
        if let Some(answer) = local.generation.tokens.answer(call.head.path()) {
            return Ok(answer);
        }
        let (route, found) = self.find_route(local, call)?;
        // Before the policies: a client's Connection field must not name what they set.
        forward::strip_request(&mut call.head.headers);
        call.place = Some(route.place.clone());
        trip.enter(route);
        if let Action::Models(_) = &route.action {
            trip.asks(call);
        }
        trip.inwards(call).await?;
        match &route.action {
            Action::Forward(forward) => {
                trip.sends(call, body)?;
                let (worker, listener, found) = (&self.worker, &self.listener, &found);
                let way = Way { worker, local, listener, forward, found, upgrade };
                let Some(cache) = &route.policies.cache else {
                    return Ok(attempt::send(way, call, body, trip).await?);
                };
                match known::look(cache, route, &way, call, body, trip)? {
                    Known::Answer(response) => Ok(response),
                    Known::Ask(wanted) => {
                        Ok(Box::pin(known::fetch(wanted, cache, route, way, call, body, trip)).await?)
                    }
                }
            }
            Action::Models(llm) => {
                trip.sends(call, body)?;
                let (worker, listener, found) = (&self.worker, &self.listener, &found);
                let place = models::Place { worker, local, listener, route, llm, found };
                let target = trip.target.take().ok_or(Refusal::NoRoute)?;
                // In a box, so that other calls have no room for it.
                Box::pin(models::serve(place, &target, call, body, trip)).await
            }
            Action::Redirect(redirect) => Ok(answer::redirect(redirect, call, &found)),
            Action::Respond(respond) => Ok(answer::respond(respond)),
        }
    }

    fn find_route<'a>(&self, local: &'a Local, call: &Call) -> Result<(&'a Arc<Route>, Found), Refusal> {
        if router::is_ambiguous_path(call.head.path()) {
            return Err(Refusal::BadRequest("the path has dot segments; send it resolved"));
        }
        if call.head.method == base::Method::CONNECT {
            return Err(Refusal::MethodNotSupported);
        }
        let snapshot = &local.generation.snapshot;
        let listener = self.listener.index().ok_or(Refusal::Stopping)?;
        snapshot.find(listener, &call.head).ok_or(Refusal::NoRoute)
    }
}

impl From<Refusal> for Halt {
    fn from(refusal: Refusal) -> Halt {
        Halt::Refuse(refusal)
    }
}

impl From<Stop> for Halt {
    fn from(stop: Stop) -> Halt {
        match stop {
            Stop::Refuse(refusal) => Halt::Refuse(Refusal::Policy(refusal)),
            Stop::Answer(head, body) => Halt::Answer(Box::new(Response::new(*head, Body::from(body)))),
        }
    }
}
