//! `weir explain`: what becomes of a call, and why. The same router and the same policies as in a running
//! gateway are asked, so that the answer cannot differ from what would happen.

mod question;
mod show;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use base::{Headers, Reply, StatusCode};
use config::router::{Considered, Found, Verdict, is_ambiguous_path};
use config::{Action, Balance, Forward, HashKey, Redirect, Retry, Rewrite, Route, Snapshot, Timeouts, Weighted};
use policy::{Passage, Refusal, Steps, Stop};
use schemars::JsonSchema;
use serde::Serialize;

use crate::document::{Document, Loaded};
use crate::exit::Exit;
use crate::live::{self, Live};
use crate::terminal::{Paint, complain, say, tell};
pub use question::Question;

/// Say what becomes of a call, and why
///
/// Which route takes it, what the policies do with it, where it would go and as what, and why the other
/// routes did not take it. Nobody is called, unless with --live.
///
/// FILE is the document, `-` for standard input and weir.yaml if left out. URL may be just a path.
#[derive(clap::Args)]
#[command(
    override_usage = "weir explain [OPTIONS] [FILE] <METHOD> <URL>",
    after_help = "\
Examples:
  weir explain GET http://localhost:8080/orders/7
  weir explain weir.yaml GET https://orders.example.com/v2/orders/7 -H 'x-api-key: demo-key'
  weir explain POST /orders --from 203.0.113.9
  weir explain GET /orders --live
  weir explain GET /orders --json | jq .route.name

Exit codes: 0 a route takes the call, 1 the live call failed, 2 the document or the call is wrong,
3 no route takes the call"
)]
pub struct Args {
    // Clap knows no argument that may be left out before ones that may not; the usage above says what these are.
    #[arg(value_name = "CALL", required = true, num_args = 2..=3, hide = true)]
    call: Vec<String>,
    /// A request field; may be given several times
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The caller's address
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1")]
    from: IpAddr,
    /// The listener it comes in by; the URL decides if left out
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// Send the call through a gateway of its own and show where its time went
    #[arg(long)]
    live: bool,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Exit {
    let (path, method, url) = match &args.call[..] {
        [method, url] => (PathBuf::from("weir.yaml"), method, url),
        [file, method, url] => (PathBuf::from(file), method, url),
        _ => {
            complain("expected a method and a URL", "try `weir explain GET http://localhost:8080/orders`");
            return Exit::Wrong;
        }
    };
    let loaded = match load(&path) {
        Ok(loaded) => loaded,
        Err(text) => {
            tell(&text);
            return Exit::Wrong;
        }
    };
    let question =
        match Question::new(method, url, &args.headers, args.from, args.listener.as_deref(), &loaded.snapshot) {
            Ok(question) => question,
            Err(wrong) => {
                complain(&wrong.message, &wrong.help);
                return Exit::Wrong;
            }
        };
    let Loaded { source, snapshot, .. } = loaded;
    let mut explanation = explain(&source.name, &snapshot, &question);
    let exit = if explanation.route.is_some() { Exit::Ok } else { Exit::NoRoute };
    let live = if args.live { Some(live::call(snapshot, &question)) } else { None };
    let exit = match live {
        Some(Err(error)) => {
            complain(&format!("the live call failed: {error}"), "see that its upstreams can be reached from here");
            Exit::Failed
        }
        Some(Ok(live)) => {
            explanation.live = Some(live);
            exit
        }
        None => exit,
    };
    if args.json {
        say(&format!("{}\n", serde_json::to_string_pretty(&explanation).unwrap_or_default()));
    } else {
        say(&show::text(&explanation, Paint::stdout()));
    }
    exit
}

fn load(path: &std::path::Path) -> Result<Loaded, String> {
    let paint = Paint::stderr();
    let document = Document::open(path).map_err(|unreadable| unreadable.render(paint))?;
    document.read(None).result.map_err(|refused| refused.render(paint))
}

// === The answer ===

#[derive(Debug, Serialize, JsonSchema)]
pub struct Explanation {
    document: String,
    listener: String,
    call: String,
    route: Option<Taken>,
    /// Why no route is asked at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
    /// The routes that did not take it, in the order of the document.
    others: Vec<Other>,
    #[serde(skip_serializing_if = "Option::is_none")]
    live: Option<Live>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Taken {
    api: String,
    name: String,
    at: String,
    #[serde(rename = "match")]
    matches: String,
    params: BTreeMap<String, String>,
    policies: Vec<Step>,
    consumer: Option<String>,
    /// What the policies change about the request and about its answer.
    request_changes: Vec<String>,
    response_changes: Vec<String>,
    /// What the caller is told where a policy stops the call.
    stopped: Option<String>,
    action: Outcome,
}

/// A policy the call meets; those after one that stops it are not met.
#[derive(Debug, Serialize, JsonSchema)]
struct Step {
    policy: &'static str,
    passes: bool,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    Forward {
        upstreams: Vec<Candidate>,
        mirror: Option<String>,
        timeouts: String,
        retry: String,
    },
    /// A call to an api of models: in whose words, if the path is any of theirs, and who may serve which model.
    Models {
        dialect: Option<&'static str>,
        models: Vec<String>,
    },
    Redirect {
        status: u16,
        location: String,
    },
    Respond {
        status: u16,
        headers: Vec<String>,
        bytes: usize,
    },
}

/// An upstream of the split.
#[derive(Debug, Serialize, JsonSchema)]
struct Candidate {
    upstream: String,
    percent: f64,
    balance: String,
    endpoints: Vec<Target>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Target {
    url: String,
    weight: u32,
    zone: Option<String>,
    /// What it is sent: `GET /v1/orders`, and the host.
    request: String,
    host: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Other {
    name: String,
    at: String,
    #[serde(rename = "match")]
    matches: String,
    why: String,
}

// === Finding it ===

pub fn explain(document: &str, snapshot: &Snapshot, question: &Question) -> Explanation {
    let head = &question.call.head;
    let mut explanation = Explanation {
        document: document.to_owned(),
        listener: snapshot.listeners[question.listener].name.to_string(),
        call: format!("{} {}://{}{}", head.method, head.scheme.as_str(), head.authority, head.target),
        route: None,
        refused: None,
        others: Vec::new(),
        live: None,
    };
    if is_ambiguous_path(head.path()) {
        explanation.refused =
            Some("400: the path has dot segments or backslashes; upstreams would read it differently".into());
        return explanation;
    }
    let considered = snapshot.router.explain(question.listener, head);
    explanation.others = others(snapshot, considered);
    if let Some((route, found)) = snapshot.find(question.listener, head) {
        // The router knows routes by number, people by name.
        for other in &mut explanation.others {
            other.why = other.why.replace(&format!("route #{}", found.route.0), &format!("`{}`", route.name));
        }
        explanation.route = Some(taken(route, &found, question));
    }
    explanation
}

fn others(snapshot: &Snapshot, considered: Vec<Considered>) -> Vec<Other> {
    let others = considered.into_iter().filter_map(|Considered { route, verdict }| {
        let Verdict::No(why) = verdict else { return None };
        let route = snapshot.routes.get(route.0 as usize)?;
        Some(Other { name: route.name.to_string(), at: route.at.clone(), matches: route.summary.clone(), why })
    });
    others.collect()
}

fn taken(route: &Arc<Route>, found: &Found, question: &Question) -> Taken {
    let mut call = question.call();
    call.place = Some(route.place.clone());
    // What is decided by what a call asks of a model is decided by its body, which a question has not.
    call.to_model = matches!(route.action, Action::Models(_));
    let before = call.head.headers.clone();
    let mut passage = Passage::new(route.policies.clone());
    let mut steps = Steps::new();
    let verdict = live::block_on(passage.request(&mut call, &policy::Nowhere, &mut steps));
    let mut reply = Reply::new(StatusCode::OK);
    passage.response(&mut reply);
    Taken {
        api: route.api.name.to_string(),
        name: route.name.to_string(),
        at: route.at.clone(),
        matches: route.summary.clone(),
        params: found.params.iter().map(|(name, value)| (name.to_string(), value.clone())).collect(),
        policies: steps.as_slice().iter().map(|(policy, passes)| Step { policy, passes: *passes }).collect(),
        consumer: call.consumer.as_ref().map(|consumer| match &consumer.team {
            Some(team) => format!("{} (team {team})", consumer.name),
            None => consumer.name.to_string(),
        }),
        request_changes: changes(&before, &call.head.headers),
        response_changes: changes(&Headers::new(), &reply.headers),
        stopped: verdict.err().map(|stop| stopped(&stop)),
        action: match &route.action {
            Action::Forward(forward) => outcome(forward, found, &call),
            Action::Models(llm) => Outcome::Models {
                dialect: llm::target(call.head.method.as_str(), &call.head.target).map(|it| it.dialect.name()),
                models: served(llm),
            },
            Action::Redirect(redirect) => {
                Outcome::Redirect { status: redirect.status.as_u16(), location: location(redirect, found, &call) }
            }
            Action::Respond(respond) => Outcome::Respond {
                status: respond.status.as_u16(),
                headers: changes(&Headers::new(), &respond.headers),
                bytes: respond.body.len(),
            },
        },
    }
}

/// Fields that came, that went and that have another value: `+ x-team: research`.
fn changes(before: &Headers, after: &Headers) -> Vec<String> {
    let values = |headers: &Headers, name: &str| headers.get_all(name).map(<[u8]>::to_vec).collect::<Vec<_>>();
    let gone = before.iter().filter(|(name, _)| !after.contains(name)).map(|(name, _)| format!("- {name}"));
    let new = after.iter().filter(|(name, _)| values(before, name) != values(after, name));
    let new = new.map(|(name, value)| match is_secret(name) {
        true => format!("+ {name}: ..."),
        false => format!("+ {name}: {}", String::from_utf8_lossy(value)),
    });
    gone.chain(new).collect()
}

/// Fields whose values nobody should find in a terminal's history.
fn is_secret(name: &str) -> bool {
    ["authorization", "cookie", "key", "token", "secret"].iter().any(|word| name.contains(word))
}

fn stopped(stop: &Stop) -> String {
    match stop {
        Stop::Refuse(Refusal::Unauthenticated { challenge }) => format!("401, www-authenticate: {challenge}"),
        Stop::Refuse(Refusal::RateLimited { retry_after }) => {
            format!("429, retry after {}", base::Span(*retry_after))
        }
        Stop::Refuse(Refusal::KeysUnavailable { .. }) => {
            "not known: the keys of the token's issuer are fetched by a running gateway only; see with --live"
                .to_owned()
        }
        Stop::Refuse(refusal) => {
            let (status, title) = proxy::refusal_words(refusal);
            format!("{}, {title}", status.as_u16())
        }
        Stop::Answer(head, body) => format!("{}, {} bytes from here", head.status, body.len()),
    }
}

/// `smart: anthropic/claude-sonnet-4-5, then openai/gpt-4o`.
fn served(llm: &config::Llm) -> Vec<String> {
    let mut all: Vec<String> = llm
        .models
        .values()
        .chain(&llm.patterns)
        .map(|model| {
            let candidates = model.candidates.iter().map(|it| format!("{}/{}", it.provider.name, it.model));
            format!("{}: {}", model.name, candidates.collect::<Vec<_>>().join(", "))
        })
        .collect();
    all.sort_unstable();
    all
}

fn outcome(forward: &Forward, found: &Found, call: &base::Call) -> Outcome {
    let Forward { split, mirror, rewrite, timeouts, retry, forwarded: _ } = forward;
    let all: u64 = split.iter().map(|Weighted { weight, .. }| u64::from(*weight)).sum();
    let upstreams = split.iter().map(|Weighted { upstream, weight }| Candidate {
        upstream: upstream.name.to_string(),
        percent: f64::from(*weight) * 100.0 / all.max(1) as f64,
        balance: balance(&upstream.balance),
        endpoints: upstream
            .written()
            .map(|endpoint| {
                let mut head = call.head.clone();
                proxy::rewrite_target(&mut head, rewrite, &endpoint.base_path, found.prefix_len, &found.params);
                proxy::rewrite_host(&mut head, rewrite, &endpoint.authority);
                Target {
                    url: endpoint.url.to_string(),
                    weight: endpoint.weight,
                    zone: endpoint.zone.as_deref().map(str::to_owned),
                    request: format!("{} {}", head.method, head.target),
                    host: head.authority,
                }
            })
            .collect(),
    });
    Outcome::Forward {
        upstreams: upstreams.collect(),
        mirror: mirror.as_ref().map(|mirror| format!("{} of calls to {}", mirror.share, mirror.upstream.name)),
        timeouts: timeouts_line(timeouts),
        retry: retry_line(retry, &call.head.method),
    }
}

fn balance(balance: &Balance) -> String {
    match balance {
        Balance::LeastLoad => "least-load".into(),
        Balance::RoundRobin => "round-robin".into(),
        Balance::Hash(HashKey::Address) => "by hash of the caller's address".into(),
        Balance::Hash(HashKey::Consumer) => "by hash of the consumer".into(),
        Balance::Hash(HashKey::Header(name)) => format!("by hash of header `{name}`"),
        Balance::Hash(HashKey::Query(name)) => format!("by hash of query parameter `{name}`"),
        Balance::Hash(HashKey::Path) => "by hash of the path".into(),
    }
}

fn timeouts_line(timeouts: &Timeouts) -> String {
    let Timeouts { connect, first_byte, idle, call } = timeouts;
    let shown =
        |limit: &Option<std::time::Duration>| limit.map_or("none".into(), |limit| base::Span(limit).to_string());
    let connect = base::Span(*connect);
    format!("connect {connect}, first byte {}, idle {}, call {}", shown(first_byte), shown(idle), shown(call))
}

fn retry_line(retry: &Retry, method: &base::Method) -> String {
    if retry.attempts <= 1 {
        return "none".into();
    }
    if !retry.unsafe_methods && !method.is_idempotent() {
        return format!("none after it was sent: {method} is not idempotent");
    }
    let on = &retry.on;
    let words = [(on.connect, "connect"), (on.reset, "reset"), (on.timeout, "timeout")];
    let words = words.into_iter().filter(|(wanted, _)| *wanted).map(|(_, word)| word.to_owned());
    let on: Vec<_> = words.chain(on.statuses.iter().map(|status| status.as_u16().to_string())).collect();
    let each = retry.try_timeout.map(|limit| format!(", {} each", base::Span(limit))).unwrap_or_default();
    format!("{} tries in all{each}, on {}, within {} of calls", retry.attempts, on.join(", "), retry.budget)
}

fn location(redirect: &Redirect, found: &Found, call: &base::Call) -> String {
    let Redirect { status: _, scheme, host, port, path } = redirect;
    let mut head = call.head.clone();
    let rewrite = Rewrite { path: path.clone(), host: None };
    proxy::rewrite_target(&mut head, &rewrite, "", found.prefix_len, &found.params);
    let scheme = scheme.unwrap_or(head.scheme).as_str();
    let authority = match (host, port) {
        (None, None) => head.authority.clone(),
        (host, port) => {
            let host = host.as_deref().unwrap_or(head.host());
            port.map_or(host.to_owned(), |port| format!("{host}:{port}"))
        }
    };
    format!("{scheme}://{authority}{}", head.target)
}
