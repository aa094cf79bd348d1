//! `weir run`: a node on a document, for as long as nobody says stop.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Child;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use crate::admin::{self, Admin};
use crate::document::{Document, Reading};
use crate::exit::Exit;
use crate::logging;
use crate::notify::notify;
use crate::running::Running;
use crate::signals::{self, Event};
use crate::takeover::{self, Control, Predecessor};
use crate::terminal::{Paint, complain, tell};
use crate::watch::{Fingerprint, Watch};

/// Run a gateway on a document
///
/// A change of the document, or of a file it refers to, comes into force by itself; a wrong one is
/// refused and what was in force stays.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  weir run
  weir run /etc/weir/weir.yaml
  generate | weir run -
  weir run --takeover /run/weir/takeover.sock
  WEIR_LOG=info,proxy=debug weir run

Signals:
  SIGTERM, SIGINT  finish what is under way, then end; a second one ends at once
  SIGHUP           read the document again
  SIGUSR1          open the access log again, after it was moved away
  SIGUSR2          start what is installed now in this one's place: it gets the listening sockets, and this one
                   finishes what it has

Exit codes: 0 stopped, 1 could not start or calls had to be cut, 2 the document is wrong")]
pub struct Args {
    /// The document; `-` is standard input
    #[arg(value_name = "FILE", default_value = "weir.yaml")]
    file: PathBuf,

    /// Take the place of the process that listens at this socket, if there is one, and listen there for the next
    #[arg(long, value_name = "SOCKET")]
    takeover: Option<PathBuf>,
}

pub fn run(args: &Args) -> Exit {
    logging::start("info");
    raise_open_files();
    let (sender, events) = mpsc::channel();
    if let Err(error) = signals::listen(sender.clone()) {
        complain(&format!("cannot listen for signals: {error}"), "see how many open files the process may have");
        return Exit::Failed;
    }
    let mut before = match takeover::predecessor(args.takeover.as_deref()) {
        Ok(before) => before,
        Err(error) => {
            complain(&error, "it goes on; see its log, or stop it first");
            return Exit::Failed;
        }
    };
    let prepared = match prepare(args, before.as_mut()) {
        Ok(prepared) => prepared,
        Err((exit, reason)) => {
            if let Some(before) = &before {
                before.failed(&reason);
            }
            return exit;
        }
    };
    let Prepared { running, seen } = prepared;
    if let Some(before) = &before
        && let Err(error) = before.ready()
    {
        tracing::error!(%error, "the running process did not let go; this one ends");
        stop(&running);
        return Exit::Failed;
    }
    running.with(|node| node.take_files(true));
    let inherited = args.takeover.as_deref().and_then(|path| before.as_mut()?.take_control(path));
    let follows = before.is_some();
    drop(before);
    let control = args.takeover.as_deref().and_then(|path| {
        let control = Control::start(path, inherited, &sender);
        control.inspect_err(|error| tracing::error!(%error, path = %path.display(), "nobody can take over there")).ok()
    });
    // Without it SIGHUP still works.
    let watch = Watch::start(sender.clone()).inspect_err(|error| tracing::error!(%error, "files are not watched")).ok();
    if let Some(watch) = watch {
        watch.follow(seen);
        running.watched_by(Some(watch));
    }
    let admin = match admin::start(&running, follows) {
        Ok(admin) => admin,
        Err(error) if follows => {
            tracing::error!("{error}");
            None
        }
        Err(error) => {
            complain(&error, "give `admin.address` one that is free, or `none`");
            running.stop(Duration::ZERO);
            return Exit::Failed;
        }
    };
    notify("READY=1");
    Serving { running, admin, control, sender, handing_over: false, changed: false }.serve(&events)
}

/// To what the machine allows. What a shell gives by itself is made for programs that use `select`, not for gateways.
fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, files) {
        tracing::warn!(%error, "the number of open files stays as it is");
    }
}

/// What the main thread has of a running gateway.
struct Serving {
    running: Arc<Running>,
    admin: Option<Admin>,
    control: Option<Control>,
    sender: Sender<Event>,
    /// Another process has got the sockets, and has not said yet what comes of it.
    handing_over: bool,
    /// Meanwhile the document changed.
    changed: bool,
}

struct Prepared {
    running: Arc<Running>,
    seen: Fingerprint,
}

/// A node in force, or what is told to people and to the process before.
fn prepare(args: &Args, before: Option<&mut Predecessor>) -> Result<Prepared, (Exit, String)> {
    let document = Document::open(&args.file).map_err(|unreadable| {
        tell(&unreadable.render(Paint::stderr()));
        (Exit::Wrong, unreadable.to_string())
    })?;
    let Reading { result, seen } = document.read(None);
    let loaded = result.map_err(|refused| {
        tell(&refused.render(Paint::stderr()));
        let found = refused.into_diagnostics();
        let found: Vec<_> = found.iter().map(|it| format!("{}: {}", it.path, it.message)).collect();
        (Exit::Wrong, format!("the document is wrong: {}", found.join("; ")))
    })?;
    let sockets = before.map(|before| std::mem::take(&mut before.sockets)).unwrap_or_default();
    let running = Running::start(document, loaded, sockets)
        .map_err(|exit| (exit, "it could not start; its own log says why".to_owned()))?;
    Ok(Prepared { running, seen })
}

impl Serving {
    fn serve(mut self, events: &Receiver<Event>) -> Exit {
        for event in events {
            match event {
                Event::Reload | Event::Changed if self.handing_over => self.changed = true,
                // What is wrong is told where it is found.
                Event::Reload | Event::Changed => drop(self.running.reload(None)),
                Event::ReopenLogs => self.running.reopen_logs(),
                Event::Replace => self.replace(),
                Event::Successor(stream) => self.hand_over(stream, None),
                Event::HandedOver(Ok(process)) => return self.retire(process, events),
                Event::HandedOver(Err(reason)) => self.stay(&reason),
                Event::Drained => {}
                Event::Stop => break,
            }
        }
        notify("STOPPING=1");
        // The admin API goes on until the node has stopped, and says that it stops.
        stop(&self.running)
    }

    fn replace(&mut self) {
        if !self.running.can_be_read_again() {
            return tracing::error!(
                "a document from standard input cannot be read a second time; this process goes on"
            );
        }
        if self.handing_over {
            return tracing::warn!("another process is about to take over already");
        }
        match takeover::start_successor() {
            Ok((stream, child)) => {
                tracing::info!(process = child.id(), "started a process that takes over");
                self.hand_over(stream, Some(child));
            }
            Err(error) => tracing::error!(%error, "cannot start a process that takes over; this one goes on"),
        }
    }

    fn hand_over(&mut self, stream: UnixStream, child: Option<Child>) {
        if self.handing_over {
            return tracing::warn!("another process is about to take over already");
        }
        let control = self.control.as_mut().map(|control| {
            control.pause();
            control.pass_on()
        });
        let stopping = || Err(std::io::Error::other("the node is stopping"));
        let sockets = self.running.with(|node| node.sockets()).unwrap_or_else(stopping);
        let passed = sockets.and_then(|sockets| Ok((sockets, control.transpose()?)));
        self.handing_over = true;
        self.running.hold(true);
        match passed {
            Ok((sockets, control)) => takeover::hand_over(stream, child, sockets, control, self.sender.clone()),
            Err(error) => drop(self.sender.send(Event::HandedOver(Err(error.to_string())))),
        }
    }

    /// The other process did not come to be.
    fn stay(&mut self, reason: &str) {
        tracing::error!(%reason, "no process took over; this one goes on");
        self.handing_over = false;
        self.running.hold(false);
        if let Some(control) = &mut self.control
            && let Err(error) = control.listen(&self.sender)
        {
            tracing::error!(%error, "nobody can take over by the socket any more");
        }
        if std::mem::take(&mut self.changed) {
            drop(self.running.reload(None));
        }
    }

    /// The other process has what is new; this one ends with what it has.
    fn retire(self, process: u32, events: &Receiver<Event>) -> Exit {
        let Serving { running, admin, control, sender, handing_over: _, changed: _ } = self;
        notify(&format!("MAINPID={process}"));
        running.watched_by(None);
        // Whoever operates the node means the other from now on.
        drop(admin);
        if let Some(control) = control {
            control.leave();
        }
        running.with(|node| node.take_files(false));
        let retire = running.snapshot().and_then(|snapshot| snapshot.node.retire);
        tracing::info!(process, "another process took over: finishing what is under way");
        running.with_mut(|node| node.retire(move || drop(sender.send(Event::Drained))));
        let until = retire.map(|retire| Instant::now() + retire);
        loop {
            let left = until.map_or(Duration::from_secs(3600), |until| until.saturating_duration_since(Instant::now()));
            match events.recv_timeout(left) {
                Ok(Event::Drained | Event::Stop) => return stop(&running),
                Ok(Event::ReopenLogs) => running.reopen_logs(),
                Ok(Event::Replace | Event::Reload) => tracing::warn!("another process took over; tell it"),
                Ok(Event::Changed | Event::Successor(_) | Event::HandedOver(_)) => {}
                Err(RecvTimeoutError::Timeout) if until.is_none() => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    tracing::warn!("what is still under way took longer than `node.retire`");
                    return stop(&running);
                }
            }
        }
    }
}

fn stop(running: &Running) -> Exit {
    let patience = running.snapshot().map(|snapshot| snapshot.node.drain).unwrap_or_default();
    tracing::info!(seconds = patience.as_secs_f64(), "stopping: finishing what is under way");
    if running.stop(patience) {
        tracing::info!("stopped");
        return Exit::Ok;
    }
    tracing::warn!("stopped, with calls cut: they took longer than `node.drain`");
    Exit::Failed
}
