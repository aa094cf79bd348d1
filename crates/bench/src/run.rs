//! The runs: one worker of each proxy on core 0, load and origin on core 1, rounds interleaved.

use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::cases;
use crate::llm;
use crate::load::Outcome;
use crate::peers::{self, BACKEND_PORT, OUT, Peer, Process};
use crate::procs;
use crate::report;

#[derive(clap::Args)]
pub struct Arguments {
    #[arg(long, value_delimiter = ',', default_values_t = Case::ALL)]
    pub cases: Vec<Case>,
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// Seconds of each measurement; the clock ticks of CPU time are 10 ms.
    #[arg(long, default_value_t = 3.0, value_parser = seconds)]
    pub seconds: f64,
    #[arg(long, value_delimiter = ',', default_value = "floor,nginx,haproxy,envoy")]
    pub peers: Vec<String>,
    /// Weir's binary; without it only the others run.
    #[arg(long)]
    pub weir: Option<PathBuf>,
    #[arg(long, default_value = "bench/RESULTS.md")]
    pub output: PathBuf,
    /// Where the table of bars goes, between its marks.
    #[arg(long)]
    pub readme: Option<PathBuf>,
    #[arg(skip)]
    pub suite: Suite,
}

/// Which of the two sets of runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Suite {
    #[default]
    Http,
    Llm,
}

pub fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number".to_owned())?;
    if (1.0..=600.0).contains(&seconds) { Ok(seconds) } else { Err("1 to 600".into()) }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Case {
    /// Small GET, 64 kept connections.
    Get,
    /// The same with API key, limit, metrics and access log on Weir's side.
    Policies,
    /// The same small GET from the cache, 1 KB.
    Cache,
    /// 4 KB in, 1 KB out.
    Post,
    /// 200 event streams, one event each 10 ms.
    Sse,
    /// HTTP/2 in, HTTP/1.1 out.
    H2,
    /// 10,000 idle connections.
    Idle,
    /// Two workers, small requests and one download that they compress.
    Cores,
    /// 5,000 routes, rewritten 100 times under load.
    Reload,
    /// Models: 1 KB asked, 1 KB answered, 16 connections.
    Small,
    /// Models: the same with 4 KB asked.
    Large,
    /// Models: 1 KB, one connection.
    One,
    /// Models: 1 KB, which was asked before, so that no provider is asked again.
    Hit,
    /// Models: 100 streams of 50 tokens, one each 20 ms.
    Streams,
    /// Models: 400 of them.
    Many,
    /// Models: 100 streams, asked in OpenAI's dialect, answered by a provider of Anthropic's.
    Translated,
    /// Models: the other way round.
    Back,
    /// Models: memory at rest and with 400 and 1,000 open streams.
    Memory,
}

impl Case {
    pub const ALL: [Self; 9] = [
        Self::Get,
        Self::Policies,
        Self::Cache,
        Self::Post,
        Self::Sse,
        Self::H2,
        Self::Idle,
        Self::Cores,
        Self::Reload,
    ];
    pub const LLM: [Self; 9] = [
        Self::Small,
        Self::Large,
        Self::One,
        Self::Hit,
        Self::Streams,
        Self::Many,
        Self::Translated,
        Self::Back,
        Self::Memory,
    ];

    pub fn suite(self) -> Suite {
        if Self::LLM.contains(&self) { Suite::Llm } else { Suite::Http }
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}", format!("{self:?}").to_lowercase())
    }
}

/// One measurement of one proxy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sample {
    pub case: Case,
    pub round: usize,
    pub peer: String,
    pub tool: String,
    /// CPU time of the proxy per request (per event, of streams), in microseconds.
    pub cpu_us: f64,
    /// Of the core it is on.
    pub busy: f64,
    pub outcome: Outcome,
}

/// A figure that is not a sample of CPU time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figure {
    pub case: Case,
    pub peer: String,
    pub what: String,
    pub value: f64,
    pub unit: String,
}

#[derive(Default, Serialize, Deserialize)]
pub struct Findings {
    pub samples: Vec<Sample>,
    pub figures: Vec<Figure>,
    pub versions: Vec<String>,
    pub commands: Vec<String>,
    /// Cases that could not be run, and why.
    pub failures: Vec<String>,
    /// What a rival could not do in time.
    #[serde(default)]
    pub overloads: Vec<String>,
}

pub struct Runner {
    pub arguments: Arguments,
    pub findings: RefCell<Findings>,
    started: Instant,
}

pub fn run(arguments: Arguments) -> Result<()> {
    ensure!(std::path::Path::new("bench/peers").is_dir(), "run it from the repository's root");
    ensure!(cores() >= 2, "two cores at least: one for the proxy, one for the load");
    fs::create_dir_all(OUT)?;
    procs::raise_descriptors()?;
    stop_on_signals();
    procs::pin(1)?;
    let runner = Runner { arguments, findings: RefCell::default(), started: Instant::now() };
    let ended = runner.all();
    // What was measured before an error is worth keeping.
    let findings = runner.findings.borrow();
    fs::write(format!("{OUT}/raw.json"), serde_json::to_string_pretty(&*findings)?)?;
    fs::write(&runner.arguments.output, report::render(&findings, &runner.arguments))?;
    if let Some(readme) = &runner.arguments.readme {
        report::put(readme, &findings, &runner.arguments)?;
    }
    println!("{} written", runner.arguments.output.display());
    ended
}

pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn stop_on_signals() {
    use tokio::signal::unix::{SignalKind, signal};
    std::thread::spawn(|| -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            peers::stop_everything();
            std::process::exit(130);
        })
    });
}

impl Runner {
    fn all(&self) -> Result<()> {
        let suite = self.arguments.suite;
        let _backend = self.backend("1")?;
        let mut peers = match suite {
            Suite::Http => self.peers("bench/weir/bare.yaml")?,
            Suite::Llm => llm::peers(self),
        };
        peers.dedup_by_key(|peer| peer.name);
        self.findings.borrow_mut().versions =
            peers.iter().map(|peer| format!("{}: {}", peer.name, peer.version())).collect();
        for &case in &self.arguments.cases {
            let ran = match suite {
                _ if case.suite() != suite => Err(anyhow::anyhow!("it belongs to the other runs")),
                Suite::Http => cases::run(self, case),
                Suite::Llm => llm::case(self, case),
            };
            if let Err(error) = ran {
                let failure = format!("{case}: {error:#}");
                self.say(&format!("FAILED {failure}"));
                self.findings.borrow_mut().failures.push(failure);
            }
        }
        let failures = self.findings.borrow().failures.len();
        ensure!(failures == 0, "{failures} cases could not be run");
        Ok(())
    }

    pub fn say(&self, text: &str) {
        println!("[{:>4} s] {text}", self.started.elapsed().as_secs());
    }

    fn backend(&self, cores: &str) -> Result<Process> {
        let port = BACKEND_PORT.to_string();
        let bench = peers::bench()?.display().to_string();
        let what = if self.arguments.suite == Suite::Llm { "provider" } else { "backend" };
        let mut backend = Process::start(what, cores, &peers::words(&[&bench, what, "--port", &port]))?;
        backend.wait_for(BACKEND_PORT)?;
        self.note(&format!("taskset -c {cores} bench {what} --port {port}"));
        Ok(backend)
    }

    /// Those asked for and found; Weir last, in that configuration.
    pub fn peers(&self, document: &str) -> Result<Vec<Peer>> {
        let mut peers = self.rivals()?;
        if let Some(weir) = &self.arguments.weir {
            peers.push(peers::weir(weir, "weir", document, &[]));
        }
        Ok(peers)
    }

    pub fn rivals(&self) -> Result<Vec<Peer>> {
        let wanted = |name: &str| self.arguments.peers.iter().any(|peer| peer == name);
        let mut peers = Vec::new();
        if wanted("floor") {
            peers.push(peers::floor()?);
        }
        if wanted("nginx") {
            peers.push(peers::nginx("nginx.conf")?);
        }
        if wanted("haproxy") {
            peers.push(peers::haproxy("haproxy.cfg"));
        }
        if wanted("envoy") {
            peers.extend(peers::envoy("envoy.yaml", "1"));
        }
        Ok(peers)
    }

    pub fn weir(&self) -> Option<&PathBuf> {
        self.arguments.weir.as_ref()
    }

    pub fn start(&self, peer: &Peer, cores: &str) -> Result<Process> {
        let command = peer.command.join(" ").replace(&*peers::bench()?.to_string_lossy(), "bench");
        self.note(&format!("taskset -c {cores} {command}"));
        peer.start(cores)
    }

    /// Remembers a command line for the report, once.
    fn note(&self, command: &str) {
        let commands = &mut self.findings.borrow_mut().commands;
        if !commands.iter().any(|known| known == command) {
            commands.push(command.to_owned());
        }
    }

    /// A tool's standard output. It runs where we run, on core 1, unless `cores` says otherwise.
    pub fn tool(&self, cores: &str, command: &[String]) -> Result<String> {
        let shown: Vec<String> =
            command.iter().map(|word| if word.contains(' ') { format!("'{word}'") } else { word.clone() }).collect();
        if !command.iter().any(|word| word == "--pid") {
            self.note(&format!("taskset -c {cores} {}", shown.join(" ")));
        }
        let mut words = command.to_vec();
        if words[0] == "bench" {
            words[0] = peers::bench()?.display().to_string();
        }
        let mut tool = Command::new("taskset");
        tool.args(["-c", cores]).args(&words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = peers::finish(tool.spawn().context("taskset")?)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {}\n{text}{errors}", shown.join(" "), output.status);
        if !errors.trim().is_empty() {
            self.say(&format!("  {}", errors.trim().lines().next().unwrap_or_default()));
        }
        Ok(text)
    }

    /// Runs a load while counting the proxy's CPU time.
    pub fn measure(
        &self,
        (case, round): (Case, usize),
        (peer, process): (&Peer, &Process),
        (tool, command): (&str, &[String]),
        read: fn(&str) -> Result<Outcome>,
    ) -> Result<()> {
        let (before, start) = (procs::cpu_us(process.id()), Instant::now());
        let text = self.tool("1", command)?;
        let (cpu, elapsed) = (procs::cpu_us(process.id()) - before, start.elapsed());
        let outcome = read(&text)?;
        if outcome.requests == 0 && outcome.errors == 0 {
            // So overloaded that nothing came in time: that has no figure.
            self.say(&format!("{case} round {round} {}: nothing was answered in time", peer.name));
            self.findings.borrow_mut().overloads.push(format!("{case}, {}: nothing was answered in time", peer.name));
            return Ok(());
        }
        let cpu_us = cpu / outcome.requests.max(1) as f64;
        self.say(&format!(
            "{case} round {round} {:<9} {tool:<7} {cpu_us:6.1} us each, {:8.0}/s, p50 {:.0} us, p99 {:.0} us, bad {}, errors {}",
            peer.name, outcome.rps, outcome.p50, outcome.p99, outcome.bad, outcome.errors
        ));
        let busy = cpu / elapsed.as_micros() as f64;
        self.sample((case, round), peer.name, tool, (cpu_us, busy), outcome);
        Ok(())
    }

    pub fn sample(
        &self,
        (case, round): (Case, usize),
        peer: &str,
        tool: &str,
        (cpu_us, busy): (f64, f64),
        outcome: Outcome,
    ) {
        let (peer, tool) = (peer.to_owned(), tool.to_owned());
        self.findings.borrow_mut().samples.push(Sample { case, round, peer, tool, cpu_us, busy, outcome });
    }

    pub fn figure(&self, case: Case, peer: &str, what: &str, value: f64, unit: &str) {
        self.say(&format!("{case} {peer}: {what} {value:.2} {unit}"));
        let (peer, what, unit) = (peer.to_owned(), what.to_owned(), unit.to_owned());
        self.findings.borrow_mut().figures.push(Figure { case, peer, what, value, unit });
    }

    pub fn pause(&self) {
        std::thread::sleep(Duration::from_millis(300));
    }
}
