//! What each dialect becomes in each other: one file per case, and beside it one snapshot per target.
//!
//! `golden/requests/{of}/{case}.json` → `{case}.{to}.snap`; the same for answers, errors (named by their status) and
//! streams. A new dialect is a folder; its targets are found. `INSTA_UPDATE=always cargo test -p llm` writes snapshots;
//! they are reviewed like code.
#![expect(clippy::unwrap_used, reason = "a test")]

mod wire;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use llm::{Dialect, Stream, stream, translate};
use wire::{crc, wire};

#[test]
fn requests() {
    each("requests", |of, to, body, _| {
        let options = translate::Options { include_usage: true, ..options() };
        match translate::request(of, to, body, &options) {
            Ok(translated) => Some(format!("{}\n{}", pretty(&translated.body), losses(&translated.lost))),
            Err(translate::Refused::Pair(..)) => None,
            Err(error) => Some(error.to_string()),
        }
    });
}

#[test]
fn answers() {
    each("answers", |of, to, body, _| {
        let asks = |dialect| matches!(dialect, Dialect::OpenAiEmbeddings | Dialect::GeminiEmbeddings);
        if !(Stream::can(to, of) || (asks(of) || is_asked_only(of)) && asks(to)) {
            return None;
        }
        // As the head has it of a provider whose body does not say.
        let options = translate::Options { tokens: of.tokens_field().map(|_| 7), ..options() };
        match translate::answer(to, of, body, &options) {
            Ok(answer) => Some(format!(
                "{}\n{}stop {:?}\n{:?}",
                pretty(&answer.body),
                losses(&answer.lost),
                answer.stop,
                answer.usage
            )),
            Err(error) => Some(error.to_string()),
        }
    });
}

#[test]
fn errors() {
    each("errors", |of, to, body, case| {
        if is_asked_only(to) {
            return None;
        }
        let status = case.parse().unwrap();
        let failure = translate::error(to, of, status, body);
        Some(format!("{}\n{:?}", pretty(&failure.body), failure.kind))
    });
}

/// No caller speaks it here.
fn is_asked_only(dialect: Dialect) -> bool {
    matches!(dialect, Dialect::BedrockTitan | Dialect::BedrockCohere)
}

#[test]
fn streams() {
    each("streams", |of, to, body, case| {
        if !Stream::can(to, of) {
            return None;
        }
        let body = &wire(of, body);
        let (whole, seen) = run(of, to, body, body.len());
        // However the bytes come, the same goes out.
        for size in 1..body.len().min(600) {
            let (pieces, seen_too) = run(of, to, body, size);
            assert!(pieces == whole && seen_too == seen, "{of} → {to}, {case}, in pieces of {size}");
        }
        let text = match to {
            Dialect::Bedrock => messages(&whole),
            _ => String::from_utf8_lossy(&whole).into_owned(),
        };
        Some(format!("{text}{seen:#?}"))
    });
}

/// The same the other way round, and proof that what was written has the right lengths and checksums.
fn messages(mut stream: &[u8]) -> String {
    let mut out = String::new();
    while !stream.is_empty() {
        let number = |at: usize| u32::from_be_bytes(stream[at..at + 4].try_into().unwrap()) as usize;
        let (length, headers) = (number(0), number(4));
        assert_eq!(stream[8..12], crc(&stream[..8]));
        assert_eq!(stream[length - 4..length], crc(&stream[..length - 4]));
        let mut rest = &stream[12..12 + headers];
        while !rest.is_empty() {
            let (name, after) = rest[1..].split_at(usize::from(rest[0]));
            assert_eq!(after[0], 7);
            let (value, after) = after[3..].split_at(usize::from(u16::from_be_bytes([after[1], after[2]])));
            if name.ends_with(b"-type") && name != b":content-type" {
                write!(out, "{} ", String::from_utf8_lossy(value)).unwrap();
            }
            rest = after;
        }
        writeln!(out, "{}", String::from_utf8_lossy(&stream[12 + headers..length - 4])).unwrap();
        stream = &stream[length..];
    }
    out
}

fn run(of: Dialect, to: Dialect, body: &[u8], size: usize) -> (Vec<u8>, stream::Seen) {
    let options = stream::Options { model: "asked", id: "call-1", now: 1_800_000_000, ..stream::Options::default() };
    let mut stream = Stream::new(to, of, &options).unwrap();
    let mut out = Vec::new();
    for piece in body.chunks(size) {
        stream.push(piece, &mut out);
    }
    stream.finish(&mut out);
    (out, stream.seen().clone())
}

fn options() -> translate::Options<'static> {
    translate::Options { model: "target-model", id: "call-1", now: 1_800_000_000, ..translate::Options::default() }
}

fn each(what: &str, translate: impl Fn(Dialect, Dialect, &[u8], &str) -> Option<String>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(what);
    let mut cases = 0;
    for of in Dialect::ALL {
        for file in files(&root.join(of.name())) {
            let body = fs::read(&file).unwrap();
            let case = file.file_stem().unwrap().to_str().unwrap();
            for to in Dialect::ALL.into_iter().filter(|to| *to != of) {
                if let Some(text) = translate(of, to, &body, case) {
                    cases += 1;
                    insta::with_settings!({
                        snapshot_path => file.parent().unwrap(),
                        prepend_module_to_snapshot => false,
                        omit_expression => true,
                        input_file => file.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap(),
                    }, {
                        insta::assert_snapshot!(format!("{case}.{to}"), text);
                    });
                }
            }
        }
    }
    assert!(cases > 0, "no case of {what}");
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|end| end != "snap" && end != "new"));
    files.sort();
    files
}

/// For people to read; and proof that somebody else's parser takes it.
fn pretty(body: &[u8]) -> String {
    match serde_json::from_slice::<serde_json::Value>(body) {
        Ok(value) => serde_json::to_string_pretty(&value).unwrap(),
        Err(error) => panic!("{error}: {}", String::from_utf8_lossy(body)),
    }
}

fn losses(lost: &[llm::Lost]) -> String {
    lost.iter().fold(String::new(), |mut out, lost| {
        writeln!(out, "lost {lost}").unwrap();
        out
    })
}
