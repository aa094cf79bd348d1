//! Weir's own log: plain text on standard error. `WEIR_LOG` filters it, such as `info,proxy=debug`.

use std::io;

use tracing_subscriber::EnvFilter;

use crate::terminal::Paint;

/// `default` holds where the environment says nothing, or nothing that can be read.
pub fn start(default: &str) {
    let wanted = std::env::var(VARIABLE).ok().filter(|text| !text.is_empty());
    let filter = wanted.as_deref().map(EnvFilter::try_new);
    let (filter, wrong) = match filter {
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (EnvFilter::new(default), Some(error)),
        None => (EnvFilter::new(default), None),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(Paint::stderr().0)
        .with_target(false)
        .init();
    if let Some(error) = wrong {
        tracing::warn!(%error, "{VARIABLE} cannot be read; expected a filter such as `info,proxy=debug`");
    }
}

const VARIABLE: &str = "WEIR_LOG";
