//! The access log: one JSON object a line, written on the worker, taken to the file by a thread of its own.
//!
//! A worker fills a buffer and hands it over when it is full or old. If the writer is behind, the buffer
//! is dropped and its lines are counted: a slow disk costs lines, never latency.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use awareness::{Exchange, ModelUse, Stamp};
use base::{Date, Time};

use crate::{AccessLog, Shared};

/// What comes to the writer through its queue.
pub(crate) enum Message {
    Lines(Vec<u8>),
    Order(Order),
}

/// What the writer is told.
pub(crate) enum Order {
    Target(Option<Target>),
    Reopen,
    /// Answered.
    Stop(SyncSender<()>),
}

/// Where orders are given.
pub(crate) struct Desk {
    queue: SyncSender<Message>,
    /// Those that found no room in the queue: a writer that hangs lets it fill, and whoever gives an order must not hang
    /// with it.
    orders: Arc<Mutex<VecDeque<Order>>>,
}

/// An opened log.
pub(crate) enum Target {
    Stdout,
    File(PathBuf, File),
}

/// A worker's lines that are not handed over yet.
pub(crate) struct Buffer {
    lines: Vec<u8>,
    count: u64,
    since: Time,
    writer: SyncSender<Message>,
}

pub(crate) struct Writer {
    target: Option<Target>,
    orders: Arc<Mutex<VecDeque<Order>>>,
    shared: Arc<Shared>,
    /// The last write stopped within a line, so the next begins a new one.
    torn: bool,
    failing: bool,
}

/// Buffers that wait for the writer: 2 MiB.
pub(crate) const QUEUE: usize = 64;
const FULL: usize = 32 * 1024;
const OLD: Duration = Duration::from_millis(200);

// === impl Target ===

impl Target {
    pub(crate) fn open(log: &AccessLog) -> io::Result<Target> {
        match log {
            AccessLog::Stdout => Ok(Target::Stdout),
            AccessLog::File(path) => {
                let mut options = OpenOptions::new();
                // A pipe that nobody reads would hold up whoever opens it to write; one that is read too slowly, who writes.
                if fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo()) {
                    let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
                    options.read(true).write(true).custom_flags(flags);
                } else {
                    options.create(true).append(true);
                }
                Ok(Target::File(path.clone(), options.open(path)?))
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Target::Stdout => {
                let mut stdout = io::stdout().lock();
                let written = stdout.write(bytes)?;
                stdout.flush()?;
                Ok(written)
            }
            Target::File(_, file) => file.write(bytes),
        }
    }
}

// === impl Desk ===

impl Desk {
    pub(crate) fn new(queue: SyncSender<Message>) -> Desk {
        Desk { queue, orders: Arc::default() }
    }

    pub(crate) fn queue(&self) -> SyncSender<Message> {
        self.queue.clone()
    }

    /// Never waits. If there is room in the queue the order follows what came before it; if not, it is looked at as
    /// soon as the writer has done with what it is at.
    pub(crate) fn tell(&self, order: Order) {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        // None overtakes another.
        if !orders.is_empty() {
            return orders.push_back(order);
        }
        if let Err(TrySendError::Full(Message::Order(order))) = self.queue.try_send(Message::Order(order)) {
            orders.push_back(order);
        }
    }
}

// === impl Buffer ===

impl Buffer {
    pub(crate) fn new(writer: SyncSender<Message>) -> Buffer {
        Buffer { lines: Vec::new(), count: 0, since: Time::default(), writer }
    }

    pub(crate) fn add(&mut self, exchange: &Exchange, shared: &Shared) {
        if self.lines.is_empty() {
            self.lines.reserve(FULL + FULL / 8);
            self.since = exchange.finished;
        }
        line(&mut self.lines, exchange);
        self.count += 1;
        if self.lines.len() >= FULL {
            self.flush(shared);
        } else {
            self.tick(exchange.finished, shared);
        }
    }

    pub(crate) fn tick(&mut self, now: Time, shared: &Shared) {
        if now - self.since >= OLD {
            self.flush(shared);
        }
    }

    pub(crate) fn flush(&mut self, shared: &Shared) {
        if self.lines.is_empty() {
            return;
        }
        let lines = std::mem::take(&mut self.lines);
        let count = std::mem::take(&mut self.count);
        if self.writer.try_send(Message::Lines(lines)).is_err() {
            shared.log_dropped.fetch_add(count, Relaxed);
        }
    }
}

// === impl Writer ===

impl Writer {
    pub(crate) fn new(desk: &Desk, shared: Arc<Shared>) -> Writer {
        Writer { target: None, orders: desk.orders.clone(), shared, torn: false, failing: false }
    }

    pub(crate) fn run(mut self, messages: &Receiver<Message>) {
        while let Ok(message) = messages.recv() {
            match message {
                Message::Lines(lines) => self.write(&lines),
                Message::Order(order) => {
                    if self.obey(order, messages) {
                        return;
                    }
                }
            }
            let given = std::mem::take(&mut *self.orders.lock().unwrap_or_else(PoisonError::into_inner));
            for order in given {
                if self.obey(order, messages) {
                    return;
                }
            }
        }
    }

    /// True if it was the last.
    fn obey(&mut self, order: Order, messages: &Receiver<Message>) -> bool {
        match order {
            Order::Target(target) => {
                self.target = target;
                self.torn = false;
            }
            Order::Reopen => self.reopen(),
            Order::Stop(done) => {
                for message in messages.try_iter() {
                    if let Message::Lines(lines) = message {
                        self.write(&lines);
                    }
                }
                let _ = done.send(());
                return true;
            }
        }
        false
    }

    fn reopen(&mut self) {
        let Some(Target::File(path, _)) = &self.target else { return };
        match Target::open(&AccessLog::File(path.clone())) {
            Ok(target) => {
                self.target = Some(target);
                self.torn = false;
            }
            // The old file is still there to be written to.
            Err(error) => tracing::error!(path = %path.display(), %error, "cannot reopen the access log"),
        }
    }

    fn write(&mut self, lines: &[u8]) {
        let Some(target) = &mut self.target else { return };
        let mut rest = lines;
        let mut result = if self.torn { target.write(b"\n").map(drop) } else { Ok(()) };
        while result.is_ok() && !rest.is_empty() {
            match target.write(rest) {
                Ok(0) => result = Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => result = Err(error),
            }
        }
        let written = &lines[..lines.len() - rest.len()];
        if let Some(last) = written.last() {
            self.torn = *last != b'\n';
        }
        let Err(error) = result else {
            self.failing = false;
            return;
        };
        self.shared.log_dropped.fetch_add(count_lines(rest), Relaxed);
        // Once until it works again: a full disk must not fill the other log as well.
        if !std::mem::replace(&mut self.failing, true) {
            tracing::error!(%error, "cannot write the access log; lines are dropped and counted");
        }
    }
}

fn count_lines(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

// === The line ===

/// Appends the call as one line of JSON.
pub(crate) fn line(out: &mut Vec<u8>, exchange: &Exchange) {
    out.extend_from_slice(b"{\"time\":\"");
    time(out, exchange.wall);
    out.extend_from_slice(b"\",\"client\":\"");
    match exchange.client {
        // Without the machinery of formatting, since nearly every line has one.
        IpAddr::V4(client) => {
            for (at, octet) in client.octets().into_iter().enumerate() {
                if at > 0 {
                    out.push(b'.');
                }
                integer(out, u64::from(octet));
            }
        }
        client => drop(write!(out, "{client}")),
    }
    out.push(b'"');
    word(out, ",\"method\":", exchange.method.as_str());
    text(out, ",\"host\":", &exchange.host);
    text(out, ",\"path\":", exchange.path());
    if let Some(status) = exchange.status {
        number(out, ",\"status\":", u64::from(status.as_u16()));
    }
    let names = [
        (",\"api\":", &exchange.api),
        (",\"route\":", &exchange.route),
        (",\"consumer\":", &exchange.consumer),
        (",\"credential\":", &exchange.credential),
        (",\"upstream\":", &exchange.upstream),
    ];
    for (key, name) in names {
        if let Some(name) = name {
            text(out, key, name);
        }
    }
    if let Some(attempt) = exchange.attempts.last() {
        text(out, ",\"endpoint\":", &attempt.endpoint);
    }
    number(out, ",\"bytes_in\":", exchange.bytes_in);
    number(out, ",\"bytes_out\":", exchange.bytes_out);
    out.extend_from_slice(b",\"duration_ms\":");
    millis(out, exchange.duration());
    out.extend_from_slice(b",\"segments\":{");
    let timeline = exchange.timeline();
    let (streamed, mut comma) = (timeline.at(Stamp::FirstToken).is_some(), "");
    timeline.gaps(|stamp, _, length| {
        word(out, comma, stamp.segment(streamed).0);
        out.push(b':');
        millis(out, length);
        comma = ",";
    });
    out.push(b'}');
    number(out, ",\"attempts\":", exchange.attempts.len() as u64);
    word(out, ",\"ending\":", exchange.ending.as_str());
    if let Some(cached) = exchange.cache {
        word(out, ",\"cache\":", cached.as_str());
    }
    if let Some(model) = &exchange.model {
        let ModelUse { asked, served, prompt, completion, estimated, cost, saved } = &**model;
        text(out, ",\"model\":{\"asked\":", asked);
        text(out, ",\"served\":", served);
        number(out, ",\"prompt_tokens\":", *prompt);
        number(out, ",\"completion_tokens\":", *completion);
        out.extend_from_slice(if *estimated { b",\"estimated\":true" } else { b",\"estimated\":false" });
        word(out, ",\"cost_usd\":", cost);
        if let Some(saved) = saved {
            word(out, ",\"saved_usd\":", saved);
        }
        out.push(b'}');
    }
    if let Some(error) = exchange.error {
        text(out, ",\"error\":", error);
    }
    if let Some(policy) = exchange.refused_by() {
        text(out, ",\"refused_by\":", policy);
    }
    out.extend_from_slice(b",\"trace_id\":\"");
    out.extend_from_slice(&exchange.trace.trace.hex());
    out.extend_from_slice(b"\"}\n");
}

/// A word of ours (or a token of HTTP), in which nothing has to be escaped.
fn word(out: &mut Vec<u8>, before: &str, word: &str) {
    out.extend_from_slice(before.as_bytes());
    out.push(b'"');
    out.extend_from_slice(word.as_bytes());
    out.push(b'"');
}

fn text(out: &mut Vec<u8>, before: &str, value: &str) {
    out.extend_from_slice(before.as_bytes());
    string(out, value.as_bytes());
}

fn number(out: &mut Vec<u8>, before: &str, value: u64) {
    out.extend_from_slice(before.as_bytes());
    integer(out, value);
}

fn integer(out: &mut Vec<u8>, value: u64) {
    // Most are small.
    if value < 10 {
        return out.push(b'0' + value as u8);
    }
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Milliseconds to the microsecond: `12.034`.
fn millis(out: &mut Vec<u8>, length: Duration) {
    let micros = length.as_secs() * 1_000_000 + u64::from(length.subsec_micros());
    integer(out, micros / 1000);
    out.push(b'.');
    three_digits(out, (micros % 1000) as u32);
}

fn three_digits(out: &mut Vec<u8>, value: u32) {
    let digit = |value: u32| b'0' + (value % 10) as u8;
    out.extend_from_slice(&[digit(value / 100), digit(value / 10), digit(value)]);
}

/// A JSON string. Bytes that are not UTF-8 become U+FFFD, as nothing else can stand for them in JSON.
fn string(out: &mut Vec<u8>, value: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    if is_plain(value) {
        out.extend_from_slice(value);
        out.push(b'"');
        return;
    }
    for chunk in value.utf8_chunks() {
        let valid = chunk.valid().as_bytes();
        let mut plain = 0;
        for (at, byte) in valid.iter().enumerate() {
            let short = match byte {
                b'"' => b'"',
                b'\\' => b'\\',
                b'\n' => b'n',
                b'\r' => b'r',
                b'\t' => b't',
                // DEL is allowed in JSON but not kind to a terminal.
                0..0x20 | 0x7f => 0,
                _ => continue,
            };
            out.extend_from_slice(&valid[plain..at]);
            plain = at + 1;
            match short {
                0 => {
                    out.extend_from_slice(b"\\u00");
                    out.push(DIGITS[usize::from(byte >> 4)]);
                    out.push(DIGITS[usize::from(byte & 15)]);
                }
                short => out.extend_from_slice(&[b'\\', short]),
            }
        }
        out.extend_from_slice(&valid[plain..]);
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    out.push(b'"');
}

/// True if nothing in it has to be escaped. Eight bytes at a time, all of them: the compiler makes few steps of that.
fn is_plain(value: &[u8]) -> bool {
    let all = |bytes: &[u8]| bytes.iter().fold(true, |plain, byte| plain & PLAIN[usize::from(*byte)]);
    let (eights, rest) = value.as_chunks::<8>();
    eights.iter().all(|eight| all(eight)) && all(rest)
}

const PLAIN: [bool; 256] = {
    let (mut plain, mut byte) = ([false; 256], b' ');
    while byte <= b'~' {
        plain[byte as usize] = byte != b'"' && byte != b'\\';
        byte += 1;
    }
    plain
};

/// RFC 3339 in UTC to the millisecond: `2026-02-03T04:05:06.789Z`.
fn time(out: &mut Vec<u8>, at: SystemTime) {
    thread_local! {
        /// The text of one second.
        static TEXT: Cell<(u64, [u8; 19])> = const { Cell::new((u64::MAX, [0; 19])) };
    }
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (second, mut text) = TEXT.get();
    if second != since.as_secs() {
        text = to_the_second(since.as_secs());
        TEXT.set((since.as_secs(), text));
    }
    out.extend_from_slice(&text);
    out.push(b'.');
    three_digits(out, since.subsec_millis());
    out.push(b'Z');
}

/// `2026-02-03T04:05:06`; years beyond 9999 are written modulo.
fn to_the_second(seconds: u64) -> [u8; 19] {
    let Date { year, month, day, weekday: _, hour, minute, second } = Date::of_seconds(seconds);
    let mut text = *b"0000-00-00T00:00:00";
    let years = [(0, (year / 100 % 100) as u8), (2, (year % 100) as u8)];
    for (at, value) in years.into_iter().chain([(5, month), (8, day), (11, hour), (14, minute), (17, second)]) {
        text[at] += value / 10 % 10;
        text[at + 1] += value % 10;
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::exchange;

    fn read(exchange: &Exchange) -> serde_json::Value {
        let mut out = Vec::new();
        line(&mut out, exchange);
        assert_eq!(out.pop(), Some(b'\n'));
        assert!(!out.contains(&b'\n'));
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn a_line_tells_the_call_without_its_query() {
        let line = read(&exchange("/a\u{1}\"\\b?token=secret"));
        assert_eq!(line["path"], "/a\u{1}\"\\b");
        assert_eq!(line["time"], "2001-09-09T01:46:40.123Z");
        assert_eq!(line["status"], 200);
        assert_eq!(line["duration_ms"], 12.0);
        assert_eq!(line["segments"]["upstream"], 7.0);
        assert_eq!(line["trace_id"], "01010101010101010101010101010101");
        assert!(!line.to_string().contains("secret"));
    }

    #[test]
    fn dates_are_right_where_calendars_are_odd() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            let mut out = Vec::new();
            time(&mut out, UNIX_EPOCH + Duration::from_secs(seconds));
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_json_string(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut out = Vec::new();
            string(&mut out, &bytes);
            let read: String = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(read, String::from_utf8_lossy(&bytes));
            prop_assert!(out.iter().all(|byte| *byte >= 0x20 && *byte != 0x7f));
        }
    }
}
