//! What finding a route costs with a dozen and with 10,000 of them: the same, within a third, whether by
//! host, wildcard host, exact path, template or prefix. Regular expressions are not in it: they are tried together,
//! but the more there are of them on one host, the more they cost.

use std::hint::black_box;

use base::{Headers, Method, RequestHead, Scheme, Version};
use config::router::{HostPattern, PathMatch, RouteMatch, Router};
use criterion::{Criterion, criterion_group, criterion_main};

/// Templates, exact paths, prefixes; prefixes of a host and of a wildcard host.
const KINDS: usize = 5;

fn router(routes: usize) -> Router {
    let one = |n: usize| RouteMatch {
        listeners: vec![0],
        hosts: match n % KINDS {
            3 => vec![HostPattern::Exact(format!("host-{n}.example.com"))],
            4 => vec![HostPattern::Wildcard(format!("host-{n}.example.net"))],
            _ => vec![HostPattern::Any],
        },
        path: match n % KINDS {
            0 => PathMatch::template(&format!("/v1/service-{n}/items/{{id}}")).expect("a template"),
            1 => PathMatch::Exact(format!("/v1/service-{n}/items/42")),
            _ => PathMatch::prefix(&format!("/v1/service-{n}/items")),
        },
        methods: vec![Method::GET],
        headers: vec![],
        query: vec![],
    };
    Router::new(1, (0..routes).map(one).collect())
}

fn find(c: &mut Criterion) {
    for routes in [15, 10_000] {
        let router = router(routes);
        // As many of each kind among few and many.
        let wanted: Vec<usize> = (0..2 * KINDS).map(|n| n * routes / (2 * KINDS) / KINDS * KINDS + n % KINDS).collect();
        let heads: Vec<RequestHead> = wanted
            .iter()
            .map(|n| RequestHead {
                method: Method::GET,
                scheme: Scheme::Http,
                authority: match n % KINDS {
                    4 => format!("a.b.host-{n}.example.net"),
                    _ => format!("host-{n}.example.com"),
                },
                target: format!("/v1/service-{n}/items/42"),
                version: Version::HTTP_11,
                headers: Headers::new(),
            })
            .collect();
        // What finds nothing, or something else, would be measured as another thing.
        for (n, head) in wanted.iter().zip(&heads) {
            let found = router.find(0, head).map(|found| found.route.0 as usize);
            assert_eq!(found, Some(*n), "{} {}", head.authority, head.target);
        }
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
