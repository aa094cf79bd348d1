//! Accepting, and finding the service that answers.

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::answer::{Answer, text};
use crate::fault::{self, Fault};
use crate::journal::{Journal, Seen};
use crate::model::{Provider, Target};
use crate::wire::{Control, Wire};
use crate::{Options, grpc, rest, stream, websocket};

pub(crate) struct State {
    pub(crate) name: String,
    pub(crate) journal: Journal,
    pub(crate) provider: Provider,
    half_close: bool,
    connections: AtomicU64,
    healthy: AtomicBool,
    injected: Mutex<VecDeque<Fault>>,
}

impl State {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            name: options.name.clone(),
            journal: Journal::new(options.journal),
            provider: Provider::new(options.books),
            half_close: options.half_close,
            connections: AtomicU64::new(0),
            healthy: AtomicBool::new(true),
            injected: Mutex::default(),
        }
    }

    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Acquire)
    }

    pub(crate) fn healthy(&self) -> bool {
        self.healthy.load(Ordering::Acquire)
    }

    pub(crate) fn set_healthy(&self, healthy: bool) {
        self.healthy.store(healthy, Ordering::Release);
    }

    pub(crate) fn inject(&self, fault: Fault, times: usize) {
        self.injected().extend(std::iter::repeat_n(fault, times));
    }

    fn injected(&self) -> MutexGuard<'_, VecDeque<Fault>> {
        self.injected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) async fn run(listener: TcpListener, state: Arc<State>, stopped: oneshot::Receiver<()>) {
    let accepting = async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                // Out of descriptors, most likely: some will be free in a moment.
                sleep(Duration::from_millis(10)).await;
                continue;
            };
            let _ = stream.set_nodelay(true);
            let number = state.connections.fetch_add(1, Ordering::AcqRel) + 1;
            tokio::spawn(connection(stream, number, state.clone()));
        }
    };
    tokio::select! {
        ended = accepting => { let _: io::Result<()> = ended; }
        _ = stopped => {}
    }
}

async fn connection(stream: tokio::net::TcpStream, number: u64, state: Arc<State>) {
    let control = Arc::new(Control::default());
    let io = TokioIo::new(Wire::new(stream, control.clone()));
    let half_close = state.half_close;
    let service = service_fn(move |request| call(request, number, state.clone(), control.clone()));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().half_close(half_close);
    builder.http2().max_concurrent_streams(1000);
    // A connection that ends in an error is what half of the tests ask for.
    let _ = builder.serve_connection_with_upgrades(io, service).await;
}

async fn call(
    request: Request<Incoming>,
    connection: u64,
    state: Arc<State>,
    control: Arc<Control>,
) -> io::Result<Answer> {
    state.journal.note(Seen::of(&request, connection));
    let fault = match fault::asked(&request) {
        Some(Ok(fault)) => Some(fault),
        Some(Err(message)) => return Ok(text(StatusCode::BAD_REQUEST, message)),
        None if request.uri().path() == "/health" => None,
        None => state.injected().pop_front(),
    };
    let Some(fault) = fault else { return Ok(serve(request, &state).await) };
    match fault::before(fault, request, &control).await {
        Ok(request) => Ok(fault::after(fault, serve(request, &state).await, &control)),
        Err(answer) => answer,
    }
}

async fn serve(request: Request<Incoming>, state: &State) -> Answer {
    let path = request.uri().path().to_owned();
    match path.split('/').nth(1).unwrap_or_default() {
        "" => text(StatusCode::OK, "Hello from the simulator.\n"),
        "echo" => rest::echo(request, &state.name).await,
        "bytes" => rest::bytes(&path),
        "sink" => rest::sink(request).await,
        "status" => rest::status(&path),
        "delay" => rest::delay(&path).await,
        "health" => rest::health(state.healthy()),
        "events" => stream::events(&request),
        "slow-body" => stream::slow_body(&request),
        "trailers" => stream::trailers(),
        "ws" => websocket::upgrade(request),
        "simulator.Echo" | "grpc.health.v1.Health" => grpc::call(request, state.healthy()).await,
        "books" => rest::books(&request, &state.provider.books),
        _ => models(request, state).await,
    }
}

async fn models(request: Request<Incoming>, state: &State) -> Answer {
    let uri = request.uri();
    match Target::of(request.method(), uri.path(), uri.query(), request.headers()) {
        Some(target) => state.provider.call(target, request).await,
        None => text(StatusCode::NOT_FOUND, "no such path in the simulator\n"),
    }
}
