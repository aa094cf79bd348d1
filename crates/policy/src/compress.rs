//! Answers made smaller on their way to callers that can undo it (RFC 9110, 8.4 and 12.5.3).
//!
//! Nothing is held back: where the length of an answer is not known, each piece goes on as soon as it came, since it
//! may be an event that somebody waits for.

use std::io::{self, Write};

use base::{Call, Headers, Method, Reply, Size, StatusCode};
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cors::vary;
use crate::{CompileEnv, Effort, Filter, Outside, Policy, Spec, Stop};

/// Answers made smaller on their way to callers that say they can undo it. Left as they are: those that are encoded
/// already, parts (206), and those that say `cache-control: no-transform`. Not for answers over TLS that repeat what
/// strangers can make callers send beside what is secret: their length then tells of the secret (BREACH).
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CompressSpec {
    /// Encodings in order of preference, where callers have none; `[zstd, br, gzip]` if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encodings: Option<Vec<Encoding>>,
    /// How hard to try, from 1 (fastest) to 9 (smallest); 4 if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<u32>,
    /// Answers that are shorter are left as they are; `1KiB` if it is not given. Those of unknown length count as long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<Size>,
    /// Types of content to compress: `text/html`, or `text/*` for all of a kind. If it is not given: text, JSON, XML,
    /// JavaScript, SVG, WebAssembly, event streams, and what ends in `+json` or `+xml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub types: Option<Vec<String>>,
}

/// A way to compress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    Zstd,
    Br,
    Gzip,
}

/// The policy.
#[derive(Debug)]
pub struct Compress {
    encodings: Vec<Encoding>,
    level: u32,
    min: u64,
    /// `None` for the usual ones.
    types: Option<Vec<Box<str>>>,
}

/// What the caller said.
pub struct Memo {
    encoding: Option<Encoding>,
    is_head: bool,
}

impl Compress {
    /// Whether an answer is one that is compressed for those who can undo it.
    fn takes(&self, reply: &Reply) -> bool {
        let headers = &reply.headers;
        let status = reply.status;
        let bodiless =
            status.is_informational() || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
        if bodiless || status == StatusCode::PARTIAL_CONTENT || headers.contains("content-range") {
            return false;
        }
        let encoded = headers.get("content-encoding").is_some_and(|it| !it.eq_ignore_ascii_case(b"identity"));
        if encoded || headers.has_token("cache-control", "no-transform") {
            return false;
        }
        let length = headers.get_str("content-length").and_then(|it| it.parse::<u64>().ok());
        length.is_none_or(|length| length >= self.min) && self.takes_type(headers)
    }

    fn takes_type(&self, headers: &Headers) -> bool {
        let Some(kind) = headers.media_type().map(str::to_ascii_lowercase) else { return false };
        match &self.types {
            Some(types) => types.iter().any(|it| match it.strip_suffix('*') {
                Some(prefix) => kind.starts_with(prefix),
                None => kind == **it,
            }),
            None => is_usual(&kind),
        }
    }

    /// The fields of an answer that will be compressed.
    fn announce(encoding: Encoding, headers: &mut Headers) {
        headers.set("content-encoding", encoding.token());
        headers.remove("content-length");
        // They speak of the bytes as they were (RFC 9110, 14.3; RFC 9530, 3; RFC 1864).
        for name in ["accept-ranges", "content-digest", "content-md5", "digest"] {
            headers.remove(name);
        }
        // No longer the same bytes, still the same content (RFC 9110, 8.8.1).
        let strong = headers.get("etag").filter(|etag| etag.starts_with(b"\"")).map(<[u8]>::to_vec);
        if let Some(etag) = strong {
            headers.set("etag", [b"W/", &etag[..]].concat());
        }
    }
}

fn is_usual(kind: &str) -> bool {
    kind.starts_with("text/")
        || kind.ends_with("+json")
        || kind.ends_with("+xml")
        || matches!(
            kind.strip_prefix("application/").unwrap_or_default(),
            "json" | "x-ndjson" | "jsonl" | "json-seq" | "xml" | "javascript" | "x-javascript" | "yaml" | "wasm"
        )
}

impl Policy for Compress {
    const NAME: &'static str = "compress";
    type Spec = CompressSpec;
    type Memo = Memo;

    fn compile(spec: &CompressSpec, env: &mut CompileEnv<'_>) -> Option<Compress> {
        let CompressSpec { encodings, level, min, types } = spec;
        let before = env.errors.len();
        let encodings = encodings.clone().unwrap_or_else(|| vec![Encoding::Zstd, Encoding::Br, Encoding::Gzip]);
        if encodings.is_empty() {
            env.error("compress.encodings", "is empty; expected some of `zstd`, `br`, `gzip`");
        }
        let level = level.unwrap_or(4);
        if !(1..=9).contains(&level) {
            env.error("compress.level", format!("{level} is no level; expected 1 to 9"));
        }
        let types = types.as_ref().map(|types| {
            types
                .iter()
                .enumerate()
                .map(|(at, kind)| {
                    let star = kind.strip_suffix('*').unwrap_or(kind);
                    if !star.contains('/') || star.contains(['*', ';', ' ']) {
                        let message =
                            format!("`{kind}` is no type of content; expected one such as `text/html` or `text/*`");
                        env.error(format!("compress.types[{at}]"), message);
                    }
                    kind.to_ascii_lowercase().into()
                })
                .collect()
        });
        let min = min.map_or(1024, |it| it.0);
        (env.errors.len() == before).then_some(Compress { encodings, level, min, types })
    }

    async fn request(&self, call: &mut Call, _: &dyn Outside) -> Result<Memo, Stop> {
        let encoding = chosen(&self.encodings, call.head.headers.get_all("accept-encoding"));
        Ok(Memo { encoding, is_head: call.head.method == Method::HEAD })
    }

    fn response(&self, memo: &mut Memo, reply: &mut Reply) {
        if !self.takes(reply) {
            return;
        }
        vary(&mut reply.headers, "accept-encoding");
        // As the answer to GET would be; there is no body that could be looked at.
        if let (Some(encoding), true) = (memo.encoding, memo.is_head) {
            Compress::announce(encoding, &mut reply.headers);
        }
    }

    fn response_body(&self, memo: &mut Memo, reply: &mut Reply) -> Option<Box<dyn Filter>> {
        // Asked again: an answer of our own has told its length only now.
        let encoding = memo.encoding.filter(|_| self.takes(reply))?;
        let is_known = reply.headers.contains("content-length");
        let encoder = Encoder::new(encoding, self.level).ok()?;
        Compress::announce(encoding, &mut reply.headers);
        Some(Box::new(Compressor { encoder, flushes: !is_known }))
    }
}

// === impl Encoding ===

impl Encoding {
    fn token(self) -> &'static str {
        match self {
            Encoding::Zstd => "zstd",
            Encoding::Br => "br",
            Encoding::Gzip => "gzip",
        }
    }
}

/// The one that the caller likes best, and of several that we do; `None` if it likes the plain answer better.
fn chosen<'a>(encodings: &[Encoding], accepts: impl Iterator<Item = &'a [u8]>) -> Option<Encoding> {
    let (mut weights, mut others, mut identity) = ([None; 3], None, None);
    let items = accepts.flat_map(|value| value.split(|b| *b == b',')).filter_map(|item| std::str::from_utf8(item).ok());
    for item in items {
        let mut parts = item.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| {
            let (key, value) = part.split_once('=')?;
            key.trim().eq_ignore_ascii_case("q").then(|| weight(value.trim()))
        });
        let weight = weight.unwrap_or(Some(1000));
        match name.to_ascii_lowercase().as_str() {
            "*" => others = weight,
            "identity" => identity = weight,
            "gzip" | "x-gzip" => weights[Encoding::Gzip as usize] = weight,
            "br" => weights[Encoding::Br as usize] = weight,
            "zstd" => weights[Encoding::Zstd as usize] = weight,
            _ => {}
        }
    }
    let mut best = None;
    for encoding in encodings {
        let weight = weights[*encoding as usize].or(others).unwrap_or(0);
        if weight > 0 && best.is_none_or(|(most, _)| weight > most) {
            best = Some((weight, *encoding));
        }
    }
    // Only who says so would rather have it plain.
    best.filter(|(weight, _)| identity.is_none_or(|identity| *weight >= identity)).map(|(_, encoding)| encoding)
}

/// A weight in thousandths: `0.5`, `1`. One that is none makes its item as good as not said.
fn weight(text: &str) -> Option<u32> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if part.len() > 3 || !part.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let thousandths = format!("{part:0<3}").parse::<u32>().ok()?;
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(1000),
        _ => None,
    }
}

struct Compressor {
    encoder: Encoder,
    /// After each piece.
    flushes: bool,
}

/// Each writes into its own buffer, which is emptied after each piece. Windows are kept small: a stream may last for
/// hours, and there may be thousands of them.
enum Encoder {
    Gzip(Box<flate2::write::GzEncoder<Vec<u8>>>),
    Br(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(Box<zstd::stream::write::Encoder<'static, Vec<u8>>>),
    Done,
}

/// What is compressed at once: at the usual level about 100 µs of work.
const STEP: usize = 2 << 10;
const BROTLI_WINDOW: u32 = 18;
const ZSTD_WINDOW: u32 = 18;

impl Encoder {
    fn new(encoding: Encoding, level: u32) -> io::Result<Encoder> {
        Ok(match encoding {
            Encoding::Gzip => {
                Encoder::Gzip(Box::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level))))
            }
            Encoding::Br => {
                Encoder::Br(Box::new(brotli::CompressorWriter::new(Vec::new(), 4096, level, BROTLI_WINDOW)))
            }
            Encoding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), level.cast_signed())?;
                encoder.window_log(ZSTD_WINDOW)?;
                Encoder::Zstd(Box::new(encoder))
            }
        })
    }

    fn write(&mut self, data: &[u8], flush: bool, breathe: &mut dyn FnMut()) -> io::Result<Vec<u8>> {
        fn through<W: Write>(
            writer: &mut W,
            data: &[u8],
            flush: bool,
            breathe: &mut dyn FnMut(),
            out: impl FnOnce(&mut W) -> &mut Vec<u8>,
        ) -> io::Result<Vec<u8>> {
            for step in data.chunks(STEP) {
                writer.write_all(step)?;
                breathe();
            }
            if flush {
                writer.flush()?;
            }
            Ok(std::mem::take(out(writer)))
        }
        match self {
            Encoder::Gzip(encoder) => through(&mut **encoder, data, flush, breathe, |it| it.get_mut()),
            Encoder::Br(encoder) => through(&mut **encoder, data, flush, breathe, |it| it.get_mut()),
            Encoder::Zstd(encoder) => through(&mut **encoder, data, flush, breathe, |it| it.get_mut()),
            Encoder::Done => Ok(Vec::new()),
        }
    }

    fn finish(&mut self) -> io::Result<Vec<u8>> {
        match std::mem::replace(self, Encoder::Done) {
            Encoder::Gzip(encoder) => encoder.finish(),
            Encoder::Br(encoder) => Ok(encoder.into_inner()),
            Encoder::Zstd(encoder) => encoder.finish(),
            Encoder::Done => Ok(Vec::new()),
        }
    }
}

impl Filter for Compressor {
    fn piece(&mut self, data: Bytes) -> Result<Bytes, Stop> {
        self.large_piece(data, &mut || ())
    }

    fn large_piece(&mut self, data: Bytes, breathe: &mut dyn FnMut()) -> Result<Bytes, Stop> {
        self.encoder.write(&data, self.flushes, breathe).map(Bytes::from).map_err(failed)
    }

    fn end(&mut self) -> Result<Bytes, Stop> {
        self.encoder.finish().map(Bytes::from).map_err(failed)
    }

    fn effort(&self) -> Effort {
        Effort::WithEachPiece
    }
}

/// Writing into memory does not fail; were it to, the answer would be cut where all can see it.
fn failed(_: io::Error) -> Stop {
    crate::Refusal::AnswerUnusable.into()
}

impl Spec for CompressSpec {
    const EXPECTED: &'static str = "`none`, or settings, such as `encodings: [br, gzip]`; `{}` for the usual ones";
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::testing::{call, compile, errors, ready};
    use crate::{Filters, Nowhere};

    const ALL: [Encoding; 3] = [Encoding::Zstd, Encoding::Br, Encoding::Gzip];

    fn plain(encoding: Encoding, bytes: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        // Of a stream that has not ended, all that can be had.
        let _ = match encoding {
            Encoding::Gzip => flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain),
            Encoding::Br => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut plain),
            Encoding::Zstd => zstd::stream::read::Decoder::new(bytes).unwrap().read_to_end(&mut plain),
        };
        plain
    }

    #[test]
    fn the_caller_chooses_and_we_where_it_does_not() {
        let check = |accepts: &[&str], expected: Option<Encoding>| {
            let found = chosen(&ALL, accepts.iter().map(|it| it.as_bytes()));
            assert_eq!(found, expected, "{accepts:?}");
        };
        check(&[], None);
        check(&[""], None);
        check(&["gzip"], Some(Encoding::Gzip));
        check(&["x-gzip"], Some(Encoding::Gzip));
        check(&["gzip, br"], Some(Encoding::Br));
        check(&["gzip, deflate, br, zstd"], Some(Encoding::Zstd));
        check(&["gzip", "br;q=0.9"], Some(Encoding::Gzip));
        check(&["GZIP;Q=0.5, br;q=0.25"], Some(Encoding::Gzip));
        check(&["*"], Some(Encoding::Zstd));
        check(&["*;q=0.5, zstd;q=0"], Some(Encoding::Br));
        check(&["gzip;q=0"], None);
        check(&["*;q=0"], None);
        check(&["identity;q=0, gzip;q=0.1"], Some(Encoding::Gzip));
        check(&["identity, gzip;q=0.5"], None);
        check(&["identity;q=0.5, gzip;q=0.5"], Some(Encoding::Gzip));
        check(&["gzip;q=2"], None);
        check(&["gzip;q=0.0001"], None);
        check(&["deflate"], None);
        assert_eq!(chosen(&[Encoding::Gzip, Encoding::Br], [&b"*"[..]].into_iter()), Some(Encoding::Gzip));
    }

    /// The fields of an answer with these after the policy, and whether its body is compressed.
    fn through(spec: &str, method: Method, status: u16, fields: &[(&str, &str)]) -> (Headers, bool) {
        let policy = compile(&format!(r#"{{"compress":{spec}}}"#)).compress.unwrap();
        let mut call = call(&[("accept-encoding", "gzip")]);
        call.head.method = method.clone();
        let mut memo = ready(policy.request(&mut call, &Nowhere)).unwrap_or_else(|_| panic!("it passes"));
        let mut reply = Reply::new(StatusCode::from_u16(status).unwrap());
        reply.headers = Headers::from_iter(fields.iter().copied());
        policy.response(&mut memo, &mut reply);
        let compressed = method != Method::HEAD && policy.response_body(&mut memo, &mut reply).is_some();
        (reply.headers, compressed)
    }

    #[test]
    fn only_what_gains_by_it_and_may_be_changed_is_compressed() {
        let check = |spec: &str, status: u16, fields: &[(&str, &str)], expected: bool| {
            let (headers, compressed) = through(spec, Method::GET, status, fields);
            assert_eq!(compressed, expected, "{spec} {status} {fields:?}");
            assert_eq!(headers.has_token("content-encoding", "gzip") && compressed, expected);
            // All callers are told that others may get it compressed.
            assert_eq!(headers.has_token("vary", "accept-encoding"), expected, "{spec} {status} {fields:?}");
        };
        let json = ("content-type", "application/json; charset=utf-8");
        check("{}", 200, &[json], true);
        check("{}", 404, &[json], true);
        check("{}", 200, &[json, ("content-length", "1024")], true);
        check("{}", 200, &[json, ("content-length", "1023")], false);
        check(r#"{"min":"0B"}"#, 200, &[json, ("content-length", "1")], true);
        check("{}", 206, &[json], false);
        check("{}", 200, &[json, ("content-range", "bytes 0-1/2")], false);
        check("{}", 204, &[json], false);
        check("{}", 304, &[json], false);
        check("{}", 200, &[json, ("cache-control", "max-age=1, No-Transform")], false);
        check("{}", 200, &[], false);
        for (kind, expected) in [
            ("text/html", true),
            ("TEXT/Event-Stream", true),
            ("application/problem+json", true),
            ("image/svg+xml", true),
            ("image/png", false),
            ("application/octet-stream", false),
            ("application/grpc", false),
            ("video/mp4", false),
        ] {
            check("{}", 200, &[("content-type", kind)], expected);
        }
        check(r#"{"types":["image/*","a/b"]}"#, 200, &[("content-type", "image/png")], true);
        check(r#"{"types":["image/*","a/b"]}"#, 200, &[("content-type", "A/B;c=d")], true);
        check(r#"{"types":["image/*","a/b"]}"#, 200, &[("content-type", "text/html")], false);
        let (headers, compressed) =
            through("{}", Method::GET, 200, &[json, ("content-encoding", "br"), ("etag", "\"a\"")]);
        assert!(!compressed && headers.get_str("etag") == Some("\"a\""));
    }

    #[test]
    fn fields_that_speak_of_the_bytes_are_changed() {
        let fields = [
            ("content-type", "text/plain"),
            ("content-length", "5000"),
            ("etag", "\"a\""),
            ("accept-ranges", "bytes"),
            ("content-md5", "x"),
            ("vary", "Origin"),
        ];
        let expected = [
            ("content-type", "text/plain"),
            ("vary", "Origin"),
            ("vary", "accept-encoding"),
            ("content-encoding", "gzip"),
            ("etag", "W/\"a\""),
        ];
        for method in [Method::GET, Method::HEAD] {
            let (headers, _) = through("{}", method, 200, &fields);
            assert_eq!(headers, Headers::from_iter(expected));
        }
        let (headers, _) = through("{}", Method::GET, 200, &[("content-type", "text/plain"), ("etag", "W/\"a\"")]);
        assert_eq!(headers.get_str("etag"), Some("W/\"a\""));
    }

    #[test]
    fn each_piece_of_a_stream_can_be_read_as_soon_as_it_is_out() {
        for encoding in ALL {
            let mut filter = Compressor { encoder: Encoder::new(encoding, 4).unwrap(), flushes: true };
            let (mut sent, mut read) = (Vec::new(), String::new());
            for number in 0..5 {
                let event = format!("data: {number}\n\n");
                sent.extend_from_slice(&filter.piece(event.clone().into()).unwrap());
                read.push_str(&event);
                assert_eq!(String::from_utf8_lossy(&plain(encoding, &sent)), read, "{encoding:?}");
            }
            sent.extend_from_slice(&filter.end().unwrap());
            assert_eq!(plain(encoding, &sent), read.as_bytes());
        }
    }

    #[test]
    fn what_has_a_length_is_compressed_as_a_whole_at_every_level() {
        let text: Vec<u8> = (0..20_000u32).flat_map(|n| format!("{} ", n * n % 977).into_bytes()).collect();
        for encoding in ALL {
            for level in [1, 4, 9] {
                let mut filter = Compressor { encoder: Encoder::new(encoding, level).unwrap(), flushes: false };
                let mut sent = Vec::new();
                for piece in text.chunks(7001) {
                    sent.extend_from_slice(&filter.piece(Bytes::copy_from_slice(piece)).unwrap());
                }
                sent.extend_from_slice(&filter.end().unwrap());
                assert!(sent.len() < text.len() * 2 / 3, "{encoding:?} {level}: {} of {}", sent.len(), text.len());
                assert!(plain(encoding, &sent) == text, "{encoding:?} {level}");
            }
        }
    }

    #[test]
    fn a_large_piece_is_compressed_in_steps_with_a_breath_after_each() {
        let text: Vec<u8> = (0..20_000u32).flat_map(|n| format!("{} ", n * n % 977).into_bytes()).collect();
        for encoding in ALL {
            for flushes in [false, true] {
                let filter = Compressor { encoder: Encoder::new(encoding, 4).unwrap(), flushes };
                let mut filters = Filters::new(vec![Box::new(filter)]);
                let mut breaths = 0;
                let mut sent = filters.large_piece(text.clone().into(), &mut || breaths += 1).unwrap().to_vec();
                sent.extend_from_slice(&filters.end().unwrap());
                assert!(plain(encoding, &sent) == text, "{encoding:?} {flushes}");
                assert_eq!(breaths, text.len().div_ceil(STEP), "{encoding:?} {flushes}");
            }
        }
    }

    #[test]
    fn what_is_no_setting_is_told() {
        let check = |spec: &str, path: &str| assert_eq!(errors(&format!(r#"{{"compress":{spec}}}"#)), [path], "{spec}");
        check(r#"{"encodings":[]}"#, "compress.encodings");
        check(r#"{"level":0}"#, "compress.level");
        check(r#"{"level":10}"#, "compress.level");
        check(r#"{"types":["text/html","text"]}"#, "compress.types[1]");
        check(r#"{"types":["*/*"]}"#, "compress.types[0]");
    }
}
