//! What arrived, for a test to look at afterwards.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::{HeaderMap, Method, Request, Version};

use crate::stream::now_ns;

/// The head of one request.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which connection carried it, counted from 1.
    pub connection: u64,
    pub version: Version,
    pub method: Method,
    pub path: String,
    pub query: String,
    /// The `Host` header or HTTP/2's `:authority`.
    pub authority: String,
    pub headers: HeaderMap,
    /// When its head had arrived, nanoseconds since the UNIX epoch.
    pub at_ns: u64,
}

impl Seen {
    pub(crate) fn of<B>(request: &Request<B>, connection: u64) -> Self {
        let host = request.headers().get(http::header::HOST).and_then(|host| host.to_str().ok());
        let authority = request.uri().authority().map(|authority| authority.as_str());
        Self {
            connection,
            version: request.version(),
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            query: request.uri().query().unwrap_or_default().to_owned(),
            authority: authority.or(host).unwrap_or_default().to_owned(),
            headers: request.headers().clone(),
            at_ns: now_ns(),
        }
    }

    /// A header's first value as text, or nothing.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

pub(crate) struct Journal {
    requests: AtomicU64,
    capacity: usize,
    lines: Mutex<VecDeque<Seen>>,
}

impl Journal {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { requests: AtomicU64::new(0), capacity, lines: Mutex::default() }
    }

    pub(crate) fn note(&self, seen: Seen) {
        if self.capacity > 0 {
            let mut lines = self.lines();
            if lines.len() == self.capacity {
                lines.pop_front();
            }
            lines.push_back(seen);
        }
        self.requests.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Acquire)
    }

    pub(crate) fn seen(&self, path: &str) -> Vec<Seen> {
        self.lines().iter().filter(|seen| seen.path == path).cloned().collect()
    }

    pub(crate) fn all(&self) -> Vec<Seen> {
        self.lines().iter().cloned().collect()
    }

    fn lines(&self) -> MutexGuard<'_, VecDeque<Seen>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
