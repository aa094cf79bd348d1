//! The commands' end of the admin API: which node is meant, and one question after the other.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::admin::place;
use crate::terminal::complain;

/// Which node, and what to show it.
#[derive(clap::Args)]
pub struct NodeArgs {
    /// The node: unix:PATH or http://ADDRESS. Default: WEIR_ADMIN, or else the only one of this machine
    #[arg(long, value_name = "ADDR")]
    node: Option<String>,
    /// Its token, as env:NAME or file:PATH. Default: WEIR_ADMIN_TOKEN
    #[arg(long, value_name = "REF")]
    token: Option<String>,
}

/// A node that can be asked.
pub struct Client {
    place: Place,
    token: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Unix(PathBuf),
    /// Host and port.
    Ip(String),
}

/// What went wrong, and what to do next.
#[derive(Debug)]
pub struct Complaint {
    pub message: String,
    pub help: String,
    /// What the node answered with, if one did.
    pub status: Option<u16>,
}

struct Raw {
    status: u16,
    body: Vec<u8>,
}

// === impl Client ===

impl Client {
    pub fn new(args: &NodeArgs) -> Result<Client, Complaint> {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let place = match args.node.clone().or_else(|| set("WEIR_ADMIN")) {
            Some(text) => parse(&text)?,
            None => only()?,
        };
        let token = match &args.token {
            Some(reference) => Some(token(reference)?),
            None => set("WEIR_ADMIN_TOKEN"),
        };
        Ok(Client { place, token })
    }

    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Complaint> {
        let value = self.ask("GET", path, None)?;
        serde_json::from_value(value).map_err(|error| {
            let message = format!("{path} is answered by something else than was expected: {error}");
            Complaint::new(message, "see that the command and the node are of the same version")
        })
    }

    /// Asks, and makes a complaint of all that is not a good answer.
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Complaint> {
        let raw = self.exchange(method, path, body).map_err(|error| self.unreachable(&error))?;
        let value: Value = serde_json::from_slice(&raw.body).unwrap_or_default();
        if (200..300).contains(&raw.status) {
            return Ok(value);
        }
        let mut message = match value["detail"].as_str() {
            Some(detail) => detail.to_owned(),
            None => format!("the node answered {}", raw.status),
        };
        for error in value["errors"].as_array().into_iter().flatten() {
            let text = |name: &str| error[name].as_str().unwrap_or_default();
            let _ = write!(message, "\n  {}:{}: {}: {}", text("file"), error["line"], text("path"), text("message"));
        }
        let help = match raw.status {
            401 | 403 => "give the node's token with --token file:PATH, or in WEIR_ADMIN_TOKEN",
            421 => "name the node by its address, or add the name to `admin.hosts`",
            422 => "mend the document, then try again; `weir check` says the same without a node",
            _ => "`weir help` says what there is",
        };
        Err(Complaint { message, help: help.into(), status: Some(raw.status) })
    }

    fn unreachable(&self, error: &io::Error) -> Complaint {
        let help = match error.kind() {
            io::ErrorKind::PermissionDenied => "ask as the user that runs the node, or as root",
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "see whether the machine is overloaded",
            _ => "start a node with `weir run`, or name another with --node",
        };
        Complaint::new(format!("no node answers at {}: {error}", self.place), help)
    }

    fn exchange(&self, method: &str, path: &str, body: Option<&Value>) -> io::Result<Raw> {
        match &self.place {
            Place::Unix(socket) => {
                let stream = UnixStream::connect(socket)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                self.talk(stream, "localhost", method, path, body)
            }
            Place::Ip(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                self.talk(stream, address, method, path, body)
            }
        }
    }

    fn talk(
        &self,
        mut stream: impl Read + Write,
        host: &str,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> io::Result<Raw> {
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
        if let Some(token) = &self.token {
            let _ = write!(request, "authorization: Bearer {token}\r\n");
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        if !body.is_empty() {
            request.push_str("content-type: application/json\r\n");
        }
        let _ = write!(request, "content-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        read(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "what answers there is no node"))
    }
}

/// An answer with a length, or that ends with its connection: our own server sends no others here.
fn read(answer: &[u8]) -> Option<Raw> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some(Raw { status, body: answer[end + 4..].to_vec() })
}

/// As a segment of a path.
pub fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn parse(text: &str) -> Result<Place, Complaint> {
    if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
        return Ok(Place::Unix(path.into()));
    }
    let address = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    match address.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() && !address.contains('/') => {
            Ok(Place::Ip(address.to_owned()))
        }
        _ => {
            let help = "give one such as http://127.0.0.1:9901 or unix:/run/weir/1.sock";
            Err(Complaint::new(format!("`{text}` is not where a node could be"), help))
        }
    }
}

fn token(reference: &str) -> Result<String, Complaint> {
    let complaint = |message: String| Complaint::new(message, "give a reference such as file:admin.token or env:TOKEN");
    let text = match reference.split_once(':') {
        Some(("file", path)) => std::fs::read_to_string(path).map_err(|error| complaint(format!("{path}: {error}")))?,
        Some(("env", name)) => {
            std::env::var(name).map_err(|_| complaint(format!("the environment has no variable `{name}`")))?
        }
        // It may be the token itself, which should not be repeated.
        _ => return Err(complaint("the token is not a reference".into())),
    };
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(complaint(format!("{reference} has no token in it")));
    }
    Ok(text.to_owned())
}

/// The only node of this machine that answers.
fn only() -> Result<Place, Complaint> {
    let mut answering = Vec::new();
    let mut forbidden = None;
    for path in place::found() {
        match UnixStream::connect(&path) {
            Ok(_) => answering.push(path),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => forbidden = Some(path),
            // Left behind by a node that was killed.
            Err(_) => {}
        }
    }
    match (&answering[..], forbidden) {
        ([path], _) => Ok(Place::Unix(path.clone())),
        ([], Some(path)) => {
            let message = format!("a node runs here, but {} is not yours to open", path.display());
            Err(Complaint::new(message, "ask as the user that runs it, or as root"))
        }
        ([], None) => {
            let help = "start one with `weir run` or `weir demo`, or name one elsewhere with --node http://ADDRESS";
            Err(Complaint::new("no node runs here, or none that can be operated", help))
        }
        (several, _) => {
            let list: Vec<_> = several.iter().map(|path| format!("--node unix:{}", path.display())).collect();
            let help = format!("say which:\n  {}", list.join("\n  "));
            Err(Complaint::new(format!("{} nodes run here", several.len()), help))
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Unix(path) => write!(f, "unix:{}", path.display()),
            Place::Ip(address) => write!(f, "http://{address}"),
        }
    }
}

impl Complaint {
    pub fn new(message: impl Into<String>, help: impl Into<String>) -> Complaint {
        Complaint { message: message.into(), help: help.into(), status: None }
    }

    pub fn tell(&self) {
        complain(&self.message, &self.help);
    }
}

const PATIENCE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_named_by_socket_or_address() {
        let ip = |text: &str| Some(Place::Ip(text.into()));
        for (text, expected) in [
            ("unix:/run/weir/1.sock", Some(Place::Unix("/run/weir/1.sock".into()))),
            ("http://127.0.0.1:9901/", ip("127.0.0.1:9901")),
            ("[::1]:9901", ip("[::1]:9901")),
            ("unix:", None),
            ("127.0.0.1", None),
            ("https://a:1/x", None),
            (":80", None),
        ] {
            assert_eq!(parse(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn an_answer_is_read_whole() {
        let raw = read(b"HTTP/1.1 404 Not Found\r\na: b\r\n\r\n{}\r\n\r\n").unwrap();
        assert_eq!((raw.status, &raw.body[..]), (404, &b"{}\r\n\r\n"[..]));
        assert!(read(b"SSH-2.0\r\n\r\n").is_none());
    }
}
