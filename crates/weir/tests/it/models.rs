//! Models through the gateway: any dialect before any provider, failover, budgets and the books. The provider is the
//! simulator, which keeps books of its own.

use std::time::SystemTime;

use ledger::{Class, Entry, Moment, Record};
use serde_json::{Value, json};
use simulator::{Options, Simulator};
use testkit::{Folder, Gateway, Raw, eventually};

use crate::sdk;

/// An api of models `brain`, with every kind of provider at the same simulator.
fn document(provider: &Simulator, more: &str) -> String {
    let url = provider.url();
    format!(
        "
providers:
  openai: {{ upstream: {url}/v1, keys: file:key }}
  anthropic: {{ upstream: \"{url}\", keys: file:key }}
  gemini: {{ upstream: {url}/v1beta, keys: file:key }}
  bedrock: {{ upstream: \"{url}\", keys: file:aws, region: us-east-1 }}
apis:
  brain: {{ llm: {{}} }}
{more}"
    )
}

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("key", "sk-provider");
    folder.write("aws", "AKID:secret");
    folder
}

fn post(gateway: &Gateway, path: &str, body: &Value) -> testkit::Answer {
    let body = body.to_string();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: weir\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    Raw::connect(gateway.web()).send(request).answer()
}

fn chat(model: &str, words: &str) -> Value {
    json!({ "model": model, "messages": [{ "role": "user", "content": format!("Say something. [sim {words}]") }] })
}

fn entries(folder: &Folder) -> Vec<Entry> {
    let records = journal::read(&folder.path("books"), None).unwrap();
    let entry = |record| if let Record::Entry(entry) = record { Some(entry) } else { None };
    records.filter_map(|it| entry(it.unwrap().1)).collect()
}

#[test]
fn a_call_is_answered_in_the_words_of_its_caller_whoever_serves_it() {
    let provider = Simulator::start(Options::provider("models")).unwrap();
    let gateway = Gateway::start_in(
        &folder(),
        &document(
            &provider,
            "models: { \"openai*\": openai/m*, \"anthropic*\": anthropic/m*, \"gemini*\": gemini/m*, \"bedrock*\": bedrock/m* }",
        ),
    );
    for kind in ["openai", "anthropic", "gemini", "bedrock"] {
        let answer = post(&gateway, "/v1/chat/completions", &chat(kind, "tokens=5 input=20"));
        assert_eq!(answer.status, 200, "{kind}: {}", answer.text());
        let body = answer.json();
        assert_eq!(body["choices"][0]["message"]["content"], "The water is held back", "{kind}: {body}");
        assert_eq!((&body["usage"]["prompt_tokens"], &body["usage"]["completion_tokens"]), (&json!(20), &json!(5)));
        assert_eq!(answer.header("weir-model"), Some(&*format!("{kind}/m")));

        let ask = json!({
            "model": kind, "max_tokens": 100,
            "messages": [{ "role": "user", "content": "Hi. [sim tokens=5 input=20]" }]
        });
        let answer = post(&gateway, "/v1/messages", &ask);
        assert_eq!(answer.status, 200, "{kind}: {}", answer.text());
        assert_eq!(answer.json()["content"][0]["text"], "The water is held back", "{kind}");
    }
}

#[test]
fn tokens_are_counted_by_whoever_can_count() {
    let provider = Simulator::start(Options::provider("models")).unwrap();
    let (folder, kinds) = (folder(), ["openai", "anthropic", "gemini", "bedrock"]);
    let models = kinds.map(|kind| format!("{kind}: {kind}/m")).join(", ");
    let more = format!(
        "models: {{ {models} }}\nledger: {{ data: {} }}\nbudgets: {{ all: {{ per: organisation, amount: 1 USD }} }}",
        folder.path("books").display()
    );
    let gateway = Gateway::start_in(&folder, &document(&provider, &more));
    let (user, text) = ("user", "How much is this?");
    for kind in kinds {
        let conversation = json!({ "model": kind, "messages": [{ "role": user, "content": text }] });
        let contents = json!({ "contents": [{ "role": user, "parts": [{ "text": text }] }] });
        let input = json!({ "model": kind, "input": text });
        for (path, body, word) in [
            ("/v1/messages/count_tokens".to_owned(), &conversation, "input_tokens"),
            (format!("/v1beta/models/{kind}:countTokens"), &contents, "totalTokens"),
            ("/v1/responses/input_tokens".to_owned(), &input, "input_tokens"),
        ] {
            let answer = post(&gateway, &path, body);
            assert_eq!(answer.status, 200, "{kind} {path}: {}", answer.text());
            let (told, counted) = (answer.header("weir-estimated"), answer.json()[word].as_u64().unwrap());
            match kind {
                "bedrock" => assert_eq!(told, Some("tokens"), "{path}"),
                _ => assert_eq!((told, counted > 0), (None, true), "{kind} {path}: {}", answer.text()),
            }
        }
    }
    assert_eq!(provider.books().len(), 9, "Bedrock was not asked");
    drop(gateway);
    assert_eq!(entries(&folder).len(), 0, "a count costs nothing");
}

#[test]
fn bedrock_counts_the_tokens_of_claude_and_what_it_does_not_count_is_estimated() {
    let provider = Simulator::start(Options::provider("models")).unwrap();
    let counted = ["anthropic.claude-sonnet-4-20250514-v1:0", "us.anthropic.claude-haiku-4-5-20251001-v1:0"];
    // A model that cannot be counted, a key that may not count, a place where nobody does.
    let estimated =
        ["anthropic.claude-3-haiku-20240307-v1:0", "anthropic.claude-x~status=403", "eu.anthropic.claude-x~status=404"];
    let models = counted.iter().chain(&estimated).enumerate().map(|(at, name)| format!("m{at}: \"bedrock/{name}\""));
    let more = format!("models: {{ {}, talks: bedrock/m }}", models.collect::<Vec<_>>().join(", "));
    let gateway = Gateway::start_in(&folder(), &document(&provider, &more));
    for at in 0..counted.len() + estimated.len() {
        let name = format!("m{at}");
        let tool = json!({ "name": "look", "description": "Looks", "input_schema": { "type": "object" } });
        // What is not of the conversation is not sent, since Bedrock would refuse it.
        let conversation = json!({
            "model": name, "system": "Be brief.", "tools": [tool], "tool_choice": { "type": "any" },
            "thinking": { "type": "enabled", "budget_tokens": 2000 },
            "messages": [{ "role": "user", "content": "How much is this?" }]
        });
        let contents = json!({ "contents": [{ "role": "user", "parts": [{ "text": "How much is this?" }] }] });
        let input = json!({ "model": name, "input": "How much is this?", "temperature": 0.5 });
        for (path, body, word) in [
            ("/v1/messages/count_tokens".to_owned(), &conversation, "input_tokens"),
            (format!("/v1beta/models/{name}:countTokens"), &contents, "totalTokens"),
            ("/v1/responses/input_tokens".to_owned(), &input, "input_tokens"),
        ] {
            let answer = post(&gateway, &path, body);
            assert_eq!(answer.status, 200, "{name} {path}: {}", answer.text());
            assert!(answer.json()[word].as_u64().unwrap() > 0, "{name} {path}: {}", answer.text());
            let expected = (at >= counted.len()).then_some("tokens");
            assert_eq!(answer.header("weir-estimated"), expected, "{name} {path}: {}", answer.text());
        }
    }
    let asked = provider.books();
    let signed = asked.iter().filter(|it| it.service == "count" && it.status == 200).count();
    assert_eq!((signed, asked.len()), (3 * counted.len(), 3 * (counted.len() + estimated.len())), "{asked:?}");
    // A caller's mistake is told, and no key rests because of what cannot be counted.
    let wrong = json!({ "model": "m0", "messages": [] });
    assert_eq!(post(&gateway, "/v1/messages/count_tokens", &wrong).status, 400);
    assert_eq!(post(&gateway, "/v1/chat/completions", &chat("talks", "")).status, 200);
    let vectors = post(&gateway, "/v1/embeddings", &json!({ "model": "talks", "input": "How much is this?" }));
    assert_eq!(vectors.status, 400);
    assert!(vectors.text().contains("is asked for embeddings here; expected one that"), "{}", vectors.text());
}

#[test]
fn what_is_wrong_is_said_in_the_callers_dialect() {
    let provider = Simulator::start(Options::provider("models")).unwrap();
    let gateway = Gateway::start_in(&folder(), &document(&provider, "models: { m: openai/m }"));
    let check = |path: &str, body: Value, status: u16, pointer: &str, expected: &str| {
        let answer = post(&gateway, path, &body);
        assert_eq!(answer.status, status, "{}", answer.text());
        let found = answer.json().pointer(pointer).cloned().unwrap_or_default();
        assert_eq!(found, expected, "{}", answer.text());
    };
    check("/v1/chat/completions", chat("other", ""), 404, "/error/code", "model_not_found");
    check("/v1/messages", chat("other", ""), 404, "/error/type", "not_found_error");
    check("/v1beta/models/other:generateContent", json!({ "contents": [] }), 404, "/error/status", "NOT_FOUND");
    check("/v1/chat/completions", json!({ "model": 7 }), 400, "/error/type", "invalid_request_error");
    check("/v1/chat/completions", json!({ "messages": [] }), 400, "/error/type", "invalid_request_error");
    assert_eq!(provider.books().len(), 0, "the provider has heard of none of them");
    let models = Raw::connect(gateway.web()).get("/v1/models", "").json();
    assert_eq!(models["data"][0]["id"], "m");
}

#[test]
fn the_next_candidate_serves_what_the_first_does_not() {
    let (bad, good) = (Options::provider("bad"), Options::provider("good"));
    let (bad, good) = (Simulator::start(bad).unwrap(), Simulator::start(good).unwrap());
    let folder = folder();
    let gateway = Gateway::start_in(
        &folder,
        &format!(
            "
providers:
  first: {{ kind: openai, upstream: {}/v1, keys: file:key }}
  second: {{ kind: anthropic, upstream: \"{}\", keys: file:key }}
ledger: {{ data: {} }}
models:
  m: {{ candidates: [first/status-503, second/m] }}
apis: {{ brain: {{ llm: {{}} }} }}",
            bad.url(),
            good.url(),
            folder.path("books").display()
        ),
    );
    bad.inject(simulator::Fault::Status(http::StatusCode::SERVICE_UNAVAILABLE), 1);
    let answer = post(&gateway, "/v1/chat/completions", &chat("m", "tokens=5 input=20"));
    assert_eq!((answer.status, answer.header("weir-model")), (200, Some("second/m")), "{}", answer.text());
    drop(gateway);
    let entries = entries(&folder);
    let classes: Vec<_> = entries.iter().map(|it| (it.class, &*it.provider)).collect();
    assert_eq!(classes, [(Class::Retry, "first"), (Class::Useful, "second")]);
    assert_eq!(entries[1].usage.total(), 25);
}

#[test]
fn a_stream_is_metered_and_the_usage_kept_back_that_nobody_asked_for() {
    let provider = Simulator::start(Options::provider("models")).unwrap();
    let folder = folder();
    let more = format!(
        "ledger: {{ data: {} }}\nmodels: {{ m: openai/gpt-4o, a: anthropic/claude-sonnet-4-5 }}",
        folder.path("books").display()
    );
    let gateway = Gateway::start_in(&folder, &document(&provider, &more));
    for model in ["m", "a"] {
        let mut ask = chat(model, "tokens=5 input=20");
        ask["stream"] = true.into();
        let answer = post(&gateway, "/v1/chat/completions", &ask);
        let text = answer.text();
        assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
        assert!(!text.contains("\"usage\":{"), "{text}");
    }
    drop(gateway);
    let entries = entries(&folder);
    assert_eq!(entries.len(), 2);
    for entry in entries {
        assert_eq!((entry.usage.prompt(), entry.usage.completion(), entry.estimated), (20, 5, false), "{entry:?}");
        assert!(entry.cost > ledger::Money::ZERO && entry.first_token > 0, "{entry:?}");
    }
}

#[test]
fn the_log_and_the_metrics_tell_what_a_call_came_to() {
    let provider = Simulator::start(Options::provider("models")).unwrap();
    let folder = folder();
    let log = folder.path("access.log");
    let more = format!(
        "telemetry: {{ metrics: '127.0.0.1:0', access-log: 'file:{}' }}\nmodels: {{ m: openai/gpt-4o }}",
        log.display()
    );
    let gateway = Gateway::start_in(&folder, &document(&provider, &more));
    let mut ask = chat("m", "tokens=5 input=20");
    ask["stream"] = true.into();
    assert_eq!(post(&gateway, "/v1/chat/completions", &ask).status, 200);
    // 20 tokens at 2.50 USD a million and 5 at 10 USD.
    let expected = "\"model\":{\"asked\":\"m\",\"served\":\"openai/gpt-4o\",\"prompt_tokens\":20,\
                    \"completion_tokens\":5,\"estimated\":false,\"cost_usd\":\"0.0001\"}";
    eventually("the log has it", || std::fs::read_to_string(&log).is_ok_and(|log| log.contains(expected)));
    let metrics = gateway.node().telemetry().metrics_addr().unwrap();
    let metrics = Raw::connect(metrics).get("/metrics", "").text();
    let labels = "{provider=\"openai\",model=\"gpt-4o\"}";
    for line in [
        format!("weir_model_attempts_total{labels} 1"),
        format!("weir_model_completion_tokens_total{labels} 5"),
        format!("weir_model_cost_microdollars_total{labels} 100"),
    ] {
        assert!(metrics.contains(&line), "{line}\n{metrics}");
    }
}

#[test]
fn a_budget_holds_and_says_when_it_renews() {
    let provider = Simulator::start(Options::provider("models")).unwrap();
    let folder = folder();
    let more = "
budgets: { all: { per: organisation, amount: 2 calls, every: day } }
models: { m: openai/gpt-4o }";
    let mut gateway = Gateway::start_in(&folder, &document(&provider, more));
    for _ in 0..2 {
        assert_eq!(post(&gateway, "/v1/chat/completions", &chat("m", "")).status, 200);
    }
    let refused = post(&gateway, "/v1/chat/completions", &chat("m", ""));
    assert_eq!(refused.status, 429, "{}", refused.text());
    assert_eq!(refused.json()["error"]["code"], "insufficient_quota");
    assert!(refused.header("retry-after").is_some());
    // What was spent is not forgotten by a reload, and what is allowed may change.
    gateway.apply(&document(&provider, &more.replace("2 calls", "3 calls")));
    assert_eq!(post(&gateway, "/v1/chat/completions", &chat("m", "")).status, 200);
    assert_eq!(post(&gateway, "/v1/messages", &chat("m", "")).status, 429);
    assert_eq!(provider.books().len(), 3);
}

/// What the rule of this name says is left.
fn left(answer: &testkit::Answer, rule: &str) -> u64 {
    let field = answer.header("ratelimit").unwrap_or_else(|| panic!("{answer:?}"));
    let rest = field.split(&format!("\"{rule}\";r=")).nth(1).unwrap_or_else(|| panic!("{field}"));
    rest.split([';', ',']).next().unwrap().parse().unwrap()
}

#[test]
fn tokens_and_money_are_limited_by_what_calls_may_come_to_and_then_by_what_they_came_to() {
    let provider = Simulator::start(Options::provider("models")).unwrap();
    let more = "
models: { m: openai/gpt-4o }
policies:
  limit:
    - { per: all, tokens: 10k/h }
    - { per: all, money: 1 USD/h, name: money }";
    let gateway = Gateway::start_in(&folder(), &document(&provider, more));
    let ask = |most: u64, stream: bool, path: &str| {
        let mut ask = chat("m", "tokens=40 input=60");
        ask["max_tokens"] = most.into();
        ask["stream"] = stream.into();
        post(&gateway, path, &ask)
    };
    for (stream, path) in [(false, "/v1/chat/completions"), (true, "/v1/messages")] {
        let answer = ask(8000, stream, path);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(
            answer.header("ratelimit-policy"),
            Some(r#""all-tokens";q=10000;qu="tokens";w=3600, "money";q=1000000;qu="microdollars";w=3600"#)
        );
        // The prompt is guessed, the answer is taken at its longest.
        assert!((1700..2000).contains(&left(&answer, "all-tokens")), "{answer:?}");
        // 8,000 tokens at 10 USD a million.
        assert!((919_000..920_000).contains(&left(&answer, "money")), "{answer:?}");
    }
    // Twice 100 tokens are owed now, and no more, give or take what comes back in the meantime; money as well.
    let answer = ask(100, false, "/v1/chat/completions");
    assert!((9600..9750).contains(&left(&answer, "all-tokens")), "{answer:?}");
    // Of 40 and 60 tokens each: 550 millionths.
    assert!((997_500..999_500).contains(&left(&answer, "money")), "{answer:?}");
    assert_eq!(ask(9800, false, "/v1/chat/completions").status, 429);
    for (path, pointer, kind) in [
        ("/v1/chat/completions", "/error/type", "rate_limit_error"),
        ("/v1/messages", "/error/type", "rate_limit_error"),
        ("/v1beta/models/m:generateContent", "/error/status", "RESOURCE_EXHAUSTED"),
    ] {
        let body = match path.starts_with("/v1beta") {
            false => {
                serde_json::to_value(json!({ "model": "m", "max_tokens": 9990, "messages": chat("m", "")["messages"] }))
            }
            true => serde_json::to_value(json!({
                "contents": [{ "role": "user", "parts": [{ "text": "Hi" }] }],
                "generationConfig": { "maxOutputTokens": 9990 }
            })),
        };
        let refused = post(&gateway, path, &body.unwrap());
        assert_eq!(refused.status, 429, "{}", refused.text());
        assert_eq!(refused.json().pointer(pointer), Some(&kind.into()), "{}", refused.text());
        let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((1..600).contains(&wait), "{refused:?}");
        assert!((9500..9750).contains(&left(&refused, "all-tokens")), "{refused:?}");
    }
    assert_eq!(provider.books().len(), 3, "who is refused is not asked for");
}

#[test]
fn tokens_come_back_from_callers_that_leave_and_providers_that_fail() {
    let provider = Simulator::start(Options::provider("models")).unwrap();
    let more = "
models: { m: openai/gpt-4o }
policies: { limit: [{ per: all, tokens: 10k/h }] }";
    let gateway = Gateway::start_in(&folder(), &document(&provider, more));
    let mut ask = chat("m", "tokens=1000 every=10ms input=20");
    (ask["stream"], ask["max_tokens"]) = (true.into(), 9000.into());
    let body = ask.to_string();
    let mut caller = Raw::connect(gateway.web());
    caller.send(format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: weir\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(caller.head().unwrap().status, 200);
    let mut small = chat("m", "tokens=1 input=1");
    small["max_tokens"] = 2000.into();
    assert_eq!(post(&gateway, "/v1/chat/completions", &small).status, 429);
    drop(caller);
    eventually("what it did not use is there again", || post(&gateway, "/v1/chat/completions", &small).status == 200);
    provider.inject(simulator::Fault::Status(http::StatusCode::SERVICE_UNAVAILABLE), 1);
    let mut large = chat("m", "");
    large["max_tokens"] = 7000.into();
    assert_eq!(post(&gateway, "/v1/chat/completions", &large).status, 503);
    assert_eq!(post(&gateway, "/v1/chat/completions", &large).status, 200, "a call that failed has used nothing");
}

#[test]
fn rules_decide_by_what_is_asked_of_a_model() {
    let provider = Simulator::start(Options::provider("models")).unwrap();
    let more = "
models: { m: openai/gpt-4o, large: openai/gpt-4o }
policies:
  authorize:
    allow: [\"model.name == 'm' && model.output <= 500\", \"request.path.startsWith('/v1/models')\"]
    deny: [\"has(model.stream) && model.stream\", \"request.headers.exists(name, name == 'x-no')\"]";
    let gateway = Gateway::start_in(&folder(), &document(&provider, more));
    let check = |model: &str, most: u64, stream: bool, status: u16| {
        let mut ask = chat(model, "");
        (ask["max_tokens"], ask["stream"]) = (most.into(), stream.into());
        let answer = post(&gateway, "/v1/messages", &ask);
        assert_eq!(answer.status, status, "{}", answer.text());
        if status == 403 {
            assert_eq!(answer.json()["error"]["type"], "permission_error");
        }
    };
    check("m", 500, false, 200);
    check("m", 501, false, 403);
    check("m", 500, true, 403);
    check("large", 500, false, 403);
    assert_eq!(Raw::connect(gateway.web()).get("/v1/models", "").status, 200);
    assert_eq!(Raw::connect(gateway.web()).get("/v1/models", "x-no: 1\r\n").status, 403);
    assert_eq!(provider.books().len(), 1);
}

#[test]
fn a_caller_that_leaves_is_booked_and_the_provider_hears_of_it() {
    let provider = Simulator::start(Options::provider("models")).unwrap();
    let folder = folder();
    let more = format!(
        "ledger: {{ data: {} }}
budgets: {{ all: {{ per: organisation, amount: 1 USD }} }}
models: {{ m: openai/gpt-4o }}",
        folder.path("books").display()
    );
    let gateway = Gateway::start_in(&folder, &document(&provider, &more));
    let mut ask = chat("m", "tokens=1000 every=10ms input=20");
    ask["stream"] = true.into();
    let body = ask.to_string();
    let mut caller = Raw::connect(gateway.web());
    caller.send(format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: weir\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(caller.head().unwrap().status, 200);
    drop(caller);
    eventually("the provider notices", || {
        provider.books().first().is_some_and(|it| it.ended == simulator::Ended::Cancelled)
    });
    eventually("the caller is booked", || {
        let books = &gateway.node().snapshot().books;
        let accounts = books.accounts(Moment::from(SystemTime::now()));
        accounts.first().is_some_and(|it| it.left.to_string() != it.allowance.to_string())
    });
    drop(gateway);
    let entries = entries(&folder);
    assert_eq!(entries.len(), 1);
    assert_eq!((entries[0].class, entries[0].estimated), (Class::Abandoned, true));
}

#[track_caller]
fn through(script: &str, kind: &str) {
    // Lists of models, counts and, but for Anthropic's SDKs, embeddings, which not all providers have.
    let embeds = !script.starts_with("anthropic") && kind == "anthropic";
    let left_out: &[&str] = if embeds { &["extras"] } else { &[] };
    let provider = Simulator::start(Options::provider("models")).unwrap();
    // Bedrock's models of vectors go by their names; that one of them also talks is the simulator's kindness.
    let model = if kind == "bedrock" { "cohere.embed-v4:0" } else { "some-model" };
    // The key that the scripts show, unless they show a wrong one on purpose.
    let hash = "sha256:2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683";
    let more = format!(
        "models: {{ some-model: \"{kind}/{model}\", \"*\": \"{kind}/*\" }}
policies: {{ authenticate: {{ api-key: {{}} }} }}
consumers: {{ agent: {{ keys: [{{ id: k1, hash: \"{hash}\" }}] }} }}"
    );
    let gateway = Gateway::start_in(&folder(), &document(&provider, &more));
    sdk::run(script, &gateway.url(), "some-model", left_out);
}

#[test]
fn openai_of_python_through_weir() {
    for kind in ["openai", "anthropic", "gemini", "bedrock"] {
        through("openai_sdk.py", kind);
    }
}

#[test]
fn anthropic_of_python_through_weir() {
    for kind in ["anthropic", "openai", "gemini", "bedrock"] {
        through("anthropic_sdk.py", kind);
    }
}

#[test]
fn gemini_of_python_through_weir() {
    for kind in ["gemini", "openai", "anthropic", "bedrock"] {
        through("google_sdk.py", kind);
    }
}

#[test]
fn openai_of_node_through_weir() {
    for kind in ["openai", "anthropic", "gemini", "bedrock"] {
        through("openai.mjs", kind);
    }
}

#[test]
fn anthropic_of_node_through_weir() {
    for kind in ["anthropic", "openai", "gemini", "bedrock"] {
        through("anthropic.mjs", kind);
    }
}

/// Who wrote that provider knew nothing of us: what we send it in each dialect, and what we make of its answers, has another's
/// word for it that it is right.
#[test]
fn sdks_through_weir_to_a_provider_that_is_not_ours() {
    let Some(aimock) = sdk::Aimock::start() else { return };
    for (kind, base) in [("openai", "/v1"), ("anthropic", ""), ("gemini", "/v1beta")] {
        let more = format!(
            "providers: {{ other: {{ kind: {kind}, upstream: '{}{base}', keys: file:key }} }}
models: {{ gpt-4o: other/gpt-4o }}
apis: {{ models: {{ llm: {{}} }} }}",
            aimock.url
        );
        let gateway = Gateway::start_in(&folder(), &more);
        // Of its Gemini's words, which pass unchanged, Google's SDK does not know how a call of a tool ends.
        let own = ["content tools", "content parallel"];
        let left_out = [&sdk::BEYOND_AIMOCK[..], if kind == "gemini" { &own } else { &[] }].concat();
        for script in ["openai_sdk.py", "anthropic.mjs", "google_sdk.py"] {
            sdk::run(script, &gateway.url(), "gpt-4o", &left_out);
        }
    }
}
