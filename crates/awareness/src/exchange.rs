//! The record of one call, written along the path and never read there to decide anything.
//!
//! Names are shared with the snapshot the call ran on, the target is moved out of the request, the first
//! attempt lies inline: a plain GET that is served at the first attempt allocates nothing here.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base::{Call, Method, Scheme, StatusCode, Time, Version};
use smallvec::SmallVec;

use crate::{Arrival, SpanId, Timeline, TraceContext};

#[derive(Clone, Debug)]
pub struct Exchange {
    /// When its head had been read, on either clock.
    pub started: Time,
    pub wall: SystemTime,
    /// The last byte was written, or it was clear that none would be.
    pub finished: Time,
    pub arrival: Arrival,
    pub client: IpAddr,
    pub method: Method,
    pub scheme: Scheme,
    pub host: String,
    /// Path and query, moved out of the request. Observers show [`Exchange::path`]: queries carry secrets.
    pub target: String,
    pub version: Version,
    /// The protocol spoken to the upstream: `http/1.1`, `h2`; empty if none was reached.
    pub upstream_protocol: &'static str,
    pub api: Option<Arc<str>>,
    pub route: Option<Arc<str>>,
    pub upstream: Option<Arc<str>>,
    pub consumer: Option<Arc<str>>,
    /// The name of the key it presented.
    pub credential: Option<Arc<str>>,
    /// `None` if the client went before there was an answer.
    pub status: Option<StatusCode>,
    /// What went wrong, as one word: `upstream_connect`.
    pub error: Option<&'static str>,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Time on a core, where this call was measured: times the calls it stands for.
    pub cpu: Duration,
    /// Bytes of its body that were kept in memory to be sent again, times the milliseconds that they were.
    pub held: u64,
    pub ending: Ending,
    /// In the order in which they were made; all but the first are retries.
    pub attempts: SmallVec<[Attempt; 1]>,
    pub steps: SmallVec<[Step; 2]>,
    /// What the cache had to do with it, where one was asked.
    pub cache: Option<Cached>,
    /// What a call to a model came to.
    pub model: Option<Box<ModelUse>>,
    pub trace: TraceContext,
}

/// What a call to a model came to, all its attempts together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelUse {
    /// As the caller named it.
    pub asked: Arc<str>,
    /// Who answered last, or was asked last: `anthropic/claude-sonnet-4-5`.
    pub served: String,
    /// Tokens.
    pub prompt: u64,
    pub completion: u64,
    /// Some of them were counted here, since the provider did not tell.
    pub estimated: bool,
    /// In US dollars, as a decimal.
    pub cost: String,
    /// What it would have cost, if it was not asked for because it was known.
    pub saved: Option<String>,
}

/// What the cache had to do with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cached {
    /// It came from there.
    Hit,
    /// It came from there though it was no longer fresh.
    Stale,
    /// It came from there, once the upstream had said that it had not changed.
    Revalidated,
    /// It came from the upstream, for want of one that could be used.
    Miss,
    /// It came from there, and is the answer to something that is nearly the same.
    Near,
    /// Another call had asked the upstream for it.
    Collapsed,
    /// The cache was not asked: a method, a field or a body spoke against it.
    Bypass,
}

/// One try at one endpoint.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub endpoint: Arc<str>,
    pub timeline: Timeline,
    pub outcome: Outcome,
    /// The span the upstream was told as its parent.
    pub span: SpanId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Answered(StatusCode),
    /// What went wrong, in the words of [`Exchange::error`].
    Failed(&'static str),
    /// Nobody waited for its answer any more.
    Abandoned,
}

/// What one policy did with the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub policy: &'static str,
    pub end: StepEnd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepEnd {
    Passed,
    /// It answered in the upstream's stead (a cache, a CORS preflight).
    Answered,
    Refused,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    #[default]
    Complete,
    ClientGone,
    UpstreamBroke,
    Deadline,
    /// A policy would not let the rest of the answer pass.
    Stopped,
}

// === impl Exchange ===

impl Exchange {
    /// Of a call that has just come. `again` is one that is done with, whose memory is used once more.
    pub fn begin(again: Option<Box<Exchange>>, call: &Call, arrival: Arrival, trace: TraceContext) -> Box<Exchange> {
        let mut exchange = again.unwrap_or_default();
        let Exchange {
            started,
            wall,
            finished,
            arrival: its_arrival,
            client,
            method,
            scheme,
            host,
            target,
            version,
            upstream_protocol,
            api,
            route,
            upstream,
            consumer,
            credential,
            status,
            error,
            bytes_in,
            bytes_out,
            cpu,
            held,
            ending,
            attempts,
            steps,
            cache,
            model,
            trace: its_trace,
        } = &mut *exchange;
        (*started, *wall, *finished, *its_arrival) = (call.now, call.wall, call.now, arrival);
        *client = call.client.addr;
        let head = &call.head;
        method.clone_from(&head.method);
        (*scheme, *version) = (head.scheme, head.version);
        host.clone_from(&head.authority);
        target.clone_from(&head.target);
        *upstream_protocol = "";
        (*api, *route, *upstream, *consumer, *credential) = (None, None, None, None, None);
        (*status, *error) = (None, None);
        (*bytes_in, *bytes_out, *cpu, *held) = (0, 0, Duration::ZERO, 0);
        *ending = Ending::default();
        attempts.clear();
        steps.clear();
        (*cache, *model) = (None, None);
        *its_trace = trace;
        exchange
    }

    /// True if keeping its memory for another call holds no more than most calls need.
    pub fn is_small(&self) -> bool {
        self.host.capacity() + self.target.capacity() <= 1024 && !self.attempts.spilled() && !self.steps.spilled()
    }

    pub fn path(&self) -> &str {
        self.target.bytes().position(|byte| byte == b'?').map_or(&self.target, |mark| &self.target[..mark])
    }

    pub fn duration(&self) -> Duration {
        self.finished - self.started
    }

    /// The service failed it: 5xx, no answer at all, or one that broke off.
    pub fn is_error(&self) -> bool {
        self.status.is_none_or(|status| status.is_server_error())
            || matches!(self.ending, Ending::UpstreamBroke | Ending::Deadline)
    }

    pub fn retries(&self) -> u64 {
        self.attempts.len().saturating_sub(1) as u64
    }

    pub fn refused_by(&self) -> Option<&'static str> {
        self.steps.iter().find(|step| step.end == StepEnd::Refused).map(|step| step.policy)
    }

    /// The story of the call: its last attempt's, or what is known of a call that came to none.
    pub fn timeline(&self) -> Timeline {
        self.attempts.last().map_or_else(|| Timeline::from_arrival(&self.arrival), |attempt| attempt.timeline)
    }

    /// A moment of the call on the wall clock.
    pub fn wall_at(&self, at: Time) -> SystemTime {
        if at >= self.started { self.wall + (at - self.started) } else { self.wall - (self.started - at) }
    }
}

impl Default for Exchange {
    fn default() -> Exchange {
        Exchange {
            started: Time::default(),
            wall: SystemTime::UNIX_EPOCH,
            finished: Time::default(),
            arrival: Arrival::default(),
            client: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            method: Method::GET,
            scheme: Scheme::Http,
            host: String::new(),
            target: String::new(),
            version: Version::HTTP_11,
            upstream_protocol: "",
            api: None,
            route: None,
            upstream: None,
            consumer: None,
            credential: None,
            status: None,
            error: None,
            bytes_in: 0,
            bytes_out: 0,
            cpu: Duration::ZERO,
            held: 0,
            ending: Ending::default(),
            attempts: SmallVec::new(),
            steps: SmallVec::new(),
            cache: None,
            model: None,
            trace: TraceContext::default(),
        }
    }
}

// === impl Outcome ===

impl Outcome {
    /// As a label: `ok`, `server_error` for an answer of 5xx, the error's word, `abandoned`.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Answered(status) if status.is_server_error() => "server_error",
            Outcome::Answered(_) => "ok",
            Outcome::Failed(error) => error,
            Outcome::Abandoned => "abandoned",
        }
    }
}

// === impl Cached ===

impl Cached {
    pub const fn as_str(self) -> &'static str {
        match self {
            Cached::Hit => "hit",
            Cached::Stale => "stale",
            Cached::Revalidated => "revalidated",
            Cached::Miss => "miss",
            Cached::Near => "near",
            Cached::Collapsed => "collapsed",
            Cached::Bypass => "bypass",
        }
    }
}

// === impl Ending ===

impl Ending {
    pub const fn as_str(self) -> &'static str {
        match self {
            Ending::Complete => "complete",
            Ending::ClientGone => "client_gone",
            Ending::UpstreamBroke => "upstream_broke",
            Ending::Deadline => "deadline",
            Ending::Stopped => "stopped",
        }
    }
}
