//! The authority is spoken to by the transport's own client: a bridge from the ACME library, which wants futures that may
//! move between threads, to one that never leaves its own.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use base::Headers;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use policy::{Asked, Outside, OutsideError, Told};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use transport::dns::Names;

use crate::outside::World;

/// The end that the library holds.
#[derive(Clone)]
pub struct Client {
    errands: mpsc::UnboundedSender<Errand>,
    /// Whom to trust.
    authorities: Option<Arc<[u8]>>,
}

pub struct Errand {
    asked: Asked,
    answer: oneshot::Sender<Result<Told, OutsideError>>,
}

impl Client {
    pub fn new(errands: mpsc::UnboundedSender<Errand>, authorities: Option<Arc<[u8]>>) -> Client {
        Client { errands, authorities }
    }
}

/// The other end, on one thread; runs until nobody holds the first any more.
pub async fn run(mut errands: mpsc::UnboundedReceiver<Errand>, names: Arc<Names>) {
    let seed = base::Time::now().nanos() ^ u64::from(std::process::id()) << 32;
    let world = std::rc::Rc::new(World::new(names, seed));
    let mut under_way = JoinSet::new();
    while let Some(Errand { asked, answer }) = errands.recv().await {
        while under_way.try_join_next().is_some() {}
        let world = world.clone();
        under_way.spawn_local(async move {
            // Who has gone away needs no answer.
            let _ = answer.send(world.ask(asked).await);
        });
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: http::Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let Client { errands, authorities } = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let mut headers = Headers::new();
            for (name, value) in &parts.headers {
                headers.append(name.as_str(), value.as_bytes());
            }
            let (answer, answered) = oneshot::channel();
            let asked = Asked {
                method: parts.method,
                url: parts.uri.to_string(),
                headers,
                body,
                within: PATIENCE,
                most: LARGEST,
                prior_knowledge: false,
                authorities,
            };
            let _ = errands.send(Errand { asked, answer });
            let told = answered.await.map_err(|_| Error::Str("an answer; the node is stopping"))?;
            let Told { status, headers, body, trailers: _ } = told.map_err(|error| Error::Other(Box::new(error)))?;
            let mut response = http::Response::builder().status(status);
            for (name, value) in headers.iter() {
                response = response.header(name, value);
            }
            Ok(BytesResponse::from(response.body(Full::new(body))?))
        })
    }
}

/// For one question to the authority.
const PATIENCE: Duration = Duration::from_secs(30);
/// A chain of certificates is a few KiB.
const LARGEST: usize = 1 << 20;
