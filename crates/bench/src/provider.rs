//! The provider behind the gateways for models: the simulator.

use std::net::SocketAddr;

use anyhow::Result;
use simulator::{Options, Simulator};

#[derive(clap::Args)]
pub struct Arguments {
    #[arg(long, default_value_t = 19000)]
    port: u16,
}

pub fn run(arguments: Arguments) -> Result<()> {
    let address = SocketAddr::from(([127, 0, 0, 1], arguments.port));
    // What nobody will look at is not kept.
    let _provider = Simulator::start(Options { address, journal: 0, books: 0, ..Options::provider("provider") })?;
    loop {
        std::thread::park();
    }
}
