//! A request's head from bytes to our types and back to bytes: `cargo bench -p transport --bench head`.

use std::hint::black_box;

use base::Scheme;
use bytes::BytesMut;
use criterion::{Criterion, criterion_group, criterion_main};
use transport::h1::{Framing, HeadLimits, parse_request, write_request};

const SMALL: &str = "GET /v2/orders/17?page=2 HTTP/1.1\r\nHost: orders.example.com\r\nAccept: */*\r\n\r\n";
const USUAL: &str = "POST /v1/chat/completions HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: client/1.2.3 \
    (linux; x86_64)\r\nAccept: application/json\r\nAccept-Encoding: gzip, br\r\nContent-Type: application/json\r\n\
    Content-Length: 4096\r\nAuthorization: Bearer 0123456789abcdef0123456789abcdef\r\nTraceparent: \
    00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nX-Request-Id: 7f3c2a52-7d4e\r\nConnection: \
    keep-alive\r\n\r\n";

fn head(c: &mut Criterion) {
    let limits = HeadLimits::new(64 * 1024, 100);
    for (name, text) in [("small", SMALL), ("usual", USUAL)] {
        c.bench_function(&format!("head/{name}/parse"), |b| {
            b.iter(|| parse_request(&mut BytesMut::from(black_box(text)), Scheme::Http, limits).map(|it| it.is_some()));
        });
        let Ok(Some(parsed)) = parse_request(&mut BytesMut::from(text), Scheme::Http, limits) else { return };
        let mut out = Vec::with_capacity(1024);
        c.bench_function(&format!("head/{name}/write"), |b| {
            b.iter(|| {
                out.clear();
                write_request(&mut out, black_box(&parsed.head), Framing::None, None);
                out.len()
            });
        });
    }
}

criterion_group!(benches, head);
criterion_main!(benches);
