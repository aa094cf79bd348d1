//! Signals as events of a channel, so that the main thread waits for everything in one place.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::Sender;
use std::thread;

use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};

/// What the main thread of a running gateway waits for.
#[derive(Debug)]
pub enum Event {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
    /// SIGUSR1.
    ReopenLogs,
    /// A file that the document consists of is not what it was.
    Changed,
    /// SIGUSR2: start a process that takes this one's place.
    Replace,
    /// A process asks to take this one's place.
    Successor(UnixStream),
    /// What became of that: the process that has it, or why it has not.
    HandedOver(Result<u32, String>),
    /// Nothing is under way any more.
    Drained,
}

/// From its return on, signals are events. The second that says stop ends the process at once: by then
/// the main thread waits for calls to finish and listens to nobody.
pub fn listen(events: Sender<Event>) -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let context = runtime.enter();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut user1 = signal(SignalKind::user_defined1())?;
    let mut user2 = signal(SignalKind::user_defined2())?;
    drop(context);
    let mut stopping = false;
    let wait = async move {
        loop {
            let event = tokio::select! {
                _ = terminate.recv() => Event::Stop,
                _ = interrupt.recv() => Event::Stop,
                _ = hangup.recv() => Event::Reload,
                _ = user1.recv() => Event::ReopenLogs,
                _ = user2.recv() => Event::Replace,
            };
            if matches!(event, Event::Stop) && std::mem::replace(&mut stopping, true) {
                tracing::warn!("told to stop a second time: ending at once");
                std::process::exit(1);
            }
            if events.send(event).is_err() && !stopping {
                return;
            }
        }
    };
    thread::Builder::new().name("weir-signals".into()).spawn(move || runtime.block_on(wait)).map(drop)
}
