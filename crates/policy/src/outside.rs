//! The narrow door through which a policy asks the outside world. Who stands behind it is the path's business.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use base::{Headers, Method, StatusCode};
use bytes::Bytes;

/// A future of one core.
pub type Local<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// What policies may ask of the world. One for each core; a call that is dropped drops its question.
pub trait Outside {
    /// Sends a request and reads the whole answer.
    fn ask(&self, asked: Asked) -> Local<'_, Result<Told, OutsideError>>;

    /// The same for what no call waits for and no call's end interrupts. Of too much of it, some is left undone, and
    /// `then` dropped.
    fn ask_aside(&self, errand: Errand);

    /// Does something that no call waits for and that no call's end interrupts. Of too much of it, some is left undone.
    fn aside(&self, task: Local<'static, ()>);

    /// Runs a script in a store that nodes share, and tells `then` the whole numbers that it gave. No call's end
    /// interrupts it; of too much of it, some is left undone, and `then` dropped.
    fn eval(&self, eval: Eval, then: Box<dyn FnOnce(Result<Vec<i64>, StoreAway>)>);

    /// What tells this node from the others that share a store.
    fn node(&self) -> u64;

    /// An evenly spread number; not for secrets.
    fn random(&self) -> u64;
}

#[derive(Clone, Debug)]
pub struct Asked {
    pub method: Method,
    /// `http://` or `https://`, absolute.
    pub url: String,
    pub headers: Headers,
    pub body: Bytes,
    /// For all of it, from connecting to the last byte.
    pub within: Duration,
    /// Bytes of the answer's body that are taken; a longer one is an error.
    pub most: usize,
    /// HTTP/2 without TLS, as gRPC is spoken. Over TLS the handshake settles it.
    pub prior_knowledge: bool,
    /// Whom a server's certificate must lead to, in PEM; the system's authorities unless given.
    pub authorities: Option<Arc<[u8]>>,
}

/// A question, and who is told what came; who may have another one then. Each one's `within` counts from the beginning
/// of the first.
pub struct Errand {
    pub asked: Asked,
    pub then: Box<dyn FnOnce(Result<Told, OutsideError>) -> Option<Errand>>,
}

/// A script for a store. Of Redis and Valkey, in Lua.
#[derive(Clone, Debug)]
pub struct Eval {
    /// As the document calls it.
    pub store: Arc<str>,
    pub script: &'static str,
    pub keys: Vec<Vec<u8>>,
    pub args: Vec<Vec<u8>>,
}

/// The store did not answer, or not as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store is away")]
pub struct StoreAway;

#[derive(Clone, Debug)]
pub struct Told {
    pub status: StatusCode,
    pub headers: Headers,
    pub body: Bytes,
    pub trailers: Option<Headers>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutsideError {
    #[error("`{0}` is no URL that can be asked; expected `http://` or `https://`")]
    Url(String),
    #[error("cannot connect: {0}")]
    Connect(String),
    #[error("no whole answer: {0}")]
    Broken(String),
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    #[error("it took too long")]
    Late,
    #[error("there is nobody to ask here")]
    Nobody,
}

/// Where nobody can be asked: in `weir check`, and in tests of policies that ask nobody.
pub struct Nowhere;

impl Outside for Nowhere {
    fn ask(&self, _: Asked) -> Local<'_, Result<Told, OutsideError>> {
        Box::pin(std::future::ready(Err(OutsideError::Nobody)))
    }

    fn ask_aside(&self, errand: Errand) {
        let mut next = Some(errand);
        while let Some(errand) = next {
            next = (errand.then)(Err(OutsideError::Nobody));
        }
    }

    fn aside(&self, _: Local<'static, ()>) {}

    fn eval(&self, _: Eval, then: Box<dyn FnOnce(Result<Vec<i64>, StoreAway>)>) {
        then(Err(StoreAway));
    }

    fn node(&self) -> u64 {
        0
    }

    fn random(&self) -> u64 {
        0
    }
}
