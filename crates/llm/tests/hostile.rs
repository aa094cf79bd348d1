//! What nobody should send, and bytes that come as they please.
#![expect(clippy::unwrap_used, reason = "a test")]

mod wire;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use llm::{Dialect, Splice, Stream, peek, splice, stream, translate};
use proptest::prelude::*;
use serde_json::Value;

/// All requests and streams there are as golden files.
fn samples(what: &str) -> Vec<(Dialect, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(what);
    let mut all = Vec::new();
    for dialect in Dialect::ALL {
        let Ok(entries) = fs::read_dir(root.join(dialect.name())) else { continue };
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.retain(|file| file.extension().is_some_and(|end| end != "snap"));
        files.sort();
        let read = |file: &PathBuf| match what {
            "streams" => wire::wire(dialect, &fs::read(file).unwrap()),
            _ => fs::read(file).unwrap(),
        };
        all.extend(files.iter().map(|file| (dialect, read(file))));
    }
    assert!(!all.is_empty());
    all
}

/// Numbers may be of any size: a reader that would keep them refuses what no number of its own can hold.
fn is_json(text: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok()
}

fn options() -> translate::Options<'static> {
    translate::Options { model: "m", id: "id", include_usage: true, ..translate::Options::default() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// What we read of JSON is what a parser that is not ours reads.
    #[test]
    fn json_is_read_as_others_read_it(value in json()) {
        let text = serde_json::to_string(&serde_json::json!({ "model": "m", "x": value })).unwrap();
        let found = peek(Dialect::OpenAiChat, text.as_bytes());
        prop_assert!(found.is_ok(), "{text}: {found:?}");
    }

    /// Whatever is not JSON for others is not for us; the reverse are keys that come twice, depth and halves of pairs.
    #[test]
    fn what_others_refuse_is_refused(sample in any::<prop::sample::Index>(), edits in edits()) {
        let samples = samples("requests");
        let (dialect, body) = &samples[sample.index(samples.len())];
        let body = mutate(body, &edits);
        let theirs = serde_json::from_slice::<Value>(&body);
        if let Ok(found) = peek(*dialect, &body) {
            prop_assert!(theirs.is_ok(), "{}", String::from_utf8_lossy(&body));
            // And the model is the one they see.
            let model = found.model(&body).map(|model| model.into_owned());
            prop_assert_eq!(model, theirs.unwrap()["model"].as_str().map(str::to_owned));
        }
    }

    /// A changed model is the only change.
    #[test]
    fn splicing_changes_nothing_else(sample in any::<prop::sample::Index>(), model in ".{0,20}", edits in edits()) {
        let samples = samples("requests");
        let (dialect, body) = &samples[sample.index(samples.len())];
        let body = mutate(body, &edits);
        if let Ok(found) = peek(*dialect, &body) {
            let change = Splice { model: Some(&model), include_usage: true };
            let spliced = splice(&body, &found, &change);
            let mut before: Value = serde_json::from_slice(&body).unwrap();
            let after: Value = serde_json::from_slice(&spliced).unwrap();
            if *dialect == Dialect::GeminiEmbeddings {
                let named = Value::String(format!("models/{model}"));
                let requests = before.as_object_mut().and_then(|it| it.get_mut("requests")).and_then(Value::as_array_mut);
                for request in requests.into_iter().flatten().filter(|it| it.get("model").is_some()) {
                    request["model"] = named.clone();
                }
                if before.get("model").is_some() {
                    before["model"] = named;
                }
            } else if found.model.is_some() {
                before["model"] = Value::String(model);
            }
            if found.stream {
                before["stream_options"] = after["stream_options"].clone();
                prop_assert_eq!(&after["stream_options"]["include_usage"], &Value::Bool(true));
            }
            prop_assert_eq!(before, after);
        }
    }

    /// A request that was bent somehow is refused with its place, or translated into JSON that others can read.
    #[test]
    fn bent_requests_are_refused_or_translated(sample in any::<prop::sample::Index>(), edits in edits()) {
        let samples = samples("requests");
        let (dialect, body) = &samples[sample.index(samples.len())];
        let body = mutate(body, &edits);
        for to in Dialect::ALL {
            if let Ok(translated) = translate::request(*dialect, to, &body, &options()) {
                prop_assert!(is_json(&translated.body));
            }
        }
    }

    #[test]
    fn bent_answers_are_refused_or_translated(sample in any::<prop::sample::Index>(), edits in edits()) {
        let samples = samples("answers");
        let (dialect, body) = &samples[sample.index(samples.len())];
        let body = mutate(body, &edits);
        for caller in Dialect::ALL {
            drop(translate::glance(*dialect, &body));
            let failure = translate::error(caller, *dialect, 500, &body);
            prop_assert!(is_json(&failure.body));
            if let Ok(answer) = translate::answer(caller, *dialect, &body, &options())
                && caller != *dialect
            {
                prop_assert!(is_json(&answer.body));
            }
        }
    }

    /// However a stream is bent and however its bytes come: the same goes out, the same is learned, and it has an end.
    #[test]
    fn a_stream_is_the_same_however_it_comes(
        sample in any::<prop::sample::Index>(),
        edits in edits(),
        cuts in prop::collection::vec(1usize..200, 1..20),
        hide_usage: bool,
        max_event in prop_oneof![Just(200usize), Just(8 << 20)],
    ) {
        let samples = samples("streams");
        let (provider, body) = &samples[sample.index(samples.len())];
        let body = mutate(body, &edits);
        for caller in Dialect::ALL {
            let options = stream::Options { hide_usage, max_event, model: "m", id: "id", now: 1 };
            let run = |cuts: &mut dyn Iterator<Item = usize>| {
                let mut stream = Stream::new(caller, *provider, &options)?;
                let (mut out, mut rest) = (Vec::new(), &body[..]);
                while !rest.is_empty() {
                    let (piece, more) = rest.split_at(cuts.next().unwrap_or(rest.len()).min(rest.len()));
                    stream.push(piece, &mut out);
                    rest = more;
                }
                stream.finish(&mut out);
                Some((out, stream.seen().clone()))
            };
            let whole = run(&mut std::iter::empty());
            let pieces = run(&mut cuts.iter().copied().cycle());
            prop_assert_eq!(&whole, &pieces);
            if let Some((out, seen)) = whole {
                prop_assert!(seen.done || seen.stop.is_some() || seen.fault.is_some());
                if caller != *provider {
                    events_are_json(caller, &out);
                } else if !hide_usage {
                    prop_assert!(out.starts_with(&body));
                }
            }
        }
    }
}

fn events_are_json(caller: Dialect, out: &[u8]) {
    if caller == Dialect::Bedrock {
        return;
    }
    let text = std::str::from_utf8(out).unwrap();
    for data in text.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]") {
        serde_json::from_str::<Value>(data).unwrap_or_else(|error| panic!("{error}: {data}"));
    }
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(8, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..24).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

/// Where, and what instead: bytes that mean something in JSON, or nothing.
fn edits() -> impl Strategy<Value = Vec<(prop::sample::Index, Option<u8>, usize)>> {
    let byte = prop::option::of(prop_oneof![
        prop::sample::select(b"{}[]\",:\\/u0e-ntf \n\r\x00\x1f\xff\xc3\xed".to_vec()),
        any::<u8>(),
    ]);
    prop::collection::vec((any::<prop::sample::Index>(), byte, 0usize..4), 0..4)
}

fn mutate(body: &[u8], edits: &[(prop::sample::Index, Option<u8>, usize)]) -> Vec<u8> {
    let mut body = body.to_vec();
    for (at, byte, remove) in edits {
        if body.is_empty() {
            break;
        }
        let at = at.index(body.len());
        let end = (at + remove).min(body.len());
        body.splice(at..end, *byte);
    }
    body
}

#[test]
fn a_body_of_fifty_megabytes_is_walked_once() {
    let text = "long ".repeat(10 << 20);
    let body = format!("{{\"model\":\"m\",\"messages\":[{{\"role\":\"user\",\"content\":\"{text}\"}}]}}").into_bytes();
    let found = peek(Dialect::OpenAiChat, &body).unwrap();
    assert_eq!(found.text, text.len());
    let translated = translate::request(Dialect::OpenAiChat, Dialect::Anthropic, &body, &options()).unwrap();
    assert!(translated.body.len() > text.len());
    // As many small things as fit: what is quadratic shows here.
    let many = format!(
        "{{\"model\":\"m\",\"messages\":[{}]}}",
        vec!["{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\",\"x\":1}]}"; 70_000].join(",")
    );
    assert_eq!(peek(Dialect::OpenAiChat, many.as_bytes()).unwrap().messages, 70_000);
    let translated = translate::request(Dialect::OpenAiChat, Dialect::Anthropic, many.as_bytes(), &options()).unwrap();
    assert!(translated.lost.len() < 20, "what is lost is told within bounds");
}

#[test]
fn an_event_of_ten_megabytes_passes_or_ends_the_stream() {
    let large = format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{}\"}}}}]}}\n\n", "x".repeat(10 << 20));
    let body = [large.as_bytes(), b"data: [DONE]\n\n"].concat();
    let run = |caller| {
        let mut stream = Stream::new(caller, Dialect::OpenAiChat, &stream::Options::default()).unwrap();
        let mut out = Vec::new();
        body.chunks(16_384).for_each(|piece| stream.push(piece, &mut out));
        stream.finish(&mut out);
        (out, stream.seen().clone())
    };
    let (out, seen) = run(Dialect::OpenAiChat);
    assert!(out == body && seen.done && seen.fault.is_none());
    let (out, seen) = run(Dialect::Anthropic);
    assert!(String::from_utf8_lossy(&out).contains("too large to translate"));
    assert_eq!(seen.fault, Some(stream::Fault::Overlong));
}

#[test]
fn numbers_and_the_order_of_keys_are_kept_as_they_were() {
    let body =
        br#"{"model":"m","messages":[{"role":"user","content":"x"}],"tools":[{"type":"function","function":{"name":"f",
        "parameters":{"zeta": 12345678901234567890123, "alpha": 1.0e-7, "mid":[ 1 ]}}}]}"#;
    let translated = translate::request(Dialect::OpenAiChat, Dialect::Anthropic, body, &options()).unwrap();
    let text = String::from_utf8(translated.body).unwrap();
    assert!(
        text.contains(r#""input_schema":{"zeta": 12345678901234567890123, "alpha": 1.0e-7, "mid":[ 1 ]}"#),
        "{text}"
    );
}

#[test]
fn a_strict_caller_is_told_what_would_be_lost() {
    let body = br#"{"model":"m","messages":[{"role":"user","content":"x"}],"logit_bias":{"1":2},"seed":1}"#;
    let strict = translate::Options { strict: true, ..options() };
    let error = translate::request(Dialect::OpenAiChat, Dialect::Anthropic, body, &strict).unwrap_err();
    assert_eq!(error.to_string(), "the provider's dialect has no words for logit_bias, seed");
    let lost = translate::request(Dialect::OpenAiChat, Dialect::Anthropic, body, &options()).unwrap().lost;
    let names: BTreeSet<_> = lost.iter().map(ToString::to_string).collect();
    assert_eq!(names, BTreeSet::from(["logit_bias".to_owned(), "seed".to_owned()]));
}

#[test]
fn a_page_of_html_is_an_error_in_the_callers_words() {
    let page = b"<html><body>502 Bad Gateway</body></html>";
    for caller in Dialect::ALL {
        for provider in Dialect::ALL {
            let failure = translate::error(caller, provider, 502, page);
            assert_eq!(failure.kind, llm::error::Kind::Upstream);
            assert!(serde_json::from_slice::<Value>(&failure.body).unwrap().is_object());
        }
    }
    assert!(translate::answer(Dialect::OpenAiChat, Dialect::Anthropic, page, &options()).is_err());
}

#[test]
fn a_request_to_count_asks_for_no_answer() {
    let body = br#"{"model":"m","messages":[{"role":"user","content":"x"}],"max_tokens":9,"stream":true}"#;
    let count = translate::Options { count: true, ..options() };
    let translated = translate::request(Dialect::OpenAiChat, Dialect::Anthropic, body, &count).unwrap();
    let value: Value = serde_json::from_slice(&translated.body).unwrap();
    assert_eq!(value, serde_json::json!({ "model": "m", "messages": [{ "role": "user", "content": "x" }] }));
}
