//! How many connections of clients are open, on all cores together, and who has to wait or to go because of it.
//!
//! A connection has a [`Seat`] from before its first byte is read until it is closed, whichever core serves it.
//! Counting is atomic; only where the document bounds connections by address is there a lock, for the moment in which
//! one is opened or closed.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{
    AtomicU32, AtomicUsize, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use config::HttpLimits;
use foldhash::fast::RandomState;
use tokio::sync::Notify;

/// The connections of one listener, and those of the node.
pub struct Crowd {
    own: Room,
    node: Arc<Room>,
    per_address: AtomicU32,
    addresses: Mutex<HashMap<IpAddr, u32, RandomState>>,
}

/// As many as may be open.
pub struct Room {
    open: AtomicU32,
    most: AtomicU32,
    waiting: AtomicUsize,
    freed: Notify,
}

/// A connection that is open.
pub struct Seat {
    crowd: Arc<Crowd>,
    address: Option<IpAddr>,
}

// === impl Crowd ===

impl Crowd {
    pub fn new(node: Arc<Room>) -> Arc<Crowd> {
        Arc::new(Crowd {
            own: Room::default(),
            node,
            per_address: AtomicU32::new(u32::MAX),
            addresses: Mutex::default(),
        })
    }

    pub fn node(&self) -> &Arc<Room> {
        &self.node
    }

    /// What may be from now on. Those who are there stay.
    pub fn allow(&self, limits: &HttpLimits, node: Option<u32>) {
        self.own.allow(limits.connections.unwrap_or(u32::MAX));
        self.node.allow(node.unwrap_or_else(of_open_files));
        self.per_address.store(limits.connections_per_address.unwrap_or(u32::MAX), Relaxed);
    }

    /// Waits for a seat. Cancel-safe.
    pub async fn seat(self: &Arc<Crowd>, listener: &str) -> Seat {
        if let Some(seat) = self.try_seat() {
            return seat;
        }
        tracing::warn!(listener, "as many connections are open as may be; more wait until others have gone");
        loop {
            // One after the other, lest who waits for the one holds the other.
            for room in [&self.own, &*self.node] {
                room.wait().await;
            }
            if let Some(seat) = self.try_seat() {
                return seat;
            }
        }
    }

    /// One whether there is room or not.
    pub fn seat_anyway(self: &Arc<Crowd>) -> Seat {
        self.own.open.fetch_add(1, AcqRel);
        self.node.open.fetch_add(1, AcqRel);
        Seat { crowd: self.clone(), address: None }
    }

    fn try_seat(self: &Arc<Crowd>) -> Option<Seat> {
        if !self.own.enter() {
            return None;
        }
        if !self.node.enter() {
            self.own.leave();
            return None;
        }
        Some(Seat { crowd: self.clone(), address: None })
    }

    fn addresses(&self) -> MutexGuard<'_, HashMap<IpAddr, u32, RandomState>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Three quarters: the rest is for upstreams, and for being operated meanwhile.
fn of_open_files() -> u32 {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::from(u32::MAX));
    u32::try_from(files - files / 4).unwrap_or(u32::MAX).max(1)
}

// === impl Room ===

impl Default for Room {
    fn default() -> Room {
        Room {
            open: AtomicU32::new(0),
            most: AtomicU32::new(u32::MAX),
            waiting: AtomicUsize::new(0),
            freed: Notify::new(),
        }
    }
}

impl Room {
    fn allow(&self, most: u32) {
        if most > self.most.swap(most, AcqRel) {
            self.freed.notify_waiters();
        }
    }

    fn enter(&self) -> bool {
        let most = self.most.load(Acquire);
        self.open.fetch_update(AcqRel, Acquire, |open| (open < most).then(|| open + 1)).is_ok()
    }

    fn leave(&self) {
        self.open.fetch_sub(1, AcqRel);
        if self.waiting.load(Acquire) > 0 {
            self.freed.notify_one();
        }
    }

    /// Until there seems to be room.
    async fn wait(&self) {
        let _counted = Counted::new(&self.waiting);
        while self.open.load(Acquire) >= self.most.load(Acquire) {
            // Another may have been told and not have taken it; so it is looked at now and then in any case.
            let _ = tokio::time::timeout(LOOK_AGAIN, self.freed.notified()).await;
        }
    }
}

const LOOK_AGAIN: Duration = Duration::from_millis(100);

struct Counted<'a>(&'a AtomicUsize);

impl Counted<'_> {
    fn new(count: &AtomicUsize) -> Counted<'_> {
        count.fetch_add(1, AcqRel);
        Counted(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Release);
    }
}

// === impl Seat ===

impl Seat {
    /// Whose it is; false if that one has as many as it may have.
    pub fn is_for(&mut self, address: Option<IpAddr>) -> bool {
        let most = self.crowd.per_address.load(Relaxed);
        let Some(address) = address.filter(|_| most < u32::MAX) else { return true };
        let address = whose(address);
        let mut addresses = self.crowd.addresses();
        let open = addresses.entry(address).or_default();
        if *open >= most {
            return false;
        }
        *open += 1;
        self.address = Some(address);
        true
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(address) = self.address {
            let mut addresses = self.crowd.addresses();
            if let Some(open) = addresses.get_mut(&address) {
                *open -= 1;
                if *open == 0 {
                    addresses.remove(&address);
                }
            }
        }
        self.crowd.own.leave();
        self.crowd.node.leave();
    }
}

/// One customer has a whole network of IPv6.
fn whose(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crowd(node: u32, own: u32, per_address: u32) -> Arc<Crowd> {
        let crowd = Crowd::new(Arc::default());
        crowd.node.allow(node);
        crowd.own.allow(own);
        crowd.per_address.store(per_address, Relaxed);
        crowd
    }

    #[test]
    fn no_more_than_may_be() {
        for (node, own) in [(2, 9), (9, 2)] {
            let crowd = crowd(node, own, u32::MAX);
            let seats = [crowd.try_seat().unwrap(), crowd.try_seat().unwrap()];
            assert!(crowd.try_seat().is_none());
            drop(seats);
            assert!(crowd.try_seat().is_some());
            assert_eq!((crowd.own.open.load(Relaxed), crowd.node.open.load(Relaxed)), (0, 0));
        }
    }

    #[test]
    fn an_address_has_its_own_bound() {
        let crowd = crowd(99, 99, 2);
        let ip = |text: &str| Some(text.parse().unwrap());
        let mut seats: Vec<_> = (0..8).map(|_| crowd.try_seat().unwrap()).collect();
        assert!(seats[0].is_for(ip("10.0.0.1")) && seats[1].is_for(ip("::ffff:10.0.0.1")));
        assert!(!seats[2].is_for(ip("10.0.0.1")));
        assert!(seats[3].is_for(ip("2001:db8::1")) && seats[4].is_for(ip("2001:db8::2")));
        assert!(!seats[5].is_for(ip("2001:db8::3")) && seats[6].is_for(ip("2001:db8:0:1::3")));
        assert!(seats[7].is_for(None), "of a socket without addresses");
        seats.remove(0);
        assert!(seats[1].is_for(ip("10.0.0.1")), "another has gone");
        seats.clear();
        assert!(crowd.addresses().is_empty());
    }

    #[tokio::test]
    async fn who_waits_comes_in_when_another_has_gone() {
        let crowd = crowd(1, 5, u32::MAX);
        let seat = crowd.seat("web").await;
        let waiting = tokio::spawn({
            let crowd = crowd.clone();
            async move { drop(crowd.seat("web").await) }
        });
        while crowd.node.waiting.load(Acquire) == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(crowd.own.open.load(Acquire), 1, "who waits holds nothing");
        drop(seat);
        waiting.await.unwrap();
    }
}
