//! One call through a gateway of its own, on a free port of this machine, with its access log read back.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use awareness::{Stamp, Timeline};
use base::{Scheme, Time};
use config::{AccessLog, Address, Listener, Snapshot};
use ipnet::IpNet;
use proxy::Node;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::explain::Question;

/// What came back, and where the time went.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Live {
    pub status: String,
    pub headers: Vec<String>,
    /// Of the body, as sent: with the framing of a chunked one.
    pub bytes: usize,
    /// False where the answer was still going on and nobody waited for it.
    pub complete: bool,
    pub endpoint: Option<String>,
    pub attempts: u64,
    /// Milliseconds, by name.
    pub segments: BTreeMap<String, f64>,
}

/// The lines of the access log that are read back.
#[derive(Debug, Default, Deserialize)]
struct Line {
    #[serde(default)]
    endpoint: Option<String>,
    #[serde(default)]
    attempts: u64,
    #[serde(default)]
    segments: BTreeMap<String, f64>,
}

pub fn call(snapshot: Snapshot, question: &Question) -> Result<Live, String> {
    let folder = tempfile::tempdir().map_err(|error| format!("no temporary folder: {error}"))?;
    let log = folder.path().join("access.log");
    let node = Node::start(Arc::new(here(snapshot, &log)))
        .map_err(|problems| problems.into_iter().map(|it| it.message).collect::<Vec<_>>().join("; "))?;
    let answer = match node.addresses().get(question.listener) {
        Some((_, Address::Ip(address))) => ask(*address, question).map_err(|error| error.to_string()),
        _ => Err("the listener was not bound".into()),
    };
    // The log is complete once the node has stopped.
    node.stop(Duration::from_secs(1));
    let mut live = answer?;
    let text = std::fs::read_to_string(&log).unwrap_or_default();
    let line: Line = text.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
    let Line { endpoint, attempts, segments } = line;
    live.endpoint = endpoint;
    live.attempts = attempts;
    live.segments = segments;
    Ok(live)
}

/// For policies, which only await what is there.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    #[expect(clippy::expect_used, reason = "without a runtime there is nothing left to try")]
    runtime.expect("a runtime without threads").block_on(future)
}

/// The same routes and policies on loopback, in clear; nothing is told to anybody but the log.
fn here(mut snapshot: Snapshot, log: &Path) -> Snapshot {
    let loopback: IpNet = IpNet::from(std::net::IpAddr::from([127, 0, 0, 1]));
    let listeners = snapshot.listeners.iter().map(|listener| {
        let Listener { name, address: _, tls: _, proxy_protocol: _, trusted_proxies: _, limits } = &**listener;
        Arc::new(Listener {
            name: name.clone(),
            address: Address::Ip(SocketAddr::from(([127, 0, 0, 1], 0))),
            tls: None,
            proxy_protocol: false,
            // We speak for the caller that was asked about.
            trusted_proxies: vec![loopback],
            limits: limits.clone(),
        })
    });
    snapshot.listeners = listeners.collect();
    snapshot.node.workers = 1;
    snapshot.telemetry.metrics = None;
    snapshot.telemetry.otlp = None;
    snapshot.telemetry.access_log = Some(AccessLog::File(log.to_owned()));
    snapshot
}

/// Plain HTTP/1.1, by hand: what is asked must go out exactly so.
fn ask(address: SocketAddr, question: &Question) -> io::Result<Live> {
    let head = question.head();
    let mut request = format!("{} {} HTTP/1.1\r\nhost: {}\r\n", head.method, head.target, head.authority).into_bytes();
    let told =
        ["forwarded", "connection", "x-forwarded-for", "x-forwarded-proto", "content-length", "transfer-encoding"];
    for (name, value) in head.headers.iter().filter(|(name, _)| !told.contains(name)) {
        request.extend_from_slice(name.as_bytes());
        request.extend_from_slice(b": ");
        request.extend_from_slice(value);
        request.extend_from_slice(b"\r\n");
    }
    let proto = if head.scheme == Scheme::Https { "https" } else { "http" };
    let from = question.client().addr;
    let rest = format!(
        "x-forwarded-for: {from}\r\nx-forwarded-proto: {proto}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    request.extend_from_slice(rest.as_bytes());

    let mut stream = TcpStream::connect(address)?;
    stream.write_all(&request)?;
    let begin = Instant::now();
    let mut answer = Vec::new();
    let mut buffer = [0; 16 * 1024];
    let mut complete = false;
    while begin.elapsed() < PATIENCE && answer.len() < ENOUGH {
        let body_began = head_end(&answer).is_some();
        let left = PATIENCE.saturating_sub(begin.elapsed()).max(Duration::from_millis(1));
        // An event stream need not end; its beginning is enough.
        stream.set_read_timeout(Some(if body_began { left.min(STREAM) } else { left }))?;
        match stream.read(&mut buffer) {
            Ok(0) => {
                complete = true;
                break;
            }
            Ok(read) => answer.extend_from_slice(&buffer[..read]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => break,
            Err(error) => return Err(error),
        }
    }
    let end =
        head_end(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::TimedOut, "no answer within 30 seconds"))?;
    let text = String::from_utf8_lossy(&answer[..end]);
    let mut lines = text.split("\r\n").filter(|line| !line.is_empty());
    let status =
        lines.next().and_then(|line| line.split_once(' ')).map_or_else(String::new, |(_, status)| status.to_owned());
    let headers = lines.map(str::to_owned).collect();
    let bytes = answer.len() - end;
    Ok(Live { status, headers, bytes, complete, endpoint: None, attempts: 0, segments: BTreeMap::new() })
}

fn head_end(answer: &[u8]) -> Option<usize> {
    answer.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

impl Live {
    /// The stamps that the segments lay between.
    pub fn timeline(&self) -> Timeline {
        let ends = |stamp: Stamp| match stamp {
            Stamp::Accepted | Stamp::ClientDrained => &["drain"][..],
            Stamp::TlsAccepted => &["tls"],
            Stamp::HeadBegan => &["accept"],
            Stamp::HeadRead => &["read head"],
            Stamp::PoliciesDone => &["policies"],
            Stamp::PermitGot => &["queue"],
            Stamp::EndpointChosen => &["choose"],
            Stamp::Resolved => &["resolve"],
            Stamp::Connected => &["connect"],
            Stamp::TlsConnected => &["tls upstream"],
            Stamp::RequestSent => &["send"],
            Stamp::FirstByte => &["upstream"],
            Stamp::FirstToken => &["first token"],
            Stamp::LastByte => &["receive", "stream"],
        };
        let mut timeline = Timeline::default();
        let mut now = Time::from_nanos(1);
        timeline.mark(Stamp::Accepted, now);
        for stamp in Stamp::ALL.into_iter().skip(1) {
            let length = ends(stamp).iter().find_map(|name| self.segments.get(*name));
            if let Some(millis) = length {
                now = now + Duration::from_secs_f64(millis.max(0.0) / 1e3);
                timeline.mark(stamp, now);
            }
        }
        timeline
    }
}

const PATIENCE: Duration = Duration::from_secs(30);
const STREAM: Duration = Duration::from_secs(2);
const ENOUGH: usize = 4 * 1024 * 1024;
