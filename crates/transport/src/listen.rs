//! Listening sockets, one per worker, and the streams they give.
//!
//! Every socket of a listener is bound before any of them listens, so that an address that cannot be had
//! changes nothing. A [`Listening`] is kept from one snapshot to the next while its address stays: closing a
//! socket loses the connections that wait in its queue.

use std::fs::{self, File};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

mod overlap;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    Ip(SocketAddr),
    Unix(PathBuf),
}

/// An address that is ours, with a socket for every worker.
pub struct Listening {
    address: Address,
    /// One for each worker first; more where those before us had more of them, shared out among ours.
    sockets: Vec<Held>,
    workers: usize,
    file: Option<Arc<SocketFile>>,
}

struct Held {
    socket: Socket,
    /// It ends, and takes up nobody any more.
    leaving: Arc<AtomicBool>,
}

/// A worker's end of a [`Listening`]; belongs to the runtime in which it was made.
pub struct Acceptor {
    listener: Listener,
    complaints: Complaints,
    /// Given up for one who has to be let in when there are no more descriptors.
    spare: Option<Vec<File>>,
    leaving: Arc<AtomicBool>,
    /// Nobody is waited for beyond this.
    last: Option<tokio::time::Instant>,
    _file: Option<Arc<SocketFile>>,
}

/// A connection, accepted or made.
#[derive(Debug)]
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A [`Stream`] on its way from one runtime to another.
#[derive(Debug)]
pub enum Detached {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

// === impl Listening ===

impl Listening {
    /// Takes the address for that many workers; nobody can connect before [`Listening::listen`].
    ///
    /// With port 0 the first socket's port is everybody's. Workers share the port by `SO_REUSEPORT`, which would
    /// also let another process of the same user in unnoticed; so whoever listens there already is looked for first.
    pub fn bind(address: &Address, workers: usize) -> io::Result<Listening> {
        if let Address::Ip(address) = address {
            ensure_free(*address)?;
        }
        Listening::join(address, workers)
    }

    /// Goes on for others of this process that end now, as soon as it listens. Of their sockets it has those that lead to
    /// its address: nothing that waits in their queues is lost. Where another process listens it fails, as [`Listening::bind`]
    /// does.
    pub fn succeed(address: &Address, before: &[&Listening], workers: usize) -> io::Result<Listening> {
        let workers = workers.max(1);
        match address {
            Address::Ip(ip) => {
                overlap::ensure_ours(*ip, before.iter().flat_map(|it| &it.sockets).map(|held| &held.socket))?;
                let (mut exact, mut narrower) = (Vec::new(), Vec::new());
                for held in before.iter().flat_map(|it| &it.sockets) {
                    match held.socket.local_addr()?.as_socket() {
                        Some(bound) if bound == *ip => exact.push(Held::new(held.socket.try_clone()?)),
                        Some(bound) if overlap::covers(*ip, bound) => {
                            narrower.push(Held::new(held.socket.try_clone()?));
                        }
                        _ => {}
                    }
                }
                while exact.len() < workers {
                    exact.push(Held::new(bind_tcp(*ip)?));
                }
                exact.append(&mut narrower);
                Ok(Listening { address: address.clone(), sockets: exact, workers, file: None })
            }
            Address::Unix(path) => {
                let same = before.iter().find(|it| it.address == *address).ok_or(io::ErrorKind::InvalidInput)?;
                let file = same.file.clone().ok_or(io::ErrorKind::InvalidInput)?;
                Listening::unix(path, same.sockets[0].socket.try_clone()?, file, workers)
            }
        }
    }

    /// True if whoever connects to one might come to the other.
    pub fn overlaps(&self, address: &Address) -> bool {
        match (&self.address, address) {
            (Address::Ip(one), Address::Ip(other)) => overlap::covers(*one, *other) || overlap::covers(*other, *one),
            (one, other) => one == other,
        }
    }

    /// From now on nobody new is taken up on its sockets, but for those that a successor has too. Clients in the middle
    /// of connecting still come through, as far as its acceptors go on to the end ([`Acceptor::accept_last`]); others try
    /// again by themselves, and find the successor or nobody.
    pub fn leave(&self, successors: &[&Listening]) {
        for held in &self.sockets {
            let bound = held.socket.local_addr().ok().and_then(|bound| bound.as_socket());
            let stays = successors.iter().any(|it| match (&it.address, bound) {
                (Address::Ip(address), Some(bound)) => overlap::covers(*address, bound),
                _ => it.address == self.address,
            });
            if !stays && overlap::refuse_new(&held.socket).is_ok() {
                held.leaving.store(true, Ordering::Relaxed);
            }
        }
    }

    /// As [`Listening::bind`] where another [`Listening`] of this process may have the address still.
    pub fn join(address: &Address, workers: usize) -> io::Result<Listening> {
        let workers = workers.max(1);
        match address {
            Address::Ip(address) => {
                let first = bind_tcp(*address)?;
                let address = first.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
                let mut sockets = vec![Held::new(first)];
                for _ in 1..workers {
                    sockets.push(Held::new(bind_tcp(address)?));
                }
                Ok(Listening { address: Address::Ip(address), sockets, workers, file: None })
            }
            Address::Unix(path) => {
                let (first, file) = bind_unix(path)?;
                Listening::unix(path, first, Arc::new(file), workers)
            }
        }
    }

    /// Goes on with the sockets of another process, which they stay as long as it has them. Nothing that waits in
    /// their queues is lost: sockets are added where there are fewer than workers, and none is closed.
    pub fn inherit(address: &Address, sockets: Vec<OwnedFd>, workers: usize) -> io::Result<Listening> {
        let workers = workers.max(1);
        let mut sockets: Vec<Socket> = sockets.into_iter().map(Socket::from).collect();
        let Some(first) = sockets.first() else { return Err(io::ErrorKind::InvalidInput.into()) };
        let other = || io::Error::new(io::ErrorKind::InvalidInput, "the socket that was passed on is another one");
        match address {
            Address::Ip(wanted) => {
                let bound = first.local_addr()?.as_socket().ok_or_else(other)?;
                if bound.ip() != wanted.ip() || (wanted.port() != 0 && bound.port() != wanted.port()) {
                    return Err(other());
                }
                let exact = |socket: &&Socket| socket.local_addr().is_ok_and(|it| it.as_socket() == Some(bound));
                let there = sockets.iter().take_while(exact).count();
                for index in there..workers {
                    // A port that this user may not have any more can still be shared.
                    let more = bind_tcp(bound).or_else(|_| sockets[index % there].try_clone())?;
                    sockets.insert(index, more);
                }
                let sockets = sockets.into_iter().map(Held::new).collect();
                Ok(Listening { address: Address::Ip(bound), sockets, workers, file: None })
            }
            Address::Unix(path) => {
                let bound = first.local_addr()?;
                if bound.as_pathname() != Some(path) {
                    return Err(other());
                }
                let file = SocketFile::at(path)?;
                file.ours.store(false, Ordering::Relaxed);
                Listening::unix(path, sockets.swap_remove(0), Arc::new(file), workers)
            }
        }
    }

    fn unix(path: &Path, first: Socket, file: Arc<SocketFile>, workers: usize) -> io::Result<Listening> {
        let mut sockets = vec![Held::new(first)];
        for _ in 1..workers {
            sockets.push(Held::new(sockets[0].socket.try_clone()?));
        }
        Ok(Listening { address: Address::Unix(path.into()), sockets, workers, file: Some(file) })
    }

    /// The sockets for another process, which go on when ours are closed.
    pub fn pass_on(&self) -> io::Result<Vec<OwnedFd>> {
        let distinct = match &self.address {
            Address::Ip(_) => &self.sockets[..],
            Address::Unix(_) => &self.sockets[..1],
        };
        distinct.iter().map(|held| Ok(held.socket.try_clone()?.into())).collect()
    }

    /// Whether the file of a Unix socket goes with the last of ours that listens on it.
    pub fn owns_file(&self, ours: bool) {
        if let Some(file) = &self.file {
            file.ours.store(ours, Ordering::Relaxed);
        }
    }

    /// Lets clients connect; doing it again changes nothing.
    pub fn listen(&self) -> io::Result<()> {
        self.sockets.iter().try_for_each(|held| held.socket.listen(BACKLOG))
    }

    /// The ends of the worker of that index, for the runtime this is called in; mostly one.
    ///
    /// Panics if there is no runtime.
    pub fn acceptors(&self, worker: usize) -> io::Result<Vec<Acceptor>> {
        let its_own = self.sockets.iter().skip(worker).step_by(self.workers);
        let acceptors = its_own.map(|held| {
            let socket = held.socket.try_clone()?;
            let listener = match &self.address {
                Address::Ip(_) => Listener::Tcp(TcpListener::from_std(socket.into())?),
                Address::Unix(_) => Listener::Unix(UnixListener::from_std(socket.into())?),
            };
            Ok(Acceptor {
                listener,
                complaints: Complaints::default(),
                spare: None,
                leaving: held.leaving.clone(),
                last: None,
                _file: self.file.clone(),
            })
        });
        acceptors.collect()
    }

    pub fn workers(&self) -> usize {
        self.workers
    }

    /// The address as bound: its port is never 0.
    pub fn local_addr(&self) -> &Address {
        &self.address
    }
}

impl Held {
    fn new(socket: Socket) -> Held {
        Held { socket, leaving: Arc::default() }
    }
}

/// A socket that does not share fails where another listens.
fn ensure_free(address: SocketAddr) -> io::Result<()> {
    if address.port() == 0 {
        return Ok(());
    }
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())
}

fn bind_tcp(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    // Those that are accepted have it from this one.
    socket.set_tcp_keepalive(&keepalive())?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// A host that vanished is found within two minutes, whatever HTTP it spoke and however long its stream was silent.
pub(crate) fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15)).with_retries(4)
}

fn bind_unix(path: &Path) -> io::Result<(Socket, SocketFile)> {
    let address = SockAddr::unix(path)?;
    if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        probe.set_nonblocking(true)?;
        // A full queue answers too, with `WouldBlock`: only a refusal tells that the owner is gone.
        match probe.connect(&address) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)?,
            _ => return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens on this socket")),
        }
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address)?;
    Ok((socket, SocketFile::at(path)?))
}

/// Removed with the last that listens on it, unless somebody else's stands there by then.
struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
    /// Not while another process has the socket too, which is the one that stays.
    ours: AtomicBool,
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<SocketFile> {
        let found = fs::symlink_metadata(path)?;
        Ok(SocketFile { path: path.into(), inode: (found.dev(), found.ino()), ours: AtomicBool::new(true) })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if !self.ours.load(Ordering::Relaxed) {
            return;
        }
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.inode);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "the socket's file stays behind");
        }
    }
}

// === impl Acceptor ===

impl Acceptor {
    /// For a listener by which one can still look and act when clients and upstreams have taken all descriptors: it
    /// keeps a few of its own.
    pub fn with_spare(self) -> Acceptor {
        let mut acceptor = Acceptor { spare: Some(Vec::new()), ..self };
        acceptor.keep_spare();
        acceptor
    }

    /// The next connection. Cancel-safe; never gives up: what fails is waited out.
    pub async fn accept(&mut self) -> Stream {
        loop {
            self.keep_spare();
            let error = match self.listener.accept().await {
                Ok(stream) => return stream,
                Err(error) => error,
            };
            if self.spare.as_mut().is_some_and(|spare| spare.pop().is_some())
                && let Ok(stream) = self.listener.accept().await
            {
                return stream;
            }
            if let Some(pause) = self.complaints.pause_after(&error) {
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// The next of those that the kernel has accepted already, and where the socket is left ([`Listening::leave`]) also
    /// of those that are just connecting; `None` once there is nobody.
    pub async fn accept_last(&mut self) -> Option<Stream> {
        let wait = if self.leaving.load(Ordering::Relaxed) { CONNECTING } else { Duration::ZERO };
        let last = *self.last.get_or_insert_with(|| tokio::time::Instant::now() + wait);
        tokio::time::timeout_at(last, self.accept()).await.ok()
    }
}

impl Acceptor {
    fn keep_spare(&mut self) {
        const SPARE: usize = 4;
        let Some(spare) = &mut self.spare else { return };
        while spare.len() < SPARE
            && let Ok(file) = File::open("/dev/null")
        {
            spare.push(file);
        }
    }
}

impl Listener {
    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Fails only if the peer has gone already, which the first read will tell.
                let _ = stream.set_nodelay(true);
                Ok(Stream::Tcp(stream))
            }
            Listener::Unix(listener) => Ok(Stream::Unix(listener.accept().await?.0)),
        }
    }
}

/// What is logged at most once a second.
#[derive(Default)]
struct Complaints {
    last: Option<Instant>,
    count: u64,
}

impl Complaints {
    /// A connection that broke in the queue is passed over; anything else, above all a lack of descriptors, is
    /// waited out, since trying again at once would only burn the core that could free some.
    fn pause_after(&mut self, error: &io::Error) -> Option<Duration> {
        use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
        if matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
            return None;
        }
        if self.last.is_none_or(|last| last.elapsed() >= Duration::from_secs(1)) {
            self.last = Some(Instant::now());
            self.count += 1;
            tracing::warn!(%error, "cannot accept connections; trying again");
        }
        Some(PAUSE)
    }
}

// === impl Stream ===

impl Stream {
    /// The other end; `None` for a Unix socket.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        match self {
            Stream::Tcp(stream) => stream.peer_addr().ok().map(canonical),
            Stream::Unix(_) => None,
        }
    }

    /// This end; `None` for a Unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Stream::Tcp(stream) => stream.local_addr().ok().map(canonical),
            Stream::Unix(_) => None,
        }
    }

    /// Takes it out of this runtime.
    pub fn detach(self) -> io::Result<Detached> {
        Ok(match self {
            Stream::Tcp(stream) => Detached::Tcp(stream.into_std()?),
            Stream::Unix(stream) => Detached::Unix(stream.into_std()?),
        })
    }
}

impl Detached {
    /// Puts it into the runtime this is called in.
    pub fn attach(self) -> io::Result<Stream> {
        Ok(match self {
            Detached::Tcp(stream) => Stream::Tcp(TcpStream::from_std(stream)?),
            Detached::Unix(stream) => Stream::Unix(UnixStream::from_std(stream)?),
        })
    }
}

/// On a socket for both families an IPv4 peer shows as `::ffff:1.2.3.4`; nobody writes rules for that.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

const BACKLOG: i32 = 4096;
/// How long who has begun to connect has for it: more than a round trip.
const CONNECTING: Duration = Duration::from_secs(1);
/// Between two tries to accept while that fails.
const PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn ip(text: &str) -> Address {
        Address::Ip(text.parse().unwrap())
    }

    fn port(listening: &Listening) -> u16 {
        match listening.local_addr() {
            Address::Ip(address) => address.port(),
            Address::Unix(_) => panic!("not an IP"),
        }
    }

    fn only(listening: &Listening, worker: usize) -> Acceptor {
        let mut acceptors = listening.acceptors(worker).unwrap();
        assert_eq!(acceptors.len(), 1);
        acceptors.remove(0)
    }

    #[test]
    fn an_address_that_is_taken_is_refused_unless_by_ourselves() {
        let first = Listening::bind(&ip("127.0.0.1:0"), 2).unwrap();
        first.listen().unwrap();
        let taken = ip(&format!("127.0.0.1:{}", port(&first)));
        assert_eq!(Listening::bind(&taken, 2).err().map(|error| error.kind()), Some(io::ErrorKind::AddrInUse));
        assert!(Listening::join(&taken, 2).is_ok());
    }

    #[tokio::test]
    async fn the_workers_share_one_port() {
        let listening = Listening::bind(&ip("127.0.0.1:0"), 3).unwrap();
        listening.listen().unwrap();
        assert_eq!(listening.workers(), 3);
        let (sender, mut accepted) = tokio::sync::mpsc::unbounded_channel();
        let mut tasks = tokio::task::JoinSet::new();
        for worker in 0..3 {
            let (mut acceptor, sender) = (only(&listening, worker), sender.clone());
            tasks.spawn(async move {
                loop {
                    sender.send(acceptor.accept().await).unwrap();
                }
            });
        }
        for _ in 0..20 {
            let client = TcpStream::connect(("127.0.0.1", port(&listening))).await.unwrap();
            let stream = accepted.recv().await.unwrap();
            assert_eq!(stream.peer_addr(), client.local_addr().ok());
            let Stream::Tcp(stream) = stream else { panic!("not TCP") };
            assert!(stream.nodelay().unwrap());
        }
    }

    #[tokio::test]
    async fn bound_is_not_yet_listening_and_an_address_outlives_its_acceptors() {
        let listening = Listening::bind(&ip("127.0.0.1:0"), 1).unwrap();
        let address = ("127.0.0.1", port(&listening));
        assert!(TcpStream::connect(address).await.is_err());
        listening.listen().unwrap();
        listening.listen().unwrap();
        let first = only(&listening, 0);
        let waiting = TcpStream::connect(address).await.unwrap();
        drop(first);
        let stream = only(&listening, 0).accept().await;
        assert_eq!(stream.peer_addr(), waiting.local_addr().ok());
    }

    #[test]
    fn a_taken_port_is_an_error() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Ip(taken.local_addr().unwrap());
        assert_eq!(Listening::bind(&address, 2).err().unwrap().kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn any_ipv6_address_means_ipv4_too() {
        let Ok(listening) = Listening::bind(&ip("[::]:0"), 1) else { return };
        listening.listen().unwrap();
        let _client = TcpStream::connect(("127.0.0.1", port(&listening))).await.unwrap();
        let stream = only(&listening, 0).accept().await;
        assert!(stream.peer_addr().unwrap().is_ipv4());
    }

    #[tokio::test]
    async fn a_unix_socket_is_shared_and_its_file_goes_with_the_last() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let address = Address::Unix(path.clone());
        // What a killed process leaves behind.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());

        let listening = Listening::bind(&address, 2).unwrap();
        listening.listen().unwrap();
        for worker in 0..2 {
            let mut acceptor = only(&listening, worker);
            let mut client = UnixStream::connect(&path).await.unwrap();
            let mut stream = acceptor.accept().await;
            client.write_all(b"x").await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), b'x');
        }
        // Asking whether somebody answers leaves a dead connection in the queue, so this comes last.
        assert_eq!(Listening::bind(&address, 1).err().unwrap().kind(), io::ErrorKind::AddrInUse);
        let acceptor = only(&listening, 0);
        drop(listening);
        assert!(path.exists());
        drop(acceptor);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_not_a_socket_or_not_ours_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        fs::write(&path, "precious").unwrap();
        assert!(Listening::bind(&Address::Unix(path.clone()), 1).is_err());
        fs::remove_file(&path).unwrap();

        let listening = Listening::bind(&Address::Unix(path.clone()), 1).unwrap();
        fs::rename(&path, directory.path().join("old")).unwrap();
        fs::write(&path, "another's").unwrap();
        drop(listening);
        assert!(path.exists());
    }

    #[test]
    fn a_stream_moves_to_another_runtime() {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (one, other) = (runtime(), runtime());
        let (mut near, far) = one.block_on(async {
            let (near, far) = UnixStream::pair().unwrap();
            (near, Stream::Unix(far).detach().unwrap())
        });
        let thread = std::thread::spawn(move || {
            other.block_on(async {
                let mut far = far.attach().unwrap();
                let wrote = far.write_vectored(&[IoSlice::new(b"a"), IoSlice::new(b"bc")]).await.unwrap();
                assert_eq!(wrote, 3);
            });
        });
        let mut text = String::new();
        one.block_on(near.read_to_string(&mut text)).unwrap();
        thread.join().unwrap();
        assert_eq!(text, "abc");
    }

    #[test]
    fn a_lack_of_descriptors_is_waited_out_and_told_once() {
        const EMFILE: i32 = 24;
        let mut complaints = Complaints::default();
        for _ in 0..10 {
            assert_eq!(complaints.pause_after(&io::Error::from_raw_os_error(EMFILE)), Some(PAUSE));
        }
        assert_eq!(complaints.count, 1);
        assert_eq!(complaints.pause_after(&io::ErrorKind::ConnectionAborted.into()), None);
    }

    #[tokio::test]
    async fn what_waits_in_a_queue_is_there_for_who_inherits_it() {
        for workers in [1, 2, 3, 5] {
            let old = Listening::bind(&ip("127.0.0.1:0"), 3).unwrap();
            old.listen().unwrap();
            let mut clients = Vec::new();
            for _ in 0..20 {
                clients.push(TcpStream::connect(("127.0.0.1", port(&old))).await.unwrap());
            }
            // As the document says it, or as it came to be.
            let address = if workers == 2 { old.local_addr().clone() } else { ip("127.0.0.1:0") };
            let new = Listening::inherit(&address, old.pass_on().unwrap(), workers).unwrap();
            new.listen().unwrap();
            assert_eq!((new.local_addr(), new.workers()), (old.local_addr(), workers));
            drop(old);
            let (sender, mut accepted) = tokio::sync::mpsc::unbounded_channel();
            let mut tasks = tokio::task::JoinSet::new();
            for worker in 0..workers {
                for mut acceptor in new.acceptors(worker).unwrap() {
                    let sender = sender.clone();
                    tasks.spawn(async move {
                        loop {
                            sender.send(acceptor.accept().await).unwrap();
                        }
                    });
                }
            }
            assert_eq!(tasks.len(), workers.max(3));
            for _ in &clients {
                tokio::time::timeout(Duration::from_secs(10), accepted.recv()).await.expect("none is lost").unwrap();
            }
        }
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(Listening::inherit(&ip("127.0.0.2:0"), vec![other.into()], 1).is_err());
    }

    #[tokio::test]
    async fn the_file_of_a_unix_socket_belongs_to_who_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let address = Address::Unix(path.clone());
        let old = Listening::bind(&address, 2).unwrap();
        old.listen().unwrap();
        let failed = Listening::inherit(&address, old.pass_on().unwrap(), 1).unwrap();
        drop(failed);
        assert!(path.exists(), "one that came to nothing leaves it");
        let new = Listening::inherit(&address, old.pass_on().unwrap(), 3).unwrap();
        new.owns_file(true);
        old.owns_file(false);
        drop(old);
        let _client = UnixStream::connect(&path).await.unwrap();
        only(&new, 0).accept().await;
        drop(new);
        assert!(!path.exists());
    }
}
