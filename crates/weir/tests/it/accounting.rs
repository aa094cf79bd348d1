//! Every token accounted for: calls at random, by callers who leave, against a provider that fails, through a gateway that is
//! killed and started again. What the callers were told is then held against the provider's own books, call by call.
//!
//! Some hundreds of calls, or as many as `WEIR_ACCOUNTING_CALLS` says (`make accounting`); `WEIR_ACCOUNTING_SEED` repeats a
//! run.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use simulator::{Ended, Entry, Options, Simulator};
use testkit::{Folder, eventually};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::weir::Running;

mod ledger;

const CALLS: u64 = 500;
const WORKERS: u64 = 16;
/// A gateway is killed once in so many calls.
const LIFE: u64 = 200;

#[test]
fn every_token_is_accounted_for() {
    let (calls, seed) = numbers();
    let provider = Simulator::start(Options::provider("models")).unwrap();
    let folder = Folder::new();
    let address = free();
    folder.write(
        "weir.yaml",
        format!(
            "version: 1\nnode: {{ workers: 2 }}\nlisteners: {{ web: {{ address: '{address}' }} }}\n\
             apis: {{ models: {{ upstream: '{}' }} }}\n",
            provider.url()
        ),
    );
    let (saw, kills) = drive(&folder, address, calls, seed);
    // Those who left are noticed, and those whose gateway was killed.
    let begun = |entries: &[Entry]| entries.iter().map(|entry| entry.number).max().unwrap_or(0);
    eventually("the provider has closed its books", || {
        let before = begun(&provider.books());
        std::thread::sleep(Duration::from_millis(100));
        before > 0 && begun(&provider.books()) == before
    });
    let report = reconcile(&saw, &provider.books(), kills);
    eprintln!("seed {seed}, {calls} calls, {kills} kills\n{report}");
}

/// How many calls, and by which seed.
fn numbers() -> (u64, u64) {
    let number = |name, usual| std::env::var(name).map_or(usual, |text: String| text.parse().unwrap());
    (number("WEIR_ACCOUNTING_CALLS", CALLS), number("WEIR_ACCOUNTING_SEED", 20_261_124))
}

/// A port that a gateway may have again and again.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

// === Calls ===

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    Chat,
    Responses,
    Messages,
    Content,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Plain,
    /// The provider does not tell what it costs.
    Untold,
    /// The caller leaves after so many tokens, or soon if the answer is no stream.
    Left(u32),
    Cut,
    Half,
    Failing,
    Undone,
    Garbage,
    Unavailable,
    Limited,
    Page,
}

#[derive(Clone, Debug)]
struct Asked {
    number: u64,
    dialect: Dialect,
    stream: bool,
    what: What,
    words: String,
}

/// What the caller knows of a call at its end.
#[derive(Debug, Default)]
struct Seen {
    status: Option<u16>,
    tokens: u32,
    /// Input and output, as the answer told it.
    told: Option<(u32, u32)>,
    /// The answer came to an end as HTTP has it.
    whole: bool,
}

/// SplitMix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (value ^ (value >> 31)) % limit
    }
}

impl Asked {
    fn at_random(number: u64, seed: u64) -> Asked {
        let mut random = Random(seed ^ number.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let dialects = [Dialect::Chat, Dialect::Responses, Dialect::Messages, Dialect::Content];
        let dialect = dialects[random.below(4) as usize];
        let stream = random.below(3) > 0;
        let tokens = random.below(40) + 2;
        let (input, cached, reasoning) = (random.below(1000) + 1, random.below(3) * 100, random.below(3) * 3);
        let after = random.below(4) + 2;
        let (what, fault) = match random.below(100) {
            0..60 => (What::Plain, String::new()),
            60..64 => (What::Untold, "no-usage".into()),
            64..76 => (What::Left(random.below(tokens.min(6)) as u32 + 1), "every=2ms".into()),
            76..81 => (What::Cut, format!("cut={after}")),
            81..84 => (What::Half, format!("half={after}")),
            84..87 if stream => (What::Failing, format!("error={after}")),
            87..89 if stream => (What::Undone, "undone".into()),
            89..91 if stream => (What::Garbage, format!("garbage={after}")),
            91..95 => (What::Unavailable, "status=503 times=1".into()),
            95..98 => (What::Limited, "status=429 retry-after=1".into()),
            98.. => (What::Page, "html".into()),
            _ => (What::Plain, String::new()),
        };
        let words = format!("tokens={tokens} input={input} cached={cached} reasoning={reasoning} tag={number} {fault}");
        Asked { number, dialect, stream, what, words }
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let Asked { number, dialect, stream, .. } = *self;
        let prompt = format!("Call {number}. [sim {}]", self.words);
        let messages = json!([{"role": "user", "content": prompt}]);
        let (path, body) = match dialect {
            Dialect::Chat if stream => (
                "/v1/chat/completions",
                json!({"model": "m", "messages": messages, "stream": true, "stream_options": {"include_usage": true}}),
            ),
            Dialect::Chat => ("/v1/chat/completions", json!({"model": "m", "messages": messages})),
            Dialect::Responses => ("/v1/responses", json!({"model": "m", "input": prompt, "stream": stream})),
            Dialect::Messages => {
                ("/v1/messages", json!({"model": "m", "messages": messages, "max_tokens": 1000, "stream": stream}))
            }
            Dialect::Content => {
                let parts = json!([{"role": "user", "parts": [{"text": prompt}]}]);
                let verb = if stream {
                    "/v1beta/models/m:streamGenerateContent?alt=sse"
                } else {
                    "/v1beta/models/m:generateContent"
                };
                (verb, json!({"contents": parts}))
            }
        };
        let request = Request::post(path).header("host", "models.test").header("content-type", "application/json");
        let request = request.header("authorization", "Bearer key").header("x-api-key", "key");
        let request = request.header("x-goog-api-key", "key").header("anthropic-version", "2023-06-01");
        // The call's number is its task, too.
        let request = request.header("traceparent", format!("00-{:032x}-0000000000000001-01", number + 1));
        request.body(Full::new(body.to_string().into())).unwrap()
    }
}

impl Dialect {
    /// What an answer, or an event of one, tells of its cost: all of the input, all of the output.
    fn usage(self, value: &Value) -> Option<(u32, u32)> {
        let sum = |usage: &Value, input: &[&str], output: &[&str]| {
            let of = |names: &[&str]| names.iter().filter_map(|name| usage[*name].as_u64()).sum::<u64>() as u32;
            usage[output[0]].as_u64().map(|_| (of(input), of(output)))
        };
        match self {
            Dialect::Chat => sum(&value["usage"], &["prompt_tokens"], &["completion_tokens"]),
            Dialect::Responses => {
                let response = if value["response"].is_null() { value } else { &value["response"] };
                sum(&response["usage"], &["input_tokens"], &["output_tokens"])
            }
            Dialect::Messages => {
                let input = ["input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"];
                // What stands in the first event is not the last word.
                sum(&value["usage"], &input, &["output_tokens"])
            }
            Dialect::Content if value["candidates"][0]["finishReason"].is_null() => None,
            Dialect::Content => {
                let output = ["candidatesTokenCount", "thoughtsTokenCount"];
                sum(&value["usageMetadata"], &["promptTokenCount"], &output)
            }
        }
    }

    /// Whether an event brings a token.
    fn token(self, event: &Value) -> bool {
        match self {
            Dialect::Chat => {
                let delta = &event["choices"][0]["delta"];
                ["content", "reasoning_content"]
                    .iter()
                    .any(|name| delta[*name].as_str().is_some_and(|it| !it.is_empty()))
            }
            Dialect::Responses => event["type"].as_str().is_some_and(|kind| kind.ends_with("text.delta")),
            Dialect::Messages => ["text", "thinking"].iter().any(|name| event["delta"][*name].is_string()),
            Dialect::Content => {
                event["candidates"][0]["content"]["parts"][0]["text"].as_str().is_some_and(|it| !it.is_empty())
            }
        }
    }
}

// === The run ===

/// What became of every call, and how often the gateway was killed.
fn drive(folder: &Folder, address: SocketAddr, calls: u64, seed: u64) -> (Vec<(Asked, Seen)>, u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let saw = Rc::new(RefCell::new(Vec::new()));
    let next = Rc::new(Cell::new(0));
    let kills = tokio::task::LocalSet::new().block_on(&runtime, async {
        let start = || Running::start(folder.base(), &["run", "weir.yaml"]);
        let mut gateway = start();
        let workers: Vec<_> = (0..WORKERS)
            .map(|_| {
                let (saw, next) = (saw.clone(), next.clone());
                tokio::task::spawn_local(async move {
                    let mut client = None;
                    while next.get() < calls {
                        let number = next.replace(next.get() + 1);
                        let asked = Asked::at_random(number, seed);
                        let mut seen = Seen::default();
                        // How it ended is in what was seen.
                        let _ = timeout(Duration::from_secs(30), call(&mut client, address, &asked, &mut seen)).await;
                        if !seen.whole {
                            client = None;
                        }
                        saw.borrow_mut().push((asked, seen));
                    }
                })
            })
            .collect();
        let mut kills = 0;
        while next.get() < calls {
            if next.get() >= (kills + 1) * LIFE {
                gateway.signal("KILL");
                // Its port must be free again.
                gateway.end();
                gateway = start();
                kills += 1;
            }
            sleep(Duration::from_millis(1)).await;
        }
        for worker in workers {
            worker.await.unwrap();
        }
        kills
    });
    (saw.take(), kills)
}

/// A connection, which is gone as soon as this is.
struct Client {
    sender: http1::SendRequest<Full<Bytes>>,
    connection: tokio::task::JoinHandle<()>,
}

impl Client {
    /// A gateway that was killed is back soon.
    async fn connect(address: SocketAddr) -> Client {
        loop {
            if let Ok(stream) = TcpStream::connect(address).await
                && let Ok((sender, connection)) = http1::handshake(TokioIo::new(stream)).await
            {
                let connection = tokio::task::spawn_local(async move {
                    let _ = connection.await;
                });
                return Client { sender, connection };
            }
            sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

async fn call(client: &mut Option<Client>, address: SocketAddr, asked: &Asked, seen: &mut Seen) -> io::Result<()> {
    let mut taken = match client.take() {
        Some(client) if !client.sender.is_closed() => client,
        _ => Client::connect(address).await,
    };
    taken.sender.ready().await.map_err(io::Error::other)?;
    let leaves = match asked.what {
        What::Left(tokens) => Some(tokens),
        _ => None,
    };
    let sending = taken.sender.send_request(asked.request());
    let answer = match leaves {
        // The whole answer would take longer than that.
        Some(tokens) if !asked.stream => timeout(Duration::from_millis(2 * u64::from(tokens)), sending).await?,
        _ => sending.await,
    };
    let answer = answer.map_err(io::Error::other)?;
    seen.status = Some(answer.status().as_u16());
    let streams =
        answer.headers().get("content-type").is_some_and(|it| it.as_bytes().starts_with(b"text/event-stream"));
    read(answer.into_body(), asked, streams, leaves.filter(|_| asked.stream), seen).await?;
    *client = Some(taken);
    Ok(())
}

async fn read(
    mut body: Incoming,
    asked: &Asked,
    streams: bool,
    leaves: Option<u32>,
    seen: &mut Seen,
) -> io::Result<()> {
    let mut text = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(io::Error::other)?.into_data() else { continue };
        text.extend_from_slice(&data);
        while streams && let Some(end) = text.windows(2).position(|pair| pair == b"\n\n") {
            let event: Vec<u8> = text.drain(..end + 2).collect();
            let data = event.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"data: "));
            let Ok(event) = serde_json::from_slice::<Value>(data.unwrap_or_default()) else { continue };
            seen.tokens += u32::from(asked.dialect.token(&event));
            seen.told = asked.dialect.usage(&event).or(seen.told);
            if leaves.is_some_and(|tokens| seen.tokens >= tokens) {
                return Err(io::ErrorKind::Interrupted.into());
            }
        }
    }
    if !streams && let Ok(value) = serde_json::from_slice(&text) {
        seen.told = asked.dialect.usage(&value);
    }
    seen.whole = true;
    Ok(())
}

// === The books ===

/// Fails with all calls that the books do not explain; else says what the tokens went for.
#[track_caller]
fn reconcile(saw: &[(Asked, Seen)], books: &[Entry], kills: u64) -> String {
    let mut entries: HashMap<&str, Vec<&Entry>> = HashMap::new();
    for entry in books {
        let tag = entry.tag.as_deref().expect("every call has a tag");
        entries.entry(tag).or_default().push(entry);
    }
    let mut unexplained = Vec::new();
    let mut classes: BTreeMap<&str, [u64; 3]> = BTreeMap::new();
    let mut killed = 0;
    for (asked, seen) in saw {
        let entries = entries.remove(asked.number.to_string().as_str()).unwrap_or_default();
        match explain(asked, seen, &entries) {
            Ok(class) => {
                killed += u64::from(class == "its gateway was killed");
                let sum = classes.entry(class).or_default();
                sum[0] += 1;
                sum[1] += entries.iter().map(|entry| u64::from(entry.usage.input)).sum::<u64>();
                sum[2] += entries.iter().map(|entry| u64::from(entry.usage.output)).sum::<u64>();
            }
            Err(why) => unexplained.push(format!("{why}:\n  {asked:?}\n  {seen:?}\n  {entries:?}")),
        }
    }
    assert!(unexplained.is_empty(), "{} of {}:\n{}", unexplained.len(), saw.len(), unexplained.join("\n"));
    assert!(entries.is_empty(), "calls that nobody made: {entries:?}");
    assert!(killed <= kills * WORKERS, "{killed} broke off in {kills} kills");
    let mut report = String::from("| calls | what became of them | input | output |\n|--:|---|--:|--:|\n");
    for (class, [calls, input, output]) in classes {
        report.push_str(&format!("| {calls} | {class} | {input} | {output} |\n"));
    }
    report
}

/// Why the provider bills what it does, or what is wrong with it.
fn explain(asked: &Asked, seen: &Seen, entries: &[&Entry]) -> Result<&'static str, String> {
    let refused = |entry: &&&Entry| entry.ended == Ended::Refused;
    if let Some(entry) = entries.iter().filter(refused).find(|entry| entry.usage != Default::default()) {
        return Err(format!("a refusal that costs something: {entry:?}"));
    }
    let served: Vec<_> = entries.iter().filter(|entry| entry.ended != Ended::Refused).collect();
    if served.len() > 1 {
        return Err("served more than once".into());
    }
    let Some(entry) = served.first() else {
        return match (seen.status, asked.what) {
            (Some(503), What::Unavailable) | (Some(429), What::Limited) | (Some(200), What::Page) => Ok("refused"),
            // It never reached the provider.
            (None | Some(502..=504), What::Left(_)) => Ok("left before it was asked"),
            (None | Some(502..=504), _) => Ok("its gateway was killed"),
            _ => Err("answered by nobody".into()),
        };
    };
    if entry.usage.output < seen.tokens {
        return Err("more tokens came than were sent".into());
    }
    let told = (entry.usage.input, entry.usage.output);
    match (asked.what, entry.ended) {
        (What::Left(_), Ended::Cancelled | Ended::Completed) => Ok("left"),
        (What::Cut, Ended::Cut) if !seen.whole || seen.status != Some(200) => Ok("cut"),
        // Nobody is told of half a number, and half an event is none.
        (What::Half | What::Failing, Ended::Completed) if seen.whole => Ok("ended without its end"),
        (What::Undone, Ended::Completed) if seen.whole && !entry.told => Ok("ended without its end"),
        (What::Untold, Ended::Completed) if seen.whole && seen.told.is_none() && !entry.told => Ok("never told"),
        (_, Ended::Completed) if seen.whole && entry.told => match seen.told {
            Some(seen) if seen == told => Ok("told"),
            seen => Err(format!("told {seen:?}, billed {told:?}")),
        },
        // Of the last answer before a kill, the provider may have sent all and the caller seen nothing.
        (_, Ended::Completed | Ended::Cancelled | Ended::Cut) if !seen.whole => Ok("its gateway was killed"),
        _ => Err("neither told nor broken off".into()),
    }
}
