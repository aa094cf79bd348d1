//! One order, from the account to the certificate.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use config::AcmeChallenge;
use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Error, ExternalAccountKey, Identifier, NewAccount, NewOrder, Order,
    OrderStatus, RetryPolicy,
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use transport::tls::Live;

use super::client::Client;
use super::{Certificate, Tokens, files};

/// Gets a certificate: the chain and its key, in one PEM.
pub async fn obtain(certificate: &Certificate, client: &Client, tokens: &Arc<Tokens>) -> Result<String, Error> {
    let wanted = &certificate.wanted;
    let account = account(wanted, client).await?;
    let identifiers: Vec<_> = wanted.domains.iter().cloned().map(Identifier::Dns).collect();
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await?;
    // Taken away when the order has ended, however it did.
    let mut answers = Answers { tokens, live: &certificate.live, given: Vec::new() };
    answer_all(&mut order, wanted.challenge, &mut answers).await?;
    if order.poll_ready(&patience()).await? != OrderStatus::Ready {
        return Err(Error::Other(why_invalid(&mut order).await.into()));
    }
    drop(answers);
    let key = order.finalize().await?;
    let chain = order.poll_certificate(&patience()).await?;
    Ok(format!("{chain}\n{key}"))
}

/// The account that is kept, or a new one.
async fn account(wanted: &config::Acme, client: &Client) -> Result<Account, Error> {
    let path = files::account(wanted);
    if let Some(kept) = files::read(&path).map_err(other)? {
        match serde_json::from_slice(&kept) {
            Ok(credentials) => {
                return Account::builder_with_http(Box::new(client.clone())).from_credentials(credentials).await;
            }
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "the account that is kept cannot be read; another is made");
            }
        }
    }
    let external = wanted.external_account.as_ref();
    let external = external.map(|it| ExternalAccountKey::new(it.id.clone(), it.key.expose()));
    let contact: Vec<_> = wanted.contact.iter().map(String::as_str).collect();
    let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let builder = Account::builder_with_http(Box::new(client.clone()));
    let (account, credentials) = builder.create(&new, wanted.directory.clone(), external.as_ref()).await?;
    files::write(&path, &serde_json::to_vec(&credentials)?).map_err(other)?;
    tracing::info!(directory = wanted.directory, "an account was made at the authority");
    Ok(account)
}

/// Has the answer ready for each name that is not proved yet, and says so.
async fn answer_all(order: &mut Order, by: AcmeChallenge, answers: &mut Answers<'_>) -> Result<(), Error> {
    let kind = match by {
        AcmeChallenge::Http01 => ChallengeType::Http01,
        AcmeChallenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
    };
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        match authorization.status {
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            status => return Err(Error::Other(format!("an authorization is {status:?}").into())),
        }
        let Some(mut challenge) = authorization.challenge(kind.clone()) else {
            return Err(Error::Other(format!("the authority does not offer {kind:?} for this name").into()));
        };
        let name = challenge.identifier().to_string();
        let proof = challenge.key_authorization();
        match by {
            AcmeChallenge::Http01 => answers.by_http(&challenge.token, proof.as_str()),
            AcmeChallenge::TlsAlpn01 => answers.by_tls(&name, proof.as_str())?,
        }
        challenge.set_ready().await?;
    }
    Ok(())
}

/// What the authority found wrong with the answers: it says so of each name, not of the order.
async fn why_invalid(order: &mut Order) -> String {
    let mut reasons = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        if authorization.refresh().await.is_err() {
            continue;
        }
        let name = authorization.identifier().to_string();
        let errors = authorization.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
        reasons.extend(errors.map(|error| format!("{name}: {error}")));
    }
    match &reasons[..] {
        [] => "the authority calls the order invalid and does not say why".to_owned(),
        reasons => reasons.join("; "),
    }
}

/// The answers that wait for the authority's questions.
struct Answers<'a> {
    tokens: &'a Tokens,
    live: &'a Live,
    given: Vec<Given>,
}

enum Given {
    Token(String),
    Name(String),
}

impl Answers<'_> {
    fn by_http(&mut self, token: &str, answer: &str) {
        self.tokens.set(token, answer);
        self.given.push(Given::Token(token.to_owned()));
    }

    /// A certificate of our own making, with the proof in it (RFC 8737, 3).
    fn by_tls(&mut self, name: &str, proof: &str) -> Result<(), Error> {
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).map_err(other)?;
        let proof = digest(&SHA256, proof.as_bytes());
        params.custom_extensions = vec![rcgen::CustomExtension::new_acme_identifier(proof.as_ref())];
        let key = rcgen::KeyPair::generate().map_err(other)?;
        let certificate = params.self_signed(&key).map_err(other)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        self.live.answer(name, certificate.der().clone(), key, &crate::node::provider()).map_err(other)?;
        self.given.push(Given::Name(name.to_owned()));
        Ok(())
    }
}

impl Drop for Answers<'_> {
    fn drop(&mut self) {
        for given in &self.given {
            match given {
                Given::Token(token) => self.tokens.forget(token),
                Given::Name(name) => self.live.forget(name),
            }
        }
    }
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Other(Box::new(error))
}

/// How long an authority may take to look, and to issue.
fn patience() -> RetryPolicy {
    RetryPolicy::new().timeout(std::time::Duration::from_secs(90))
}
