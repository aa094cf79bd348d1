//! A running gateway whose document changes under it.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use simulator::{Options, Simulator};
use testkit::{Raw, eventually};

use crate::weir::{Running, get};

fn write(folder: &Path, body: &str) {
    let text = format!(
        "version: 1\nlisteners: {{ web: {{ address: '127.0.0.1:0' }} }}\napis: {{ a: {{ routes: [{{ respond: {{ body: {body} }} }}] }} }}\n"
    );
    std::fs::write(folder.join("weir.yaml"), text).unwrap();
}

fn start(folder: &Path) -> (Running, String) {
    let weir = Running::start(folder, &["run"]);
    let line = weir.line("listening");
    let address = line.split_whitespace().find_map(|word| word.strip_prefix("address=")).unwrap().to_owned();
    (weir, address)
}

#[test]
fn a_change_is_in_force_within_200_ms() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "first");
    let (weir, address) = start(folder.path());
    assert!(get(&address, "/", "").ends_with("first"));
    // The folder is watched once the node is up.
    thread::sleep(Duration::from_millis(100));
    let begin = Instant::now();
    write(folder.path(), "second");
    while !get(&address, "/", "").ends_with("second") {
        assert!(begin.elapsed() < Duration::from_secs(5), "never");
        thread::sleep(Duration::from_millis(2));
    }
    let took = begin.elapsed();
    assert!(took < Duration::from_millis(200), "took {took:?}");
    weir.signal("TERM");
    assert_eq!(weir.end(), Some(0));
}

#[test]
fn a_wrong_document_changes_nothing_and_is_told_whole() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "first");
    let (weir, address) = start(folder.path());
    thread::sleep(Duration::from_millis(100));
    std::fs::write(folder.path().join("weir.yaml"), "version: 1\napi: {}\nnode: { drain: 5 }\n").unwrap();
    weir.line("refused");
    weir.line("weir.yaml:2");
    weir.line("weir.yaml:3");
    assert!(get(&address, "/", "").ends_with("first"));
    // Mended, it is taken again.
    write(folder.path(), "third");
    weir.line("in force");
    assert!(get(&address, "/", "").ends_with("third"));
}

#[test]
fn a_hangup_reads_it_again() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "first");
    let (weir, _) = start(folder.path());
    weir.signal("HUP");
    weir.line("in force");
    weir.signal("TERM");
    weir.line("stopped");
    assert_eq!(weir.end(), Some(0));
}

fn write_logged(folder: &Path, log: &str, body: &str) {
    let text = format!(
        "version: 1\nlisteners: {{ web: {{ address: '127.0.0.1:0' }} }}\ntelemetry: {{ access-log: '{log}' }}\napis: {{ a: {{ routes: [{{ respond: {{ body: {body} }} }}] }} }}\n"
    );
    std::fs::write(folder.join("weir.yaml"), text).unwrap();
}

#[test]
fn a_log_that_was_moved_away_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let moved = folder.path().join("access.log.1");
    write_logged(folder.path(), "file:access.log", "here");
    let (weir, address) = start(folder.path());
    let logged = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    get(&address, "/first", "");
    eventually("the first is logged", || logged(&log).contains("/first"));
    std::fs::rename(&log, &moved).unwrap();
    get(&address, "/second", "");
    eventually("the second goes where the file went", || logged(&moved).contains("/second"));
    weir.signal("USR1");
    eventually("it is opened again", || log.exists());
    get(&address, "/third", "");
    eventually("the third is logged", || logged(&log).contains("/third"));
    assert!(!logged(&moved).contains("/third"));
    weir.signal("TERM");
    assert_eq!(weir.end(), Some(0));
}

/// More lines than all that could take them in: a pipe's buffer, and the queue.
fn fill(address: &str) {
    let path = format!("/{}", "x".repeat(8000));
    let mut raw = Raw::connect(address.parse().unwrap());
    for _ in 0..400 {
        assert_eq!(raw.get(&path, "").status, 200);
    }
}

#[test]
fn a_log_that_nobody_reads_holds_up_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    write_logged(folder.path(), "file:pipe", "first");
    let (weir, address) = start(folder.path());
    fill(&address);
    weir.signal("HUP");
    weir.line("in force");
    weir.signal("USR1");
    assert!(get(&address, "/", "").ends_with("first"));
    weir.signal("TERM");
    weir.line("stopped");
    assert_eq!(weir.end(), Some(0));
}

#[test]
fn a_standard_output_that_nobody_reads_holds_up_nothing() {
    let folder = tempfile::tempdir().unwrap();
    write_logged(folder.path(), "stdout", "first");
    let (weir, _output) = Running::start_unread(folder.path(), &["run"]);
    let line = weir.line("listening");
    let address = line.split_whitespace().find_map(|word| word.strip_prefix("address=")).unwrap().to_owned();
    fill(&address);
    weir.signal("HUP");
    weir.line("in force");
    assert!(get(&address, "/", "").ends_with("first"));
    weir.signal("TERM");
    weir.line("stopped");
    assert_eq!(weir.end(), Some(0));
}

fn listening_at(folder: &Path, listeners: &str, origin: &str) {
    let text = format!(
        "version: 1\nlisteners: {{ {listeners} }}\napis: {{ a: {{ routes: [{{ upstream: '{origin}' }}] }} }}\n"
    );
    std::fs::write(folder.join("weir.yaml"), text).unwrap();
}

/// Clients that never stop: each call on a connection of its own, or all on one for as long as it is kept open. How many
/// calls were answered; a call that is lost is a panic.
fn clients(port: u16, stop: &Arc<AtomicBool>) -> Vec<thread::JoinHandle<u32>> {
    let client = |keeps: bool| {
        let stop = stop.clone();
        move || {
            let (mut count, mut kept) = (0, None::<Raw>);
            while !stop.load(Relaxed) {
                let mut raw = kept.take().unwrap_or_else(|| Raw::connect(([127, 0, 0, 1], port).into()));
                let answer = raw.get("/delay/2", "");
                assert_eq!(answer.status, 200, "{}", answer.text());
                count += 1;
                if keeps && answer.header("connection") != Some("close") {
                    kept = Some(raw);
                }
            }
            count
        }
    };
    [false, false, false, true, true].map(|keeps| thread::spawn(client(keeps))).into()
}

#[test]
fn a_listener_moves_among_addresses_of_one_port_and_nobody_is_lost() {
    // Answers take a moment, so that some are always under way.
    let origin = Simulator::start(Options::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    listening_at(folder.path(), "web: { address: '127.0.0.1:0' }", &origin.url());
    let (weir, address) = start(folder.path());
    let port = address.parse::<SocketAddr>().unwrap().port();
    let stop = Arc::new(AtomicBool::new(false));
    let clients = clients(port, &stop);
    let moves = [
        ("0.0.0.0", true),
        ("127.0.0.1", false),
        ("[::]", true),
        ("0.0.0.0", true),
        ("[::]", true),
        ("127.0.0.1", false),
        ("0.0.0.0", true),
        ("127.0.0.1", false),
    ];
    let reaches = |ip: [u8; 4]| TcpStream::connect_timeout(&(ip, port).into(), Duration::from_secs(5)).is_ok();
    for (to, all) in moves {
        listening_at(folder.path(), &format!("web: {{ address: '{to}:{port}' }}"), &origin.url());
        weir.signal("HUP");
        weir.line("in force");
        eventually(&format!("it is at {to} and nowhere else"), || reaches([127, 0, 0, 2]) == all);
        assert!(reaches([127, 0, 0, 1]), "{to}");
    }
    // What else is wrong with a document changes nothing, and loses nobody who has come by then.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = format!("web: {{ address: '0.0.0.0:{port}' }}, z: {{ address: '{}' }}", taken.local_addr().unwrap());
    listening_at(folder.path(), &other, &origin.url());
    weir.signal("HUP");
    weir.line("cannot listen on");
    assert!(reaches([127, 0, 0, 1]) && !reaches([127, 0, 0, 2]));
    // Under another name it is the same.
    listening_at(folder.path(), &format!("site: {{ address: '127.0.0.1:{port}' }}"), &origin.url());
    weir.signal("HUP");
    weir.line("in force");
    thread::sleep(Duration::from_millis(200));
    stop.store(true, Relaxed);
    let counts: Vec<u32> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    assert!(counts.iter().all(|count| *count > 50), "{counts:?}");
    // To an address that shares nothing with it.
    listening_at(folder.path(), &format!("site: {{ address: '127.0.0.2:{port}' }}"), &origin.url());
    weir.signal("HUP");
    weir.line("in force");
    eventually("it has moved", || reaches([127, 0, 0, 2]) && !reaches([127, 0, 0, 1]));
    weir.signal("TERM");
    assert_eq!(weir.end(), Some(0));
}

#[test]
fn a_listener_does_not_move_to_where_another_process_listens() {
    let folder = tempfile::tempdir().unwrap();
    let [one, other] = [folder.path().join("one"), folder.path().join("other")];
    [&one, &other].iter().for_each(|it| std::fs::create_dir(it).unwrap());
    let origin = Simulator::start(Options::default()).unwrap();
    listening_at(&one, "web: { address: '127.0.0.1:0' }", &origin.url());
    let (weir, address) = start(&one);
    let port = address.parse::<SocketAddr>().unwrap().port();
    // It shares its port too, so the kernel would let both in.
    listening_at(&other, &format!("web: {{ address: '127.0.0.2:{port}' }}"), &origin.url());
    let (_another, _) = start(&other);
    listening_at(&one, &format!("web: {{ address: '0.0.0.0:{port}' }}"), &origin.url());
    weir.signal("HUP");
    weir.line("cannot listen on");
    assert!(get(&address, "/echo", "").starts_with("HTTP/1.1 200"));
}
