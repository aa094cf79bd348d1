//! Apis and their routes: what matches, what becomes of it, and the router over them all.

use std::collections::HashMap;
use std::sync::Arc;

use base::{Headers, Method, Percent, Place, Scheme, StatusCode};
use llm::{Dialect, Operation};
use policy::{Credentials, Policies, Specs};
use regex::Regex;

use super::upstreams::{Upstreams, is_host, refine_retry, refine_timeouts};
use super::{Context, Level, key};
use crate::diagnostic::nearest;
use crate::document::{self, Named, OneOrMany, OrText, Split};
use crate::router::{HostPattern, Part, PathMatch, RouteMatch, Router, ValueMatch, decode};
use crate::snapshot::{
    Action, Api, Candidate, Forward, HostRewrite, Listener, Mirror, Models, PathRewrite, Redirect, Respond, Rewrite,
    Route, Weighted,
};

type Routes = (Vec<Arc<Api>>, Vec<Arc<Route>>, Router);

/// What the routes of an api share.
struct Around {
    api: Arc<Api>,
    at: String,
    hosts: Vec<HostPattern>,
    listeners: Vec<usize>,
    /// `None` where none is written; none in it where what is written is wrong.
    split: Option<Vec<Weighted>>,
    policies: Arc<Policies>,
    timeouts: document::Timeouts,
    retry: document::Retry,
}

impl Context<'_> {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn routes(
        &mut self,
        Named(written): Named<document::Api>,
        policies: Specs,
        listeners: &[Arc<Listener>],
        upstreams: &mut Upstreams,
        models: &Models,
        credentials: Arc<Credentials>,
        consumers: usize,
    ) -> Routes {
        if written.is_empty() && !self.broken("apis") {
            self.error("apis", "no api, so nothing would be served; expected at least one under `apis`");
        }
        let previous = self.previous.into_iter().flat_map(|snapshot| &snapshot.written);
        let previous = previous.map(|policies| (&*policies.scope, &**policies)).collect();
        let level = Level { credentials, consumers, previous };
        let everywhere = self.policies("policies", "document", &policies, &Arc::default(), &level);
        let mut apis = Vec::new();
        let mut routes: Vec<Arc<Route>> = Vec::new();
        let mut matches: Vec<RouteMatch> = Vec::new();
        for (name, api) in written {
            let at = key("apis", &name);
            let document::Api { host, listeners: on, upstream, llm, policies, timeouts, retry, routes: written } = api;
            let api = Arc::new(Api { index: apis.len() as u32, name: name.as_str().into() });
            apis.push(api.clone());
            let around = Around {
                hosts: self.hosts(&format!("{at}.host"), host),
                listeners: self.listeners_named(&format!("{at}.listeners"), on, listeners),
                policies: self.policies(&format!("{at}.policies"), &at, &policies, &everywhere, &level),
                split: upstream.map(|OrText(split)| self.split(&format!("{at}.upstream"), split, upstreams)),
                timeouts,
                retry,
                api,
                at,
            };
            let mut written: Vec<(String, document::Route)> = written
                .into_iter()
                .enumerate()
                .map(|(index, route)| (format!("{}.routes[{index}]", around.at), route))
                .collect();
            self.check_timeouts(&format!("{}.timeouts", around.at), &around.timeouts);
            self.check_retry(&format!("{}.retry", around.at), &around.retry);
            if let Some(llm) = llm {
                for field in ["upstream", "routes", "timeouts", "retry"] {
                    if self.is_written(&around.at, field) {
                        let message = format!("`{field}` has no meaning beside `llm`; providers have their own");
                        self.error(&format!("{}.{field}", around.at), message);
                    }
                }
                if let Some((route, matched)) = self.llm_route(routes.len() as u32, &around, &llm, models) {
                    routes.push(Arc::new(route));
                    matches.push(matched);
                }
                continue;
            }
            if written.is_empty() && !self.broken(&format!("{}.routes", around.at)) {
                if around.split.is_none() {
                    if !self.is_without_upstream_by_mistake(&around.at) {
                        self.error(&around.at, "leads nowhere; expected `upstream`, `routes` or `llm`");
                    }
                    continue;
                }
                written.push((around.at.clone(), document::Route::default()));
            }
            for (place, (at, route)) in written.into_iter().enumerate() {
                let matched = self.route_match(&at, &route.r#match, &around);
                let index = routes.len() as u32;
                let route = self.route(index, place, &at, route, matched.as_ref(), &around, upstreams, &level);
                if let (Some(route), Some(matched)) = (route, matched) {
                    routes.push(Arc::new(route));
                    matches.push(matched);
                }
            }
        }
        self.conflicts(&routes, &matches);
        (apis, routes, Router::new(listeners.len(), matches))
    }

    #[allow(clippy::too_many_arguments)]
    fn route(
        &mut self,
        index: u32,
        place: usize,
        at: &str,
        written: document::Route,
        matched: Option<&RouteMatch>,
        around: &Around,
        upstreams: &mut Upstreams,
        level: &Level<'_>,
    ) -> Option<Route> {
        let document::Route {
            name,
            r#match: _,
            upstream,
            mirror,
            rewrite,
            redirect,
            respond,
            policies,
            timeouts,
            retry,
        } = written;
        // The only route of an api without `routes` has nothing of its own.
        let policies = match at == around.at {
            true => around.policies.clone(),
            false => self.policies(&format!("{at}.policies"), at, &policies, &around.policies, level),
        };
        let rewrite = self.rewrite(&format!("{at}.rewrite"), rewrite, matched);
        self.check_timeouts(&format!("{at}.timeouts"), &timeouts);
        self.check_retry(&format!("{at}.retry"), &retry);
        let mirror = mirror.and_then(|document::Mirror { upstream, share }| {
            let upstream = self.use_upstream(&format!("{at}.mirror.upstream"), &upstream, upstreams)?;
            Some(Mirror { upstream, share: share.unwrap_or(Percent::whole(100)) })
        });
        let split = upstream.map(|OrText(split)| self.split(&format!("{at}.upstream"), split, upstreams));
        let elsewhere = [("redirect", redirect.is_some()), ("respond", respond.is_some())];
        for (instead, _) in elsewhere.into_iter().filter(|(_, written)| *written) {
            for field in ["upstream", "mirror", "rewrite", "timeouts", "retry"] {
                if at != around.at && self.is_written(at, field) {
                    self.error(&format!("{at}.{field}"), format!("`{field}` has no meaning beside `{instead}`"));
                }
            }
        }
        let redirected = redirect.map(|redirect| self.redirect(&format!("{at}.redirect"), redirect, matched));
        let responded = respond.map(|respond| self.respond(&format!("{at}.respond"), respond));
        let action = match (redirected, responded) {
            (None, None) => {
                let Some(split) = split.or_else(|| around.split.clone()) else {
                    if !self.is_without_upstream_by_mistake(at) && !self.is_without_upstream_by_mistake(&around.at) {
                        self.error(at, "leads nowhere; expected `upstream`, `redirect` or `respond`");
                    }
                    return None;
                };
                // With several upstreams the first one's settings are what api and route refine.
                let first = split.first()?.upstream.clone();
                let timeouts = refine_timeouts(&timeouts, &refine_timeouts(&around.timeouts, &first.timeouts));
                let retry = refine_retry(&retry, &refine_retry(&around.retry, &first.retry));
                Action::Forward(Box::new(Forward { split, mirror, rewrite, timeouts, retry, forwarded: true }))
            }
            (Some(action), None) | (None, Some(action)) => action?,
            (Some(_), Some(_)) => {
                self.error(at, "leads to more than one place; expected one of `redirect` and `respond`");
                return None;
            }
        };
        let matched = matched?;
        let name: Arc<str> = name.unwrap_or_else(|| format!("{}/{place}", around.api.name)).into();
        let summary = summary(matched);
        Some(Route {
            index,
            api: around.api.clone(),
            place: Arc::new(Place { api: around.api.name.clone(), route: name.clone() }),
            scope: scope(&around.api.name, &name, &summary, &action),
            name,
            at: at.to_owned(),
            summary,
            policies,
            action,
        })
    }

    /// The only route of an api of models.
    fn llm_route(
        &mut self,
        index: u32,
        around: &Around,
        written: &document::Llm,
        models: &Models,
    ) -> Option<(Route, RouteMatch)> {
        let at = format!("{}.llm", around.at);
        let llm = self.llm(&at, written, models);
        self.check_vectors(around, models);
        let begin = document::Match { prefix: written.prefix.clone(), ..document::Match::default() };
        let matched = self.route_match(&at, &begin, around)?;
        let name: Arc<str> = format!("{}/0", around.api.name).into();
        let summary = summary(&matched);
        let action = Action::Models(Box::new(llm));
        let route = Route {
            index,
            api: around.api.clone(),
            place: Arc::new(Place { api: around.api.name.clone(), route: name.clone() }),
            scope: scope(&around.api.name, &name, &summary, &action),
            name,
            at,
            summary,
            policies: around.policies.clone(),
            action,
        };
        Some((route, matched))
    }

    /// That the model which is to give vectors is there and can.
    fn check_vectors(&mut self, around: &Around, models: &Models) {
        let cache = around.policies.answer_cache.as_ref();
        let Some(semantic) = cache.and_then(|cache| cache.semantic.as_ref()) else { return };
        let own = format!("{}.policies", around.at);
        let at = if self.is_written(&own, "answer-cache") { own } else { "policies".to_owned() };
        let at = format!("{at}.answer-cache.semantic.model");
        let Some(model) = models.all.iter().find(|model| model.name == semantic.model) else {
            if !self.is_lost("models", &semantic.model) {
                let help = nearest(&semantic.model, models.all.iter().map(|model| &*model.name));
                self.error_with(&at, format!("there is no model `{}`", semantic.model), help);
            }
            return;
        };
        let gives = |candidate: &Arc<Candidate>| {
            candidate.provider.row.speaks_to(Dialect::OpenAiEmbeddings, Operation::Embed, &candidate.model).is_some()
        };
        if !model.candidates.is_empty() && !model.candidates.iter().any(gives) {
            let message = format!("no provider of `{}` gives vectors in the words of OpenAI's embeddings", model.name);
            self.error(&at, message);
        }
    }

    /// Where it leads has been written in a way that could not be read.
    fn is_without_upstream_by_mistake(&self, at: &str) -> bool {
        let fields = ["upstream", "redirect", "respond"];
        self.misnamed(at) || fields.iter().any(|field| self.lost.has(&self.original(&format!("{at}.{field}"))))
    }

    fn split(&mut self, at: &str, Split(Named(written)): Split, upstreams: &mut Upstreams) -> Vec<Weighted> {
        let several = written.len() > 1;
        if written.is_empty() {
            self.error(at, "no upstream; expected a name, a URL or names with weights");
        }
        let mut split = Vec::new();
        let mut sum = 0u64;
        for (name, weight) in &written {
            // Written alone, the name is the value; in a map it is a key.
            let inner = key(at, name);
            let (_, found) = self.tree.find(&crate::source::steps(&inner));
            let place = if several || found == inner { &inner } else { at };
            sum += u64::from(*weight);
            if let Some(upstream) = self.use_upstream(place, name, upstreams)
                && *weight > 0
            {
                split.push(Weighted { upstream, weight: *weight });
            }
        }
        if !written.is_empty() && sum == 0 {
            self.error(at, "all weights are zero, so no upstream would get a call");
        }
        if sum > u64::from(u32::MAX) {
            self.error(at, "the weights are too large together");
        }
        split
    }

    fn redirect(&mut self, at: &str, written: document::Redirect, matched: Option<&RouteMatch>) -> Option<Action> {
        let document::Redirect { status, scheme, host, port, path, prefix } = written;
        let code = status.unwrap_or(302);
        let status = StatusCode::from_u16(code).ok().filter(|_| matches!(code, 301 | 302 | 303 | 307 | 308));
        if status.is_none() {
            self.error(&format!("{at}.status"), format!("{code} is no redirect; expected 301, 302, 303, 307 or 308"));
        }
        let scheme = match scheme.as_deref() {
            None => None,
            Some("http") => Some(Scheme::Http),
            Some("https") => Some(Scheme::Https),
            Some(other) => {
                self.error(&format!("{at}.scheme"), format!("found `{other}`, expected `http` or `https`"));
                None
            }
        };
        if let Some(host) = host.as_ref().filter(|host| !is_host(host)) {
            self.error(&format!("{at}.host"), format!("`{host}` is not a host's name"));
        }
        let path = self.path_rewrite(at, path, prefix, matched);
        if scheme.is_none() && host.is_none() && port.is_none() && path.is_none() {
            self.error(at, "leads back to itself; expected another `scheme`, `host`, `port`, `path` or `prefix`");
        }
        Some(Action::Redirect(Redirect { status: status?, scheme, host, port, path }))
    }

    fn respond(&mut self, at: &str, written: document::Respond) -> Option<Action> {
        let document::Respond { status, headers: Named(written), body } = written;
        let code = status.unwrap_or(200);
        let status = StatusCode::from_u16(code).ok().filter(|_| (200..600).contains(&code));
        if status.is_none() {
            self.error(&format!("{at}.status"), format!("{code} is no answer's status; expected 200 to 599"));
        }
        let mut headers = Headers::new();
        for (name, value) in written {
            let at = key(&format!("{at}.headers"), &name);
            if !Headers::is_name(&name) {
                self.error(&at, format!("`{name}` is not a header's name"));
            } else if !Headers::is_value(value.as_bytes()) {
                self.error(&at, "not a header's value: it has control characters, or spaces around it");
            } else {
                headers.append(&name, value);
            }
        }
        Some(Action::Respond(Respond { status: status?, headers, body: body.into_bytes() }))
    }

    fn rewrite(&mut self, at: &str, written: document::Rewrite, matched: Option<&RouteMatch>) -> Rewrite {
        let document::Rewrite { path, prefix, host } = written;
        let host = host.map(|host| match host.as_str() {
            "endpoint" => HostRewrite::Endpoint,
            _ => {
                if !is_host(host.split(':').next().unwrap_or_default()) {
                    self.error(
                        &format!("{at}.host"),
                        format!("`{host}` is not a host's name; expected one, or `endpoint`"),
                    );
                }
                HostRewrite::To(host)
            }
        });
        Rewrite { path: self.path_rewrite(at, path, prefix, matched), host }
    }

    fn path_rewrite(
        &mut self,
        at: &str,
        path: Option<String>,
        prefix: Option<String>,
        matched: Option<&RouteMatch>,
    ) -> Option<PathRewrite> {
        match (path, prefix) {
            (None, None) => None,
            (Some(path), None) => {
                let at = format!("{at}.path");
                let wanted = match PathMatch::template(&path) {
                    Ok(PathMatch::Template(parts)) => parts,
                    Ok(_) => Vec::new(),
                    Err(message) => {
                        self.error(&at, message);
                        return None;
                    }
                };
                let known: Vec<&str> = match matched.map(|matched| &matched.path) {
                    Some(PathMatch::Template(parts)) => parts.iter().filter_map(param).collect(),
                    _ => Vec::new(),
                };
                let unknown = wanted.iter().filter_map(param).filter(|name| !known.contains(name));
                for name in unknown.filter(|_| matched.is_some()) {
                    let message = format!("the match has no parameter `{{{name}}}`");
                    self.error_with(&at, message, nearest(name, known.iter().copied()));
                }
                Some(PathRewrite::Full(path))
            }
            (None, Some(prefix)) => {
                if !prefix.starts_with('/') {
                    self.error(&format!("{at}.prefix"), "a path begins with `/`");
                }
                if matched.is_some_and(|matched| !matches!(matched.path, PathMatch::Prefix(_))) {
                    self.error(&format!("{at}.prefix"), "the match has no `prefix` that this could replace");
                }
                Some(PathRewrite::Prefix(prefix))
            }
            (Some(_), Some(_)) => {
                self.error(at, "expected one of `path` and `prefix`, not both");
                None
            }
        }
    }

    // === What matches ===

    fn route_match(&mut self, at: &str, written: &document::Match, around: &Around) -> Option<RouteMatch> {
        let document::Match { path, prefix, regex, method, headers, query } = written;
        let at = format!("{at}.match");
        // Read without a part of it, the match would take calls that it was not meant to.
        let broken = self.broken(&at);
        let before = self.diagnostics.len();
        let path = match (path, prefix, regex) {
            (Some(path), None, None) => match PathMatch::template(path) {
                Ok(_) if !path.contains('{') => Some(PathMatch::Exact(path.clone())),
                Ok(template) => Some(template),
                Err(message) => {
                    self.error(&format!("{at}.path"), message);
                    None
                }
            },
            (None, Some(prefix), None) => {
                if !prefix.starts_with('/') {
                    self.error(&format!("{at}.prefix"), "a path begins with `/`");
                }
                Some(PathMatch::prefix(prefix))
            }
            (None, None, Some(regex)) => self.regex(&format!("{at}.regex"), regex).map(PathMatch::Regex),
            (None, None, None) => Some(PathMatch::prefix("/")),
            _ => {
                self.error(&at, "expected one of `path`, `prefix`, `regex`, not several");
                None
            }
        };
        let mut methods: Vec<Method> = Vec::new();
        for (index, name) in method.values.iter().enumerate() {
            let place = if method.list { format!("{at}.method[{index}]") } else { format!("{at}.method") };
            match Method::from_bytes(name.as_bytes()) {
                Ok(method) if !name.bytes().any(|b| b.is_ascii_lowercase()) => methods.push(method),
                _ => {
                    let message = format!("`{name}` is not a method; methods are in capitals, such as `GET`");
                    self.error(&place, message);
                }
            }
        }
        let mut fields = Vec::new();
        for (name, OrText(wanted)) in &headers.0 {
            let at = key(&format!("{at}.headers"), name);
            if !Headers::is_name(name) {
                self.error(&at, format!("`{name}` is not a header's name"));
            }
            fields.extend(self.wanted(&at, wanted).map(|wanted| (name.to_ascii_lowercase(), wanted)));
        }
        let mut parameters = Vec::new();
        for (name, OrText(wanted)) in &query.0 {
            let at = key(&format!("{at}.query"), name);
            parameters.extend(self.wanted(&at, wanted).map(|wanted| (name.clone(), wanted)));
        }
        if broken || self.diagnostics.len() > before {
            return None;
        }
        Some(RouteMatch {
            listeners: around.listeners.clone(),
            hosts: around.hosts.clone(),
            path: path?,
            methods,
            headers: fields,
            query: parameters,
        })
    }

    fn wanted(&mut self, at: &str, wanted: &document::Wanted) -> Option<ValueMatch> {
        match wanted {
            document::Wanted { exact: Some(value), .. } => Some(ValueMatch::Exact(value.clone())),
            document::Wanted { regex: Some(regex), present: None, .. } => {
                self.regex(&format!("{at}.regex"), regex).map(ValueMatch::Regex)
            }
            document::Wanted { regex: None, present: Some(present), .. } => Some(ValueMatch::Present(*present)),
            _ => {
                self.error(at, "expected a value in quotes, or one of `regex` and `present`");
                None
            }
        }
    }

    /// One that must match from end to end.
    fn regex(&mut self, at: &str, text: &str) -> Option<Regex> {
        // Alone first: `a)|(b` must not become right by the brackets around it.
        let regex = Regex::new(text).and_then(|_| Regex::new(&format!("^(?:{text})$")));
        match regex {
            Ok(regex) => Some(regex),
            Err(error) => {
                let reason = error.to_string();
                let reason = reason.lines().last().unwrap_or_default();
                self.error(at, format!("not a regular expression: {}", reason.trim_start_matches("error: ")));
                None
            }
        }
    }

    fn hosts(&mut self, at: &str, written: OneOrMany) -> Vec<HostPattern> {
        if written.values.is_empty() {
            return vec![HostPattern::Any];
        }
        let mut hosts = Vec::new();
        for (index, host) in written.values.iter().enumerate() {
            let place = if written.list { format!("{at}[{index}]") } else { at.to_owned() };
            let name = host.to_ascii_lowercase();
            let bare = name.strip_prefix("*.").unwrap_or(&name);
            let literal = name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>().is_ok();
            if !is_host(bare) && !literal {
                let message = format!(
                    "`{host}` is not a host; expected one such as `api.example.com` or `*.example.com`, without a port"
                );
                self.error(&place, message);
                continue;
            }
            hosts.push(match name.strip_prefix("*.") {
                Some(suffix) => HostPattern::Wildcard(suffix.into()),
                None => HostPattern::Exact(name),
            });
        }
        hosts
    }

    fn listeners_named(&mut self, at: &str, written: OneOrMany, listeners: &[Arc<Listener>]) -> Vec<usize> {
        if written.values.is_empty() {
            return (0..listeners.len()).collect();
        }
        let mut found = Vec::new();
        for (index, name) in written.values.iter().enumerate() {
            let place = if written.list { format!("{at}[{index}]") } else { at.to_owned() };
            match listeners.iter().position(|listener| *listener.name == **name) {
                Some(listener) => found.push(listener),
                None if self.is_lost("listeners", name) => {}
                None => {
                    let help = nearest(name, listeners.iter().map(|listener| &*listener.name));
                    self.error_with(&place, format!("there is no listener `{name}`"), help);
                }
            }
        }
        found
    }

    /// Two routes that take the same calls: the second would never be asked.
    fn conflicts(&mut self, routes: &[Arc<Route>], matches: &[RouteMatch]) {
        let mut first: HashMap<(usize, HostPattern, String), usize> = HashMap::new();
        for (index, matched) in matches.iter().enumerate() {
            let what = identity(matched);
            let mut told = false;
            for listener in &matched.listeners {
                for host in &matched.hosts {
                    let other = *first.entry((*listener, host.clone(), what.clone())).or_insert(index);
                    if other != index && !told {
                        told = true;
                        let message = format!("takes the same calls as `{}`", self.original(&routes[other].at));
                        self.error(&routes[index].at, message);
                    }
                }
            }
        }
    }
}

/// What a route's answers depend on besides the request: where it leads.
fn scope(api: &str, name: &str, summary: &str, action: &Action) -> [u8; 16] {
    let mut text = format!("{api}\0{name}\0{summary}");
    if let Action::Forward(forward) = action {
        let Forward { split, rewrite, .. } = &**forward;
        for Weighted { upstream, .. } in split {
            text.push('\0');
            text.push_str(&upstream.name);
        }
        text.push_str(&format!("\0{rewrite:?}"));
    }
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let mut scope = [0; 16];
    scope.copy_from_slice(&digest.as_ref()[..16]);
    scope
}

fn param(part: &Part) -> Option<&str> {
    match part {
        Part::Param(name) => Some(name),
        Part::Literal(_) => None,
    }
}

/// Equal for matches that take the same paths, methods, headers and queries.
fn identity(matched: &RouteMatch) -> String {
    // As the router compares them: segment by segment, decoded.
    let segments = |path: &str| path.split('/').skip(1).map(|text| Some(decode(text).into_owned())).collect::<Vec<_>>();
    let path = match &matched.path {
        PathMatch::Template(parts) => {
            let parts = parts.iter().map(|part| match part {
                Part::Literal(text) => Some(decode(text).into_owned()),
                Part::Param(_) => None,
            });
            format!("path {:?}", parts.collect::<Vec<_>>())
        }
        PathMatch::Exact(path) => format!("path {:?}", segments(path)),
        PathMatch::Prefix(prefix) => format!("prefix {:?}", segments(prefix)),
        PathMatch::Regex(regex) => format!("regex {}", regex.as_str()),
    };
    let mut methods: Vec<&str> = matched.methods.iter().map(Method::as_str).collect();
    methods.sort_unstable();
    methods.dedup();
    let sorted = |wanted: &[(String, ValueMatch)]| {
        let mut words: Vec<String> = wanted.iter().map(|(name, wanted)| format!("{name} {wanted:?}")).collect();
        words.sort_unstable();
        words
    };
    format!("{path} {methods:?} {:?} {:?}", sorted(&matched.headers), sorted(&matched.query))
}

fn path_words(path: &PathMatch) -> String {
    match path {
        PathMatch::Exact(path) => path.clone(),
        PathMatch::Template(parts) => parts
            .iter()
            .map(|part| match part {
                Part::Literal(text) => format!("/{text}"),
                Part::Param(name) => format!("/{{{name}}}"),
            })
            .collect(),
        PathMatch::Regex(regex) => format!("~{}", regex.as_str()),
        PathMatch::Prefix(prefix) => format!("{prefix}/*"),
    }
}

/// `GET orders.example.com/v2/orders/{id} x-beta`.
fn summary(matched: &RouteMatch) -> String {
    let mut words = Vec::new();
    if !matched.methods.is_empty() {
        words.push(matched.methods.iter().map(Method::as_str).collect::<Vec<_>>().join("|"));
    }
    let hosts = matched.hosts.iter().map(|host| match host {
        HostPattern::Exact(name) => name.clone(),
        HostPattern::Wildcard(suffix) => format!("*.{suffix}"),
        HostPattern::Any => String::new(),
    });
    words.push(format!("{}{}", hosts.collect::<Vec<_>>().join("|"), path_words(&matched.path)));
    let value = |(name, wanted): &(String, ValueMatch)| match wanted {
        ValueMatch::Exact(value) => format!("{name}={value}"),
        ValueMatch::Regex(regex) => format!("{name}~{}", regex.as_str()),
        ValueMatch::Present(true) => name.clone(),
        ValueMatch::Present(false) => format!("!{name}"),
    };
    words.extend(matched.headers.iter().map(value));
    words.extend(matched.query.iter().map(|parameter| format!("?{}", value(parameter))));
    words.join(" ")
}
