//! HTTP/2, both sides, directly over `h2`: what limits a connection is ours to set, and a pool sees its streams.

mod answering;
mod client;
mod convert;
mod cork;
mod keepalive;
mod server;
mod sieve;
mod stream;
#[cfg(test)]
mod tests;

pub use client::{Connection, Settings as ClientSettings};
pub use keepalive::Keepalive;
pub use server::{Settings as ServerSettings, serve};
