//! What the integration tests stand on: a gateway made of the YAML a user would write, and peers that are not ours.
//!
//! [`Gateway`] runs the whole node in this process. The peers are raw sockets ([`Raw`]), hyper ([`client`]), curl
//! ([`curl`]) and a TLS service ([`tls::Service`]); what stands behind a gateway is mostly the simulator.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "all of it is tests: a panic is how they fail")]

pub mod acme;
pub mod client;
pub mod curl;
pub mod dns;
pub mod files;
pub mod gateway;
pub mod raw;
pub mod tls;

use std::time::{Duration, Instant};

pub use curl::curl;
pub use files::Folder;
pub use gateway::Gateway;
pub use raw::{Answer, Raw};

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Waits for what must become true.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
