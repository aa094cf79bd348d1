//! `ledger.sync: each`: what a caller has seen the end of is on the disk. The process is killed, and what the kernel holds for
//! it is thrown away, as when the machine loses power.

use std::fs;

use ledger::{Class, Entry, Record};
use serde_json::json;
use simulator::{Options, Simulator};
use testkit::{Answer, Folder, Raw};

use crate::weir::Running;

fn start(folder: &Folder, provider: &Simulator) -> (Running, std::net::SocketAddr) {
    start_with(folder, provider, "")
}

fn start_with(folder: &Folder, provider: &Simulator, more: &str) -> (Running, std::net::SocketAddr) {
    folder.write("key", "sk-provider");
    folder.write(
        "weir.yaml",
        format!(
            "version: 1
listeners: {{ web: {{ address: '127.0.0.1:0' }} }}
providers: {{ openai: {{ upstream: {}/v1, keys: file:key }} }}
models: {{ m: openai/gpt-4o }}
ledger: {{ data: books, sync: each }}
apis: {{ brain: {{ llm: {{}} }} }}
{more}
",
            provider.url()
        ),
    );
    let node = Running::start(folder.base(), &["run", "weir.yaml"]);
    let line = node.line("listening");
    let address = line.split_whitespace().find_map(|word| word.strip_prefix("address=")).unwrap();
    let address = address.trim_start_matches("http://").parse().unwrap();
    (node, address)
}

fn ask(address: std::net::SocketAddr, path: &str, stream: bool, words: &str) -> Answer {
    Raw::connect(address).send(request(path, stream, words)).answer()
}

fn request(path: &str, stream: bool, words: &str) -> String {
    let content = format!("Say something. [sim tokens=5 input=20 {words}]");
    let body = json!({ "model": "m", "stream": stream, "max_tokens": 100, "messages": [{ "role": "user", "content": content }] });
    let body = body.to_string();
    format!(
        "POST {path} HTTP/1.1\r\nhost: weir\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// What is in the journal when all that was not synced is gone.
fn left(folder: &Folder, node: Running) -> Vec<Entry> {
    node.signal("KILL");
    node.end();
    for file in fs::read_dir(folder.path("books/0")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|it| it == "spool") {
            fs::remove_file(path).unwrap();
        }
    }
    let records = journal::read(&folder.path("books"), None).unwrap();
    let entry = |record| if let Record::Entry(entry) = record { Some(entry) } else { None };
    records.filter_map(|it| entry(it.unwrap().1)).collect()
}

#[test]
fn what_a_caller_has_seen_the_end_of_is_on_the_disk() {
    let provider = Simulator::start(Options::provider("models")).unwrap();
    // More than once: what is synced by and by is there by chance, too.
    for _ in 0..3 {
        for (path, stream) in [
            ("/v1/chat/completions", false),
            ("/v1/chat/completions", true),
            ("/v1/messages", false),
            ("/v1/messages", true),
        ] {
            let folder = Folder::new();
            let (node, address) = start(&folder, &provider);
            let answer = ask(address, path, stream, "");
            assert!(answer.status == 200 && answer.complete, "{path}: {}", answer.text());
            let entries = left(&folder, node);
            assert_eq!(entries.len(), 1, "{path}, a stream: {stream}");
            assert_eq!(
                (entries[0].class, entries[0].usage.prompt(), entries[0].usage.completion()),
                (Class::Useful, 20, 5)
            );
        }
    }
}

#[test]
fn so_is_what_a_call_cost_that_was_refused() {
    let provider = Simulator::start(Options::provider("models")).unwrap();
    let folder = Folder::new();
    let (node, address) = start(&folder, &provider);
    provider.inject(simulator::Fault::Status(http::StatusCode::SERVICE_UNAVAILABLE), 1);
    assert_eq!(ask(address, "/v1/messages", false, "").status, 503);
    let entries = left(&folder, node);
    assert_eq!(entries.iter().map(|it| it.class).collect::<Vec<_>>(), [Class::Failed]);
}

#[test]
fn many_at_once_are_synced_together_and_all_are_there() {
    let provider = Simulator::start(Options::provider("models")).unwrap();
    let folder = Folder::new();
    let (node, address) = start(&folder, &provider);
    std::thread::scope(|scope| {
        for caller in 0..16 {
            scope.spawn(move || {
                for _ in 0..10 {
                    let answer = ask(address, "/v1/chat/completions", caller % 2 == 0, "");
                    assert!(answer.status == 200 && answer.complete, "{}", answer.text());
                }
            });
        }
    });
    assert_eq!(left(&folder, node).len(), 160);
}

#[test]
fn so_is_what_an_answer_saved_that_was_known() {
    let provider = Simulator::start(Options::provider("models")).unwrap();
    for _ in 0..3 {
        for (path, stream) in [("/v1/chat/completions", false), ("/v1/chat/completions", true), ("/v1/messages", true)]
        {
            let folder = Folder::new();
            let (node, address) = start_with(&folder, &provider, "policies: { answer-cache: {} }");
            for _ in 0..2 {
                let answer = ask(address, path, stream, "");
                assert!(answer.status == 200 && answer.complete, "{path}: {}", answer.text());
            }
            let classes: Vec<_> = left(&folder, node).iter().map(|it| it.class).collect();
            assert_eq!(classes, [Class::Useful, Class::Cached], "{path}, a stream: {stream}");
        }
    }
}

#[test]
fn so_is_what_was_saved_by_following_anothers_answer() {
    let provider = Simulator::start(Options::provider("models")).unwrap();
    const PATH: &str = "/v1/chat/completions";
    for stream in [false, true, false, true] {
        let folder = Folder::new();
        // On one core nobody goes alone.
        let (node, address) = start_with(&folder, &provider, "node: { workers: 1 }\npolicies: { answer-cache: {} }");
        // Who asks the provider; the other reads along. What the first waits for at its end would sync the other's entry
        // too, so nobody waits for that.
        let mut leader = Raw::connect(address);
        leader.send(request(PATH, true, "every=150ms"));
        assert_eq!(leader.head().unwrap().status, 200);
        let answer = ask(address, PATH, stream, "every=150ms");
        assert!(answer.status == 200 && answer.complete, "{}", answer.text());
        assert!(answer.header("cache-status").unwrap().contains("collapsed"), "{answer:?}");
        let classes: Vec<_> = left(&folder, node).iter().map(|it| it.class).collect();
        assert!(classes.contains(&Class::Cached), "{classes:?}, a stream: {stream}");
    }
}
