//! The admin API: what a running node tells and does for whoever operates it. On a thread of its own, with a
//! runtime of its own, so that no worker ever waits for it.
//!
//! It is never open by accident: a socket that only the node's user may open unless the document says otherwise,
//! and a token for every IP address, over TLS where that is written.

mod answer;
mod budgets;
mod cache;
mod certificates;
mod document;
mod flows;
mod node;
mod openapi;
pub mod place;
mod registry;
mod server;
mod upstreams;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use config::{Address, AdminPlace};
use tokio::sync::oneshot;
use transport::listen::{self, Listening};

pub use budgets::{Budget, Budgets, Holder};
pub use cache::Forget;
pub use flows::{Flow, Flows, Kind};
pub use node::{Health, Resources};
pub use registry::{markdown, openapi};
pub use upstreams::{CircuitState, Upstream, Upstreams, Which};

use crate::running::Running;

/// The server; ends when dropped, and its socket's file with it.
pub struct Admin {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Nothing where the document wants nothing, or where no folder can be had for the socket. One that `follows` has
/// the address of a process that is about to end.
pub fn start(running: &Arc<Running>, follows: bool) -> Result<Option<Admin>, String> {
    let Some(settings) = running.admin() else { return Ok(None) };
    let (address, must) = match settings.place {
        AdminPlace::Nowhere => return Ok(None),
        AdminPlace::At(Address::Ip(address)) => (listen::Address::Ip(address), true),
        AdminPlace::At(Address::Unix(path)) => (listen::Address::Unix(path), true),
        AdminPlace::Usual => match place::own() {
            Ok(path) => (listen::Address::Unix(path), false),
            Err(error) => {
                tracing::warn!("no admin socket: {error}; give `admin.address`, or `none` if none is wanted");
                return Ok(None);
            }
        },
    };
    let scheme = if settings.tls.is_some() { "https" } else { "http" };
    match bind(&address, follows).and_then(|listening| spawn(running, listening, scheme)) {
        Ok(admin) => Ok(Some(admin)),
        Err(error) if must => Err(format!("cannot listen for the admin API on {}: {error}", shown(&address, scheme))),
        Err(error) => {
            tracing::warn!(%error, "no admin socket at {}", shown(&address, scheme));
            Ok(None)
        }
    }
}

fn bind(address: &listen::Address, follows: bool) -> std::io::Result<Listening> {
    let listening = match address {
        listen::Address::Unix(path) if follows => {
            // The other process leaves a file that is not its own alone.
            let _ = std::fs::remove_file(path);
            Listening::bind(address, 1)?
        }
        listen::Address::Ip(_) if follows => Listening::join(address, 1)?,
        _ => Listening::bind(address, 1)?,
    };
    // Nobody can connect before it listens, so nobody can be in before this.
    if let listen::Address::Unix(path) = address {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    }
    listening.listen()?;
    Ok(listening)
}

fn spawn(running: &Arc<Running>, listening: Listening, scheme: &str) -> std::io::Result<Admin> {
    let (stop, stopped) = oneshot::channel();
    tracing::info!(address = %shown(listening.local_addr(), scheme), "admin API");
    let running = running.clone();
    let thread = std::thread::Builder::new().name("weir-admin".into()).spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().max_blocking_threads(THREADS);
        match runtime.build_local(tokio::runtime::LocalOptions::default()) {
            Ok(runtime) => {
                runtime.block_on(server::serve(running, listening, stopped));
                runtime.shutdown_background();
            }
            Err(error) => tracing::error!(%error, "no admin API"),
        }
    })?;
    Ok(Admin { stop: Some(stop), thread: Some(thread) })
}

fn shown(address: &listen::Address, scheme: &str) -> String {
    match address {
        listen::Address::Ip(address) => format!("{scheme}://{address}"),
        listen::Address::Unix(path) => format!("unix:{}", Path::display(path)),
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What may be asked at the same time; more waits.
const THREADS: usize = 4;
