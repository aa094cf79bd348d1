//! From a source to a snapshot, or to all that is wrong with it.
//!
//! The tree is read into the document's types. Where that fails, the error is noted, what offends is
//! taken out of the tree, and it is read again; so the checks of meaning see all that can be understood.
//! A field that must be there gets a stand-in, so that its siblings are checked all the same. All these
//! places are remembered, and what is said about them later is not told: it would be a consequence.

mod admin;
mod consumers;
mod listeners;
mod models;
mod routes;
mod stores;
mod telemetry;
mod upstreams;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base::{Secret, SecretRef};
use policy::{CompileEnv, Credentials, Policies, Specs};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;

use crate::de::Kind;
use crate::diagnostic::{Diagnostic, Severity, nearest};
use crate::document::{self, Document};
use crate::files::Files;
use crate::snapshot::{CacheDisk, Certificate, Dns, Node, Revision, SharedStore, Snapshot};
use crate::source::{self, Source, Step};

/// The snapshot of a document with its warnings, or all its errors (and warnings). Limits that `previous`
/// has and that are still written so keep their counts.
pub fn compile(
    source: &Source,
    files: &dyn Files,
    previous: Option<&Snapshot>,
) -> Result<(Snapshot, Vec<Diagnostic>), Vec<Diagnostic>> {
    let mut tree = source.parse()?;
    let mut lost = Lost::default();
    let mut diagnostics = Vec::new();
    let document = read(source, &mut tree, &mut lost, &mut diagnostics);
    let mut context = Context {
        source,
        files,
        tree,
        lost,
        diagnostics,
        previous,
        zone: None,
        data: None,
        stores: Vec::new(),
        written: Vec::new(),
    };
    let snapshot = document.map(|document| context.snapshot(document));
    let mut diagnostics = context.diagnostics;
    diagnostics.sort_by_key(|diagnostic| diagnostic.span.start);
    match snapshot {
        Some(snapshot) if diagnostics.iter().all(|found| found.severity == Severity::Warning) => {
            Ok((snapshot, diagnostics))
        }
        _ => Err(diagnostics),
    }
}

fn read(
    source: &Source,
    tree: &mut source::Node,
    lost: &mut Lost,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Document> {
    loop {
        let error = match Document::deserialize(&*tree) {
            Ok(document) => return Some(document),
            Err(error) => error,
        };
        let steps: Vec<Step> = error.path.into_iter().rev().collect();
        let (mut span, path) = tree.find(&steps);
        let mut help = None;
        let mut consequence = false;
        let mut stand_in = None;
        match &error.kind {
            Kind::Unknown { expected } => {
                // The key is what is wrong, not its value.
                if let Some((Step::Key(key), around)) = steps.split_last() {
                    span = tree.key_span(around, key).unwrap_or(span);
                    help = nearest(key, expected.iter().copied())
                        .or_else(|| Some(format!("known here: {}", expected.join(", "))));
                }
            }
            Kind::Missing(field) => {
                let inner = key(&path, field);
                consequence = lost.has(&inner);
                stand_in = stands_in(field).filter(|_| lost.stood_in.insert(inner.clone())).map(|text| (*field, text));
                lost.places.insert(inner);
            }
            Kind::Value => consequence = lost.has(&path),
        }
        if !consequence {
            let mut diagnostic = source.diagnostic(Severity::Error, span, path.clone(), error.message);
            diagnostic.help = help;
            diagnostics.push(diagnostic);
        }
        if let Some((field, text)) = stand_in
            && tree.insert(&steps, field, text)
        {
            continue;
        }
        if matches!(error.kind, Kind::Unknown { .. }) {
            lost.unknown.insert(path.clone());
        }
        lost.places.insert(path);
        if !tree.remove(&steps) {
            return None;
        }
    }
}

/// Something that can be read as the field of this name, which is missing.
fn stands_in(field: &str) -> Option<&'static str> {
    match field {
        "cert" | "key" | "authorities" => Some("file:missing"),
        "url" | "endpoint" | "upstream" => Some("http://missing"),
        "id" | "hash" => Some("missing"),
        "per" => Some("all"),
        _ => None,
    }
}

/// Places of the document, in its own numbers, that could not be read.
#[derive(Default)]
struct Lost {
    places: HashSet<String>,
    /// Those that were taken out because their keys are not known.
    unknown: HashSet<String>,
    /// Missing fields that got a stand-in.
    stood_in: HashSet<String>,
}

impl Lost {
    /// The place itself, or one around it.
    fn has(&self, path: &str) -> bool {
        self.places.iter().any(|place| is_within(path, place))
    }

    /// The place itself, or something in it.
    fn touches(&self, path: &str) -> bool {
        self.places.iter().any(|place| is_within(place, path))
    }

    /// A field of this map whose name is not known, so that it may have been meant for any other.
    fn misnamed(&self, path: &str) -> bool {
        self.unknown
            .iter()
            .any(|place| is_within(place, path) && source::steps(place).len() == source::steps(path).len() + 1)
    }
}

fn is_within(path: &str, place: &str) -> bool {
    path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || place.is_empty() || rest.starts_with(['.', '[']))
}

/// What all the checks share.
pub(crate) struct Context<'a> {
    source: &'a Source,
    files: &'a dyn Files,
    /// As far as it could be read.
    tree: source::Node,
    /// What could not.
    lost: Lost,
    diagnostics: Vec<Diagnostic>,
    previous: Option<&'a Snapshot>,
    /// Where the node stands.
    zone: Option<Arc<str>>,
    /// What the node keeps over a restart.
    data: Option<PathBuf>,
    stores: Vec<Arc<SharedStore>>,
    /// The policies of each place, without those around it.
    written: Vec<Arc<Policies>>,
}

impl Context<'_> {
    fn snapshot(&mut self, document: Document) -> Snapshot {
        let Document {
            version,
            node,
            listeners,
            upstreams,
            stores,
            policies,
            apis,
            providers,
            models,
            budgets,
            ledger,
            consumers,
            telemetry,
            admin,
        } = document;
        match version {
            Some(1) => {}
            Some(other) => self.error("version", format!("version {other} is not known; expected 1")),
            None if self.lost.has("version") => {}
            None => self.error("", "field `version` is missing; expected `version: 1`"),
        }
        self.zone = node.zone.map(Into::into);
        self.data = node.data.as_ref().map(|data| self.files.resolve(data));
        let listeners = self.listeners(listeners);
        let mut upstreams = self.upstreams(upstreams);
        self.stores = self.stores(stores);
        let (consumers, credentials) = self.consumers(consumers);
        let (books, ledger) = self.books(ledger, &budgets);
        let models = self.models(providers, models, &books, &mut upstreams);
        let (apis, routes, router) =
            self.routes(apis, policies, &listeners, &mut upstreams, &models, credentials.clone(), consumers.len());
        let telemetry = self.telemetry(telemetry);
        let admin = self.admin(admin, &listeners, telemetry.metrics);
        let workers = node.workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, Into::into));
        if workers == 0 {
            self.error("node.workers", "no worker at all; expected 1 or more");
        }
        Snapshot {
            revision: Revision { hash: self.hash(), source: self.source.name.clone() },
            node: Node {
                workers,
                drain: node.drain.map_or(Duration::from_secs(30), |span| span.0),
                retire: node.retire.map_or(Some(Duration::from_secs(3600)), |it| it.0.map(|span| span.0)),
                cache_memory: node.cache.memory.map_or(64 << 20, |size| usize::try_from(size.0).unwrap_or(usize::MAX)),
                cache_disk: self.cache_disk(node.cache.disk),
                zone: self.zone.clone(),
                connections: node.connections,
                dns: self.dns(node.dns),
            },
            listeners,
            upstreams: self.finish_upstreams(upstreams),
            apis,
            routes,
            consumers,
            credentials,
            stores: std::mem::take(&mut self.stores),
            models,
            books,
            ledger,
            telemetry,
            admin,
            router,
            written: std::mem::take(&mut self.written),
        }
    }

    fn cache_disk(&mut self, written: Option<document::CacheDisk>) -> Option<CacheDisk> {
        let document::CacheDisk { size } = written?;
        let size = size.map_or(1 << 30, |size| size.0);
        if size < 1 << 20 {
            self.error("node.cache.disk.size", "too little to keep answers in; expected `1MiB` or more");
        }
        let Some(data) = &self.data else {
            self.error(
                "node.cache.disk",
                "there is nowhere to keep the answers; say where with `node.data`, such as `/var/lib/weir`",
            );
            return None;
        };
        Some(CacheDisk { folder: data.join("cache"), size })
    }

    fn dns(&mut self, written: document::Dns) -> Dns {
        let document::Dns { servers, stale, gone } = written;
        let servers = servers.iter().enumerate().filter_map(|(index, text)| {
            let bare = || Some((text.trim_matches(['[', ']']).parse::<IpAddr>().ok()?, 53).into());
            let server = text.parse().ok().or_else(bare);
            if server.is_none() {
                self.error(
                    &format!("node.dns.servers[{index}]"),
                    format!("`{text}` is not an address; expected one such as `10.0.0.53` or `127.0.0.1:8600`"),
                );
            }
            server
        });
        Dns {
            servers: servers.collect(),
            stale: stale.map_or(Some(Duration::from_secs(86_400)), |it| it.0.map(|span| span.0)),
            gone: gone.map_or(Duration::from_secs(30), |span| span.0),
        }
    }

    fn hash(&self) -> String {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, self.source.text.as_bytes());
        digest.as_ref()[..6].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn error(&mut self, path: &str, message: impl Into<String>) {
        self.tell(Severity::Error, path, message.into(), None);
    }

    fn error_with(&mut self, path: &str, message: impl Into<String>, help: Option<String>) {
        self.tell(Severity::Error, path, message.into(), help);
    }

    fn warn(&mut self, path: &str, message: impl Into<String>) {
        self.tell(Severity::Warning, path, message.into(), None);
    }

    fn tell(&mut self, severity: Severity, path: &str, message: String, help: Option<String>) {
        let (span, path) = self.tree.find(&source::steps(path));
        if self.lost.has(&path) {
            return;
        }
        let mut diagnostic = self.source.diagnostic(severity, span, path, message);
        diagnostic.help = help;
        self.diagnostics.push(diagnostic);
    }

    fn is_lost(&self, collection: &str, name: &str) -> bool {
        self.lost.has(&key(collection, name))
    }

    /// Whether something at or in this place could not be read.
    fn broken(&self, path: &str) -> bool {
        self.lost.touches(&self.original(path))
    }

    /// What is said about this place is due to what could not be read: a list is empty that lost its
    /// items, a field has a default made from others.
    fn is_consequence(&self, path: &str) -> bool {
        let mut around = source::steps(path);
        let field = around.pop();
        let lacks = matches!(field, Some(Step::Key(key)) if self.tree.key_span(&around, &key).is_none());
        self.broken(path) || lacks && self.lost.touches(&self.tree.find(&around).1)
    }

    /// Whether this map has a field of a name that is not known.
    fn misnamed(&self, path: &str) -> bool {
        self.lost.misnamed(&self.original(path))
    }

    /// The path in the document's own numbers, as if nothing had been taken out.
    fn original(&self, path: &str) -> String {
        self.tree.find(&source::steps(path)).1
    }

    /// Whether the map at this path has this field.
    fn is_written(&self, path: &str, field: &str) -> bool {
        self.tree.key_span(&source::steps(path), field).is_some()
    }

    fn read(&mut self, path: &str, reference: &SecretRef) -> Option<Vec<u8>> {
        match self.files.read(reference) {
            Ok(bytes) => Some(bytes),
            Err(message) => {
                self.error(path, message);
                None
            }
        }
    }

    /// PEM with at least one certificate.
    fn certificates(&mut self, path: &str, reference: &SecretRef) -> Option<Vec<u8>> {
        let pem = self.read(path, reference)?;
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        if !all.is_ok_and(|all| !all.is_empty()) {
            self.error(path, format!("{reference} has no certificate in PEM"));
            return None;
        }
        Some(pem)
    }

    fn certificate(&mut self, at: &str, certificate: &document::Certificate) -> Option<Certificate> {
        let document::Certificate { cert, key } = certificate;
        let chain = self.certificates(&format!("{at}.cert"), cert);
        let path = format!("{at}.key");
        let pem = self.read(&path, key)?;
        if PrivateKeyDer::from_pem_slice(&pem).is_err() {
            self.error(&path, format!("{key} has no private key in PEM"));
            return None;
        }
        Some(Certificate { at: at.to_owned(), chain: chain?, key: Secret::new(pem) })
    }

    /// The policies written at one place, over those around it.
    fn policies(
        &mut self,
        at: &str,
        scope: &str,
        specs: &Specs,
        around: &Arc<Policies>,
        level: &Level<'_>,
    ) -> Arc<Policies> {
        let mut env = CompileEnv::new(level.credentials.clone(), scope);
        env.previous = level.previous.get(scope).copied();
        env.consumers = level.consumers;
        env.stores = self.stores.iter().map(|store| (store.name.clone(), store.nodes)).collect();
        let files = self.files;
        let read = move |reference: &SecretRef| files.read(reference);
        env.read = &read;
        let own = Arc::new(Policies::compile(specs, &mut env));
        for (inner, message) in env.errors {
            let at = format!("{at}.{inner}");
            if !self.is_consequence(&at) {
                self.error(&at, message);
            }
        }
        self.written.push(own.clone());
        Arc::new(own.over(around, specs))
    }
}

/// What policies of all levels are compiled with.
struct Level<'a> {
    credentials: Arc<Credentials>,
    consumers: usize,
    previous: HashMap<&'a str, &'a Policies>,
}

/// `collection.name`, quoted where need be.
fn key(collection: &str, name: &str) -> String {
    let mut path = collection.to_owned();
    source::push_key(&mut path, name);
    path
}

#[cfg(test)]
mod tests;
