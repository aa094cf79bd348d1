//! A gateway in a process of its own, for what is measured of a process or bounded for one.

use std::net::SocketAddr;

use tempfile::TempDir;
use testkit::Raw;

use crate::weir::Running;

pub struct Process {
    pub weir: Running,
    pub folder: TempDir,
    pub web: SocketAddr,
    pub metrics: SocketAddr,
}

impl Process {
    /// On a document without its `version`, `telemetry` and `listeners`; `listener` follows the address of the only one.
    pub fn start(listener: &str, yaml: &str) -> Process {
        Process::start_under(&[], listener, "", yaml, &[])
    }

    pub fn start_under(
        wrapper: &[&str],
        listener: &str,
        telemetry: &str,
        yaml: &str,
        variables: &[(&str, &str)],
    ) -> Process {
        let folder = tempfile::tempdir().unwrap();
        let document = format!(
            "version: 1\nlisteners: {{ web: {{ address: '127.0.0.1:0'{listener} }} }}\n\
             telemetry: {{ metrics: '127.0.0.1:0'{telemetry} }}\n{yaml}\n"
        );
        std::fs::write(folder.path().join("weir.yaml"), document).unwrap();
        let weir = Running::start_under(folder.path(), wrapper, &["run"], variables);
        let address = |part: &str| {
            let line = weir.line(part);
            let at = line.split_once("address=").unwrap().1;
            at.split_whitespace().next().unwrap().parse().unwrap()
        };
        let web = address("listener=web");
        let metrics = address("metrics");
        Process { weir, folder, web, metrics }
    }

    /// A metric, by its name and its labels.
    #[track_caller]
    pub fn metric(&self, name: &str) -> f64 {
        let answer = Raw::connect(self.metrics).send("GET /metrics HTTP/1.1\r\nhost: t\r\n\r\n").answer();
        let text = answer.text();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or_else(|| panic!("no {name} in {text}"))
    }

    /// Someone who does no harm is served.
    #[track_caller]
    pub fn serves(&self, path: &str) {
        let answer = Raw::connect(self.web).get(path, "");
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}
