//! What finding a route costs with 10 and with 10,000 of them: the same, within a third.

use std::hint::black_box;

use base::{Headers, Method, RequestHead, Scheme, Version};
use config::router::{HostPattern, PathMatch, RouteMatch, Router};
use criterion::{Criterion, criterion_group, criterion_main};

fn router(routes: usize) -> Router {
    let one = |n: usize| RouteMatch {
        listeners: vec![0],
        hosts: vec![HostPattern::Any],
        path: if n.is_multiple_of(2) {
            PathMatch::template(&format!("/v1/service-{n}/items/{{id}}")).expect("a template")
        } else {
            PathMatch::prefix(&format!("/v1/service-{n}/items"))
        },
        methods: vec![Method::GET],
        headers: vec![],
        query: vec![],
    };
    Router::new(1, (0..routes).map(one).collect())
}

fn find(c: &mut Criterion) {
    for routes in [10, 10_000] {
        let router = router(routes);
        let heads: Vec<RequestHead> = (0..10)
            .map(|n| RequestHead {
                method: Method::GET,
                scheme: Scheme::Http,
                authority: "api.example.com".into(),
                target: format!("/v1/service-{}/items/42", n * routes / 10),
                version: Version::HTTP_11,
                headers: Headers::new(),
            })
            .collect();
        c.bench_function(&format!("find among {routes}"), |b| {
            b.iter(|| {
                for head in &heads {
                    black_box(router.find(0, black_box(head)));
                }
            })
        });
    }
}

criterion_group!(benches, find);
criterion_main!(benches);
