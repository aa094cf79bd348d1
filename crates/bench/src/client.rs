//! The client's half of an HTTP/1.1 connection.

use anyhow::{Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// What the head of an answer said.
pub struct Head {
    pub status: u16,
    length: u64,
    pub chunked: bool,
    pub gzip: bool,
    close: bool,
}

pub fn request(method: &str, path: &str, headers: &[String], body: &[u8]) -> Vec<u8> {
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: bench.test\r\n");
    for header in headers {
        request.push_str(header);
        request.push_str("\r\n");
    }
    if !body.is_empty() {
        request.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    request.push_str("\r\n");
    let mut request = request.into_bytes();
    request.extend_from_slice(body);
    request
}

impl Client {
    pub async fn connect(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(16 * 1024) })
    }

    pub async fn send(&mut self, request: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(request).await?)
    }

    /// The status of an answer that was read whole, and whether the connection may be used again.
    pub async fn answer(&mut self) -> Result<(u16, bool)> {
        let head = self.head().await?;
        if head.chunked {
            let mut chunks = Chunks::default();
            loop {
                let payload = chunks.next(&mut self.buffer)?;
                match payload {
                    Piece::Data(_) => {}
                    Piece::End => break,
                    Piece::More => self.read().await?,
                }
            }
        } else {
            let mut left = head.length;
            loop {
                let now = left.min(self.buffer.len() as u64);
                self.buffer.drain(..now as usize);
                left -= now;
                if left == 0 {
                    break;
                }
                self.read().await?;
            }
        }
        Ok((head.status, !head.close))
    }

    pub async fn head(&mut self) -> Result<Head> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; 64];
            let mut answer = httparse::Response::new(&mut headers);
            if !self.buffer.is_empty()
                && let httparse::Status::Complete(used) = answer.parse(&self.buffer)?
            {
                let status = answer.code.unwrap_or(0);
                let mut head = Head { status, length: 0, chunked: false, gzip: false, close: false };
                for header in answer.headers.iter() {
                    let value = std::str::from_utf8(header.value).unwrap_or_default();
                    if header.name.eq_ignore_ascii_case("content-length") {
                        head.length = value.parse()?;
                    } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                        head.chunked = true;
                    } else if header.name.eq_ignore_ascii_case("content-encoding") {
                        head.gzip = value.eq_ignore_ascii_case("gzip");
                    } else if header.name.eq_ignore_ascii_case("connection") {
                        head.close = value.eq_ignore_ascii_case("close");
                    }
                }
                self.buffer.drain(..used);
                return Ok(head);
            }
            self.read().await?;
        }
    }

    /// Of a chunked body: the next payload, or nothing at its end.
    pub async fn chunk(&mut self, chunks: &mut Chunks) -> Result<Option<Vec<u8>>> {
        loop {
            match chunks.next(&mut self.buffer)? {
                Piece::Data(data) => return Ok(Some(data)),
                Piece::End => return Ok(None),
                Piece::More => self.read().await?,
            }
        }
    }

    /// Reads and forgets.
    pub async fn swallow(&mut self, scratch: &mut [u8]) -> Result<usize> {
        Ok(self.stream.read(scratch).await?)
    }

    pub fn reset_on_close(&self) -> Result<()> {
        Ok(self.stream.set_zero_linger()?)
    }

    async fn read(&mut self) -> Result<()> {
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            bail!("the connection ended");
        }
        Ok(())
    }
}

/// Where we are in a chunked body.
#[derive(Default)]
pub struct Chunks {
    left: usize,
    /// The line end after a chunk's payload is still to come.
    ending: bool,
}

enum Piece {
    Data(Vec<u8>),
    End,
    More,
}

impl Chunks {
    fn next(&mut self, buffer: &mut Vec<u8>) -> Result<Piece> {
        if self.left > 0 {
            if buffer.is_empty() {
                return Ok(Piece::More);
            }
            let now = self.left.min(buffer.len());
            self.left -= now;
            self.ending = self.left == 0;
            return Ok(Piece::Data(buffer.drain(..now).collect()));
        }
        if self.ending {
            if buffer.len() < 2 {
                return Ok(Piece::More);
            }
            buffer.drain(..2);
            self.ending = false;
        }
        let Some(end) = memchr::memchr(b'\n', buffer) else { return Ok(Piece::More) };
        let line = std::str::from_utf8(&buffer[..end])?.trim();
        let size = usize::from_str_radix(line.split(';').next().unwrap_or_default(), 16)?;
        if size == 0 {
            // No trailers here: the empty line only.
            if buffer.len() < end + 3 {
                return Ok(Piece::More);
            }
            buffer.drain(..end + 3);
            return Ok(Piece::End);
        }
        buffer.drain(..=end);
        self.left = size;
        self.next(buffer)
    }
}
