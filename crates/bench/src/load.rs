//! Requests over many connections, closed loop or open.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::client::{Client, request};

#[derive(clap::Args)]
pub struct Arguments {
    #[arg(long)]
    port: u16,
    #[arg(long, default_value = "/")]
    path: String,
    #[arg(long, default_value = "GET")]
    method: String,
    /// Bytes of body in each request.
    #[arg(long, default_value_t = 0)]
    body: usize,
    /// A file with the body, in place of so many bytes.
    #[arg(long, conflicts_with = "body")]
    body_file: Option<std::path::PathBuf>,
    /// `name: value`, any number of times.
    #[arg(long = "header")]
    headers: Vec<String>,
    #[arg(long, default_value_t = 64)]
    connections: usize,
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Requests per second over all connections, sent whether or not the ones before were answered in time.
    #[arg(long)]
    rate: Option<f64>,
    /// End early, when standard input does.
    #[arg(long)]
    until_closed: bool,
}

#[derive(clap::Args)]
pub struct Heavy {
    #[arg(long)]
    port: u16,
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Megabytes of text a second that the origin sends.
    #[arg(long, default_value_t = 20.0)]
    pace: f64,
}

/// What came of it. Latencies in microseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    pub requests: u64,
    /// Answers that were not 200.
    pub bad: u64,
    /// Connections that failed.
    pub errors: u64,
    pub rps: f64,
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    /// Of streams: from the request to the first token, without what the provider took.
    #[serde(default)]
    pub first_p50: f64,
    #[serde(default)]
    pub first_p99: f64,
    /// Streams that were seen to their end.
    #[serde(default)]
    pub finished: u64,
    /// Of the process that was asked for, half-way.
    #[serde(default)]
    pub memory_kib: u64,
}

struct Tally {
    ok: u64,
    bad: u64,
    errors: u64,
    latency: Histogram<u64>,
}

pub fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 600_000_000_000, 3)?)
}

pub fn quantile_us(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1000.0
}

pub async fn run(arguments: Arguments) -> Result<Outcome> {
    let tally = Rc::new(RefCell::new(Tally { ok: 0, bad: 0, errors: 0, latency: histogram()? }));
    let Arguments { method, path, headers, .. } = &arguments;
    let body = match &arguments.body_file {
        Some(file) => std::fs::read(file)?,
        None => vec![b'x'; arguments.body],
    };
    let request: Rc<[u8]> = request(method, path, headers, &body).into();
    let start = Instant::now();
    let end = Rc::new(Cell::new(start + Duration::from_secs_f64(arguments.seconds)));
    if arguments.until_closed {
        let end = end.clone();
        tokio::task::spawn_local(async move {
            let waiting = tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
            let _ = waiting.await;
            end.set(Instant::now());
        });
    }
    let every = arguments.rate.map(|rate| Duration::from_secs_f64(arguments.connections as f64 / rate));
    let mut tasks = Vec::new();
    for index in 0..arguments.connections {
        let offset = every.map_or(Duration::ZERO, |every| every.mul_f64(index as f64 / arguments.connections as f64));
        let (request, tally, end, port) = (request.clone(), tally.clone(), end.clone(), arguments.port);
        tasks.push(tokio::task::spawn_local(async move {
            let mut due = every.map(|every| (start + offset, every));
            while Instant::now() < end.get() {
                if let Err(error) = connection(port, &request, &end, &mut due, &tally).await {
                    tally.borrow_mut().errors += 1;
                    if tally.borrow().errors == 1 {
                        eprintln!("first error: {error:#}");
                    }
                    sleep_until((Instant::now() + Duration::from_millis(20)).min(end.get())).await;
                }
            }
        }));
    }
    for task in tasks {
        task.await?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let tally = tally.borrow();
    Ok(Outcome {
        requests: tally.ok + tally.bad,
        bad: tally.bad,
        errors: tally.errors,
        rps: (tally.ok + tally.bad) as f64 / seconds,
        p50: quantile_us(&tally.latency, 0.5),
        p99: quantile_us(&tally.latency, 0.99),
        p999: quantile_us(&tally.latency, 0.999),
        ..Outcome::default()
    })
}

/// An answer that takes longer is an error.
const PATIENCE: Duration = Duration::from_secs(5);

/// Requests on one connection until the end.
async fn connection(
    port: u16,
    request: &[u8],
    end: &Cell<Instant>,
    due: &mut Option<(Instant, Duration)>,
    tally: &RefCell<Tally>,
) -> Result<()> {
    let mut client = timeout(PATIENCE, Client::connect(port)).await??;
    loop {
        let mut from = Instant::now();
        if let Some((at, every)) = due {
            // When the connection is late, the wait is the answer's fault and counts; when it slept, the timer's
            // coarseness is ours and does not.
            if *at > from {
                sleep_until((*at).min(end.get())).await;
                from = Instant::now();
            } else {
                from = *at;
            }
            *at += *every;
        }
        if Instant::now() >= end.get() {
            return Ok(());
        }
        timeout(PATIENCE, client.send(request)).await??;
        let (status, reusable) = timeout(PATIENCE, client.answer()).await??;
        let mut tally = tally.borrow_mut();
        if status == 200 {
            tally.ok += 1;
        } else {
            tally.bad += 1;
        }
        tally.latency.saturating_record(from.elapsed().as_nanos() as u64);
        if !reusable {
            return Ok(());
        }
    }
}

pub async fn heavy(arguments: Heavy) -> Result<Outcome> {
    let start = Instant::now();
    let end = start + Duration::from_secs_f64(arguments.seconds);
    let mut client = Client::connect(arguments.port).await?;
    let path = format!("/text/{}", arguments.pace);
    client.send(&request("GET", &path, &["accept-encoding: gzip".to_owned()], b"")).await?;
    ensure!(client.head().await?.gzip, "the download is not compressed");
    let mut scratch = vec![0; 256 * 1024];
    let mut bytes = 0u64;
    while let Ok(read) = timeout_at(end, client.swallow(&mut scratch)).await {
        match read? {
            0 => break,
            read => bytes += read as u64,
        }
    }
    // Of a download, `rps` is bytes per second.
    Ok(Outcome { requests: 1, rps: bytes as f64 / start.elapsed().as_secs_f64(), ..Outcome::default() })
}
