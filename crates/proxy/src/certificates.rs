//! The certificates that listeners show, for whoever asks: which, how long they are valid, and what becomes of them.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use telemetry::{Figure, Row};
use transport::tls;

use crate::acme::Certificate;
use crate::status::Upstreams;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateStatus {
    /// Its name, or `admin`.
    pub listener: Arc<str>,
    /// `listeners.web.tls.certificates[0]`.
    pub at: String,
    /// The hosts it covers, or is to cover.
    pub names: Vec<String>,
    /// Absent while there is none.
    pub not_before: Option<SystemTime>,
    pub not_after: Option<SystemTime>,
    /// Of one that an authority issues.
    pub issue: Option<Issue>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    pub directory: String,
    /// When it is asked for, the first time or again.
    pub next: Option<SystemTime>,
    /// Why it was not issued the last time, and how often in a row.
    pub error: Option<String>,
    pub failures: u32,
}

impl Upstreams {
    pub fn certificates(&self) -> Vec<CertificateStatus> {
        let generation = self.generation();
        let mut all = Vec::new();
        for (listener, issued) in generation.snapshot.listeners.iter().zip(&generation.certificates) {
            let written = listener.tls.iter().flat_map(|tls| &tls.certificates);
            all.extend(written.filter_map(|written| CertificateStatus::written(&listener.name, written)));
            if let Some(issued) = issued {
                all.push(CertificateStatus::issued(&listener.name, issued));
            }
        }
        let admin: Arc<str> = "admin".into();
        let written = generation.snapshot.admin.tls.iter().flat_map(|tls| &tls.certificates);
        all.extend(written.filter_map(|written| CertificateStatus::written(&admin, written)));
        all
    }

    /// The same as numbers.
    pub(crate) fn certificate_figures(&self) -> Vec<Figure> {
        let all = self.certificates();
        let figure = |name, help, value: fn(&CertificateStatus) -> Option<u64>| {
            let row = |it: &CertificateStatus| {
                let name = it.names.first().map_or("", String::as_str).into();
                Some(Row { labels: vec![("listener", it.listener.clone()), ("name", name)], value: value(it)? })
            };
            Figure { name, help, counter: false, rows: all.iter().filter_map(row).collect() }
        };
        vec![
            figure(
                "weir_certificate_expiry_seconds",
                "When a certificate ends, since the epoch; 0 for none yet",
                |it| {
                    let end = it.not_after.and_then(|end| end.duration_since(UNIX_EPOCH).ok());
                    Some(end.map_or(0, |end| end.as_secs()))
                },
            ),
            figure("weir_certificate_failures", "Attempts in a row to have a certificate issued that failed", |it| {
                it.issue.as_ref().map(|issue| issue.failures.into())
            }),
        ]
    }
}

impl CertificateStatus {
    fn written(listener: &Arc<str>, written: &config::Certificate) -> Option<CertificateStatus> {
        let (names, validity) = tls::covers(&written.chain)?;
        Some(CertificateStatus {
            listener: listener.clone(),
            at: written.at.clone(),
            names,
            not_before: Some(validity.not_before),
            not_after: Some(validity.not_after),
            issue: None,
        })
    }

    fn issued(listener: &Arc<str>, certificate: &Certificate) -> CertificateStatus {
        let validity = certificate.live.validity();
        let told = certificate.told().clone();
        CertificateStatus {
            listener: listener.clone(),
            at: format!("listeners.{listener}.tls.acme"),
            names: certificate.wanted.domains.clone(),
            not_before: validity.map(|it| it.not_before),
            not_after: validity.map(|it| it.not_after),
            issue: Some(Issue {
                directory: certificate.wanted.directory.clone(),
                next: told.next,
                error: told.error,
                failures: told.failures,
            }),
        }
    }
}
