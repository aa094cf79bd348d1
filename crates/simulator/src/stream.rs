//! Answers that take their time.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use hyper::body::Frame;
use tokio::time::{MissedTickBehavior, interval};

use crate::answer::{Answer, piped, text, typed};
use crate::rest::query;

static START: LazyLock<(u64, Instant)> = LazyLock::new(|| {
    let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (epoch.as_nanos() as u64, Instant::now())
});

/// Nanoseconds since the UNIX epoch, never going back: the clock of the events' timestamps.
pub fn now_ns() -> u64 {
    let (epoch, start) = *START;
    epoch + start.elapsed().as_nanos() as u64
}

fn number<B>(request: &Request<B>, name: &str, default: u64) -> Option<u64> {
    query(request, name).map_or(Some(default), |text| text.parse().ok())
}

fn duration<B>(request: &Request<B>, name: &str, default: Duration) -> Option<Duration> {
    let Some(text) = query(request, name) else { return Some(default) };
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number = text[..digits].parse().ok()?;
    match &text[digits..] {
        "us" => Some(Duration::from_micros(number)),
        "" | "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        _ => None,
    }
}

/// Each event is `data: NUMBER TIMESTAMP PADDING`, numbers from 0, `size` bytes or more from `data` to the blank line.
pub(crate) fn events<B>(request: &Request<B>) -> Answer {
    let (Some(count), Some(every), Some(size)) = (
        number(request, "count", 10),
        duration(request, "every", Duration::from_millis(10)),
        number(request, "size", 0),
    ) else {
        return text(StatusCode::BAD_REQUEST, "/events?count=10&every=10ms&size=120\n");
    };
    let event = move |number| {
        let mut event = format!("data: {number} {} ", now_ns());
        let padding = (size as usize).saturating_sub(event.len() + 2);
        event.extend(std::iter::repeat_n('x', padding));
        event.push_str("\n\n");
        event
    };
    let mut answer = paced(count, every, event);
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

pub(crate) fn slow_body<B>(request: &Request<B>) -> Answer {
    let chunks = number(request, "chunks", 5);
    let every = duration(request, "every", Duration::from_millis(100));
    let (Some(chunks), Some(every)) = (chunks, every) else {
        return text(StatusCode::BAD_REQUEST, "/slow-body?chunks=5&every=100ms\n");
    };
    paced(chunks, every, |number| format!("chunk {number}\n"))
}

fn paced(count: u64, every: Duration, piece: impl Fn(u64) -> String + Send + 'static) -> Answer {
    let (sender, body) = piped(16);
    tokio::spawn(async move {
        let mut ticks = interval(every.max(Duration::from_micros(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for number in 0..count {
            if !every.is_zero() {
                ticks.tick().await;
            }
            if sender.send(Ok(Frame::data(piece(number).into()))).await.is_err() {
                return;
            }
        }
    });
    typed(StatusCode::OK, "text/plain; charset=utf-8", body)
}

/// On HTTP/1.1 they are sent only to a client that said `TE: trailers`.
pub(crate) fn trailers() -> Answer {
    let (sender, body) = piped(2);
    let mut trailers = HeaderMap::new();
    trailers.insert("x-trailer", HeaderValue::from_static("the end"));
    let _ = sender.try_send(Ok(Frame::data(Bytes::from_static(b"a body with trailers\n"))));
    let _ = sender.try_send(Ok(Frame::trailers(trailers)));
    let mut answer = typed(StatusCode::OK, "text/plain; charset=utf-8", body);
    answer.headers_mut().insert(header::TRAILER, HeaderValue::from_static("x-trailer"));
    answer
}
