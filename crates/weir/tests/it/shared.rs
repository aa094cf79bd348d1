//! Limits that nodes count together, in a real Redis: eight nodes under load, and a store that is away, comes back, hangs.

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use testkit::{Folder, Gateway, PATIENCE, Raw, eventually};

use crate::weir::Running;

const NODES: usize = 8;

/// A server of its own, with nothing of what it holds on disk.
pub(crate) struct Redis {
    pub(crate) address: SocketAddr,
    child: Child,
    folder: Folder,
    more: Vec<String>,
}

impl Redis {
    pub(crate) fn start() -> Redis {
        Redis::start_with(Folder::new(), "--port", &[])
    }

    /// `port` is the word for the port that it listens on: `--port` or `--tls-port`.
    fn start_with(folder: Folder, port: &str, more: &[&str]) -> Redis {
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let own = [port.to_owned(), address.port().to_string()];
        let more: Vec<String> = own.into_iter().chain(more.iter().map(|it| (*it).to_owned())).collect();
        let child = Redis::run(&folder, &more);
        let redis = Redis { address, child, folder, more };
        redis.wait();
        redis
    }

    fn run(folder: &Folder, more: &[String]) -> Child {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"]);
        command.arg(folder.base()).args(more).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("redis-server; scripts/test-setup.sh installs it")
    }

    fn wait(&self) {
        eventually("the store listens", || TcpStream::connect(self.address).is_ok());
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    pub(crate) fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn restart(&mut self) {
        self.stop();
        self.again();
    }

    /// After a stop.
    pub(crate) fn again(&mut self) {
        self.child = Redis::run(&self.folder, &self.more);
        self.wait();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn nodes(store: SocketAddr, rule: &str, away: &str, count: usize) -> Vec<Gateway> {
    let document = format!(
        "node: {{ workers: 1 }}\nstores: {{ s: {{ url: 'redis://{store}', timeout: 100ms, nodes: {count} }} }}\n\
         apis:\n  a:\n    policies: {{ limit: [{{ per: all, {rule}, shared: {{ store: s, when-away: {away} }} }}] }}\n\
         \x20   routes: [{{ respond: {{ body: ok }} }}]\n"
    );
    (0..count).map(|_| Gateway::start(&document)).collect()
}

/// How many calls pass at each of these nodes, each called all the time, while `meanwhile` goes on.
fn load(nodes: &[Gateway], pause: Duration, meanwhile: impl FnOnce()) -> (u64, Duration) {
    let (start, over) = (Instant::now(), Arc::new(AtomicBool::new(false)));
    let callers: Vec<_> = nodes
        .iter()
        .map(|node| {
            let (address, over) = (node.web(), over.clone());
            std::thread::spawn(move || {
                let mut raw = Raw::connect(address);
                let mut passed = 0;
                while !over.load(Relaxed) {
                    let answer = raw.get("/", "");
                    assert!([200, 429].contains(&answer.status), "{answer:?}");
                    passed += u64::from(answer.status == 200);
                    std::thread::sleep(pause);
                }
                passed
            })
        })
        .collect();
    meanwhile();
    let lasted = start.elapsed();
    over.store(true, Relaxed);
    (callers.into_iter().map(|caller| caller.join().unwrap()).sum(), lasted)
}

#[track_caller]
fn near(passed: u64, rate: f64, burst: f64, lasted: Duration) {
    let expected = burst + rate * lasted.as_secs_f64();
    let part = passed as f64 / expected;
    eprintln!("{passed} of {expected:.0} passed in {lasted:?}: {:+.2} %", (part - 1.0) * 100.0);
    assert!((0.98..=1.02).contains(&part), "{passed} of {expected:.0} in {lasted:?}");
}

const STEP: Duration = Duration::from_secs(4);

#[test]
fn eight_nodes_let_through_what_one_would() {
    let store = Redis::start();
    let nodes = nodes(store.address, "rate: 400/s, burst: 400", "closed", NODES);
    let (passed, lasted) = load(&nodes, Duration::from_millis(5), || std::thread::sleep(2 * STEP));
    near(passed, 400.0, 400.0, lasted);
}

#[test]
fn eight_nodes_keep_to_it_while_the_store_is_restarted_and_forgets() {
    let mut store = Redis::start();
    let nodes = nodes(store.address, "rate: 400/s, burst: 400", "local", NODES);
    let (passed, lasted) = load(&nodes, Duration::from_millis(5), || {
        std::thread::sleep(STEP);
        store.stop();
        std::thread::sleep(Duration::from_secs(1));
        store.restart();
        std::thread::sleep(STEP);
    });
    near(passed, 400.0, 400.0, lasted);
}

#[test]
fn without_a_store_each_node_lets_its_part_through_or_all_or_nothing() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let passes = |away: &str| -> Vec<u16> {
        let node = &nodes(nobody, "rate: 8/h", away, 1)[0];
        let mut raw = Raw::connect(node.web());
        (0..10).map(|_| raw.get("/", "").status).collect()
    };
    assert_eq!(passes("open"), [200; 10]);
    assert_eq!(passes("closed"), [503; 10]);
    let mut local = [200; 10];
    local[8..].fill(429);
    assert_eq!(passes("local"), local);
    let eight = nodes(nobody, "rate: 8/h", "local", NODES);
    for node in &eight {
        let mut raw = Raw::connect(node.web());
        assert_eq!([0; 3].map(|_| raw.get("/", "").status), [200, 429, 429]);
    }
}

#[test]
fn a_store_that_hangs_holds_nobody_up() {
    let store = Redis::start();
    let node = &nodes(store.address, "rate: 1000/h", "open", 1)[0];
    let mut raw = Raw::connect(node.web());
    assert_eq!(raw.get("/", "").status, 200);
    store.signal("-STOP");
    // The first may have to wait for as long as a question may take, and hardly any other.
    let start = Instant::now();
    for _ in 0..200 {
        assert_eq!(raw.get("/", "").status, 200);
    }
    assert!(start.elapsed() < PATIENCE / 3, "{:?}", start.elapsed());
    store.signal("-CONT");
    // It is asked again: what is left is what it knows.
    eventually("the store is asked again", || {
        let left = raw.get("/", "").header("ratelimit").unwrap().to_owned();
        let left: u64 = left.split(";r=").nth(1).unwrap().split(';').next().unwrap().parse().unwrap();
        std::thread::sleep(Duration::from_millis(20));
        left < 995
    });
}

// === Who may ask ===

/// With TLS, a user `weir` that may run scripts over its own keys, one that may do nothing, and nobody else. Its folder
/// has the authorities `ca`, which it has its certificate of, and `other`.
fn guarded(clients: &str) -> Redis {
    let folder = Folder::new();
    let authority = folder.authority("ca");
    authority.issue("store", &["127.0.0.1"]);
    folder.authority("other");
    folder.write("right", "secret-of-weir\n");
    folder.write("wrong", "guessed");
    folder.write(
        "users.acl",
        "user default off\nuser weir on >secret-of-weir ~weir:* -@all +ping +select +eval +evalsha +time +get +set +zadd \
         +zremrangebyscore +zcard +pexpire\n\
         user idle on >secret-of-weir ~* -@all +ping\n",
    );
    let path = |name: &str| folder.path(name).display().to_string();
    let (cert, key, ca, users) = (path("store.crt"), path("store.key"), path("ca.crt"), path("users.acl"));
    let more = [
        "--port",
        "0",
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
        "--tls-auth-clients",
        clients,
        "--aclfile",
        &users,
    ];
    Redis::start_with(folder, "--tls-port", &more)
}

/// A gateway as a process, since its log is looked at; what it answers, and the line of its log with `part`.
#[track_caller]
fn through(store: &Redis, settings: &str, away: &str, part: Option<&str>) -> Vec<u16> {
    let address = store.address;
    store.folder.write(
        "weir.yaml",
        format!(
            "version: 1\nnode: {{ workers: 1 }}\nadmin: {{ address: none }}\nlisteners: {{ web: {{ address: '127.0.0.1:0' }} }}\n\
             stores: {{ counts: {{ url: 'rediss://{address}', timeout: 5s, {settings} }} }}\napis:\n  a:\n    policies: {{ \
             limit: [{{ per: all, rate: 4/h, shared: {{ store: counts, when-away: {away} }} }}] }}\n    routes: [{{ \
             respond: {{ body: ok }} }}]\n"
        ),
    );
    let gateway = Running::start(store.folder.base(), &["run"]);
    let line = gateway.line("listening");
    let web = line.split_whitespace().find_map(|word| word.strip_prefix("address=")).unwrap();
    let mut raw = Raw::connect(web.parse().unwrap());
    let statuses = (0..6).map(|_| raw.get("/", "").status).collect();
    if let Some(part) = part {
        let line = gateway.line(part);
        assert!(line.contains("counts"), "it does not say which store: {line}");
        assert!(!line.contains("secret-of-weir") && !line.contains("guessed"), "{line}");
    }
    statuses
}

const WEIR: &str = "user: weir, password: 'file:right', authorities: 'file:ca.crt'";
const COUNTED: [u16; 6] = [200, 200, 200, 200, 429, 429];

#[test]
fn a_store_with_tls_and_users_counts_for_who_may_ask() {
    let mut store = guarded("no");
    assert_eq!(through(&store, WEIR, "closed", None), COUNTED);
    // It was the store that counted: another node finds nothing left, until the store forgets.
    assert_eq!(through(&store, WEIR, "closed", None), [429; 6]);
    store.restart();
    assert_eq!(through(&store, WEIR, "closed", None), COUNTED);
}

#[test]
fn a_store_that_does_not_let_us_in_is_away_and_says_why() {
    let store = guarded("no");
    let refused = |settings: &str, part: &str| {
        assert_eq!(through(&store, settings, "closed", Some(part)), [503; 6], "{settings}");
        assert_eq!(through(&store, settings, "open", Some(part)), [200; 6], "{settings}");
        assert_eq!(through(&store, settings, "local", Some(part)), COUNTED, "{settings}");
    };
    let ca = "authorities: 'file:ca.crt'";
    refused(&format!("user: weir, password: 'file:wrong', {ca}"), "WRONGPASS");
    refused(&format!("user: nobody, password: 'file:right', {ca}"), "WRONGPASS");
    refused(ca, "NOAUTH");
    refused(&format!("user: idle, password: 'file:right', {ca}"), "no permissions");
    // Whom we do not trust hears nothing of the password.
    refused("user: weir, password: 'file:right', authorities: 'file:other.crt'", "UnknownIssuer");
    refused("user: weir, password: 'file:right'", "UnknownIssuer");
    // One that wants certificates of its clients, which there is no word for.
    let strict = guarded("yes");
    assert_eq!(through(&strict, WEIR, "closed", Some("CertificateRequired")), [503; 6]);
}
