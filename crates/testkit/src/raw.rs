//! A client that writes exactly the bytes it is given, and reads answers by itself.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::PATIENCE;

/// One connection.
pub struct Raw {
    reader: BufReader<Box<dyn Read + Send>>,
    writer: Box<dyn Write + Send>,
    tcp: Option<TcpStream>,
}

/// An answer of HTTP/1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case, in order.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// The body ended where the framing said it would.
    pub complete: bool,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON: what the simulator's `/echo` says, or a problem.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Raw {
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Raw {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Raw {
            reader: BufReader::new(Box::new(stream.try_clone().unwrap())),
            writer: Box::new(stream.try_clone().unwrap()),
            tcp: Some(stream),
        }
    }

    pub fn unix(path: &Path) -> Raw {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Raw { reader: BufReader::new(Box::new(stream.try_clone().unwrap())), writer: Box::new(stream), tcp: None }
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Raw {
        self.writer.write_all(bytes.as_ref()).unwrap();
        self
    }

    /// Where the other side may have closed already.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.writer.write_all(bytes.as_ref())
    }

    /// One request without a body, and its answer.
    #[track_caller]
    pub fn get(&mut self, path: &str, fields: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: test\r\n{fields}\r\n")).answer()
    }

    #[track_caller]
    pub fn answer(&mut self) -> Answer {
        self.try_answer(false).unwrap_or_else(|error| panic!("no answer: {error}"))
    }

    /// The answer to a HEAD: no body, whatever its fields say.
    #[track_caller]
    pub fn answer_to_head(&mut self) -> Answer {
        self.try_answer(true).unwrap_or_else(|error| panic!("no answer: {error}"))
    }

    pub fn try_answer(&mut self, bodiless: bool) -> io::Result<Answer> {
        let mut answer = self.head()?;
        if bodiless || matches!(answer.status, 100..200 | 204 | 304) {
            answer.complete = true;
            return Ok(answer);
        }
        if answer.header("transfer-encoding") == Some("chunked") {
            loop {
                let Ok(line) = self.line() else { return Ok(answer) };
                let size = usize::from_str_radix(line.split(';').next().unwrap_or_default(), 16)
                    .map_err(|_| io::Error::other(format!("not a chunk: {line:?}")))?;
                if size == 0 {
                    answer.trailers = self.fields()?;
                    answer.complete = true;
                    return Ok(answer);
                }
                let before = answer.body.len();
                self.reader.by_ref().take(size as u64).read_to_end(&mut answer.body)?;
                if answer.body.len() < before + size || self.line().is_err() {
                    return Ok(answer);
                }
            }
        }
        match answer.header("content-length").map(str::to_owned) {
            Some(length) => {
                let length: u64 = length.parse().map_err(io::Error::other)?;
                let _ = self.reader.by_ref().take(length).read_to_end(&mut answer.body);
                answer.complete = answer.body.len() as u64 == length;
            }
            None => {
                answer.complete = self.reader.read_to_end(&mut answer.body).is_ok();
            }
        }
        Ok(answer)
    }

    /// Status line and fields, for one who reads the body by himself.
    pub fn head(&mut self) -> io::Result<Answer> {
        let line = self.line()?;
        let status = line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("not an answer: {line:?}")))?;
        Ok(Answer { status, headers: self.fields()?, ..Answer::default() })
    }

    /// A line without its end.
    pub fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }

    pub fn exactly(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.reader.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Everything up to the end.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = self.reader.read_to_end(&mut rest);
        rest
    }

    /// The other side has closed, and sends nothing before.
    pub fn is_closed(&mut self) -> bool {
        match self.reader.fill_buf() {
            Ok(rest) => rest.is_empty(),
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }

    pub fn wait_at_most(&self, patience: Duration) {
        if let Some(tcp) = &self.tcp {
            tcp.set_read_timeout(Some(patience)).unwrap();
        }
    }

    pub fn close_writing(&self) {
        if let Some(tcp) = &self.tcp {
            tcp.shutdown(std::net::Shutdown::Write).unwrap();
        }
    }

    fn fields(&mut self) -> io::Result<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(fields);
            }
            let (name, value) =
                line.split_once(':').ok_or_else(|| io::Error::other(format!("not a field: {line:?}")))?;
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
}
