//! The cases, one after the other.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::idle::Idle;
use crate::load::Outcome;
use crate::peers::{self, OUT, Peer, Process, words};
use crate::procs;
use crate::run::{Case, Runner, cores};
use crate::wrk;

const KEY: &[&str] = &["x-api-key: bench-key"];
pub const IDLE_CONNECTIONS: usize = 10_000;
/// Megabytes a second of the text that is compressed: a good part of a core for a proxy, and little for the origin, which
/// has to share the cores with it.
const PACE: &str = "20";
/// Small requests a second beside it: few enough that none waits for another.
const RATE: &str = "1000";
const REWRITES: usize = 100;
const ROUTES: usize = 5000;

/// What a case's load is, for one proxy: the tool's name, its command line, how to read what it prints.
type Load = (&'static str, Vec<String>, fn(&str) -> Result<Outcome>);

pub fn run(runner: &Runner, case: Case) -> Result<()> {
    runner.say(&format!("== {case}"));
    match case {
        Case::Get => {
            let mut peers = runner.peers("bench/weir/bare.yaml")?;
            if let Some(at) = peers.iter().position(|peer| peer.name == "envoy") {
                peers.splice(at + 1..at + 1, peers::envoy_with_statistics());
            }
            rounds(runner, case, &peers, get)
        }
        Case::Policies => match runner.weir() {
            Some(weir) => {
                let mut peers = vec![peers::nginx("nginx.conf")?];
                peers.push(peers::weir(weir, "weir", "bench/weir/policies.yaml", KEY));
                rounds(runner, case, &peers, get)
            }
            None => skipped(runner, case),
        },
        Case::Cache => {
            let mut peers = vec![peers::nginx("nginx-cache.conf")?];
            if let Some(weir) = runner.weir() {
                peers.push(peers::weir(weir, "weir", "bench/weir/cache.yaml", &[]));
            }
            rounds(runner, case, &peers, get)
        }
        Case::Post => rounds(runner, case, &runner.peers("bench/weir/bare.yaml")?, post),
        Case::Sse => rounds(runner, case, &runner.peers("bench/weir/bare.yaml")?, sse),
        Case::H2 => rounds(runner, case, &runner.peers("bench/weir/bare.yaml")?, h2),
        Case::Idle => idle(runner),
        Case::Cores => two_cores(runner),
        Case::Reload => match runner.weir() {
            Some(weir) => reload(runner, weir),
            None => skipped(runner, case),
        },
        // Of models, see `llm.rs`.
        Case::Small
        | Case::Large
        | Case::One
        | Case::Hit
        | Case::Streams
        | Case::Many
        | Case::Translated
        | Case::Back
        | Case::Memory => Ok(()),
    }
}

fn skipped(runner: &Runner, case: Case) -> Result<()> {
    runner.say(&format!("{case} is Weir's alone: skipped without --weir"));
    Ok(())
}

/// All stay up; the rounds go A B C, A B C.
fn rounds(runner: &Runner, case: Case, peers: &[Peer], loads: fn(&Peer, f64) -> Vec<Load>) -> Result<()> {
    let peers = peers.iter().filter(|peer| case != Case::H2 || peer.h2 != 0);
    let up: Vec<(&Peer, Process)> = peers.map(|peer| Ok((peer, runner.start(peer, "0")?))).collect::<Result<_>>()?;
    for (peer, _) in &up {
        for (_, command, read) in loads(peer, 1.0).into_iter().take(1) {
            let warm = read(&runner.tool("1", &command)?)?;
            ensure!(warm.bad == 0 && warm.errors == 0, "{} does not serve this case: {warm:?}", peer.name);
        }
    }
    for round in 1..=runner.arguments.rounds {
        for (peer, process) in &up {
            for (tool, command, read) in loads(peer, runner.arguments.seconds) {
                runner.measure((case, round), (peer, process), (tool, &command), read)?;
                runner.pause();
            }
        }
    }
    Ok(())
}

fn own(text: &str) -> Result<Outcome> {
    serde_json::from_str(text.trim()).with_context(|| text.to_owned())
}

fn with_headers(mut command: Vec<String>, flag: &str, peer: &Peer) -> Vec<String> {
    for header in peer.headers {
        command.extend(words(&[flag, header]));
    }
    command
}

fn own_load(peer: &Peer, seconds: f64, more: &[&str]) -> Load {
    let (port, seconds) = (peer.port.to_string(), seconds.to_string());
    let mut command = words(&["bench", "load", "--port", &port, "--connections", "64", "--seconds", &seconds]);
    command.extend(words(more));
    ("bench", with_headers(command, "--header", peer), own)
}

fn wrk_load(peer: &Peer, seconds: f64, more: &[&str]) -> Load {
    let (url, duration) = (format!("http://127.0.0.1:{}/", peer.port), format!("{}s", seconds.round()));
    let mut command = words(&["wrk", "-t1", "-c64", "-d", &duration, "--latency"]);
    command.extend(words(more));
    let mut command = with_headers(command, "-H", peer);
    command.push(url);
    ("wrk", command, wrk::wrk)
}

fn get(peer: &Peer, seconds: f64) -> Vec<Load> {
    vec![wrk_load(peer, seconds, &[]), own_load(peer, seconds, &[])]
}

fn post(peer: &Peer, seconds: f64) -> Vec<Load> {
    let own = own_load(peer, seconds, &["--method", "POST", "--body", "4096"]);
    vec![wrk_load(peer, seconds, &["-s", "bench/post.lua"]), own]
}

fn sse(peer: &Peer, seconds: f64) -> Vec<Load> {
    let (port, seconds) = (peer.streams.to_string(), seconds.to_string());
    let command = words(&["bench", "sse", "--port", &port, "--streams", "200", "--seconds", &seconds]);
    vec![("bench", command, own)]
}

fn h2(peer: &Peer, seconds: f64) -> Vec<Load> {
    let (url, duration) = (format!("http://127.0.0.1:{}/", peer.h2), seconds.round().to_string());
    let command = words(&["h2load", "-t", "1", "-c", "1", "-m", "100", "-D", &duration, &url]);
    vec![("h2load", command, wrk::h2load)]
}

/// Each proxy fresh, so that nothing is left of another case's buffers.
fn idle(runner: &Runner) -> Result<()> {
    for peer in runner.peers("bench/weir/bare.yaml")?.into_iter().filter(|peer| peer.name != "floor") {
        let process = runner.start(&peer, "0")?;
        runner.pause();
        let count = IDLE_CONNECTIONS.to_string();
        let (port, pid) = (peer.port.to_string(), process.id().to_string());
        let command = words(&["bench", "idle", "--port", &port, "--connections", &count, "--pid", &pid]);
        let text = runner.tool("1", &command)?;
        let idle: Idle = serde_json::from_str(text.trim()).with_context(|| text.clone())?;
        let figure = |what, value, unit| runner.figure(Case::Idle, peer.name, what, value, unit);
        figure("idle memory", idle.before_kib as f64 / 1024.0, "MiB");
        figure("per idle connection", idle.bytes_per_connection / 1024.0, "KiB");
        figure("connections alive", idle.alive as f64, "");
    }
    Ok(())
}

/// Small requests at a rate two cores can well bear, without and with an endless text beside them that the proxy
/// compresses (gzip, level 4) as it passes: how late they are. Then as many as can be beside the text: how evenly the
/// workers share it. The floor compresses nothing: beside it runs a stranger.
fn two_cores(runner: &Runner) -> Result<()> {
    let wanted = |name: &str| runner.arguments.peers.iter().any(|peer| peer == name);
    let mut peers = Vec::new();
    if wanted("floor") {
        peers.push((peers::floor()?, "bench"));
    }
    if wanted("nginx") {
        peers.push((peers::nginx("nginx-two.conf")?, "nginx"));
    }
    if wanted("haproxy") {
        peers.push((peers::haproxy("haproxy-two.cfg"), "haproxy"));
    }
    if let Some(envoy) = peers::envoy("envoy-two.yaml", "2").filter(|_| wanted("envoy")) {
        peers.push((envoy, "wrk:worker"));
    }
    if let Some(weir) = runner.weir() {
        peers.push((peers::weir(weir, "weir", "bench/weir/cores.yaml", &[]), "worker-"));
    }
    let elsewhere = if cores() >= 4 { "2,3" } else { "0,1" };
    for (peer, threads) in &peers {
        let process = runner.start(peer, "0,1")?;
        let (port, seconds) = (peer.port.to_string(), runner.arguments.seconds.to_string());
        let small =
            words(&["bench", "load", "--port", &port, "--connections", "64", "--rate", RATE, "--seconds", &seconds]);
        // It lasts longer than what is beside it.
        let longer = (runner.arguments.seconds + 1.0).to_string();
        let compresses = peer.name != "floor";
        let heavy = match compresses {
            true => words(&["bench", "heavy", "--port", &port, "--seconds", &longer, "--pace", PACE]),
            false => words(&["bench", "spin", "--seconds", &longer]),
        };
        let (mut alone, mut beside, mut closed) = (Vec::new(), Vec::new(), Vec::new());
        let (mut shares, mut text) = (Vec::new(), Vec::new());
        let beside_heavy = |small: &[String]| {
            std::thread::scope(|scope| {
                let download = scope.spawn(|| heavy_tool(elsewhere, &heavy));
                // So that who moves connections about has had time to.
                std::thread::sleep(Duration::from_millis(500));
                let outcome = runner.tool(elsewhere, small);
                let Ok(downloaded) = download.join() else { anyhow::bail!("the download's thread panicked") };
                Ok((own(&outcome?)?, own(&downloaded?)?))
            })
        };
        for _ in 0..runner.arguments.rounds {
            alone.push(own(&runner.tool(elsewhere, &small)?)?);
            let (outcome, download) = beside_heavy(&small)?;
            beside.push(outcome);
            if !compresses {
                continue;
            }
            text.push(download.rps / 1e6);
            // Only with enough small requests is there something to put opposite the download.
            let before = procs::threads_us(process.id(), threads);
            closed.push(beside_heavy(&own_load(peer, runner.arguments.seconds, &[]).1)?.0);
            let after = procs::threads_us(process.id(), threads);
            let loads = after.iter().filter_map(|(name, after)| {
                let (_, before) = before.iter().find(|(known, _)| known == name)?;
                Some(after - before)
            });
            let mut loads: Vec<f64> = loads.collect();
            // Of nginx's three, the master does nothing.
            loads.sort_by(f64::total_cmp);
            if let [.., second, first] = loads[..] {
                shares.push(first / second.max(1.0));
            }
        }
        let p99 = |outcomes: &[Outcome]| crate::report::median(outcomes.iter().map(|outcome| outcome.p99).collect());
        let (alone_p99, beside_p99) = (p99(&alone), p99(&beside));
        let failed: u64 = alone.iter().chain(&beside).chain(&closed).map(|outcome| outcome.bad + outcome.errors).sum();
        let figure = |what, value, unit| runner.figure(Case::Cores, peer.name, what, value, unit);
        if !shares.is_empty() {
            figure("busiest worker over the other", crate::report::median(shares), "");
        }
        figure("p99 alone", alone_p99, "us");
        figure(if compresses { "p99 beside the text" } else { "p99 beside a stranger" }, beside_p99, "us");
        figure("p99 beside over alone", beside_p99 / alone_p99, "");
        if compresses {
            figure("compressed text", crate::report::median(text), "MB/s");
        }
        figure("failed", failed as f64, "");
    }
    Ok(())
}

/// On a thread of its own, beside the one that runs the other tools.
fn heavy_tool(cores: &str, command: &[String]) -> Result<String> {
    let download = std::process::Command::new("taskset")
        .args(["-c", cores])
        .arg(peers::bench()?)
        .args(&command[1..])
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    let output = peers::finish(download)?;
    ensure!(output.status.success(), "the download failed");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn document(revision: usize) -> String {
    let mut text = String::from(
        "version: 1\nnode: { workers: 1 }\nlisteners:\n  web: { address: \"127.0.0.1:19040\" }\n\
         upstreams:\n  backend:\n    endpoints:\n      - { url: http://127.0.0.1:19000 }\n\
         apis:\n  bench:\n    routes:\n",
    );
    let _ = writeln!(
        text,
        "      - match: {{ path: /revision }}\n        respond: {{ status: 200, body: \"revision {revision}.\" }}"
    );
    for route in 0..ROUTES {
        let _ = writeln!(text, "      - match: {{ path: /r{route}/items }}\n        upstream: backend");
    }
    text.push_str("      - upstream: backend\n");
    text
}

/// Written beside and renamed, as careful editors and deployments do.
fn rewrite(path: &Path, revision: usize) -> Result<()> {
    let next = path.with_extension("next");
    fs::write(&next, document(revision))?;
    Ok(fs::rename(next, path)?)
}

fn reload(runner: &Runner, weir: &Path) -> Result<()> {
    let path = PathBuf::from(OUT).join("reload.yaml");
    rewrite(&path, 0)?;
    let peer = peers::weir(weir, "weir", "bench/out/reload.yaml", &[]);
    let process = runner.start(&peer, "0")?;
    let port = peer.port.to_string();
    let seconds = 600.to_string();
    let bench = peers::bench()?.display().to_string();
    // At a rate, so that Weir's core is not saturated; it ends when its input is closed.
    let load = words(&[&bench, "load", "--port", &port, "--path", "/r4999/items", "--connections", "16"]);
    let load = [load, words(&["--rate", "1000", "--until-closed", "--seconds", &seconds])].concat();
    let mut child = std::process::Command::new("taskset")
        .args(["-c", "1"])
        .args(&load)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    let outcome = rewrites(&path, &process);
    drop(child.stdin.take());
    let output = peers::finish(child)?;
    let load = own(&String::from_utf8_lossy(&output.stdout))?;
    let (mut waits, sizes) = outcome?;
    let early = crate::report::median(sizes[10..20].to_vec());
    let late = crate::report::median(sizes[REWRITES - 10..].to_vec());
    waits.sort_by(f64::total_cmp);
    let figure = |what, value, unit| runner.figure(Case::Reload, "weir", what, value, unit);
    figure("requests meanwhile", load.requests as f64, "");
    figure("failed requests", (load.bad + load.errors) as f64, "");
    figure("in force after, median", crate::report::median(waits.clone()), "ms");
    figure("in force after, slowest", waits.last().copied().unwrap_or(f64::INFINITY), "ms");
    figure("RSS after ten rewrites", early / 1024.0, "MiB");
    figure("RSS growth after the tenth", (late / early - 1.0) * 100.0, "%");
    Ok(())
}

/// How long each took to be in force, in milliseconds, and the memory after it, in KiB.
fn rewrites(path: &Path, process: &Process) -> Result<(Vec<f64>, Vec<f64>)> {
    let (mut waits, mut sizes) = (Vec::new(), Vec::new());
    for revision in 1..=REWRITES {
        rewrite(path, revision)?;
        let written = Instant::now();
        let expected = format!("revision {revision}.");
        while !poll()?.contains(&expected) {
            ensure!(written.elapsed() < Duration::from_secs(10), "rewrite {revision} is not in force after 10 s");
            std::thread::sleep(Duration::from_millis(2));
        }
        waits.push(written.elapsed().as_secs_f64() * 1000.0);
        std::thread::sleep(Duration::from_millis(100));
        sizes.push(procs::rss_kib(process.id()) as f64);
    }
    Ok((waits, sizes))
}

fn poll() -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", 19040))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /revision HTTP/1.1\r\nhost: bench.test\r\nconnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}
