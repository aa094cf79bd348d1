//! From an accepted socket to requests: PROXY header, TLS, the version of HTTP, and handing over to another core.

use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;
use awareness::Arrival;
use base::{Peer, Time, TlsInfo};
use bytes::BytesMut;
use rustls::ServerConfig;
use tokio::sync::mpsc;
use transport::listen::{Acceptor, Stream};
use transport::{Io, Prefixed, h1, h2, proxy_protocol, tls};

use crate::crowd::Seat;
use crate::path::Gateway;
use crate::worker::{HandedOver, LocalListener, Worker};

/// A connection being served; its worker owns it.
pub type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Accepts until the listener is drained. What the kernel has already accepted for us is still taken.
pub async fn accept(
    worker: Rc<Worker>,
    listener: Rc<LocalListener>,
    mut acceptor: Acceptor,
    tasks: mpsc::UnboundedSender<Task>,
) {
    let _accepting = worker.accepting();
    let mut drained = std::pin::pin!(listener.drain.drained());
    loop {
        let stream = tokio::select! {
            biased;
            stream = acceptor.accept() => stream,
            () = &mut drained => break,
        };
        // Who has been accepted and finds no room waits here, with all behind it in the kernel's queue.
        let seat = tokio::select! {
            biased;
            seat = listener.crowd.seat(&listener.name) => seat,
            () = &mut drained => {
                begin(&worker, &listener, listener.crowd.seat_anyway(), stream, &tasks);
                break;
            }
        };
        begin(&worker, &listener, seat, stream, &tasks);
    }
    while let Some(stream) = acceptor.accept_last().await {
        begin(&worker, &listener, listener.crowd.seat_anyway(), stream, &tasks);
    }
}

fn begin(
    worker: &Rc<Worker>,
    listener: &Rc<LocalListener>,
    seat: Seat,
    stream: Stream,
    tasks: &mpsc::UnboundedSender<Task>,
) {
    // Counted from here on, so that a worker is not taken for quiet before it has begun with it.
    let open = Open::new(worker, listener, seat);
    // Each has room for what becomes of its kind only.
    let task: Task = match listener.tls.borrow().clone() {
        None => Box::pin(clear(open, stream)),
        Some(current) => Box::pin(secure(open, stream, current)),
    };
    // The receiver lives as long as the worker, and this with it.
    let _ = tasks.send(task);
}

/// Counts a connection for as long as it is open here.
struct Open {
    worker: Rc<Worker>,
    listener: Rc<LocalListener>,
    /// Absent once it has gone to another core.
    seat: Option<Seat>,
}

impl Open {
    fn new(worker: &Rc<Worker>, listener: &Rc<LocalListener>, seat: Seat) -> Open {
        worker.opened();
        listener.open.up();
        Open { worker: worker.clone(), listener: listener.clone(), seat: Some(seat) }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.listener.open.down();
        self.worker.closed();
    }
}

/// Who comes, and to which address of ours, if it may come.
async fn welcome(open: &mut Open, stream: &mut Stream) -> Option<(Option<SocketAddr>, Option<SocketAddr>)> {
    let listener = &open.listener;
    let (mut remote, mut local) = (stream.peer_addr(), stream.local_addr());
    if listener.expects_proxy_header() {
        // Apart, for what it needs is much and soon over.
        match Box::pin(proxy_protocol::read(stream, listener.head_timeout())).await {
            Ok(header) => {
                if let proxy_protocol::Header::Ip { source, destination } = header {
                    (remote, local) = (Some(source), Some(destination));
                }
            }
            Err(error) => {
                tracing::debug!(listener = %listener.name, %error, "no PROXY header");
                return None;
            }
        }
    }
    if !open.seat.as_mut().is_none_or(|seat| seat.is_for(remote.map(|remote| remote.ip()))) {
        tracing::debug!(listener = %listener.name, "an address has as many connections as it may have");
        return None;
    }
    Some((remote, local))
}

async fn clear(mut open: Open, mut stream: Stream) {
    let accepted = Time::now();
    if let Some((remote, local)) = welcome(&mut open, &mut stream).await {
        plain(open, stream, BytesMut::new(), peer(remote, local, None), accepted, true).await;
    }
}

async fn secure(mut open: Open, mut stream: Stream, current: Arc<ArcSwap<ServerConfig>>) {
    let accepted = Time::now();
    let Some((remote, local)) = welcome(&mut open, &mut stream).await else { return };
    let served: Task = match tls::accept(stream, &current, open.listener.head_timeout()).await {
        Ok((stream, info)) => opened(open, stream, peer(remote, local, Some(info)), accepted),
        Err(error) => {
            let listener = &open.listener.name;
            match error {
                tls::AcceptError::Answered => tracing::debug!(%listener, "an authority was answered"),
                error => tracing::debug!(%listener, %error, "TLS handshake failed"),
            }
            return;
        }
    };
    drop(current);
    served.await;
}

/// What is left to do once hands have been shaken, in room of its own: that of the handshake was another.
fn opened<I: Io + 'static>(open: Open, stream: I, peer: Arc<Peer>, accepted: Time) -> Task {
    let listener = open.listener.clone();
    let gateway = Gateway { worker: open.worker.clone(), listener: listener.clone() };
    let arrival = Arrival { accepted, tls_done: Time::now(), first: true, ..Arrival::default() };
    if peer.tls.as_ref().and_then(|tls| tls.alpn.as_deref()) == Some("h2") {
        return Box::pin(async move {
            let _open = open;
            let (settings, drained) = (listener.http2(), listener.drain.drained());
            h2::serve(stream, peer, arrival, gateway, &settings, drained).await;
        });
    }
    Box::pin(async move {
        let _open = open;
        let settings = listener.http1();
        let accepting = h1::Accepted { io: stream, read: BytesMut::new(), peer, arrival };
        h1::serve(accepting, &gateway, &settings, &listener.drain, || false).await;
    })
}

fn peer(remote: Option<SocketAddr>, local: Option<SocketAddr>, tls: Option<TlsInfo>) -> Arc<Peer> {
    Arc::new(Peer { remote, local, tls })
}

/// Goes on with a connection from another core.
pub async fn adopt(worker: Rc<Worker>, listener: Rc<LocalListener>, handed: HandedOver) {
    let HandedOver { stream, peer, accepted, read, seat } = handed;
    let open = Open::new(&worker, &listener, seat);
    match stream.attach() {
        Ok(stream) => plain(open, stream, read, peer, accepted, false).await,
        Err(error) => tracing::warn!(%error, "a connection was lost between two cores"),
    }
}

async fn plain(mut open: Open, stream: Stream, read: BytesMut, peer: Arc<Peer>, accepted: Time, first: bool) {
    let (worker, listener) = (open.worker.clone(), open.listener.clone());
    let gateway = Gateway { worker: worker.clone(), listener: listener.clone() };
    let arrival = Arrival { accepted, first, ..Arrival::default() };
    let moves = || worker.balance.wants_to_give() && !listener.drain.is_draining();
    let accepting = h1::Accepted { io: stream, read, peer: peer.clone(), arrival };
    let settings = listener.http1();
    match h1::serve(accepting, &gateway, &settings, &listener.drain, moves).await {
        h1::Outcome::Closed => {}
        h1::Outcome::Http2(stream, read) => {
            let io = Prefixed::new(read, stream);
            let settings = listener.http2();
            Box::pin(h2::serve(io, peer, arrival, gateway, &settings, listener.drain.drained())).await;
        }
        h1::Outcome::HandOver(stream, read) => {
            if let Some(seat) = open.seat.take() {
                hand_over(&open, seat, stream, read, peer, accepted).await;
            }
        }
    }
}

/// Lets another core go on; if none wants to, this one does.
async fn hand_over(open: &Open, seat: Seat, stream: Stream, read: BytesMut, peer: Arc<Peer>, accepted: Time) {
    let Open { worker, listener, .. } = open;
    let to = worker.balance.hand_over();
    let stream = match stream.detach() {
        Ok(stream) => stream,
        Err(error) => return tracing::warn!(%error, "a connection was lost between two cores"),
    };
    let handed = Box::new(HandedOver { stream, peer, accepted, read, seat });
    let handed = match to {
        Some(to) => worker.send_to(to, &listener.name, handed),
        None => Err(handed),
    };
    if let Err(back) = handed {
        let here: Task = Box::pin(adopt(worker.clone(), listener.clone(), *back));
        here.await;
    }
}
