//! Event streams: each event carries when it was sent. Those of all streams are spread evenly over the time from one event of
//! a stream to the next: were they to come as their requests did, a proxy that connects fast would get them in a burst.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use tokio::time::{Instant, timeout_at};

use crate::backend::EVERY;
use crate::client::{Chunks, Client, request};
use crate::load::{Outcome, histogram, quantile_us};
use crate::procs::now_ns;

#[derive(clap::Args)]
pub struct Arguments {
    #[arg(long)]
    port: u16,
    #[arg(long, default_value_t = 200)]
    streams: usize,
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    #[arg(long = "header")]
    headers: Vec<String>,
}

struct Tally {
    events: u64,
    lost: u64,
    errors: u64,
    delay: Histogram<u64>,
}

/// Of streams, `requests` are events and `bad` are lost ones.
pub async fn run(arguments: Arguments) -> Result<Outcome> {
    let tally = Rc::new(RefCell::new(Tally { events: 0, lost: 0, errors: 0, delay: histogram()? }));
    let start = Instant::now();
    let end = start + Duration::from_secs_f64(arguments.seconds);
    let mut tasks = Vec::new();
    for index in 0..arguments.streams {
        let after = EVERY.mul_f64(index as f64 / arguments.streams as f64);
        let request = request("GET", &format!("/events/{}", after.as_micros()), &arguments.headers, b"");
        let (tally, port) = (tally.clone(), arguments.port);
        tasks.push(tokio::task::spawn_local(async move {
            match timeout_at(end, stream(port, &request, &tally)).await {
                // Time is up: as it should be.
                Err(_) => {}
                Ok(ended) => {
                    tally.borrow_mut().errors += 1;
                    eprintln!("a stream ended: {ended:?}");
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
        requests: tally.events,
        bad: tally.lost,
        errors: tally.errors,
        rps: tally.events as f64 / seconds,
        p50: quantile_us(&tally.delay, 0.5),
        p99: quantile_us(&tally.delay, 0.99),
        p999: quantile_us(&tally.delay, 0.999),
        ..Outcome::default()
    })
}

async fn stream(port: u16, request: &[u8], tally: &RefCell<Tally>) -> Result<()> {
    let mut client = Client::connect(port).await?;
    client.send(request).await?;
    let head = client.head().await?;
    anyhow::ensure!(head.status == 200 && head.chunked, "status {}, chunked {}", head.status, head.chunked);
    let mut chunks = Chunks::default();
    let mut text = Vec::new();
    let mut expected = 0;
    while let Some(data) = client.chunk(&mut chunks).await? {
        text.extend_from_slice(&data);
        let now = now_ns();
        while let Some(end) = memchr::memmem::find(&text, b"\n\n") {
            let event = std::str::from_utf8(&text[..end])?;
            let mut words = event.split(' ').skip(1);
            let number: u64 = words.next().context("no number")?.parse()?;
            let sent: u64 = words.next().context("no timestamp")?.parse()?;
            let mut tally = tally.borrow_mut();
            tally.events += 1;
            tally.lost += number.abs_diff(expected);
            tally.delay.saturating_record(now.saturating_sub(sent));
            expected = number + 1;
            text.drain(..end + 2);
        }
    }
    Ok(())
}
