//! The binary from outside: a process, its arguments, its sockets.
#![expect(clippy::unwrap_used, reason = "all of it is a test, helpers too")]

mod accounting;
mod acme;
mod admin;
mod answers;
mod badinput;
mod budgets;
mod cache;
mod cli;
mod corrections;
mod disk;
mod embeddings;
mod ends;
mod examples;
mod h2peer;
mod hostile;
mod http;
mod identity;
mod import;
mod issuers;
mod leases;
mod limits;
mod models;
mod money;
mod names;
mod policies;
mod reload;
mod sdk;
mod shared;
mod streams;
mod synced;
mod takeover;
mod tls;
mod upstream;
mod weir;
