//! A server that writes exactly the bytes it is given: for answers no HTTP library would produce.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::SockRef;

/// What one connection gets.
#[derive(Clone, Debug)]
pub struct Script {
    /// Read up to the blank line that ends a request's head before writing.
    pub read_head: bool,
    /// Written one after the other, with `pause` in between.
    pub pieces: Vec<Vec<u8>>,
    pub pause: Duration,
    pub then: Then,
}

/// What follows the last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    Close,
    Reset,
    /// Read on, and say nothing, until the peer closes.
    Hold,
}

impl Script {
    /// One answer after one request's head, then the end of the connection.
    pub fn answer(bytes: impl Into<Vec<u8>>) -> Self {
        Self { read_head: true, pieces: vec![bytes.into()], pause: Duration::ZERO, then: Then::Close }
    }

    pub fn then(mut self, then: Then) -> Self {
        self.then = then;
        self
    }

    /// Several writes in place of one, `pause` apart.
    pub fn pieces(mut self, pieces: Vec<Vec<u8>>, pause: Duration) -> Self {
        self.pieces = pieces;
        self.pause = pause;
        self
    }
}

/// Plays the first script on the first connection, and so on; the last one for all that follow.
pub struct Server {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Vec<u8>>>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(scripts: Vec<Script>) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let received = Arc::new(Mutex::new(Vec::new()));
        let stopping = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (received, stopping) = (received.clone(), stopping.clone());
            move || {
                for (index, stream) in listener.incoming().enumerate() {
                    if stopping.load(Ordering::Acquire) {
                        return;
                    }
                    let (Ok(stream), Some(script)) = (stream, scripts.get(index).or(scripts.last())) else { continue };
                    lock(&received).push(Vec::new());
                    let (script, received, stopping) = (script.clone(), received.clone(), stopping.clone());
                    std::thread::spawn(move || {
                        let _ =
                            play(stream, &script, |bytes| lock(&received)[index].extend_from_slice(bytes), &stopping);
                    });
                }
            }
        });
        Ok(Self { address, received, stopping, thread: Some(thread) })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many connections have been accepted.
    pub fn connections(&self) -> usize {
        lock(&self.received).len()
    }

    /// What each connection has sent so far.
    pub fn received(&self) -> Vec<Vec<u8>> {
        lock(&self.received).clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        // Wakes the thread out of its accept.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(received: &Mutex<Vec<Vec<u8>>>) -> MutexGuard<'_, Vec<Vec<u8>>> {
    received.lock().unwrap_or_else(PoisonError::into_inner)
}

fn play(mut stream: TcpStream, script: &Script, note: impl Fn(&[u8]), stopping: &AtomicBool) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_millis(50)))?;
    let mut buffer = [0; 16 * 1024];
    let mut head = Vec::new();
    // False at the end, or when the server is dropped.
    let mut more = |stream: &mut TcpStream, head: &mut Vec<u8>| -> io::Result<bool> {
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => return Ok(false),
                Ok(n) => {
                    note(&buffer[..n]);
                    head.extend_from_slice(&buffer[..n]);
                    return Ok(true);
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    if stopping.load(Ordering::Acquire) {
                        return Ok(false);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    };
    if script.read_head {
        while !head.windows(4).any(|four| four == b"\r\n\r\n") {
            if !more(&mut stream, &mut head)? {
                return Ok(());
            }
        }
    }
    for (index, piece) in script.pieces.iter().enumerate() {
        if index > 0 {
            std::thread::sleep(script.pause);
        }
        stream.write_all(piece)?;
    }
    match script.then {
        Then::Close => {
            stream.shutdown(std::net::Shutdown::Write)?;
            // Unread bytes at close would turn the FIN into a reset.
            while more(&mut stream, &mut Vec::new())? {}
        }
        Then::Reset => SockRef::from(&stream).set_linger(Some(Duration::ZERO))?,
        Then::Hold => while more(&mut stream, &mut Vec::new())? {},
    }
    Ok(())
}
