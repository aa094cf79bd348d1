//! One process takes the place of another and nothing is lost: the listening sockets are passed on, not bound again,
//! so that the connections in their queues are there for whoever accepts next.
//!
//! Both speak over a Unix stream. The old process describes its sockets and passes them. The new one starts on them
//! and says that it is ready, or why not. Only if it is does the old one let go: it says so, accepts no more, and
//! finishes what it has. The stream is the standard input of a process that the old one started itself (SIGUSR2),
//! or comes from the socket of `--takeover`.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use config::Address;
use proxy::{Passed, Sockets};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::signals::Event;

/// The process whose place this one takes.
pub struct Predecessor {
    stream: UnixStream,
    pub sockets: Sockets,
    control: Option<(PathBuf, UnixListener)>,
}

/// The socket at which the next process asks; nobody listens there once this is dropped.
pub struct Control {
    path: PathBuf,
    listener: UnixListener,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// The file goes with this.
    ours: bool,
}

/// What is passed, in the order of the descriptors that follow it.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Manifest {
    version: u32,
    listeners: Vec<Described>,
    metrics: bool,
    /// Where `--takeover` listens.
    control: Option<PathBuf>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Described {
    name: String,
    address: String,
    sockets: usize,
}

/// What the new process says.
#[derive(Debug, Serialize, Deserialize)]
enum Word {
    Ready,
    Failed(String),
}

/// What the old one says to that.
#[derive(Debug, Serialize, Deserialize)]
struct Yours;

/// Written by one version and read by the next; what is added to a manifest must be optional.
const VERSION: u32 = 1;
const STDIN: &str = "WEIR_TAKEOVER";
/// For a document to be compiled and certificates to be loaded.
const PATIENCE: Duration = Duration::from_secs(120);
/// Descriptors in one message; the system allows 253.
const AT_ONCE: usize = 64;
const LONGEST: u32 = 1 << 20;

// === The new process ===

/// The process to follow, if there is one: that which started this one, or that which listens at `control`.
pub fn predecessor(control: Option<&Path>) -> Result<Option<Predecessor>, String> {
    let stream = if std::env::var_os(STDIN).is_some_and(|it| it == "stdin") {
        let stdin = io::stdin().as_fd().try_clone_to_owned();
        Some(UnixStream::from(stdin.map_err(|error| format!("standard input cannot be used: {error}"))?))
    } else {
        match control.map(UnixStream::connect) {
            None => None,
            Some(Ok(stream)) => Some(stream),
            Some(Err(error)) if is_nobody(&error) => None,
            Some(Err(error)) => return Err(format!("the running process cannot be asked: {error}")),
        }
    };
    let Some(stream) = stream else { return Ok(None) };
    Predecessor::meet(stream).map(Some).map_err(|error| format!("the running process passed nothing on: {error}"))
}

fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

impl Predecessor {
    fn meet(stream: UnixStream) -> io::Result<Predecessor> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let Manifest { version, listeners, metrics, control } = receive(&stream)?;
        if version != VERSION {
            return Err(io::Error::other(format!("it speaks version {version} of the handover, this one {VERSION}")));
        }
        let count = listeners.iter().map(|it| it.sockets).sum::<usize>() + usize::from(metrics);
        let mut descriptors = receive_descriptors(&stream, count + usize::from(control.is_some()))?.into_iter();
        let mut next = || descriptors.next().ok_or(io::ErrorKind::UnexpectedEof);
        let mut sockets = Sockets::default();
        for Described { name, address, sockets: count } in listeners {
            let passed = (0..count).map(|_| next()).collect::<Result<Vec<_>, _>>()?;
            // An address of a kind that only the other version knows is nothing we could be asked to listen on.
            if let Some(address) = parse(&address) {
                sockets.listeners.push(Passed { name, address, sockets: passed });
            }
        }
        if metrics {
            sockets.metrics = Some(TcpListener::from(next()?));
        }
        let control = match control {
            Some(path) => Some((path, UnixListener::from(next()?))),
            None => None,
        };
        Ok(Predecessor { stream, sockets, control })
    }

    /// This process serves. When this returns well, the other one has let go.
    pub fn ready(&self) -> io::Result<()> {
        send(&self.stream, &Word::Ready)?;
        receive::<Yours>(&self.stream).map(drop)
    }

    /// This process ends, and the other one goes on.
    pub fn failed(&self, reason: &str) {
        // It sees the end of this process anyway.
        let _ = send(&self.stream, &Word::Failed(reason.to_owned()));
    }

    /// The socket of `--takeover`, if it is at this path.
    pub fn take_control(&mut self, path: &Path) -> Option<UnixListener> {
        self.control.take().filter(|(at, _)| at == path).map(|(_, listener)| listener)
    }
}

// === The old process ===

/// Starts what is now installed in this process's place, as this one was started.
pub fn start_successor() -> io::Result<(UnixStream, Child)> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut args = std::env::args_os();
    let program = args.next().ok_or(io::ErrorKind::NotFound)?;
    let child =
        Command::new(program).args(args).env(STDIN, "stdin").stdin(Stdio::from(OwnedFd::from(theirs))).spawn()?;
    Ok((ours, child))
}

/// Passes the sockets on and waits for what comes of it, in a thread of its own; `events` is told.
pub fn hand_over(
    stream: UnixStream,
    child: Option<Child>,
    sockets: Sockets,
    control: Option<(PathBuf, OwnedFd)>,
    events: Sender<Event>,
) {
    thread::spawn(move || {
        let result = pass(&stream, sockets, control);
        let result = match (result, child) {
            (Ok(()), Some(child)) => Ok(child.id()),
            (Ok(()), None) => Ok(socket_peercred(&stream).map_or(0, |peer| peer.pid.as_raw_nonzero().get() as u32)),
            (Err(error), None) => Err(error.to_string()),
            (Err(error), Some(mut child)) => {
                // It may hang; nobody waits for it any more.
                let _ = child.kill();
                let ended = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
                Err(format!("{error} ({ended})"))
            }
        };
        let _ = events.send(Event::HandedOver(result));
    });
}

fn pass(stream: &UnixStream, sockets: Sockets, control: Option<(PathBuf, OwnedFd)>) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let Sockets { listeners, metrics } = sockets;
    let mut manifest = Manifest { version: VERSION, metrics: metrics.is_some(), ..Manifest::default() };
    let mut descriptors: Vec<OwnedFd> = Vec::new();
    for Passed { name, address, sockets } in listeners {
        manifest.listeners.push(Described { name, address: shown(&address), sockets: sockets.len() });
        descriptors.extend(sockets);
    }
    descriptors.extend(metrics.map(OwnedFd::from));
    if let Some((path, listener)) = control {
        manifest.control = Some(path);
        descriptors.push(listener);
    }
    send(stream, &manifest)?;
    send_descriptors(stream, &descriptors)?;
    match receive(stream) {
        Ok(Word::Ready) => send(stream, &Yours),
        Ok(Word::Failed(reason)) => Err(io::Error::other(reason)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(io::Error::other("it ended without a word")),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(io::Error::other(format!("it was not ready within {} s", PATIENCE.as_secs())))
        }
        Err(error) => Err(error),
    }
}

impl Control {
    /// Listens for the next process: on the socket of the one before, or on a new one.
    pub fn start(path: &Path, inherited: Option<UnixListener>, events: &Sender<Event>) -> io::Result<Control> {
        let listener = match inherited {
            Some(listener) => listener,
            None => {
                match UnixStream::connect(path) {
                    Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
                    Err(_) => {}
                }
                UnixListener::bind(path)?
            }
        };
        listener.set_nonblocking(true)?;
        let mut control =
            Control { path: path.to_owned(), listener, stopping: Arc::default(), thread: None, ours: true };
        control.listen(events)?;
        Ok(control)
    }

    /// Asks nobody in any more, so that who comes next is found by who has the socket then.
    pub fn pause(&mut self) {
        self.stopping.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    pub fn listen(&mut self, events: &Sender<Event>) -> io::Result<()> {
        self.pause();
        self.stopping = Arc::default();
        let (listener, stopping, events) = (self.listener.try_clone()?, self.stopping.clone(), events.clone());
        let run = move || {
            while !stopping.load(Ordering::Acquire) {
                let asked = poll(&mut [PollFd::new(&listener, PollFlags::IN)], Some(&LOOK));
                if asked.is_ok_and(|asked| asked > 0)
                    && let Ok((stream, _)) = listener.accept()
                    && stream.set_nonblocking(false).is_ok()
                    && is_ours(&stream)
                {
                    let _ = events.send(Event::Successor(stream));
                    // One at a time; what becomes of it is known elsewhere.
                    return;
                }
            }
        };
        self.thread = Some(thread::Builder::new().name("weir-takeover".into()).spawn(run)?);
        Ok(())
    }

    pub fn pass_on(&self) -> io::Result<(PathBuf, OwnedFd)> {
        Ok((self.path.clone(), self.listener.try_clone()?.into()))
    }

    /// Another process has the socket, and its file.
    pub fn leave(mut self) {
        self.ours = false;
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.pause();
        if self.ours {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// The same user, or root: sockets are not for others.
fn is_ours(stream: &UnixStream) -> bool {
    let ours = rustix::process::geteuid();
    socket_peercred(stream).is_ok_and(|peer| peer.uid == ours || peer.uid.is_root())
}

const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

// === Both ===

fn shown(address: &Address) -> String {
    match address {
        Address::Ip(address) => address.to_string(),
        Address::Unix(path) => format!("unix:{}", path.display()),
    }
}

fn parse(address: &str) -> Option<Address> {
    match address.strip_prefix("unix:") {
        Some(path) => Some(Address::Unix(path.into())),
        None => address.parse::<SocketAddr>().ok().map(Address::Ip),
    }
}

fn send(mut stream: &UnixStream, message: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    let length = u32::try_from(text.len()).map_err(io::Error::other)?;
    stream.write_all(&length.to_be_bytes())?;
    stream.write_all(&text)
}

fn receive<T: DeserializeOwned>(mut stream: &UnixStream) -> io::Result<T> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length > LONGEST {
        return Err(io::Error::other("what it says is no handover"));
    }
    let mut text = vec![0; length as usize];
    stream.read_exact(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

fn send_descriptors(stream: &UnixStream, descriptors: &[OwnedFd]) -> io::Result<()> {
    let mut space = vec![std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
    for some in descriptors.chunks(AT_ONCE) {
        let some: Vec<_> = some.iter().map(AsFd::as_fd).collect();
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&some)) {
            return Err(io::Error::other("too many sockets at once"));
        }
        // A byte for them to travel with.
        sendmsg(stream, &[IoSlice::new(b"s")], &mut control, SendFlags::NOSIGNAL)?;
    }
    Ok(())
}

fn receive_descriptors(stream: &UnixStream, count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut descriptors = Vec::new();
    let mut space = vec![std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
    while descriptors.len() < count {
        let mut byte = [0];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let message = recvmsg(stream, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let before = descriptors.len();
        for received in control.drain() {
            if let RecvAncillaryMessage::ScmRights(some) = received {
                descriptors.extend(some);
            }
        }
        if message.bytes == 0 || descriptors.len() == before {
            // The limit of open files is one reason: what does not fit is dropped by the system.
            return Err(io::Error::other(format!("{before} of {count} sockets came; see how many files may be open")));
        }
    }
    Ok(descriptors)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn sockets(count: usize) -> Sockets {
        let fresh = || TcpListener::bind("127.0.0.1:0").unwrap();
        let sockets = (0..count).map(|_| fresh().into()).collect();
        let passed = Passed { name: "web".into(), address: parse("127.0.0.1:0").unwrap(), sockets };
        Sockets { listeners: vec![passed], metrics: Some(fresh()) }
    }

    fn ports(sockets: &Sockets) -> Vec<SocketAddr> {
        let passed = sockets.listeners[0].sockets.iter();
        let passed = passed.map(|it| TcpListener::from(it.try_clone().unwrap()).local_addr().unwrap());
        passed.chain(sockets.metrics.iter().map(|it| it.local_addr().unwrap())).collect()
    }

    #[test]
    fn many_sockets_arrive_in_their_order() {
        for count in [0, 1, AT_ONCE, 3 * AT_ONCE + 1] {
            let (old, new) = UnixStream::pair().unwrap();
            let sockets = sockets(count);
            let expected = ports(&sockets);
            let (events, told) = mpsc::channel();
            hand_over(old, None, sockets, None, events);
            let there = Predecessor::meet(new).unwrap();
            assert_eq!(ports(&there.sockets), expected);
            there.ready().unwrap();
            assert!(matches!(told.recv().unwrap(), Event::HandedOver(Ok(_))));
        }
    }

    #[test]
    fn who_does_not_come_to_be_is_not_followed() {
        let check = |end: fn(Predecessor), reason: &str| {
            let (old, new) = UnixStream::pair().unwrap();
            let (events, told) = mpsc::channel();
            hand_over(old, None, sockets(1), None, events);
            end(Predecessor::meet(new).unwrap());
            match told.recv().unwrap() {
                Event::HandedOver(Err(said)) => assert_eq!(said, reason),
                other => panic!("{other:?}"),
            }
        };
        check(|there| there.failed("the document is wrong"), "the document is wrong");
        check(drop, "it ended without a word");
    }

    #[test]
    fn a_socket_that_nobody_listens_on_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        assert!(predecessor(Some(&path)).unwrap().is_none());
        drop(UnixListener::bind(&path).unwrap());
        assert!(predecessor(Some(&path)).unwrap().is_none());
        let (events, told) = mpsc::channel();
        let mut control = Control::start(&path, None, &events).unwrap();
        assert!(Control::start(&path, None, &events).is_err(), "two would wait there");
        // That was a question too.
        assert!(matches!(told.recv().unwrap(), Event::Successor(_)));
        control.listen(&events).unwrap();
        let asking = thread::spawn({
            let path = path.clone();
            move || predecessor(Some(&path)).unwrap().is_some()
        });
        let Event::Successor(stream) = told.recv().unwrap() else { panic!("not asked") };
        hand_over(stream, None, sockets(1), Some(control.pass_on().unwrap()), events.clone());
        assert!(asking.join().unwrap());
        assert!(matches!(told.recv().unwrap(), Event::HandedOver(Err(_))));
        drop(control);
        assert!(!path.exists());
    }
}
