//! What is said to Redis and what it answers: RESP2.

use std::io;

use bytes::{Buf, Bytes, BytesMut};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Nil,
    Int(i64),
    Text(Bytes),
    List(Vec<Value>),
    Error(String),
}

/// Longer answers are none.
const LARGEST: usize = 1 << 20;
const DEEPEST: usize = 8;

pub(super) fn command<'a>(words: impl Iterator<Item = &'a [u8]> + Clone) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.clone().count()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n", word.len()).bytes());
        bytes.extend(word);
        bytes.extend(b"\r\n");
    }
    bytes
}

/// Takes one whole value from the front, if there is one.
pub(super) fn parse(read: &mut BytesMut) -> io::Result<Option<Value>> {
    let mut at = 0;
    let value = value(read, &mut at, 0)?;
    match value {
        Some(value) => {
            read.advance(at);
            Ok(Some(value))
        }
        None if read.len() > LARGEST => Err(wrong("the answer is too long")),
        None => Ok(None),
    }
}

fn value(read: &[u8], at: &mut usize, depth: usize) -> io::Result<Option<Value>> {
    let Some(line) = line(read, at) else { return Ok(None) };
    let (kind, rest) = line.split_first().ok_or_else(|| wrong("an empty line"))?;
    let number = || std::str::from_utf8(rest).ok().and_then(|text| text.parse::<i64>().ok());
    let length = |most: usize| match number() {
        Some(-1) => Ok(None),
        Some(length) if (0..=most as i64).contains(&length) => Ok(Some(length as usize)),
        _ => Err(wrong("no proper length")),
    };
    Ok(Some(match kind {
        b'+' => Value::Text(Bytes::copy_from_slice(rest)),
        b'-' => Value::Error(String::from_utf8_lossy(rest).into_owned()),
        b':' => Value::Int(number().ok_or_else(|| wrong("no number"))?),
        b'$' => {
            let Some(length) = length(LARGEST)? else { return Ok(Some(Value::Nil)) };
            let Some(text) = read.get(*at..*at + length + 2) else { return Ok(None) };
            *at += length + 2;
            let text = text.strip_suffix(b"\r\n").ok_or_else(|| wrong("a text of another length"))?;
            Value::Text(Bytes::copy_from_slice(text))
        }
        b'*' => {
            let Some(length) = length(LARGEST / 4)? else { return Ok(Some(Value::Nil)) };
            if depth == DEEPEST {
                return Err(wrong("lists too deep"));
            }
            let mut list = Vec::new();
            for _ in 0..length {
                let Some(item) = value(read, at, depth + 1)? else { return Ok(None) };
                list.push(item);
            }
            Value::List(list)
        }
        _ => return Err(wrong("a kind that is not known")),
    }))
}

fn line<'a>(read: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    let rest = &read[*at..];
    let end = rest.windows(2).position(|two| two == b"\r\n")?;
    *at += end + 2;
    Some(&rest[..end])
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_wherever_they_are_cut() {
        let bytes = b"+OK\r\n:-7\r\n$3\r\na\r\n\r\n$-1\r\n*2\r\n:1\r\n*1\r\n$0\r\n\r\n-ERR no\r\n";
        let text = |text: &'static str| Value::Text(Bytes::from_static(text.as_bytes()));
        let expected = [
            text("OK"),
            Value::Int(-7),
            text("a\r\n"),
            Value::Nil,
            Value::List(vec![Value::Int(1), Value::List(vec![text("")])]),
            Value::Error("ERR no".into()),
        ];
        for cut in 0..=bytes.len() {
            let (mut read, mut found) = (BytesMut::new(), Vec::new());
            for part in [&bytes[..cut], &bytes[cut..]] {
                read.extend_from_slice(part);
                while let Some(value) = parse(&mut read).unwrap() {
                    found.push(value);
                }
            }
            assert_eq!(found, expected, "{cut}");
            assert!(read.is_empty());
        }
    }

    #[test]
    fn what_is_not_of_the_protocol_is_an_error() {
        for bytes in ["HTTP/1.1 400\r\n", "$-2\r\n", "$99999999999\r\n", ":x\r\n", "\r\n", "$1\r\nabc"] {
            assert!(parse(&mut BytesMut::from(bytes)).is_err(), "{bytes}");
        }
        let deep = "*1\r\n".repeat(100);
        assert!(parse(&mut BytesMut::from(&*deep)).is_err());
    }

    #[test]
    fn commands_have_the_lengths_of_their_words() {
        assert_eq!(command([&b"GET"[..], b"a b"].into_iter()), b"*2\r\n$3\r\nGET\r\n$3\r\na b\r\n");
    }
}
