//! When: a certificate is asked for at once where there is none, renewed in time, and after a failure again later.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use transport::dns::Names;
use transport::tls::{Identity, Validity};

use super::client::{self, Client, Errand};
use super::{Certificate, Tokens, files, order};
use crate::node::chain;

/// Keeps what it is told to keep, until nobody can tell it any more.
pub async fn keep(mut inbox: mpsc::UnboundedReceiver<Vec<Arc<Certificate>>>, tokens: Arc<Tokens>, names: Arc<Names>) {
    let (errands, sent) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    tasks.spawn_local(client::run(sent, names));
    // By where they are in memory: a certificate that is asked for in another way is another one.
    let mut kept: HashMap<*const Certificate, (Arc<Certificate>, AbortHandle)> = HashMap::new();
    while let Some(wanted) = inbox.recv().await {
        while tasks.try_join_next().is_some() {}
        kept.retain(|at, (certificate, task)| {
            // What fails is tried at once: whoever has changed the document may have mended it.
            let stays = wanted.iter().any(|it| Arc::as_ptr(it) == *at) && certificate.told().error.is_none();
            if !stays {
                task.abort();
            }
            stays
        });
        for certificate in wanted {
            kept.entry(Arc::as_ptr(&certificate)).or_insert_with(|| {
                let task = tasks.spawn_local(keep_one(certificate.clone(), errands.clone(), tokens.clone()));
                (certificate, task)
            });
        }
    }
}

async fn keep_one(certificate: Arc<Certificate>, errands: mpsc::UnboundedSender<Errand>, tokens: Arc<Tokens>) {
    let client = Client::new(errands, certificate.wanted.authorities.clone());
    let domains = &certificate.wanted.domains;
    let mut failures = 0;
    loop {
        let due = match certificate.live.validity() {
            _ if failures > 0 => SystemTime::now() + pause(failures, random()),
            Some(validity) => renewal(validity, random()),
            None => {
                tracing::warn!(?domains, "there is no certificate yet; its names are not served until there is");
                SystemTime::now()
            }
        };
        certificate.told().next = Some(due);
        wait_until(due).await;
        match get(&certificate, &client, &tokens).await {
            Ok(validity) => {
                failures = 0;
                let days = validity.not_after.duration_since(SystemTime::now()).unwrap_or_default().as_secs() / 86_400;
                tracing::info!(?domains, days, "a certificate was issued and is served");
            }
            Err(error) => {
                failures += 1;
                tracing::warn!(?domains, %error, failures, "no certificate was issued");
                let mut told = certificate.told();
                (told.error, told.failures) = (Some(error), failures);
                continue;
            }
        }
        let mut told = certificate.told();
        (told.error, told.failures) = (None, 0);
    }
}

/// Asks for it, keeps it and puts it in place.
async fn get(certificate: &Certificate, client: &Client, tokens: &Arc<Tokens>) -> Result<Validity, String> {
    let within = tokio::time::timeout(LONGEST, order::obtain(certificate, client, tokens)).await;
    let pem = within.map_err(|_| "it took too long".to_owned())?.map_err(|error| chain(&error))?;
    let identity = Identity { chain: pem.as_bytes(), key: pem.as_bytes() };
    let validity = certificate.live.set(identity, &crate::node::provider());
    let validity = validity.map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
    if let Err(error) = files::write(&files::certificate(&certificate.wanted), pem.as_bytes()) {
        // It is served all the same; the next start would ask for another.
        tracing::error!(%error, "a certificate was issued and cannot be kept");
    }
    Ok(validity)
}

/// After two thirds of its life, give or take a little, so that many nodes do not come at once.
fn renewal(validity: Validity, random: f64) -> SystemTime {
    let Validity { not_before, not_after } = validity;
    let life = not_after.duration_since(not_before).unwrap_or_default();
    not_before + life.mul_f64(2.0 / 3.0 - 0.05 + 0.1 * random)
}

/// A minute after the first failure, twice as long after each other one, half a day at most; give or take a fifth.
fn pause(failures: u32, random: f64) -> Duration {
    let pause = FIRST_PAUSE.saturating_mul(1 << (failures - 1).min(16));
    pause.min(LAST_PAUSE).mul_f64(0.8 + 0.4 * random)
}

/// By the clock on the wall, which may be set, and which goes on while the machine sleeps.
async fn wait_until(due: SystemTime) {
    while let Ok(left) = due.duration_since(SystemTime::now()) {
        tokio::time::sleep(left.min(LOOK_AGAIN)).await;
    }
}

/// From 0 to 1.
fn random() -> f64 {
    let mut bytes = [0; 4];
    // Without chance all is as well, only less spread.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}

const FIRST_PAUSE: Duration = Duration::from_secs(60);
const LAST_PAUSE: Duration = Duration::from_secs(12 * 3600);
/// For one order.
const LONGEST: Duration = Duration::from_secs(300);
const LOOK_AGAIN: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_renewed_after_two_thirds_of_its_life() {
        let not_before = SystemTime::UNIX_EPOCH;
        let day = Duration::from_secs(86_400);
        let validity = Validity { not_before, not_after: not_before + day * 90 };
        assert_eq!(renewal(validity, 0.5), not_before + day * 60);
        for (random, days) in [(0.0, 55), (1.0, 64)] {
            assert_eq!(renewal(validity, random).duration_since(not_before).unwrap().as_secs() / 86_400, days);
        }
    }

    #[test]
    fn the_pause_grows_and_has_an_end() {
        let minutes = |failures| pause(failures, 0.5).as_secs() / 60;
        let pauses: Vec<_> = [1, 2, 3, 10, 1000].into_iter().map(minutes).collect();
        assert_eq!(pauses, [1, 2, 4, 512, 720]);
        assert!(pause(1, 0.0) < pause(1, 1.0));
    }
}
