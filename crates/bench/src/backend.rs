//! The origin: HTTP/1.1 by hand, one thread. `/` answers 1 KiB to GET and POST; `/events/N` never ends, nor does `/text/N`,
//! of which so many megabytes come each second. An event comes N microseconds after each multiple of 10 ms.

use std::io::Write as _;
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};

use crate::procs::{now_ns, pin};

const EVENT: usize = 120;
/// How often an event of a stream comes.
pub const EVERY: Duration = Duration::from_millis(10);
/// What is written of a text at once.
const PIECE: usize = 32 * 1024;

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
        if let Some(after) = path.strip_prefix("/events/").and_then(|after| after.parse().ok()) {
            return events(stream, Duration::from_micros(after)).await;
        }
        if let Some(pace) = path.strip_prefix("/text/").and_then(|pace| pace.parse::<f64>().ok()) {
            return text(stream, pace).await;
        }
        while buffer.len() < used {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        buffer.drain(..used);
        stream.write_all(&answer).await?;
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

/// Words without end, at an even pace.
async fn text(mut stream: TcpStream, megabytes_per_second: f64) -> Result<()> {
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 1000000000000\r\n\r\n";
    stream.write_all(head).await?;
    let words = words();
    let mut ticks = interval(Duration::from_secs_f64(PIECE as f64 / (megabytes_per_second * 1e6)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for piece in words.chunks_exact(PIECE).cycle() {
        ticks.tick().await;
        stream.write_all(piece).await?;
    }
    Ok(())
}

/// A megabyte that compresses about as prose does.
fn words() -> Vec<u8> {
    const SYLLABLES: [&str; 32] = [
        "ra", "to", "ment", "ing", "er", "al", "con", "pre", "de", "stru", "lo", "vi", "sta", "ble", "ness", "the ",
        "of ", "and ", "a ", "in ", "is ", "that ", "on ", "by ", "ly ", "ed ", "s ", "tion ", ", ", ". ", "un", "ex",
    ];
    let (mut text, mut random) = (Vec::with_capacity(32 * PIECE + 8), 1u64);
    while text.len() < 32 * PIECE {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.extend_from_slice(SYLLABLES[(random >> 59) as usize].as_bytes());
    }
    text.truncate(32 * PIECE);
    text
}

async fn events(mut stream: TcpStream, after: Duration) -> Result<()> {
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-store\r\n\
                 transfer-encoding: chunked\r\n\r\n";
    stream.write_all(head).await?;
    let every = EVERY.as_nanos() as u64;
    let wait = every - (now_ns() + every - after.as_nanos() as u64 % every) % every;
    let mut ticks = interval_at(Instant::now() + Duration::from_nanos(wait), EVERY);
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
