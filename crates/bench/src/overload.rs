//! More calls than an origin bears, with and without `admit`. `bench overload` writes `bench/RESULTS-overload.md`.
//!
//! The origin has so many places and takes so long for each call; who finds no place waits in line, as before a pool of
//! threads. Callers come at random moments whether or not others were answered, and give up after a second, which the
//! origin does not see: it works for them all the same.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::net::TcpListener as Listener;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::client::{Client, request};
use crate::load::{histogram, quantile_us};

#[derive(clap::Args)]
pub struct Arguments {
    #[arg(long, default_value = "target/release/weir")]
    weir: String,
    /// Origins: calls that are served at a time, and milliseconds for each.
    #[arg(long, value_delimiter = ',', default_value = "1x2,1x20,1x200,2x20,4x20,4x200,8x200,16x20,20x40,64x20")]
    origins: Vec<Size>,
    /// Seconds that are measured at least, after half as many that are not. It takes longer where few are served.
    #[arg(long, default_value_t = 12.0)]
    seconds: f64,
    #[arg(long, default_value = "bench/RESULTS-overload.md")]
    out: String,
}

/// How strong an origin is.
#[derive(Clone, Copy)]
struct Size {
    places: usize,
    service: Duration,
}

impl std::str::FromStr for Size {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Size> {
        let (places, millis) = text.split_once('x').context("expected PLACESxMILLISECONDS, such as 4x20")?;
        let places: usize = places.parse()?;
        anyhow::ensure!(places > 0, "an origin without places serves nobody");
        Ok(Size { places, service: Duration::from_millis(millis.parse()?) })
    }
}

/// What callers saw of one run.
struct Seen {
    goodput: f64,
    refused: f64,
    gave_up: f64,
    p50: f64,
    p99: f64,
}

struct Tally {
    ok: u64,
    refused: u64,
    gave_up: u64,
    latency: Histogram<u64>,
}

/// As long as a caller waits.
const PATIENCE: Duration = Duration::from_secs(1);
/// Fewer answers have no p99.
const ANSWERS: f64 = 150.0;
const LOADS: [f64; 4] = [0.5, 1.0, 2.0, 3.0];

pub fn run(arguments: &Arguments) -> Result<()> {
    crate::procs::raise_descriptors()?;
    let (mut bars, mut loads) = (String::new(), String::new());
    for size in &arguments.origins {
        let Size { places, service } = size;
        // A timer takes its time too, which is much of a millisecond.
        let took = crate::block(real(*service))?;
        let capacity = *places as f64 / took.as_secs_f64();
        let name = format!("{places} x {} ms", service.as_millis());
        let (mut unloaded, mut peak, mut last) = (0.0, 0.0f64, None);
        for (policy, with) in [("", "without"), ("policies: { admit: {} }\n", "with")] {
            // One of its own: it is long busy with calls that were given up.
            let weir = Weir::start(&arguments.weir, origin(*places, *service)?, policy)?;
            let seconds = |load: f64| arguments.seconds.max(ANSWERS / (load.min(1.0) * capacity));
            if policy.is_empty() {
                unloaded = crate::block(alone(weir.port, arguments.seconds.max(ANSWERS * took.as_secs_f64())))?;
            }
            for load in LOADS.into_iter().filter(|load| !policy.is_empty() || *load >= 3.0) {
                let seen = crate::block(measure(weir.port, load * capacity, seconds(load)))?;
                let Seen { goodput, refused, gave_up, p50, p99 } = seen;
                peak = peak.max(goodput);
                let (p50, p99) = (p50 / 1000.0, p99 / 1000.0);
                let row = format!(
                    "| {name} | {with} | {load} x | {goodput:.0} | {refused:.0} | {gave_up:.0} | {p50:.1} | {p99:.1} |"
                );
                eprintln!("{row}");
                writeln!(loads, "{row}")?;
                last = Some((goodput, p99 * 1000.0));
            }
        }
        let (goodput, p99) = last.context("no load was tried")?;
        let (part, times) = (100.0 * goodput / peak, p99 / unloaded);
        let held = |held: bool| if held { "held" } else { "**missed**" };
        let row = format!(
            "| {name} | {capacity:.0} | {peak:.0} | {goodput:.0} | {part:.0} % | {} | {:.1} | {:.1} | {times:.2} x | {} |",
            held(part >= 90.0),
            unloaded / 1000.0,
            p99 / 1000.0,
            held(times < 2.0),
        );
        eprintln!("{row}");
        writeln!(bars, "{row}")?;
    }
    let page = format!(
        "# Overload\n\nBy `make bench-overload`: origins that serve so many calls at a time and take so long for each, behind one \
         gateway with default settings; callers come at random moments and give up after {PATIENCE:?}. Each run is {} s or as \
         long as {ANSWERS} answers take, after half as long that is not measured.\n\n## The bars\n\nAt 3 x with `admit`: goodput \
         is at least 90 % of the most at any load, and the p99 of answers with 200 is under 2 x that of one caller alone. Calls per second; \
         latencies in ms.\n\n\
         | origin | capacity | most | at 3 x | of the most | | p99 alone | p99 at 3 x | of it | |\n\
         |---|---|---|---|---|---|---|---|---|---|\n{bars}\n## The runs\n\n\
         | origin | `admit` | load | answered | refused | gave up | p50 | p99 |\n\
         |---|---|---|---|---|---|---|---|\n{loads}",
        arguments.seconds
    );
    std::fs::write(&arguments.out, page).with_context(|| arguments.out.clone())
}

/// How long a call takes there indeed.
async fn real(service: Duration) -> Result<Duration> {
    const TIMES: u32 = 20;
    let begin = Instant::now();
    for _ in 0..TIMES {
        sleep(service).await;
    }
    Ok(begin.elapsed() / TIMES)
}

/// In a thread of its own; gives its port.
fn origin(places: usize, service: Duration) -> Result<u16> {
    let listener = Listener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        let serving: Result<()> = crate::block(async move {
            let listener = TcpListener::from_std(listener)?;
            // Whoever waits first is served first.
            let places = Rc::new(Semaphore::new(places));
            loop {
                let (stream, _) = listener.accept().await?;
                let places = places.clone();
                tokio::task::spawn_local(async move {
                    let _ = serve(stream, &places, service).await;
                });
            }
        });
        if let Err(error) = serving {
            eprintln!("the origin ended: {error:#}");
        }
    });
    Ok(port)
}

async fn serve(mut stream: TcpStream, places: &Semaphore, service: Duration) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    loop {
        while !buffer.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        buffer.clear();
        let place = places.acquire().await?;
        sleep(service).await;
        drop(place);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await?;
    }
}

struct Weir {
    child: Child,
    port: u16,
    folder: std::path::PathBuf,
}

impl Weir {
    fn start(binary: &str, origin: u16, policy: &str) -> Result<Weir> {
        let port = Listener::bind("127.0.0.1:0")?.local_addr()?.port();
        let folder = std::env::temp_dir().join(format!("weir-overload-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let document = folder.join("weir.yaml");
        std::fs::write(
            &document,
            format!(
                "version: 1\nlisteners: {{ web: {{ address: '127.0.0.1:{port}' }} }}\nadmin: {{ address: none }}\n{policy}\
                 apis: {{ a: {{ upstream: 'http://127.0.0.1:{origin}' }} }}\n"
            ),
        )?;
        let child = Command::new(binary)
            .arg("run")
            .arg(&document)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| binary.to_owned())?;
        let weir = Weir { child, port, folder };
        let end = std::time::Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            anyhow::ensure!(std::time::Instant::now() < end, "weir does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(weir)
    }
}

impl Drop for Weir {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

async fn measure(port: u16, rate: f64, seconds: f64) -> Result<Seen> {
    let tally = Rc::new(RefCell::new(Tally { ok: 0, refused: 0, gave_up: 0, latency: histogram()? }));
    let idle: Rc<RefCell<Vec<Client>>> = Rc::default();
    let request: Rc<[u8]> = request("GET", "/", &[], &[]).into();
    let start = Instant::now();
    let (from, end) = (start + Duration::from_secs_f64(seconds / 2.0), start + Duration::from_secs_f64(seconds * 1.5));
    let mut due = start;
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    while due < end {
        sleep_until(due).await;
        let (tally, idle, request) = (tally.clone(), idle.clone(), request.clone());
        // From when it was due: that it starts late is the load's fault.
        let came = due;
        tokio::task::spawn_local(async move {
            let outcome = timeout(PATIENCE, call(port, &request, &idle)).await;
            let mut tally = tally.borrow_mut();
            if came < from {
                return;
            }
            match outcome {
                Ok(Ok(200)) => {
                    tally.ok += 1;
                    tally.latency.saturating_record(came.elapsed().as_nanos() as u64);
                }
                Ok(_) => tally.refused += 1,
                Err(_) => tally.gave_up += 1,
            }
        });
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let part = (random >> 11) as f64 / (1u64 << 53) as f64;
        due += Duration::from_secs_f64(-(1.0 - part).ln() / rate);
    }
    // Those under way are still answered, and counted; then the origin works off its line.
    sleep(PATIENCE + Duration::from_millis(100)).await;
    let seen = {
        let tally = tally.borrow();
        Seen {
            goodput: tally.ok as f64 / seconds,
            refused: tally.refused as f64 / seconds,
            gave_up: tally.gave_up as f64 / seconds,
            p50: quantile_us(&tally.latency, 0.5),
            p99: quantile_us(&tally.latency, 0.99),
        }
    };
    sleep(Duration::from_secs(5)).await;
    Ok(seen)
}

/// The p99 of one caller who makes one call after the other.
async fn alone(port: u16, seconds: f64) -> Result<f64> {
    let (idle, request, mut latency) = (RefCell::default(), request("GET", "/", &[], &[]), histogram()?);
    let begin = Instant::now();
    while begin.elapsed().as_secs_f64() < seconds {
        let came = Instant::now();
        anyhow::ensure!(call(port, &request, &idle).await? == 200, "an idle origin is not asked");
        latency.saturating_record(came.elapsed().as_nanos() as u64);
    }
    Ok(quantile_us(&latency, 0.99))
}

async fn call(port: u16, request: &[u8], idle: &RefCell<Vec<Client>>) -> Result<u16> {
    let known = idle.borrow_mut().pop();
    let mut client = match known {
        Some(client) => client,
        None => Client::connect(port).await?,
    };
    client.send(request).await?;
    let (status, reusable) = client.answer().await?;
    if reusable {
        idle.borrow_mut().push(client);
    }
    Ok(status)
}
