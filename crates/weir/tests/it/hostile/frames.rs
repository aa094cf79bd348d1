//! HTTP/2 by the byte: a client that sends what no library would.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// A field as it is put in a block, whatever it holds.
pub type Field<'a> = (&'a [u8], &'a [u8]);

pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

pub struct Http2(TcpStream);

/// What became of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Status(u16),
    Reset(u32),
    /// The connection went, by GOAWAY or without one.
    Gone,
}

impl Http2 {
    /// Greets with these settings, and no table of fields in the answers, so that a status is easy to read.
    #[track_caller]
    pub fn connect(address: SocketAddr, settings: &[(u16, u32)]) -> Http2 {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut http2 = Http2(stream);
        let mut payload = vec![0, 1, 0, 0, 0, 0];
        for (id, value) in settings {
            payload.extend(id.to_be_bytes());
            payload.extend(value.to_be_bytes());
        }
        http2.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        http2.frame(SETTINGS, 0, 0, &payload).unwrap();
        http2.frame(SETTINGS, ACK, 0, &[]).unwrap();
        http2
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    pub fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        self.send(&frame(kind, flags, stream, payload))
    }

    /// A request without a body.
    pub fn get(&mut self, stream: u32, path: &str) -> io::Result<()> {
        self.frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&get(path)))
    }

    pub fn read(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head)?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.0.read_exact(&mut payload)?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
        Ok(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// Reads until it is known what becomes of that stream: to the end of its answer, if it has one.
    pub fn outcome(&mut self, stream: u32) -> Outcome {
        let mut status = None;
        loop {
            let Ok(frame) = self.read() else { return Outcome::Gone };
            match frame.kind {
                GOAWAY if code(&frame.payload[4..]) != 0 => return Outcome::Gone,
                RST_STREAM if frame.stream == stream => {
                    return status.map_or(Outcome::Reset(code(&frame.payload)), Outcome::Status);
                }
                HEADERS if frame.stream == stream => status = status.or(Some(status_of(&frame.payload))),
                _ => {}
            }
            if let Some(status) = status
                && frame.stream == stream
                && frame.flags & END_STREAM != 0
            {
                return Outcome::Status(status);
            }
        }
    }

    pub fn wait_at_most(&self, patience: Duration) {
        self.0.set_read_timeout(Some(patience)).unwrap();
    }

    /// Writing fails, rather than to wait for ever, where the other side does not read.
    pub fn write_at_most(&self, patience: Duration) {
        self.0.set_write_timeout(Some(patience)).unwrap();
    }
}

pub fn get(path: &str) -> Vec<Field<'_>> {
    vec![(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"t"), (b":path", path.as_bytes())]
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(9 + payload.len());
    frame.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Fields as literals that enter no table (RFC 7541, 6.2.2).
pub fn block(fields: &[Field<'_>]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            length(&mut block, text.len());
            block.extend_from_slice(text);
        }
    }
    block
}

/// An integer of 7 bits and more (RFC 7541, 5.1).
fn length(block: &mut Vec<u8>, mut length: usize) {
    if length < 127 {
        return block.push(length as u8);
    }
    block.push(127);
    length -= 127;
    while length >= 128 {
        block.push((length % 128 + 128) as u8);
        length /= 128;
    }
    block.push(length as u8);
}

fn code(payload: &[u8]) -> u32 {
    payload.get(..4).map_or(u32::MAX, |code| u32::from_be_bytes([code[0], code[1], code[2], code[3]]))
}

/// Of those in the static table; 0 for another.
fn status_of(block: &[u8]) -> u16 {
    let field = block.iter().find(|byte| **byte & 0xe0 != 0x20);
    field
        .filter(|byte| (0x88..=0x8e).contains(*byte))
        .map_or(0, |byte| [200, 204, 206, 304, 400, 404, 500][usize::from(*byte - 0x88)])
}
