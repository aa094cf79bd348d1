//! A service that behaves, and misbehaves on request: what the demo, the tests and the benchmarks put behind a gateway.
//!
//! It stands on hyper, so that its idea of HTTP is not Weir's own. One listener answers HTTP/1.1 and HTTP/2 with prior
//! knowledge:
//!
//! | path | answer |
//! |---|---|
//! | `GET /` | a short text |
//! | `ANY /echo` | JSON of what arrived: method, path, query, headers, trailers, body, and which instance answered |
//! | `GET /bytes/{n}` | n bytes |
//! | `POST /sink` | reads everything, answers how much it was |
//! | `GET /status/{code}` | that status |
//! | `GET /delay/{ms}` | answers late |
//! | `GET /events?count=&every=&size=` | server-sent events, each with its number and a timestamp in nanoseconds |
//! | `GET /slow-body?chunks=&every=` | a body in pieces |
//! | `GET /trailers` | a body with trailers |
//! | `GET /health` | 200 or 503, see [`Simulator::set_healthy`] |
//! | `GET /ws` | WebSocket echo |
//! | `/simulator.Echo/{Unary,ServerStream,Bidi}` | gRPC echo of raw messages |
//! | `/grpc.health.v1.Health/Check` | the same health, in gRPC |
//! | `POST …/chat/completions`, `…/responses`, `…/embeddings`; `GET …/models` | a provider of models, in OpenAI's dialect |
//! | `POST …/messages`, `…/messages/count_tokens` | in Anthropic's |
//! | `POST …/models/{model}:generateContent`, `:streamGenerateContent`, `:embedContent`, `:countTokens` | in Gemini's |
//! | `POST …/model/{model}/converse`, `…/converse-stream`, `…/count-tokens`, `…/invoke` (embeddings) | in Bedrock's |
//! | `GET /books?since=` | what the calls to models would be billed, see [`Simulator::books`] |
//!
//! Models are told what to answer, how fast, and how to go wrong, by words: in the header `x-simulate: tokens=50 rate=100`,
//! after a `~` in the model's name (`gpt-4o~status=503,times=2`) or in the key, or in the last message, as in
//! `Hello [sim tokens=50 cut=3]`. They are listed in `model/words.rs`. A model whose name begins with `no-such` is not
//! found; a key that begins with `wrong` is not known.
//!
//! Any of them takes a [`Fault`]: by header `x-fault`, by query `?fault=`, or by [`Simulator::inject`].

mod answer;
mod fault;
mod grpc;
mod journal;
mod model;
pub mod raw;
mod rest;
mod server;
mod stream;
mod websocket;
mod wire;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

pub use fault::Fault;
pub use journal::Seen;
pub use model::books::{Ended, Entry};
pub use model::script::Usage;
pub use model::sigv4::{ACCESS_KEY, SECRET_KEY};
use server::State;
pub use stream::now_ns;

/// How a [`Simulator`] is to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// What `/echo` answers as `instance`, to tell one endpoint from another.
    pub name: String,
    /// Port 0 takes a free one.
    pub address: SocketAddr,
    /// How many requests the journal remembers; the oldest fall out.
    pub journal: usize,
    /// How many calls to models the books remember; the oldest fall out, their sums stay.
    pub books: usize,
    /// Whether a client of HTTP/1.1 may close its half of a connection and still have its answer. Who allows it notices
    /// only when writing that a client has gone; a provider does not, and notices at once.
    pub half_close: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: "simulator".into(),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            journal: 10_000,
            books: 100_000,
            half_close: true,
        }
    }
}

impl Options {
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Of one that is to be a provider of models.
    pub fn provider(name: impl Into<String>) -> Self {
        Self { half_close: false, ..Self::named(name) }
    }
}

/// A running simulator, on a thread of its own. Dropping it closes the listener and every connection.
pub struct Simulator {
    address: SocketAddr,
    state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Simulator {
    /// Returns once the listener is bound: a connection made now succeeds.
    pub fn start(options: Options) -> io::Result<Self> {
        let listener = TcpListener::bind(options.address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let state = Arc::new(State::new(&options));
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name(format!("simulator {}", options.name)).spawn({
            let state = state.clone();
            move || runtime.block_on(server::run(listener, state, stopped))
        })?;
        Ok(Self { address, state, stop: Some(stop), thread: Some(thread) })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`, without a slash at its end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many requests have arrived.
    pub fn requests(&self) -> u64 {
        self.state.journal.requests()
    }

    /// How many connections have been accepted.
    pub fn connections(&self) -> u64 {
        self.state.connections()
    }

    /// The remembered requests to this path (without the query), oldest first.
    pub fn seen(&self, path: &str) -> Vec<Seen> {
        self.state.journal.seen(path)
    }

    /// Every remembered request, oldest first.
    pub fn journal(&self) -> Vec<Seen> {
        self.state.journal.all()
    }

    /// Every remembered call to a model that has ended, oldest first: what it was, how it ended, and what of it the provider
    /// bills.
    pub fn books(&self) -> Vec<Entry> {
        self.state.provider.books.all()
    }

    /// What `/health` and gRPC's health service answer from now on.
    pub fn set_healthy(&self, healthy: bool) {
        self.state.set_healthy(healthy);
    }

    /// The next `times` requests meet this fault, unless they name one themselves. `/health` is spared.
    pub fn inject(&self, fault: Fault, times: usize) {
        self.state.inject(fault, times);
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
