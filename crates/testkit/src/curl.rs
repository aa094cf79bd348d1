//! curl, as people use it.

use std::process::{Command, Stdio};

use crate::Answer;

/// How it ended, and the last answer it got.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub answer: Answer,
    /// `1.1` or `2`.
    pub version: String,
    /// What it tells of the connection.
    pub verbose: String,
}

/// Runs it until it ends, with these arguments.
#[track_caller]
pub fn curl<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Said {
    let folder = tempfile::tempdir().unwrap();
    let (head, body) = (folder.path().join("head"), folder.path().join("body"));
    let output = Command::new("curl")
        .args(["-sSv", "--max-time", "30", "-w", "%{http_version} %{http_code}"])
        .arg("-D")
        .arg(&head)
        .arg("-o")
        .arg(&body)
        .args(args)
        .env_remove("http_proxy")
        .env_remove("https_proxy")
        .stdin(Stdio::null())
        .output()
        .expect("curl is installed");
    let written = String::from_utf8_lossy(&output.stdout).into_owned();
    let (version, status) = written.split_once(' ').unwrap_or_default();
    let head = std::fs::read_to_string(&head).unwrap_or_default();
    // Trailers and the heads of interim answers stand in the same file.
    let mut headers = Vec::new();
    for line in head.lines() {
        if line.starts_with("HTTP/") {
            headers.clear();
        } else if let Some((name, value)) = line.split_once(':') {
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    Said {
        code: output.status.code().unwrap_or(-1),
        version: version.to_owned(),
        verbose: String::from_utf8_lossy(&output.stderr).into_owned(),
        answer: Answer {
            status: status.trim().parse().unwrap_or(0),
            headers,
            body: std::fs::read(&body).unwrap_or_default(),
            trailers: Vec::new(),
            complete: output.status.success(),
        },
    }
}
