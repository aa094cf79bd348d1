//! The thread beside a worker, for what would keep the worker from everything else: compressing a large body, say.
//!
//! There is one for each worker, from the first work on that it has; it does one thing after another, in the order in
//! which they came. It is nicer than the workers, so the kernel prefers them; and it asks often whether any of them waits.

use std::cell::RefCell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Poll, ready};
use std::thread::{self, JoinHandle};

use base::Time;
use tokio::sync::oneshot;

/// How much nicer it is than the workers (`man 7 sched`).
const NICER: i32 = 10;

pub struct Helper {
    name: String,
    thread: RefCell<Option<Thread>>,
}

struct Thread {
    work: Sender<Work>,
    handle: JoinHandle<()>,
}

type Work = Box<dyn FnOnce() + Send>;

/// What the helper is at work on. It is not begun if nobody wants it any more.
pub struct Away<T>(oneshot::Receiver<thread::Result<T>>);

/// How the helper makes way for those who wait for its core. Being nice is not enough: a thread that the kernel has just given
/// a core may keep it for a slice, which is a millisecond or more, and who wakes meanwhile waits for its end.
#[derive(Default)]
pub struct Breath {
    next: Time,
}

/// Who was away for so long works one part of that before it makes way again: to do so costs a whole slice, and where a core
/// has no rest hardly anything would be left of its share.
const AWAY_TO_WORK: u32 = 9;

impl Helper {
    pub fn new(worker: usize) -> Helper {
        Helper { name: format!("helper-{worker}"), thread: RefCell::default() }
    }

    /// Has it done. Where there can be no further thread it is done at once and here.
    pub fn take<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Away<T> {
        let (done, away) = oneshot::channel();
        let work: Work = Box::new(move || {
            if !done.is_closed() {
                let _ = done.send(catch_unwind(AssertUnwindSafe(work)));
            }
        });
        let unsent = match self.sender() {
            Ok(sender) => sender.send(work).err().map(|unsent| unsent.0),
            Err(error) => {
                tracing::warn!(%error, "no thread for heavy work");
                Some(work)
            }
        };
        if let Some(work) = unsent {
            work();
        }
        Away(away)
    }

    fn sender(&self) -> io::Result<Sender<Work>> {
        let mut thread = self.thread.borrow_mut();
        if let Some(thread) = &*thread {
            return Ok(thread.work.clone());
        }
        let (work, inbox) = channel();
        let handle = thread::Builder::new().name(self.name.clone()).spawn(move || run(inbox))?;
        *thread = Some(Thread { work: work.clone(), handle });
        Ok(work)
    }
}

fn run(inbox: Receiver<Work>) {
    // Of this thread alone, on Linux.
    let nicer = rustix::process::getpriority_process(None)
        .and_then(|nice| rustix::process::setpriority_process(None, nice + NICER));
    if let Err(error) = nicer {
        tracing::debug!(%error, "a helper is as important as a worker");
    }
    for work in inbox {
        work();
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        if let Some(Thread { work, handle }) = self.thread.take() {
            drop(work);
            let _ = handle.join();
        }
    }
}

// === impl Breath ===

impl Breath {
    pub fn take(&mut self) {
        let now = Time::now();
        if now < self.next {
            return;
        }
        thread::yield_now();
        let back = Time::now();
        self.next = back + back.since(now) / AWAY_TO_WORK;
    }
}

// === impl Away ===

impl<T> Away<T> {
    /// A panic there goes on here, as if it had been done here.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        match ready!(Pin::new(&mut self.0).poll(cx)) {
            Ok(Ok(came)) => Poll::Ready(came),
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_) => unreachable!("a helper answers whoever waits"),
        }
    }
}
