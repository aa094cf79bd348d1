//! Keep-alive connections that have had one answer and say nothing more.

use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};

use crate::client::{Client, request};
use crate::procs::pss_kib;

#[derive(clap::Args)]
pub struct Arguments {
    #[arg(long)]
    port: u16,
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// The proxy's process; its descendants count too.
    #[arg(long)]
    pid: u32,
    #[arg(long = "header")]
    headers: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Idle {
    pub before_kib: u64,
    pub after_kib: u64,
    /// Those that were answered, and were answered again at the end.
    pub alive: usize,
    pub errors: usize,
    pub bytes_per_connection: f64,
}

const PATIENCE: Duration = Duration::from_secs(2);

pub async fn run(arguments: Arguments) -> Result<Idle> {
    crate::procs::raise_descriptors()?;
    let request = request("GET", "/", &arguments.headers, b"");
    let before_kib = pss_kib(arguments.pid);
    let mut open = Vec::new();
    let mut errors = 0;
    while open.len() + errors < arguments.connections && errors < 5 {
        match timeout(PATIENCE, ask(arguments.port, &request)).await {
            Ok(Ok(client)) => open.push(client),
            _ => errors += 1,
        }
    }
    let opened = open.len();
    sleep(Duration::from_secs(1)).await;
    let after_kib = pss_kib(arguments.pid);
    let mut alive = 0;
    for mut client in open {
        let again = async {
            client.send(&request).await?;
            client.answer().await
        };
        if let Ok(Ok((200, _))) = timeout(PATIENCE, again).await {
            alive += 1;
        }
        // Thousands of sockets waiting out their last minute would take the ports of the next run.
        client.reset_on_close()?;
    }
    let bytes = (after_kib as f64 - before_kib as f64) * 1024.0;
    Ok(Idle { before_kib, after_kib, alive, errors, bytes_per_connection: bytes / opened.max(1) as f64 })
}

async fn ask(port: u16, request: &[u8]) -> Result<Client> {
    let mut client = Client::connect(port).await?;
    client.send(request).await?;
    let (status, _) = client.answer().await?;
    anyhow::ensure!(status == 200, "status {status}");
    Ok(client)
}
