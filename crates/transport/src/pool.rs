//! Connections to one endpoint, for one core: idle HTTP/1 connections and HTTP/2 connections with room.
//!
//! HTTP/2 connections are several: a new one is opened when those there are have no stream free, and one
//! that was told to go away gets no new stream while those on it end.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use awareness::{Stamp, Timeline};
use base::{RequestHead, Time};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use smallvec::SmallVec;
use socket2::SockRef;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;
use tokio_rustls::TlsConnector;

use crate::body::Body;
use crate::client::SendError;
use crate::dns::Name;
use crate::listen::keepalive;
use crate::message::{Io, Response};
use crate::slots::{Slot, Slots};
use crate::{h1, h2};

/// Where an endpoint is and how it is spoken to.
#[derive(Clone)]
pub struct Target {
    pub place: Place,
    pub tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    pub protocol: Protocol,
    /// Idle connections kept.
    pub idle: usize,
    pub idle_timeout: Duration,
    /// Streams on one HTTP/2 connection before another is opened.
    pub streams: usize,
    /// Each connection takes one of each of these.
    pub slots: SmallVec<[Arc<Slots>; 2]>,
    /// Of HTTP/2: see [`h2::ClientSettings`].
    pub ping: Option<Duration>,
}

/// What a connection holds of the bounds on connections.
pub type Held = SmallVec<[Slot; 2]>;

#[derive(Clone)]
pub enum Place {
    Ip(SocketAddr),
    /// A name, by the addresses that are known of it now.
    Name(Arc<Name>, u16),
    Unix(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
    /// HTTP/1.1 in clear; over TLS what ALPN settles.
    Auto,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("its name has no address")]
    Unresolved,
    #[error("cannot connect to {0}")]
    Refused(String, #[source] io::Error),
    #[error("TLS handshake failed")]
    Tls(#[source] io::Error),
    #[error("HTTP/2 handshake failed")]
    Http2(#[source] SendError),
    #[error("connecting took too long")]
    Timeout,
    /// There are as many connections as there may be.
    #[error("no more connections may be opened")]
    Full,
}

#[derive(Clone)]
pub struct Pool(Rc<Inner>);

struct Inner {
    target: Target,
    idle: RefCell<Vec<Idle>>,
    streams: RefCell<Vec<Shared>>,
    /// Held while an HTTP/2 connection is opened, so that a burst opens one and not a hundred.
    opening: tokio::sync::Mutex<()>,
    /// What ALPN settled last.
    speaks_h2: Cell<bool>,
    /// Which address comes next.
    turn: Cell<usize>,
    /// Calls of this core that wait for a connection, and what tells them of one that lies idle.
    waiting: Cell<u32>,
    returned: Notify,
}

struct Idle {
    connection: h1::Connection,
    since: Time,
}

/// A connection of HTTP/2, and when it was last seen to have been used.
struct Shared {
    connection: h2::Connection,
    opened: u64,
    used: Time,
}

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Call,
    /// The connection, or a stream of it, becomes something else.
    Upgrade,
}

/// The right to one exchange.
pub enum Lease {
    Http1 {
        connection: h1::Connection,
        /// It has carried an exchange before, and may have been closed in the meantime.
        reused: bool,
        pool: Pool,
    },
    Http2(h2::Connection),
}

impl Pool {
    pub fn new(target: Target) -> Pool {
        let speaks_h2 = target.protocol == Protocol::Http2;
        Pool(Rc::new(Inner {
            target,
            idle: RefCell::default(),
            streams: RefCell::default(),
            opening: tokio::sync::Mutex::new(()),
            speaks_h2: Cell::new(speaks_h2),
            turn: Cell::new(0),
            waiting: Cell::new(0),
            returned: Notify::new(),
        }))
    }

    /// A connection that is there, or a new one. `fresh` asks for one that nobody used before.
    pub async fn lease(&self, fresh: bool, timeout: Duration, timeline: &mut Timeline) -> Result<Lease, ConnectError> {
        if !fresh && let Some(lease) = self.ready() {
            return Ok(lease);
        }
        let opening = self.open(fresh, Use::Call, timeline);
        tokio::time::timeout(timeout, opening).await.map_err(|_| ConnectError::Timeout)?
    }

    /// A connection for an upgrade: a new one of HTTP/1.1, or a stream where only HTTP/2 is spoken. Where ALPN could
    /// settle either, HTTP/1.1 is what every server of WebSockets knows.
    pub async fn lease_for_upgrade(&self, timeout: Duration, timeline: &mut Timeline) -> Result<Lease, ConnectError> {
        let only_h2 = self.0.target.protocol == Protocol::Http2;
        if only_h2 && let Some(connection) = self.stream() {
            return Ok(Lease::Http2(connection));
        }
        let opening = self.open(!only_h2, Use::Upgrade, timeline);
        tokio::time::timeout(timeout, opening).await.map_err(|_| ConnectError::Timeout)?
    }

    fn ready(&self) -> Option<Lease> {
        if self.0.speaks_h2.get()
            && let Some(connection) = self.stream()
        {
            return Some(Lease::Http2(connection));
        }
        loop {
            let mut idle = self.0.idle.borrow_mut().pop()?;
            if !idle.connection.is_spent() {
                return Some(Lease::Http1 { connection: idle.connection, reused: true, pool: self.clone() });
            }
        }
    }

    /// The HTTP/2 connection with the fewest streams, if one has room.
    fn stream(&self) -> Option<h2::Connection> {
        let mut connections = self.0.streams.borrow_mut();
        connections.retain(|it| !it.connection.is_closed());
        let open = connections.iter().map(|it| &it.connection).filter(|connection| connection.capacity() > 0);
        open.min_by_key(|connection| connection.streams_open()).cloned()
    }

    /// One that has begun, and has not said yet how many streams it takes.
    fn unsettled(&self) -> Option<h2::Connection> {
        let connections = self.0.streams.borrow();
        connections.iter().map(|it| &it.connection).find(|connection| !connection.is_settled()).cloned()
    }

    async fn open(&self, fresh: bool, purpose: Use, timeline: &mut Timeline) -> Result<Lease, ConnectError> {
        let only_h1 = purpose == Use::Upgrade && self.0.target.protocol != Protocol::Http2;
        let opening = if self.0.speaks_h2.get() && !only_h1 { Some(self.0.opening.lock().await) } else { None };
        if opening.is_some() && !fresh {
            loop {
                if let Some(connection) = self.stream() {
                    return Ok(Lease::Http2(connection));
                }
                let Some(begun) = self.unsettled() else { break };
                begun.settled().await;
            }
        }
        let held = match self.take_slots() {
            Ok(held) => held,
            // Better many streams on one connection than none.
            Err(_) if !only_h1 && let Some(connection) = self.least_busy() => return Ok(Lease::Http2(connection)),
            Err(full) => match self.wait(&full, fresh).await? {
                Room::Idle(lease) => return Ok(lease),
                Room::Slots(held) => held,
            },
        };
        let io = self.connect(timeline).await?;
        let (io, alpn_h2): (Box<dyn Io>, bool) = match &self.0.target.tls {
            None => (io, false),
            Some((config, name)) => {
                let mut config = config.clone();
                if only_h1 {
                    Arc::make_mut(&mut config).alpn_protocols = vec![b"http/1.1".to_vec()];
                }
                let connector = TlsConnector::from(config);
                let stream = connector.connect(name.clone(), io).await.map_err(ConnectError::Tls)?;
                timeline.mark(Stamp::TlsConnected, Time::now());
                let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                (Box::new(stream), h2)
            }
        };
        let h2 = match (self.0.target.protocol, self.0.target.tls.is_some()) {
            (Protocol::Http2, _) => true,
            (Protocol::Auto, true) => alpn_h2,
            _ => false,
        };
        if !only_h1 {
            self.0.speaks_h2.set(h2);
        }
        if !h2 {
            return Ok(Lease::Http1 {
                connection: h1::Connection::new(io).holding(held),
                reused: false,
                pool: self.clone(),
            });
        }
        let Target { streams: max_streams, ping, .. } = self.0.target;
        let settings = h2::ClientSettings { max_streams, ping, ..h2::ClientSettings::default() };
        let connection = h2::Connection::handshake(io, &settings, held).await.map_err(ConnectError::Http2)?;
        let shared = Shared { connection: connection.clone(), opened: 0, used: Time::now() };
        self.0.streams.borrow_mut().push(shared);
        Ok(Lease::Http2(connection))
    }

    /// A slot of each bound, or the bound that has none.
    fn take_slots(&self) -> Result<Held, Arc<Slots>> {
        self.0.target.slots.iter().map(|slots| slots.take().ok_or_else(|| slots.clone())).collect()
    }

    fn least_busy(&self) -> Option<h2::Connection> {
        let connections = self.0.streams.borrow();
        let open = connections.iter().map(|it| &it.connection).filter(|connection| !connection.is_going_away());
        open.min_by_key(|connection| connection.streams_open()).cloned()
    }

    /// Waits until there may be one connection more, or one of this core lies idle.
    async fn wait(&self, full: &Arc<Slots>, fresh: bool) -> Result<Room, ConnectError> {
        let waiting = full.wait().ok_or(ConnectError::Full)?;
        let here = Here::new(&self.0);
        let room = async {
            loop {
                if let Ok(held) = self.take_slots() {
                    return Room::Slots(held);
                }
                if !fresh && let Some(lease) = self.ready() {
                    return Room::Idle(lease);
                }
                tokio::select! {
                    () = waiting.freed() => {}
                    () = here.0.returned.notified() => {}
                    // Of two bounds the other one may have become the narrower.
                    () = tokio::time::sleep(LOOK_AGAIN) => {}
                }
            }
        };
        tokio::time::timeout(waiting.patience(), room).await.map_err(|_| ConnectError::Full)
    }

    async fn connect(&self, timeline: &mut Timeline) -> Result<Box<dyn Io>, ConnectError> {
        let io: Box<dyn Io> = match &self.0.target.place {
            Place::Unix(path) => {
                let refused = |error| refused(path.display(), error);
                Box::new(UnixStream::connect(path).await.map_err(refused)?)
            }
            Place::Ip(address) => Box::new(connect_tcp(*address).await?),
            Place::Name(name, port) => {
                if name.found().is_empty() {
                    name.settled().await;
                }
                let addresses = name.found();
                timeline.mark(Stamp::Resolved, Time::now());
                let turn = self.0.turn.replace(self.0.turn.get().wrapping_add(1));
                let mut result = Err(ConnectError::Unresolved);
                // Every address gets its chance before the endpoint is given up.
                for at in 0..addresses.len() {
                    let address = addresses[(turn.wrapping_add(at)) % addresses.len()];
                    result = connect_tcp(SocketAddr::new(address, *port)).await;
                    if result.is_ok() {
                        break;
                    }
                }
                Box::new(result?)
            }
        };
        timeline.mark(Stamp::Connected, Time::now());
        Ok(io)
    }

    /// A connection for what is not HTTP, which is nobody else's.
    pub async fn apart(&self) -> Result<Box<dyn Io>, ConnectError> {
        let io = self.connect(&mut Timeline::default()).await?;
        let Some((config, name)) = &self.0.target.tls else { return Ok(io) };
        let stream = TlsConnector::from(config.clone()).connect(name.clone(), io).await.map_err(ConnectError::Tls)?;
        Ok(Box::new(stream))
    }

    /// Lets go of what has been idle for too long, or was closed by the other side.
    pub fn sweep(&self, now: Time) {
        let timeout = self.0.target.idle_timeout;
        self.0.idle.borrow_mut().retain_mut(|idle| now.since(idle.since) < timeout && !idle.connection.is_spent());
        if self.0.is_wanted() {
            self.0.idle.borrow_mut().pop();
        }
        self.0.streams.borrow_mut().retain_mut(|it| {
            let opened = it.connection.streams_opened();
            if it.connection.streams_open() > 0 || opened != it.opened {
                (it.opened, it.used) = (opened, now);
            }
            !it.connection.is_closed() && now.since(it.used) < timeout
        });
    }

    /// Closes what carries nothing.
    pub fn close_idle(&self) {
        self.0.idle.borrow_mut().clear();
        self.0.streams.borrow_mut().retain(|it| it.connection.streams_open() > 0);
    }

    /// Connections open: idle HTTP/1, HTTP/2.
    pub fn open_connections(&self) -> (usize, usize) {
        (self.0.idle.borrow().len(), self.0.streams.borrow().len())
    }
}

impl Lease {
    pub fn protocol(&self) -> &'static str {
        match self {
            Lease::Http1 { .. } => "http/1.1",
            Lease::Http2(_) => "h2",
        }
    }

    pub fn is_reused(&self) -> bool {
        matches!(self, Lease::Http1 { reused: true, .. } | Lease::Http2(_))
    }

    /// Sends a request; `sent` gets the time when the last of it was written.
    pub async fn send(
        self,
        head: &RequestHead,
        upgrade: Option<&str>,
        body: Body,
        sent: Rc<Cell<Time>>,
    ) -> Result<Response, SendError> {
        match self {
            Lease::Http1 { connection, pool, .. } => {
                let home: Weak<dyn h1::Recycle> = Rc::downgrade(&pool.0) as Weak<dyn h1::Recycle>;
                drop(pool);
                connection.send(head, upgrade, body, sent, home).await
            }
            Lease::Http2(connection) => connection.send(head, upgrade, body, sent).await,
        }
    }
}

/// Takes back what can carry another exchange.
impl h1::Recycle for Inner {
    fn recycle(&self, connection: h1::Connection) {
        if self.waiting.get() == 0 && self.is_wanted() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        if idle.len() < self.target.idle {
            idle.push(Idle { connection, since: Time::last() });
            if self.waiting.get() > 0 {
                self.returned.notify_one();
            }
        }
    }
}

impl Inner {
    /// Connections of others are refused or wait while this pool may have idle ones.
    fn is_wanted(&self) -> bool {
        self.target.slots.iter().any(|slots| slots.are_wanted())
    }
}

/// What one who waited for a connection got.
enum Room {
    Idle(Lease),
    Slots(Held),
}

/// A call of this core that waits.
struct Here<'a>(&'a Inner);

impl Here<'_> {
    fn new(pool: &Inner) -> Here<'_> {
        pool.waiting.set(pool.waiting.get() + 1);
        Here(pool)
    }
}

impl Drop for Here<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
    }
}

const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What this machine lacks, descriptors above all, is no fault of the upstream's.
fn refused(place: impl std::fmt::Display, error: io::Error) -> ConnectError {
    use rustix::io::Errno;
    let lacking = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
    if error.raw_os_error().is_some_and(|code| lacking.iter().any(|it| it.raw_os_error() == code)) {
        tracing::warn!(%error, "no connection to an upstream can be opened");
        return ConnectError::Full;
    }
    ConnectError::Refused(place.to_string(), error)
}

async fn connect_tcp(address: SocketAddr) -> Result<TcpStream, ConnectError> {
    let refused = |error| refused(address, error);
    let stream = TcpStream::connect(address).await.map_err(refused)?;
    stream.set_nodelay(true).map_err(refused)?;
    // A host that is gone is noticed even if nothing is sent to it.
    SockRef::from(&stream).set_tcp_keepalive(&keepalive()).map_err(refused)?;
    Ok(stream)
}
