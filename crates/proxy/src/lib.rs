//! The data plane: the request path, the workers that run it, the node that owns them.
//!
//! Read [`path`] first: it shows every stage of a call in order.
#![forbid(unsafe_code)]

mod acme;
mod answer;
mod attempt;
mod board;
mod booking;
mod budget;
mod certificates;
mod choose;
mod circuit;
mod connection;
mod control;
mod count;
mod crowd;
mod deadline;
mod filtered;
mod forward;
mod health;
mod hedge;
mod helper;
mod known;
mod lender;
mod meter;
mod models;
mod node;
mod outside;
mod path;
mod refusal;
mod replay;
mod status;
mod tap;
mod trip;
mod upstream;
mod worker;

pub use cache::{Purge, Purged, What};
pub use certificates::{CertificateStatus, Issue};
pub use forward::{client_of, rewrite_host, rewrite_target};
pub use node::{CacheShare, CacheShares, Node, Passed, Problem, Sockets, check};
pub use refusal::refusal_words;
pub use status::{CircuitStatus, EndpointStatus, UpstreamStatus, Upstreams};
