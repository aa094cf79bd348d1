//! hyper as a client, and a place to run it.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::PATIENCE;

pub type RequestBody = BoxBody<Bytes, Infallible>;
pub type Http1 = http1::SendRequest<RequestBody>;
pub type Http2 = http2::SendRequest<RequestBody>;

/// Runs to its end what a test does with hyper; it fails when that takes for ever.
#[track_caller]
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(4 * PATIENCE, test).await.expect("it takes for ever") })
}

pub async fn http1(address: SocketAddr) -> Http1 {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    sender
}

pub async fn http2(address: SocketAddr) -> Http2 {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// No body.
pub fn none() -> RequestBody {
    Full::default().boxed()
}

/// Of known length.
pub fn full(bytes: impl Into<Bytes>) -> RequestBody {
    Full::new(bytes.into()).boxed()
}

/// A body that is sent piece by piece, as it is given; it ends with the sender.
pub fn piped() -> (mpsc::Sender<Frame<Bytes>>, RequestBody) {
    let (sender, receiver) = mpsc::channel(4);
    (sender, Piped(receiver).boxed())
}

struct Piped(mpsc::Receiver<Frame<Bytes>>);

impl hyper::body::Body for Piped {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|frame| frame.map(Ok))
    }
}

/// The next piece of data as text, or nothing at the end of the data.
pub async fn piece(body: &mut Incoming) -> Option<Bytes> {
    let frame = tokio::time::timeout(PATIENCE, body.frame()).await.expect("a piece comes")?;
    frame.unwrap().into_data().ok()
}
