//! A service that speaks nothing but HTTP/2, on the bare `h2` crate, so that a test decides about its connections.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use hyper::body::Bytes;
use hyper::{Request, Response};
use tokio::sync::watch;

#[derive(Clone, Copy)]
pub struct Settings {
    pub streams: u32,
    /// RFC 8441.
    pub extended_connect: bool,
}

/// `/hold` begins an answer and ends it when told to, `/silent` lets its whole connection fall silent, an extended
/// CONNECT speaks WebSocket and says every message again; anything else is `ok`.
pub struct Peer {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    release: watch::Sender<bool>,
}

impl Peer {
    pub fn start(settings: Settings) -> Peer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let (release, released) = watch::channel(false);
        let counted = connections.clone();
        // It ends with the process of the tests.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    counted.fetch_add(1, Ordering::AcqRel);
                    tokio::spawn(connection(stream, settings, released.clone()));
                }
            });
        });
        Peer { address, connections, release }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Acquire)
    }

    /// Ends all that is held, now and later.
    pub fn release(&self) {
        let _ = self.release.send(true);
    }
}

async fn connection(stream: tokio::net::TcpStream, settings: Settings, released: watch::Receiver<bool>) {
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(settings.streams);
    if settings.extended_connect {
        builder.enable_connect_protocol();
    }
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        if request.uri().path() == "/silent" {
            std::future::pending::<()>().await;
        }
        tokio::spawn(answer(request, respond, released.clone()));
    }
}

async fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, mut released: watch::Receiver<bool>) {
    let websocket = request.extensions().get::<h2::ext::Protocol>().is_some_and(|it| it.as_str() == "websocket");
    let keyed = request.headers().contains_key("sec-websocket-key");
    let path = request.uri().path().to_owned();
    let mut answer = Response::new(());
    if websocket && keyed {
        *answer.status_mut() = hyper::StatusCode::BAD_REQUEST;
    }
    let Ok(mut send) = respond.send_response(answer, false) else { return };
    if websocket {
        return echo(request.into_body(), send).await;
    }
    if path == "/hold" {
        let _ = send.send_data("held".into(), false);
        let _ = released.wait_for(|released| *released).await;
    }
    let _ = send.send_data("ok".into(), true);
}

/// Frames of a client are masked, those of a server are not (RFC 6455, 5.1).
async fn echo(mut body: RecvStream, mut send: SendStream<Bytes>) {
    let mut read: Vec<u8> = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        read.extend_from_slice(&data);
        while let Some((frame, length)) = unmasked(&read) {
            read.drain(..length);
            let _ = send.send_data(frame.into(), false);
        }
    }
    let _ = send.send_data(Bytes::new(), true);
}

fn unmasked(read: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (length, mask) = match read.get(1)? & 0x7f {
        126 => (usize::from(u16::from_be_bytes([*read.get(2)?, *read.get(3)?])), 4),
        127 => panic!("too long for a test"),
        short => (usize::from(short), 2),
    };
    let whole = mask + 4 + length;
    let payload = read.get(mask + 4..whole)?;
    let mut frame = read[..mask].to_vec();
    frame[1] &= 0x7f;
    frame.extend(payload.iter().zip(read[mask..mask + 4].iter().cycle()).map(|(byte, mask)| byte ^ mask));
    Some((frame, whole))
}
