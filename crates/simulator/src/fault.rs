//! How an upstream goes wrong.

use std::future::pending;
use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use tokio::time::sleep;

use crate::answer::{Answer, piped, text};
use crate::rest::query;
use crate::wire::Control;

/// Long enough for what was written before a fault to have left the machine.
const FLUSHED: Duration = Duration::from_millis(20);

/// Written as in `x-fault: cut=100`. On HTTP/2, `cut` and `reset` end the stream, not the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `cut=N`: the answer ends in an error after N bytes of body.
    Cut(u64),
    /// `reset` or `reset=N`: the connection is reset, before the answer or after N bytes of its body.
    Reset(Option<u64>),
    /// `hang` or `hang=N`: nothing more comes, from the start or after N bytes of body.
    Hang(Option<u64>),
    /// `garbage`: bytes that are not HTTP.
    Garbage,
    /// `status=N`: this status in place of the answer; the request's body is read.
    Status(StatusCode),
    /// `early` or `early=N`: an answer (200 or N) without reading the request's body.
    Early(StatusCode),
    /// `delay=MS`: the answer comes late.
    Delay(u64),
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (word, number) = match text.split_once('=') {
            Some((word, number)) => {
                let number = number.trim().parse::<u64>().map_err(|_| format!("not a number in fault `{text}`"))?;
                (word.trim(), Some(number))
            }
            None => (text.trim(), None),
        };
        let status = |number: Option<u64>| match number {
            Some(number) => u16::try_from(number).ok().and_then(|code| StatusCode::from_u16(code).ok()),
            None => None,
        };
        match (word, number) {
            ("cut", n) => Ok(Self::Cut(n.unwrap_or(0))),
            ("reset", n) => Ok(Self::Reset(n)),
            ("hang", n) => Ok(Self::Hang(n)),
            ("garbage", None) => Ok(Self::Garbage),
            ("status", n) => status(n).map(Self::Status).ok_or_else(|| format!("no status in fault `{text}`")),
            ("early", None) => Ok(Self::Early(StatusCode::OK)),
            ("early", n) => status(n).map(Self::Early).ok_or_else(|| format!("no status in fault `{text}`")),
            ("delay", Some(n)) => Ok(Self::Delay(n)),
            _ => Err(format!("unknown fault `{text}`")),
        }
    }
}

/// The fault a request asks for itself.
pub(crate) fn asked<B>(request: &Request<B>) -> Option<Result<Fault, String>> {
    let header = request.headers().get("x-fault").and_then(|value| value.to_str().ok());
    header.or_else(|| query(request, "fault")).map(str::parse)
}

/// What happens before the service is asked: the request itself, if the service is still to answer it.
pub(crate) async fn before(
    fault: Fault,
    request: Request<Incoming>,
    control: &Control,
) -> Result<Request<Incoming>, io::Result<Answer>> {
    match fault {
        Fault::Reset(None) => {
            control.reset();
            Err(Err(io::ErrorKind::ConnectionReset.into()))
        }
        Fault::Hang(None) => pending().await,
        Fault::Garbage => {
            control.garbage();
            Err(Ok(text(StatusCode::OK, "never seen")))
        }
        Fault::Status(status) => {
            let _ = request.into_body().collect().await;
            Err(Ok(text(status, format!("{status}\n"))))
        }
        Fault::Early(status) => Err(Ok(text(status, "answered before the request's body was read\n"))),
        Fault::Delay(ms) => {
            sleep(Duration::from_millis(ms)).await;
            Ok(request)
        }
        Fault::Cut(_) | Fault::Reset(Some(_)) | Fault::Hang(Some(_)) => Ok(request),
    }
}

/// What happens to the service's answer.
pub(crate) fn after(fault: Fault, answer: Answer, control: &Arc<Control>) -> Answer {
    let (Fault::Cut(limit) | Fault::Reset(Some(limit)) | Fault::Hang(Some(limit))) = fault else { return answer };
    let control = control.clone();
    let (mut head, mut body) = answer.into_parts();
    // The promise of the whole body stays, so that what is missing can be noticed.
    if let Some(length) = hyper::body::Body::size_hint(&body).exact() {
        head.headers.insert(http::header::CONTENT_LENGTH, length.into());
    }
    let (sender, faulty) = piped(1);
    tokio::spawn(async move {
        let mut left = limit as usize;
        while left > 0 {
            let Some(Ok(frame)) = body.frame().await else { break };
            let Ok(mut data) = frame.into_data() else { break };
            data.truncate(left);
            left -= data.len();
            if sender.send(Ok(Frame::data(data))).await.is_err() {
                return;
            }
        }
        sleep(FLUSHED).await;
        match fault {
            Fault::Hang(_) => sender.closed().await,
            Fault::Reset(_) => {
                control.reset();
                let _ = sender.send(Err(io::ErrorKind::ConnectionReset.into())).await;
            }
            _ => {
                let _ = sender.send(Err(io::ErrorKind::UnexpectedEof.into())).await;
            }
        }
    });
    Answer::from_parts(head, faulty)
}
