//! The certificates that listeners show.

use std::time::{SystemTime, UNIX_EPOCH};

use proxy::{CertificateStatus, Issue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::answer::{Answer, Asked, Problem};

/// All certificates, listener by listener.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Certificates {
    pub certificates: Vec<Certificate>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Certificate {
    /// Its name; `admin` of the admin API's own.
    pub listener: String,
    /// Where the document says it: `listeners.web.tls.certificates[0]`, `listeners.web.tls.acme`.
    pub at: String,
    /// The hosts it covers, or is to cover.
    pub names: Vec<String>,
    /// When it begins and ends, in seconds since the epoch. Absent while there is none: its names are not served.
    pub not_before: Option<u64>,
    pub not_after: Option<u64>,
    /// Of one that an authority issues.
    pub acme: Option<Issued>,
}

/// How it is with the authority.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Issued {
    pub directory: String,
    /// When it is asked for, the first time or again, in seconds since the epoch.
    pub next: Option<u64>,
    /// Why it was not issued the last time.
    pub error: Option<String>,
    /// How often in a row it was not.
    pub failures: u32,
}

pub fn all(asked: &Asked<'_>) -> Result<Answer, Problem> {
    let status = asked.running.with(|node| node.upstreams().certificates()).ok_or_else(Problem::stopping)?;
    Ok(Answer::json(&Certificates { certificates: status.into_iter().map(Certificate::from).collect() }))
}

impl From<CertificateStatus> for Certificate {
    fn from(status: CertificateStatus) -> Certificate {
        let CertificateStatus { listener, at, names, not_before, not_after, issue } = status;
        let acme = issue.map(|Issue { directory, next, error, failures }| Issued {
            directory,
            next: next.map(seconds),
            error,
            failures,
        });
        let (not_before, not_after) = (not_before.map(seconds), not_after.map(seconds));
        Certificate { listener: listener.to_string(), at, names, not_before, not_after, acme }
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
