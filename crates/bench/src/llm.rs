//! The side-by-side runs against other gateways for models: nginx as a plain proxy of the same bytes, LiteLLM, Portkey.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::load::Outcome;
use crate::peers::{self, BACKEND_PORT, OUT, Peer, Process, words};
use crate::procs;
use crate::run::{self, Case, Runner, Suite, seconds};

#[derive(clap::Args)]
pub struct Arguments {
    #[arg(long, value_delimiter = ',', default_values_t = Case::LLM)]
    cases: Vec<Case>,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each measurement; the clock ticks of CPU time are 10 ms.
    #[arg(long, default_value_t = 4.0, value_parser = seconds)]
    seconds: f64,
    #[arg(long, value_delimiter = ',', default_value = "nginx,litellm,portkey")]
    peers: Vec<String>,
    /// Weir's binary; without it only the others run.
    #[arg(long)]
    weir: Option<PathBuf>,
    #[arg(long, default_value = "bench/RESULTS-LLM.md")]
    output: PathBuf,
    /// Where the table of bars goes, between its marks.
    #[arg(long)]
    readme: Option<PathBuf>,
}

pub fn run(arguments: Arguments) -> Result<()> {
    let Arguments { cases, rounds, seconds, peers, weir, output, readme } = arguments;
    run::run(run::Arguments { cases, rounds, seconds, peers, weir, output, readme, suite: Suite::Llm })
}

/// What callers of a gateway show it, and what it shows the provider, is not the same key.
const KEY: &str = "authorization: Bearer bench-key";
const JSON: &str = "content-type: application/json";
/// As it is asked for; to LiteLLM and Weir they are names of candidates.
const MODEL: &str = "gpt-4o";
const FOREIGN: &str = "claude-sonnet-4-5";

/// One gateway and how it wants to be asked.
struct Gateway {
    peer: Peer,
    /// Asked in OpenAI's dialect, and what it shows for an answer from Anthropic's.
    headers: Vec<String>,
    foreign: Vec<String>,
    /// Whether it translates at all, and whether from Anthropic's dialect too.
    translates: bool,
    back: bool,
}

fn gateways(runner: &Runner, case: Case) -> Vec<Gateway> {
    let wanted = |name: &str| runner.arguments.peers.iter().any(|peer| peer == name);
    let anthropic = || words(&[KEY, JSON, "x-api-key: bench-key", "anthropic-version: 2023-06-01"]);
    let mut gateways = Vec::new();
    if wanted("nginx")
        && let Ok(peer) = peers::nginx("nginx-llm.conf")
    {
        // The control: what it is asked in a dialect goes to the provider in that dialect.
        let (headers, foreign) = (words(&[KEY, JSON]), anthropic());
        gateways.push(Gateway { peer, headers, foreign, translates: true, back: true });
    }
    if wanted("litellm")
        && let Some(peer) = peers::litellm()
    {
        let (headers, foreign) = (words(&[KEY, JSON]), anthropic());
        gateways.push(Gateway { peer, headers, foreign, translates: true, back: true });
    }
    if wanted("portkey")
        && let Some(peer) = peers::portkey()
    {
        let host = format!("x-portkey-custom-host: http://127.0.0.1:{BACKEND_PORT}/v1");
        let headers = words(&[KEY, JSON, "x-portkey-provider: openai", &host]);
        let foreign = words(&[KEY, JSON, "x-portkey-provider: anthropic", &host]);
        gateways.push(Gateway { peer, headers, foreign, translates: true, back: false });
    }
    if let Some(weir) = runner.weir() {
        let document = if case == Case::Hit { "bench/weir/hit.yaml" } else { "bench/weir/llm.yaml" };
        let peer = peers::weir(weir, "weir", document, &[]);
        let (headers, foreign) = (words(&[KEY, JSON]), anthropic());
        gateways.push(Gateway { peer, headers, foreign, translates: true, back: true });
    }
    gateways
}

pub fn peers(runner: &Runner) -> Vec<Peer> {
    gateways(runner, Case::Small).into_iter().map(|gateway| gateway.peer).collect()
}

pub fn case(runner: &Runner, case: Case) -> Result<()> {
    runner.say(&format!("== {case}"));
    bodies()?;
    match case {
        Case::Memory => memory(runner),
        _ => rounds(runner, case),
    }
}

fn file(name: &str) -> String {
    format!("{OUT}/{name}.json")
}

/// What is sent, written to files that the load tool reads.
fn bodies() -> Result<()> {
    let short = "[sim tokens=100]";
    let stream = "[sim tokens=50 every=20ms stamp]";
    for (name, size) in [("1k", 1024), ("4k", 4096)] {
        fs::write(file(name), body(size, MODEL, short, ""))?;
    }
    let usage = r#","stream":true,"stream_options":{"include_usage":true}"#;
    fs::write(file("stream"), body(1024, MODEL, stream, usage))?;
    fs::write(file("foreign"), body(1024, FOREIGN, stream, &format!(r#"{usage},"max_tokens":1000"#)))?;
    // nginx hands it on, so for it the model is Anthropic's own.
    fs::write(file("back"), body(1024, MODEL, stream, r#","stream":true,"max_tokens":1000"#))?;
    Ok(())
}

fn body(size: usize, model: &str, words: &str, more: &str) -> String {
    let make = |filling: &str| {
        format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"{filling} {words}"}}]{more}}}"#)
    };
    let filling: String = "Tell me how a weir measures a river. ".chars().cycle().take(size - make("").len()).collect();
    make(&filling)
}

/// All stay up; the rounds go A B C, A B C, and before each the provider is asked directly.
fn rounds(runner: &Runner, case: Case) -> Result<()> {
    let fit = |gateway: &Gateway| match case {
        Case::Translated => gateway.translates,
        Case::Back => gateway.back,
        // The others' caches are not set up.
        Case::Hit => matches!(gateway.peer.name, "nginx" | "weir"),
        _ => true,
    };
    let gateways: Vec<Gateway> = gateways(runner, case).into_iter().filter(fit).collect();
    let up: Vec<(&Gateway, Process)> =
        gateways.iter().map(|gateway| Ok((gateway, runner.start(&gateway.peer, "0")?))).collect::<Result<_>>()?;
    let plain = words(&[KEY, JSON]);
    let foreign = words(&[KEY, JSON, "x-api-key: bench-key", "anthropic-version: 2023-06-01"]);
    let direct = if case == Case::Back { &foreign } else { &plain };
    for (gateway, _) in &up {
        let mut command = load(case, gateway.peer.port, headers(gateway, case), 4.0);
        few(&mut command, "4")?;
        let warm = own(&runner.tool("1", &command)?).with_context(|| gateway.peer.name)?;
        ensure!(warm.requests > 0 && warm.bad == 0 && warm.errors == 0, "{}: {warm:?}", gateway.peer.name);
        if case == Case::Hit && gateway.peer.name == "weir" {
            let status = cache_status(gateway)?;
            ensure!(status.contains("; hit"), "not given again: `{status}`");
        }
    }
    for round in 1..=runner.arguments.rounds {
        let text = runner.tool("1", &load(case, BACKEND_PORT, direct, runner.arguments.seconds))?;
        runner.sample((case, round), "direct", "bench", (0.0, 0.0), own(&text)?);
        for (gateway, process) in &up {
            let command = load(case, gateway.peer.port, headers(gateway, case), runner.arguments.seconds);
            runner.measure((case, round), (&gateway.peer, process), ("bench", &command), own)?;
            until_idle(runner, &gateway.peer, process);
            runner.pause();
        }
    }
    Ok(())
}

/// Of what an overloaded gateway was asked, it goes on with some when nobody waits for it any more, and would take the core
/// from the next. So that one waits.
fn until_idle(runner: &Runner, peer: &Peer, process: &Process) {
    const LOOK: Duration = Duration::from_millis(250);
    // Microseconds in that time: a timer here and there.
    const IDLE: f64 = 10_000.0;
    const LONGEST: Duration = Duration::from_secs(60);
    let begin = Instant::now();
    loop {
        let before = procs::cpu_us(process.id());
        std::thread::sleep(LOOK);
        let (busy, waited) = (procs::cpu_us(process.id()) - before, begin.elapsed());
        if busy < IDLE || waited > LONGEST {
            if waited > LOOK * 2 {
                runner.say(&format!(
                    "{} was busy for another {} s, at last for {busy:.0} us of {LOOK:?}",
                    peer.name,
                    waited.as_secs()
                ));
            }
            return;
        }
    }
}

fn headers(gateway: &Gateway, case: Case) -> &[String] {
    if matches!(case, Case::Translated | Case::Back) && gateway.peer.name != "nginx" || case == Case::Back {
        return &gateway.foreign;
    }
    &gateway.headers
}

fn load(case: Case, port: u16, headers: &[String], seconds: f64) -> Vec<String> {
    let (port, seconds) = (port.to_string(), seconds.to_string());
    let path = if case == Case::Back { "/v1/messages" } else { "/v1/chat/completions" };
    let body = file(match case {
        Case::Large => "4k",
        Case::Small | Case::One | Case::Hit => "1k",
        Case::Translated => "foreign",
        Case::Back => "back",
        _ => "stream",
    });
    let how: &[&str] = match case {
        Case::Small | Case::Large | Case::Hit => &["load", "--method", "POST", "--connections", "16", "--body-file"],
        Case::One => &["load", "--method", "POST", "--connections", "1", "--body-file"],
        Case::Many => &["tokens", "--streams", "400", "--body"],
        _ => &["tokens", "--streams", "100", "--body"],
    };
    let mut command = words(&["bench"]);
    command.extend(words(how));
    command.extend(words(&[&body, "--port", &port, "--path", path, "--seconds", &seconds]));
    for header in headers {
        command.extend(words(&["--header", header]));
    }
    command
}

/// What the cache had to do with one more answer to what is asked in this case.
fn cache_status(gateway: &Gateway) -> Result<String> {
    let body = fs::read_to_string(file("1k"))?;
    let fields = gateway.headers.join("\r\n");
    let mut stream = TcpStream::connect(("127.0.0.1", gateway.peer.port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        stream,
        "POST /v1/chat/completions HTTP/1.1\r\nhost: bench.test\r\nconnection: close\r\n{fields}\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let status = text.lines().find_map(|line| line.strip_prefix("cache-status: "));
    Ok(status.unwrap_or("none").to_owned())
}

/// Another number of streams, if it is about streams.
fn few(command: &mut [String], streams: &str) -> Result<()> {
    if let Some(place) = command.iter().position(|word| word == "--streams") {
        *command.get_mut(place + 1).context("--streams without a number")? = streams.into();
    }
    Ok(())
}

/// Each fresh: at rest after one answer, then while streams are open.
fn memory(runner: &Runner) -> Result<()> {
    for gateway in gateways(runner, Case::Memory) {
        let process = runner.start(&gateway.peer, "0")?;
        let figure =
            |what: &str, kib: u64| runner.figure(Case::Memory, gateway.peer.name, what, kib as f64 / 1024.0, "MiB");
        own(&runner.tool("1", &load(Case::One, gateway.peer.port, &gateway.headers, 1.0))?)?;
        runner.pause();
        figure("at rest", procs::pss_kib(process.id()));
        let pid = process.id().to_string();
        for streams in ["400", "1000"] {
            let mut command = load(Case::Streams, gateway.peer.port, &gateway.headers, runner.arguments.seconds);
            few(&mut command, streams)?;
            command.extend(words(&["--pid", &pid]));
            let outcome = own(&runner.tool("1", &command)?)?;
            figure(&format!("{streams} streams"), outcome.memory_kib);
            ensure!(outcome.errors == 0 && outcome.bad == 0, "{}, {streams} streams: {outcome:?}", gateway.peer.name);
        }
    }
    Ok(())
}

fn own(text: &str) -> Result<Outcome> {
    serde_json::from_str(text.trim()).with_context(|| text.to_owned())
}
