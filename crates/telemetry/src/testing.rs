//! A call as tests want one.

use std::time::{Duration, UNIX_EPOCH};

use awareness::{Arrival, Attempt, Ending, Exchange, Outcome, SpanId, Stamp, Timeline, TraceContext, TraceId};
use base::{Method, Scheme, StatusCode, Time, Version};

/// 12 ms, 7 of them the upstream's.
pub(crate) fn exchange(target: &str) -> Exchange {
    let at = |millis: u64| Time::from_nanos(millis * 1_000_000);
    let mut timeline = Timeline::default();
    for (stamp, millis) in
        [(Stamp::HeadRead, 100), (Stamp::RequestSent, 103), (Stamp::FirstByte, 110), (Stamp::LastByte, 112)]
    {
        timeline.mark(stamp, at(millis));
    }
    let outcome = Outcome::Answered(StatusCode::OK);
    Exchange {
        started: at(100),
        wall: UNIX_EPOCH + Duration::from_millis(1_000_000_000_123),
        finished: at(112),
        arrival: Arrival::default(),
        client: [192, 0, 2, 1].into(),
        method: Method::GET,
        scheme: Scheme::Http,
        host: "example.com".into(),
        target: target.into(),
        version: Version::HTTP_11,
        upstream_protocol: "http/1.1",
        api: Some("shop".into()),
        route: Some("carts".into()),
        upstream: Some("backend".into()),
        consumer: None,
        credential: None,
        status: Some(StatusCode::OK),
        error: None,
        bytes_in: 1,
        bytes_out: 2,
        cpu: Duration::ZERO,
        held: 0,
        ending: Ending::Complete,
        attempts: smallvec::smallvec![Attempt {
            endpoint: "10.0.0.1:80".into(),
            timeline,
            outcome,
            span: SpanId([3; 8])
        }],
        steps: smallvec::smallvec![],
        cache: None,
        model: None,
        trace: TraceContext { trace: TraceId([1; 16]), span: SpanId([2; 8]), parent: None, sampled: true, state: None },
    }
}
