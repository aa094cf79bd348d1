//! The keys of an issuer that are fetched, kept and renewed.
//!
//! Whoever verifies a token takes the keys there are, without a lock. A call that finds them aging sets a renewal going
//! and does not wait for it; only where there are no keys at all a call waits, for one fetch and no longer. Of all calls
//! on all cores at most one fetches at a time, and at most one every few seconds, whatever tokens are sent.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use aws_lc_rs::digest;
use base::{Headers, Method, StatusCode, Time};
use bytes::Bytes;

use super::discovery;
use super::jws::{Algorithm, KeySet};
use crate::outside::{Asked, Errand, Outside, OutsideError, Told};

/// Between the beginnings of two fetches.
pub const PAUSE: Duration = Duration::from_secs(5);
/// For one fetch, with all the questions that it takes.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of a set of keys, or of what tells where it is.
const MOST: usize = 256 * 1024;
/// How long an answer counts as fresh, by its `Cache-Control`, and if it says nothing.
const LEAST_FRESH: Duration = Duration::from_secs(60);
const MOST_FRESH: Duration = Duration::from_secs(3600);
const FRESH: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub struct Remote {
    pub place: Place,
    /// Whom to trust there, in PEM; the system's authorities if absent.
    pub authorities: Option<Arc<[u8]>>,
    pub algorithms: Vec<Algorithm>,
    /// How long keys are used that could not be renewed.
    pub stale: Duration,
    fetched: ArcSwapOption<Fetched>,
    fetching: AtomicBool,
    /// When the last fetch began, in nanoseconds; zero if none did.
    tried: AtomicU64,
    /// How many fetches have come to an end.
    rounds: AtomicU64,
    /// Those who wait for the fetch. Held only where there are no keys.
    waiting: Mutex<Vec<Waker>>,
}

/// Where an issuer's keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    At(String),
    /// Where this issuer says. It is asked for each fetch, so that it may move them.
    SaidBy(String),
}

/// A set of keys, and until when it is good.
#[derive(Debug)]
pub struct Fetched {
    pub keys: Arc<KeySet>,
    /// Another number for another set.
    pub generation: u64,
    hash: Vec<u8>,
    renew: Time,
    until: Time,
}

/// There are no keys, and none could be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoKeys {
    pub retry_after: Duration,
}

impl Remote {
    pub fn new(place: Place, authorities: Option<Arc<[u8]>>, algorithms: Vec<Algorithm>, stale: Duration) -> Remote {
        Remote {
            place,
            authorities,
            algorithms,
            stale,
            fetched: ArcSwapOption::empty(),
            fetching: AtomicBool::new(false),
            tried: AtomicU64::new(0),
            rounds: AtomicU64::new(0),
            waiting: Mutex::default(),
        }
    }

    /// The keys, renewed aside where they age; waits only if there are none.
    pub async fn keys(self: &Arc<Remote>, now: Time, outside: &dyn Outside) -> Result<Arc<Fetched>, NoKeys> {
        if let Some(fetched) = self.at_hand(now, outside, Arc::clone) {
            return Ok(fetched);
        }
        let round = self.rounds.load(Acquire);
        self.fetch(now, outside);
        self.end_of(round).await;
        self.fetched.load_full().filter(|it| now < it.until).ok_or_else(|| {
            let since = Duration::from_nanos(now.nanos().saturating_sub(self.tried.load(Relaxed)));
            NoKeys { retry_after: PAUSE.saturating_sub(since) }
        })
    }

    /// What `of` says of the keys that are here, if there are any.
    pub fn at_hand<T>(
        self: &Arc<Remote>,
        now: Time,
        outside: &dyn Outside,
        of: impl FnOnce(&Arc<Fetched>) -> T,
    ) -> Option<T> {
        let fetched = self.fetched.load();
        let fetched = fetched.as_ref().filter(|it| now < it.until)?;
        if now >= fetched.renew {
            self.fetch(now, outside);
        }
        Some(of(fetched))
    }

    /// Begins a fetch, unless one is under way or was a moment ago.
    pub fn fetch(self: &Arc<Remote>, now: Time, outside: &dyn Outside) {
        let tried = self.tried.load(Relaxed);
        if tried != 0 && now.nanos() < tried.saturating_add(PAUSE.as_nanos() as u64)
            || self.fetching.swap(true, Acquire)
        {
            return;
        }
        let fetch = Fetch(self.clone());
        self.tried.store(now.nanos().max(1), Relaxed);
        // If it is left undone, this is dropped, and whoever waits is told.
        outside.ask_aside(match &self.place {
            Place::At(url) => fetch.keys(url.clone(), now),
            Place::SaidBy(issuer) => {
                let [usual, other] = discovery::places(issuer);
                fetch.place(issuer.clone(), usual, Some(other), now)
            }
        });
    }

    fn question(&self, url: &str, accept: &'static str) -> Asked {
        Asked {
            method: Method::GET,
            url: url.to_owned(),
            headers: Headers::from_iter([("accept", accept)]),
            body: Bytes::new(),
            within: PATIENCE,
            most: MOST,
            prior_knowledge: false,
            authorities: self.authorities.clone(),
        }
    }

    fn take(&self, url: &str, told: Result<Told, OutsideError>, now: Time) {
        let read = good(told)
            .and_then(|told| Ok((KeySet::parse(&told.body, &self.algorithms)?, fresh(&told.headers), told.body)));
        match read {
            Ok((keys, fresh, body)) => {
                let hash = digest::digest(&digest::SHA256, &body).as_ref().to_vec();
                let old = self.fetched.load();
                let (keys, generation) = match old.as_ref() {
                    Some(old) if old.hash == hash => (old.keys.clone(), old.generation),
                    old => (Arc::new(keys), old.map_or(0, |it| it.generation) + 1),
                };
                let after = |wait: Duration| Time::from_nanos(now.nanos().saturating_add(wait.as_nanos() as u64));
                let fetched =
                    Fetched { keys, generation, hash, renew: after(fresh / 4 * 3), until: after(fresh + self.stale) };
                self.fetched.store(Some(Arc::new(fetched)));
            }
            Err(error) => tracing::warn!(url, error, "an issuer's keys cannot be had"),
        }
    }

    async fn end_of(&self, round: u64) {
        let mut place: Option<usize> = None;
        std::future::poll_fn(|context| {
            let over = || !self.fetching.load(Acquire) || self.rounds.load(Acquire) != round;
            if over() {
                return Poll::Ready(());
            }
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            // Again, since it may have ended before we held the lock.
            if over() {
                return Poll::Ready(());
            }
            match place.and_then(|at| waiting.get_mut(at)) {
                Some(waker) => waker.clone_from(context.waker()),
                None => {
                    place = Some(waiting.len());
                    waiting.push(context.waker().clone());
                }
            }
            Poll::Pending
        })
        .await;
    }
}

/// A fetch under way; however it ends, those who wait go on.
struct Fetch(Arc<Remote>);

impl Fetch {
    fn keys(self, url: String, now: Time) -> Errand {
        let asked = self.0.question(&url, "application/jwk-set+json, application/json");
        let then = move |told| {
            self.0.take(&url, told, now);
            None
        };
        Errand { asked, then: Box::new(then) }
    }

    /// Asks the issuer where its keys are, and fetches them. `other` is where to ask if there is nothing at `url`.
    fn place(self, issuer: String, url: String, other: Option<String>, now: Time) -> Errand {
        let asked = self.0.question(&url, "application/json");
        let then = move |told: Result<Told, OutsideError>| {
            if let (Ok(Told { status: StatusCode::NOT_FOUND, .. }), Some(other)) = (&told, other) {
                return Some(self.place(issuer, other, None, now));
            }
            match good(told).and_then(|told| discovery::keys_of(&issuer, &told.body)) {
                Ok(keys) => Some(self.keys(keys, now)),
                Err(error) => {
                    tracing::warn!(url, error, "an issuer does not say where its keys are");
                    None
                }
            }
        };
        Errand { asked, then: Box::new(then) }
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        let Fetch(remote) = self;
        let waiting = {
            let mut waiting = remote.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            remote.rounds.fetch_add(1, Release);
            remote.fetching.store(false, Release);
            std::mem::take(&mut *waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}

fn good(told: Result<Told, OutsideError>) -> Result<Told, String> {
    let told = told.map_err(|error| error.to_string())?;
    match told.status {
        StatusCode::OK => Ok(told),
        other => Err(format!("the answer was {}", other.as_u16())),
    }
}

/// How long an answer may be used (RFC 9111, 5.2.2), within our own bounds.
fn fresh(headers: &Headers) -> Duration {
    let directives = || {
        let all = headers.get_all("cache-control").filter_map(|it| std::str::from_utf8(it).ok());
        all.flat_map(|it| it.split(',')).map(str::trim)
    };
    if directives().any(|it| it.eq_ignore_ascii_case("no-store") || it.eq_ignore_ascii_case("no-cache")) {
        return LEAST_FRESH;
    }
    let seconds = directives().find_map(|it| {
        let (name, value) = it.split_once('=')?;
        name.trim().eq_ignore_ascii_case("max-age").then(|| value.trim().trim_matches('"').parse::<u64>().ok())?
    });
    seconds.map_or(FRESH, |it| Duration::from_secs(it).clamp(LEAST_FRESH, MOST_FRESH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cache_control_says_counts_within_bounds() {
        let check = |value: &str, seconds: u64| {
            let headers = Headers::from_iter([("cache-control", value)]);
            assert_eq!(fresh(&headers), Duration::from_secs(seconds), "{value}");
        };
        check("public, Max-Age=900, must-revalidate", 900);
        check("max-age=\"120\"", 120);
        check("max-age=0", 60);
        check("max-age=999999", 3600);
        check("no-store, max-age=900", 60);
        check("max-age=x", 600);
        assert_eq!(fresh(&Headers::new()), FRESH);
    }
}
