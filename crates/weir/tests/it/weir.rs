//! The binary as a person starts it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

/// What it said and how it ended.
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// Runs it in a folder until it ends by itself.
pub fn weir(folder: &Path, args: &[&str]) -> Said {
    weir_with_input(folder, args, "")
}

pub fn weir_with_input(folder: &Path, args: &[&str], input: &str) -> Said {
    ended(command(folder, args), input)
}

pub fn weir_with(folder: &Path, args: &[&str], variables: &[(&str, &str)]) -> Said {
    let mut command = command(folder, args);
    command.envs(variables.iter().copied());
    ended(command, "")
}

fn ended(mut command: Command, input: &str) -> Said {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: status.code(), out: text(stdout), err: text(stderr) }
}

/// One that keeps running; killed when dropped.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    pub fn start(folder: &Path, args: &[&str]) -> Running {
        Running::start_with(folder, args, &[])
    }

    pub fn start_with(folder: &Path, args: &[&str], variables: &[(&str, &Path)]) -> Running {
        let mut command = command(folder, args);
        command.envs(variables.iter().copied());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        Running::listen(child, Some(stdout))
    }

    /// By a command that changes what the process may have, such as `prlimit`.
    pub fn start_under(folder: &Path, wrapper: &[&str], args: &[&str], variables: &[(&str, &str)]) -> Running {
        let all: Vec<&str> =
            wrapper.iter().copied().chain([env!("CARGO_BIN_EXE_weir")]).chain(args.iter().copied()).collect();
        let mut command = bare(folder, all[0], &all[1..]);
        command.envs(variables.iter().copied());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        Running::listen(child, Some(stdout))
    }

    /// Memory of its own that is resident now: what a process is billed for, and killed for.
    #[track_caller]
    pub fn memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("the process lives");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }

    /// With a standard output that fills up.
    pub fn start_unread(folder: &Path, args: &[&str]) -> (Running, ChildStdout) {
        let mut child =
            command(folder, args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        (Running::listen(child, None), stdout)
    }

    fn listen(mut child: Child, stdout: Option<ChildStdout>) -> Running {
        let (sender, lines) = mpsc::channel();
        let mut outputs: Vec<Box<dyn Read + Send>> = vec![Box::new(child.stderr.take().unwrap())];
        if let Some(stdout) = stdout {
            outputs.push(Box::new(stdout));
        }
        for output in outputs {
            let sender = sender.clone();
            thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    let _ = sender.send(line);
                }
            });
        }
        Running { child, lines }
    }

    /// The next line that contains this.
    #[track_caller]
    pub fn line(&self, part: &str) -> String {
        let end = Instant::now() + Duration::from_secs(20);
        let mut before = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            if line.contains(part) {
                return line;
            }
            before.push(line);
        }
        panic!("no line with `{part}` in\n{}", before.join("\n"));
    }

    pub fn signal(&self, name: &str) {
        assert!(signal(self.id(), name));
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn end(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// True if there was such a process.
pub fn signal(process: u32, name: &str) -> bool {
    let mut kill = Command::new("kill");
    kill.arg(format!("-{name}")).arg(process.to_string()).stderr(Stdio::null()).status().unwrap().success()
}

/// The whole answer to a GET on a connection of its own.
pub fn get(address: &str, path: &str, fields: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{fields}\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

fn command(folder: &Path, args: &[&str]) -> Command {
    bare(folder, env!("CARGO_BIN_EXE_weir"), args)
}

fn bare(folder: &Path, program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).args(args);
    for name in ["WEIR_LOG", "WEIR_ADMIN", "WEIR_ADMIN_TOKEN", "RUNTIME_DIRECTORY"] {
        command.env_remove(name);
    }
    // Admin sockets stay in the test's own folder.
    command.env("XDG_RUNTIME_DIR", folder);
    command
}
