//! One try after another at the endpoints of an upstream, until there is an answer or no sense in trying.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use awareness::{Attempt, Outcome, SpanId, Stamp, Timeline};
use base::{Call, Method, RequestHead, StatusCode, Time};
use bytes::Bytes;
use config::router::Found;
use config::{FaultKinds, Forward, HedgeAfter, Retry, Rewrite, Timeouts};
use smallvec::SmallVec;
use transport::{Body, BodyError, ConnectError, Frame, Response, SendError};

use crate::choose;
use crate::count;
use crate::deadline::{self, Late, LazyTimer};
use crate::forward;
use crate::hedge::Times;
use crate::refusal::Refusal;
use crate::replay::Replay;
use crate::tap::Patience;
use crate::trip::Trip;
use crate::upstream::{LocalEndpoint, LocalUpstream, NoSeat, Pass, Seat, Trial};
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
    upstream: &'a Rc<LocalUpstream>,
    /// Of the whole call.
    deadline: Option<Time>,
    /// As the caller named them: for each endpoint they are rewritten from the beginning.
    /// Target and authority as they came, where an endpoint is told others.
    original: Option<(String, String)>,
    /// What is left of the request's body, where it is not kept for another try.
    body: Body,
    replay: Option<Replay>,
    /// The call tries whether the upstream is well again.
    trial: Option<Trial>,
    tried: SmallVec<[usize; 4]>,
    /// Nothing but a new connection will do.
    fresh: bool,
    stale: u32,
}

/// A try under way: where, its number in the books, since when.
struct Try {
    seat: Seat,
    number: usize,
    started: Time,
}

/// How a try ended.
struct Ended {
    result: Result<Response, Fault>,
    protocol: &'static str,
}

/// Sends a call upstream and gives the answer's head, with its body still to be read.
pub async fn send(way: Way<'_>, call: &mut Call, body: &mut Body, trip: &mut Trip) -> Result<Response, Refusal> {
    let Way { worker, local, listener, forward, .. } = way;
    trip.forward(call)?;
    let split = choose::weighted(forward.split.iter().map(|it| it.weight), worker.random());
    let upstream = forward.split.get(split).ok_or(Refusal::NoEndpoint)?;
    let upstream = local.upstream(upstream.upstream.index).ok_or(Refusal::NoEndpoint)?;
    trip.note(|exchange| exchange.upstream = Some(upstream.config.name.clone()));
    let Forward { retry, timeouts, .. } = forward;
    let trial = upstream.let_through(call.now).map_err(|wait| {
        count(&upstream.state.counts.refused_open);
        Refusal::Open(wait)
    })?;

    let mut body = std::mem::take(body);
    if let Some(mirror) = &forward.mirror
        && mirror.share.takes(worker.random())
        && let Some(shadow) = local.upstream(mirror.upstream.index)
    {
        body = mirror_to(worker, shadow, call, body, retry.buffer, timeouts).await?;
    }
    let deadline = timeouts.call.map(|call_timeout| call.now + call_timeout);
    let entered = match upstream.enter(call, worker.random(), call.now) {
        // In a box, so that calls which need not wait have no room for it.
        Err(NoSeat::Full) => Box::pin(upstream.wait(call, worker.random(), deadline)).await,
        entered => entered,
    };
    let (pass, seat) = entered.map_err(|none| refuse(upstream, none))?;
    let (counted, bytes_in) = count::counted(body);
    body = counted;
    trip.reads(bytes_in);
    if forward.forwarded {
        forward::add_forwarded(&mut call.head, &call.client, &listener.trusted());
    }
    upstream.state.budget.deposit(retry.budget, &upstream.deposits);

    let repeatable = retry.attempts > 1 || retry.hedge.is_some();
    let replay = (repeatable && !body.is_empty()).then(|| Replay::new(std::mem::take(&mut body), retry.buffer));
    let Rewrite { path, host } = &forward.rewrite;
    let rewrites =
        path.is_some() || host.is_some() || upstream.endpoints.iter().any(|it| !it.config.base_path.is_empty());
    let mut tries = Tries {
        deadline,
        original: rewrites.then(|| (call.head.target.clone(), call.head.authority.clone())),
        way,
        upstream,
        body,
        replay,
        trial,
        tried: SmallVec::new(),
        fresh: false,
        stale: 0,
    };
    let answer = tries.run(seat, pass, call, trip).await;
    if let Some(replay) = &tries.replay {
        let held = replay.bytes() as u64 * trip.since_began().as_millis() as u64;
        trip.note(|exchange| exchange.held = held);
    }
    answer
}

impl Tries<'_> {
    async fn run(
        &mut self,
        mut seat: Seat,
        pass: Option<Pass>,
        call: &mut Call,
        trip: &mut Trip,
    ) -> Result<Response, Refusal> {
        let (worker, upstream, retry) = (self.way.worker, self.upstream, &self.way.forward.retry);
        loop {
            let (number, started) = self.begin(&seat.endpoint, &mut call.head, trip);
            let body = self.body().ok_or(Refusal::BadGateway)?;
            let begun = Try { seat, number, started };
            // The stamps of its connection.
            let mut connection = Timeline::default();
            let (mut done, ended) = match self.hedge_after(call) {
                None => {
                    let ended = self.once(&begun.seat.endpoint, &call.head, body, started, &mut connection).await;
                    (begun, ended)
                }
                // In a box, so that calls which are not hedged have no room for it.
                Some(after) => Box::pin(self.hedged(begun, body, after, call, &mut connection, trip)).await,
            };
            let now = Time::now();
            let Ended { result, protocol } = ended;
            if !protocol.is_empty() {
                trip.note(|exchange| exchange.upstream_protocol = protocol);
            }
            let (fault, unwanted) = match result {
                Ok(response) if retry.on.has_status(response.head.status) => {
                    (Fault::Status(response.head.status), Some(response))
                }
                Ok(response) => {
                    self.note(&mut done.seat, &Fault::Status(response.head.status), now);
                    done.seat.hold(pass);
                    return Ok(self.accept(response, done, &connection, call, now, trip));
                }
                Err(fault) => (fault, None),
            };
            // A connection that was closed while it lay idle says nothing of the endpoint: once more, on a new one.
            let stale = self.is_stale(&fault, call);
            if !stale {
                self.note(&mut done.seat, &fault, now);
            }
            let again = stale || self.may_repeat(&fault, call, now);
            if let Some(response) = unwanted
                && !again
            {
                done.seat.hold(pass);
                return Ok(self.accept(response, done, &connection, call, now, trip));
            }
            self.failed(&done, &fault, trip);
            if stale {
                self.stale += 1;
                self.fresh = true;
                seat = done.seat;
                continue;
            }
            self.tried.push(done.seat.at);
            if fault.is_full() {
                // It has not been tried, nor is it ill. Any other may have room.
                if self.tried.len() >= upstream.endpoints.len() {
                    return Err(refuse(upstream, NoSeat::Full));
                }
            } else {
                // A body that was not to be had says nothing of the endpoint.
                if fault.is_of_the_upstream() {
                    done.seat.endpoint.state.load.observe_failure(now);
                }
                if !again {
                    return Err(fault.refusal());
                }
                let pause = backoff(retry, self.tried.len(), worker.random());
                if self.deadline.is_some_and(|deadline| now + pause >= deadline) {
                    return Err(Refusal::Timeout);
                }
                drop(done);
                tokio::time::sleep(pause).await;
            }
            seat = upstream
                .seat(call, &self.tried, worker.random(), Time::now())
                .map_err(|none| refuse(upstream, none))?;
        }
    }

    /// Makes the request one to this endpoint, and enters the try in the books.
    fn begin(&self, endpoint: &LocalEndpoint, head: &mut RequestHead, trip: &mut Trip) -> (usize, Time) {
        let worker = self.way.worker;
        let span = SpanId::random(|| worker.random());
        let mut first = None;
        trip.note(|exchange| {
            first = exchange.attempts.is_empty().then(|| Timeline::from_arrival(&exchange.arrival));
            if worker.traces() {
                head.headers.set("traceparent", exchange.trace.traceparent(span));
                if exchange.trace.state.is_none() {
                    head.headers.remove("tracestate");
                }
            }
        });
        let mut timeline = first.unwrap_or_default();
        let now = Time::now();
        timeline.mark(Stamp::PoliciesDone, now);
        timeline.mark(Stamp::EndpointChosen, now);
        let endpoint_url = endpoint.state.url.clone();
        let attempt = Attempt { endpoint: endpoint_url, timeline, outcome: Outcome::Abandoned, span };
        let number = trip.attempt(attempt);

        let (rewrite, found) = (&self.way.forward.rewrite, self.way.found);
        if let Some((target, authority)) = &self.original {
            head.target.clone_from(target);
            head.authority.clone_from(authority);
            let at = &endpoint.config;
            forward::rewrite_target(head, rewrite, &at.base_path, found.prefix_len, &found.params);
            forward::rewrite_host(head, rewrite, &at.authority);
        }
        (number, now)
    }

    /// The request's body for one try; `None` if it is gone.
    fn body(&mut self) -> Option<Body> {
        match &self.replay {
            Some(replay) => replay.body(),
            None => Some(std::mem::take(&mut self.body)),
        }
    }

    /// One try at one endpoint.
    async fn once(
        &self,
        endpoint: &LocalEndpoint,
        head: &RequestHead,
        body: Body,
        started: Time,
        timeline: &mut Timeline,
    ) -> Ended {
        let Way { upgrade, forward: Forward { retry, timeouts, .. }, .. } = self.way;
        let try_deadline = retry.try_timeout.map(|timeout| started + timeout);
        let deadline = match (self.deadline, try_deadline) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let connect = deadline.map_or(timeouts.connect, |deadline| timeouts.connect.min(deadline.since(started)));
        let leased = match upgrade {
            None => endpoint.pool.lease(self.fresh, connect, timeline).await,
            Some(_) => endpoint.pool.lease_for_upgrade(connect, timeline).await,
        };
        let lease = match leased {
            Ok(lease) => lease,
            Err(error) => return Ended { result: Err(Fault::Connect(error)), protocol: "" },
        };
        let reused = lease.is_reused();
        let protocol = lease.protocol();
        let sent = Rc::new(Cell::new(Time::default()));
        // Where it lies: it is large, and would be moved twice on its way to where it is awaited.
        let sending = pin!(lease.send(head, upgrade, body, sent.clone()));
        let result =
            match deadline::answer(&self.way.worker.timers, sending, &sent, timeouts.first_byte, deadline).await {
                Ok(Ok(response)) => Ok(response),
                Ok(Err(error)) => Err(Fault::Send { error, reused }),
                Err(late) => Err(Fault::Late(late)),
            };
        if sent.get() != Time::default() {
            timeline.mark(Stamp::RequestSent, sent.get());
        }
        Ended { result, protocol }
    }

    /// How long to wait before a second endpoint is tried beside the first; `None` if none is to be.
    fn hedge_after(&self, call: &Call) -> Option<Duration> {
        let retry = &self.way.forward.retry;
        let hedge = retry.hedge.as_ref()?;
        let harmless = retry.unsafe_methods || is_idempotent(&call.head.method);
        if !harmless || self.way.upgrade.is_some() || self.upstream.endpoints.len() < 2 {
            return None;
        }
        match hedge.after {
            HedgeAfter::Time(after) => Some(after),
            HedgeAfter::Part(part) => self.upstream.times.get_or_init(Times::default).part(part),
        }
    }

    /// A try, and beside it others at other endpoints as soon as it takes longer than `after`. The first good answer
    /// counts; the others are let go at once, which closes their connections or resets their streams.
    async fn hedged(
        &mut self,
        first: Try,
        body: Body,
        after: Duration,
        call: &Call,
        connection: &mut Timeline,
        trip: &mut Trip,
    ) -> (Try, Ended) {
        let (worker, upstream, retry) = (self.way.worker, self.upstream, &self.way.forward.retry);
        let mut left = retry.hedge.as_ref().map_or(0, |hedge| hedge.attempts);
        let mut next = Some(first.started + after);
        let mut failed: SmallVec<[usize; 4]> = SmallVec::new();
        let mut timer = LazyTimer::new(&worker.timers);
        let original = first.number;
        let running = |begun: Try, head: RequestHead, body: Body| {
            let (this, endpoint) = (&*self, begun.seat.endpoint.clone());
            let started = begun.started;
            let once = async move {
                let mut connection = Timeline::default();
                let ended = this.once(&endpoint, &head, body, started, &mut connection).await;
                (ended, connection)
            };
            (begun, Box::pin(once))
        };
        let mut tries = vec![running(first, call.head.clone(), body)];
        let (winner, ended, stamps) = loop {
            let done = poll_fn(|cx| {
                for (at, (_, future)) in tries.iter_mut().enumerate() {
                    if let Poll::Ready(ended) = future.as_mut().poll(cx) {
                        return Poll::Ready(Some((at, ended)));
                    }
                }
                next.map_or(Poll::Pending, |next| timer.poll(next, cx).map(|()| None))
            });
            let Some((at, (ended, stamps))) = done.await else {
                let now = Time::now();
                next = None;
                let busy: SmallVec<[usize; 4]> =
                    self.tried.iter().chain(&failed).copied().chain(tries.iter().map(|it| it.0.seat.at)).collect();
                let whole = self.replay.as_ref().is_none_or(Replay::is_whole) && self.body.is_empty();
                if whole
                    && left > 0
                    && let Some(body) = self.replay.as_ref().map_or(Some(Body::Empty), Replay::body)
                    && !upstream.is_left_alone(now)
                    && let Ok(seat) = upstream.seat(call, &busy, worker.random(), now)
                    && !busy.contains(&seat.at)
                    && upstream.state.budget.withdraw(now, retry.min_per_second)
                {
                    count(&upstream.state.counts.hedges);
                    left -= 1;
                    let mut head = call.head.clone();
                    let (number, started) = self.begin(&seat.endpoint, &mut head, trip);
                    tries.push(running(Try { seat, number, started }, head, body));
                    next = (left > 0).then_some(started + after);
                }
                continue;
            };
            let (mut done, _) = tries.swap_remove(at);
            let fault = match &ended.result {
                Ok(response) if !retry.on.has_status(response.head.status) => break (done, ended, stamps),
                _ if tries.is_empty() => break (done, ended, stamps),
                Ok(response) => &Fault::Status(response.head.status),
                Err(fault) => fault,
            };
            // Another is still at it.
            let now = Time::now();
            self.note(&mut done.seat, fault, now);
            done.seat.endpoint.state.load.observe_failure(now);
            self.failed(&done, fault, trip);
            failed.push(done.seat.at);
        };
        let now = Time::now();
        for (loser, _) in tries {
            // How long it would have taken is not known, but that it would have taken longer than this.
            let so_far = now.since(loser.started);
            loser.seat.endpoint.state.load.observe(so_far, now);
            if let Some(times) = upstream.times.get() {
                times.note(so_far);
            }
        }
        if winner.number != original && ended.result.is_ok() {
            count(&upstream.state.counts.hedges_won);
        }
        self.tried.extend(failed);
        *connection = stamps;
        (winner, ended)
    }

    fn accept(
        &self,
        mut response: Response,
        done: Try,
        connection: &Timeline,
        call: &Call,
        now: Time,
        trip: &mut Trip,
    ) -> Response {
        if let Some(replay) = &self.replay {
            replay.seal();
        }
        let since = connection.at(Stamp::RequestSent).unwrap_or(now);
        done.seat.endpoint.state.load.observe(now.since(since), now);
        if let Some(times) = self.upstream.times.get() {
            times.note(now.since(done.started));
        }
        trip.answered(done.number, done.seat, response.head.status, now);
        trip.mark_all(connection);
        trip.patience = Patience { idle: self.way.forward.timeouts.idle, deadline: self.deadline };
        match self.way.upgrade.filter(|_| response.tunnel.is_some()) {
            None => forward::strip_response(&mut response.head.headers),
            Some(protocol) => forward::as_switched(&mut response.head, protocol, &call.head),
        }
        response
    }

    fn failed(&self, done: &Try, fault: &Fault, trip: &mut Trip) {
        trip.failed(done.number, fault.word());
        tracing::debug!(endpoint = %done.seat.endpoint.state.url, error = %fault, "attempt failed");
    }

    /// What an answer or a fault says of the endpoint and of the upstream.
    fn note(&self, seat: &mut Seat, fault: &Fault, now: Time) {
        if fault.is_of_the_upstream() {
            self.upstream.note(seat, self.trial.as_ref(), |kinds| fault.is_one_of(kinds), now);
        }
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
            // Nothing was tried.
            Fault::Connect(ConnectError::Full) => return self.body.is_empty() && self.can_resend(),
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
            && !self.upstream.is_left_alone(now)
            && self.upstream.state.budget.withdraw(now, retry.min_per_second)
    }

    fn can_resend(&self) -> bool {
        self.replay.as_ref().is_none_or(|replay| replay.body().is_some())
    }
}

/// Why a call has no place at an endpoint.
fn refuse(upstream: &LocalUpstream, none: NoSeat) -> Refusal {
    match none {
        NoSeat::Nowhere => Refusal::NoEndpoint,
        NoSeat::Full => {
            count(&upstream.state.counts.refused_full);
            Refusal::Full
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
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
    let Ok(seat) = shadow.seat(call, &[], worker.random(), call.now) else { return Ok(Body::from(whole)) };
    let (copy, connect) = (Body::from(whole.clone()), timeouts.connect);
    let patience = timeouts.first_byte.unwrap_or(Duration::from_secs(60));
    worker.outside.aside(async move {
        let mirroring = async {
            let lease = seat.endpoint.pool.lease(false, connect, &mut Timeline::default()).await.ok()?;
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

    /// There was no connection to try it on.
    fn is_full(&self) -> bool {
        matches!(self, Fault::Connect(ConnectError::Full))
    }

    /// It tells something of the upstream, and not of the client or of our own bounds.
    fn is_of_the_upstream(&self) -> bool {
        !self.is_full() && !matches!(self, Fault::Send { error: SendError::Body(_) | SendError::Unsendable(_), .. })
    }

    fn is_one_of(&self, kinds: &FaultKinds) -> bool {
        match self {
            Fault::Connect(ConnectError::Timeout) => kinds.connect || kinds.timeout,
            Fault::Connect(_) => kinds.connect,
            Fault::Send { .. } => kinds.reset,
            Fault::Late(_) => kinds.timeout,
            Fault::Status(status) => kinds.has_status(*status),
        }
    }

    fn word(&self) -> &'static str {
        match self {
            Fault::Connect(ConnectError::Full) => "upstream_full",
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
            Fault::Connect(ConnectError::Full) => Refusal::Full,
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
