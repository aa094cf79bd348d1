//! Calls to models that cannot be understood, and answers that cannot: each is said in the caller's dialect, what was
//! reserved comes back, and the books say what is owed. The provider is a socket that says exactly what it is told to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use ledger::{Allowance, Class, Entry, Moment, Outcome, Record};
use serde_json::{Value, json};
use testkit::{Answer, Folder, Gateway, Raw, eventually};

/// A dialect as its SDK speaks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    Chat,
    Responses,
    Messages,
    Gemini,
}

use Dialect::{Chat, Gemini, Messages, Responses};

const ALL: [Dialect; 4] = [Chat, Responses, Messages, Gemini];

impl Dialect {
    fn path(self, model: &str, stream: bool) -> String {
        match self {
            Chat => "/v1/chat/completions".into(),
            Responses => "/v1/responses".into(),
            Messages => "/v1/messages".into(),
            Gemini if stream => format!("/v1beta/models/{model}:streamGenerateContent?alt=sse"),
            Gemini => format!("/v1beta/models/{model}:generateContent"),
        }
    }

    fn key(self) -> &'static str {
        match self {
            Chat | Responses => "authorization: Bearer caller-key\r\n",
            Messages => "x-api-key: caller-key\r\n",
            Gemini => "x-goog-api-key: caller-key\r\n",
        }
    }

    fn body(self, model: &str, stream: bool) -> Value {
        let text = "How high is the water?";
        match self {
            Chat => {
                json!({ "model": model, "stream": stream, "max_tokens": 100, "messages": [{ "role": "user", "content": text }] })
            }
            Responses => json!({ "model": model, "stream": stream, "max_output_tokens": 100, "input": text }),
            Messages => {
                json!({ "model": model, "stream": stream, "max_tokens": 100, "messages": [{ "role": "user", "content": text }] })
            }
            Gemini => {
                json!({ "contents": [{ "role": "user", "parts": [{ "text": text }] }], "generationConfig": { "maxOutputTokens": 100 } })
            }
        }
    }

    /// The field that holds the conversation, and what it is called deep inside.
    fn turns(self) -> &'static str {
        match self {
            Chat | Messages => "messages",
            Responses => "input",
            Gemini => "contents",
        }
    }

    /// An error as the SDK reads it: its kind, after the shape was looked at.
    #[track_caller]
    fn kind_of(self, error: &Value, status: Option<u16>) -> String {
        let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{self:?}: {error}")).to_owned();
        assert!(!text(&error["error"]["message"]).is_empty());
        match self {
            Chat | Responses => {
                let fields = error["error"].as_object().unwrap();
                assert!(fields.contains_key("param") && fields.contains_key("code"), "{error}");
                text(&error["error"]["type"])
            }
            Messages => {
                assert_eq!(error["type"], "error", "{error}");
                text(&error["error"]["type"])
            }
            Gemini => {
                let code = error["error"]["code"].as_u64();
                assert_eq!(code, status.map(u64::from).or(code), "{error}");
                text(&error["error"]["status"])
            }
        }
    }

    /// The error with which a stream ends, if it does.
    #[track_caller]
    fn error_in(self, stream: &str) -> Option<String> {
        let last = stream.trim_end().rsplit("\n\n").next()?;
        let data = last.lines().find_map(|line| line.strip_prefix("data: "))?;
        let value: Value = serde_json::from_str(data).ok()?;
        match self {
            Responses if value["type"] == "error" => {
                assert!(last.starts_with("event: error\n"), "{last}");
                Some(value["message"].as_str().unwrap().to_owned())
            }
            Responses => None,
            Messages if value["type"] == "error" => {
                assert!(last.starts_with("event: error\n"), "{last}");
                Some(self.kind_of(&value, None))
            }
            _ => value.get("error").map(|_| self.kind_of(&value, None)),
        }
    }
}

/// What the provider says next, to each who asks.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<(Vec<u8>, usize)>>);

impl Script {
    fn say(&self, bytes: impl Into<Vec<u8>>) {
        self.0.lock().unwrap().0 = bytes.into();
    }

    fn asked(&self) -> usize {
        self.0.lock().unwrap().1
    }
}

fn provider() -> (String, Script) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (url, script) = (format!("http://{}", listener.local_addr().unwrap()), Script::default());
    let told = script.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let told = told.clone();
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let (mut length, mut line) = (0, String::new());
                while reader.read_line(&mut line).is_ok_and(|read| read > 0) && line.trim_end() != "" {
                    if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap();
                    }
                    line.clear();
                }
                let mut body = vec![0; length];
                if reader.read_exact(&mut body).is_err() {
                    return;
                }
                let answer = {
                    let mut script = told.0.lock().unwrap();
                    script.1 += 1;
                    script.0.clone()
                };
                let _ = stream.write_all(&answer);
                let _ = stream.shutdown(Shutdown::Write);
                // Until the gateway has closed too, so that it reads all of it.
                let _ = reader.read_to_end(&mut Vec::new());
            });
        }
    });
    (url, script)
}

struct Room {
    script: Script,
    folder: Folder,
    gateway: Gateway,
}

impl Room {
    fn new() -> Room {
        let (url, script) = provider();
        let folder = Folder::new();
        folder.write("key", "sk-provider");
        let gateway = Gateway::start_in(
            &folder,
            &format!(
                "
providers:
  openai: {{ upstream: {url}/v1, keys: file:key }}
  anthropic: {{ upstream: \"{url}\", keys: file:key }}
  gemini: {{ upstream: {url}/v1beta, keys: file:key }}
models:
  openai: openai/gpt-4o
  anthropic: anthropic/claude-sonnet-4-5
  gemini: gemini/gemini-2.5-flash
ledger: {{ data: {} }}
budgets:
  money: {{ per: organisation, amount: 1000 USD }}
  tokens: {{ per: consumer, amount: 1G tokens, every: month }}
  calls: {{ per: key, amount: 1M calls, every: day }}
policies: {{ authenticate: {{ api-key: {{}} }} }}
consumers: {{ agent: {{ keys: [{{ id: k1, hash: \"sha256:d9f376b9bf894cc2c24e74981b01839a2dcf84bf07c5bb6bea376e90c4c7ae81\" }}] }} }}
apis: {{ brain: {{ llm: {{ answer: 4MiB }} }} }}",
                folder.path("books").display()
            ),
        );
        Room { script, folder, gateway }
    }

    fn send(&self, path: &str, fields: &str, body: &[u8]) -> Answer {
        let mut raw = Raw::connect(self.gateway.web());
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: weir\r\ncontent-type: application/json\r\n{fields}content-length: {}\r\n\r\n",
            body.len()
        );
        // Who is refused early need not have sent all of it.
        let _ = raw.try_send(head).and_then(|()| raw.try_send(body));
        raw.answer()
    }

    fn ask(&self, caller: Dialect, model: &str, stream: bool) -> Answer {
        let body = caller.body(model, stream).to_string();
        self.send(&caller.path(model, stream), caller.key(), body.as_bytes())
    }

    /// What is left of each budget, and what is spent of it.
    fn budgets(&self) -> Vec<(String, String, String)> {
        let accounts = self.gateway.node().snapshot().books.accounts(Moment::from(SystemTime::now()));
        let mut all: Vec<_> =
            accounts.iter().map(|it| (it.budget.to_string(), it.left.to_string(), it.spent.to_string())).collect();
        all.sort();
        all
    }

    fn entries(self) -> Vec<Entry> {
        let Room { script: _, folder, gateway } = self;
        drop(gateway);
        let records = journal::read(&folder.path("books"), None).unwrap();
        let entry = |record| if let Record::Entry(entry) = record { Some(entry) } else { None };
        records.filter_map(|it| entry(it.unwrap().1)).collect()
    }
}

// === From callers ===

#[test]
fn requests_that_cannot_be_understood_are_refused_in_the_callers_dialect_and_cost_nothing() {
    let room = Room::new();
    // So that there are accounts, with something spent.
    room.script.say(whole("openai"));
    assert_eq!(room.ask(Chat, "openai", false).status, 200);
    let before = room.budgets();
    assert_eq!(before.len(), 3, "{before:?}");
    let check = |what: &str, caller: Dialect, answer: Answer, status: u16, kinds: [&str; 3], word: &str| {
        let said = format!("{what}, {caller:?}: {} {}", answer.status, answer.text());
        assert_eq!(answer.status, status, "{said}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{said}");
        let kind = caller.kind_of(&answer.json(), Some(status));
        let expected = match caller {
            Chat | Responses => kinds[0],
            Messages => kinds[1],
            Gemini => kinds[2],
        };
        assert_eq!(kind, expected, "{said}");
        assert!(answer.json()["error"]["message"].as_str().unwrap().contains(word), "{said}");
    };
    const INVALID: [&str; 3] = ["invalid_request_error", "invalid_request_error", "INVALID_ARGUMENT"];
    for caller in ALL {
        let (path, turns) = (caller.path("openai", false), caller.turns());
        let body = caller.body("openai", false).to_string();
        let bad = |what: &str, body: &str, word: &str| {
            let answer = room.send(&path, caller.key(), body.as_bytes());
            check(what, caller, answer, 400, INVALID, word);
        };
        bad("nothing", "", "");
        bad("no JSON", "the water is high", "");
        bad("cut JSON", &body[..body.len() - 3], "");
        bad("more than JSON", &format!("{body} {{}}"), "more data");
        bad("no object", "[1, 2]", "object");
        let twice = body.replacen('{', &format!("{{\"{turns}\":[],"), 1);
        bad("a key twice", &twice, turns);
        let spelled = turns.replacen(&turns[..1], &format!("\\u{:04x}", turns.as_bytes()[0]), 1);
        bad("a key twice, spelled otherwise", &body.replacen('{', &format!("{{\"{spelled}\":[],"), 1), turns);
        for wrong in ["7", "true", "{\"a\":1}", "[7]"] {
            let mut body = caller.body("openai", false);
            body[turns] = serde_json::from_str(wrong).unwrap();
            bad(&format!("{turns} is {wrong}"), &body.to_string(), turns);
        }
        if caller != Gemini {
            let mut body = caller.body("openai", false);
            body["model"] = 7.into();
            bad("a model that is a number", &body.to_string(), "model");
            body.as_object_mut().unwrap().remove("model");
            bad("no model", &body.to_string(), "model");
            body["model"] = "openai".into();
            body["stream"] = "yes".into();
            bad("stream is a text", &body.to_string(), "stream");
        }
        for deep in [200, 100_000] {
            let nested = format!("{}1{}", "[".repeat(deep), "]".repeat(deep));
            bad("deep", &body.replacen('{', &format!("{{\"x\":{nested},"), 1), "deep");
        }
        let not_utf8 = [&b"{\"a\":\"\xff\xfe\","[..], &body.as_bytes()[1..]].concat();
        let answer = room.send(&path, caller.key(), &not_utf8);
        check("not UTF-8", caller, answer, 400, INVALID, "UTF-8");

        let answer = room.ask(caller, "absent", false);
        check(
            "unknown model",
            caller,
            answer,
            404,
            ["invalid_request_error", "not_found_error", "NOT_FOUND"],
            "absent",
        );
        for fields in ["", "authorization: Bearer other\r\n", "x-api-key: other\r\n"] {
            let answer = room.send(&path, fields, body.as_bytes());
            let kinds = ["authentication_error", "authentication_error", "UNAUTHENTICATED"];
            check("no key", caller, answer, 401, kinds, "");
        }
        let large = body.replacen("the water", &"w".repeat(50 << 20), 1);
        let answer = room.send(&path, caller.key(), large.as_bytes());
        let kinds = ["invalid_request_error", "request_too_large", "INVALID_ARGUMENT"];
        check("50 MB", caller, answer, 413, kinds, "larger");
    }
    assert_eq!(room.script.asked(), 1, "the provider has heard of none of them");
    assert_eq!(room.budgets(), before);
    assert_eq!(room.entries().len(), 1, "nothing is booked but the call that was served");
}

// === From providers ===

const MODELS: [&str; 3] = ["openai", "anthropic", "gemini"];

/// The provider's answer, in the dialect in which it is asked by this caller.
fn speaks(model: &str, caller: Dialect) -> Dialect {
    match (model, caller) {
        ("openai", Responses) => Responses,
        ("openai", _) => Chat,
        ("anthropic", _) => Messages,
        _ => Gemini,
    }
}

fn answer(kind: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    // Said, since the connection closes: else the next call may find it before the end has arrived.
    let close = "connection: close";
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n{close}\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// A body that ends where the connection does.
fn open(kind: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n");
    [head.as_bytes(), body.as_ref()].concat()
}

/// 20 tokens in, 5 out.
fn body_of(spoken: Dialect) -> String {
    let text = "The water is held back";
    match spoken {
        Chat => json!({ "id": "c", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [{ "index": 0, "message": { "role": "assistant", "content": text }, "finish_reason": "stop" }],
            "usage": { "prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25 } }),
        Responses => json!({ "id": "r", "object": "response", "created_at": 1, "status": "completed", "model": "m",
            "output": [{ "id": "o", "type": "message", "role": "assistant", "status": "completed",
                "content": [{ "type": "output_text", "text": text, "annotations": [] }] }],
            "usage": { "input_tokens": 20, "output_tokens": 5, "total_tokens": 25 } }),
        Messages => json!({ "id": "a", "type": "message", "role": "assistant", "model": "m",
            "content": [{ "type": "text", "text": text }], "stop_reason": "end_turn", "stop_sequence": null,
            "usage": { "input_tokens": 20, "output_tokens": 5 } }),
        Gemini => json!({ "candidates": [{ "content": { "role": "model", "parts": [{ "text": text }] }, "finishReason": "STOP", "index": 0 }],
            "usageMetadata": { "promptTokenCount": 20, "candidatesTokenCount": 5, "totalTokenCount": 25 }, "modelVersion": "m" }),
    }
    .to_string()
}

fn whole(model: &str) -> Vec<u8> {
    answer("application/json", body_of(speaks(model, Chat)))
}

/// A stream in its parts: the beginning with one piece of text, another piece, what tells the end and the usage, and the
/// word that says that it was the last, where the dialect has one.
fn stream_of(spoken: Dialect) -> [String; 4] {
    let named = |value: Value| format!("event: {}\ndata: {value}\n\n", value["type"].as_str().unwrap());
    let data = |value: Value| format!("data: {value}\n\n");
    match spoken {
        Chat => {
            let piece = |delta: Value, finish: Value| {
                data(json!({ "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
                    "choices": [{ "index": 0, "delta": delta, "finish_reason": finish }] }))
            };
            let usage = data(json!({ "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
                "choices": [], "usage": { "prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25 } }));
            [
                piece(json!({ "role": "assistant", "content": "The water" }), Value::Null),
                piece(json!({ "content": " is held back" }), Value::Null),
                piece(json!({}), "stop".into()) + &usage,
                "data: [DONE]\n\n".into(),
            ]
        }
        Responses => {
            let item =
                json!({ "id": "o", "type": "message", "role": "assistant", "status": "in_progress", "content": [] });
            let part = json!({ "type": "output_text", "text": "", "annotations": [] });
            let made = json!({ "id": "r", "object": "response", "created_at": 1, "status": "in_progress", "model": "m", "output": [] });
            let delta = |text: &str, number: u64| {
                named(json!({ "type": "response.output_text.delta", "sequence_number": number, "item_id": "o",
                    "output_index": 0, "content_index": 0, "delta": text }))
            };
            let ended: Value = serde_json::from_str(&body_of(Responses)).unwrap();
            [
                named(json!({ "type": "response.created", "sequence_number": 0, "response": made }))
                    + &named(
                        json!({ "type": "response.output_item.added", "sequence_number": 1, "output_index": 0, "item": item }),
                    )
                    + &named(json!({ "type": "response.content_part.added", "sequence_number": 2, "item_id": "o",
                        "output_index": 0, "content_index": 0, "part": part }))
                    + &delta("The water", 3),
                delta(" is held back", 4),
                String::new(),
                named(json!({ "type": "response.completed", "sequence_number": 5, "response": ended })),
            ]
        }
        Messages => {
            let message = json!({ "id": "a", "type": "message", "role": "assistant", "model": "m", "content": [],
                "stop_reason": null, "stop_sequence": null, "usage": { "input_tokens": 20, "output_tokens": 1 } });
            let delta = |text: &str| {
                named(
                    json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": text } }),
                )
            };
            [
                named(json!({ "type": "message_start", "message": message }))
                    + &named(
                        json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "text", "text": "" } }),
                    )
                    + &delta("The water"),
                delta(" is held back"),
                named(json!({ "type": "content_block_stop", "index": 0 }))
                    + &named(
                        json!({ "type": "message_delta", "delta": { "stop_reason": "end_turn", "stop_sequence": null },
                        "usage": { "output_tokens": 5 } }),
                    ),
                named(json!({ "type": "message_stop" })),
            ]
        }
        Gemini => {
            let piece = |text: &str, more: Value| {
                let mut value = json!({ "candidates": [{ "content": { "role": "model", "parts": [{ "text": text }] }, "index": 0 }] });
                if !more.is_null() {
                    value["candidates"][0]["finishReason"] = "STOP".into();
                    value["usageMetadata"] = more;
                }
                data(value)
            };
            let usage = json!({ "promptTokenCount": 20, "candidatesTokenCount": 5, "totalTokenCount": 25 });
            [piece("The water", Value::Null), piece(" is held", Value::Null), String::new(), piece(" back", usage)]
        }
    }
}

fn units(amount: Allowance) -> i128 {
    match amount {
        Allowance::Money(money) => money.units(),
        Allowance::Tokens(count) | Allowance::Calls(count) => count.into(),
    }
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug)]
enum End {
    /// 502, and an entry for what may have been charged.
    Refused,
    /// The stream ends with an error.
    Broken,
    /// All of it came.
    Whole,
}

use End::{Broken, Refused, Whole};

const JSON: &str = "application/json";
const SSE: &str = "text/event-stream";
const HTML: &str = "<!doctype html><html><body><h1>502 Bad Gateway</h1></body></html>";

/// Answers to a call that is to be answered as a whole.
fn answers(spoken: Dialect) -> Vec<(&'static str, Vec<u8>, End)> {
    let body = body_of(spoken);
    let cut = &body[..body.len() / 2];
    let short = format!("HTTP/1.1 200 OK\r\ncontent-type: {JSON}\r\ncontent-length: {}\r\n\r\n{cut}", body.len());
    vec![
        ("whole", answer(JSON, &body), Whole),
        ("whole with white space", answer(JSON, format!("\n {body} \r\n")), Whole),
        ("whole under a wrong name", answer("text/plain", &body), Whole),
        ("a page", answer("text/html", HTML), Refused),
        ("a page under a wrong name", answer(JSON, HTML), Refused),
        ("nothing", answer(JSON, ""), Refused),
        ("null", answer(JSON, "null"), Refused),
        ("an array", answer(JSON, format!("[{body}]")), Refused),
        ("half", answer(JSON, cut), Refused),
        ("half, and the connection gone", short.into(), Refused),
        ("garbage after it", answer(JSON, format!("{body}garbage")), Refused),
        ("another after it", answer(JSON, format!("{body}{body}")), Refused),
        ("a stream", answer(SSE, stream_of(spoken).concat()), Refused),
        ("more than is taken", answer(JSON, body.replacen("The", &"w".repeat(10 << 20), 1)), Refused),
    ]
}

/// Answers to a call that is to be answered as a stream.
fn streams(spoken: Dialect, same: bool) -> Vec<(&'static str, Vec<u8>, End)> {
    let [begin, more, stop, last] = stream_of(spoken);
    let all = [&*begin, &*more, &*stop, &*last].concat();
    let half = &more[..more.len() / 2];
    let large = more.replacen("held", &"w".repeat(10 << 20), 1);
    vec![
        ("whole", open(SSE, &all), Whole),
        ("whole without a length", answer("Text/Event-Stream; charset=utf-8", &all), Whole),
        ("a page", answer("text/html", HTML), Refused),
        ("a page under a wrong name", answer(SSE, HTML), Refused),
        ("an answer that is whole", answer(JSON, body_of(spoken)), Refused),
        ("a stream under a wrong name", answer("text/plain", &all), Refused),
        ("nothing", answer(SSE, ""), Refused),
        ("nothing but comments", answer(SSE, ": ping\n\n: ping\n\n"), Refused),
        ("half of the first event", open(SSE, &begin[..begin.find("\n\n").unwrap() / 2]), Refused),
        ("no JSON", answer(SSE, "data: the water\n\n"), Refused),
        ("half an event", open(SSE, format!("{begin}{half}")), Broken),
        ("no end", open(SSE, format!("{begin}{more}")), Broken),
        // The model had finished, and Gemini and responses say so with their last word alone.
        ("no last word", open(SSE, format!("{begin}{more}{stop}")), if stop.is_empty() { Broken } else { Whole }),
        ("a last event without its end", open(SSE, all.trim_end()), Whole),
        ("garbage after it", open(SSE, format!("{all}<html>garbage\n\n")), Whole),
        // It passes where nobody must read it.
        ("an event of 10 MB", open(SSE, format!("{begin}{large}{stop}{last}")), if same { Whole } else { Broken }),
    ]
}

#[test]
fn answers_that_cannot_be_understood_are_said_in_the_callers_dialect_and_booked_as_what_they_may_cost() {
    let room = Room::new();
    let mut expected = Vec::new();
    for (caller, model) in ALL.into_iter().flat_map(|caller| MODELS.map(|model| (caller, model))) {
        let spoken = speaks(model, caller);
        let cases = answers(spoken).into_iter().map(|case| (false, case));
        for (stream, (what, bytes, end)) in
            cases.chain(streams(spoken, caller == spoken).into_iter().map(|case| (true, case)))
        {
            let what = format!("{what}, {}, {caller:?} by {model}", if stream { "a stream" } else { "whole" });
            room.script.say(bytes);
            let answer = room.ask(caller, model, stream);
            let short: String = answer.text().chars().take(3000).collect();
            let said = format!("{what}: {} {short}", answer.status);
            match end {
                Refused => {
                    assert_eq!(answer.status, 502, "{said}");
                    let kind = caller.kind_of(&answer.json(), Some(502));
                    let kinds = ["server_error", "api_error", "INTERNAL"];
                    assert!(kinds.contains(&&*kind), "{said}");
                }
                Broken => {
                    assert_eq!(answer.status, 200, "{said}");
                    assert!(answer.text().contains("The water"), "{said}");
                    assert!(caller.error_in(&answer.text()).is_some(), "{said}");
                }
                Whole => {
                    assert_eq!(answer.status, 200, "{said}");
                    assert!(answer.complete, "{said}");
                    assert_eq!(caller.error_in(&answer.text()), None, "{said}");
                    match stream {
                        true => assert!(answer.header("content-type").unwrap().starts_with(SSE), "{said}"),
                        false => assert!(answer.json().is_object(), "{said}"),
                    }
                }
            }
            expected.push((what, end));
        }
    }
    // Whatever was reserved is spent or there again.
    eventually("nothing is reserved any more", || {
        let accounts = room.gateway.node().snapshot().books.accounts(Moment::from(SystemTime::now()));
        accounts.len() == 3 && accounts.iter().all(|it| units(it.left) + units(it.spent) == units(it.allowance))
    });
    let accounts = room.gateway.node().snapshot().books.accounts(Moment::from(SystemTime::now()));
    let entries = room.entries();
    assert_eq!(entries.len(), expected.len());
    for (entry, (what, end)) in entries.iter().zip(&expected) {
        let found = (entry.class, entry.outcome, entry.estimated, entry.usage.prompt(), entry.usage.completion());
        match end {
            Whole => assert_eq!(found, (Class::Useful, Outcome::Answered, false, 20, 5), "{what}"),
            Broken => {
                assert_eq!(
                    (entry.class, entry.outcome, entry.estimated),
                    (Class::FailedBilled, Outcome::Cut, true),
                    "{what}"
                );
                assert!((1..60).contains(&entry.usage.prompt()) && entry.usage.completion() >= 1, "{what}: {entry:?}");
            }
            Refused => {
                assert_eq!((entry.class, entry.estimated), (Class::FailedBilled, true), "{what}");
                assert!((1..60).contains(&entry.usage.prompt()) && entry.usage.completion() == 0, "{what}: {entry:?}");
            }
        }
    }
    let sum = entries.iter().map(|it| it.cost).sum::<ledger::Money>();
    let money = accounts.iter().find(|it| &*it.budget == "money").unwrap();
    assert_eq!(money.spent, Allowance::Money(sum));
}

#[test]
fn an_answer_that_answers_nothing_passes_as_it_is_and_is_booked_as_a_failure() {
    let room = Room::new();
    let failed = (Class::Failed, Outcome::Failed, 0, 0);
    let billed = (Class::FailedBilled, Outcome::Failed, 20, 3);
    let useful = (Class::Useful, Outcome::Answered, 20, 3);
    let mut expected = Vec::new();
    for (caller, model) in [(Chat, "openai"), (Responses, "openai"), (Messages, "anthropic"), (Gemini, "gemini")] {
        let usage = match caller {
            Chat => json!({ "usage": { "prompt_tokens": 20, "completion_tokens": 3, "total_tokens": 23 } }),
            Responses | Messages => json!({ "usage": { "input_tokens": 20, "output_tokens": 3 } }),
            Gemini => {
                json!({ "usageMetadata": { "promptTokenCount": 20, "candidatesTokenCount": 3, "totalTokenCount": 23 } })
            }
        };
        let with = |mut value: Value| {
            value.as_object_mut().unwrap().extend(usage.as_object().unwrap().clone());
            value.to_string()
        };
        let error = json!({ "type": "error", "error": { "type": "overloaded_error", "message": "Overloaded", "status": "UNAVAILABLE", "code": 503 } });
        // What has all that an answer has, and says nothing: a model may do that.
        let silent = match caller {
            Chat => {
                json!({ "choices": [{ "index": 0, "message": { "role": "assistant", "content": null } }], "error": null })
            }
            Responses => json!({ "status": "incomplete", "error": null, "output": [] }),
            Messages => json!({ "type": "message", "content": [], "stop_reason": "end_turn" }),
            Gemini => json!({ "promptFeedback": { "blockReason": "SAFETY" } }),
        };
        let mut cases = vec![
            ("{}".to_owned(), failed),
            (" { } \n".to_owned(), failed),
            (error.to_string(), failed),
            (json!({ "error": "overloaded" }).to_string(), failed),
            (with(error), billed),
            (with(json!({ "id": "x" })), billed),
            (with(silent), useful),
        ];
        match caller {
            Chat => cases.push((json!({ "choices": [], "object": "chat.completion" }).to_string(), failed)),
            Responses => {
                let status =
                    json!({ "status": "failed", "error": { "code": "server_error", "message": "no" }, "output": [] });
                cases.push((with(status), billed));
            }
            Messages | Gemini => {}
        }
        for (body, booked) in cases {
            room.script.say(answer(JSON, &body));
            let answer = room.ask(caller, model, false);
            assert_eq!((answer.status, answer.text()), (200, body.clone()), "{caller:?}");
            expected.push((format!("{caller:?}: {body}"), booked));
        }
    }
    let spent = room.budgets();
    let entries = room.entries();
    assert_eq!(entries.len(), expected.len());
    for (entry, (what, booked)) in entries.iter().zip(&expected) {
        let found = (entry.class, entry.outcome, entry.usage.prompt(), entry.usage.completion());
        assert_eq!((found, entry.estimated), (*booked, false), "{what}");
        assert_eq!(entry.cost > ledger::Money::ZERO, booked.2 > 0, "{what}");
    }
    let sum = entries.iter().map(|it| it.cost).sum::<ledger::Money>();
    assert_eq!(spent[1].2, sum.to_string(), "{spent:?}");
}
