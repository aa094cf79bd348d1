//! What models cost and what was spent, as a person asks for it.

use std::path::Path;
use std::time::{Duration, SystemTime};

use ledger::{Class, Entry, Moment, Money};

use crate::weir::{Said, weir};

#[track_caller]
fn check(said: &Said, code: i32, parts: &[&str]) {
    let Said { code: found, out, err } = said;
    assert_eq!(*found, Some(code), "{out}{err}");
    for part in parts {
        assert!(out.contains(part) || err.contains(part), "no `{part}` in\n{out}{err}");
    }
}

/// Entries of now, two of them for agent-a, and one of ten days ago.
fn books(folder: &Path) {
    let (journal, _) = journal::Journal::open(folder, journal::Settings::default(), None, |_| {}, |_| {}).unwrap();
    let entry = |consumer: &str, class, ago: u64, cost: &str| Entry {
        time: Moment::from(SystemTime::now() - Duration::from_secs(ago)),
        api: "chat".into(),
        consumer: Some(consumer.into()),
        provider: "openai".into(),
        model_asked: "fast".into(),
        model_served: "gpt-4o".into(),
        class,
        usage: base::TokenUsage { input: 1000, output: 100, ..base::TokenUsage::default() },
        cost: cost.parse::<Money>().unwrap(),
        ..Entry::default()
    };
    for entry in [
        entry("agent-a", Class::Retry, 10, "0.000000000001 USD"),
        entry("agent-a", Class::Useful, 5, "0.1 USD"),
        entry("agent-b", Class::Useful, 5, "0.2 USD"),
        entry("agent-b", Class::Useful, 864_000, "7 USD"),
    ] {
        journal.handle().append(&[entry]).unwrap();
    }
    assert!(journal.close());
}

#[test]
fn what_was_spent_is_summed_exactly() {
    let folder = tempfile::tempdir().unwrap();
    books(&folder.path().join("data"));
    let spend = |args: &[&str]| weir(folder.path(), &[&["spend", "--data", "data"], args].concat());
    let said = spend(&["--by", "consumer,class"]);
    check(&said, 0, &[]);
    let expected = "\
consumer  class   calls  input tokens  output tokens        cost USD      hidden USD  saved USD  estimated
agent-b   useful      1          1000            100             0.2               0          0          0
agent-a   useful      1          1000            100             0.1               0          0          0
agent-a   retry       0          1000            100  0.000000000001  0.000000000001          0          0
total                 2          3000            300  0.300000000001  0.000000000001          0          0
";
    assert_eq!(said.out, expected);
    let said = spend(&["--by", "consumer", "--since", "all", "--format", "csv"]);
    let lines: Vec<&str> = said.out.split("\r\n").collect();
    assert_eq!(lines[1..3], ["agent-b,2,2000,200,7.2,0,0,0", "agent-a,1,2000,200,0.100000000001,0.000000000001,0,0"]);
    let said = spend(&["--by", "model,asked", "--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(json["rows"][0]["model"], "gpt-4o");
    assert_eq!(json["rows"][0]["asked"], "fast");
    assert_eq!(json["total"]["cost"], "0.300000000001 USD");
    assert_eq!(json["total"]["entries"], 3);
}

#[test]
fn a_journal_that_is_not_there_and_sides_that_are_none_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    check(&weir(folder.path(), &["spend", "--data", "nowhere"]), 1, &["`nowhere` cannot be read", "ledger.data"]);
    check(&weir(folder.path(), &["spend", "--data", ".", "--by", "colour"]), 2, &["expected some of api"]);
    check(&weir(folder.path(), &["spend", "--data", ".", "--since", "yesterday"]), 2, &["such as `250ms`"]);
    check(&weir(folder.path(), &["spend", "--help"]), 0, &["Examples:", "Hidden cost"]);
}

#[test]
fn prices_are_shown_with_their_source() {
    let folder = tempfile::tempdir().unwrap();
    let prices = |args: &[&str]| weir(folder.path(), &[&["prices"], args].concat());
    check(&prices(&["openai/gpt-4o-2031-01-01"]), 0, &["openai/gpt-4o (there is no row for that release)", "2.5 USD"]);
    check(&prices(&["openai/gpt-4o"]), 0, &["batch input", "1.25 USD", "priority output", "source", "https://"]);
    check(&prices(&["--provider", "anthropic", "sonnet"]), 0, &["anthropic/claude-sonnet-4-5", "cached read"]);
    check(&prices(&["--providers"]), 0, &["anthropic", "bedrock", "openai"]);
    check(&prices(&["openai/no-such-model"]), 2, &["no model of that name", "`price`"]);
    let json: serde_json::Value = serde_json::from_str(&prices(&["openai/gpt-4o", "--json"]).out).unwrap();
    assert_eq!((&json[0]["found"], &json[0]["rates"]["input"]), (&"same".into(), &"2.5 USD".into()));
    check(&prices(&["--help"]), 0, &["Examples:", "weir prices update"]);
}

#[test]
fn a_file_of_prices_is_made_and_stands_over_the_book() {
    let folder = tempfile::tempdir().unwrap();
    let theirs = r#"{
        "sample_spec": { "litellm_provider": "one of" },
        "gpt-4o": { "litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1e-06,
                    "output_cost_per_token": 2e-06, "max_output_tokens": 4096 },
        "groq/own": { "litellm_provider": "groq", "input_cost_per_token": 5e-08, "output_cost_per_token": 8e-08 },
        "dall-e": { "litellm_provider": "openai", "input_cost_per_pixel": 2e-08 },
        "x/y": { "litellm_provider": "nobody", "input_cost_per_token": 1e-06 }
    }"#;
    std::fs::write(folder.path().join("theirs.json"), theirs).unwrap();
    let update = ["prices", "update", "theirs.json", "--date", "2026-11-01", "--output", "prices.txt"];
    let said = weir(folder.path(), &update);
    check(
        &said,
        0,
        &["2 models have a price", "1 of providers", "1 that are priced otherwise", "2 rows that are not as"],
    );
    let made = std::fs::read_to_string(folder.path().join("prices.txt")).unwrap();
    assert!(made.ends_with(
        "@ groq 2026-11-01 theirs.json\nown\tin=0.05 out=0.08\n@ openai 2026-11-01 theirs.json\n\
         gpt-4o\tmax-output=4096 in=1 out=2\n"
    ));
    let shown = weir(folder.path(), &["prices", "--prices", "prices.txt", "openai/gpt-4o"]);
    check(&shown, 0, &["theirs.json", "2026-11-01", "1 USD"]);
    // Such a file again, and what is wrong with one.
    check(&weir(folder.path(), &["prices", "update", "prices.txt", "--only", "groq"]), 0, &["own\tin=0.05 out=0.08"]);
    std::fs::write(folder.path().join("wrong.txt"), "@ a 2026-11-01 me\nm\tin=free\nn\tout=1 fast=2\n").unwrap();
    let said = weir(folder.path(), &["prices", "--prices", "wrong.txt", "m"]);
    check(&said, 2, &["wrong.txt:2: `in=free` is not a price", "wrong.txt:3: `fast` is not known", "docs/money.md"]);
    check(&weir(folder.path(), &["prices", "update", "absent"]), 1, &["`absent` cannot be read"]);
}

#[test]
fn models_without_a_price_or_with_an_old_one_are_named() {
    let folder = testkit::Folder::new();
    folder.write("key", "sk");
    let document = |models: &str| {
        let providers =
            "openai: { keys: file:key }, own: { kind: openai-compatible, upstream: 'http://127.0.0.1:9/v1' }";
        format!(
            "version: 1\nproviders: {{ {providers} }}\nmodels: {{ {models} }}\nledger: {{ prices: prices.txt }}\n\
             apis: {{ a: {{ llm: {{}} }} }}\n"
        )
    };
    let check = |models: &str, more: &[&str]| {
        folder.write("weir.yaml", document(models));
        let said = weir(folder.base(), &[&["prices", "--check", "weir.yaml"], more].concat());
        (said.code, said.out, said.err)
    };
    folder.write("prices.txt", "@ groq 2020-01-01 me\nm\tin=1 out=2\n");
    let known = "a: openai/gpt-4o, b: { candidates: [{ model: own/x, price: { input: 1 USD, output: 2 USD } }] }";
    let (code, out, err) = check(known, &["--older-than", "36500"]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert!(out.contains("openai/gpt-4o") && out.contains("of the document"), "{out}");
    folder.write("prices.txt", "@ openai 2020-01-01 me\ngpt-4o\tin=1 out=2\n");
    let (code, out, err) = check("a: openai/gpt-4o", &["--older-than", "365"]);
    assert_eq!(code, Some(2), "{out}{err}");
    assert!(
        out.contains("2020-01-01") && err.contains("0 without a price, 1 with one older than 365 days"),
        "{out}{err}"
    );
    let (code, out, _) = check("a: own/y", &["--json"]);
    let found: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &found[0]["state"]), (Some(2), &serde_json::json!("no price")), "{out}");
}
