//! Where a body ends (RFC 9112, 6 and 7): decided once from the head, then applied to bytes. No I/O.

use base::{Headers, Method, StatusCode, Version};
use bytes::{Buf, Bytes, BytesMut};

use super::head::HeadError;
use crate::body::{BodyError, Frame, Sink};
use crate::trailers::as_trailers;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

/// Takes a body off the bytes of a connection.
#[derive(Debug)]
pub enum Decoder {
    Done,
    Length(u64),
    UntilClose,
    /// Between the pieces of a chunked body.
    Size,
    Chunk(u64),
    /// The CRLF behind a chunk's data.
    ChunkEnd,
    Trailers,
}

/// What a decoder made of the bytes there are.
pub enum Decoded {
    Frame(Frame),
    /// It needs more bytes than there are.
    More,
    End,
}

/// A chunk-size line and a trailer section are held until they are whole, up to this.
const MAX_LINE: usize = 1024;
const MAX_TRAILERS: usize = 16 * 1024;

impl Framing {
    pub fn of_request(headers: &Headers, version: Version) -> Result<Framing, HeadError> {
        let length = content_length(headers)?;
        match transfer_encoding(headers)? {
            TransferEncoding::None => Ok(length.map_or(Framing::None, Framing::Length)),
            _ if length.is_some() => Err(HeadError::Malformed("both Content-Length and Transfer-Encoding")),
            _ if version != Version::HTTP_11 => Err(HeadError::Malformed("Transfer-Encoding in HTTP/1.0")),
            TransferEncoding::Chunked => Ok(Framing::Chunked),
            TransferEncoding::Other => Err(HeadError::TransferCoding),
        }
    }

    pub fn of_response(
        headers: &Headers,
        version: Version,
        method: &Method,
        status: StatusCode,
    ) -> Result<Framing, HeadError> {
        let length = content_length(headers)?;
        let coding = transfer_encoding(headers)?;
        if *method == Method::HEAD || status.is_informational() || matches!(status.as_u16(), 204 | 304) {
            return Ok(Framing::None);
        }
        match coding {
            TransferEncoding::None => Ok(length.map_or(Framing::UntilClose, Framing::Length)),
            _ if length.is_some() => Err(HeadError::Malformed("both Content-Length and Transfer-Encoding")),
            _ if version != Version::HTTP_11 => Err(HeadError::Malformed("Transfer-Encoding in HTTP/1.0")),
            TransferEncoding::Chunked => Ok(Framing::Chunked),
            TransferEncoding::Other => Err(HeadError::TransferCoding),
        }
    }

    /// How long the body is, where the head says it.
    pub fn length(self) -> Option<u64> {
        if let Framing::Length(length) = self { Some(length) } else { None }
    }

    pub fn decoder(self) -> Decoder {
        match self {
            Framing::None | Framing::Length(0) => Decoder::Done,
            Framing::Length(length) => Decoder::Length(length),
            Framing::Chunked => Decoder::Size,
            Framing::UntilClose => Decoder::UntilClose,
        }
    }

    /// Puts a piece of the body on the wire.
    pub fn encode(self, out: &mut Vec<u8>, data: &[u8]) {
        if self == Framing::Chunked {
            Framing::encode_size(out, data.len());
            out.extend_from_slice(data);
            out.extend_from_slice(b"\r\n");
        } else {
            out.extend_from_slice(data);
        }
    }

    /// The first piece of what was [encoded](Framing::encode), without what is round it, and what comes behind it.
    pub(crate) fn split_encoded(self, encoded: &[u8]) -> (&[u8], &[u8]) {
        if self != Framing::Chunked {
            return (encoded, &[]);
        }
        let (mut size, mut at) = (0, 0);
        while let Some(digit) = encoded.get(at).and_then(|digit| char::from(*digit).to_digit(16)) {
            (size, at) = (size << 4 | digit as usize, at + 1);
        }
        // Behind the line with the size, and before the one that ends the chunk.
        let data = encoded.get(at + 2..at + 2 + size).unwrap_or_default();
        (data, encoded.get(at + 2 + size + 2..).unwrap_or_default())
    }

    pub fn encode_size(out: &mut Vec<u8>, size: usize) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digits = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
        out.extend((0..digits).rev().map(|digit| DIGITS[(size >> (4 * digit)) & 15]));
        out.extend_from_slice(b"\r\n");
    }

    /// Ends the body on the wire.
    pub fn finish(self, out: &mut Vec<u8>, trailers: Option<&Headers>) {
        if self == Framing::Chunked {
            out.extend_from_slice(b"0\r\n");
            if let Some(trailers) = trailers {
                super::head::write_fields(out, trailers);
            }
            out.extend_from_slice(b"\r\n");
        }
    }
}

impl Decoder {
    pub fn is_done(&self) -> bool {
        matches!(self, Decoder::Done)
    }

    /// Bytes still to come, where the head told.
    pub fn length(&self) -> Option<u64> {
        match self {
            Decoder::Done => Some(0),
            Decoder::Length(left) => Some(*left),
            _ => None,
        }
    }

    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Decoded, BodyError> {
        loop {
            match self {
                Decoder::Done => return Ok(Decoded::End),
                _ if buffer.is_empty() => return Ok(Decoded::More),
                Decoder::UntilClose => return Ok(data(take(buffer, u64::MAX))),
                Decoder::Length(left) => {
                    let piece = take(buffer, *left);
                    *left -= piece.len() as u64;
                    if *left == 0 {
                        *self = Decoder::Done;
                    }
                    return Ok(data(piece));
                }
                Decoder::Size => {
                    let Some(SizeLine { size, length, .. }) = size_line(buffer)? else { return Ok(Decoded::More) };
                    buffer.advance(length);
                    *self = Decoder::at(size);
                }
                Decoder::Chunk(left) => {
                    let piece = take(buffer, *left);
                    *left -= piece.len() as u64;
                    if *left == 0 {
                        *self = Decoder::ChunkEnd;
                    }
                    return Ok(data(piece));
                }
                Decoder::ChunkEnd => {
                    if buffer.len() < 2 {
                        return if buffer[0] == b'\r' { Ok(Decoded::More) } else { Err(CHUNK_END) };
                    }
                    if !buffer.starts_with(b"\r\n") {
                        return Err(CHUNK_END);
                    }
                    buffer.advance(2);
                    *self = Decoder::Size;
                }
                Decoder::Trailers => {
                    let Some(trailers) = take_trailers(buffer)? else { return Ok(Decoded::More) };
                    *self = Decoder::Done;
                    if trailers.is_empty() {
                        return Ok(Decoded::End);
                    }
                    return Ok(Decoded::Frame(Frame::Trailers(Box::new(trailers))));
                }
            }
        }
    }

    /// Puts what `bytes` have of the body where it goes on. Gives how many of them it needs no more, and how much of the
    /// body was in those. It leaves trailers and lines that are not whole to [`decode`](Decoder::decode).
    pub fn relay(&mut self, bytes: &[u8], to: &mut Sink<'_>) -> Result<(usize, usize), BodyError> {
        let (mut rest, mut passed) = (bytes, 0);
        while !rest.is_empty() {
            match self {
                Decoder::Done => break,
                Decoder::UntilClose => {
                    to.put(rest);
                    passed += rest.len();
                    rest = &[];
                }
                Decoder::Length(left) | Decoder::Chunk(left) => {
                    let most = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    let (piece, behind) = rest.split_at(most);
                    to.put(piece);
                    *left -= most as u64;
                    (rest, passed) = (behind, passed + most);
                    if *left == 0 {
                        *self = if let Decoder::Chunk(_) = self { Decoder::ChunkEnd } else { Decoder::Done };
                    }
                }
                Decoder::Size => {
                    let Some(line) = size_line(rest)? else { break };
                    if let Some(chunk) = line.whole_chunk(rest)
                        && to.takes_chunks()
                    {
                        to.put_chunk(chunk);
                        (rest, passed) = (&rest[chunk.len()..], passed + line.size as usize);
                    } else {
                        *self = Decoder::at(line.size);
                        rest = &rest[line.length..];
                    }
                }
                Decoder::ChunkEnd => match rest {
                    [b'\r', b'\n', behind @ ..] => {
                        *self = Decoder::Size;
                        rest = behind;
                    }
                    [b'\r'] => break,
                    _ => return Err(CHUNK_END),
                },
                Decoder::Trailers => {
                    if let [b'\r', b'\n', behind @ ..] = rest {
                        *self = Decoder::Done;
                        rest = behind;
                    }
                    break;
                }
            }
        }
        Ok((bytes.len() - rest.len(), passed))
    }

    /// Behind the line with a chunk's size.
    fn at(size: u64) -> Decoder {
        if size == 0 { Decoder::Trailers } else { Decoder::Chunk(size) }
    }

    /// The connection ended: was that the body's end?
    pub fn end_of_stream(&mut self) -> Result<(), BodyError> {
        match self {
            Decoder::Done | Decoder::UntilClose => {
                *self = Decoder::Done;
                Ok(())
            }
            _ => Err(BodyError::Incomplete),
        }
    }
}

const CHUNK_END: BodyError = BodyError::Malformed("a chunk is longer than its size");

enum TransferEncoding {
    None,
    Chunked,
    Other,
}

fn transfer_encoding(headers: &Headers) -> Result<TransferEncoding, HeadError> {
    let mut lines = headers.get_all("transfer-encoding");
    match (lines.next(), lines.next()) {
        (None, _) => Ok(TransferEncoding::None),
        (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Ok(TransferEncoding::Chunked),
        (Some(_), None) => Ok(TransferEncoding::Other),
        (Some(_), Some(_)) => Err(HeadError::Malformed("more than one Transfer-Encoding field")),
    }
}

fn content_length(headers: &Headers) -> Result<Option<u64>, HeadError> {
    const WRONG: HeadError = HeadError::Malformed("Content-Length is not one number");
    let mut lines = headers.get_all("content-length");
    let Some(line) = lines.next() else { return Ok(None) };
    if lines.next().is_some() || line.is_empty() {
        return Err(WRONG);
    }
    let mut length = 0u64;
    for byte in line {
        let digit = byte.wrapping_sub(b'0');
        let more = length.checked_mul(10).and_then(|length| length.checked_add(u64::from(digit)));
        length = more.filter(|_| digit < 10).ok_or(WRONG)?;
    }
    Ok(Some(length))
}

/// The line before a chunk's data.
struct SizeLine {
    size: u64,
    /// With what ends it.
    length: usize,
    /// It has nothing but the size.
    is_plain: bool,
}

impl SizeLine {
    /// The chunk with its line and its end, if all of it is there and may go on as it came.
    fn whole_chunk<'b>(&self, bytes: &'b [u8]) -> Option<&'b [u8]> {
        let end = usize::try_from(self.size).ok()?.checked_add(self.length + 2)?;
        let chunk = bytes.get(..end)?;
        (self.is_plain && self.size > 0 && chunk.ends_with(b"\r\n")).then_some(chunk)
    }
}

/// `None` if it is not whole yet.
fn size_line(bytes: &[u8]) -> Result<Option<SizeLine>, BodyError> {
    let (mut size, mut digits) = (0, 0);
    while let Some(digit) = bytes.get(digits).and_then(|digit| char::from(*digit).to_digit(16))
        && digits < MAX_DIGITS
    {
        size = size << 4 | u64::from(digit);
        digits += 1;
    }
    if digits > 0 && bytes[digits..].starts_with(b"\r\n") {
        return Ok(Some(SizeLine { size, length: digits + 2, is_plain: true }));
    }
    let Some(length) = line_length(bytes, MAX_LINE)? else { return Ok(None) };
    let size = chunk_size(&bytes[..length - 2])?;
    Ok(Some(SizeLine { size, length, is_plain: false }))
}

const MAX_DIGITS: usize = 15;

fn chunk_size(line: &[u8]) -> Result<u64, BodyError> {
    const WRONG: BodyError = BodyError::Malformed("a chunk's size is not a hexadecimal number");
    // Extensions are ignored, as RFC 9112 7.1.1 allows; nothing of them is forwarded.
    let mut digits = line.split(|b| *b == b';').next().unwrap_or_default();
    while let [rest @ .., b' ' | b'\t'] = digits {
        digits = rest;
    }
    if digits.is_empty() || digits.len() > MAX_DIGITS || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(WRONG);
    }
    std::str::from_utf8(digits).ok().and_then(|digits| u64::from_str_radix(digits, 16).ok()).ok_or(WRONG)
}

fn take(buffer: &mut BytesMut, most: u64) -> Bytes {
    let length = usize::try_from(most).unwrap_or(usize::MAX).min(buffer.len());
    if length == buffer.len() { std::mem::take(buffer).freeze() } else { buffer.split_to(length).freeze() }
}

fn data(piece: Bytes) -> Decoded {
    Decoded::Frame(Frame::Data(piece))
}

/// How long the first line is with the CRLF that ends it; `None` if it is not whole yet.
fn line_length(bytes: &[u8], limit: usize) -> Result<Option<usize>, BodyError> {
    let window = &bytes[..bytes.len().min(limit)];
    let Some(end) = window.iter().position(|b| *b == b'\n') else {
        return if bytes.len() < limit { Ok(None) } else { Err(BodyError::Malformed("a line is too long")) };
    };
    if end == 0 || bytes[end - 1] != b'\r' || bytes[..end - 1].contains(&b'\r') {
        return Err(BodyError::Malformed("a line ends in LF without CR"));
    }
    Ok(Some(end + 1))
}

fn take_trailers(buffer: &mut BytesMut) -> Result<Option<Headers>, BodyError> {
    if buffer.starts_with(b"\r\n") {
        buffer.advance(2);
        return Ok(Some(Headers::new()));
    }
    const WRONG: BodyError = BodyError::Malformed("the trailers");
    let allowed = &buffer[..buffer.len().min(MAX_TRAILERS)];
    let mut fields = [httparse::EMPTY_HEADER; 64];
    match httparse::parse_headers(allowed, &mut fields) {
        Ok(httparse::Status::Partial) if buffer.len() < MAX_TRAILERS => Ok(None),
        Ok(httparse::Status::Complete((length, parsed))) => {
            // Where the section ends decides where the next request begins.
            if super::head::has_lone_lf(&allowed[..length]) {
                return Err(WRONG);
            }
            let mut trailers = Headers::new();
            for field in parsed {
                let value = field.value.trim_ascii();
                if !Headers::is_value(value) {
                    return Err(WRONG);
                }
                trailers.append(field.name, value);
            }
            buffer.advance(length);
            Ok(Some(as_trailers(trailers)))
        }
        _ => Err(WRONG),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As [`decode`], but what can pass is relayed to a body that is framed like that, which is decoded in its turn.
    fn relay(
        framing: Framing,
        wire: &[u8],
        cuts: &[usize],
        to: Framing,
    ) -> Result<Option<(Vec<u8>, usize)>, BodyError> {
        let mut decoder = framing.decoder();
        let (mut buffer, mut out) = (BytesMut::new(), Vec::new());
        let (mut start, mut trailers, mut sum, mut put) = (0, 0, 0, 0);
        for end in cuts.iter().copied().chain([wire.len()]) {
            let end = end.clamp(start, wire.len());
            let piece = &wire[start..end];
            start = end;
            if buffer.is_empty() {
                let (used, passed) = decoder.relay(piece, &mut Sink::new(&mut out, to))?;
                sum += passed;
                buffer.extend_from_slice(&piece[used..]);
            } else {
                buffer.extend_from_slice(piece);
            }
            loop {
                match decoder.decode(&mut buffer)? {
                    Decoded::Frame(Frame::Data(piece)) => {
                        put += piece.len();
                        to.encode(&mut out, &piece);
                    }
                    Decoded::Frame(Frame::Trailers(it)) => trailers = it.len(),
                    Decoded::More | Decoded::End => break,
                }
            }
        }
        to.finish(&mut out, None);
        let body = match to {
            Framing::Chunked => decode(to, &out, &[])?.expect("what was relayed is whole").0,
            _ => out,
        };
        assert_eq!(body.len(), sum + put);
        Ok(decoder.is_done().then_some((body, trailers)))
    }

    /// Feeds `wire` in pieces that end at `cuts`; gives the body and the trailers, or `None` if it is not whole.
    fn decode(framing: Framing, wire: &[u8], cuts: &[usize]) -> Result<Option<(Vec<u8>, usize)>, BodyError> {
        let mut decoder = framing.decoder();
        let mut buffer = BytesMut::new();
        let (mut body, mut trailers) = (Vec::new(), 0);
        let mut start = 0;
        for end in cuts.iter().copied().chain([wire.len()]) {
            let end = end.clamp(start, wire.len());
            buffer.extend_from_slice(&wire[start..end]);
            start = end;
            loop {
                match decoder.decode(&mut buffer)? {
                    Decoded::Frame(Frame::Data(piece)) => body.extend_from_slice(&piece),
                    Decoded::Frame(Frame::Trailers(it)) => trailers = it.len(),
                    Decoded::More => break,
                    Decoded::End => return Ok(Some((body, trailers))),
                }
            }
        }
        Ok(decoder.is_done().then_some((body, trailers)))
    }

    #[test]
    fn chunked_bodies_survive_any_cut() {
        let wire = b"5;x=\"y\"\r\nhello\r\n001\r\n!\r\n0\r\nx-sum: 1\r\ncontent-length: 9\r\n\r\n";
        let expected = Some((b"hello!".to_vec(), 1));
        for cut in 0..=wire.len() {
            assert_eq!(decode(Framing::Chunked, wire, &[cut]).unwrap(), expected, "{cut}");
            assert_eq!(relay(Framing::Chunked, wire, &[cut], Framing::Chunked).unwrap(), expected, "{cut}");
            assert_eq!(relay(Framing::Chunked, wire, &[cut], Framing::UntilClose).unwrap(), expected, "{cut}");
        }
        let all: Vec<usize> = (0..wire.len()).collect();
        assert_eq!(decode(Framing::Chunked, wire, &all).unwrap(), expected);
        assert_eq!(relay(Framing::Chunked, wire, &all, Framing::Chunked).unwrap(), expected);
    }

    #[test]
    fn a_whole_chunk_goes_on_as_it_came_unless_more_than_its_size_stands_before_it() {
        let check = |wire: &[u8], expected: &[u8]| {
            let mut out = Vec::new();
            let (used, _) = Decoder::Size.relay(wire, &mut Sink::new(&mut out, Framing::Chunked)).unwrap();
            assert_eq!((used, &out[..]), (wire.len(), expected));
        };
        check(b"0A\r\n0123456789\r\n", b"0A\r\n0123456789\r\n");
        check(b"1\r\na\r\n2\r\nbc\r\n", b"1\r\na\r\n2\r\nbc\r\n");
        check(b"A;x=y\r\n0123456789\r\n", b"a\r\n0123456789\r\n");
        check(b"A \r\n0123456789\r\n", b"a\r\n0123456789\r\n");
        check(b"5\r\nhel", b"3\r\nhel\r\n");
    }

    #[test]
    fn broken_chunks_are_refused() {
        for wire in [
            "g\r\n",
            "\r\n",
            "-1\r\n",
            "5 5\r\n",
            "0x5\r\n",
            "5\nhello",
            "5\r\nhello!!",
            "5\r\nhello\n0\r\n\r\n",
            "1000000000000000\r\n",
            "ffffffffffffffffff\r\n",
            "5\r\r\n",
            "0\r\n bad\r\n\r\n",
        ] {
            assert!(decode(Framing::Chunked, wire.as_bytes(), &[]).is_err(), "{wire:?}");
            assert!(relay(Framing::Chunked, wire.as_bytes(), &[], Framing::Chunked).is_err(), "{wire:?}");
        }
    }

    #[test]
    fn an_early_end_is_not_an_end() {
        assert!(Framing::Length(3).decoder().end_of_stream().is_err());
        assert!(Framing::Chunked.decoder().end_of_stream().is_err());
        assert!(Framing::UntilClose.decoder().end_of_stream().is_ok());
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..6),
                                      cuts in prop::collection::vec(0usize..2000, 0..20)) {
            let mut wire = Vec::new();
            for piece in &pieces {
                Framing::Chunked.encode(&mut wire, piece);
            }
            Framing::Chunked.finish(&mut wire, None);
            let mut cuts = cuts;
            cuts.sort_unstable();
            prop_assert_eq!(decode(Framing::Chunked, &wire, &cuts).unwrap(), Some((pieces.concat(), 0)));
            prop_assert_eq!(relay(Framing::Chunked, &wire, &cuts, Framing::Chunked).unwrap(), Some((pieces.concat(), 0)));
        }

        #[test]
        fn what_is_put_is_found_again(before in prop::collection::vec(any::<u8>(), 0..20),
                                      pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..6)) {
            for framing in [Framing::Chunked, Framing::UntilClose] {
                let mut out = before.clone();
                let mut sink = Sink::new(&mut out, framing);
                let mark = sink.mark();
                for (at, piece) in pieces.iter().enumerate() {
                    // As others write the size too.
                    let relayed = format!("0{:X}\r\n", piece.len());
                    match framing == Framing::Chunked && at % 2 == 1 {
                        true => sink.put_chunk(&[relayed.as_bytes(), piece, b"\r\n"].concat()),
                        false => sink.put(piece),
                    }
                }
                let found: Vec<&[u8]> = sink.since(mark).collect();
                prop_assert_eq!(found.concat(), pieces.concat());
                prop_assert!(framing != Framing::Chunked || found == pieces);
            }
        }

        #[test]
        fn garbage_never_panics(wire in prop::collection::vec(any::<u8>(), 0..300)) {
            let decoded = decode(Framing::Chunked, &wire, &[7, 50]).ok();
            prop_assert_eq!(relay(Framing::Chunked, &wire, &[7, 50], Framing::Chunked).ok(), decoded);
            let limits = super::super::head::HeadLimits { bytes: 200, fields: 8 };
            let _ = super::super::head::parse_request(&mut BytesMut::from(&wire[..]), base::Scheme::Http, limits);
            let _ = super::super::head::parse_response(&mut BytesMut::from(&wire[..]), &Method::GET, limits);
        }
    }
}
