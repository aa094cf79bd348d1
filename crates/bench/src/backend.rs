//! The origin: HTTP/1.1 by hand, one thread. `/` answers 1 KiB to GET and POST, `/events` never ends, `/bytes/N` answers N.

use std::io::Write as _;
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{MissedTickBehavior, interval};

use crate::procs::{now_ns, pin};

const EVENT: usize = 120;
static BLOCK: [u8; 64 * 1024] = [b'x'; 64 * 1024];

#[derive(clap::Args)]
pub struct Arguments {
    #[arg(long, default_value_t = 19000)]
    port: u16,
    /// The core to stay on.
    #[arg(long)]
    core: Option<usize>,
}

pub async fn run(arguments: Arguments) -> Result<()> {
    if let Some(core) = arguments.core {
        pin(core)?;
    }
    let listener = TcpListener::bind(("127.0.0.1", arguments.port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::task::spawn_local(async move {
            let _ = serve(stream).await;
        });
    }
}

async fn serve(mut stream: TcpStream) -> Result<()> {
    let mut answer = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 1024\r\n\r\n".to_vec();
    answer.resize(answer.len() + 1024, b'x');
    let mut buffer = Vec::with_capacity(16 * 1024);
    loop {
        let Some((used, path)) = head(&buffer)? else {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            continue;
        };
        if path.starts_with("/events") {
            return events(stream).await;
        }
        let bytes = path.strip_prefix("/bytes/").and_then(|n| n.parse::<u64>().ok());
        while buffer.len() < used {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        buffer.drain(..used);
        match bytes {
            Some(length) => download(&mut stream, length).await?,
            None => stream.write_all(&answer).await?,
        }
    }
}

/// How long the first request is with its body, and its path; nothing if its head is not all there.
fn head(buffer: &[u8]) -> Result<Option<(usize, String)>> {
    if buffer.is_empty() {
        return Ok(None);
    }
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(length) = request.parse(buffer)? else { return Ok(None) };
    let path = request.path.unwrap_or("/").to_owned();
    let body = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let body = body.map_or(Ok(0), |header| std::str::from_utf8(header.value).unwrap_or_default().parse::<usize>())?;
    Ok(Some((length + body, path)))
}

async fn download(stream: &mut TcpStream, length: u64) -> Result<()> {
    stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").as_bytes()).await?;
    let mut left = length;
    while left > 0 {
        let now = left.min(BLOCK.len() as u64);
        stream.write_all(&BLOCK[..now as usize]).await?;
        left -= now;
        // What others ask meanwhile is answered first: it is the proxy that is measured.
        tokio::task::yield_now().await;
    }
    Ok(())
}

async fn events(mut stream: TcpStream) -> Result<()> {
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-store\r\n\
                 transfer-encoding: chunked\r\n\r\n";
    stream.write_all(head).await?;
    let mut ticks = interval(Duration::from_millis(10));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut chunk = Vec::with_capacity(256);
    for number in 0u64.. {
        ticks.tick().await;
        chunk.clear();
        write!(chunk, "{EVENT:x}\r\n")?;
        let start = chunk.len();
        write!(chunk, "data: {number} {} ", now_ns())?;
        chunk.resize(start + EVENT - 2, b'x');
        chunk.extend_from_slice(b"\n\n\r\n");
        stream.write_all(&chunk).await?;
    }
    Ok(())
}
