//! A gateway that the kernel gives 64 MiB and no more, with all that it keeps of it: connections of HTTP/1, streams of
//! HTTP/2, TLS, and readers that are slow. Whoever takes more is killed.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use testkit::{Folder, Raw, eventually};

use super::frames::{Http2, Outcome};
use crate::weir::Running;

const LIMIT: usize = 64 << 20;
const CONNECTIONS: usize = 5000;
/// Of those, and of streams of HTTP/2, so many have a large answer that waits for them.
const SLOW: usize = 200;
/// The same over TLS, each of which takes more.
const SLOW_TLS: usize = 64;
/// More than the kernel takes for one that reads nothing.
const LARGE: usize = 8 << 20;
const QUICK: usize = 1 << 20;

/// Gone when dropped, once nobody is in it.
struct Cgroup {
    folder: PathBuf,
    version: u8,
}

impl Cgroup {
    /// `None` where there is none to be had: not root, or no controller of memory.
    fn new(name: &str, limit: usize) -> Option<Cgroup> {
        let name = format!("weir-test-{}-{name}", std::process::id());
        let root = Path::new("/sys/fs/cgroup");
        let (version, folder, file) = match root.join("cgroup.controllers").exists() {
            true => (2, root.join(name), "memory.max"),
            false => (1, root.join("memory").join(name), "memory.limit_in_bytes"),
        };
        fs::create_dir(&folder).ok()?;
        let cgroup = Cgroup { folder, version };
        fs::write(cgroup.folder.join(file), limit.to_string()).ok()?;
        // What would go to swap is to count too, where there is swap.
        let _ = fs::write(cgroup.folder.join("memory.swap.max"), "0");
        let _ = fs::write(cgroup.folder.join("memory.memsw.limit_in_bytes"), limit.to_string());
        Some(cgroup)
    }

    fn processes(&self) -> PathBuf {
        self.folder.join("cgroup.procs")
    }

    fn number(&self, file: &str) -> usize {
        fs::read_to_string(self.folder.join(file)).unwrap().trim().parse().unwrap()
    }

    /// Bytes that it has taken at most.
    fn peak(&self) -> Option<usize> {
        match self.version {
            1 => Some(self.number("memory.max_usage_in_bytes")),
            // Younger than the rest.
            _ => self.folder.join("memory.peak").exists().then(|| self.number("memory.peak")),
        }
    }

    /// How often somebody was killed for want of memory.
    fn kills(&self) -> usize {
        let file = if self.version == 1 { "memory.oom_control" } else { "memory.events" };
        let text = fs::read_to_string(self.folder.join(file)).unwrap();
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")).map_or(0, |kills| kills.parse().unwrap())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The kernel takes a moment to see that it is empty.
        for _ in 0..100 {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Answers `/large?N` with that many bytes.
struct Large {
    address: SocketAddr,
    /// Answers that have been written to their end.
    written: Arc<AtomicUsize>,
}

impl Large {
    fn start() -> Large {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, written) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
        let counted = written.clone();
        // It ends with the process of the tests.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let written = counted.clone();
                std::thread::Builder::new()
                    .stack_size(128 << 10)
                    .spawn(move || Large::serve(stream, &written))
                    .unwrap();
            }
        });
        Large { address, written }
    }

    fn serve(mut stream: TcpStream, written: &AtomicUsize) {
        // What the kernel takes is not what the gateway takes.
        rustix::net::sockopt::set_socket_send_buffer_size(&stream, 128 << 10).unwrap();
        let mut head = [0; 4096];
        while let Ok(read @ 1..) = stream.read(&mut head) {
            let head = String::from_utf8_lossy(&head[..read]);
            let bytes: usize = head.split(['?', ' ']).nth(2).unwrap().parse().unwrap();
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n");
            if stream.write_all(answer.as_bytes()).and_then(|()| stream.write_all(&large()[..bytes])).is_err() {
                return;
            }
            written.fetch_add(1, SeqCst);
        }
    }
}

fn large() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| (0..LARGE).map(|at| (at % 251) as u8).collect())
}

struct Bounded {
    // Ends before its cgroup.
    weir: Running,
    large: Large,
    web: SocketAddr,
    tls: SocketAddr,
    folder: Folder,
    cgroup: Cgroup,
}

impl Bounded {
    /// In a cgroup of this name.
    fn start(name: &str) -> Option<Bounded> {
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let raised = rustix::process::Rlimit { current: files.maximum, maximum: files.maximum };
        rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
        let Some(cgroup) = Cgroup::new(name, LIMIT) else {
            println!("skipped: no cgroup with a limit of memory can be made here, which takes root");
            return None;
        };
        let folder = Folder::new();
        folder.authority("ca").issue("web", &["web.test"]);
        let large = Large::start();
        let upstream = large.address;
        folder.write(
            "weir.yaml",
            format!(
                "version: 1\nadmin: {{ address: none }}\nlisteners:\n  web: {{ address: '127.0.0.1:0' }}\n  tls: {{ address: \
                 '127.0.0.1:0', limits: {{ idle-timeout: 10m }}, tls: {{ certificates: [{{ cert: file:web.crt, key: file:web.key }}] }} }}\nupstreams: {{ large: \
                 {{ endpoints: [{{ url: 'http://{upstream}' }}] }} }}\napis: {{ a: {{ routes: [{{ match: {{ path: /large }}, \
                 upstream: large }}, {{ respond: {{ body: ok }} }}] }} }}\n"
            ),
        );
        let script = format!("echo $$ > {} && exec \"$@\"", cgroup.processes().display());
        let weir = Running::start_under(folder.base(), &["sh", "-c", &script, "sh"], &["run"], &[]);
        let address = |name: &str| -> SocketAddr {
            let line = weir.line(&format!("listener={name}"));
            line.split_whitespace().find_map(|word| word.strip_prefix("address=")).unwrap().parse().unwrap()
        };
        let (web, tls) = (address("web"), address("tls"));
        Some(Bounded { weir, large, web, tls, folder, cgroup })
    }

    #[track_caller]
    fn lives(&self, doing: &str) {
        assert_eq!(self.cgroup.kills(), 0, "{doing}: killed for want of memory");
        assert_eq!(Raw::connect(self.web).get("/", "").status, 200, "{doing}");
        let peak =
            self.cgroup.peak().map_or_else(String::new, |peak| format!(", {} KiB of the cgroup at most", peak / 1024));
        let own = self.weir.memory();
        println!("{doing}: {} KiB of its own{peak}", own / 1024);
        assert!(own < LIMIT, "{doing}: {own} bytes");
    }
}

#[test]
fn a_cgroup_of_64_mib_holds_five_thousand_connections_of_http_1() {
    let Some(bounded) = Bounded::start("h1") else { return };
    bounded.lives("alone");
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut raw = Raw::connect(bounded.web);
        assert_eq!(raw.get("/", "").status, 200);
        raw.send(format!("GET / HTTP/1.1\r\nhost: t\r\nx: {}", "y".repeat(1000)));
        clients.push(raw);
    }
    bounded.lives("5,000 connections of HTTP/1 in the middle of a head");
    for raw in &mut clients {
        raw.send("\r\n\r\n");
    }
    for raw in &mut clients {
        assert_eq!(raw.answer().status, 200);
    }
    bounded.lives("and answered");
}

#[test]
fn a_cgroup_of_64_mib_holds_five_thousand_streams_of_http_2() {
    let Some(bounded) = Bounded::start("h2") else { return };
    // A window of nothing: each answer waits with its body, as for one who reads slowly.
    let mut clients: Vec<Http2> = (0..CONNECTIONS / 100).map(|_| Http2::connect(bounded.web, &[(4, 0)])).collect();
    for http2 in &mut clients {
        for stream in 0..100 {
            http2.get(2 * stream + 1, "/").unwrap();
        }
    }
    bounded.lives("5,000 streams of HTTP/2 whose answers nobody takes");
    for http2 in &mut clients {
        http2.frame(super::frames::SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]).unwrap();
        let outcome = http2.outcome(199);
        assert_eq!(outcome, Outcome::Status(200));
    }
}

#[test]
fn a_cgroup_of_64_mib_holds_large_answers_for_which_http_2_has_no_window() {
    const BYTES: usize = 256 << 10;
    let Some(bounded) = Bounded::start("h2-large") else { return };
    let mut clients: Vec<Http2> = (0..SLOW / 100).map(|_| Http2::connect(bounded.web, &[(4, 0)])).collect();
    for http2 in &mut clients {
        for stream in 0..100 {
            http2.get(2 * stream + 1, &format!("/large?{BYTES}")).unwrap();
        }
        for _ in 0..100 {
            while http2.read().unwrap().kind != super::frames::HEADERS {}
        }
    }
    bounded.lives("200 streams of HTTP/2 for which a large answer waits");
    assert_eq!(bounded.large.written.load(SeqCst), 0, "they wait at the upstream");
    for http2 in &mut clients {
        http2.frame(super::frames::WINDOW_UPDATE, 0, 0, &0x7000_0000_u32.to_be_bytes()).unwrap();
        http2.frame(super::frames::SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]).unwrap();
        let (mut bytes, mut ended) = (0, 0);
        while ended < 100 {
            let frame = http2.read().unwrap();
            if frame.kind == super::frames::DATA {
                bytes += frame.payload.len();
                ended += usize::from(frame.flags & super::frames::END_STREAM != 0);
            }
        }
        assert_eq!(bytes, 100 * BYTES);
    }
    bounded.lives("and read");
}

#[test]
fn a_cgroup_of_64_mib_holds_five_thousand_connections_of_tls_and_slow_readers_among_them() {
    let Some(bounded) = Bounded::start("tls") else { return };
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(bounded.folder.path("ca.crt")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
    let name = ServerName::try_from("web.test").unwrap();
    let secure =
        |stream| BufReader::new(StreamOwned::new(ClientConnection::new(config.clone(), name.clone()).unwrap(), stream));
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(secure(narrow(bounded.tls)));
        let client = clients.last_mut().unwrap();
        assert_eq!(ask(client, "/"), 2);
        let mut body = [0; 2];
        client.read_exact(&mut body).unwrap();
        assert_eq!(&body, b"ok");
    }
    bounded.lives("5,000 connections of TLS");
    for client in &mut clients[..SLOW_TLS] {
        assert_eq!(ask(client, &format!("/large?{LARGE}")), LARGE);
    }
    bounded.lives("and some of them read slowly");
    assert_eq!(bounded.large.written.load(SeqCst), 0, "they wait at the upstream");
    let (expected, mut body) = (large(), vec![0; LARGE]);
    for client in &mut clients[..SLOW_TLS] {
        client.read_exact(&mut body[..64 << 10]).unwrap();
        assert!(body[..64 << 10] == expected[..64 << 10]);
    }
    bounded.lives("and have read a little");
    // Another one, who is quick, gets all of it meanwhile.
    let mut quick = secure(TcpStream::connect(bounded.tls).unwrap());
    assert_eq!(ask(&mut quick, &format!("/large?{QUICK}")), QUICK);
    quick.read_exact(&mut body[..QUICK]).unwrap();
    assert!(body[..QUICK] == expected[..QUICK]);
    for client in &mut clients[SLOW_TLS..] {
        assert_eq!(ask(client, "/"), 2);
    }
    bounded.lives("and all have been answered");
    drop(clients);
    eventually("all have gone, and it serves on", || Raw::connect(bounded.web).get("/", "").status == 200);
}

/// A connection on whose side little room is for what comes.
fn narrow(address: SocketAddr) -> TcpStream {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 16 << 10).unwrap();
    rustix::net::connect(&socket, &address).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(testkit::PATIENCE)).unwrap();
    stream
}

/// Asks, and reads the head of the answer: how long its body is.
fn ask(client: &mut BufReader<StreamOwned<ClientConnection, TcpStream>>, path: &str) -> usize {
    // In one piece, which waits for nothing.
    let request = format!("GET {path} HTTP/1.1\r\nhost: web.test\r\n\r\n");
    client.get_mut().write_all(request.as_bytes()).unwrap();
    let (mut length, mut line) = (None, String::new());
    client.read_line(&mut line).unwrap();
    assert_eq!(line, "HTTP/1.1 200 OK\r\n");
    while line != "\r\n" {
        line.clear();
        client.read_line(&mut line).unwrap();
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = Some(value.trim().parse().unwrap());
        }
    }
    length.unwrap()
}
