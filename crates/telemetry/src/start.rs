//! Starting telemetry, changing it on reload, ending it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::task::JoinHandle as Task;

use crate::access_log::{self, Buffer, Desk, Order, Target, Writer};
use crate::flows::{self, Flows};
use crate::metrics::{Gauges, Local, Registry, render};
use crate::otlp::{Collector, Exporter};
use crate::{Observer, Recorder, Settings, endpoint};

/// The process's telemetry; one.
pub struct Telemetry {
    shared: Arc<Shared>,
    log: Desk,
    commands: mpsc::UnboundedSender<Command>,
    state: Mutex<State>,
}

struct State {
    settings: Settings,
    /// The endpoint's, kept to be passed on.
    socket: Option<TcpListener>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen for metrics on {0}")]
    Bind(SocketAddr, #[source] io::Error),
    #[error("cannot open the access log")]
    Log(#[source] io::Error),
    #[error("otlp: {0}")]
    Otlp(String),
    #[error("cannot start a telemetry thread")]
    Thread(#[source] io::Error),
}

/// What workers, the endpoint and the exporter all see.
pub(crate) struct Shared {
    pub(crate) registry: Arc<Registry>,
    pub(crate) gauges: Gauges,
    pub(crate) flows: Flows,
    pub(crate) started: SystemTime,
    pub(crate) ready: AtomicBool,
    pub(crate) log_on: AtomicBool,
    pub(crate) traces_on: AtomicBool,
    pub(crate) log_dropped: AtomicU64,
    pub(crate) otlp_dropped: AtomicU64,
}

enum Command {
    Listen(Option<TcpListener>),
    Export(Option<Box<Collector>>),
    Stop,
}

/// What a reload needs and may fail to get.
struct Prepared {
    /// `None` where the address stays as it is.
    listener: Option<Option<TcpListener>>,
    target: Option<Target>,
    collector: Option<Collector>,
}

// === impl Telemetry ===

impl Telemetry {
    /// Starts the two threads; the recorders are the workers', in their order. `inherited` is another process's
    /// socket, for the endpoint if that has its address.
    pub fn start(
        settings: Settings,
        workers: usize,
        inherited: Option<TcpListener>,
    ) -> Result<(Telemetry, Vec<Recorder>), StartError> {
        let shared = Arc::new(Shared {
            registry: Arc::new(Registry::new(workers, settings.max_series)),
            gauges: Gauges::default(),
            flows: Flows::new(),
            started: SystemTime::now(),
            ready: AtomicBool::new(false),
            log_on: AtomicBool::new(false),
            traces_on: AtomicBool::new(false),
            log_dropped: AtomicU64::new(0),
            otlp_dropped: AtomicU64::new(0),
        });
        let prepared = prepare(&settings, None, inherited)?;
        let (log, lines) = sync_channel(access_log::QUEUE);
        let (commands, inbox) = mpsc::unbounded_channel();
        let (exporter, exchanges) = mpsc::channel(EXPORT_QUEUE);

        let desk = Desk::new(log);
        let writer = Writer::new(&desk, shared.clone());
        let log_thread = spawn("weir-log", move || writer.run(&lines))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Thread)?;
        let served = shared.clone();
        let main = spawn("weir-telemetry", move || runtime.block_on(run(served, inbox, exchanges)))?;

        let recorders = (0..workers)
            .map(|worker| {
                let local = Local::new(shared.registry.clone(), worker);
                Recorder::new(local, Buffer::new(desk.queue()), exporter.clone(), shared.clone())
            })
            .collect();
        let state = State { settings: settings.clone(), socket: None, threads: vec![main, log_thread] };
        let telemetry = Telemetry { shared, log: desk, commands, state: Mutex::new(state) };
        telemetry.commit(settings, prepared);
        Ok((telemetry, recorders))
    }

    /// Takes new settings, or leaves all as it was and says why.
    pub fn reconfigure(&self, settings: Settings) -> Result<(), StartError> {
        let now = self.locked().settings.metrics;
        let prepared = prepare(&settings, now, None)?;
        self.commit(settings, prepared);
        Ok(())
    }

    fn commit(&self, settings: Settings, prepared: Prepared) {
        let Prepared { listener, target, collector } = prepared;
        let shared = &self.shared;
        shared.registry.max_series.store(settings.max_series, Relaxed);
        shared.log_on.store(target.is_some(), Relaxed);
        shared.traces_on.store(settings.otlp.as_ref().is_some_and(|otlp| otlp.traces), Relaxed);
        self.log.tell(Order::Target(target));
        let _ = self.commands.send(Command::Export(collector.map(Box::new)));
        let mut state = self.locked();
        if let Some(listener) = listener {
            state.socket = listener.as_ref().and_then(|listener| listener.try_clone().ok());
            let _ = self.commands.send(Command::Listen(listener));
        }
        state.settings = settings;
    }

    /// As they are in force.
    pub fn settings(&self) -> Settings {
        self.locked().settings.clone()
    }

    /// Opens the access log anew, after somebody moved it away.
    pub fn reopen_logs(&self) {
        self.log.tell(Order::Reopen);
    }

    /// What others set.
    pub fn gauges(&self) -> Gauges {
        self.shared.gauges.clone()
    }

    /// What `/readyz` says; false at first.
    pub fn set_ready(&self, ready: bool) {
        self.shared.ready.store(ready, Relaxed);
    }

    /// Where `/metrics` answers, with the port that was found for port 0.
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.locked().socket.as_ref()?.local_addr().ok()
    }

    /// The endpoint's socket, for a process that follows this one.
    pub fn metrics_socket(&self) -> io::Result<Option<TcpListener>> {
        self.locked().socket.as_ref().map(TcpListener::try_clone).transpose()
    }

    /// Leaves the endpoint's address to another process.
    pub fn close_endpoint(&self) {
        self.locked().socket = None;
        let _ = self.commands.send(Command::Listen(None));
    }

    /// For others that look on.
    pub fn observer(&self) -> Observer {
        Observer(self.shared.clone())
    }

    /// The metrics as OpenMetrics text.
    pub fn render(&self) -> String {
        render(&self.shared)
    }

    /// Writes and exports what is left, for a few seconds at most. The recorders should be gone by then.
    pub fn flush_and_stop(self) {
        let (done, finished) = sync_channel(1);
        let _ = self.commands.send(Command::Stop);
        self.log.tell(Order::Stop(done));
        // A disk that hangs must not hold up the end of the process.
        let logs_done = finished.recv_timeout(STOP).is_ok();
        let threads = std::mem::take(&mut self.locked().threads);
        for (index, thread) in threads.into_iter().enumerate() {
            if index == 0 || logs_done {
                let _ = thread.join();
            }
        }
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Shared ===

impl Shared {
    pub(crate) fn log_dropped(&self) -> u64 {
        self.log_dropped.load(Relaxed)
    }

    pub(crate) fn otlp_dropped(&self) -> u64 {
        self.otlp_dropped.load(Relaxed)
    }
}

fn prepare(
    settings: &Settings,
    bound: Option<SocketAddr>,
    inherited: Option<TcpListener>,
) -> Result<Prepared, StartError> {
    let is_at = |listener: &TcpListener, wanted: SocketAddr| {
        let is = listener.local_addr();
        is.is_ok_and(|is| is.ip() == wanted.ip() && (wanted.port() == 0 || is.port() == wanted.port()))
    };
    let listener = match settings.metrics {
        now if now == bound => None,
        None => Some(None),
        Some(address) => {
            let there = inherited.filter(|listener| is_at(listener, address));
            let listener = there.map_or_else(|| TcpListener::bind(address), Ok).and_then(|listener| {
                listener.set_nonblocking(true)?;
                Ok(listener)
            });
            Some(Some(listener.map_err(|error| StartError::Bind(address, error))?))
        }
    };
    let target = settings.access_log.as_ref().map(Target::open).transpose().map_err(StartError::Log)?;
    let collector = settings.otlp.clone().map(Collector::new).transpose().map_err(StartError::Otlp)?;
    Ok(Prepared { listener, target, collector })
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StartError> {
    thread::Builder::new().name(name.into()).spawn(run).map_err(StartError::Thread)
}

/// The telemetry thread: owns the endpoint's task and the exporter's.
async fn run(
    shared: Arc<Shared>,
    mut commands: mpsc::UnboundedReceiver<Command>,
    exchanges: mpsc::Receiver<Vec<awareness::Exchange>>,
) {
    let (collectors, changes) = mpsc::unbounded_channel();
    let exporter = tokio::spawn(Exporter::new(shared.clone()).run(exchanges, changes));
    let adding = tokio::spawn(flows::keep(shared.clone()));
    let mut serving: Option<Task<()>> = None;
    while let Some(command) = commands.recv().await {
        match command {
            Command::Listen(listener) => {
                if let Some(task) = serving.take() {
                    task.abort();
                    let _ = task.await;
                }
                serving = listener.map(|listener| tokio::spawn(endpoint::serve(listener, shared.clone())));
            }
            Command::Export(collector) => {
                let _ = collectors.send(collector.map(|collector| *collector));
            }
            Command::Stop => break,
        }
    }
    // The exporter ends when nobody can change it any more, with what it still has.
    drop(collectors);
    let _ = tokio::time::timeout(STOP, exporter).await;
    adding.abort();
    if let Some(task) = serving {
        task.abort();
    }
}

/// Batches of calls that wait for the exporter.
const EXPORT_QUEUE: usize = 64;
const STOP: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
