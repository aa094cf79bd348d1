//! One try after another at the endpoints of an upstream, until there is an answer or no sense in trying.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use awareness::{Attempt, Outcome, SpanId, Stamp, Timeline};
use base::{Call, Method, StatusCode, Time};
use bytes::Bytes;
use config::router::Found;
use config::{Forward, Retry, Timeouts};
use smallvec::SmallVec;
use transport::{Body, BodyError, ConnectError, Frame, Response, SendError};

use crate::choose;
use crate::count;
use crate::deadline::{self, Late};
use crate::forward;
use crate::refusal::Refusal;
use crate::replay::Replay;
use crate::tap::Patience;
use crate::trip::Trip;
use crate::upstream::{LocalEndpoint, LocalUpstream};
use crate::worker::{Local, LocalListener, Worker};

/// What may be wrong with a try, and so decides about the next.
#[derive(Debug)]
enum Fault {
    Connect(ConnectError),
    Send { error: SendError, reused: bool },
    Late(Late),
    Status(StatusCode),
}

/// Where a call is to go, and all that is known of the way there.
#[derive(Clone, Copy)]
pub struct Way<'a> {
    pub worker: &'a Rc<Worker>,
    pub local: &'a Rc<Local>,
    pub listener: &'a Rc<LocalListener>,
    pub forward: &'a Forward,
    pub found: &'a Found,
    /// The protocol that the connection is to change to.
    pub upgrade: Option<&'a str>,
}

/// What stays the same from one try of a call to the next, and what the tries before have left.
struct Tries<'a> {
    way: Way<'a>,
    upstream: &'a LocalUpstream,
    /// Of the whole call.
    deadline: Option<Time>,
    /// As the caller named them: for each endpoint they are rewritten from the beginning.
    target: String,
    authority: String,
    /// What is left of the request's body, where it is not kept for another try.
    body: Body,
    replay: Option<Replay>,
    tried: SmallVec<[usize; 4]>,
    /// Nothing but a new connection will do.
    fresh: bool,
    stale: u32,
}

/// Sends a call upstream and gives the answer's head, with its body still to be read.
pub async fn send(way: Way<'_>, call: &mut Call, body: &mut Body, trip: &mut Trip) -> Result<Response, Refusal> {
    let Way { worker, local, listener, forward, .. } = way;
    let split = choose::weighted(forward.split.iter().map(|it| it.weight), worker.random());
    let upstream = forward.split.get(split).ok_or(Refusal::NoEndpoint)?;
    let upstream = local.upstream(upstream.upstream.index).ok_or(Refusal::NoEndpoint)?;
    trip.note(|exchange| exchange.upstream = Some(upstream.config.name.clone()));
    let Forward { retry, timeouts, .. } = forward;

    let mut body = std::mem::take(body);
    if let Some(mirror) = &forward.mirror
        && mirror.share.takes(worker.random())
        && let Some(shadow) = local.upstream(mirror.upstream.index)
    {
        body = mirror_to(worker, shadow, call, body, retry.buffer, timeouts).await?;
    }
    let (counted, bytes_in) = count::counted(body);
    body = counted;
    trip.reads(bytes_in);
    forward::add_forwarded(&mut call.head, &call.client, &listener.trusted());
    upstream.budget.deposit(retry.budget);

    let replay = (retry.attempts > 1 && !body.is_empty()).then(|| Replay::new(std::mem::take(&mut body), retry.buffer));
    let mut tries = Tries {
        deadline: timeouts.call.map(|call_timeout| call.now + call_timeout),
        target: call.head.target.clone(),
        authority: call.head.authority.clone(),
        way,
        upstream,
        body,
        replay,
        tried: SmallVec::new(),
        fresh: false,
        stale: 0,
    };
    let answer = tries.run(call, trip).await;
    if let Some(replay) = &tries.replay {
        let held = replay.bytes() as u64 * trip.since_began().as_millis() as u64;
        trip.note(|exchange| exchange.held = held);
    }
    answer
}

impl Tries<'_> {
    async fn run(&mut self, call: &mut Call, trip: &mut Trip) -> Result<Response, Refusal> {
        let (worker, upstream, retry) = (self.way.worker, self.upstream, &self.way.forward.retry);
        loop {
            let chosen = upstream.choose(call, &self.tried, worker.random()).ok_or(Refusal::NoEndpoint)?;
            let endpoint = &upstream.endpoints[chosen];
            let started = begin(worker, endpoint, call, trip);
            self.address(endpoint, call);
            let body = self.body().ok_or(Refusal::BadGateway)?;

            let (result, connection) = self.once(endpoint, call, body, started, trip).await;
            let now = Time::now();
            let (fault, unwanted) = match result {
                Ok(response) if retry.on.statuses.contains(&response.head.status) => {
                    (Fault::Status(response.head.status), Some(response))
                }
                Ok(response) => return Ok(self.accept(response, endpoint, connection, call, now, trip)),
                Err(fault) => (fault, None),
            };
            // A connection that was closed while it lay idle says nothing of the endpoint: once more, on a new one.
            let stale = self.is_stale(&fault, call);
            let again = stale || self.may_repeat(&fault, call, now);
            if let Some(response) = unwanted
                && !again
            {
                return Ok(self.accept(response, endpoint, connection, call, now, trip));
            }
            trip.failed(fault.word());
            tracing::debug!(endpoint = %endpoint.state.url, error = %fault, "attempt failed");
            if stale {
                self.stale += 1;
                self.fresh = true;
                continue;
            }
            // A body that was not to be had says nothing of the endpoint.
            if !matches!(fault, Fault::Send { error: SendError::Body(_), .. }) {
                endpoint.load.observe_failure(now);
            }
            if !again {
                return Err(fault.refusal());
            }
            self.tried.push(chosen);
            let pause = backoff(retry, self.tried.len(), worker.random());
            if self.deadline.is_some_and(|deadline| now + pause >= deadline) {
                return Err(Refusal::Timeout);
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Makes the request one to this endpoint.
    fn address(&self, endpoint: &LocalEndpoint, call: &mut Call) {
        let (rewrite, found) = (&self.way.forward.rewrite, self.way.found);
        call.head.target.clone_from(&self.target);
        call.head.authority.clone_from(&self.authority);
        forward::rewrite_target(&mut call.head, rewrite, &endpoint.base_path, found.prefix_len, &found.params);
        forward::rewrite_host(&mut call.head, rewrite, &endpoint.authority);
    }

    /// The request's body for one try; `None` if it is gone.
    fn body(&mut self) -> Option<Body> {
        match &self.replay {
            Some(replay) => replay.body(),
            None => Some(std::mem::take(&mut self.body)),
        }
    }

    /// One try at one endpoint. Gives the stamps of its connection beside the result.
    async fn once(
        &self,
        endpoint: &LocalEndpoint,
        call: &Call,
        body: Body,
        started: Time,
        trip: &mut Trip,
    ) -> (Result<Response, Fault>, Timeline) {
        let Way { upgrade, forward: Forward { retry, timeouts, .. }, .. } = self.way;
        let mut timeline = Timeline::default();
        let try_deadline = retry.try_timeout.map(|timeout| started + timeout);
        let deadline = match (self.deadline, try_deadline) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let connect = deadline.map_or(timeouts.connect, |deadline| timeouts.connect.min(deadline.since(started)));
        let leased = match upgrade {
            None => endpoint.pool.lease(self.fresh, connect, &mut timeline).await,
            Some(_) => endpoint.pool.lease_for_upgrade(connect, &mut timeline).await,
        };
        let lease = match leased {
            Ok(lease) => lease,
            Err(error) => return (Err(Fault::Connect(error)), timeline),
        };
        let reused = lease.is_reused();
        let protocol = lease.protocol();
        trip.note(|exchange| exchange.upstream_protocol = protocol);
        let sent = Rc::new(Cell::new(Time::default()));
        let sending = lease.send(&call.head, upgrade, body, sent.clone());
        let result =
            match deadline::answer(&self.way.worker.timers, sending, &sent, timeouts.first_byte, deadline).await {
                Ok(Ok(response)) => Ok(response),
                Ok(Err(error)) => Err(Fault::Send { error, reused }),
                Err(late) => Err(Fault::Late(late)),
            };
        if sent.get() != Time::default() {
            timeline.mark(Stamp::RequestSent, sent.get());
        }
        (result, timeline)
    }

    fn accept(
        &self,
        mut response: Response,
        endpoint: &LocalEndpoint,
        connection: Timeline,
        call: &Call,
        now: Time,
        trip: &mut Trip,
    ) -> Response {
        if let Some(replay) = &self.replay {
            replay.seal();
        }
        for (stamp, at) in connection.stamps() {
            trip.mark(stamp, at);
        }
        let since = connection.at(Stamp::RequestSent).unwrap_or(now);
        endpoint.load.observe(now.since(since), now);
        trip.answered(response.head.status, now);
        trip.patience = Patience { idle: self.way.forward.timeouts.idle, deadline: self.deadline };
        match self.way.upgrade.filter(|_| response.tunnel.is_some()) {
            None => forward::strip_response(&mut response.head.headers),
            Some(protocol) => forward::as_switched(&mut response.head, protocol, &call.head),
        }
        response
    }

    /// True if the connection was closed under us, and it does no harm to send the request on another.
    fn is_stale(&self, fault: &Fault, call: &Call) -> bool {
        fault.is_stale()
            && self.stale < 2
            && (is_idempotent(&call.head.method) || fault.is_unsent())
            && self.can_resend()
    }

    /// True if the call may be tried again after this fault; that is then paid for.
    fn may_repeat(&self, fault: &Fault, call: &Call, now: Time) -> bool {
        let retry = &self.way.forward.retry;
        let harmless = retry.unsafe_methods || is_idempotent(&call.head.method);
        let wanted = match fault {
            Fault::Connect(_) => retry.on.connect,
            Fault::Send { error, .. } if error.is_unsent() => retry.on.connect || retry.on.reset,
            Fault::Send { error, .. } => retry.on.reset && error.is_repeatable() && harmless,
            Fault::Late(Late::FirstByte) => retry.on.timeout && harmless,
            // The deadline of the try, or that of the call, which leaves no time for another.
            Fault::Late(Late::Deadline) => retry.on.timeout && harmless && retry.try_timeout.is_some(),
            Fault::Status(_) => harmless,
        };
        wanted
            && self.tried.len() + 1 < retry.attempts as usize
            && self.body.is_empty()
            && self.can_resend()
            && self.upstream.budget.withdraw(now, retry.min_per_second)
    }

    fn can_resend(&self) -> bool {
        self.replay.as_ref().is_none_or(|replay| replay.body().is_some())
    }
}

fn begin(worker: &Worker, endpoint: &Rc<LocalEndpoint>, call: &mut Call, trip: &mut Trip) -> Time {
    let span = SpanId::random(|| worker.random());
    let mut first = None;
    trip.note(|exchange| {
        first = exchange.attempts.is_empty().then(|| Timeline::from_arrival(&exchange.arrival));
        if worker.traces() {
            call.head.headers.set("traceparent", exchange.trace.traceparent(span));
            if exchange.trace.state.is_none() {
                call.head.headers.remove("tracestate");
            }
        }
    });
    let mut timeline = first.unwrap_or_default();
    let now = Time::now();
    timeline.mark(Stamp::PoliciesDone, now);
    timeline.mark(Stamp::EndpointChosen, now);
    trip.attempt(
        endpoint,
        Attempt { endpoint: endpoint.state.url.clone(), timeline, outcome: Outcome::Abandoned, span },
    );
    now
}

/// Methods that may be repeated without harm (RFC 9110, 9.2.2).
fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE)
}

/// Full jitter: anything up to a bound that doubles with each try.
fn backoff(retry: &Retry, tries: usize, random: u64) -> Duration {
    let most = retry.backoff.saturating_mul(1 << (tries - 1).min(16)).min(retry.max_backoff);
    most.mul_f64((random >> 11) as f64 / (1u64 << 53) as f64)
}

/// Sends a copy to the shadow upstream, and nobody waits for its answer. Only a body of known, small length
/// can be in two places; a call with another is not mirrored.
async fn mirror_to(
    worker: &Rc<Worker>,
    shadow: &Rc<LocalUpstream>,
    call: &Call,
    mut body: Body,
    limit: usize,
    timeouts: &Timeouts,
) -> Result<Body, Refusal> {
    let Some(length) = body.length().filter(|length| *length <= limit as u64) else { return Ok(body) };
    let mut whole = Vec::with_capacity(length as usize);
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(Frame::Data(data)) => whole.extend_from_slice(&data),
            Ok(Frame::Trailers(_)) => break,
            Err(_) => return Err(Refusal::RequestBody),
        }
    }
    let whole = Bytes::from(whole);
    let head = call.head.clone();
    let Some(endpoint) = shadow.choose(call, &[], worker.random()).map(|at| shadow.endpoints[at].clone()) else {
        return Ok(Body::from(whole));
    };
    let (copy, connect) = (Body::from(whole.clone()), timeouts.connect);
    let patience = timeouts.first_byte.unwrap_or(Duration::from_secs(60));
    worker.outside.aside(async move {
        let mirroring = async {
            let lease = endpoint.pool.lease(false, connect, &mut Timeline::default()).await.ok()?;
            let mut response = lease.send(&head, None, copy, Rc::default()).await.ok()?;
            while let Some(Ok(_)) = response.body.frame().await {}
            Some(())
        };
        let _ = tokio::time::timeout(patience, mirroring).await;
    });
    Ok(Body::from(whole))
}

// === impl Fault ===

impl Fault {
    /// The connection had been closed under us while it lay idle.
    fn is_stale(&self) -> bool {
        matches!(self, Fault::Send { error, reused: true } if error.is_repeatable())
    }

    fn is_unsent(&self) -> bool {
        matches!(self, Fault::Send { error, .. } if error.is_unsent())
    }

    fn word(&self) -> &'static str {
        match self {
            Fault::Connect(ConnectError::Timeout) => "connect_timeout",
            Fault::Connect(ConnectError::Unresolved) => "unresolved",
            Fault::Connect(ConnectError::Tls(_)) => "upstream_tls",
            Fault::Connect(_) => "upstream_connect",
            Fault::Send { error: SendError::Body(_), .. } => "request_body",
            Fault::Send { error: SendError::Malformed(_), .. } => "upstream_malformed",
            Fault::Send { error: SendError::NoUpgrade, .. } => "upstream_no_upgrade",
            Fault::Send { .. } => "upstream_reset",
            Fault::Late(Late::FirstByte) => "first_byte_timeout",
            Fault::Late(Late::Deadline) => "deadline",
            Fault::Status(_) => "status",
        }
    }

    fn refusal(&self) -> Refusal {
        match self {
            Fault::Connect(ConnectError::Timeout) | Fault::Late(_) => Refusal::Timeout,
            Fault::Connect(_) => Refusal::Unreachable,
            Fault::Send { error: SendError::Body(BodyError::Malformed(why)), .. } => Refusal::BadRequest(why),
            Fault::Send { error: SendError::Body(_), .. } => Refusal::RequestBody,
            Fault::Send { error: SendError::NoUpgrade, .. } => Refusal::NoUpgrade,
            Fault::Send { .. } | Fault::Status(_) => Refusal::BadGateway,
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let error: &dyn std::error::Error = match self {
            Fault::Connect(error) => error,
            Fault::Send { error, .. } => error,
            Fault::Late(late) => return write!(f, "too late: {late:?}"),
            Fault::Status(status) => return write!(f, "answered {status}"),
        };
        write!(f, "{error}")?;
        let mut source = error.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}
