//! A gateway that the kernel gives 64 MiB and no more, with all that it keeps of it: connections of HTTP/1, streams of
//! HTTP/2, TLS. Whoever takes more is killed.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use testkit::{Folder, Raw, eventually};

use super::frames::{Http2, Outcome};
use crate::weir::Running;

const LIMIT: usize = 64 << 20;
const CONNECTIONS: usize = 5000;
/// One of TLS takes about four times as much as one in clear.
const SECURE: usize = 2000;

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

struct Bounded {
    // Ends before its cgroup.
    weir: Running,
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
        folder.write(
            "weir.yaml",
            "version: 1\nadmin: { address: none }\nlisteners:\n  web: { address: '127.0.0.1:0' }\n  tls: { address: '127.0.0.1:0', tls: { \
             certificates: [{ cert: file:web.crt, key: file:web.key }] } }\napis: { a: { routes: [{ respond: { body: ok } }] } }\n",
        );
        let script = format!("echo $$ > {} && exec \"$@\"", cgroup.processes().display());
        let weir = Running::start_under(folder.base(), &["sh", "-c", &script, "sh"], &["run"], &[]);
        let address = |name: &str| -> SocketAddr {
            let line = weir.line(&format!("listener={name}"));
            line.split_whitespace().find_map(|word| word.strip_prefix("address=")).unwrap().parse().unwrap()
        };
        let (web, tls) = (address("web"), address("tls"));
        Some(Bounded { weir, web, tls, folder, cgroup })
    }

    #[track_caller]
    fn lives(&self, doing: &str) {
        assert_eq!(self.cgroup.kills(), 0, "{doing}: killed for want of memory");
        assert_eq!(Raw::connect(self.web).get("/", "").status, 200, "{doing}");
        let peak =
            self.cgroup.peak().map_or_else(String::new, |peak| format!(", {} KiB of the cgroup at most", peak / 1024));
        println!("{doing}: {} KiB of its own{peak}", self.weir.memory() / 1024);
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
fn a_cgroup_of_64_mib_holds_two_thousand_connections_of_tls() {
    let Some(bounded) = Bounded::start("tls") else { return };
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(bounded.folder.path("ca.crt")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
    let name = ServerName::try_from("web.test").unwrap();
    let mut clients = Vec::new();
    for _ in 0..SECURE {
        let stream = TcpStream::connect(bounded.tls).unwrap();
        stream.set_read_timeout(Some(testkit::PATIENCE)).unwrap();
        let mut stream = StreamOwned::new(ClientConnection::new(config.clone(), name.clone()).unwrap(), stream);
        stream.write_all(b"GET / HTTP/1.1\r\nhost: web.test\r\n\r\n").unwrap();
        let mut head = [0; 15];
        stream.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"HTTP/1.1 200 OK");
        clients.push(stream);
    }
    bounded.lives("2,000 connections of TLS");
    drop(clients);
    eventually("all have gone, and it serves on", || Raw::connect(bounded.web).get("/", "").status == 200);
}
