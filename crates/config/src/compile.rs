//! From a source to a snapshot, or to all that is wrong with it.
//!
//! The tree is read into the document's types. Where that fails, the error is noted, what offends is
//! taken out of the tree, and it is read again; so the checks of meaning see all that can be understood.
//! What was taken out is remembered: nobody is told that an upstream is unknown whose definition is broken.

mod consumers;
mod listeners;
mod routes;
mod telemetry;
mod upstreams;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use base::{Secret, SecretRef};
use policy::{CompileEnv, Keys, Policies, Specs};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;

use crate::de::Kind;
use crate::diagnostic::{Diagnostic, Severity, nearest};
use crate::document::{self, Document};
use crate::files::Files;
use crate::snapshot::{Certificate, Node, Revision, Snapshot};
use crate::source::{self, Source, Step};

/// The snapshot of a document with its warnings, or all its errors (and warnings). Limits that `previous`
/// has and that are still written so keep their counts.
pub fn compile(
    source: &Source,
    files: &dyn Files,
    previous: Option<&Snapshot>,
) -> Result<(Snapshot, Vec<Diagnostic>), Vec<Diagnostic>> {
    let mut tree = source.parse()?;
    let mut lost = HashSet::new();
    let mut diagnostics = Vec::new();
    let document = read(source, &mut tree, &mut lost, &mut diagnostics);
    let mut context = Context { source, files, tree, lost, diagnostics, previous, written: Vec::new() };
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
    lost: &mut HashSet<String>,
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
                let mut inner = path.clone();
                source::push_key(&mut inner, field);
                consequence = lost.contains(&inner);
            }
            Kind::Value => {}
        }
        if !consequence {
            let mut diagnostic = source.diagnostic(Severity::Error, span, path.clone(), error.message);
            diagnostic.help = help;
            diagnostics.push(diagnostic);
        }
        lost.insert(path);
        if !tree.remove(&steps) {
            return None;
        }
    }
}

/// What all the checks share.
pub(crate) struct Context<'a> {
    source: &'a Source,
    files: &'a dyn Files,
    /// As far as it could be read.
    tree: source::Node,
    /// Paths that were taken out of it.
    lost: HashSet<String>,
    diagnostics: Vec<Diagnostic>,
    previous: Option<&'a Snapshot>,
    /// The policies of each place, without those around it.
    written: Vec<Arc<Policies>>,
}

impl Context<'_> {
    fn snapshot(&mut self, document: Document) -> Snapshot {
        let Document { version, node, listeners, upstreams, policies, apis, consumers, telemetry } = document;
        match version {
            Some(1) => {}
            Some(other) => self.error("version", format!("version {other} is not known; expected 1")),
            None if self.lost.contains("version") => {}
            None => self.error("", "field `version` is missing; expected `version: 1`"),
        }
        let listeners = self.listeners(listeners);
        let mut upstreams = self.upstreams(upstreams);
        let (consumers, keys) = self.consumers(consumers);
        let (apis, routes, router) = self.routes(apis, policies, &listeners, &mut upstreams, keys, consumers.len());
        let telemetry = self.telemetry(telemetry);
        let workers = node.workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, Into::into));
        if workers == 0 {
            self.error("node.workers", "no worker at all; expected 1 or more");
        }
        Snapshot {
            revision: Revision { hash: self.hash(), source: self.source.name.clone() },
            node: Node { workers, drain: node.drain.map_or(Duration::from_secs(30), |span| span.0) },
            listeners,
            upstreams: self.finish_upstreams(upstreams),
            apis,
            routes,
            consumers,
            telemetry,
            router,
            written: std::mem::take(&mut self.written),
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
        let mut diagnostic = self.source.diagnostic(severity, span, path, message);
        diagnostic.help = help;
        self.diagnostics.push(diagnostic);
    }

    fn is_lost(&self, collection: &str, name: &str) -> bool {
        self.lost.contains(collection) || self.lost.contains(&key(collection, name))
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
        let mut env = CompileEnv::new(level.keys.clone(), scope);
        env.previous = level.previous.get(scope).copied();
        env.consumers = level.consumers;
        let own = Arc::new(Policies::compile(specs, &mut env));
        for (inner, message) in env.errors {
            self.error(&format!("{at}.{inner}"), message);
        }
        self.written.push(own.clone());
        Arc::new(own.over(around, specs))
    }
}

/// What policies of all levels are compiled with.
struct Level<'a> {
    keys: Arc<Keys>,
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
