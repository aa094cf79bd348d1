//! Answers of models that are given again, through the front door: whose they are, what of them is kept, who waits for
//! whom, how they are booked. The provider is the simulator, which counts the calls that reach it.

use std::sync::{Arc, Barrier};
use std::thread;

use base::StatusCode;
use ledger::{Class, Entry, Money, Record};
use proxy::{Purge, What};
use serde_json::{Value, json};
use simulator::{Options, Simulator};
use testkit::{Answer, Folder, Gateway, Raw, eventually};

use crate::sdk;

struct Room {
    provider: Simulator,
    folder: Folder,
    gateway: Gateway,
}

const POLICIES: &str = "policies: { answer-cache: {} }";

impl Room {
    /// An api of models with a model `m` of OpenAI's and a model `a` of Anthropic's, and an access log.
    fn new(more: &str) -> Room {
        let provider = Simulator::start(Options::provider("models")).unwrap();
        let folder = Folder::new();
        folder.write("key", "sk-provider");
        let gateway = Gateway::start_in(&folder, &document(&provider, &folder, more));
        Room { provider, folder, gateway }
    }

    fn asked(&self) -> usize {
        self.provider.books().len()
    }

    fn post(&self, path: &str, body: &Value, fields: &str) -> Answer {
        post(&self.gateway, path, body, fields)
    }

    #[track_caller]
    fn chat(&self, body: &Value, fields: &str) -> Answer {
        let answer = self.post("/v1/chat/completions", body, fields);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer
    }

    /// What is in the journal, once nothing is written to it any more.
    fn entries(self) -> Vec<Entry> {
        let Room { folder, gateway, .. } = self;
        drop(gateway);
        let records = journal::read(&folder.path("books"), None).unwrap();
        let entry = |record| if let Record::Entry(entry) = record { Some(entry) } else { None };
        records.filter_map(|it| entry(it.unwrap().1)).collect()
    }
}

fn document(provider: &Simulator, folder: &Folder, more: &str) -> String {
    let url = provider.url();
    format!(
        "
providers:
  openai: {{ upstream: {url}/v1, keys: file:key }}
  anthropic: {{ upstream: \"{url}\", keys: file:key }}
models: {{ m: openai/gpt-4o, a: anthropic/claude-sonnet-4-5, e: openai/text-embedding-3-small }}
ledger: {{ data: {} }}
telemetry: {{ metrics: '127.0.0.1:0', access-log: 'file:{}' }}
apis: {{ brain: {{ llm: {{}} }} }}
{more}",
        folder.path("books").display(),
        folder.path("access.log").display()
    )
}

fn post(gateway: &Gateway, path: &str, body: &Value, fields: &str) -> Answer {
    let body = body.to_string();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: weir\r\ncontent-type: application/json\r\n{fields}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    Raw::connect(gateway.web()).send(request).answer()
}

fn ask(model: &str, words: &str) -> Value {
    json!({ "model": model, "messages": [{ "role": "user", "content": format!("Say something. [sim {words}]") }] })
}

fn with(mut body: Value, key: &str, value: impl Into<Value>) -> Value {
    body[key] = value.into();
    body
}

fn status(answer: &Answer) -> &str {
    answer.header("cache-status").unwrap_or("none")
}

#[test]
fn the_same_question_is_asked_once_in_whichever_words_and_shape() {
    for model in ["m", "a"] {
        let room = Room::new(POLICIES);
        let question = with(ask(model, "tokens=5 input=20"), "max_tokens", 100);
        let first = room.chat(&question, "");
        assert_eq!(status(&first), "weir; fwd=miss; fwd-status=200; stored");
        let again = room.chat(&question, "");
        assert_eq!((again.text(), again.header("weir-model")), (first.text(), first.header("weir-model")));
        assert!(status(&again).starts_with("weir; hit; ttl=3"), "{}", status(&again));
        assert!(again.header("age").is_some() && first.header("age").is_none());

        // As a stream, with the usage if that is asked for.
        let streamed = room.chat(&with(question.clone(), "stream", true), "");
        assert_eq!(streamed.header("content-type"), Some("text/event-stream"));
        let text = streamed.text();
        assert!(text.contains("The water is held back") && text.ends_with("data: [DONE]\n\n"), "{text}");
        assert!(!text.contains("prompt_tokens"), "{text}");
        let usage = with(with(question.clone(), "stream", true), "stream_options", json!({ "include_usage": true }));
        assert!(room.chat(&usage, "").text().contains("\"prompt_tokens\":20"));

        // By Anthropic's words, whole and as a stream; by OpenAI's others.
        let message = room.post("/v1/messages", &question, "");
        assert_eq!(message.json()["content"][0]["text"], "The water is held back", "{}", message.text());
        let events = room.post("/v1/messages", &with(question.clone(), "stream", true), "").text();
        assert!(events.contains("event: message_stop") && events.contains("\"input_tokens\":20"), "{events}");
        let response = json!({
            "model": model, "input": question["messages"][0]["content"], "max_output_tokens": 100
        });
        let answer = room.post("/v1/responses", &response, "");
        assert_eq!(answer.json()["output"][0]["content"][0]["text"], "The water is held back", "{}", answer.text());
        assert_eq!(room.asked(), 1, "{model}");
    }
}

#[test]
fn what_was_a_stream_is_one_again_and_whole_for_those_who_want_it_so() {
    for model in ["m", "a"] {
        let room = Room::new(POLICIES);
        let question = with(with(ask(model, "tokens=5 input=20"), "max_tokens", 100), "stream", true);
        let first = room.chat(&question, "");
        assert_eq!(status(&first), "weir; fwd=miss; fwd-status=200");
        let again = room.chat(&question, "");
        assert_eq!(again.text(), first.text());
        assert!(status(&again).starts_with("weir; hit"), "{}", status(&again));
        let whole = room.chat(&with(question.clone(), "stream", false), "").json();
        assert_eq!(whole["choices"][0]["message"]["content"], "The water is held back", "{whole}");
        assert_eq!((&whole["usage"]["prompt_tokens"], &whole["usage"]["completion_tokens"]), (&json!(20), &json!(5)));
        let events = room.post("/v1/messages", &question, "").text();
        assert!(events.contains("event: message_stop"), "{events}");
        assert_eq!(room.asked(), 1, "{model}");
    }
}

#[test]
fn tools_that_are_to_be_called_are_called_again_and_embeddings_are_known() {
    let room = Room::new(POLICIES);
    let tool = json!({ "type": "function", "function": { "name": "f", "parameters": {
        "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"] } } });
    let question = with(ask("m", "calls=1 input=20"), "tools", json!([tool]));
    let first = room.chat(&question, "").json();
    assert_eq!(first["choices"][0]["finish_reason"], "tool_calls", "{first}");
    assert_eq!(room.chat(&question, "").json(), first);
    let streamed = room.chat(&with(question, "stream", true), "").text();
    assert!(streamed.contains("\"name\":\"f\"") && streamed.contains("tool_calls"), "{streamed}");
    let embedding = json!({ "model": "e", "input": "water" });
    let first = room.post("/v1/embeddings", &embedding, "").json();
    assert_eq!(room.post("/v1/embeddings", &embedding, "").json(), first);
    room.post("/v1/embeddings", &json!({ "model": "e", "input": "wine" }), "");
    assert_eq!(room.asked(), 3);
}

#[test]
fn what_is_not_a_whole_answer_is_not_kept() {
    let room = Room::new(POLICIES);
    let check = |body: Value| {
        let before = room.asked();
        for _ in 0..2 {
            room.post("/v1/chat/completions", &body, "");
        }
        assert_eq!(room.asked(), before + 2, "{body}");
    };
    check(ask("m", "status=400"));
    check(ask("m", "stop=length tokens=5"));
    check(ask("m", "stop=filter tokens=5"));
    check(ask("m", "html"));
    check(ask("m", "tokens=0"));
    check(with(ask("m", "tokens=5"), "n", 2));
    for words in
        ["stop=length tokens=5", "stop=filter tokens=5", "cut=3 tokens=9", "half=3 tokens=9", "error=3 tokens=9"]
    {
        check(with(ask("m", words), "stream", true));
    }
    // By its conversation a call is bound to its provider.
    let answer = room.post("/v1/responses", &json!({ "model": "m", "input": "x", "previous_response_id": "r" }), "");
    assert_eq!(status(&answer), "weir; fwd=bypass; fwd-status=200; detail=state");
}

#[test]
fn a_request_says_what_it_takes() {
    let room = Room::new(POLICIES);
    let question = ask("m", "tokens=5");
    let refused = room.post("/v1/chat/completions", &question, "cache-control: only-if-cached\r\n");
    assert_eq!((refused.status, room.asked()), (504, 0), "{}", refused.text());
    assert!(refused.json()["error"]["message"].is_string(), "{}", refused.text());
    room.chat(&question, "cache-control: no-store\r\n");
    room.chat(&question, "");
    assert_eq!(room.asked(), 2, "nothing was stored");
    room.chat(&question, "cache-control: only-if-cached\r\n");
    assert_eq!(room.asked(), 2);
    let anew = room.chat(&question, "cache-control: no-cache\r\n");
    assert_eq!((status(&anew), room.asked()), ("weir; fwd=request; fwd-status=200; stored", 3));
    // What came now is what is given from now on.
    assert_eq!(room.chat(&question, "").json()["id"], anew.json()["id"]);
    room.chat(&question, "cache-control: max-age=60\r\n");
    assert_eq!(room.asked(), 3);
    assert_eq!(
        status(&room.chat(&question, "cache-control: max-age=0\r\n")),
        "weir; fwd=request; fwd-status=200; stored"
    );
    assert_eq!(room.asked(), 4);
}

const CONSUMERS: &str = "
consumers:
  ann: { team: red, keys: [{ id: k1, hash: \"HASH1\" }] }
  bob: { team: red, keys: [{ id: k2, hash: \"HASH2\" }] }
  eve: { keys: [{ id: k3, hash: \"HASH3\" }] }
";

/// A room in which consumers are known, and their keys.
fn known(cache: &str) -> (Room, [String; 3]) {
    let keys = ["key-of-ann", "key-of-bob", "key-of-eve"];
    let mut consumers = CONSUMERS.to_owned();
    for (at, key) in keys.iter().enumerate() {
        let hash: String = policy::Keys::hash(key.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        consumers = consumers.replace(&format!("HASH{}", at + 1), &format!("sha256:{hash}"));
    }
    let more = format!("policies: {{ authenticate: {{ api-key: {{}} }}, answer-cache: {cache} }}\n{consumers}");
    (Room::new(&more), keys.map(|key| format!("authorization: Bearer {key}\r\n")))
}

#[test]
fn what_one_consumer_got_is_given_to_those_alone_with_whom_it_is_shared() {
    let question = ask("m", "tokens=5");
    for (cache, expected) in [("{}", [1, 2, 3]), ("{ shared: team }", [1, 1, 2]), ("{ shared: all }", [1, 1, 1])] {
        let (room, keys) = known(cache);
        for (key, expected) in keys.iter().zip(expected) {
            for _ in 0..2 {
                room.chat(&question, key);
                assert_eq!(room.asked(), expected, "{cache} {key}");
            }
        }
    }
    // So are the end users of one consumer.
    let (room, [ann, ..]) = known("{}");
    for (user, expected) in [("u1", 1), ("u2", 2), ("u1", 2)] {
        room.chat(&with(question.clone(), "user", user), &ann);
        assert_eq!(room.asked(), expected, "{user}");
    }
    room.chat(&question, &ann);
    assert_eq!(room.asked(), 3);
}

#[test]
fn the_document_says_what_it_is_for() {
    let cache =
        "policies: { answer-cache: { when: '!model.tools', by: \"request.headers['x-documents']\", coldest: true } }";
    let room = Room::new(cache);
    let cold = with(ask("m", "tokens=5"), "temperature", 0);
    for (body, fields, expected) in [
        (&cold, "x-documents: 1\r\n", 1),
        (&cold, "x-documents: 1\r\n", 1),
        (&cold, "x-documents: 2\r\n", 2),
        (&cold, "x-documents: 1\r\n", 2),
        // Not told which: not answered from here.
        (&cold, "", 3),
        (&cold, "", 4),
        (&with(cold.clone(), "temperature", 0.5), "x-documents: 1\r\n", 5),
        (&with(cold.clone(), "temperature", 0.5), "x-documents: 1\r\n", 6),
    ] {
        room.chat(body, fields);
        assert_eq!(room.asked(), expected, "{body} {fields}");
    }
}

#[test]
fn those_who_want_the_same_at_once_are_answered_by_one_call() {
    for stream in [false, true] {
        let room = Arc::new(Room::new(POLICIES));
        let question = with(ask("m", "tokens=20 every=20ms input=20"), "stream", stream);
        let count = 12;
        let barrier = Arc::new(Barrier::new(count));
        let callers = (0..count).map(|_| {
            let (room, question, barrier) = (room.clone(), question.clone(), barrier.clone());
            thread::spawn(move || {
                barrier.wait();
                room.chat(&question, "").text()
            })
        });
        let callers: Vec<_> = callers.collect();
        let answers: Vec<String> = callers.into_iter().map(|it| it.join().unwrap()).collect();
        assert!(answers.iter().all(|it| *it == answers[0]), "{answers:?}");
        assert_eq!(room.asked(), 1, "as a stream: {stream}");
        let entries = Arc::into_inner(room).unwrap().entries();
        let of = |class| entries.iter().filter(|it| it.class == class).count();
        assert_eq!((of(Class::Useful), of(Class::Cached)), (1, count - 1));
    }
}

#[test]
fn a_stream_goes_on_for_those_who_read_along_when_its_first_reader_leaves() {
    let room = Room::new(POLICIES);
    let question = with(ask("m", "tokens=30 every=20ms input=20"), "stream", true);
    let text = question.to_string();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: weir\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{text}",
        text.len()
    );
    let mut first = Raw::connect(room.gateway.web());
    first.send(&request);
    assert_eq!(first.head().unwrap().status, 200);
    let mut second = Raw::connect(room.gateway.web());
    second.send(&request);
    let head = second.head().unwrap();
    assert_eq!(status(&head), "weir; fwd=miss; collapsed");
    drop(first);
    let mut rest = String::new();
    while let Some(line) = second.line().ok().filter(|line| line != "0") {
        rest.push_str(&line);
    }
    assert!(rest.ends_with("data: [DONE]") && !rest.contains("error"), "{rest}");
    // And it is kept.
    room.chat(&question, "");
    assert_eq!(room.asked(), 1);
    let mut classes: Vec<_> = room.entries().iter().map(|it| (it.class, it.usage.total())).collect();
    // Which core writes first is open.
    classes.sort();
    assert_eq!(classes, [(Class::Useful, 50), (Class::Cached, 50), (Class::Cached, 50)]);
}

#[test]
fn a_caller_who_leaves_alone_ends_the_stream_and_nothing_is_kept() {
    let room = Room::new(POLICIES);
    let question = with(ask("m", "tokens=1000 every=10ms"), "stream", true);
    let text = question.to_string();
    let mut first = Raw::connect(room.gateway.web());
    first.send(format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: weir\r\ncontent-length: {}\r\n\r\n{text}",
        text.len()
    ));
    assert_eq!(first.head().unwrap().status, 200);
    drop(first);
    eventually("the provider notices", || {
        room.provider.books().first().is_some_and(|it| it.ended == simulator::Ended::Cancelled)
    });
}

#[test]
fn a_given_answer_is_booked_as_saved_and_takes_nothing_of_any_budget() {
    let room =
        Room::new(&format!("{POLICIES}\nbudgets: {{ all: {{ per: organisation, amount: 2 calls, every: day }} }}"));
    let question = ask("m", "tokens=5 input=20");
    for _ in 0..5 {
        room.chat(&question, "");
    }
    room.chat(&with(ask("m", "tokens=5 input=20"), "seed", 1), "");
    let refused = room.post("/v1/chat/completions", &with(question.clone(), "seed", 2), "");
    assert_eq!(refused.status, 429, "{}", refused.text());
    room.chat(&question, "");
    let metrics = room.gateway.node().telemetry().metrics_addr().unwrap();
    let metrics = Raw::connect(metrics).get("/metrics", "").text();
    for line in [
        // Each 20 tokens at 2.50 USD a million and 5 at 10 USD.
        "weir_model_answers_given_again_total{provider=\"openai\",model=\"gpt-4o\"} 5",
        "weir_model_saved_microdollars_total{provider=\"openai\",model=\"gpt-4o\"} 500",
        "weir_cache_requests_total{api=\"brain\",route=\"brain/0\",result=\"hit\"} 5",
        "weir_cache_requests_total{api=\"brain\",route=\"brain/0\",result=\"miss\"} 3",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    let log = room.folder.path("access.log");
    let expected = "\"cost_usd\":\"0\",\"saved_usd\":\"0.0001\"";
    eventually("the log has it", || std::fs::read_to_string(&log).is_ok_and(|log| log.contains(expected)));
    assert_eq!(room.asked(), 2);
    let asked = room.asked();
    let entries = room.entries();
    let cached: Vec<&Entry> = entries.iter().filter(|it| it.class == Class::Cached).collect();
    let useful: Vec<&Entry> = entries.iter().filter(|it| it.class == Class::Useful).collect();
    assert_eq!((cached.len(), useful.len()), (5, asked), "the provider's books are the misses");
    for entry in cached {
        assert_eq!((entry.cost, entry.saved), (Money::ZERO, useful[0].cost));
        assert_eq!((&*entry.provider, &*entry.model_served, entry.usage), ("openai", "gpt-4o", useful[0].usage));
    }
}

#[test]
fn answers_outlive_a_reload_until_their_model_is_another_and_are_forgotten_by_name() {
    let mut room = Room::new(POLICIES);
    let (question, other) = (ask("m", "tokens=5"), ask("a", "tokens=5"));
    room.chat(&question, "");
    room.chat(&other, "");
    let same = document(
        &room.provider,
        &room.folder,
        &format!("{POLICIES}\nbudgets: {{ b: {{ per: organisation, amount: 1 USD }} }}"),
    );
    room.gateway.apply(&same);
    room.chat(&question, "");
    assert_eq!(room.asked(), 2);
    let changed = same.replace("m: openai/gpt-4o,", "m: openai/gpt-4o-mini,");
    room.gateway.apply(&changed);
    room.chat(&question, "");
    assert_eq!(room.asked(), 3);
    let purge = |tag: &str| room.gateway.node().purge(&Purge { api: None, what: What::Tag(tag.into()) }).answers;
    assert_eq!(purge("model:m"), 2);
    room.chat(&other, "");
    assert_eq!(room.asked(), 3);
    room.chat(&question, "");
    assert_eq!(room.asked(), 4);
    assert_eq!(room.gateway.node().purge(&Purge { api: Some("brain".into()), what: What::All }).answers, 2);
}

#[test]
fn a_failure_is_told_to_all_who_waited_and_kept_for_nobody() {
    let room = Arc::new(Room::new(POLICIES));
    let question = ask("m", "status=400 first=100ms");
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (room, question) = (room.clone(), question.clone());
            thread::spawn(move || room.post("/v1/chat/completions", &question, "").status)
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.join().unwrap(), StatusCode::BAD_REQUEST.as_u16());
    }
}

// === To nearly the same question ===

const NEAR: &str = "policies: { answer-cache: { semantic: { model: e, threshold: 0.9 } } }";
const HIGH: &str = "How high is the dam of the valley?";
const HOW_HIGH: &str = "The dam of the valley is how high?";
/// Another word, which is near.
const VERY_HIGH: &str = "How very high is the dam of the valley?";

fn say(text: &str) -> Value {
    json!({ "model": "m", "messages": [{ "role": "user", "content": format!("{text} [sim tokens=5 input=20]") }] })
}

impl Room {
    /// Calls for answers and calls for vectors that reached the provider.
    fn reached(&self) -> (usize, usize) {
        let books = self.provider.books();
        let vectors = books.iter().filter(|it| it.service == "embeddings").count();
        (books.len() - vectors, vectors)
    }
}

#[test]
fn nearly_the_same_question_is_given_the_answer_and_told_how_near_it_is() {
    let room = Room::new(NEAR);
    let first = room.chat(&say(HIGH), "");
    assert_eq!((status(&first), room.reached()), ("weir; fwd=miss; fwd-status=200; stored", (1, 1)));
    let near = room.chat(&say(VERY_HIGH), "");
    assert_eq!((near.json()["id"].clone(), room.reached()), (first.json()["id"].clone(), (1, 2)));
    assert!(
        status(&near).starts_with("weir; hit; ttl=") && status(&near).ends_with("; detail=near"),
        "{}",
        status(&near)
    );
    let similarity: f64 = near.header("weir-similarity").unwrap().parse().unwrap();
    assert!((0.9..1.0).contains(&similarity), "{similarity}");
    // The same words again are known by now, without a vector; as a stream too.
    let streamed = room.chat(&with(say(VERY_HIGH), "stream", true), "");
    assert!(streamed.text().ends_with("data: [DONE]\n\n") && streamed.header("weir-similarity").is_some());
    assert_eq!(room.reached(), (1, 2));
    let same = room.chat(&with(say(HOW_HIGH), "stream", true), "");
    assert_eq!((same.header("weir-similarity"), room.reached()), (Some("1.000"), (1, 3)));
    room.chat(&say("Who painted the portrait in the hall?"), "");
    assert_eq!(room.reached(), (2, 4));

    let metrics = room.gateway.node().telemetry().metrics_addr().unwrap();
    let metrics = Raw::connect(metrics).get("/metrics", "").text();
    let line = "weir_cache_requests_total{api=\"brain\",route=\"brain/0\",result=\"near\"} 3";
    assert!(metrics.contains(line), "{metrics}");
    let entries = room.entries();
    let of = |class| entries.iter().filter(|it| it.class == class).collect::<Vec<_>>();
    assert_eq!((of(Class::Useful).len(), of(Class::Cached).len(), of(Class::Lookup).len()), (2, 3, 4));
    for lookup in of(Class::Lookup) {
        assert!(lookup.cost > Money::ZERO && &*lookup.model_asked == "e", "{lookup:?}");
        assert_eq!(lookup.used().calls, 0);
    }
    assert!(of(Class::Cached).iter().all(|it| it.saved == of(Class::Useful)[0].cost && it.cost == Money::ZERO));
}

#[test]
fn what_is_around_a_question_must_be_the_same() {
    let room = Room::new(NEAR);
    let with_messages = |messages: Value| json!({ "model": "m", "messages": messages });
    let system = |text: &str, said: &str| {
        let said = say(said)["messages"][0].clone();
        with_messages(json!([{ "role": "system", "content": text }, said]))
    };
    let turns = |answer: &str, said: &str| {
        let said = say(said)["messages"][0].clone();
        with_messages(json!([
            { "role": "user", "content": "Hello." }, { "role": "assistant", "content": answer }, said
        ]))
    };
    let tool = |name: &str, said: &str| {
        let tool = json!({ "type": "function", "function": { "name": name, "parameters": { "type": "object" } } });
        with(with(say(said), "tools", json!([tool])), "tool_choice", "none")
    };
    let image = |text: &str| {
        let image = json!({ "type": "image_url", "image_url": { "url": "data:image/png;base64,AAAA" } });
        let text = json!({ "type": "text", "text": format!("{text} [sim tokens=5 input=20]") });
        with_messages(json!([{ "role": "user", "content": [text, image] }]))
    };
    let mut expected = 0;
    for (question, is_new) in [
        (say(HIGH), true),
        (system("S", HOW_HIGH), true),
        (system("S", HIGH), false),
        (system("T", HIGH), true),
        (turns("Hi.", HIGH), true),
        (turns("Hi.", HOW_HIGH), false),
        (turns("Ho.", HIGH), true),
        (tool("f", HIGH), true),
        (tool("f", HOW_HIGH), false),
        (tool("g", HIGH), true),
        (with(say(HOW_HIGH), "temperature", 0.5), true),
        (with(say(HOW_HIGH), "max_tokens", 50), true),
        (with(say(HOW_HIGH), "model", "a"), true),
        (say("How high is the dam 2 of the valley?"), true),
        (say("The dam 3 of the valley is how high?"), true),
        (say("The dam 2 of the valley is how high?"), false),
        (image(HIGH), true),
        (image(HOW_HIGH), true),
        (say(HOW_HIGH), false),
    ] {
        let answer = room.chat(&question, "");
        expected += usize::from(is_new);
        assert_eq!(room.reached().0, expected, "{question} {}", status(&answer));
    }
}

#[test]
fn what_is_near_is_given_to_those_alone_with_whom_it_is_shared() {
    for (shared, expected) in [("consumer", [1, 2, 3]), ("team", [1, 1, 2]), ("all", [1, 1, 1])] {
        let (room, keys) = known(&format!("{{ shared: {shared}, semantic: {{ model: e, threshold: 0.9 }} }}"));
        // No two of them say the same.
        for ((key, text), expected) in keys.iter().zip([HIGH, HOW_HIGH, VERY_HIGH]).zip(expected) {
            room.chat(&say(text), key);
            assert_eq!(room.reached().0, expected, "{shared} {key}");
        }
        let (calls, vectors) = room.reached();
        let entries = room.entries();
        let who = |class| entries.iter().filter(|it| it.class == class).filter_map(|it| it.consumer.clone()).count();
        assert_eq!((who(Class::Useful), who(Class::Lookup)), (calls, vectors), "everybody pays for his own vector");
    }
}

#[test]
fn a_vector_that_does_not_come_is_none() {
    for (words, timeout) in [("status=500", "1s"), ("hang", "100ms"), ("html", "1s")] {
        let near = format!("policies: {{ answer-cache: {{ semantic: {{ model: bad, timeout: {timeout} }} }} }}");
        let provider = Simulator::start(Options::provider("models")).unwrap();
        let folder = Folder::new();
        folder.write("key", "sk-provider");
        let document =
            document(&provider, &folder, &near).replace("models: {", &format!("models: {{ bad: openai/e~{words},"));
        let gateway = Gateway::start_in(&folder, &document);
        for text in [HIGH, HOW_HIGH] {
            let answer = post(&gateway, "/v1/chat/completions", &say(text), "");
            assert_eq!((answer.status, status(&answer)), (200, "weir; fwd=miss; fwd-status=200; stored"), "{words}");
        }
        let again = post(&gateway, "/v1/chat/completions", &say(HIGH), "");
        assert!(status(&again).starts_with("weir; hit"), "{words}: {}", status(&again));
    }
}

#[test]
fn what_is_forgotten_or_calls_tools_is_near_to_nothing() {
    let room = Room::new(NEAR);
    room.chat(&say(HIGH), "");
    let purge = Purge { api: None, what: What::Tag("model:m".into()) };
    assert_eq!(room.gateway.node().purge(&purge).answers, 1);
    room.chat(&say(HOW_HIGH), "");
    assert_eq!(room.reached().0, 2);
    room.chat(&say(HIGH), "cache-control: no-store\r\n");
    assert_eq!(room.reached(), (3, 2), "it is neither looked for nor kept");

    let tool = json!({ "type": "function", "function": { "name": "f", "parameters": { "type": "object" } } });
    let call = |text: &str| {
        let content = format!("{text} [sim calls=1 input=20]");
        json!({ "model": "m", "messages": [{ "role": "user", "content": content }], "tools": [tool] })
    };
    for (text, expected) in [(HIGH, 4), (HOW_HIGH, 5), (HIGH, 5)] {
        room.chat(&call(text), "");
        assert_eq!(room.reached().0, expected, "{text}");
    }
}

// === To official SDKs ===

/// The scenarios of an SDK twice: the second time most of the answers are known, and the SDK must see no difference.
#[track_caller]
fn twice(script: &str, kind: &str) {
    let own = script.starts_with(kind);
    let left_out: &[&str] = if own { &[] } else { &["extras"] };
    let hash = "sha256:2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683";
    let more = format!(
        "policies: {{ authenticate: {{ api-key: {{}} }}, answer-cache: {{}} }}
consumers: {{ agent: {{ keys: [{{ id: k1, hash: \"{hash}\" }}] }} }}"
    );
    let provider = Simulator::start(Options::provider("models")).unwrap();
    let folder = Folder::new();
    folder.write("key", "sk-provider");
    let models = format!("models: {{ some-model: {kind}/some-model, \"*\": \"{kind}/*\" }}");
    let document = document(&provider, &folder, &more);
    let document: Vec<&str> =
        document.lines().map(|line| if line.starts_with("models:") { &*models } else { line }).collect();
    let gateway = Gateway::start_in(&folder, &document.join("\n"));
    if !sdk::run(script, &gateway.url(), "some-model", left_out) {
        return;
    }
    let first = provider.books().len();
    sdk::run(script, &gateway.url(), "some-model", left_out);
    let second = provider.books().len() - first;
    assert!(second < first, "{script} {kind}: {first} calls, then {second}");
    println!("{script} {kind}: {first} calls, then {second}");
}

#[test]
fn openai_of_python_sees_no_difference() {
    twice("openai_sdk.py", "openai");
    twice("openai_sdk.py", "anthropic");
}

#[test]
fn anthropic_of_python_sees_no_difference() {
    twice("anthropic_sdk.py", "openai");
}

#[test]
fn google_of_python_sees_no_difference() {
    twice("google_sdk.py", "anthropic");
}

#[test]
fn openai_of_node_sees_no_difference() {
    twice("openai.mjs", "anthropic");
}

#[test]
fn anthropic_of_node_sees_no_difference() {
    twice("anthropic.mjs", "anthropic");
    twice("anthropic.mjs", "openai");
}
