//! A gateway under traffic of every kind for as long as one likes, while it is reloaded and one of its upstreams goes
//! and comes: its memory stays flat, no connection and no descriptor stays behind, and clients, gateway and services have
//! counted the same, call by call and status by status.
//!
//! `make soak`; `SOAK=60s make soak` takes a minute instead of ten.
#![expect(clippy::unwrap_used, reason = "what fails here fails the soak")]

mod traffic;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use simulator::{Options, Simulator};
use testkit::{Raw, eventually};

use traffic::Counts;

fn main() {
    let length = std::env::var("SOAK").map_or(base::Span::from_secs(600), |text| text.parse().unwrap()).0;
    let folder = tempfile::tempdir().unwrap();
    let steady = Simulator::start(Options::default()).unwrap();
    let mut shaky = Some(Simulator::start(Options::default()).unwrap());
    let shaky_at = shaky.as_ref().unwrap().address();
    let document = folder.path().join("weir.yaml");
    fs::write(&document, yaml(steady.address(), shaky_at, 0)).unwrap();
    let mut gateway = Gateway::start(&document);

    let counts = Arc::new(Counts::default());
    let stopping = Arc::new(AtomicBool::new(false));
    let (web, empty) = (gateway.web, gateway.files());
    let clients = std::thread::spawn({
        let (counts, stopping) = (counts.clone(), stopping.clone());
        move || traffic::run(web, &counts, &stopping)
    });
    println!("{:>8} {:>12} {:>6} {:>12} {:>10}", "second", "memory, KiB", "files", "calls", "reloads");
    let (begin, mut samples, mut reloads) = (Instant::now(), Vec::new(), 0);
    let mut second = 0;
    while begin.elapsed() < length && !clients.is_finished() {
        std::thread::sleep(Duration::from_secs(1));
        second += 1;
        samples.push((begin.elapsed().as_secs_f64(), gateway.memory() as f64 / 1024.0));
        if second % 5 == 0 {
            reloads += 1;
            fs::write(&document, yaml(steady.address(), shaky_at, reloads)).unwrap();
        }
        match second % 10 {
            7 => drop(shaky.take()),
            8 => shaky = shaky.or_else(|| Simulator::start(Options { address: shaky_at, ..Options::default() }).ok()),
            _ => {}
        }
        if second % 10 == 0 {
            let memory = gateway.memory() / 1024;
            println!("{second:>8} {memory:>12} {:>6} {:>12} {reloads:>10}", gateway.files(), counts.all());
        }
    }
    stopping.store(true, Ordering::Release);
    if clients.join().is_err() {
        panic!("a client got what it should not; the gateway says:\n{}", gateway.log());
    }

    eventually("no call is under way", || gateway.sum("weir_active_requests") == 0.0);
    let calls = |api: &str| gateway.sum(&format!("weir_requests_total{{api=\"{api}\"")) as u64;
    let tries = |upstream: &str| gateway.sum(&format!("weir_attempts_total{{upstream=\"{upstream}\"")) as u64;
    let (told, tried) = (calls("steady") + calls("grpc"), tries("steady") + tries("grpc"));
    println!("\ncalls to the steady service: clients {}, gateway {told}", counts.steady());
    println!("tries of them: gateway {tried}, service {}", steady.requests());
    println!("calls to the shaky one: clients {}, gateway {}", counts.shaky(), calls("shaky"));
    let kinds = counts.kinds();
    println!("{}", kinds.iter().map(|(kind, count)| format!("{kind} {count}")).collect::<Vec<_>>().join(", "));
    println!("answers, as clients and gateway counted them:");
    let codes = counts.codes();
    for ((api, code), clients) in codes.iter().filter(|((_, code), _)| code != "broken") {
        let told = gateway.of_code(api, code);
        println!("  {api} {code}: {clients}, {told}");
        // An answer that broke off before its head had come was counted as the 200 that the service had begun with, or 502.
        let broken = codes.get(&(*api, "broken".into())).copied().unwrap_or(0);
        let broken = if matches!(code.as_str(), "200" | "502") { broken } else { 0 };
        assert!((*clients..=*clients + broken).contains(&told), "{api} {code}: clients {clients}, gateway {told}");
    }
    for api in ["steady", "grpc", "shaky"] {
        let clients: u64 = codes.iter().filter(|((it, _), _)| *it == api).map(|(_, count)| count).sum();
        assert_eq!(clients, calls(api), "{api}: every call has one answer");
    }
    let missing: Vec<_> = traffic::KINDS.iter().filter(|kind| !kinds.contains_key(*kind)).collect();
    assert!(missing.is_empty(), "no traffic of these kinds: {missing:?}");
    // More tries than calls: a connection that breaks when it is used again may have been closed before, so what may
    // be repeated is.
    assert_eq!((counts.steady(), counts.shaky()), (told, calls("shaky")), "clients and gateway");
    assert_eq!(tried, steady.requests(), "gateway and service");
    assert!(counts.all() > 100 * length.as_secs() / 10, "there was hardly any traffic");

    // The first third is warm-up: pools, caches and tables find their size.
    let rest = &samples[samples.len() / 3..];
    let slope = slope(rest) * 60.0;
    let mean = rest.iter().map(|(_, memory)| memory).sum::<f64>() / rest.len() as f64;
    println!("memory: {mean:.0} KiB in the mean, {slope:+.0} KiB a minute");
    let minutes = length.as_secs_f64() / 60.0;
    assert!(slope * minutes < 0.1 * mean + 2048.0, "memory grows");

    eventually("no connection stays open", || gateway.sum("weir_connections_open") == 0.0);
    eventually("no descriptor stays behind", || gateway.files() <= empty);
    println!("files: {empty} before, {} after", gateway.files());
    gateway.end();
    println!("it stopped by itself; all is well");
}

fn yaml(steady: SocketAddr, shaky: SocketAddr, reload: u32) -> String {
    format!(
        "
version: 1
node: {{ workers: 2 }}
listeners: {{ web: {{ address: '127.0.0.1:0' }} }}
telemetry: {{ metrics: '127.0.0.1:0', access-log: 'file:/dev/null' }}
admin: {{ address: none }}
upstreams:
  steady: {{ endpoints: ['http://{steady}'], eject: none, retry: {{ attempts: 1 }}, connections: {{ idle-timeout: 1s }} }}
  grpc: {{ endpoints: ['http://{steady}'], protocol: http2, eject: none, retry: {{ attempts: 1 }}, connections: {{ idle-timeout: 1s }} }}
  shaky: {{ endpoints: ['http://{shaky}'], connections: {{ idle-timeout: 1s }} }}
apis:
  steady: {{ host: steady.test, upstream: steady }}
  grpc: {{ host: grpc.test, upstream: grpc }}
  shaky: {{ host: shaky.test, upstream: shaky, policies: {{ headers: {{ request: {{ set: {{ x-reload: '{reload}' }} }} }} }} }}
"
    )
}

/// Least squares, in KiB a second.
fn slope(samples: &[(f64, f64)]) -> f64 {
    let count = samples.len().max(1) as f64;
    let (x, y) = samples.iter().fold((0.0, 0.0), |(x, y), (at, memory)| (x + at / count, y + memory / count));
    let (above, below) = samples.iter().fold((0.0, 0.0), |(above, below), (at, memory)| {
        (above + (at - x) * (memory - y), below + (at - x) * (at - x))
    });
    if below == 0.0 { 0.0 } else { above / below }
}

struct Gateway {
    child: Child,
    web: SocketAddr,
    metrics: SocketAddr,
    log: PathBuf,
}

impl Gateway {
    fn start(document: &std::path::Path) -> Gateway {
        let log = document.with_file_name("log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        // Connections that fail, but not every call.
        command.env("WEIR_LOG", "info,transport=debug");
        let child =
            command.arg("run").arg(document).stdin(Stdio::null()).stderr(fs::File::create(&log).unwrap()).spawn();
        let child = child.unwrap();
        let mut text = String::new();
        eventually("it listens", || {
            text = fs::read_to_string(&log).unwrap();
            text.contains("metrics at")
        });
        let address = |part: &str| {
            let line = text.lines().find(|line| line.contains(part)).unwrap();
            line.split_once("address=").unwrap().1.split_whitespace().next().unwrap().parse().unwrap()
        };
        Gateway { web: address("listener=web"), metrics: address("metrics at"), child, log }
    }

    /// The last it said.
    fn log(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    fn memory(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }

    fn files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Of all series whose lines begin so.
    fn sum(&self, begin: &str) -> f64 {
        let text = Raw::connect(self.metrics).send("GET /metrics HTTP/1.1\r\nhost: t\r\n\r\n").answer().text();
        let lines = text.lines().filter(|line| line.starts_with(begin));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }

    /// Calls of an api that ended with a status.
    fn of_code(&self, api: &str, code: &str) -> u64 {
        let text = Raw::connect(self.metrics).send("GET /metrics HTTP/1.1\r\nhost: t\r\n\r\n").answer().text();
        let begin = format!("weir_requests_total{{api=\"{api}\"");
        let lines = text.lines().filter(|line| line.starts_with(&begin));
        let lines = lines.filter(|line| line.contains(&format!("code=\"{code}\"")));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum::<f64>() as u64
    }

    fn end(&mut self) {
        Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
