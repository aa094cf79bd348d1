//! What calls to models come to, where nodes count tokens and money together in a real Redis: what one node took too much or
//! too little is felt by the other, also if the store was away and has forgotten meanwhile. The provider is the simulator.

use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;
use simulator::{Options, Simulator};
use testkit::{Answer, Folder, Gateway, Raw, eventually};

use crate::shared::Redis;

struct Nodes {
    provider: Simulator,
    store: Redis,
    a: Gateway,
    b: Gateway,
}

/// Two, of one core each. Nothing of the rule comes back while a test lasts.
fn nodes(rule: &str) -> Nodes {
    let (provider, store) = (Simulator::start(Options::provider("models")).unwrap(), Redis::start());
    let folder = Folder::new();
    folder.write("key", "sk-provider");
    let document = format!(
        "
node: {{ workers: 1 }}
stores: {{ s: {{ url: 'redis://{}', nodes: 2 }} }}
providers: {{ openai: {{ upstream: {}/v1, keys: file:key }} }}
models: {{ m: openai/gpt-4o }}
apis: {{ brain: {{ llm: {{}}, policies: {{ limit: [{{ per: all, {rule}, shared: {{ store: s, when-away: closed }} }}] }} }} }}",
        store.address,
        provider.url()
    );
    let [a, b] = [0; 2].map(|_| Gateway::start_in(&folder, &document));
    Nodes { provider, store, a, b }
}

/// A call that may have `most` tokens of an answer, and gets what the words say.
fn call(node: &Gateway, most: u64, words: &str) -> JoinHandle<Answer> {
    let text = format!("Say something. [sim input=20 {words}]");
    let body =
        json!({ "model": "m", "max_tokens": most, "messages": [{ "role": "user", "content": text }] }).to_string();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: weir\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let address = node.web();
    std::thread::spawn(move || Raw::connect(address).send(request).answer())
}

fn status(node: &Gateway, most: u64) -> u16 {
    call(node, most, "tokens=5").join().unwrap().status
}

/// A call at A that waits for its answer, and what happens meanwhile.
fn during(nodes: &mut Nodes, most: u64, words: &str, meanwhile: impl FnOnce(&mut Nodes)) {
    let before = nodes.provider.requests();
    let under_way = call(&nodes.a, most, &format!("first=1s {words}"));
    eventually("it is under way", || nodes.provider.requests() > before);
    meanwhile(nodes);
    let answer = under_way.join().unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn what_one_node_took_too_much_another_uses() {
    let nodes = &mut nodes("tokens: 20k/h");
    during(nodes, 12_000, "tokens=5", |nodes| assert_eq!(status(&nodes.b, 12_000), 429));
    eventually("it was given back", || status(&nodes.b, 12_000) == 200);
    // And that again, to the node that began.
    eventually("that too", || status(&nodes.a, 12_000) == 200);
}

#[test]
fn what_one_node_took_too_little_another_feels() {
    let nodes = &mut nodes("tokens-out: 10k/h, estimate: 10");
    during(nodes, 12_000, "tokens=9999", |nodes| assert_eq!(status(&nodes.b, 2000), 200));
    // These count next to nothing: it is what the other's call came to.
    let mut calls = 0;
    eventually("there is nothing left", || {
        calls += 1;
        status(&nodes.b, 2000) == 429
    });
    assert!(calls < 500, "{calls}");
}

#[test]
fn money_comes_back_too() {
    // An answer of 12,000 tokens costs 0.12 USD.
    let nodes = &mut nodes("money: 0.2 USD/h");
    during(nodes, 12_000, "tokens=5", |nodes| assert_eq!(status(&nodes.b, 12_000), 429));
    eventually("it was given back", || status(&nodes.b, 12_000) == 200);
}

#[test]
fn a_node_that_ends_tells_what_its_last_calls_came_to() {
    let Nodes { provider, store: _store, a, b } = nodes("tokens: 20k/h");
    let under_way = call(&a, 12_000, "first=1s tokens=5");
    eventually("it is under way", || provider.requests() > 0);
    assert_eq!(status(&b, 12_000), 429);
    // It ends as soon as the call has, before its next look at what there is to tell.
    assert!(a.stop(Duration::from_secs(10)));
    assert_eq!(under_way.join().unwrap().status, 200);
    assert_eq!(status(&b, 12_000), 200);
}

#[test]
fn a_node_whose_store_is_away_ends_all_the_same() {
    let mut nodes = nodes("tokens: 20k/h");
    let under_way = call(&nodes.a, 12_000, "first=1s tokens=5");
    eventually("it is under way", || nodes.provider.requests() > 0);
    nodes.store.stop();
    assert!(nodes.a.stop(Duration::from_secs(10)));
    assert_eq!(under_way.join().unwrap().status, 200);
}

/// The call ends while the store is away, which has forgotten all when it is back.
fn during_an_outage(nodes: &mut Nodes, most: u64, words: &str, before: impl FnOnce(&mut Nodes)) {
    during(nodes, most, words, |nodes| {
        before(nodes);
        nodes.store.stop();
    });
    assert_eq!(status(&nodes.b, 10), 503);
    assert_eq!(status(&nodes.a, 10), 503);
    nodes.store.again();
}

#[test]
fn what_was_too_much_comes_back_though_the_store_was_restarted() {
    let nodes = &mut nodes("tokens: 20k/h");
    // The other node knows of what was taken, and tells the store that too.
    during_an_outage(nodes, 12_000, "tokens=5", |nodes| assert_eq!(status(&nodes.b, 12_000), 429));
    eventually("it was given back", || status(&nodes.b, 12_000) == 200);
}

#[test]
fn what_was_too_little_is_told_though_the_store_was_restarted() {
    let nodes = &mut nodes("tokens-out: 10k/h, estimate: 10");
    during_an_outage(nodes, 12_000, "tokens=9999", |nodes| assert_eq!(status(&nodes.b, 2000), 200));
    let mut calls = 0;
    eventually("there is nothing left", || {
        calls += 1;
        status(&nodes.b, 2000) == 429
    });
    assert!(calls < 500, "{calls}");
}
