//! The disk of the cache through the front door, over the end of processes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use testkit::{Answer, Raw, eventually};

use crate::cache::{Asked, Origin, check, say};
use crate::weir::{Running, get, weir};

/// A process with a cache on a disk, and what it says of that.
struct Node {
    process: Running,
    web: SocketAddr,
    metrics: String,
    admin: String,
}

impl Node {
    fn start(folder: &Path) -> Node {
        let process = Running::start(folder, &["run"]);
        let (mut web, mut metrics, mut admin, mut has_disk) = (None, None, None, false);
        let word =
            |line: &str| line.split_whitespace().find_map(|word| word.strip_prefix("address=")).map(str::to_owned);
        // In whichever order they come.
        while web.is_none() || metrics.is_none() || admin.is_none() || !has_disk {
            let line = process.line("");
            if line.contains("listener=web") {
                web = word(&line);
            } else if line.contains("metrics at") {
                metrics = word(&line);
            } else if line.contains("admin API") {
                admin = word(&line);
            }
            has_disk |= line.contains("the cache has its disk");
        }
        Node { process, web: web.unwrap().parse().unwrap(), metrics: metrics.unwrap(), admin: admin.unwrap() }
    }

    /// By a signal that it does not hear.
    fn kill(self) {
        self.process.signal("KILL");
        self.process.end();
    }

    fn get(&self, path: &str, fields: &str) -> Answer {
        Raw::connect(self.web).get(path, fields)
    }

    fn figure(&self, name: &str) -> u64 {
        let page = get(&self.metrics, "/metrics", "");
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned));
        line.unwrap_or_else(|| panic!("no {name} in\n{page}")).parse().unwrap()
    }

    fn resources(&self) -> Value {
        let socket = self.admin.strip_prefix("unix:").unwrap();
        let curl = Command::new("curl").args(["-s", "--unix-socket", socket, "http://localhost/v1/resources"]).output();
        serde_json::from_slice(&curl.unwrap().stdout).unwrap()
    }

    fn written(&self, answers: u64) {
        eventually("it is on the disk", || self.figure("weir_cache_disk_writes_total") >= answers);
    }
}

/// By the path: how long it is, how long it may be used.
fn answer(asked: &Asked, out: &mut std::net::TcpStream) {
    let line = &asked.line;
    let has = |part: &str| line.contains(part);
    if has("/broken") && asked.number > 20 {
        let _ = std::io::Write::write_all(out, b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n");
        return;
    }
    if has("/stale") && asked.field("if-none-match").is_some() {
        let _ = std::io::Write::write_all(
            out,
            b"HTTP/1.1 304 Not Modified\r\ncache-control: max-age=600\r\nx-told: anew\r\n\r\n",
        );
        return;
    }
    let control = match line {
        _ if has("/stale") => "max-age=0",
        _ if has("/while") => "max-age=0, stale-while-revalidate=600",
        _ if has("/broken") => "max-age=0, stale-if-error=600",
        _ => "max-age=600",
    };
    let vary = if has("/vary") { "vary: accept-language\r\n" } else { "" };
    let fields = format!("cache-control: {control}\r\netag: \"e\"\r\ncache-tag: {}\r\n{vary}", &line[5..6]);
    let text = format!("{} {}", asked.number, asked.field("accept-language").unwrap_or_default());
    let text = if has("large") { text.repeat(1 + 700_000 / text.len()) } else { text };
    say(out, &fields, &text);
}

fn write(folder: &Path, origin: &Origin) {
    // The hashes are those of `alice` and `bob`.
    let text = format!(
        "version: 1\nnode: {{ workers: 2, data: d, cache: {{ disk: {{ size: 32MiB }} }} }}\n\
         listeners: {{ web: {{ address: '127.0.0.1:0' }} }}\ntelemetry: {{ metrics: '127.0.0.1:0' }}\n\
         apis:\n  a:\n    upstream: 'http://{}'\n    policies: {{ cache: {{}} }}\n    routes:\n\
         \x20     - match: {{ prefix: /own }}\n        policies: {{ cache: {{}}, authenticate: {{ api-key: {{}} }} }}\n\
         \x20     - match: {{ prefix: / }}\n\
         consumers:\n\
         \x20 alice: {{ keys: [{{ id: a, hash: 'sha256:2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90' }}] }}\n\
         \x20 bob: {{ keys: [{{ id: b, hash: 'sha256:81b637d8fcd2c6da6359e6963113a1170de795e4b725b84d1e0b4cfd9ec58ce9' }}] }}\n",
        origin.address
    );
    std::fs::write(folder.join("weir.yaml"), text).unwrap();
}

#[test]
fn a_killed_process_leaves_its_answers_to_the_next() {
    let origin = Origin::start(answer);
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &origin);
    let node = Node::start(folder.path());
    let small = node.get("/small", "").text();
    let large = node.get("/large", "");
    let own = node.get("/own", "x-api-key: alice\r\n").text();
    let german = node.get("/vary", "accept-language: de\r\n").text();
    let english = node.get("/vary", "accept-language: en\r\n").text();
    for path in ["/stale", "/stale-large", "/while", "/broken"] {
        node.get(path, "");
    }
    check(&node.get("/small", ""), &small, "hit; ttl=");
    assert_eq!(node.get("/small", "").header("cache-status").unwrap().matches("disk").count(), 0, "it is in memory");
    let asked = origin.requests();
    node.written(9);
    node.kill();

    let node = Node::start(folder.path());
    let only = "cache-control: only-if-cached\r\n";
    check(&node.get("/small", only), &small, "detail=disk");
    check(&node.get("/small", ""), &small, "hit; ttl=");
    assert!(!node.get("/small", "").header("cache-status").unwrap().contains("disk"), "it is in memory again");
    assert_eq!(node.get("/nothing", only).status, 504);
    for _ in 0..2 {
        let again = node.get("/large", "");
        check(&again, &large.text(), "hit; ttl=");
        assert!(again.header("cache-status").unwrap().ends_with("detail=disk"), "{:?}", again.headers);
        assert_eq!(again.header("content-length"), Some(&*large.body.len().to_string()));
    }
    let part = node.get("/large", "range: bytes=131000-400000\r\n");
    assert_eq!((part.status, part.body == large.body[131_000..=400_000]), (206, true));
    assert_eq!(node.get("/large", "if-none-match: \"e\"\r\n").status, 304);
    let head = Raw::connect(node.web).send("HEAD /large HTTP/1.1\r\nhost: test\r\n\r\n").answer_to_head();
    assert_eq!(head.header("content-length"), Some(&*large.body.len().to_string()));
    check(&node.get("/vary", "accept-language: en\r\n"), &english, "detail=disk");
    check(&node.get("/vary", "accept-language: de\r\n"), &german, "detail=disk");
    check(&node.get("/own", "x-api-key: alice\r\n"), &own, "detail=disk");
    assert_eq!(origin.requests(), asked, "nobody asked the upstream");
    assert!(node.get("/own", "x-api-key: bob\r\n").text() != own, "what is hers is not his");
    check(&node.get("/vary", ""), &format!("{} ", asked + 1), "fwd=vary-miss");

    // What must be asked about first, what is given meanwhile, what stands in.
    for path in ["/stale", "/stale-large"] {
        let told = node.get(path, "");
        let status = told.header("cache-status").unwrap();
        assert!(status.contains("fwd=stale; fwd-status=304"), "{status}");
        assert_eq!(told.header("x-told"), Some("anew"));
        assert!(node.get(path, "").header("cache-status").unwrap().contains("hit; ttl="));
    }
    assert!(node.get("/while", "").header("cache-status").unwrap().contains("hit; ttl="));
    while origin.requests() <= 20 {
        node.get(&format!("/more/{}", origin.requests()), "");
    }
    let instead = node.get("/broken", "");
    assert!(instead.header("cache-status").unwrap().contains("detail=stale-if-error"), "{instead:?}");
    assert!(node.figure("weir_cache_disk_hits_total") >= 8);
    let kinds = ["weir_cache_disk_errors_total{kind=\"failed\"}", "weir_cache_disk_errors_total{kind=\"corrupt\"}"];
    assert_eq!(kinds.map(|kind| node.figure(kind)), [0, 0]);
    // Of another consumer, of no language, both that were told anew.
    node.written(4);
    node.kill();

    // The large one was told anew: its head was written again, its body was not.
    let node = Node::start(folder.path());
    let told = node.get("/stale-large", "");
    assert_eq!((told.header("x-told"), told.body.len() > 700_000), (Some("anew"), true));
    assert!(told.header("cache-status").unwrap().ends_with("detail=disk"));
}

#[test]
fn what_was_purged_or_changed_does_not_come_back_with_a_restart() {
    let origin = Origin::start(answer);
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &origin);
    let paths = ["/a/tag", "/url", "/prefix/x", "/changed", "/stays"];
    let node = Node::start(folder.path());
    let first = paths.map(|path| node.get(path, "").text());
    node.written(5);
    node.kill();
    // None of them is in memory.
    let node = Node::start(folder.path());
    for what in [["--tag", "a"], ["--url", "http://test/url"], ["--prefix", "http://test/prefix/"]] {
        let said = weir(folder.path(), &["purge", what[0], what[1]]);
        assert_eq!(said.code, Some(0), "{}", said.err);
        assert_eq!(said.out, "1 answer forgotten: 0 in memory, 1 on the disk\n");
    }
    let post = "POST /changed HTTP/1.1\r\nhost: test\r\ncontent-length: 1\r\n\r\nx";
    assert_eq!(Raw::connect(node.web).send(post).answer().status, 200);
    // What is forgotten by a call is written in turn: when this is, that is.
    node.get("/last", "");
    node.written(1);
    node.kill();
    let node = Node::start(folder.path());
    let now = paths.map(|path| (node.get(path, ""), path));
    for ((answer, path), before) in now.iter().zip(&first) {
        let is_old = answer.text() == *before;
        assert_eq!(is_old, *path == "/stays", "{path}: {answer:?}");
    }
    assert_eq!(node.figure("weir_cache_disk_up"), 1);
    node.written(4);
    let said = weir(folder.path(), &["purge", "--all", "--api", "a"]);
    assert_eq!(said.out, "6 answers forgotten: 5 in memory, 6 on the disk\n", "each once");
}

#[test]
fn whose_answers_take_how_much_is_told_over_a_restart() {
    const API: &str = "weir_cache_disk_share_bytes{kind=\"api\",api=\"a\"}";
    const ALICE: &str = "weir_cache_disk_share_bytes{kind=\"consumer\",consumer=\"alice\"}";
    const MEMORY: &str = "weir_cache_share_bytes{kind=\"consumer\",consumer=\"alice\"}";
    let origin = Origin::start(answer);
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &origin);
    let node = Node::start(folder.path());
    node.get("/large", "");
    node.get("/own/large", "x-api-key: alice\r\n");
    node.written(2);
    let told = [API, ALICE].map(|name| node.figure(name));
    assert!(told[1] > 700_000 && told[0] > 2 * 700_000, "{told:?}");
    assert!(told[0] < node.figure("weir_cache_disk_bytes"));
    assert!(node.figure(MEMORY) > 700_000);
    node.kill();

    let node = Node::start(folder.path());
    assert_eq!([API, ALICE].map(|name| node.figure(name)), told);
    assert_eq!(node.figure(MEMORY), 0, "it is on the disk alone");
    let resources = node.resources();
    let cache = &resources["cache"];
    assert_eq!(cache["apis"], json!([{ "name": "a", "memory_bytes": 0, "disk_bytes": told[0] }]));
    assert_eq!(cache["consumers"], json!([{ "name": "alice", "memory_bytes": 0, "disk_bytes": told[1] }]));
    assert_eq!(cache["disk_bytes"], json!(node.figure("weir_cache_disk_bytes")));
    assert_eq!(weir(folder.path(), &["purge", "--url", "http://test/own/large"]).code, Some(0));
    assert_eq!(node.resources()["cache"]["consumers"], json!([]));
    assert_eq!(node.figure(API), told[0] - told[1]);
}

/// A file system of 4 MiB, gone when dropped; `None` where one may not mount.
struct Small(PathBuf);

impl Small {
    fn mount(at: PathBuf) -> Option<Small> {
        std::fs::create_dir(&at).unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(&at).output();
        mount.is_ok_and(|it| it.status.success()).then_some(Small(at))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_disk_that_fills_up_costs_no_call_and_nothing_of_it_comes_back() {
    let origin = Origin::start(answer);
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &origin);
    let Some(small) = Small::mount(folder.path().join("d")) else {
        eprintln!("skipped: mounting a small file system is not allowed here");
        return;
    };
    // Somebody else has most of it.
    let other = small.0.join("other");
    std::fs::write(&other, vec![1; 3 << 20]).unwrap();
    let node = Node::start(folder.path());
    let given: Vec<String> = (0..8).map(|number| node.get(&format!("/large/{number}"), "").text()).collect();
    node.process.line("the cache goes on without its disk");
    eventually("it is done without", || node.figure("weir_cache_disk_up") == 0);
    assert!(node.figure("weir_cache_disk_errors_total{kind=\"failed\"}") >= 1);
    for (number, text) in given.iter().enumerate() {
        check(&node.get(&format!("/large/{number}"), ""), text, "hit; ttl=");
    }
    let said = weir(folder.path(), &["purge", "--url", "http://test/large/7"]);
    assert_eq!(said.out, "1 answer forgotten: 1 in memory, 0 on the disk\n");
    assert_eq!(node.figure("weir_cache_disk_bytes"), 0);

    // There is room again, and less is to be used of it, which is a reason to try at once.
    std::fs::remove_file(&other).unwrap();
    let document = folder.path().join("weir.yaml");
    let text = std::fs::read_to_string(&document).unwrap().replace("32MiB", "3MiB");
    std::fs::write(&document, text).unwrap();
    node.process.signal("HUP");
    node.process.line("the cache has its disk");
    let before = node.figure("weir_cache_disk_writes_total");
    let later = node.get("/large/later", "").text();
    node.written(before + 1);
    node.kill();
    let node = Node::start(folder.path());
    let only = "cache-control: only-if-cached\r\n";
    check(&node.get("/large/later", only), &later, "detail=disk");
    for number in 0..8 {
        assert_eq!(node.get(&format!("/large/{number}"), only).status, 504, "{number} was not written since");
    }
    assert_eq!(node.figure("weir_cache_disk_errors_total{kind=\"corrupt\"}"), 0);
}
