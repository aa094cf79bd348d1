//! The PROXY protocol, versions 1 and 2: what a balancer in front of us says of the connection it passes on.
//!
//! As strict as its specification asks ("must only be accepted from known sources, exactly as described"): a
//! listener that expects the header refuses what lacks one. The header is read to its last byte and no further,
//! because what follows belongs to TLS or HTTP.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};

/// What the proxy said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// The proxy speaks for itself, to see whether we live.
    Local,
    /// The proxy speaks for somebody of whom it knows nothing that can be told in addresses.
    Unknown,
    /// Between Unix sockets.
    Unix,
    Ip {
        source: SocketAddr,
        destination: SocketAddr,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// At least that many bytes of the header are still to come.
    Incomplete { missing: usize },
    /// The header took the first `len` bytes.
    Done { len: usize, header: Header },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a PROXY header: {0}")]
pub struct Malformed(&'static str);

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("the PROXY header took too long")]
    Timeout,
    #[error("the connection broke before the end of the PROXY header")]
    Io(#[source] io::Error),
}

/// Reads a header and nothing after it.
pub async fn read<IO: AsyncRead + Unpin>(io: &mut IO, timeout: Duration) -> Result<Header, ReadError> {
    let reading = async {
        let mut bytes = Vec::with_capacity(LEN_V1);
        loop {
            match parse(&bytes)? {
                Parsed::Done { header, .. } => return Ok(header),
                Parsed::Incomplete { missing } => {
                    let start = bytes.len();
                    bytes.resize(start + missing, 0);
                    io.read_exact(&mut bytes[start..]).await.map_err(ReadError::Io)?;
                }
            }
        }
    };
    tokio::time::timeout(timeout, reading).await.unwrap_or(Err(ReadError::Timeout))
}

/// Reads the header that `bytes` begin with.
pub fn parse(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let begins = |signature: &[u8]| {
        let len = bytes.len().min(signature.len());
        bytes[..len] == signature[..len]
    };
    if bytes.is_empty() {
        return Ok(Parsed::Incomplete { missing: MIN_V1 });
    }
    if begins(SIGNATURE_V2) {
        return parse_v2(bytes);
    }
    if begins(SIGNATURE_V1) {
        return parse_v1(bytes);
    }
    Err(Malformed("it has neither version's signature"))
}

// === Version 1 ===

fn parse_v1(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let window = &bytes[..bytes.len().min(LEN_V1)];
    // A CR later than this could not be followed by LF within the line's length.
    let ends = |byte: &u8| matches!(byte, b'\r' | b'\n');
    let Some(end) = window.iter().take(LEN_V1 - 1).position(ends) else {
        if window.len() >= LEN_V1 - 1 {
            return Err(Malformed("its line is longer than 107 bytes"));
        }
        let missing = MIN_V1.saturating_sub(bytes.len()).max(2);
        return Ok(Parsed::Incomplete { missing });
    };
    match window.get(end..end + 2) {
        Some(b"\r\n") => {}
        None if window[end] == b'\r' && window.len() < LEN_V1 => return Ok(Parsed::Incomplete { missing: 1 }),
        _ => return Err(Malformed("its line does not end with CR LF")),
    }
    let line = str::from_utf8(&window[SIGNATURE_V1.len()..end]).map_err(|_| Malformed("its line is not ASCII"))?;
    let done = |header| Ok(Parsed::Done { len: end + 2, header });
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return done(Header::Unknown);
    }
    let words: Vec<&str> = line.split(' ').collect();
    let &[family, source, destination, source_port, destination_port] = words.as_slice() else {
        return Err(Malformed("its line is not family, two addresses and two ports"));
    };
    let address = |text: &str| -> Result<IpAddr, Malformed> {
        let address = match family {
            "TCP4" => text.parse::<Ipv4Addr>().map(IpAddr::V4),
            "TCP6" => text.parse::<Ipv6Addr>().map(IpAddr::V6),
            _ => return Err(Malformed("its family is not TCP4, TCP6 or UNKNOWN")),
        };
        address.map_err(|_| Malformed("an address is not one of its family"))
    };
    done(Header::Ip {
        source: SocketAddr::new(address(source)?, port(source_port)?),
        destination: SocketAddr::new(address(destination)?, port(destination_port)?),
    })
}

fn port(text: &str) -> Result<u16, Malformed> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if !plain {
        return Err(Malformed("a port is not a number"));
    }
    text.parse().map_err(|_| Malformed("a port is not a number up to 65535"))
}

// === Version 2 ===

fn parse_v2(bytes: &[u8]) -> Result<Parsed, Malformed> {
    if bytes.len() < FIXED_V2 {
        return Ok(Parsed::Incomplete { missing: FIXED_V2 - bytes.len() });
    }
    let (version, command, family) = (bytes[12] >> 4, bytes[12] & 15, bytes[13]);
    let len = FIXED_V2 + usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    if version != 2 {
        return Err(Malformed("its version is not 2"));
    }
    if command > 1 {
        return Err(Malformed("its command is neither LOCAL nor PROXY"));
    }
    if len > LEN_V2 {
        return Err(Malformed("it is longer than 4096 bytes"));
    }
    let addresses = match family {
        _ if command == 0 => 0,
        0x00 => 0,
        0x11 => 12,
        0x21 => 36,
        0x31 => 216,
        0x12 | 0x22 | 0x32 => return Err(Malformed("it tells of datagrams on a stream")),
        _ => return Err(Malformed("its family is not one of the specification's")),
    };
    if len < FIXED_V2 + addresses {
        return Err(Malformed("it is too short for its addresses"));
    }
    if bytes.len() < len {
        return Ok(Parsed::Incomplete { missing: len - bytes.len() });
    }
    let done = |header| Ok(Parsed::Done { len, header });
    // Of these two the receiver must ignore all that follows.
    if command == 0 {
        return done(Header::Local);
    }
    if family == 0 {
        return done(Header::Unknown);
    }
    let (payload, extras) = bytes[FIXED_V2..len].split_at(addresses);
    check_extras(&bytes[..len], extras)?;

    let port = |at: usize| u16::from_be_bytes([payload[at], payload[at + 1]]);
    match family {
        0x11 => {
            let address = |at: usize| {
                let octets: [u8; 4] = std::array::from_fn(|index| payload[at + index]);
                IpAddr::from(octets)
            };
            done(Header::Ip {
                source: SocketAddr::new(address(0), port(8)),
                destination: SocketAddr::new(address(4), port(10)),
            })
        }
        0x21 => {
            let address = |at: usize| {
                let octets: [u8; 16] = std::array::from_fn(|index| payload[at + index]);
                IpAddr::from(octets)
            };
            done(Header::Ip {
                source: SocketAddr::new(address(0), port(32)),
                destination: SocketAddr::new(address(16), port(34)),
            })
        }
        _ => done(Header::Unix),
    }
}

/// Walks the type-length-values after the addresses; the checksum is the only one that matters to us.
fn check_extras(header: &[u8], mut extras: &[u8]) -> Result<(), Malformed> {
    while !extras.is_empty() {
        let [kind, high, low, rest @ ..] = extras else { return Err(Malformed("an extension is cut off")) };
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        let Some((value, next)) = rest.split_at_checked(len) else {
            return Err(Malformed("an extension is longer than the header"));
        };
        if *kind == CHECKSUM {
            let Ok(value) = <[u8; 4]>::try_from(value) else {
                return Err(Malformed("its checksum is not of four bytes"));
            };
            let at = header.len() - next.len() - 4;
            let parts = [&header[..at], &[0; 4], &header[at + 4..]];
            if crc32c(&parts) != u32::from_be_bytes(value) {
                return Err(Malformed("its checksum is wrong"));
            }
        }
        extras = next;
    }
    Ok(())
}

/// Bit by bit: a header is short, and few carry a checksum.
fn crc32c(parts: &[&[u8]]) -> u32 {
    let mut crc = !0;
    for byte in parts.iter().copied().flatten() {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

const SIGNATURE_V1: &[u8] = b"PROXY ";
const SIGNATURE_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// `PROXY UNKNOWN` and the end of its line; no header of either version is shorter.
const MIN_V1: usize = 15;
const LEN_V1: usize = 107;
const FIXED_V2: usize = 16;
const LEN_V2: usize = 4096;
const CHECKSUM: u8 = 0x03;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(source: &str, destination: &str) -> Header {
        Header::Ip { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    fn v2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE_V2.to_vec();
        bytes.extend([0x20 | command, family]);
        bytes.extend((payload.len() as u16).to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    const V4: [u8; 12] = [1, 2, 3, 4, 5, 6, 7, 8, 0, 80, 1, 187];

    fn v4_with(extras: &[u8]) -> Vec<u8> {
        v2(1, 0x11, &[&V4, extras].concat())
    }

    fn v4_with_checksum() -> Vec<u8> {
        let mut bytes = v4_with(&[0x04, 0, 1, 9, CHECKSUM, 0, 4, 0, 0, 0, 0, 0x04, 0, 0]);
        let at = bytes.len() - 7;
        let sum = crc32c(&[&bytes]);
        bytes[at..at + 4].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    fn good() -> Vec<(Vec<u8>, Header)> {
        let mut six = [0; 36];
        six[15] = 1;
        six[31] = 2;
        six[33] = 7;
        six[35] = 9;
        vec![
            (b"PROXY TCP4 1.2.3.4 5.6.7.8 80 443\r\n".into(), ip("1.2.3.4:80", "5.6.7.8:443")),
            (b"PROXY TCP4 255.255.255.255 0.0.0.0 65535 0\r\n".into(), ip("255.255.255.255:65535", "0.0.0.0:0")),
            (b"PROXY TCP6 2001:db8::1 ::2 1 2\r\n".into(), ip("[2001:db8::1]:1", "[::2]:2")),
            (b"PROXY UNKNOWN\r\n".into(), Header::Unknown),
            (format!("PROXY UNKNOWN {}\r\n", "f".repeat(91)).into(), Header::Unknown),
            (v2(0, 0x00, b""), Header::Local),
            (v2(0, 0x11, b"whatever"), Header::Local),
            (v2(1, 0x00, b"whatever"), Header::Unknown),
            (v2(1, 0x11, &V4), ip("1.2.3.4:80", "5.6.7.8:443")),
            (v2(1, 0x21, &six), ip("[::1]:7", "[::2]:9")),
            (v2(1, 0x31, &[0; 216]), Header::Unix),
            (v4_with(&[0x04, 0, 2, 1, 2, 0x20, 0, 0]), ip("1.2.3.4:80", "5.6.7.8:443")),
            (v4_with_checksum(), ip("1.2.3.4:80", "5.6.7.8:443")),
            (v2(0, 0, &[0; LEN_V2 - FIXED_V2]), Header::Local),
        ]
    }

    #[test]
    fn good_headers_are_read_wherever_they_are_cut() {
        for (bytes, header) in good() {
            for cut in 0..bytes.len() {
                let parsed = parse(&bytes[..cut]);
                let fits = matches!(parsed, Ok(Parsed::Incomplete { missing }) if missing >= 1 && cut + missing <= bytes.len());
                assert!(fits, "{parsed:?} at {cut} of {:?}", bytes.escape_ascii().to_string());
            }
            let done = Ok(Parsed::Done { len: bytes.len(), header });
            assert_eq!(parse(&bytes), done);
            assert_eq!(parse(&[&bytes, &b"GET / HTTP/1.1\r\n"[..]].concat()), done);
        }
    }

    #[tokio::test]
    async fn nothing_after_the_header_is_taken() {
        for (bytes, header) in good() {
            let all = [&bytes, &b"rest"[..]].concat();
            let mut io = &all[..];
            assert_eq!(read(&mut io, Duration::from_secs(1)).await.unwrap(), header);
            assert_eq!(io, b"rest");
        }
    }

    #[tokio::test]
    async fn silence_and_an_early_end_are_errors() {
        let (_near, mut far) = tokio::io::duplex(8);
        assert!(matches!(read(&mut far, Duration::from_millis(10)).await, Err(ReadError::Timeout)));
        let end = read(&mut &b"PROXY TCP4 1."[..], Duration::from_secs(1)).await;
        assert!(matches!(end, Err(ReadError::Io(_))));
    }

    #[test]
    fn bad_headers_are_refused() {
        let mut wrong_sum = v4_with_checksum();
        wrong_sum[20] ^= 1;
        let mut version = v2(1, 0x11, &V4);
        version[12] = 0x11;
        let v1: &[&str] = &[
            "GET / HTTP/1.1\r\n",
            "proxy TCP4 1.2.3.4 5.6.7.8 80 443\r\n",
            "PROXY  TCP4 1.2.3.4 5.6.7.8 80 443\r\n",
            "PROXY TCP4  1.2.3.4 5.6.7.8 80 443\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 80 443 \r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 80\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 80 65536\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 080 443\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 +80 443\r\n",
            "PROXY TCP4 01.2.3.4 5.6.7.8 80 443\r\n",
            "PROXY TCP4 ::1 ::2 80 443\r\n",
            "PROXY TCP6 1.2.3.4 5.6.7.8 80 443\r\n",
            "PROXY TCP6 fe80::1%eth0 ::2 80 443\r\n",
            "PROXY UDP4 1.2.3.4 5.6.7.8 80 443\r\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 80 443\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 80 443\rX",
        ];
        let long = format!("PROXY UNKNOWN {}\r\n", "f".repeat(92));
        let v2 = [
            version,
            wrong_sum,
            v2(2, 0x11, &V4),
            v2(1, 0x12, &V4),
            v2(1, 0x10, &V4),
            v2(1, 0x41, &V4),
            v2(1, 0x11, &V4[..11]),
            v2(1, 0x21, &[0; 35]),
            v2(1, 0x31, &[0; 215]),
            v2(0, 0, &[0; LEN_V2 - FIXED_V2 + 1]),
            v4_with(&[4]),
            v4_with(&[4, 0]),
            v4_with(&[4, 0, 2, 1]),
            v4_with(&[CHECKSUM, 0, 3, 1, 2, 3]),
        ];
        let all = v1.iter().map(|text| text.as_bytes().to_vec()).chain([long.into_bytes()]).chain(v2);
        for bytes in all {
            let parsed = parse(&bytes);
            assert!(parsed.is_err(), "{parsed:?} for {:?}", bytes.escape_ascii().to_string());
        }
    }

    #[test]
    fn the_checksum_is_castagnoli() {
        assert_eq!(crc32c(&[b"1234", b"56789"]), 0xe306_9283);
    }

    fn garbage() -> impl Strategy<Value = Vec<u8>> {
        let start = prop_oneof![Just(Vec::new()), Just(SIGNATURE_V1.to_vec()), Just(SIGNATURE_V2.to_vec())];
        (start, prop::collection::vec(any::<u8>(), 0..300)).prop_map(|(start, rest)| [start, rest].concat())
    }

    proptest! {
        #[test]
        fn garbage_is_judged_the_same_however_it_arrives(bytes in garbage()) {
            let whole = parse(&bytes);
            if let Ok(Parsed::Done { len, .. }) = whole {
                prop_assert!(len <= bytes.len());
            }
            for cut in 0..bytes.len() {
                match parse(&bytes[..cut]) {
                    Ok(Parsed::Incomplete { missing }) => prop_assert!(missing >= 1),
                    decided => prop_assert_eq!(decided, whole),
                }
            }
        }

        #[test]
        fn a_changed_header_never_panics(which in 0..14usize, at in any::<prop::sample::Index>(), byte: u8) {
            let (mut bytes, _) = good().swap_remove(which);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = parse(&bytes);
        }
    }
}
