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
    for path in ["/a/../b", "/.", "/a/%2e%2E/b", "/a%2f..%2fb", "/a\\b", "/a/..;x/b", "/%ff%2f..", "/%ff\\"] {
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

#[test]
fn methods_fields_and_parameters_narrow_and_say_why_not() {
    let wanted = |text: &str| match text {
        "+" => ValueMatch::Present(true),
        "-" => ValueMatch::Present(false),
        _ if text.starts_with('~') => ValueMatch::Regex(Regex::new(&format!("^(?:{})$", &text[1..])).unwrap()),
        _ => ValueMatch::Exact(text.into()),
    };
    for (methods, fields, query, method, target, sent, reason) in [
        (&["GET"][..], &[][..], &[][..], "GET", "/", &[][..], None),
        (&["GET"], &[], &[], "POST", "/", &[], Some("method POST is not among its methods")),
        (&[], &[("x-a", "1")], &[], "GET", "/", &[("X-A", "1")], None),
        (&[], &[("x-a", "1")], &[], "GET", "/", &[("x-a", "2")], Some("header `x-a` does not match")),
        (&[], &[("x-a", "~[0-9]+")], &[], "GET", "/", &[("x-a", "12")], None),
        (&[], &[("x-a", "~[0-9]+")], &[], "GET", "/", &[("x-a", "12b")], Some("header `x-a` does not match")),
        (&[], &[("x-a", "+")], &[], "GET", "/", &[("x-a", "")], None),
        (&[], &[("x-a", "+")], &[], "GET", "/", &[], Some("header `x-a` does not match")),
        (&[], &[("x-a", "-")], &[], "GET", "/", &[], None),
        (&[], &[], &[("q", "a b")], "GET", "/?x=1&q=a+b", &[], None),
        (&[], &[], &[("q", "a b")], "GET", "/?%71=a%20b", &[], None),
        (&[], &[], &[("q", "a")], "GET", "/?q=b&q=a", &[], Some("query parameter `q` does not match")),
        (&[], &[], &[("q", "-")], "GET", "/?q", &[], Some("query parameter `q` does not match")),
    ] {
        let pairs = |pairs: &[(&str, &str)]| pairs.iter().map(|(name, text)| ((*name).into(), wanted(text))).collect();
        let mut narrow = route(HostPattern::Any, path("/*"));
        narrow.methods = methods.iter().map(|it: &&str| it.parse().unwrap()).collect();
        narrow.headers = pairs(fields);
        narrow.query = pairs(query);
        let mut head = head(method, "h", target);
        for (name, value) in sent {
            head.headers.append(name, *value);
        }
        let router = Router::new(1, vec![narrow]);
        assert_eq!(router.find(0, &head).is_some(), reason.is_none(), "{target} {sent:?}");
        let verdict = reason.map_or(Verdict::Matched, |reason: &str| Verdict::No(reason.into()));
        assert_eq!(router.explain(0, &head)[0].verdict, verdict);
    }
}

#[test]
fn why_a_route_was_not_taken() {
    let mut elsewhere = route(HostPattern::Any, path("/*"));
    elsewhere.listeners = vec![1];
    let others = [(HostPattern::Exact("b".into()), "/*"), (HostPattern::Any, "/b"), (HostPattern::Any, "/*")];
    let mut routes = vec![elsewhere, route(HostPattern::Any, path("/a"))];
    routes.extend(others.map(|(host, text)| route(host, path(text))));
    let reasons = Router::new(2, routes).explain(0, &head("GET", "a", "/a")).into_iter().map(|it| match it.verdict {
        Verdict::Matched => "taken".into(),
        Verdict::No(reason) => reason,
    });
    let expected = [
        "is not on this listener",
        "taken",
        "host `a` is not among its hosts",
        "path `/a` does not match",
        "matches too, but route #1 goes before it",
    ];
    assert_eq!(reasons.collect::<Vec<String>>(), expected);
}
