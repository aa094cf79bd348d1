//! From a request's head to the route that takes it.
//!
//! Precedence is that of the Kubernetes Gateway API, extended:
//!
//! 1. host: exact, then the longest wildcard, then none. If no route of the most specific host matches,
//!    the less specific ones are asked;
//! 2. path: exact, then template (more literal segments, then more literal characters, first), then
//!    regex, then the longest prefix;
//! 3. a route that names methods before one that does not;
//! 4. more header matches, then more query matches;
//! 5. the order of the document.
//!
//! All of 2 to 5 is one number per route, its *rank*, given when the router is built. A lookup walks the
//! segments of the path once through a trie and keeps the lowest rank that matches, so its cost depends
//! on the path and not on how many routes there are.
//!
//! Paths are matched as they came. `.` and `..` segments, also encoded, are not resolved here: upstreams
//! disagree about them, so the path refuses such requests ([`is_ambiguous_path`]). `//` is an empty
//! segment. A segment with `%` is decoded before it is compared with a literal, so `/%61` finds `/a`, but
//! an encoded slash stays within its segment: `/a%2Fb` never finds `/a/b`. Parameters are given as they
//! came. A prefix covers whole segments: `/a` takes `/a` and `/a/b`, not `/ab`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use base::{Method, RequestHead};
use foldhash::fast::RandomState;
use regex::{Regex, RegexSet};
use smallvec::SmallVec;

pub struct Router {
    listeners: Vec<Hosts>,
    routes: Vec<RouteMatch>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(pub u32);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub route: RouteId,
    /// Of the template, in its order, as they stood in the path.
    pub params: SmallVec<[(Arc<str>, String); 2]>,
    /// Bytes of the path that the matched prefix covers; 0 where the match is no prefix.
    pub prefix_len: usize,
}

/// One route and why it was or was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Considered {
    pub route: RouteId,
    pub verdict: Verdict,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Matched,
    No(String),
}

/// What a route takes.
#[derive(Clone, Debug)]
pub struct RouteMatch {
    pub listeners: Vec<usize>,
    pub hosts: Vec<HostPattern>,
    pub path: PathMatch,
    /// Empty for all.
    pub methods: Vec<Method>,
    pub headers: Vec<(String, ValueMatch)>,
    pub query: Vec<(String, ValueMatch)>,
}

/// In lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    Exact(String),
    /// `example.com` for `*.example.com`: one label or more before it.
    Wildcard(String),
    Any,
}

#[derive(Clone, Debug)]
pub enum PathMatch {
    Exact(String),
    Template(Vec<Part>),
    Regex(Regex),
    /// Without a slash at the end; empty for all paths.
    Prefix(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Literal(String),
    Param(Arc<str>),
}

#[derive(Clone, Debug)]
pub enum ValueMatch {
    Exact(String),
    Regex(Regex),
    Present(bool),
}

/// True for a path that upstreams may read as another: with `.` or `..` among its segments, also
/// encoded, or with a backslash, which some take for a slash.
pub fn is_ambiguous_path(path: &str) -> bool {
    let dots = |segment: &[u8]| {
        // `..;x` is `..` to servers that know path parameters.
        let name = segment.split(|byte| *byte == b';').next().unwrap_or_default();
        matches!(name, b"." | b"..")
    };
    if !path.bytes().any(|byte| matches!(byte, b'.' | b'%' | b'\\')) {
        return false;
    }
    // In bytes: what is no text once decoded (`/%ff%2f..`) hides nothing either.
    let path = decode_bytes(path);
    path.contains(&b'\\') || path.split(|byte| *byte == b'/').any(dots)
}

// === impl Router ===

type Map<V> = HashMap<Box<str>, V, RandomState>;

#[derive(Default)]
struct Hosts {
    exact: Map<Table>,
    wildcard: Map<Table>,
    any: Table,
}

/// The routes of one host on one listener.
#[derive(Default)]
struct Table {
    nodes: Vec<Node>,
    /// With its pattern's place in the set, lowest rank first.
    regexes: Vec<Candidate>,
    set: RegexSet,
}

#[derive(Default)]
struct Node {
    literals: Map<u32>,
    param: Option<u32>,
    /// Routes whose path ends here, lowest rank first.
    ends: Vec<Candidate>,
    /// Routes whose prefix ends here, lowest rank first.
    prefixes: Vec<Candidate>,
}

#[derive(Clone, Copy)]
struct Candidate {
    rank: u32,
    route: u32,
}

#[derive(Clone, Copy)]
struct Best {
    rank: u32,
    route: u32,
    prefix_len: usize,
}

impl Router {
    /// A route's id is its place in `routes`.
    pub fn new(listeners: usize, routes: Vec<RouteMatch>) -> Router {
        let mut order: Vec<usize> = (0..routes.len()).collect();
        order.sort_by(|a, b| routes[*a].precedence().cmp(&routes[*b].precedence()).then(a.cmp(b)));
        let mut hosts: Vec<Hosts> = (0..listeners).map(|_| Hosts::default()).collect();
        // In the order of ranks, so that every list is born sorted.
        for (rank, index) in order.into_iter().enumerate() {
            let route = &routes[index];
            let candidate = Candidate { rank: rank as u32, route: index as u32 };
            for listener in &route.listeners {
                for host in &route.hosts {
                    let hosts = &mut hosts[*listener];
                    let table = match host {
                        HostPattern::Exact(name) => hosts.exact.entry(name.as_str().into()).or_default(),
                        HostPattern::Wildcard(suffix) => hosts.wildcard.entry(suffix.as_str().into()).or_default(),
                        HostPattern::Any => &mut hosts.any,
                    };
                    table.add(&route.path, candidate);
                }
            }
        }
        for hosts in &mut hosts {
            let tables = hosts.exact.values_mut().chain(hosts.wildcard.values_mut()).chain([&mut hosts.any]);
            for table in tables.filter(|table| !table.regexes.is_empty()) {
                let patterns =
                    table.regexes.iter().filter_map(|candidate| match &routes[candidate.route as usize].path {
                        PathMatch::Regex(regex) => Some(regex.as_str()),
                        _ => None,
                    });
                // Each was compiled alone before; together they may be too large, then they are tried in turn.
                table.set = RegexSet::new(patterns).unwrap_or_default();
            }
        }
        Router { listeners: hosts, routes }
    }

    /// The route for a request that came in by that listener.
    pub fn find(&self, listener: usize, head: &RequestHead) -> Option<Found> {
        let hosts = self.listeners.get(listener)?;
        if hosts.exact.is_empty() && hosts.wildcard.is_empty() {
            return self.find_in(&hosts.any, head);
        }
        let host = head.host();
        let host = host.strip_suffix('.').unwrap_or(host);
        let host: Cow<'_, str> = match host.bytes().any(|b| b.is_ascii_uppercase()) {
            true => host.to_ascii_lowercase().into(),
            false => host.into(),
        };
        if let Some(found) = hosts.exact.get(&*host).and_then(|table| self.find_in(table, head)) {
            return Some(found);
        }
        if !hosts.wildcard.is_empty() {
            let suffixes = host.match_indices('.').map(|(dot, _)| &host[dot + 1..]);
            let mut tables = suffixes.filter_map(|name| hosts.wildcard.get(name));
            if let Some(found) = tables.find_map(|table| self.find_in(table, head)) {
                return Some(found);
            }
        }
        self.find_in(&hosts.any, head)
    }

    fn find_in(&self, table: &Table, head: &RequestHead) -> Option<Found> {
        let path = head.path();
        let mut best = None;
        if let Some(rest) = path.strip_prefix('/') {
            if !table.nodes.is_empty() {
                self.walk(table, 0, head, path, Some(path.len() - rest.len()), &mut best);
            }
            self.try_regexes(table, head, path, &mut best);
        }
        let Best { route, prefix_len, .. } = best?;
        let params = self.routes[route as usize].path.params(path);
        Some(Found { route: RouteId(route), params, prefix_len })
    }

    /// `at` is where the next segment begins; `None` once the path is used up.
    fn walk(
        &self,
        table: &Table,
        node: u32,
        head: &RequestHead,
        path: &str,
        at: Option<usize>,
        best: &mut Option<Best>,
    ) {
        let node = &table.nodes[node as usize];
        let covered = at.map_or(path.len(), |at| at - 1);
        self.try_candidates(&node.prefixes, head, covered, best);
        let Some(at) = at else {
            self.try_candidates(&node.ends, head, 0, best);
            return;
        };
        let end = memchr_slash(path, at);
        let segment = &path[at..end.unwrap_or(path.len())];
        let next = end.map(|end| end + 1);
        if !node.literals.is_empty() {
            let name = if segment.contains('%') { decode(segment) } else { Cow::Borrowed(segment) };
            if let Some(child) = node.literals.get(&*name) {
                self.walk(table, *child, head, path, next, best);
            }
        }
        if let Some(child) = node.param
            && !segment.is_empty()
        {
            self.walk(table, child, head, path, next, best);
        }
    }

    fn try_regexes(&self, table: &Table, head: &RequestHead, path: &str, best: &mut Option<Best>) {
        let Some(first) = table.regexes.first() else { return };
        if best.is_some_and(|best| best.rank < first.rank) {
            return;
        }
        let hits = table.set.matches(path);
        for (index, candidate) in table.regexes.iter().enumerate() {
            let hit = match table.set.is_empty() {
                true => self.routes[candidate.route as usize].path.matches(path),
                false => hits.matched(index),
            };
            if hit {
                self.try_candidates(&[*candidate], head, 0, best);
            }
        }
    }

    fn try_candidates(&self, candidates: &[Candidate], head: &RequestHead, prefix_len: usize, best: &mut Option<Best>) {
        for Candidate { rank, route } in candidates {
            if best.is_some_and(|best| best.rank < *rank) {
                return;
            }
            if self.routes[*route as usize].takes(head) {
                *best = Some(Best { rank: *rank, route: *route, prefix_len });
                return;
            }
        }
    }

    /// Every route, with why it was not the one: for people who wonder.
    pub fn explain(&self, listener: usize, head: &RequestHead) -> Vec<Considered> {
        let taken = self.find(listener, head).map(|found| found.route);
        let verdict = |id: RouteId, route: &RouteMatch| {
            if taken == Some(id) {
                return Verdict::Matched;
            }
            Verdict::No(route.refusal(listener, head).unwrap_or_else(|| match taken {
                Some(RouteId(taken)) => format!("matches too, but route #{taken} goes before it"),
                None => "does not match".into(),
            }))
        };
        let each = self.routes.iter().enumerate();
        each.map(|(index, route)| {
            let id = RouteId(index as u32);
            Considered { route: id, verdict: verdict(id, route) }
        })
        .collect()
    }
}

// === impl Table ===

impl Table {
    fn add(&mut self, path: &PathMatch, candidate: Candidate) {
        match path {
            PathMatch::Exact(path) => {
                let segments = path.strip_prefix('/').unwrap_or(path).split('/');
                let node = segments.fold(self.root(), |node, segment| self.literal(node, segment));
                self.nodes[node].ends.push(candidate);
            }
            PathMatch::Template(parts) => {
                let node = parts.iter().fold(self.root(), |node, part| match part {
                    Part::Literal(segment) => self.literal(node, segment),
                    Part::Param(_) => self.param(node),
                });
                self.nodes[node].ends.push(candidate);
            }
            PathMatch::Prefix(path) => {
                let segments = path.split('/').skip(1);
                let node = segments.fold(self.root(), |node, segment| self.literal(node, segment));
                self.nodes[node].prefixes.push(candidate);
            }
            PathMatch::Regex(_) => self.regexes.push(candidate),
        }
    }

    fn root(&mut self) -> usize {
        if self.nodes.is_empty() {
            self.nodes.push(Node::default());
        }
        0
    }

    fn literal(&mut self, node: usize, segment: &str) -> usize {
        let fresh = self.nodes.len() as u32;
        let child = *self.nodes[node].literals.entry(decode(segment).into()).or_insert(fresh);
        if child == fresh {
            self.nodes.push(Node::default());
        }
        child as usize
    }

    fn param(&mut self, node: usize) -> usize {
        let fresh = self.nodes.len() as u32;
        let child = *self.nodes[node].param.get_or_insert(fresh);
        if child == fresh {
            self.nodes.push(Node::default());
        }
        child as usize
    }
}

// === impl RouteMatch ===

impl RouteMatch {
    /// Lower goes first.
    fn precedence(&self) -> impl Ord + use<> {
        use std::cmp::Reverse;
        let (kind, segments, length) = match &self.path {
            PathMatch::Exact(_) => (0, 0, 0),
            PathMatch::Template(parts) => {
                let literals = || {
                    parts.iter().filter_map(|part| match part {
                        Part::Literal(text) => Some(text.len()),
                        Part::Param(_) => None,
                    })
                };
                (1, literals().count(), literals().sum())
            }
            PathMatch::Regex(_) => (2, 0, 0),
            PathMatch::Prefix(prefix) => (3, 0, prefix.len()),
        };
        let RouteMatch { methods, headers, query, .. } = self;
        (kind, Reverse(segments), Reverse(length), methods.is_empty(), Reverse(headers.len()), Reverse(query.len()))
    }

    /// All but listener, host and path.
    fn takes(&self, head: &RequestHead) -> bool {
        (self.methods.is_empty() || self.methods.contains(&head.method))
            && self.headers.iter().all(|(name, wanted)| header_matches(head, name, wanted))
            && self.query.iter().all(|(name, wanted)| query_matches(head, name, wanted))
    }

    fn refusal(&self, listener: usize, head: &RequestHead) -> Option<String> {
        if !self.listeners.contains(&listener) {
            return Some("is not on this listener".into());
        }
        let host = head.host().to_ascii_lowercase();
        if !self.hosts.iter().any(|pattern| pattern.matches(host.trim_end_matches('.'))) {
            return Some(format!("host `{host}` is not among its hosts"));
        }
        if !self.path.matches(head.path()) {
            return Some(format!("path `{}` does not match", head.path()));
        }
        if !self.methods.is_empty() && !self.methods.contains(&head.method) {
            return Some(format!("method {} is not among its methods", head.method));
        }
        if let Some((name, _)) = self.headers.iter().find(|(name, wanted)| !header_matches(head, name, wanted)) {
            return Some(format!("header `{name}` does not match"));
        }
        let (name, _) = self.query.iter().find(|(name, wanted)| !query_matches(head, name, wanted))?;
        Some(format!("query parameter `{name}` does not match"))
    }
}

fn header_matches(head: &RequestHead, name: &str, wanted: &ValueMatch) -> bool {
    wanted.matches(head.headers.get_str(name), head.headers.contains(name))
}

/// The first parameter of that name counts.
fn query_matches(head: &RequestHead, name: &str, wanted: &ValueMatch) -> bool {
    let found = head.query().unwrap_or_default().split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (!pair.is_empty() && decode_form(key) == name).then(|| decode_form(value))
    });
    wanted.matches(found.as_deref(), found.is_some())
}

impl ValueMatch {
    fn matches(&self, value: Option<&str>, present: bool) -> bool {
        match self {
            ValueMatch::Exact(wanted) => value == Some(wanted),
            ValueMatch::Regex(regex) => value.is_some_and(|value| regex.is_match(value)),
            ValueMatch::Present(wanted) => present == *wanted,
        }
    }
}

impl HostPattern {
    fn matches(&self, host: &str) -> bool {
        match self {
            HostPattern::Exact(name) => host == name,
            HostPattern::Wildcard(suffix) => {
                host.strip_suffix(suffix.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
            HostPattern::Any => true,
        }
    }
}

// === impl PathMatch ===

impl PathMatch {
    /// `/v1/{id}`; a parameter is a whole segment. An error says what is wrong with it.
    pub fn template(text: &str) -> Result<PathMatch, String> {
        let rest = text.strip_prefix('/').ok_or("a path begins with `/`")?;
        let mut parts = Vec::new();
        for segment in rest.split('/') {
            if !segment.contains(['{', '}']) {
                parts.push(Part::Literal(segment.into()));
                continue;
            }
            let name = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            let name = name.filter(|name| {
                !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
            });
            let Some(name) = name else {
                return Err(format!("`{segment}` is not a parameter; expected a whole segment such as `{{id}}`"));
            };
            let part = Part::Param(name.into());
            if parts.contains(&part) {
                return Err(format!("parameter `{{{name}}}` stands twice"));
            }
            parts.push(part);
        }
        Ok(PathMatch::Template(parts))
    }

    pub fn prefix(text: &str) -> PathMatch {
        PathMatch::Prefix(text.trim_end_matches('/').into())
    }

    fn params(&self, path: &str) -> SmallVec<[(Arc<str>, String); 2]> {
        let PathMatch::Template(parts) = self else { return SmallVec::new() };
        let segments = path.split('/').skip(1);
        parts
            .iter()
            .zip(segments)
            .filter_map(|(part, segment)| match part {
                Part::Param(name) => Some((name.clone(), segment.to_owned())),
                Part::Literal(_) => None,
            })
            .collect()
    }

    /// The plain way, for [`Router::explain`] and as the measure in tests.
    fn matches(&self, path: &str) -> bool {
        let same = |a: &str, b: &str| a.split('/').map(decode).eq(b.split('/').map(decode));
        match self {
            _ if !path.starts_with('/') => false,
            PathMatch::Exact(wanted) => same(wanted, path),
            PathMatch::Template(parts) => {
                let segments: Vec<&str> = path.split('/').skip(1).collect();
                segments.len() == parts.len()
                    && parts.iter().zip(segments).all(|(part, segment)| match part {
                        Part::Literal(text) => decode(text) == decode(segment),
                        Part::Param(_) => !segment.is_empty(),
                    })
            }
            PathMatch::Regex(regex) => regex.is_match(path),
            PathMatch::Prefix(prefix) => {
                let wanted: Vec<_> = prefix.split('/').map(decode).collect();
                path.split('/').map(decode).take(wanted.len()).eq(wanted)
            }
        }
    }
}

fn memchr_slash(path: &str, from: usize) -> Option<usize> {
    path.as_bytes()[from..].iter().position(|b| *b == b'/').map(|at| from + at)
}

/// Percent-decoded; as it is where that is not valid.
pub(crate) fn decode(text: &str) -> Cow<'_, str> {
    match decode_bytes(text) {
        Cow::Borrowed(_) => text.into(),
        Cow::Owned(decoded) => String::from_utf8(decoded).map_or(text.into(), Cow::Owned),
    }
}

fn decode_bytes(text: &str) -> Cow<'_, [u8]> {
    if !text.contains('%') {
        return text.as_bytes().into();
    }
    let hex = |b: u8| (b as char).to_digit(16);
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 1).zip(bytes.get(at + 2));
        match digits.and_then(|(high, low)| Some(hex(*high)? * 16 + hex(*low)?)) {
            Some(byte) if bytes[at] == b'%' => {
                decoded.push(byte as u8);
                at += 3;
            }
            _ => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    decoded.into()
}

fn decode_form(text: &str) -> Cow<'_, str> {
    match text.contains('+') {
        true => decode(&text.replace('+', " ")).into_owned().into(),
        false => decode(text),
    }
}

#[cfg(test)]
mod tests;
