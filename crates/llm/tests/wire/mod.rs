//! Streams as they are sent, of those that cannot be written down as they are.

use llm::Dialect;

/// A stream as it is sent. Bedrock's is written down as lines of a name and a payload; an exception has a `!`.
pub fn wire(of: Dialect, body: &[u8]) -> Vec<u8> {
    if of != Dialect::Bedrock {
        return body.to_vec();
    }
    let mut out = Vec::new();
    for line in std::str::from_utf8(body).unwrap().lines() {
        let (name, payload) = line.split_once(' ').unwrap();
        let (kind, name) = match name.strip_suffix('!') {
            Some(name) => ("exception", name),
            None => ("event", name),
        };
        let type_of = format!(":{kind}-type");
        let headers: Vec<u8> = [(":message-type", kind), (&type_of, name), (":content-type", "application/json")]
            .iter()
            .flat_map(|(name, value)| {
                let lengths = (name.len() as u8, (value.len() as u16).to_be_bytes());
                [&[lengths.0], name.as_bytes(), &[7], &lengths.1, value.as_bytes()].concat()
            })
            .collect();
        let length = (16 + headers.len() + payload.len()) as u32;
        let prelude = [length.to_be_bytes(), (headers.len() as u32).to_be_bytes()].concat();
        let inner = [&prelude[..], &crc(&prelude), &headers, payload.as_bytes()].concat();
        out.extend([&inner[..], &crc(&inner)].concat());
    }
    out
}

pub fn crc(bytes: &[u8]) -> [u8; 4] {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum().to_be_bytes()
}
