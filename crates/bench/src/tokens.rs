//! Streams of tokens, one after the other on each connection. Each token is the time at which it was sent, so its delay is
//! known in whichever dialect it arrives; the first also says when the call came to the provider, so that what passed on
//! the way there and back is known apart from what the provider took.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use hdrhistogram::Histogram;
use tokio::time::{Instant, sleep, timeout_at};

use crate::client::{Chunks, Client, request};
use crate::load::{Outcome, histogram, quantile_us};
use crate::procs::{now_ns, pss_kib};

#[derive(clap::Args)]
pub struct Arguments {
    #[arg(long)]
    port: u16,
    #[arg(long)]
    path: String,
    /// A file with the request's body.
    #[arg(long)]
    body: String,
    #[arg(long = "header")]
    headers: Vec<String>,
    #[arg(long, default_value_t = 100)]
    streams: usize,
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// How many tokens a whole stream has.
    #[arg(long, default_value_t = 50)]
    tokens: u64,
    /// A process whose memory, with that of its descendants, is looked at while the streams are open.
    #[arg(long)]
    pid: Option<u32>,
}

struct Tally {
    tokens: u64,
    lost: u64,
    errors: u64,
    finished: u64,
    delay: Histogram<u64>,
    first: Histogram<u64>,
}

/// Connections begin within this time, lest all their tokens come at once.
const SPREAD: Duration = Duration::from_secs(1);

/// Of streams, `requests` are tokens and `bad` are lost ones.
pub async fn run(arguments: Arguments) -> Result<Outcome> {
    crate::procs::raise_descriptors()?;
    let tally = Tally { tokens: 0, lost: 0, errors: 0, finished: 0, delay: histogram()?, first: histogram()? };
    let tally = Rc::new(RefCell::new(tally));
    let Arguments { path, body, headers, .. } = &arguments;
    let request: Rc<[u8]> = request("POST", path, headers, &std::fs::read(body)?).into();
    let start = Instant::now();
    let end = start + SPREAD + Duration::from_secs_f64(arguments.seconds);
    let mut tasks = Vec::new();
    for index in 0..arguments.streams {
        let offset = SPREAD.mul_f64(index as f64 / arguments.streams as f64);
        let (request, tally, port, tokens) = (request.clone(), tally.clone(), arguments.port, arguments.tokens);
        tasks.push(tokio::task::spawn_local(async move {
            sleep(offset).await;
            match timeout_at(end, streams(port, &request, tokens, &tally)).await {
                // Time is up: as it should be.
                Err(_) => {}
                Ok(ended) => {
                    let mut tally = tally.borrow_mut();
                    tally.errors += 1;
                    if tally.errors == 1 {
                        eprintln!("a stream ended: {ended:?}");
                    }
                }
            }
        }));
    }
    let memory_kib = match arguments.pid {
        Some(pid) => {
            tokio::time::sleep_until(start + SPREAD + (end - start - SPREAD) / 2).await;
            pss_kib(pid)
        }
        None => 0,
    };
    for task in tasks {
        task.await?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let tally = tally.borrow();
    Ok(Outcome {
        requests: tally.tokens,
        bad: tally.lost,
        errors: tally.errors,
        rps: tally.tokens as f64 / seconds,
        p50: quantile_us(&tally.delay, 0.5),
        p99: quantile_us(&tally.delay, 0.99),
        p999: quantile_us(&tally.delay, 0.999),
        first_p50: quantile_us(&tally.first, 0.5),
        first_p99: quantile_us(&tally.first, 0.99),
        finished: tally.finished,
        memory_kib,
    })
}

async fn streams(port: u16, request: &[u8], tokens: u64, tally: &RefCell<Tally>) -> Result<()> {
    let mut client = Client::connect(port).await?;
    loop {
        let sent = now_ns();
        client.send(request).await?;
        let head = client.head().await?;
        ensure!(head.status == 200 && head.chunked, "status {}, chunked {}", head.status, head.chunked);
        let (mut chunks, mut text, mut seen, mut ended) = (Chunks::default(), Vec::new(), 0, false);
        while let Some(data) = client.chunk(&mut chunks).await? {
            text.extend_from_slice(&data);
            let now = now_ns();
            while let Some(end) = memchr::memmem::find(&text, b"\n\n") {
                let event = &text[..end];
                let stamps = stamps(event);
                if let [.., stamp] = stamps[..] {
                    let mut tally = tally.borrow_mut();
                    tally.tokens += 1;
                    tally.delay.saturating_record(now.saturating_sub(stamp));
                    if seen == 0 {
                        let [came, _] = stamps[..] else { bail!("the first token does not say when the call came") };
                        let provider = stamp.saturating_sub(came);
                        tally.first.saturating_record(now.saturating_sub(sent).saturating_sub(provider));
                    }
                    seen += 1;
                }
                ended |= [&b"[DONE]"[..], b"message_stop"].iter().any(|end| memchr::memmem::find(event, end).is_some());
                text.drain(..end + 2);
            }
        }
        if seen == 0 {
            bail!("a stream without tokens, the last of it {:?}", String::from_utf8_lossy(&text));
        }
        let mut tally = tally.borrow_mut();
        tally.lost += tokens.abs_diff(seen) + u64::from(!ended);
        tally.finished += 1;
    }
}

/// The nanoseconds in a token: the only runs of 19 digits in an event.
fn stamps(event: &[u8]) -> Vec<u64> {
    let runs = event.split(|byte| !byte.is_ascii_digit()).filter(|run| run.len() == 19);
    runs.filter_map(|run| std::str::from_utf8(run).ok()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn stamps() {
        let stamps = |event: &str| super::stamps(event.as_bytes());
        assert_eq!(stamps("data: {\"created\":1764000000,\"content\":\" 0000000000012345678\"}"), [12345678]);
        assert_eq!(stamps("data: {\"content\":\" 0000000000000000005 0000000000012345678\"}"), [5, 12345678]);
        assert!(stamps("data: {\"created\":1764000000}").is_empty());
    }
}
