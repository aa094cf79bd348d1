//! A service that keeps every byte it gets and reads them as strictly as one can: whatever allows two readings is an
//! error here. Its reader is written for these tests alone, so that it shares no idea of HTTP with the gateway.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

/// A request that came whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

impl Seen {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }
}

/// Answers every request with its target as the body.
pub struct Origin {
    address: SocketAddr,
    connections: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Origin {
    pub fn start() -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connections: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let all = connections.clone();
        // It ends with the process of the tests.
        std::thread::spawn(move || {
            for (index, stream) in listener.incoming().map_while(Result::ok).enumerate() {
                lock(&all).push(Vec::new());
                let all = all.clone();
                std::thread::spawn(move || serve(stream, |bytes| lock(&all)[index].extend_from_slice(bytes)));
            }
        });
        Origin { address, connections }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What came whole, on all connections; panics at anything that could be read in two ways.
    #[track_caller]
    pub fn seen(&self) -> Vec<Seen> {
        let connections = lock(&self.connections).clone();
        let read = connections.iter().map(|bytes| match strict(bytes) {
            Ok((seen, _)) => seen,
            Err(why) => panic!("the origin was sent what is ambiguous, {why}: {:?}", String::from_utf8_lossy(bytes)),
        });
        read.flatten().collect()
    }
}

fn lock<T>(it: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    it.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(mut stream: TcpStream, note: impl Fn(&[u8])) {
    let _ = stream.set_nodelay(true);
    let (mut bytes, mut buffer, mut answered) = (Vec::new(), [0; 16 * 1024], 0);
    loop {
        let Ok(count @ 1..) = stream.read(&mut buffer) else { return };
        note(&buffer[..count]);
        bytes.extend_from_slice(&buffer[..count]);
        let Ok((seen, _)) = strict(&bytes) else { return };
        for seen in &seen[answered..] {
            let length = seen.target.len();
            let body = if seen.method == "HEAD" { "" } else { &*seen.target };
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
        answered = seen.len();
    }
}

/// All whole requests, and how many bytes of one that is not are behind them.
fn strict(mut bytes: &[u8]) -> Result<(Vec<Seen>, usize), String> {
    let mut all = Vec::new();
    while let Some(seen) = request(&mut bytes)? {
        all.push(seen);
    }
    Ok((all, bytes.len()))
}

/// The next one, if all of it is there.
fn request(bytes: &mut &[u8]) -> Result<Option<Seen>, String> {
    let mut rest = *bytes;
    let Some(line) = line(&mut rest)? else { return Ok(None) };
    let words: Vec<&str> = line.split(' ').collect();
    let [method, target, "HTTP/1.1"] = words[..] else { return Err(format!("the request line {line:?}")) };
    if !is_token(method) || target.is_empty() || !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(format!("the request line {line:?}"));
    }
    let Some(fields) = fields(&mut rest)? else { return Ok(None) };
    let values = |name: &str| fields.iter().filter(|(it, _)| it == name).map(|(_, value)| &**value).collect::<Vec<_>>();
    if values("host").len() != 1 {
        return Err(format!("{} hosts", values("host").len()));
    }
    if let Some((name, _)) = fields.iter().find(|(name, _)| name.contains('_') && is_framing(&name.replace('_', "-"))) {
        return Err(format!("the field {name}"));
    }
    let mut trailers = Vec::new();
    let body = match (&values("content-length")[..], &values("transfer-encoding")[..]) {
        ([], []) => Vec::new(),
        ([length], []) => {
            let canonical = length.parse::<usize>().ok().filter(|it| it.to_string() == *length);
            let length = canonical.ok_or_else(|| format!("the length {length:?}"))?;
            let Some((body, behind)) = rest.split_at_checked(length) else { return Ok(None) };
            rest = behind;
            body.to_vec()
        }
        ([], ["chunked"]) => {
            let Some((body, behind)) = chunks(&mut rest)? else { return Ok(None) };
            trailers = behind;
            body
        }
        (lengths, codings) => return Err(format!("lengths {lengths:?} and codings {codings:?}")),
    };
    if let Some((name, _)) = trailers.iter().find(|(name, _)| is_framing(name)) {
        return Err(format!("the trailer {name}"));
    }
    *bytes = rest;
    Ok(Some(Seen { method: method.into(), target: target.into(), fields, body, trailers }))
}

fn is_framing(name: &str) -> bool {
    matches!(name, "content-length" | "transfer-encoding" | "host" | "connection" | "te" | "trailer" | "upgrade")
}

/// A body and its trailers.
type Chunked = (Vec<u8>, Vec<(String, String)>);

fn chunks(rest: &mut &[u8]) -> Result<Option<Chunked>, String> {
    let mut body = Vec::new();
    loop {
        let Some(line) = line(rest)? else { return Ok(None) };
        let size = usize::from_str_radix(&line, 16).ok().filter(|size| format!("{size:x}") == line);
        let size = size.ok_or_else(|| format!("the chunk size {line:?}"))?;
        if size == 0 {
            return Ok(fields(rest)?.map(|trailers| (body, trailers)));
        }
        let Some((data, behind)) = rest.split_at_checked(size + 2) else { return Ok(None) };
        let Some(data) = data.strip_suffix(b"\r\n") else { return Err("no CRLF behind a chunk".into()) };
        body.extend_from_slice(data);
        *rest = behind;
    }
}

fn fields(rest: &mut &[u8]) -> Result<Option<Vec<(String, String)>>, String> {
    let mut fields = Vec::new();
    loop {
        let Some(line) = line(rest)? else { return Ok(None) };
        if line.is_empty() {
            return Ok(Some(fields));
        }
        let (name, value) = line.split_once(": ").ok_or_else(|| format!("the field {line:?}"))?;
        if !is_token(name) || name.contains(|c: char| c.is_ascii_uppercase()) || value != value.trim() {
            return Err(format!("the field {line:?}"));
        }
        fields.push((name.into(), value.into()));
    }
}

/// A line that ends in CRLF and holds no other control character.
fn line(rest: &mut &[u8]) -> Result<Option<String>, String> {
    let Some(end) = rest.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
    let (line, behind) = rest.split_at(end + 1);
    let line = line.strip_suffix(b"\r\n").ok_or("an LF without CR")?;
    if line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        return Err("a control character".into());
    }
    *rest = behind;
    Ok(Some(line.iter().map(|byte| char::from(*byte)).collect()))
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[test]
fn the_strict_reader_is_strict() {
    let good = "POST /a HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx: y\r\n\r\n";
    let (seen, rest) = strict(format!("{good}{good}GET").as_bytes()).unwrap();
    assert_eq!((seen.len(), rest, &*seen[0].body), (2, 3, &b"abc"[..]));
    for (from, to) in [
        ("host: h\r\n", "host: h\n"),
        ("host: h\r\n", ""),
        ("host: h\r\n", "host: h\r\nhost: h\r\n"),
        ("host: h\r\n", "host: h\r\ncontent-length: 3\r\n"),
        ("host: h\r\n", "host: h\r\ncontent_length: 3\r\n"),
        ("host: h", "host : h"),
        ("host: h", "host: h\0"),
        ("chunked", "chunked, chunked"),
        ("3\r\n", "03\r\n"),
        ("3\r\n", "3;x\r\n"),
        ("abc\r\n", "abcd"),
        ("x: y", "content-length: 1"),
        ("/a", "/a b"),
    ] {
        assert!(strict(good.replacen(from, to, 1).as_bytes()).is_err(), "{to:?} for {from:?}");
    }
}
