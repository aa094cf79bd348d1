//! Against a name server of twenty lines that can be told to fail.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::*;

/// Answers every question for A with `10.0.0.<last>` and, if that is zero, fails.
struct FakeServer {
    address: SocketAddr,
    last: Arc<AtomicU8>,
    questions: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

impl FakeServer {
    async fn start(last: u8, ttl: u32) -> FakeServer {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let (last, questions) = (Arc::new(AtomicU8::new(last)), Arc::new(AtomicUsize::new(0)));
        let mut task = JoinSet::new();
        let (shared, counted) = (last.clone(), questions.clone());
        task.spawn(async move {
            let mut packet = [0; 1500];
            loop {
                let (_, from) = socket.recv_from(&mut packet).await.unwrap();
                counted.fetch_add(1, Ordering::Relaxed);
                let answer = answer(&packet, shared.load(Ordering::Relaxed), ttl);
                socket.send_to(&answer, from).await.unwrap();
            }
        });
        FakeServer { address, last, questions, _task: task }
    }

    fn say(&self, last: u8) {
        self.last.store(last, Ordering::Relaxed);
    }

    fn resolver(&self) -> Resolver {
        Resolver::with_servers(&[self.address]).unwrap()
    }

    fn asked(&self, patience: Patience) -> Asked {
        Asked { resolver: Arc::new(self.resolver()), patience }
    }
}

fn answer(packet: &[u8], last: u8, ttl: u32) -> Vec<u8> {
    let mut end = 12;
    while packet[end] != 0 {
        end += usize::from(packet[end]) + 1;
    }
    end += 5;
    let is_a = packet[end - 4..end - 2] == [0, 1];
    let (code, count) = if last == 0 { (2, 0) } else { (0, u8::from(is_a)) };
    let mut out = packet[..2].to_vec();
    out.extend([0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0]);
    out.extend(&packet[12..end]);
    if count == 1 {
        out.extend([0xc0, 12, 0, 1, 0, 1]);
        out.extend(ttl.to_be_bytes());
        out.extend([0, 4, 10, 0, 0, last]);
    }
    out
}

fn ten(last: u8) -> Vec<IpAddr> {
    vec![IpAddr::from([10, 0, 0, last])]
}

async fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if check() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

#[tokio::test]
async fn an_answer_has_addresses_and_a_bounded_time_to_live() {
    for (ttl, expected) in [(0, 1), (60, 60), (86_400, 300)] {
        let server = FakeServer::start(7, ttl).await;
        let answer = server.resolver().addresses("orders.test").await.unwrap();
        assert_eq!(answer, Answer { found: ten(7), ttl: Duration::from_secs(expected) });
    }
}

#[tokio::test]
async fn addresses_and_localhost_are_not_asked_for() {
    let server = FakeServer::start(7, 1).await;
    let resolver = server.resolver();
    for (host, expected) in [("10.1.2.3", "10.1.2.3"), ("[::1]", "::1"), ("::1", "::1"), ("a.localhost", "127.0.0.1")] {
        let expected: IpAddr = expected.parse().unwrap();
        assert!(resolver.addresses(host).await.unwrap().found.contains(&expected), "{host}");
    }
    let localhost = resolver.addresses("localhost").await.unwrap().found;
    assert!(localhost.iter().all(|address| address.is_loopback()), "{localhost:?}");
    assert_eq!(server.questions.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_failure_says_which_name() {
    let server = FakeServer::start(0, 1).await;
    let error = server.resolver().addresses("orders.test").await.unwrap_err();
    assert_eq!(error.host, "orders.test");
}

#[tokio::test]
async fn a_name_follows_its_server_and_survives_its_failure() {
    let server = FakeServer::start(1, 1).await;
    let names = Names::new(server.asked(Patience::default()), Handle::current());
    let name = names.host("Orders.test");
    assert!(Arc::ptr_eq(&name, &names.host("orders.test")));
    name.settled().await;
    assert_eq!(**name.found(), ten(1));

    let mut changes = name.changes();
    server.say(2);
    changes.changed().await.unwrap();
    assert_eq!(**name.found(), ten(2));

    server.say(0);
    eventually("the failure is noticed", || name.error().is_some()).await;
    assert_eq!(**name.found(), ten(2));

    server.say(3);
    eventually("the name recovers", || name.error().is_none()).await;
    assert_eq!(**name.found(), ten(3));
}

#[tokio::test]
async fn an_answer_is_used_for_so_long_and_no_longer() {
    let server = FakeServer::start(1, 1).await;
    let patience = Patience { stale: Some(Duration::from_secs(1)), ..Patience::default() };
    let names = Names::new(server.asked(patience), Handle::current());
    let name = names.host("orders.test");
    name.settled().await;
    server.say(0);
    eventually("it is stale", || name.stale(base::Time::now()).is_some_and(|stale| !stale.is_zero())).await;
    assert_eq!(**name.found(), ten(1));
    eventually("it is given up", || name.found().is_empty()).await;
    let status = &names.status()[0];
    assert_eq!((&*status.name, status.found, status.stale), ("orders.test", 0, None));
    assert!(status.failures > 1, "{status:?}");

    // Other servers are asked at once, whatever the pause was.
    let other = FakeServer::start(9, 1).await;
    names.ask_by(other.asked(patience));
    eventually("the other server answers", || **name.found() == ten(9)).await;
}

#[tokio::test]
async fn a_name_nobody_holds_is_not_asked_for() {
    let server = FakeServer::start(1, 1).await;
    let names = Names::new(server.asked(Patience::default()), Handle::current());
    let name = names.host("orders.test");
    name.settled().await;
    let weak = Arc::downgrade(&name);
    drop(name);
    assert!(weak.upgrade().is_none());
    let before = server.questions.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(server.questions.load(Ordering::Relaxed), before);
}

#[test]
fn a_name_is_read_from_any_thread() {
    fn check<T: Send + Sync>() {}
    check::<Name>();
    check::<Names>();
}
