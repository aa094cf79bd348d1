//! Answers to an authority that asks by HTTP (HTTP-01, RFC 8555, 8.3), on whatever listener it asks.

use std::collections::HashMap;

use arc_swap::ArcSwap;
use base::{Headers, ResponseHead, StatusCode};
use transport::{Body, Response};

/// What to answer, by the token that is asked for. Read by all workers, without a lock.
#[derive(Default)]
pub struct Tokens(ArcSwap<HashMap<String, String>>);

const PLACE: &str = "/.well-known/acme-challenge/";

impl Tokens {
    /// The answer, if it is one of these that is asked for; all else under that path belongs to the routes.
    #[inline]
    pub fn answer(&self, path: &str) -> Option<Response> {
        self.find(path.strip_prefix(PLACE)?)
    }

    #[cold]
    fn find(&self, token: &str) -> Option<Response> {
        let answer = self.0.load().get(token)?.clone();
        let headers = Headers::from_iter([("content-type", "application/octet-stream")]);
        Some(Response::new(ResponseHead { status: StatusCode::OK, headers }, Body::from(answer.into_bytes())))
    }

    pub fn set(&self, token: &str, answer: &str) {
        self.0.rcu(|tokens| {
            let mut tokens = HashMap::clone(tokens);
            tokens.insert(token.to_owned(), answer.to_owned());
            tokens
        });
    }

    pub fn forget(&self, token: &str) {
        self.0.rcu(|tokens| {
            let mut tokens = HashMap::clone(tokens);
            tokens.remove(token);
            tokens
        });
    }
}
