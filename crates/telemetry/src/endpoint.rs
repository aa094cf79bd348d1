//! `/metrics`, `/healthz` and `/readyz` over HTTP/1: one request a connection, GET only.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener as TokioListener, TcpStream};
use tokio::task::JoinSet;

use crate::Shared;
use crate::metrics::render;

pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let listener = match TokioListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "cannot serve metrics"),
    };
    let mut connections = JoinSet::new();
    // Given up for one who asks how things are when there are no more descriptors.
    let mut spare = Vec::new();
    loop {
        while connections.len() >= CONNECTIONS {
            connections.join_next().await;
        }
        tokio::select! {
            accepted = accept(&listener, &mut spare) => match accepted {
                Ok((stream, _)) => {
                    let shared = shared.clone();
                    connections.spawn(async move {
                        let _ = tokio::time::timeout(PATIENCE, answer(stream, &shared)).await;
                    });
                }
                // Out of descriptors, most likely; trying again at once would spin.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn accept(listener: &TokioListener, spare: &mut Vec<File>) -> std::io::Result<(TcpStream, SocketAddr)> {
    while spare.len() < SPARE
        && let Ok(file) = File::open("/dev/null")
    {
        spare.push(file);
    }
    match listener.accept().await {
        Err(_) if spare.pop().is_some() => listener.accept().await,
        accepted => accepted,
    }
}

async fn answer(mut stream: TcpStream, shared: &Arc<Shared>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() > HEAD || stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    let (status, kind, body) = match (method, path) {
        (b"GET", b"/metrics") => ("200 OK", OPENMETRICS, render(shared)),
        (b"GET", b"/healthz") => ("200 OK", PLAIN, "ok\n".into()),
        (b"GET", b"/readyz") if shared.ready.load(Relaxed) => ("200 OK", PLAIN, "ready\n".into()),
        (b"GET", b"/readyz") => ("503 Service Unavailable", PLAIN, "not ready\n".into()),
        _ => ("404 Not Found", PLAIN, "not found\n".into()),
    };
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";
const CONNECTIONS: usize = 64;
const SPARE: usize = 4;
const HEAD: usize = 16 * 1024;
const PATIENCE: Duration = Duration::from_secs(10);
