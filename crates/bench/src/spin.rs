//! A stranger beside the proxy: it wants a whole core and is of the least importance the kernel knows among threads that
//! are sure to go on. What small requests wait for it no proxy can spare them.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::load::Outcome;

#[derive(clap::Args)]
pub struct Arguments {
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

const NICEST: i32 = 19;

/// Of loops, `rps` is turns a second.
pub fn run(arguments: &Arguments) -> Result<Outcome> {
    rustix::process::setpriority_process(None, NICEST)?;
    let (start, mut turns) = (Instant::now(), 0u64);
    while start.elapsed() < Duration::from_secs_f64(arguments.seconds) {
        turns += (0..10_000u64).map(black_box).fold(0, |turns, _| turns + 1);
    }
    Ok(Outcome { requests: 1, rps: turns as f64 / start.elapsed().as_secs_f64(), ..Outcome::default() })
}
