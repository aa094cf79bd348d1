//! Requests and responses as they leave and enter the transport, and who answers them.

use std::future::Future;
use std::sync::Arc;

use awareness::Arrival;
use base::{Peer, RequestHead, ResponseHead, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::body::Body;

/// A byte stream under a connection: TCP, Unix, TLS over either.
pub trait Io: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

/// A request as a listener's connection gives it to the path.
pub struct Request {
    pub head: RequestHead,
    pub body: Body,
    pub peer: Arc<Peer>,
    /// When the connection and this head came.
    pub arrival: Arrival,
    /// HTTP/1 `Upgrade`, or extended CONNECT (RFC 8441): the protocol asked for, `websocket`.
    pub upgrade: Option<String>,
}

pub struct Response {
    pub head: ResponseHead,
    pub body: Body,
    /// The stream behind a `101` (or an accepted CONNECT): bytes go both ways until either side ends.
    pub tunnel: Option<Box<Tunnel>>,
}

/// What an upgraded upstream connection becomes.
pub struct Tunnel {
    pub io: Box<dyn Io>,
    /// Bytes that were read behind the head of the answer.
    pub read: Vec<u8>,
    /// Told how many bytes went each way when the tunnel ends; dropped with it.
    pub guard: Box<dyn std::any::Any>,
}

/// Answers requests, one core at a time: its futures need not be `Send`.
pub trait Handler: Clone + 'static {
    fn handle(&self, request: Request) -> impl Future<Output = Response>;

    /// What to say of a request whose head could not be understood. The connection ends with it.
    fn refuse(&self, status: StatusCode, why: &'static str, peer: &Arc<Peer>, arrival: Arrival) -> Response;
}

impl Response {
    pub fn new(head: ResponseHead, body: Body) -> Response {
        Response { head, body, tunnel: None }
    }
}
