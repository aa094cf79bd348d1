//! How many calls at a time go to an upstream, by how it does: beyond that, calls are refused at once rather than made
//! to wait where nobody sees them.
//!
//! The limit is learnt (`admit/limiter.rs`); who gets what there is when more is wanted is decided by class and
//! consumer (`admit/shares.rs`). All state is of atomics that the cores share. The policy notes in its request half
//! whose a call is, and decides when the call goes to its upstream: an answer from the cache takes no place.

mod limiter;
mod shares;
mod window;

#[cfg(test)]
mod simulation;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base::{Call, Span, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{CompileEnv, Expr, Gives, Outside, Policy, Refusal, Scope, Spec, Stop, Usage};
use limiter::{Bounds, Flight, Limiter};
use shares::{Shares, Standing, Who};

/// Calls beyond what the upstream does well with are refused with 503 and `Retry-After`, before a queue builds.
///
/// How many calls at a time that is, is learnt: from how much longer answers take to their first byte than with nobody
/// waiting. It is learnt for each api apart if the policy is written for the whole document, and for all routes of the
/// place together else: so for routes that lead to an upstream of their own it is written there. Once in a while, and when
/// calls have become much slower, a few calls go through with little beside them, which shows how long they take by
/// themselves: others are refused meanwhile. When more calls come than there is room for, the important ones go first, and
/// of equally important ones each consumer gets the same, as far as it wants it. While few are refused, some may wait
/// that come by chance at the same moment; the more are refused, the less may wait.
///
/// Answers with a status of 500 or more say nothing of how long calls take. An upstream of which most calls do not wait
/// where the rest waits hides its queue: such routes are better left out (`admit: none`).
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct AdmitSpec {
    /// Which calls go first, as expressions in CEL, the most important first: a call is of the class of the first that is
    /// true, such as `"consumer.team == 'support'"`. Those for which none is true, or can be evaluated, come last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub priorities: Vec<String>,
    /// The limit to begin with; 8 if it is not given. It grows by half every tenth of a second while no queue shows; that an
    /// upstream bears far fewer is found out slowly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<u32>,
    /// The limit is never lower; 1 if it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub least: Option<u32>,
    /// The limit is never higher; 10000 if it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub most: Option<u32>,
    /// When those that are refused should come again; `1s` if it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Span>,
}

/// The policy.
pub struct Admit {
    spec: AdmitSpec,
    scope: String,
    classes: Arc<[Expr]>,
    retry_after: Duration,
    state: Arc<State>,
    /// What was learnt at the places under this one, over reloads. Looked at when a document is compiled.
    places: Arc<Mutex<HashMap<String, Arc<State>>>>,
}

/// What is known of a call until its end.
pub struct Memo {
    who: Who,
    /// It is in flight, and counted.
    flight: Option<Flight>,
}

struct State {
    limiter: Limiter,
    shares: Shares,
}

const MOST_CLASSES: usize = 8;

impl Policy for Admit {
    const NAME: &'static str = "admit";
    type Spec = AdmitSpec;
    type Memo = Memo;

    fn compile(spec: &AdmitSpec, env: &mut CompileEnv<'_>) -> Option<Admit> {
        let before = env.errors.len();
        let AdmitSpec { priorities, start, least, most, retry_after } = spec;
        if priorities.len() > MOST_CLASSES {
            env.error("admit.priorities", format!("are {}; expected {MOST_CLASSES} at most", priorities.len()));
        }
        let mut classes = Vec::new();
        for (at, priority) in priorities.iter().enumerate() {
            match Expr::compile(priority, Gives::Truth) {
                Ok(class) => classes.push(class),
                Err(message) => env.error(format!("admit.priorities[{at}]"), message),
            }
        }
        let (least, most) = (least.unwrap_or(1), most.unwrap_or(10_000));
        let bounds = Bounds { least, most, start: start.unwrap_or(8).min(most).max(least) };
        if least == 0 {
            env.error("admit.least", "no call would pass, and nothing be learnt; expected 1 or more");
        }
        if most < least {
            env.error("admit.most", format!("is less than `least`, which is {least}; expected no less"));
        }
        if start.is_some_and(|start| start != bounds.start) && least <= most {
            env.error("admit.start", format!("expected a number from `least` to `most`, which are {least} and {most}"));
        }
        if retry_after.is_some_and(|it| it.0.is_zero()) {
            env.error("admit.retry-after", "would bring them back at once; expected at least `1s`");
        }
        if env.errors.len() > before {
            return None;
        }
        let previous = env.previous.and_then(|it| it.admit.as_ref());
        let previous = previous.filter(|it| it.scope == env.scope && it.spec == *spec);
        let (state, places) = match previous {
            Some(previous) => (previous.state.clone(), previous.places.clone()),
            None => (Arc::new(State::new(bounds, classes.len() + 1)), Arc::default()),
        };
        Some(Admit {
            spec: spec.clone(),
            scope: env.scope.clone(),
            classes: classes.into(),
            retry_after: retry_after.map_or(Duration::from_secs(1), |it| it.0),
            state,
            places,
        })
    }

    /// Apis have upstreams of their own; the routes of one share what it learns.
    fn inherited(admit: &Arc<Admit>, scope: &str) -> Arc<Admit> {
        if admit.scope != "document" {
            return admit.clone();
        }
        let mut places = admit.places.lock().unwrap_or_else(PoisonError::into_inner);
        let state = places.entry(scope.to_owned()).or_insert_with(|| Arc::new(State::like(&admit.state)));
        Arc::new(Admit {
            spec: admit.spec.clone(),
            scope: scope.to_owned(),
            classes: admit.classes.clone(),
            retry_after: admit.retry_after,
            state: state.clone(),
            places: admit.places.clone(),
        })
    }

    async fn request(&self, call: &mut Call, _: &dyn Outside) -> Result<Memo, Stop> {
        let scope = Scope::of(call);
        let class = self.classes.iter().position(|class| class.truth(&scope).unwrap_or(false));
        let class = class.unwrap_or(self.classes.len());
        let who = match &call.consumer {
            Some(consumer) => self.state.shares.who(class, consumer.name.as_bytes()),
            None => self.state.shares.who(class, &crate::limit::network(call.client.addr).to_be_bytes()),
        };
        Ok(Memo { who, flight: None })
    }

    fn forward(&self, memo: &mut Memo, call: &Call, outside: &dyn Outside) -> Result<(), Refusal> {
        memo.flight = self.state.enter(memo.who, outside.random(), call.now);
        match memo.flight {
            Some(_) => Ok(()),
            None => Err(Refusal::Overloaded { retry_after: self.retry_after }),
        }
    }

    fn settle(&self, memo: Memo, usage: Usage) {
        let Some(flight) = memo.flight else { return };
        let latency = usage.upstream.and_then(|waited| {
            let failed = usage.status.is_some_and(|status| status.is_server_error());
            match waited.answered {
                true => (!failed).then_some(waited.time),
                // Given up after a while, by the caller or by us: it took at least as long.
                false => {
                    let usual = self.state.limiter.usual();
                    Some(waited.time).filter(|time| !usual.is_zero() && *time >= usual)
                }
            }
        });
        self.state.leave(flight, latency, usage.finished);
    }
}

impl fmt::Debug for Admit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admit").field("spec", &self.spec).field("scope", &self.scope).finish_non_exhaustive()
    }
}

impl Spec for AdmitSpec {
    const EXPECTED: &'static str =
        "`none`, or settings, such as `{}` or `priorities: [\"consumer.team == 'support'\"]`";
}

// === impl State ===

impl State {
    fn new(bounds: Bounds, classes: usize) -> State {
        State { limiter: Limiter::new(bounds), shares: Shares::new(classes) }
    }

    /// One that has learnt nothing yet.
    fn like(other: &State) -> State {
        State::new(other.limiter.bounds(), other.shares.classes())
    }

    /// Lets a call go to the upstream, or not; if so it is counted from now on.
    fn enter(&self, who: Who, random: u64, now: Time) -> Option<Flight> {
        match self.shares.ask(who, random) {
            Standing::Right => {
                let flight = self.limiter.enter(true, now);
                self.shares.tell(flight.is_some());
                flight
            }
            Standing::Spare => self.limiter.enter(false, now),
            Standing::None => {
                self.limiter.refuse();
                None
            }
        }
    }

    fn leave(&self, flight: Flight, latency: Option<Duration>, now: Time) {
        self.limiter.leave(flight, latency);
        if let Some(look) = self.limiter.look(now) {
            self.shares.divide(f64::from(look.ended), look.limit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Nowhere;
    use crate::testing::{call, compile, consumer, errors, ready};
    use crate::{Policies, Specs, Waited};
    use base::{Method, StatusCode};

    fn admit(json: &str) -> Arc<Admit> {
        compile(&format!(r#"{{"admit":{json}}}"#)).admit.unwrap()
    }

    fn enter(admit: &Admit) -> Option<Memo> {
        let mut memo = ready(admit.request(&mut call(&[]), &Nowhere)).unwrap();
        admit.forward(&mut memo, &call(&[]), &Nowhere).ok().map(|()| memo)
    }

    #[test]
    fn what_is_beyond_the_limit_is_refused_and_places_come_back() {
        let admit = admit(r#"{"start":3,"retry-after":"2s"}"#);
        let mut held: Vec<Memo> = (0..3).map(|_| enter(&admit).unwrap()).collect();
        let mut memo = ready(admit.request(&mut call(&[]), &Nowhere)).unwrap();
        let refused = admit.forward(&mut memo, &call(&[]), &Nowhere);
        assert_eq!(refused, Err(Refusal::Overloaded { retry_after: Duration::from_secs(2) }));
        admit.settle(memo, Usage::default());
        assert!(enter(&admit).is_none(), "who was refused gives nothing back");
        admit.settle(held.pop().unwrap(), Usage::default());
        assert!(enter(&admit).is_some());
    }

    #[test]
    fn a_call_that_needs_no_upstream_takes_no_place() {
        let admit = admit(r#"{"start":3}"#);
        for _ in 0..10 {
            let memo = ready(admit.request(&mut call(&[]), &Nowhere)).unwrap();
            admit.settle(memo, Usage::default());
        }
        assert_eq!(admit.state.limiter.flying(), 0);
    }

    #[test]
    fn only_what_says_something_of_latency_is_learnt_from() {
        let admit = admit("{}");
        let check = |status: u16, upstream: Option<(u64, bool)>, counted: bool| {
            let before = admit.state.limiter.samples();
            let upstream = upstream.map(|(ms, answered)| Waited { time: Duration::from_millis(ms), answered });
            let status = StatusCode::from_u16(status).ok();
            admit.settle(enter(&admit).unwrap(), Usage { status, upstream, ..Usage::default() });
            assert_eq!(admit.state.limiter.samples() > before, counted, "{status:?} {upstream:?}");
        };
        check(200, Some((5, true)), true);
        check(404, Some((5, true)), true);
        check(503, Some((5, true)), false);
        check(200, None, false);
        for _ in 0..20 {
            let upstream = Some(Waited { time: Duration::from_millis(20), answered: true });
            admit.settle(enter(&admit).unwrap(), Usage { upstream, finished: Time::from_nanos(1), ..Usage::default() });
        }
        check(0, Some((5, false)), false);
        check(504, Some((5000, false)), true);
    }

    #[test]
    fn apis_learn_apart_routes_together_and_over_reloads() {
        let load = |previous: Option<&Policies>| {
            let specs: Specs = serde_json::from_str(r#"{"admit":{"start":5}}"#).unwrap();
            let mut env = CompileEnv { previous, ..CompileEnv::new(Arc::default(), "document") };
            Policies::compile(&specs, &mut env)
        };
        let at = |around: &Policies, scope: &str| {
            Policies { scope: scope.into(), ..Policies::default() }.over(around, &Specs::default())
        };
        let state = |policies: &Policies| Arc::as_ptr(&policies.admit.as_ref().unwrap().state);
        let document = load(None);
        let (a, b) = (at(&document, "apis.a"), at(&document, "apis.b"));
        assert_ne!(state(&a), state(&b));
        assert_eq!(state(&at(&a, "apis.a.routes[0]")), state(&at(&a, "apis.a.routes[1]")));
        let again = load(Some(&document));
        assert_eq!(state(&at(&again, "apis.a")), state(&a));
    }

    #[test]
    fn classes_are_told_by_the_first_expression_that_holds() {
        let admit = admit(r#"{"priorities":["consumer.name == 'agent'","request.method == 'GET'"]}"#);
        let who = |name: Option<&str>, method: Method| {
            let mut call = call(&[]);
            call.consumer = name.map(consumer);
            call.head.method = method;
            ready(admit.request(&mut call, &Nowhere)).unwrap().who
        };
        let shares = &admit.state.shares;
        assert_eq!(who(Some("agent"), Method::GET), shares.who(0, b"agent"));
        assert_eq!(who(Some("other"), Method::GET), shares.who(1, b"other"));
        assert_eq!(who(Some("other"), Method::PUT), shares.who(2, b"other"));
        // Of nobody the first cannot be evaluated.
        assert_eq!(who(None, Method::GET), who(None, Method::GET));
    }

    #[test]
    fn wrong_settings_are_told() {
        let check = |json: &str, paths: &[&str]| assert_eq!(errors(&format!(r#"{{"admit":{json}}}"#)), paths, "{json}");
        check("{}", &[]);
        check(r#"{"least":0}"#, &["admit.least"]);
        check(r#"{"least":3,"most":2}"#, &["admit.most"]);
        check(r#"{"least":3,"start":2}"#, &["admit.start"]);
        check(r#"{"start":20000}"#, &["admit.start"]);
        check(r#"{"retry-after":"0s"}"#, &["admit.retry-after"]);
        check(r#"{"priorities":["true","request.path"]}"#, &["admit.priorities[1]"]);
    }
}
