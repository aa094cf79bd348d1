//! The order to finish: connections end when what they carry has ended. Of one core.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Held by what may be told to finish. Cheap to clone.
#[derive(Clone)]
pub struct Drain(Rc<Inner>);

/// Tells all that hold its [`Drain`] to finish.
pub struct Drainer(Rc<Inner>);

/// One task's place among those that are woken by the order.
pub struct Watch {
    drain: Drain,
    place: Option<usize>,
}

#[derive(Default)]
struct Inner {
    draining: Cell<bool>,
    closing: Cell<bool>,
    waiting: RefCell<Vec<Option<Waker>>>,
    free: RefCell<Vec<usize>>,
}

pub fn drain() -> (Drainer, Drain) {
    let inner = Rc::new(Inner::default());
    (Drainer(inner.clone()), Drain(inner))
}

impl Drainer {
    /// No new connections, and each that is open ends with its next answer. One that is idle may still bring a
    /// request, which would be lost if it was closed meanwhile.
    pub fn finish(&self) {
        self.0.draining.set(true);
        self.wake();
    }

    /// The same, and idle connections end now.
    pub fn drain(&self) {
        self.0.closing.set(true);
        self.finish();
    }

    fn wake(&self) {
        for waker in self.0.waiting.borrow().iter().flatten() {
            waker.wake_by_ref();
        }
    }
}

impl Drain {
    pub fn is_draining(&self) -> bool {
        self.0.draining.get()
    }

    /// Completes when the order has been given.
    pub fn drained(&self) -> impl Future<Output = ()> + use<> {
        let mut watch = self.watch();
        poll_fn(move |cx| if watch.is_draining(cx) { Poll::Ready(()) } else { Poll::Pending })
    }

    /// For a task that asks often: it enlists once, and is woken by the order wherever it waits.
    pub fn watch(&self) -> Watch {
        Watch { drain: self.clone(), place: None }
    }
}

impl Watch {
    /// True if the order was given; otherwise the task will be woken when it is.
    pub fn is_draining(&mut self, cx: &mut Context<'_>) -> bool {
        if self.drain.0.draining.get() {
            return true;
        }
        self.enlist(cx);
        false
    }

    /// True if what is idle has to end; otherwise the task will be woken when it has to.
    pub fn is_closing(&mut self, cx: &mut Context<'_>) -> bool {
        if self.drain.0.closing.get() {
            return true;
        }
        self.enlist(cx);
        false
    }

    fn enlist(&mut self, cx: &mut Context<'_>) {
        let inner = &self.drain.0;
        let mut waiting = inner.waiting.borrow_mut();
        match self.place {
            Some(place) => match &mut waiting[place] {
                Some(waker) if waker.will_wake(cx.waker()) => {}
                other => *other = Some(cx.waker().clone()),
            },
            None => {
                let place = inner.free.borrow_mut().pop().unwrap_or_else(|| {
                    waiting.push(None);
                    waiting.len() - 1
                });
                waiting[place] = Some(cx.waker().clone());
                self.place = Some(place);
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.drain.0.waiting.borrow_mut()[place] = None;
            self.drain.0.free.borrow_mut().push(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_is_told_and_who_left_is_forgotten() {
        let (drainer, drain) = drain();
        let mut cx = Context::from_waker(Waker::noop());
        let mut first = drain.watch();
        assert!(!first.is_draining(&mut cx) && !first.is_draining(&mut cx));
        drop(first);
        let mut second = drain.watch();
        assert!(!second.is_draining(&mut cx));
        assert_eq!(drain.0.waiting.borrow().len(), 1, "its place was taken again");
        drainer.drain();
        assert!(second.is_draining(&mut cx) && drain.is_draining());
    }

    #[test]
    fn what_is_idle_stays_until_it_is_told_to_end() {
        let (drainer, drain) = drain();
        let mut cx = Context::from_waker(Waker::noop());
        let mut idle = drain.watch();
        drainer.finish();
        assert!(drain.is_draining() && !idle.is_closing(&mut cx));
        drainer.drain();
        assert!(idle.is_closing(&mut cx));
    }
}
