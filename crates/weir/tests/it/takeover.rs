//! One process takes the place of another while it is used.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use hyper::Request;
use simulator::{Options, Simulator};
use testkit::client::{self, none};
use testkit::{PATIENCE, Raw, eventually};

use crate::weir::{Running, get, signal};

/// The processes that followed one another. None of them stays behind, however the test ends.
struct Line {
    first: Running,
    processes: Vec<u32>,
}

impl Line {
    fn start(folder: &Path, args: &[&str]) -> (Line, String) {
        let first = Running::start(folder, args);
        let address = address(&first);
        let processes = vec![first.id()];
        (Line { first, processes }, address)
    }

    fn current(&self) -> u32 {
        *self.processes.last().unwrap()
    }

    /// The next process, as an upgrade would start it.
    #[track_caller]
    fn replace(&mut self) {
        assert!(signal(self.current(), "USR2"));
        let line = self.first.line("another process took over");
        self.processes.push(number(&line, "process="));
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        for process in &self.processes[1..] {
            if is_alive(*process) {
                signal(*process, "KILL");
            }
        }
    }
}

fn address(weir: &Running) -> String {
    word(&weir.line("listener=web"), "address=").to_owned()
}

fn word<'a>(line: &'a str, name: &str) -> &'a str {
    let found = line.split_whitespace().find_map(|word| word.strip_prefix(name));
    found.unwrap_or_else(|| panic!("no {name} in {line}"))
}

fn number(line: &str, name: &str) -> u32 {
    word(line, name).parse().unwrap()
}

/// One that has ended may wait for a parent that never asks.
fn is_alive(process: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains('Z'))
}

fn write(folder: &Path, workers: usize, upstream: &str) {
    let mut text = format!("version: 1\nnode: {{ workers: {workers} }}\n");
    text.push_str("listeners: { web: { address: '127.0.0.1:0' }, unix: { address: 'unix:weir.sock' } }\n");
    text.push_str("telemetry: { metrics: '127.0.0.1:0' }\n");
    writeln!(text, "apis: {{ a: {{ upstream: '{upstream}' }} }}").unwrap();
    // In one step, since it is watched.
    std::fs::write(folder.join("new"), text).unwrap();
    std::fs::rename(folder.join("new"), folder.join("weir.yaml")).unwrap();
}

/// The sockets that listen on a port, by their inodes.
fn listening(port: u16) -> BTreeSet<String> {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
    let here = format!(":{port:04X}");
    rows.filter(|row| row[1].ends_with(&here) && row[3] == "0A").map(|row| row[9].to_owned()).collect()
}

/// Asks until it is told to stop; whatever is not a whole, good answer is a panic.
struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(address: SocketAddr, unix: &Path) -> Load {
        let (stop, served) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let mut threads = Vec::new();
        for kind in 0..5 {
            let (stop, served, unix) = (stop.clone(), served.clone(), unix.to_owned());
            threads.push(std::thread::spawn(move || match kind {
                // A connection that is kept as long as the other side keeps it.
                0 | 1 => {
                    let mut raw = Raw::connect(address);
                    while !stop.load(Ordering::Relaxed) {
                        let answer = raw.get("/bytes/2000", "");
                        assert!(answer.status == 200 && answer.complete, "{answer:?}");
                        served.fetch_add(1, Ordering::Relaxed);
                        if answer.header("connection") == Some("close") {
                            raw = Raw::connect(address);
                        }
                    }
                }
                // A new one each time, the second over the Unix socket.
                2 | 3 => {
                    while !stop.load(Ordering::Relaxed) {
                        let mut raw = if kind == 2 { Raw::connect(address) } else { Raw::unix(&unix) };
                        let answer = raw.get("/bytes/2000", "connection: close\r\n");
                        assert!(answer.status == 200 && answer.complete, "{answer:?}");
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                }
                _ => client::run(async {
                    let mut http2 = client::http2(address).await;
                    while !stop.load(Ordering::Relaxed) {
                        // GOAWAY: what was sent is answered, what is new needs another connection.
                        if http2.ready().await.is_err() {
                            http2 = client::http2(address).await;
                            continue;
                        }
                        let request = Request::get(format!("http://{address}/bytes/2000")).body(none()).unwrap();
                        match http2.send_request(request).await {
                            Ok(answer) => {
                                assert_eq!(answer.status(), 200);
                                let body = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap();
                                assert_eq!(body.to_bytes().len(), 2000);
                                served.fetch_add(1, Ordering::Relaxed);
                            }
                            Err(error) => assert!(error.is_canceled(), "not one that was never sent: {error:?}"),
                        }
                    }
                }),
            }));
        }
        Load { stop, served, threads }
    }

    fn served(&self) -> usize {
        self.served.load(Ordering::Relaxed)
    }

    /// How many calls there were.
    #[track_caller]
    fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        self.served.load(Ordering::Relaxed)
    }
}

#[test]
fn twenty_upgrades_under_load_lose_nothing() {
    let service = Simulator::start(Options::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), 2, &service.url());
    let (mut line, address) = Line::start(folder.path(), &["run"]);
    let metrics = word(&line.first.line("metrics at"), "address=").to_owned();
    let web: SocketAddr = address.parse().unwrap();

    // What lasts: events and a WebSocket, both of the first process.
    let events = std::thread::spawn({
        let address = address.clone();
        let url = format!("http://{address}/events?count=60&every=200ms");
        move || testkit::curl(&["-N", &url])
    });
    let mut socket = Raw::connect(web);
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    socket.send(format!("GET /ws HTTP/1.1\r\nhost: t\r\n{upgrade}\r\n"));
    assert_eq!(socket.head().unwrap().status, 101);
    eventually("the events have begun", || !service.seen("/events").is_empty());
    // One that is idle when its process is replaced may still ask once.
    let mut idle = Raw::connect(web);
    assert_eq!(idle.get("/bytes/1", "").header("connection"), None);

    let load = Load::start(web, &folder.path().join("weir.sock"));
    for round in 0..20 {
        let before = load.served();
        eventually("the load goes on", || load.served() > before + 20);
        write(folder.path(), 1 + round % 4, &service.url());
        let sockets = listening(web.port());
        line.replace();
        assert!(!sockets.is_empty() && listening(web.port()).is_superset(&sockets), "a queue was thrown away");
        socket.send([0x81, 0x85, 0, 0, 0, 0]).send("hello");
        assert_eq!(socket.exactly(7), b"\x81\x05hello");
        if round == 0 {
            assert_eq!(idle.get("/bytes/1", "").header("connection"), Some("close"));
        }
        assert!(get(&metrics, "/readyz", "").starts_with("HTTP/1.1 200"));
    }
    let before = load.served();
    eventually("the load goes on", || load.served() > before + 20);
    let served = load.end();
    assert!(served > 20 * 20, "{served}");

    let events = events.join().unwrap();
    assert!(events.answer.complete, "{events:?}");
    assert_eq!(events.answer.text().matches("data:").count(), 60);
    assert!(is_alive(line.processes[0]), "it has the WebSocket");
    assert!(std::os::unix::net::UnixStream::connect(folder.path().join("weir.sock")).is_ok());
    socket.close_writing();
    drop(socket);
    let (last, gone) = line.processes.split_last().unwrap();
    eventually("all but the last have ended", || gone.iter().all(|process| !is_alive(*process)));
    assert!(get(&address, "/bytes/3", "").ends_with("000"));
    assert!(signal(*last, "TERM"));
    eventually("the last has ended", || !is_alive(*last));
    assert!(!folder.path().join("weir.sock").exists(), "its file went with the last");
}

/// What each of them stored is found by the next, and no call notices.
#[test]
fn the_disk_of_the_cache_is_handed_over_under_load() {
    let service = Simulator::start(Options::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "version: 1\nnode: {{ workers: 2, data: d, cache: {{ memory: 2MiB, disk: {{ size: 32MiB }} }} }}\n\
         listeners: {{ web: {{ address: '127.0.0.1:0' }}, unix: {{ address: 'unix:weir.sock' }} }}\n\
         apis: {{ a: {{ upstream: '{}', policies: {{ cache: {{ fresh: 1h }} }} }} }}\n",
        service.url()
    );
    std::fs::write(folder.path().join("weir.yaml"), text).unwrap();
    let first = Running::start(folder.path(), &["run"]);
    // Said by threads that do not wait for each other.
    let (mut web, mut has_disk) = (None, false);
    while web.is_none() || !has_disk {
        let line = first.line("");
        has_disk |= line.contains("the cache has its disk");
        if line.contains("listener=web") {
            web = Some(word(&line, "address=").parse::<SocketAddr>().unwrap());
        }
    }
    let (web, processes) = (web.unwrap(), vec![first.id()]);
    let mut line = Line { first, processes };
    let load = Load::start(web, &folder.path().join("weir.sock"));
    for round in 0..5 {
        let path = format!("/bytes/{}", 300_000 + round);
        let fresh = Raw::connect(web).get(&path, "");
        assert!(fresh.header("cache-status").unwrap().contains("stored"), "{:?}", fresh.headers);
        line.replace();
        line.first.line("the cache has its disk");
        let again = Raw::connect(web).get(&path, "");
        assert!(again.header("cache-status").unwrap().contains("detail=disk"), "{:?}", again.headers);
        assert_eq!((again.body.len(), again.body == fresh.body), (300_000 + round, true));
        let before = load.served();
        eventually("the load goes on", || load.served() > before + 20);
    }
    assert!(load.end() > 100);
    assert_eq!(service.seen("/bytes/300000").len(), 1);
}

#[test]
fn who_cannot_take_over_changes_nothing() {
    let service = Simulator::start(Options::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), 1, &service.url());
    let (mut line, address) = Line::start(folder.path(), &["run"]);
    std::fs::write(folder.path().join("weir.yaml"), "version: 1\nnode: { wrokers: 1 }\n").unwrap();
    line.first.signal("USR2");
    let told = line.first.line("no process took over");
    assert!(told.contains("wrokers"), "{told}");
    assert!(get(&address, "/bytes/3", "").ends_with("000"));
    write(folder.path(), 1, &service.url());
    line.replace();
    assert!(get(&address, "/bytes/3", "").ends_with("000"));
    eventually("the first has ended", || !is_alive(line.processes[0]));
}

#[test]
fn a_process_takes_over_by_a_socket() {
    let service = Simulator::start(Options::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), 2, &service.url());
    let run = ["run", "--takeover", "takeover.sock"];
    let mut current = Running::start(folder.path(), &run);
    let address = address(&current);
    let load = Load::start(address.parse().unwrap(), &folder.path().join("weir.sock"));

    // One that would not do leaves all as it was.
    std::fs::write(folder.path().join("wrong.yaml"), "version: 2\n").unwrap();
    let wrong = Running::start(folder.path(), &["run", "wrong.yaml", "--takeover", "takeover.sock"]);
    assert_eq!(wrong.end(), Some(2));
    current.line("no process took over");

    for workers in [1, 3, 2] {
        write(folder.path(), workers, &service.url());
        let next = Running::start(folder.path(), &run);
        let line = current.line("another process took over");
        assert_eq!(number(&line, "process="), next.id());
        assert_eq!(word(&next.line("listener=web"), "address="), address);
        current.line("stopped");
        assert_eq!(current.end(), Some(0));
        current = next;
        let before = load.served();
        eventually("the load goes on", || load.served() > before + 20);
    }
    load.end();
    current.signal("TERM");
    assert_eq!(current.end(), Some(0));
    assert!(!folder.path().join("takeover.sock").exists());
}

#[test]
fn the_service_manager_hears_who_is_the_main_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let told = |expected: &str| {
        let mut seen = Vec::new();
        loop {
            let mut buffer = [0; 200];
            let length = manager.recv(&mut buffer).unwrap_or_else(|_| panic!("no {expected} in {seen:?}"));
            seen.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
            if seen.iter().any(|it| it == expected) {
                return;
            }
        }
    };
    std::fs::write(
        folder.path().join("weir.yaml"),
        "version: 1\nlisteners: { web: { address: '127.0.0.1:0' } }\napis: { a: { routes: [{ respond: { body: here } }] } }\n",
    )
    .unwrap();
    let first = Running::start_with(folder.path(), &["run"], &[("NOTIFY_SOCKET", &path)]);
    let mut line = Line { processes: vec![first.id()], first };
    told("READY=1");
    line.replace();
    told(&format!("MAINPID={}", line.current()));
    assert!(signal(line.current(), "TERM"));
    told("STOPPING=1");
}
