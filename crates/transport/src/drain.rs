//! The order to finish: connections end when what they carry has ended.

use tokio::sync::watch;

/// Held by what may be told to finish. Cheap to clone.
#[derive(Clone)]
pub struct Drain(watch::Receiver<bool>);

/// Tells all that hold its [`Drain`] to finish; also when it is dropped.
pub struct Drainer(watch::Sender<bool>);

pub fn drain() -> (Drainer, Drain) {
    let (sender, receiver) = watch::channel(false);
    (Drainer(sender), Drain(receiver))
}

impl Drainer {
    pub fn drain(&self) {
        self.0.send_replace(true);
    }
}

impl Drain {
    pub fn is_draining(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Completes when the order has been given.
    pub async fn drained(&self) {
        let mut receiver = self.0.clone();
        // An error says that the drainer is gone, which is an order too.
        let _ = receiver.wait_for(|draining| *draining).await;
    }
}
