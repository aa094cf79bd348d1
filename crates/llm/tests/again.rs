//! Answers that are given again: each golden answer and stream, kept as it came and wanted by every dialect, whole and as a
//! stream. What is said must be the same however it was kept and however it is wanted.
#![expect(clippy::unwrap_used, reason = "a test")]

mod wire;

use std::fs;
use std::path::Path;

use llm::again::{Kept, give, worth_keeping};
use llm::{Dialect, stream};
use wire::wire;

/// What an answer says, whoever has written it: its texts and calls of tools, as chat completions have them.
fn said(dialect: Dialect, stream: bool, body: &[u8]) -> Option<(serde_json::Value, (u64, u64))> {
    let given = give(&Kept { dialect, stream, body }, Dialect::OpenAiChat, false, &options())?;
    let mut body: serde_json::Value = serde_json::from_slice(&given.body).unwrap();
    let choice = body["choices"][0].take();
    let calls: Vec<_> = choice["message"]["tool_calls"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|call| {
            let arguments = call["function"]["arguments"].as_str().unwrap();
            let arguments = if arguments.is_empty() { "{}" } else { arguments };
            let arguments: serde_json::Value = serde_json::from_str(arguments).unwrap();
            serde_json::json!([call["function"]["name"], arguments])
        })
        .collect();
    // Some servers say that they stopped where they want a tool to be called.
    let stop = if calls.is_empty() { choice["finish_reason"].as_str() } else { Some("tool_calls") };
    Some((
        serde_json::json!({
            "text": choice["message"]["content"].as_str().unwrap_or_default(),
            "calls": calls,
            "stop": stop,
        }),
        // Anthropic's words always have one.
        given.usage.map_or((0, 0), |usage| (usage.prompt(), usage.completion())),
    ))
}

fn options() -> stream::Options<'static> {
    stream::Options { model: "asked", id: "call-1", now: 1_800_000_000, ..stream::Options::default() }
}

#[test]
fn an_answer_says_the_same_however_it_is_kept_and_however_it_is_wanted() {
    let mut checked = 0;
    for (what, is_stream) in [("answers", false), ("streams", true)] {
        each(what, |of, body, case| {
            let kept = Kept { dialect: of, stream: is_stream, body };
            if worth_keeping(&kept).is_none() {
                return;
            }
            let Some(expected) = said(of, is_stream, body) else { return };
            for caller in Dialect::ALL {
                for wanted in [false, true] {
                    let Some(given) = give(&kept, caller, wanted, &options()) else { continue };
                    let text = String::from_utf8_lossy(&given.body);
                    let Some(found) = said(caller, wanted, &given.body) else {
                        // A stream that tells how likely its tokens were is not put together.
                        assert!(text.contains("ogprobs"), "{of} {what} {case} → {caller} {wanted}: {text}");
                        continue;
                    };
                    assert_eq!(found, expected, "{of} {what} {case} → {caller}, as a stream: {wanted}");
                    checked += 1;
                }
            }
        });
    }
    // Five dialects, each with some, to five, in two shapes.
    assert!(checked > 100, "{checked}");
}

#[test]
fn what_is_cut_short_kept_back_or_failed_is_not_kept() {
    let mut worth = Vec::new();
    for (what, is_stream) in [("answers", false), ("streams", true)] {
        each(what, |of, body, case| {
            if worth_keeping(&Kept { dialect: of, stream: is_stream, body }).is_some() {
                worth.push(format!("{of}/{case}"));
            }
        });
    }
    for name in &worth {
        for word in ["failed", "incomplete", "blocked", "safety", "filtered", "refusal", "error", "cut", "garbled"] {
            assert!(!name.contains(word), "{name}");
        }
    }
    assert!(worth.len() > 10, "{worth:?}");
}

#[test]
fn a_stream_of_the_same_dialect_is_given_byte_for_byte() {
    each("streams", |of, body, case| {
        let kept = Kept { dialect: of, stream: true, body };
        if worth_keeping(&kept).is_some() {
            assert_eq!(give(&kept, of, true, &options()).unwrap().body, body, "{of} {case}");
        }
    });
}

#[test]
fn usage_is_told_to_those_who_ask() {
    let body = br#"{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}"#;
    let kept = Kept { dialect: Dialect::OpenAiChat, stream: false, body };
    for hide_usage in [false, true] {
        let given = give(&kept, Dialect::OpenAiChat, true, &stream::Options { hide_usage, ..options() }).unwrap();
        let text = String::from_utf8(given.body).unwrap();
        assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
        assert_eq!(text.contains("\"prompt_tokens\":3"), !hide_usage, "{text}");
        assert_eq!(given.usage.unwrap().total(), 4);
    }
}

#[test]
fn what_a_stream_has_no_word_for_is_not_given_as_one() {
    let body = br#"{"choices":[{"message":{"role":"assistant","content":"Hi","annotations":[{"type":"url_citation"}]},"finish_reason":"stop"}]}"#;
    let kept = Kept { dialect: Dialect::OpenAiChat, stream: false, body };
    assert_eq!(give(&kept, Dialect::OpenAiChat, false, &options()).unwrap().body, body);
    assert_eq!(give(&kept, Dialect::OpenAiChat, true, &options()), None);
}

fn each(what: &str, mut check: impl FnMut(Dialect, &[u8], &str)) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(what);
    for of in Dialect::ALL {
        let Ok(entries) = fs::read_dir(root.join(of.name())) else { continue };
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.retain(|file| file.extension().is_some_and(|end| end != "snap" && end != "new"));
        files.sort();
        for file in files {
            let body = fs::read(&file).unwrap();
            let body = if what == "streams" { wire(of, &body).to_vec() } else { body };
            check(of, &body, file.file_stem().unwrap().to_str().unwrap());
        }
    }
}

#[test]
fn an_event_is_what_its_data_says_whatever_its_name() {
    let mut checked = 0;
    each("streams", |of, body, case| {
        if !matches!(of, Dialect::Anthropic | Dialect::OpenAiResponses) {
            return;
        }
        let text = String::from_utf8_lossy(body);
        let nameless: String = text.split_inclusive('\n').filter(|line| !line.starts_with("event:")).collect();
        let watched = |body: &str| {
            let mut through = stream::Stream::new(of, of, &options()).unwrap();
            through.push(body.as_bytes(), &mut Vec::new());
            through.finish(&mut Vec::new());
            format!("{:?}", through.seen())
        };
        assert_eq!(watched(&nameless), watched(&text), "{case}");
        checked += 1;
    });
    assert!(checked >= 4, "{checked}");
}
