use base::{Headers, Scheme, Version};
use proptest::prelude::*;

use super::*;

fn head(method: &str, authority: &str, target: &str) -> RequestHead {
    RequestHead {
        method: method.parse().unwrap(),
        scheme: Scheme::Http,
        authority: authority.into(),
        target: target.into(),
        version: Version::HTTP_11,
        headers: Headers::new(),
    }
}

fn route(host: HostPattern, path: PathMatch) -> RouteMatch {
    RouteMatch { listeners: vec![0], hosts: vec![host], path, methods: vec![], headers: vec![], query: vec![] }
}

fn path(text: &str) -> PathMatch {
    match text.strip_suffix("/*") {
        Some(prefix) => PathMatch::prefix(prefix),
        None if text.starts_with('~') => PathMatch::Regex(Regex::new(&format!("^(?:{})$", &text[1..])).unwrap()),
        None if text.contains('{') => PathMatch::template(text).unwrap(),
        None => PathMatch::Exact(text.into()),
    }
}

#[test]
fn the_most_specific_path_wins() {
    let paths = ["/*", "/a/*", "/a/{x}", "/a/b", "/a/{x}/c", "~/r/[0-9]+", "/r/*", "/{y}/b/c", "/a/b/*"];
    let router = Router::new(1, paths.iter().map(|text| route(HostPattern::Any, path(text))).collect());
    for (target, expected) in [
        ("/", Some("/*")),
        ("/a", Some("/a/*")),
        ("/a/", Some("/a/*")),
        ("/ab", Some("/*")),
        ("/a/b", Some("/a/b")),
        ("/%61/b?x=1", Some("/a/b")),
        ("/a%2Fb", Some("/*")),
        ("/a/z", Some("/a/{x}")),
        ("/a/z/c", Some("/a/{x}/c")),
        ("/q/b/c", Some("/{y}/b/c")),
        ("/a/b/d", Some("/a/b/*")),
        ("/r/12", Some("~/r/[0-9]+")),
        ("/r/x", Some("/r/*")),
        ("*", None),
    ] {
        let found = router.find(0, &head("GET", "h", target));
        assert_eq!(found.map(|found| paths[found.route.0 as usize]), expected, "{target}");
    }
    let found = router.find(0, &head("GET", "h", "/a/z/c")).unwrap();
    assert_eq!(found.params.to_vec(), [("x".into(), "z".to_owned())]);
    assert_eq!(router.find(0, &head("GET", "h", "/a/b/d")).unwrap().prefix_len, "/a/b".len());
}

#[test]
fn hosts_fall_back_to_the_less_specific() {
    let hosts = [
        (HostPattern::Any, "/*"),
        (HostPattern::Wildcard("example.com".into()), "/w"),
        (HostPattern::Exact("a.example.com".into()), "/e"),
    ];
    let router = Router::new(1, hosts.map(|(host, text)| route(host, path(text))).into());
    for (host, target, expected) in [
        ("A.Example.com:80", "/e", 2),
        ("a.example.com", "/w", 1),
        ("x.y.example.com", "/w", 1),
        ("example.com", "/w", 0),
        ("a.example.com", "/x", 0),
    ] {
        assert_eq!(router.find(0, &head("GET", host, target)).unwrap().route, RouteId(expected), "{host}{target}");
    }
}

#[test]
fn paths_that_others_may_read_otherwise() {
    for path in ["/a/../b", "/.", "/a/%2e%2E/b", "/a%2f..%2fb", "/a\\b", "/a/..;x/b"] {
        assert!(is_ambiguous_path(path), "{path}");
    }
    for path in ["/", "/a.b/...", "/a//b", "/a%2Fb", "/.well-known/x"] {
        assert!(!is_ambiguous_path(path), "{path}");
    }
}

proptest! {
    #[test]
    fn finds_what_the_naive_way_finds(
        paths in prop::collection::vec("/(a|b|c|\\{x\\})(/(a|b|\\{y\\}))?(/(b|\\{z\\}))?(/\\*)?", 1..12),
        target in "(/(a|b|c|d|)){1,4}",
    ) {
        let routes: Vec<RouteMatch> = paths.iter().map(|text| {
            // A prefix has no parameters.
            route(HostPattern::Any, path(&if text.ends_with("/*") { text.replace(['{', '}'], "") } else { text.clone() }))
        }).collect();
        let mut matching: Vec<usize> = (0..routes.len()).filter(|at| routes[*at].path.matches(&target)).collect();
        matching.sort_by(|a, b| routes[*a].precedence().cmp(&routes[*b].precedence()).then(a.cmp(b)));
        let router = Router::new(1, routes);
        let found = router.find(0, &head("GET", "h", &target)).map(|found| found.route.0 as usize);
        prop_assert_eq!(found, matching.first().copied());
    }
}
