//! Asking a client that says nothing whether it is there (PING), and giving it up when it does not answer.
//!
//! A peer that went without a word, its power cut or its address taken from it, leaves a connection that looks like one
//! that waits. It is looked at once in an interval, not with every frame: a read leaves a mark, and the timer takes it.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep};

/// When a silent client is asked, and given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// It is asked after as much silence, and before twice as much.
    pub interval: Duration,
    /// It is given up when it has said nothing for so long after that.
    pub timeout: Duration,
}

pub(super) struct Watch {
    keepalive: Keepalive,
    ping: PingPong,
    timer: Pin<Box<Sleep>>,
    asked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It spoke, or was asked now.
    There,
    Gone,
}

impl Watch {
    pub(super) fn new(keepalive: Keepalive, ping: PingPong) -> Watch {
        Watch { keepalive, ping, timer: Box::pin(tokio::time::sleep(keepalive.interval)), asked: false }
    }

    /// Completes when there is something to say of the client. `heard` says whether something was read since it was
    /// called last. What is asked leaves when the connection is polled next.
    pub(super) async fn verdict(&mut self, heard: impl Fn() -> bool) -> Verdict {
        let Watch { keepalive, ping, timer, asked } = self;
        let mut answered = false;
        poll_fn(|cx| {
            answered = *asked && ping.poll_pong(cx).is_ready();
            if answered { Poll::Ready(()) } else { timer.as_mut().poll(cx) }
        })
        .await;
        let silent = !(heard() || answered);
        if silent && *asked {
            return Verdict::Gone;
        }
        *asked = silent;
        let wait = match silent {
            true => {
                // Who never answered the last one, but talked, has been asked already.
                let _ = ping.poll_pong(&mut Context::from_waker(Waker::noop()));
                let _ = ping.send_ping(Ping::opaque());
                keepalive.timeout
            }
            false => keepalive.interval,
        };
        timer.as_mut().reset(Instant::now() + wait);
        Verdict::There
    }
}
