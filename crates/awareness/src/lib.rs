//! What can be known of calls: timelines, their segments, the layer each belongs to, the record of a
//! whole call, the trace it is part of. Pure: no clock, no I/O.
#![forbid(unsafe_code)]

mod exchange;
pub mod flow;
mod histogram;
mod timeline;
mod trace;
mod waterfall;

pub use exchange::{Attempt, Cached, Ending, Exchange, ModelUse, Outcome, Step, StepEnd};
pub use histogram::{BOUNDS, Histogram};
pub use timeline::{Arrival, Layer, Segment, Stamp, Timeline};
pub use trace::{SpanId, TraceContext, TraceId};
pub use waterfall::waterfall;
