//! The commands' end of the admin API: which node is meant, and one question after the other.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde::de::DeserializeOwned;
use serde_json::Value;
use transport::tls;

use crate::admin::place;
use crate::terminal::complain;

/// Which node, and what to show it.
#[derive(clap::Args)]
pub struct NodeArgs {
    /// The node: unix:PATH, https://ADDRESS or http://ADDRESS. Default: WEIR_ADMIN, or else the only one of this machine
    #[arg(long, value_name = "ADDR")]
    node: Option<String>,
    /// Its token, as env:NAME or file:PATH. Default: WEIR_ADMIN_TOKEN
    #[arg(long, value_name = "REF")]
    token: Option<String>,
    /// With https: whom to trust, authorities in PEM. Default: WEIR_ADMIN_AUTHORITIES, or else the system's
    #[arg(long, value_name = "FILE")]
    authorities: Option<PathBuf>,
    /// With https: a certificate to show, in PEM
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

/// A node that can be asked.
pub struct Client {
    place: Place,
    token: Option<String>,
}

enum Place {
    Unix(PathBuf),
    /// Host and port.
    Ip(String),
    /// The same, and how its certificate is verified.
    Tls(String, Box<Trust>),
}

struct Trust {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

/// As it is written.
#[derive(Debug, PartialEq, Eq)]
enum Named<'a> {
    Unix(&'a str),
    Ip { https: bool, address: &'a str },
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
            Some(text) => match parse(&text)? {
                Named::Unix(path) => Place::Unix(path.into()),
                Named::Ip { https: false, address } => Place::Ip(address.to_owned()),
                Named::Ip { https: true, address } => {
                    let authorities = args.authorities.clone();
                    let authorities = authorities.or_else(|| set("WEIR_ADMIN_AUTHORITIES").map(PathBuf::from));
                    let shown = args.cert.as_deref().zip(args.key.as_deref());
                    Place::Tls(address.to_owned(), Box::new(trust(address, authorities.as_deref(), shown)?))
                }
            },
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
        let place = &self.place;
        if let Some(wrong) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return Complaint::new(format!("{place} is not trusted, or does not trust us: {wrong}"), cure(wrong));
        }
        let help = match error.kind() {
            io::ErrorKind::InvalidData if matches!(place, Place::Ip(_)) => {
                "see that a node listens there; one with `admin.tls` is named by https://"
            }
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
            Place::Tls(address, trust) => {
                let stream = TcpStream::connect(address)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                let session = ClientConnection::new(trust.config.clone(), trust.name.clone());
                let stream = StreamOwned::new(session.map_err(io::Error::other)?, stream);
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
        match stream.read_to_end(&mut answer) {
            // TLS that ends without a word: the length says whether something is missing.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            read => drop(read?),
        }
        read(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "what answers there is no node"))
    }
}

/// An answer with a length, or that ends with its connection: our own server sends no others here.
fn read(answer: &[u8]) -> Option<Raw> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let body = answer[end + 4..].to_vec();
    let length = head.lines().filter_map(|line| line.split_once(':')).find_map(|(name, value)| {
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    length.is_none_or(|length| length == body.len()).then_some(Raw { status, body })
}

/// How a node with TLS is verified, and what it is shown.
fn trust(address: &str, authorities: Option<&Path>, shown: Option<(&Path, &Path)>) -> Result<Trust, Complaint> {
    let read = |path: &Path| {
        let message = |error: io::Error| format!("cannot read {}: {error}", path.display());
        std::fs::read(path).map_err(|error| Complaint::new(message(error), "give files in PEM"))
    };
    let authorities = authorities.map(read).transpose()?;
    let shown = shown.map(|(cert, key)| Ok((read(cert)?, read(key)?))).transpose()?;
    let certificate = shown.as_ref().map(|(chain, key)| tls::Identity { chain, key });
    let input = tls::ClientTls { authorities: authorities.as_deref(), certificate, verify: true, alpn: &[] };
    let provider = CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(aws_lc_rs::default_provider()));
    let built = input.build(&provider).map_err(|errors| {
        let all: Vec<_> = errors.iter().map(ToString::to_string).collect();
        Complaint::new(all.join("; "), "give files in PEM with --authorities, --cert and --key")
    })?;
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let name =
        tls::server_name(host).map_err(|error| Complaint::new(error.to_string(), "name a host or an address"))?;
    Ok(Trust { config: built.config, name })
}

/// What would help against an error of TLS.
fn cure(error: &rustls::Error) -> &'static str {
    use rustls::{AlertDescription, CertificateError, Error};
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "give the authority that issued its certificate with --authorities FILE, or in WEIR_ADMIN_AUTHORITIES"
        }
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "name the node by a name or an address that its certificate is for",
        Error::InvalidMessage(_) => "it may speak without TLS: name it by http://",
        Error::AlertReceived(AlertDescription::CertificateRequired) => "show it a certificate with --cert and --key",
        Error::AlertReceived(_) => "see that the certificate of --cert is of an authority that the node trusts",
        _ => "see the certificate of `admin.tls`",
    }
}

/// As a segment of a path.
pub fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn parse(text: &str) -> Result<Named<'_>, Complaint> {
    if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
        return Ok(Named::Unix(path));
    }
    let (https, rest) = match text.strip_prefix("https://") {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix("http://").unwrap_or(text)),
    };
    let address = rest.trim_end_matches('/');
    match address.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() && !address.contains('/') => {
            Ok(Named::Ip { https, address })
        }
        _ => {
            let help = "give one such as https://weir.internal:9901, http://127.0.0.1:9901 or unix:/run/weir/1.sock";
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
            Place::Tls(address, _) => write!(f, "https://{address}"),
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
        let ip = |https, address| Some(Named::Ip { https, address });
        for (text, expected) in [
            ("unix:/run/weir/1.sock", Some(Named::Unix("/run/weir/1.sock"))),
            ("http://127.0.0.1:9901/", ip(false, "127.0.0.1:9901")),
            ("[::1]:9901", ip(false, "[::1]:9901")),
            ("https://weir.internal:9901/", ip(true, "weir.internal:9901")),
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
        assert!(read(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").is_some());
        assert!(read(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}").is_none());
    }
}
