//! The streams of a connection that are being answered, each in a task of its own.
//!
//! Less than a set of tasks that are joined: what a stream comes to is nobody's business but its own, so of those that end
//! it is told only when the last one has. To hear of each would be a turn of the connection for each.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;

use slab::Slab;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::boxed::boxed;

/// Dropped, it ends all that still run.
#[derive(Default)]
pub(super) struct Answering(Rc<Shared>);

#[derive(Default)]
struct Shared {
    tasks: RefCell<Slab<AbortHandle>>,
    emptied: Notify,
}

/// One of them, until it is dropped.
pub(super) struct Place {
    of: Rc<Shared>,
    at: usize,
}

impl Answering {
    /// Begins with another, which keeps its place until it ends.
    pub(super) fn begin<F: Future<Output = ()> + 'static>(&self, answer: impl FnOnce(Place) -> F) {
        let at = self.0.tasks.borrow().vacant_key();
        let place = Place { of: self.0.clone(), at };
        let task = tokio::task::spawn_local(boxed(|| answer(place)));
        self.0.tasks.borrow_mut().insert(task.abort_handle());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.tasks.borrow().is_empty()
    }

    /// Completes when the last one has ended.
    pub(super) async fn emptied(&self) {
        self.0.emptied.notified().await;
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.tasks.borrow().iter().for_each(|(_, task)| task.abort());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut tasks = self.of.tasks.borrow_mut();
        drop(tasks.try_remove(self.at));
        if tasks.is_empty() {
            self.of.emptied.notify_one();
        }
    }
}
