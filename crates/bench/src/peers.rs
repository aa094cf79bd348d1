//! The proxies: how each is started, where it listens, what it says of its version. And the stopping of all of it.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use crate::procs::{family, signal};

pub const OUT: &str = "bench/out";
pub const BACKEND_PORT: u16 = 19000;

/// Every process we started and have not yet stopped.
static RUNNING: Mutex<Vec<u32>> = Mutex::new(Vec::new());

fn running() -> MutexGuard<'static, Vec<u32>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// For an end that comes from outside.
pub fn stop_everything() {
    for pid in running().drain(..) {
        for pid in family(pid).into_iter().rev() {
            signal(pid, Signal::TERM);
        }
    }
}

/// Waits for a tool's end; one that is cut short takes the tool with it.
pub fn finish(child: Child) -> Result<Output> {
    let pid = child.id();
    running().push(pid);
    let output = child.wait_with_output();
    running().retain(|running| *running != pid);
    Ok(output?)
}

/// A process of ours that stops when dropped.
pub struct Process {
    child: Child,
}

impl Process {
    /// Pinned before it runs; what it prints goes to `bench/out/NAME.log`.
    pub fn start(name: &str, cores: &str, command: &[String]) -> Result<Self> {
        let log = File::create(Path::new(OUT).join(format!("{name}.log")))?;
        let child = Command::new("taskset")
            .args(["-c", cores])
            .args(command)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("taskset {command:?}"))?;
        running().push(child.id());
        Ok(Self { child })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn wait_for(&mut self, port: u16) -> Result<()> {
        // Python imports for as long as that.
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("ended with {status} before it listened on {port}; see {OUT}");
            }
            ensure!(Instant::now() < deadline, "nothing listens on {port}; see {OUT}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let pid = self.child.id();
        let family = family(pid);
        signal(pid, Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(3);
        while !matches!(self.child.try_wait(), Ok(Some(_))) {
            if Instant::now() > deadline {
                for pid in family {
                    signal(pid, Signal::KILL);
                }
                let _ = self.child.wait();
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        running().retain(|running| *running != pid);
    }
}

/// One proxy in one configuration.
#[derive(Clone, Debug)]
pub struct Peer {
    pub name: &'static str,
    /// For HTTP/1.1, HTTP/2 with prior knowledge, and event streams.
    pub port: u16,
    pub h2: u16,
    pub streams: u16,
    pub headers: &'static [&'static str],
    pub command: Vec<String>,
    /// What tells its version.
    pub version: Vec<String>,
}

/// What the kernel alone costs: it has no HTTP/2, and is no rival.
pub fn floor() -> Result<Peer> {
    let program = bench()?.display().to_string();
    Ok(Peer {
        name: "floor",
        port: 19070,
        h2: 0,
        streams: 19070,
        headers: &[],
        command: words(&[&program, "floor", "--port", "19070", "--to", &BACKEND_PORT.to_string()]),
        version: words(&["echo", "copies bytes between sockets and looks at none"]),
    })
}

pub fn nginx(configuration: &str) -> Result<Peer> {
    let prefix = format!("{OUT}/nginx");
    fs::create_dir_all(&prefix)?;
    let path = ["/usr/sbin/nginx", "nginx"].into_iter().find(|path| Path::new(path).exists()).unwrap_or("nginx");
    let file = format!("../../peers/{configuration}");
    Ok(Peer {
        name: "nginx",
        port: 19010,
        h2: 19011,
        streams: 19010,
        headers: &[],
        command: words(&[path, "-p", &prefix, "-c", &file]),
        version: words(&[path, "-v"]),
    })
}

pub fn haproxy(configuration: &str) -> Peer {
    let path = ["/usr/sbin/haproxy", "haproxy"].into_iter().find(|path| Path::new(path).exists()).unwrap_or("haproxy");
    Peer {
        name: "haproxy",
        port: 19020,
        h2: 19021,
        streams: 19022,
        headers: &[],
        command: words(&[path, "-db", "-f", &format!("bench/peers/{configuration}")]),
        version: words(&[path, "-v"]),
    }
}

/// Only where `bench/setup.sh` could install it.
pub fn envoy(configuration: &str, workers: &str) -> Option<Peer> {
    let path = "bench/.venv/bin/envoy";
    let file = format!("bench/peers/{configuration}");
    let options = ["-c", &file, "--concurrency", workers, "--disable-hot-restart", "--log-level", "warn"];
    Path::new(path).exists().then(|| Peer {
        name: "envoy",
        port: 19030,
        h2: 19031,
        streams: 19030,
        headers: &[],
        command: words(&[&[path], &options[..]].concat()),
        version: words(&[path, "--version"]),
    })
}

/// One that counts, as it does unless it is told not to. It has no HTTP/2.
pub fn envoy_with_statistics() -> Option<Peer> {
    let envoy = envoy("envoy-stats.yaml", "1")?;
    Some(Peer { name: "envoy-stats", port: 19080, h2: 0, streams: 19080, ..envoy })
}

/// Only where `bench/setup-llm.sh` could install it.
pub fn litellm() -> Option<Peer> {
    let place = "target/bench-llm/venv/bin";
    let program = format!("{place}/litellm");
    // As quiet as it can be, and without asking anybody for prices.
    let quiet =
        ["LITELLM_LOG=ERROR", "LITELLM_MODE=PRODUCTION", "LITELLM_LOCAL_MODEL_COST_MAP=True", "DISABLE_ADMIN_UI=True"];
    let options = ["--host", "127.0.0.1", "--port", "19050", "--num_workers", "1"];
    let command = [&["env"], &quiet[..], &[&program, "--config", "bench/peers/litellm.yaml"], &options[..]].concat();
    let ask = "import importlib.metadata as m; print('LiteLLM', m.version('litellm'))";
    Path::new(&program).exists().then(|| Peer {
        name: "litellm",
        port: 19050,
        h2: 0,
        streams: 19050,
        headers: &[],
        command: words(&command),
        version: words(&[&format!("{place}/python3"), "-c", ask]),
    })
}

/// Only where `bench/setup-llm.sh` could install it.
pub fn portkey() -> Option<Peer> {
    let package = "target/bench-llm/node/node_modules/@portkey-ai/gateway";
    let program = format!("{package}/build/start-server.js");
    let environment = ["env", "TRUSTED_CUSTOM_HOSTS=127.0.0.1", "NODE_ENV=production"];
    let options = ["node", "-r", "./bench/peers/portkey.cjs", &program, "--port=19060", "--headless"];
    let ask = format!("'Portkey ' + require('./{package}/package.json').version + ', Node ' + process.version");
    Path::new(&program).exists().then(|| Peer {
        name: "portkey",
        port: 19060,
        h2: 0,
        streams: 19060,
        headers: &[],
        command: words(&[&environment[..], &options[..]].concat()),
        version: words(&["node", "-p", &ask]),
    })
}

pub fn weir(binary: &Path, name: &'static str, document: &str, headers: &'static [&'static str]) -> Peer {
    let binary = binary.display().to_string();
    let command = words(&[&binary, "run", document]);
    let version = words(&[&binary, "--version"]);
    Peer { name, port: 19040, h2: 19040, streams: 19040, headers, command, version }
}

pub fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

impl Peer {
    pub fn start(&self, cores: &str) -> Result<Process> {
        ensure!(
            TcpStream::connect(("127.0.0.1", self.port)).is_err(),
            "something listens on port {} already: {} cannot",
            self.port,
            self.name
        );
        let mut process = Process::start(self.name, cores, &self.command)?;
        process.wait_for(self.port).with_context(|| self.name)?;
        Ok(process)
    }

    pub fn version(&self) -> String {
        let output = Command::new(&self.version[0]).args(&self.version[1..]).output();
        let text = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("unknown").trim();
        // Envoy's line begins with the path of its binary.
        line.rsplit_once(" version: ").map_or(line, |(_, version)| version).to_owned()
    }
}

/// Ourselves, as a load tool.
pub fn bench() -> Result<PathBuf> {
    Ok(std::env::current_exe()?)
}
