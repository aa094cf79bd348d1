//! A running gateway whose document changes under it.

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

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
