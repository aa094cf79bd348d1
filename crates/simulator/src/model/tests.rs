use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};

use crate::tests::h1;
use crate::{Ended, Entry, Options, Simulator, Usage};

fn provider() -> Simulator {
    Simulator::start(Options::provider("models")).unwrap()
}

fn ask(path: &str, body: Value) -> Request<Full<Bytes>> {
    let request = Request::post(path).header("host", "simulator").header("authorization", "Bearer k");
    let request = request.header("x-api-key", "k").header("x-goog-api-key", "k");
    request.header("anthropic-version", "2023-06-01").body(Full::new(body.to_string().into())).unwrap()
}

/// The same question in every dialect, whole or as a stream.
fn dialects(prompt: &str, stream: bool) -> Vec<Request<Full<Bytes>>> {
    let messages = json!([{"role": "user", "content": prompt}]);
    let contents = json!({"contents": [{"role": "user", "parts": [{"text": prompt}]}]});
    let options = if stream { json!({"include_usage": true}) } else { Value::Null };
    let verb = if stream { "streamGenerateContent?alt=sse" } else { "generateContent" };
    let converse = if stream { "converse-stream" } else { "converse" };
    vec![
        ask(
            "/v1/chat/completions",
            json!({"model": "m", "messages": messages, "stream": stream, "stream_options": options}),
        ),
        ask("/v1/responses", json!({"model": "m", "input": prompt, "stream": stream})),
        ask("/v1/messages", json!({"model": "m", "messages": messages, "max_tokens": 100, "stream": stream})),
        ask(&format!("/v1beta/models/m:{verb}"), contents),
        ask(&format!("/model/m/{converse}"), json!({"messages": [{"role": "user", "content": [{"text": prompt}]}]})),
    ]
}

#[track_caller]
fn entries(simulator: &Simulator, count: usize) -> Vec<Entry> {
    let end = Instant::now() + Duration::from_secs(10);
    while simulator.books().len() < count {
        assert!(Instant::now() < end, "never: {count} entries, there are {:?}", simulator.books());
        std::thread::sleep(Duration::from_millis(2));
    }
    simulator.books()
}

#[test]
fn usage_is_told_as_it_is_booked() {
    let simulator = provider();
    let expected = Usage { input: 50, cached: 20, written: 0, output: 12, reasoning: 5 };
    let words = "[sim input=50 cached=20 reasoning=5 tokens=7 tag=t]";
    let wholes: Vec<Value> = dialects(words, false)
        .into_iter()
        .map(|request| serde_json::from_slice(&h1(&simulator, request).unwrap().body).unwrap())
        .collect();
    for (told, figures) in [
        (&wholes[0]["usage"], json!({"prompt_tokens": 50, "completion_tokens": 12, "total_tokens": 62})),
        (&wholes[1]["usage"], json!({"input_tokens": 50, "output_tokens": 12, "total_tokens": 62})),
        (&wholes[2]["usage"], json!({"input_tokens": 30, "cache_read_input_tokens": 20, "output_tokens": 12})),
        (
            &wholes[3]["usageMetadata"],
            json!({"promptTokenCount": 50, "candidatesTokenCount": 7, "thoughtsTokenCount": 5}),
        ),
        (&wholes[4]["usage"], json!({"inputTokens": 30, "cacheReadInputTokens": 20, "outputTokens": 12})),
    ] {
        for (name, figure) in figures.as_object().unwrap() {
            assert_eq!(&told[name], figure, "{name} in {told}");
        }
    }
    for request in dialects(words, true) {
        assert_eq!(h1(&simulator, request).unwrap().head.status(), 200);
    }
    let entries = entries(&simulator, 10);
    for entry in &entries {
        assert_eq!((entry.ended, entry.usage, entry.told), (Ended::Completed, expected, true), "{entry:?}");
        assert_eq!((entry.tag.as_deref(), entry.status, entry.key.as_str()), (Some("t"), 200, "k"));
    }
    assert_eq!(entries.iter().filter(|entry| entry.stream).count(), 5);
    let books = h1(&simulator, crate::tests::get("/books?since=9")).unwrap().body;
    let books: Value = serde_json::from_slice(&books).unwrap();
    assert_eq!(books["calls"][0]["number"], 10);
    assert_eq!(books["sum"]["output"], 120);
}

#[test]
fn what_is_not_told_is_billed_all_the_same() {
    let simulator = provider();
    for stream in [false, true] {
        for request in dialects("[sim no-usage tokens=3]", stream) {
            let body = h1(&simulator, request).unwrap().body;
            let body = String::from_utf8_lossy(&body).replace("\"max_output_tokens\":", "");
            assert!(!body.contains("okens\":") && !body.contains("TokenCount"), "{body}");
        }
    }
    for entry in entries(&simulator, 10) {
        assert_eq!((entry.usage.output, entry.told), (3, false), "{entry:?}");
    }
}

#[test]
fn streams_go_wrong_as_they_are_told() {
    let simulator = provider();
    let said = |words: &str, number: usize| {
        let request = dialects(&format!("[sim {words}]"), true).swap_remove(number);
        h1(&simulator, request).map(|got| String::from_utf8_lossy(&got.body).into_owned())
    };
    for number in 0..5 {
        assert!(said("cut=2", number).is_err(), "{number}");
        let page = said("html", number).unwrap();
        assert!(page.starts_with("<html>"), "{page}");
        let (whole, half) = (said("tokens=4", number).unwrap(), said("tokens=4 half=2", number).unwrap());
        assert!(half.len() < whole.len() && !half.ends_with("\n\n"), "{half}");
        let failed = said("error=2", number).unwrap();
        assert!(failed.contains("verloaded"), "{failed}");
    }
    assert!(said("tokens=1", 0).unwrap().ends_with("data: [DONE]\n\n"));
    assert!(!said("tokens=1 undone", 0).unwrap().contains("[DONE]"));
    assert!(!said("tokens=1 undone", 2).unwrap().contains("message_stop"));
    assert!(said("big", 0).unwrap().len() > 10 << 20);
    let garbage = said("tokens=1 garbage=1", 0).unwrap();
    let second = garbage.split("\n\n").nth(1).unwrap().strip_prefix("data: ").unwrap();
    assert!(serde_json::from_str::<Value>(second).is_err(), "{second}");
    assert!(garbage.ends_with("[DONE]\n\n"));
}

#[test]
fn other_answers_go_wrong_too() {
    let simulator = provider();
    for number in 0..5 {
        let said = |words: &str| h1(&simulator, dialects(&format!("[sim {words}]"), false).swap_remove(number));
        assert!(said("cut").is_err());
        let half = said("half").unwrap();
        assert_eq!(half.head.status(), 200);
        assert!(serde_json::from_slice::<Value>(&half.body).is_err());
        let refused = said("status=429 retry-after=7").unwrap();
        assert_eq!(
            (refused.head.status().as_u16(), &refused.head.headers()["retry-after"]),
            (429, &"7".parse().unwrap())
        );
        // Only once.
        assert_eq!(said("status=503 times=1").unwrap().head.status().as_u16(), if number == 0 { 503 } else { 200 });
        assert_eq!(said("status=503 times=1").unwrap().head.status(), 200);
        assert_eq!(said("whatever").unwrap().head.status(), 400);
    }
    let cut = simulator.books().into_iter().find(|entry| entry.ended == Ended::Cut).unwrap();
    assert_eq!((cut.usage.output, cut.told), (16, false));
}

#[test]
fn who_leaves_pays_for_what_was_made() {
    let simulator = provider();
    for (number, stream) in [true, false].into_iter().enumerate() {
        let body = json!({
            "model": "m", "stream": stream,
            "messages": [{"role": "user", "content": "[sim tokens=1000 every=5ms input=9]"}],
        })
        .to_string();
        let mut client = TcpStream::connect(simulator.address()).unwrap();
        let length = body.len();
        write!(
            client,
            "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer k\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        if stream {
            let mut seen = Vec::new();
            while seen.windows(5).filter(|window| window == b"delta").count() < 4 {
                let mut some = [0; 500];
                let read = client.read(&mut some).unwrap();
                seen.extend_from_slice(&some[..read]);
            }
        } else {
            std::thread::sleep(Duration::from_millis(30));
        }
        drop(client);
        let entry = entries(&simulator, number + 1).pop().unwrap();
        assert_eq!((entry.ended, entry.usage.input), (Ended::Cancelled, 9), "{entry:?}");
        assert!((1..1000).contains(&entry.usage.output), "{entry:?}");
    }
}

#[test]
fn only_known_callers_and_models() {
    let simulator = provider();
    for mut request in dialects("hello", false) {
        for name in ["authorization", "x-api-key", "x-goog-api-key"] {
            request.headers_mut().remove(name);
        }
        let bedrock = request.uri().path().starts_with("/model/");
        let gemini = request.uri().path().starts_with("/v1beta");
        let expected = if bedrock {
            403
        } else if gemini {
            400
        } else {
            401
        };
        assert_eq!(h1(&simulator, request).unwrap().head.status().as_u16(), expected);
    }
    let request = ask("/model/no-such/converse", json!({"messages": [{"role": "user", "content": [{"text": "a"}]}]}));
    let got = h1(&simulator, request).unwrap();
    assert_eq!(
        (got.head.status().as_u16(), &got.head.headers()["x-amzn-errortype"]),
        (404, &"ResourceNotFoundException".parse().unwrap())
    );
    let mut request = dialects("hello", false).pop().unwrap();
    let authorization = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261124/us-east-1/bedrock/aws4_request, \
                         SignedHeaders=host;x-amz-date, Signature=00";
    request.headers_mut().insert("authorization", authorization.parse().unwrap());
    request.headers_mut().insert("x-amz-date", "20261124T000000Z".parse().unwrap());
    let got = h1(&simulator, request).unwrap();
    assert_eq!(got.head.headers()["x-amzn-errortype"], "InvalidSignatureException");
    assert!(simulator.books().iter().all(|entry| entry.usage == Usage::default()));
}
