//! Bytes of an upstream: the same answer in whatever pieces they come, and never more of a body than is framed.
#![no_main]

use base::Method;
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use transport::Frame;
use transport::h1::{Decoded, HeadLimits, parse_response};

fuzz_target!(|data: &[u8]| {
    let Some((mode, wire)) = data.split_first() else { return };
    let method = if mode & 0x80 == 0 { Method::GET } else { Method::HEAD };
    let whole = read(wire, wire.len().max(1), &method);
    let pieces = read(wire, usize::from(*mode % 16) + 1, &method);
    assert_eq!(whole, pieces, "the pieces in which it comes make a difference");
});

type Read = Option<(u16, String, bool, Vec<u8>, Result<bool, String>)>;

/// Status, fields, whether the connection may go on, body, and whether it ended.
fn read(wire: &[u8], piece: usize, method: &Method) -> Read {
    let (mut buffer, mut rest) = (BytesMut::new(), wire.chunks(piece));
    let mut parsed = loop {
        match parse_response(&mut buffer, method, HeadLimits::new(8 << 10, 50)) {
            Ok(Some(parsed)) => break parsed,
            Ok(None) => buffer.extend_from_slice(rest.next()?),
            Err(_) => return None,
        }
    };
    let mut body = Vec::new();
    let ended = loop {
        match parsed.body.decode(&mut buffer) {
            Ok(Decoded::Frame(Frame::Data(data))) => body.extend_from_slice(&data),
            Ok(Decoded::Frame(Frame::Trailers(_)) | Decoded::End) => break Ok(true),
            Ok(Decoded::More) => match rest.next() {
                Some(piece) => buffer.extend_from_slice(piece),
                None => break Ok(parsed.body.end_of_stream().is_ok()),
            },
            Err(error) => break Err(error.to_string()),
        }
    };
    Some((parsed.head.status.as_u16(), format!("{:?}", parsed.head.headers), parsed.keep_alive, body, ended))
}
