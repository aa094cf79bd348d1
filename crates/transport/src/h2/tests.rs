//! Each side against the raw `h2` crate as its peer.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use awareness::Arrival;
use base::{Headers, Peer, RequestHead, ResponseHead, Scheme, StatusCode, Time};
use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::{Method, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::timeout;

use super::*;
use crate::{Body, BodyError, Frame, Handler, Pace, Request, Response, SendError, Source, Tunnel};

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async { timeout(Duration::from_secs(20), test).await.expect("in time") });
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(30)).await;
}

// The server, and a raw client.

#[derive(Clone)]
struct Answers<F>(F);

impl<F: AsyncFn(Request) -> Response + Clone + 'static> Handler for Answers<F> {
    async fn handle(&self, request: Request) -> Response {
        (self.0)(request).await
    }

    fn refuse(&self, status: StatusCode, why: &'static str, _: &Arc<Peer>, _: Arrival) -> Response {
        Response::new(ResponseHead::new(status), Body::from(why.as_bytes().to_vec()))
    }
}

fn ok(body: Body) -> Response {
    Response::new(ResponseHead::new(StatusCode::OK), body)
}

type RawClient = h2::client::SendRequest<Bytes>;

struct Served {
    client: RawClient,
    drain: Rc<tokio::sync::Notify>,
    served: tokio::task::JoinHandle<()>,
    driven: tokio::task::JoinHandle<Result<(), h2::Error>>,
}

async fn served(settings: ServerSettings, handler: impl AsyncFn(Request) -> Response + Clone + 'static) -> Served {
    let (near, far) = duplex(1 << 16);
    let drain = Rc::new(tokio::sync::Notify::new());
    let order = drain.clone();
    let served = spawn_local(async move {
        let peer = Arc::new(Peer { remote: None, local: None, tls: None });
        serve(far, peer, Arrival::default(), Answers(handler), &settings, order.notified()).await;
    });
    let (client, connection) = h2::client::handshake(near).await.unwrap();
    let driven = spawn_local(connection);
    Served { client, drain, served, driven }
}

fn get(path: &str) -> http::Request<()> {
    http::Request::builder().uri(format!("http://a.example{path}")).version(Version::HTTP_2).body(()).unwrap()
}

fn post(path: &str) -> http::Request<()> {
    let mut request = get(path);
    *request.method_mut() = Method::POST;
    request
}

async fn read(recv: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut all = Vec::new();
    while let Some(data) = recv.data().await {
        let data = data?;
        all.extend_from_slice(&data);
        recv.flow_control().release_capacity(data.len()).unwrap();
    }
    Ok(all)
}

async fn collect(body: &mut Body) -> Result<(Vec<u8>, Option<Headers>), BodyError> {
    let mut all = Vec::new();
    while let Some(frame) = body.frame().await {
        match frame? {
            Frame::Data(data) => {
                assert!(!data.is_empty());
                all.extend_from_slice(&data);
            }
            Frame::Trailers(trailers) => return Ok((all, Some(*trailers))),
        }
    }
    Ok((all, None))
}

/// A body made of what it is told to be.
struct Script(std::collections::VecDeque<Frame>, Option<BodyError>);

impl Source for Script {
    fn poll_frame(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        Poll::Ready(self.0.pop_front().map(Ok).or_else(|| self.1.take().map(Err)))
    }
}

fn script(frames: impl IntoIterator<Item = Frame>, error: Option<BodyError>) -> Body {
    Body::source(Script(frames.into_iter().collect(), error))
}

#[test]
fn serves_a_call_with_crumbs_joined_and_trailers_both_ways() {
    run(async {
        let mut it = served(ServerSettings::default(), async |mut request: Request| {
            assert_eq!(request.head.authority, "a.example");
            assert_eq!(request.head.target, "/x?y=1");
            assert_eq!(request.head.headers.get("cookie"), Some(&b"a=1; b=2"[..]));
            assert!(request.arrival.first);
            let (body, trailers) = collect(&mut request.body).await.unwrap();
            assert_eq!(trailers.unwrap().get("x-in"), Some(&b"1"[..]));
            let mut response = ok(script(
                [Frame::Data(body.into()), Frame::Trailers(Box::new(Headers::from_iter([("grpc-status", "0")])))],
                None,
            ));
            response.head.headers.append("connection", "x-hop");
            response.head.headers.append("x-hop", "1");
            response.head.headers.append("x-kept", "1");
            response
        })
        .await;
        let mut request = post("/x?y=1");
        request.headers_mut().append("cookie", "a=1".parse().unwrap());
        request.headers_mut().append("cookie", "b=2".parse().unwrap());
        let (response, mut send) = it.client.send_request(request, false).unwrap();
        send.send_data(Bytes::from_static(b"hello"), false).unwrap();
        send.send_trailers([("x-in".parse().unwrap(), "1".parse().unwrap())].into_iter().collect()).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.headers().len(), 1);
        assert_eq!(response.headers()["x-kept"], "1");
        let mut body = response.into_body();
        assert_eq!(read(&mut body).await.unwrap(), b"hello");
        assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
    });
}

#[test]
fn malformed_heads_are_refused() {
    run(async {
        let mut it = served(ServerSettings::default(), async |_| panic!("not reached")).await;
        for (name, value) in [("host", "b.example"), ("content-length", "twice")] {
            let mut request = get("/");
            request.headers_mut().append(name, value.parse().unwrap());
            if name == "content-length" {
                request.headers_mut().clear();
                *request.uri_mut() = "http://user@a.example/".parse().unwrap();
            }
            let (response, _) = it.client.send_request(request, true).unwrap();
            assert_eq!(response.await.unwrap().status(), 400, "{name}");
        }
    });
}

#[test]
fn fifty_streams_at_once_and_a_window_smaller_than_the_answer() {
    run(async {
        let it = served(ServerSettings::default(), async |mut request: Request| {
            let (body, _) = collect(&mut request.body).await.unwrap();
            ok(Body::from(body.repeat(300)))
        })
        .await;
        let mut calls = tokio::task::JoinSet::new();
        for n in 0..50u8 {
            let mut client = it.client.clone();
            calls.spawn_local(async move {
                let (response, mut send) = client.send_request(post("/"), false).unwrap();
                send.send_data(vec![n; 1000].into(), true).unwrap();
                let body = read(response.await.unwrap().body_mut()).await.unwrap();
                assert!(body.len() == 300_000 && body.iter().all(|b| *b == n));
            });
        }
        while let Some(call) = calls.join_next().await {
            call.unwrap();
        }
    });
}

#[test]
fn a_reset_cancels_the_handler_at_once() {
    run(async {
        struct Dropped(Rc<Cell<bool>>);
        impl Drop for Dropped {
            fn drop(&mut self) {
                self.0.set(true);
            }
        }
        let dropped = Rc::new(Cell::new(false));
        let seen = dropped.clone();
        let mut it = served(ServerSettings::default(), async move |_| {
            let _guard = Dropped(seen.clone());
            std::future::pending().await
        })
        .await;
        let (_response, mut send) = it.client.send_request(post("/"), false).unwrap();
        pause().await;
        assert!(!dropped.get());
        send.send_reset(Reason::CANCEL);
        pause().await;
        assert!(dropped.get());
    });
}

#[test]
fn a_panic_ends_its_stream_only() {
    run(async {
        let mut it = served(ServerSettings::default(), async |request: Request| match request.head.path() {
            "/panic" => panic!("as asked"),
            _ => {
                pause().await;
                ok(Body::from(b"fine".to_vec()))
            }
        })
        .await;
        let (fine, _) = it.client.send_request(get("/"), true).unwrap();
        let (panics, _) = it.client.send_request(get("/panic"), true).unwrap();
        assert_eq!(panics.await.unwrap().status(), 500);
        assert_eq!(read(fine.await.unwrap().body_mut()).await.unwrap(), b"fine");
    });
}

#[test]
fn a_request_that_stops_is_idle_until_the_answer_begins() {
    run(async {
        let settings = ServerSettings { pace: Pace::new(Duration::from_millis(50), 0), ..ServerSettings::default() };
        let mut it = served(settings, async |mut request: Request| match request.head.path() {
            "/both-ways" => ok(request.body),
            _ => {
                assert!(matches!(request.body.frame().await, Some(Err(BodyError::Idle))));
                ok(Body::Empty)
            }
        })
        .await;
        let (response, _send) = it.client.send_request(post("/"), false).unwrap();
        assert_eq!(response.await.unwrap().status(), 200);
        let (response, mut send) = it.client.send_request(post("/both-ways"), false).unwrap();
        let mut body = response.await.unwrap().into_body();
        tokio::time::sleep(Duration::from_millis(150)).await;
        send.send_data(Bytes::from_static(b"late"), true).unwrap();
        assert_eq!(read(&mut body).await.unwrap(), b"late");
    });
}

#[test]
fn a_body_that_fails_is_never_a_clean_end() {
    run(async {
        let mut it = served(ServerSettings::default(), async |_| {
            ok(script([Frame::Data(Bytes::from_static(b"half"))], Some(BodyError::Incomplete)))
        })
        .await;
        let (response, _) = it.client.send_request(get("/"), true).unwrap();
        // The reset may overtake the head.
        let error = match response.await {
            Ok(response) => read(&mut response.into_body()).await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
    });
}

#[test]
fn an_early_answer_resets_the_rest_of_the_request_without_error() {
    run(async {
        let mut it = served(ServerSettings::default(), async |_| ok(Body::from(b"no".to_vec()))).await;
        let (response, mut send) = it.client.send_request(post("/"), false).unwrap();
        assert_eq!(read(response.await.unwrap().body_mut()).await.unwrap(), b"no");
        assert_eq!(poll_fn(|cx| send.poll_reset(cx)).await.unwrap(), Reason::NO_ERROR);
    });
}

#[test]
fn a_client_that_does_not_read_loses_its_stream_only() {
    run(async {
        let settings = ServerSettings { pace: Pace::new(Duration::from_millis(50), 0), ..ServerSettings::default() };
        let mut it = served(settings, async |request: Request| match request.head.path() {
            "/big" => ok(Body::from(vec![0; 40_000])),
            _ => ok(Body::from(b"small".to_vec())),
        })
        .await;
        // 65,535 bytes are the whole connection's window: the first takes 40,000 of them.
        let (held, _) = it.client.send_request(get("/big"), true).unwrap();
        let (stuck, _) = it.client.send_request(get("/big"), true).unwrap();
        let held = held.await.unwrap().into_body();
        let mut stuck = stuck.await.unwrap().into_body();
        tokio::time::sleep(Duration::from_millis(150)).await;
        drop(held);
        let error = read(&mut stuck).await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::CANCEL));
        let (small, _) = it.client.send_request(get("/"), true).unwrap();
        assert_eq!(read(small.await.unwrap().body_mut()).await.unwrap(), b"small");
    });
}

#[test]
fn head_no_content_and_not_modified_have_no_body() {
    run(async {
        let mut it = served(ServerSettings::default(), async |request: Request| {
            let mut response = ok(Body::from(b"body".to_vec()));
            response.head.headers.append("content-length", "4");
            if let Ok(status) = request.head.path()[1..].parse() {
                response.head.status = status;
            }
            response
        })
        .await;
        for (method, path, length) in
            [(Method::HEAD, "/", Some("4")), (Method::GET, "/204", None), (Method::GET, "/304", Some("4"))]
        {
            let mut request = get(path);
            *request.method_mut() = method;
            let (response, _) = it.client.send_request(request, true).unwrap();
            let response = response.await.unwrap();
            assert_eq!(response.headers().get("content-length").map(|v| v.to_str().unwrap()), length);
            assert!(response.body().is_end_stream());
        }
    });
}

#[test]
fn draining_lets_streams_finish_and_then_closes() {
    run(async {
        let mut it = served(ServerSettings::default(), async |_| {
            tokio::time::sleep(Duration::from_millis(100)).await;
            ok(Body::from(b"done".to_vec()))
        })
        .await;
        let (response, _) = it.client.send_request(get("/"), true).unwrap();
        pause().await;
        it.drain.notify_one();
        assert_eq!(read(response.await.unwrap().body_mut()).await.unwrap(), b"done");
        it.served.await.unwrap();
        let _ = it.driven.await.unwrap();
    });
}

#[test]
fn a_connection_without_streams_is_closed_after_a_while() {
    run(async {
        let settings = ServerSettings { idle_timeout: Duration::from_millis(50), ..ServerSettings::default() };
        let it = served(settings, async |_| ok(Body::Empty)).await;
        it.served.await.unwrap();
    });
}

#[test]
fn extended_connect_is_a_tunnel() {
    run(async {
        let mut it = served(ServerSettings::default(), async |request: Request| {
            assert_eq!(request.upgrade.as_deref(), Some("websocket"));
            let (near, mut far) = duplex(64);
            spawn_local(async move {
                let (mut read, mut write) = tokio::io::split(&mut far);
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
            let mut response = ok(Body::Empty);
            response.head.status = StatusCode::SWITCHING_PROTOCOLS;
            let tunnel = Tunnel { io: Box::new(near), read: b"hi ".to_vec(), guard: Box::new(()) };
            response.tunnel = Some(Box::new(tunnel));
            response
        })
        .await;
        pause().await;
        assert!(it.client.is_extended_connect_protocol_enabled());
        let mut request = get("/chat");
        *request.method_mut() = Method::CONNECT;
        request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
        let (response, mut send) = it.client.send_request(request, false).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        send.send_data(vec![7; 1000].into(), true).unwrap();
        let body = read(&mut response.into_body()).await.unwrap();
        assert_eq!((&body[..3], &body[3..]), (&b"hi "[..], &[7; 1000][..]));
    });
}

// The client, and a raw server.

type Accepted = (http::Request<RecvStream>, h2::server::SendResponse<Bytes>);

/// Runs `each` for every stream of a raw server on the other end.
async fn upstream(
    settings: ClientSettings,
    each: impl AsyncFn(Accepted) + Clone + 'static,
) -> (Connection, Rc<RefCell<Option<Reason>>>) {
    let (near, far) = duplex(1 << 20);
    let shut = Rc::new(RefCell::new(None));
    let order = shut.clone();
    spawn_local(async move {
        let mut builder = h2::server::Builder::new();
        builder.enable_connect_protocol().max_concurrent_streams(100);
        let mut connection = builder.handshake::<DuplexStream, Bytes>(far).await.unwrap();
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        loop {
            tokio::select! {
                accepted = connection.accept() => match accepted {
                    Some(Ok(accepted)) => {
                        let each = each.clone();
                        spawn_local(async move { each(accepted).await });
                    }
                    _ => return,
                },
                _ = tick.tick() => match order.borrow_mut().take() {
                    Some(Reason::NO_ERROR) => connection.graceful_shutdown(),
                    Some(reason) => connection.abrupt_shutdown(reason),
                    None => {}
                }
            }
        }
    });
    let connection = Connection::handshake(near, &settings, Default::default()).await.unwrap();
    pause().await;
    (connection, shut)
}

fn head(path: &str) -> RequestHead {
    RequestHead {
        method: Method::POST,
        scheme: Scheme::Http,
        authority: "up.example".into(),
        target: path.into(),
        version: Version::HTTP_11,
        headers: Headers::from_iter([("connection", "close"), ("x-a", "1")]),
    }
}

fn sent() -> Rc<Cell<Time>> {
    Rc::default()
}

fn respond(respond: &mut h2::server::SendResponse<Bytes>) -> SendStream<Bytes> {
    respond.send_response(http::Response::new(()), false).unwrap()
}

#[test]
fn sends_a_call_and_counts_its_stream() {
    run(async {
        let (connection, _) = upstream(ClientSettings::default(), async |(request, mut reply): Accepted| {
            let fields: Vec<_> = request.headers().iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(fields, ["x-a", "content-length"]);
            assert_eq!(request.uri(), "http://up.example/x?y");
            let body = read(&mut request.into_body()).await.unwrap();
            let mut send = respond(&mut reply);
            send.send_data(body.into(), false).unwrap();
            send.send_trailers([("grpc-status".parse().unwrap(), "0".parse().unwrap())].into_iter().collect()).unwrap();
        })
        .await;
        assert_eq!((connection.streams_open(), connection.capacity()), (0, 100));
        let when = sent();
        let body = Body::from(b"ping".to_vec());
        let mut response = connection.send(&head("/x?y"), None, body, when.clone()).await.unwrap();
        assert_ne!(when.get(), Time::default());
        assert_eq!((connection.streams_open(), connection.capacity()), (1, 99));
        let (body, trailers) = collect(&mut response.body).await.unwrap();
        assert_eq!(body, b"ping");
        assert_eq!(trailers.unwrap().get("grpc-status"), Some(&b"0"[..]));
        drop(response);
        assert_eq!(connection.streams_open(), 0);
    });
}

/// A body whose pieces come through a channel.
struct Pieces(tokio::sync::mpsc::UnboundedReceiver<Bytes>);

impl Source for Pieces {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|piece| Ok(Frame::Data(piece))))
    }
}

#[test]
fn both_ways_at_once() {
    run(async {
        let (connection, _) = upstream(ClientSettings::default(), async |(request, mut reply): Accepted| {
            let mut send = respond(&mut reply);
            let mut recv = request.into_body();
            while let Some(data) = recv.data().await {
                send.send_data(data.unwrap(), false).unwrap();
            }
            send.send_data(Bytes::new(), true).unwrap();
        })
        .await;
        let (pieces, source) = tokio::sync::mpsc::unbounded_channel();
        let when = sent();
        let mut response = connection.send(&head("/"), None, Body::source(Pieces(source)), when.clone()).await.unwrap();
        for n in 0..20u8 {
            pieces.send(vec![n].into()).unwrap();
            assert!(matches!(response.body.frame().await, Some(Ok(Frame::Data(data))) if data[..] == [n]));
        }
        assert_eq!(when.get(), Time::default());
        drop(pieces);
        assert!(response.body.frame().await.is_none());
        assert_ne!(when.get(), Time::default());
    });
}

#[test]
fn dropping_the_answer_resets_the_stream() {
    run(async {
        let reset = Rc::new(Cell::new(None));
        let seen = reset.clone();
        let (connection, _) = upstream(ClientSettings::default(), async move |(_, mut reply): Accepted| {
            let mut send = respond(&mut reply);
            seen.set(poll_fn(|cx| send.poll_reset(cx)).await.ok());
        })
        .await;
        let response = connection.send(&head("/"), None, Body::Empty, sent()).await.unwrap();
        drop(response);
        pause().await;
        assert_eq!(reset.get(), Some(Reason::CANCEL));
        assert!(!connection.is_going_away());
    });
}

#[test]
fn resets_say_whether_the_call_may_be_repeated() {
    run(async {
        let (connection, _) = upstream(ClientSettings::default(), async |(request, mut reply): Accepted| {
            reply.send_reset(match request.uri().path() {
                "/refused" => Reason::REFUSED_STREAM,
                _ => Reason::INTERNAL_ERROR,
            });
        })
        .await;
        let refused = connection.send(&head("/refused"), None, Body::Empty, sent()).await.err().unwrap();
        assert!(matches!(refused, SendError::Refused(_)), "{refused:?}");
        let reset = connection.send(&head("/reset"), None, Body::Empty, sent()).await.err().unwrap();
        assert!(matches!(reset, SendError::Reset(_)), "{reset:?}");
    });
}

#[test]
fn goaway_lets_streams_finish_and_takes_no_new_ones() {
    run(async {
        let finish = Rc::new(tokio::sync::Notify::new());
        let told = finish.clone();
        let (connection, shut) = upstream(ClientSettings::default(), async move |(_, mut reply): Accepted| {
            let mut send = respond(&mut reply);
            told.notified().await;
            send.send_data(Bytes::from_static(b"whole"), true).unwrap();
        })
        .await;
        let mut response = connection.send(&head("/"), None, Body::Empty, sent()).await.unwrap();
        *shut.borrow_mut() = Some(Reason::NO_ERROR);
        while !connection.is_going_away() {
            pause().await;
        }
        assert!(!connection.is_closed());
        assert_eq!(connection.capacity(), 0);
        let late = connection.send(&head("/"), None, Body::Empty, sent()).await.err().unwrap();
        assert!(late.is_unsent(), "{late:?}");
        finish.notify_one();
        assert_eq!(collect(&mut response.body).await.unwrap().0, b"whole");
        connection.closed().await;
        assert!(connection.is_closed());
    });
}

#[test]
fn an_abrupt_goaway_breaks_what_was_being_answered() {
    run(async {
        let (connection, shut) = upstream(ClientSettings::default(), async |(_, mut reply): Accepted| {
            let _send = respond(&mut reply);
            std::future::pending().await
        })
        .await;
        let mut response = connection.send(&head("/"), None, Body::Empty, sent()).await.unwrap();
        *shut.borrow_mut() = Some(Reason::ENHANCE_YOUR_CALM);
        assert!(collect(&mut response.body).await.is_err());
        connection.closed().await;
    });
}

async fn small_frames(mut send: SendStream<Bytes>, count: usize) {
    for _ in 0..count {
        send.send_data(vec![b't'; 60].into(), false).unwrap();
        tokio::task::yield_now().await;
    }
    send.send_data(Bytes::new(), true).unwrap();
}

#[test]
fn many_small_frames_for_a_slow_reader_do_not_end_other_streams() {
    run(async {
        let (connection, _) = upstream(ClientSettings::default(), async |(request, mut reply): Accepted| {
            let send = respond(&mut reply);
            match request.uri().path() {
                "/tokens" => small_frames(send, 2000).await,
                _ => small_frames(send, 20).await,
            }
        })
        .await;
        let mut slow = connection.send(&head("/tokens"), None, Body::Empty, sent()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        for _ in 0..20 {
            let mut other = connection.send(&head("/"), None, Body::Empty, sent()).await.unwrap();
            assert_eq!(collect(&mut other.body).await.unwrap().0.len(), 1200);
        }
        assert_eq!(collect(&mut slow.body).await.unwrap().0.len(), 120_000);
        assert!(!connection.is_going_away());
    });
}

/// That the test above tests something: with the budget of a 64 KiB window the connection goes.
#[test]
fn a_small_budget_would_end_the_connection() {
    run(async {
        let settings = ClientSettings { data_frame_budget: 32 << 10, ..ClientSettings::default() };
        let (connection, _) = upstream(settings, async |(_, mut reply): Accepted| {
            let send = respond(&mut reply);
            small_frames(send, 500).await;
        })
        .await;
        let mut slow = connection.send(&head("/"), None, Body::Empty, sent()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(collect(&mut slow.body).await.is_err());
        assert!(connection.is_going_away());
    });
}

#[test]
fn empty_data_frames_are_no_pieces() {
    run(async {
        let (connection, _) = upstream(ClientSettings::default(), async |(_, mut reply): Accepted| {
            let mut send = respond(&mut reply);
            for _ in 0..50 {
                send.send_data(Bytes::new(), false).unwrap();
            }
            send.send_data(Bytes::from_static(b"x"), false).unwrap();
            send.send_data(Bytes::new(), true).unwrap();
        })
        .await;
        let mut response = connection.send(&head("/"), None, Body::Empty, sent()).await.unwrap();
        assert_eq!(collect(&mut response.body).await.unwrap().0, b"x");
    });
}

/// `h2` by itself ends a connection, and the call that lasts with it, with the hundredth of them.
#[test]
fn an_empty_frame_with_each_call_ends_no_connection() {
    let trailers = || [("grpc-status".parse().unwrap(), "0".parse().unwrap())].into_iter().collect::<http::HeaderMap>();
    run(async {
        let (connection, _) = upstream(ClientSettings::default(), async move |(request, mut reply): Accepted| {
            let mut send = respond(&mut reply);
            read(&mut request.into_body()).await.unwrap();
            send.send_data(Bytes::from_static(b"x"), false).unwrap();
            send.send_data(Bytes::new(), false).unwrap();
            send.send_trailers(trailers()).unwrap();
        })
        .await;
        let (pieces, source) = tokio::sync::mpsc::unbounded_channel();
        let mut lasting = connection.send(&head("/"), None, Body::source(Pieces(source)), sent()).await.unwrap();
        for _ in 0..300 {
            let mut response = connection.send(&head("/"), None, Body::Empty, sent()).await.unwrap();
            assert_eq!(collect(&mut response.body).await.unwrap().0, b"x");
        }
        drop(pieces);
        assert_eq!(collect(&mut lasting.body).await.unwrap().0, b"x");
        assert!(!connection.is_going_away());
    });
    run(async {
        let mut it = served(ServerSettings::default(), async |mut request: Request| {
            ok(Body::from(collect(&mut request.body).await.unwrap().0))
        })
        .await;
        for _ in 0..300 {
            let (response, mut send) = it.client.send_request(post("/"), false).unwrap();
            send.send_data(Bytes::from_static(b"x"), false).unwrap();
            send.send_data(Bytes::new(), false).unwrap();
            send.send_trailers(trailers()).unwrap();
            assert_eq!(read(response.await.unwrap().body_mut()).await.unwrap(), b"x");
        }
    });
}

#[test]
fn a_flood_of_empty_frames_ends_the_connection() {
    run(async {
        let mut it = served(ServerSettings::default(), async |mut request: Request| {
            let _ = collect(&mut request.body).await;
            ok(Body::Empty)
        })
        .await;
        let (response, mut send) = it.client.send_request(post("/"), false).unwrap();
        for _ in 0..500 {
            send.send_data(Bytes::new(), false).unwrap();
        }
        assert!(response.await.is_err());
    });
}

#[test]
fn a_request_body_that_fails_fails_the_call() {
    run(async {
        let (connection, _) = upstream(ClientSettings::default(), async |(request, _reply): Accepted| {
            assert!(read(&mut request.into_body()).await.is_err());
        })
        .await;
        let body = script([Frame::Data(Bytes::from_static(b"half"))], Some(BodyError::Incomplete));
        let error = connection.send(&head("/"), None, body, sent()).await.err().unwrap();
        assert!(matches!(error, SendError::Body(BodyError::Incomplete)), "{error:?}");
    });
}

#[test]
fn extended_connect_to_an_upstream() {
    run(async {
        let (connection, _) = upstream(ClientSettings::default(), async |(request, mut reply): Accepted| {
            assert_eq!(request.extensions().get::<h2::ext::Protocol>().unwrap().as_str(), "websocket");
            let mut send = respond(&mut reply);
            let body = read(&mut request.into_body()).await.unwrap();
            send.send_data(body.into(), true).unwrap();
        })
        .await;
        let response = connection.send(&head("/chat"), Some("websocket"), Body::Empty, sent()).await.unwrap();
        let mut tunnel = response.tunnel.unwrap();
        tunnel.io.write_all(b"echo").await.unwrap();
        tunnel.io.shutdown().await.unwrap();
        let mut back = Vec::new();
        tunnel.io.read_to_end(&mut back).await.unwrap();
        assert_eq!(back, b"echo");
        assert_eq!(connection.streams_open(), 1);
        drop(tunnel);
        assert_eq!(connection.streams_open(), 0);
    });
}

// Silence.

fn asking(period: u64) -> ClientSettings {
    ClientSettings { ping: Some(Duration::from_millis(period)), ..ClientSettings::default() }
}

#[test]
fn a_connection_that_falls_silent_gets_no_streams_and_is_given_up() {
    run(async {
        let (near, far) = duplex(1 << 16);
        spawn_local(async move {
            let mut connection = h2::server::handshake(far).await.unwrap();
            let _held = connection.accept().await.unwrap().unwrap();
            // It holds the connection and looks at it no more.
            std::future::pending::<()>().await;
        });
        let connection = Connection::handshake(near, &asking(100), Default::default()).await.unwrap();
        connection.settled().await;
        assert!(connection.capacity() > 0);
        let begin = std::time::Instant::now();
        let other = connection.clone();
        let waiting = spawn_local(async move { other.send(&head("/x"), None, Body::Empty, sent()).await });
        while connection.capacity() > 0 {
            pause().await;
        }
        assert!(!connection.is_closed(), "it is asked first");
        let error = waiting.await.unwrap().err().expect("no answer");
        assert!(error.is_repeatable() && !error.is_unsent(), "{error:?}");
        assert!(connection.is_closed() && begin.elapsed() > Duration::from_millis(150));
    });
}

#[test]
fn a_connection_that_answers_may_be_silent_for_long() {
    run(async {
        let (connection, _) = upstream(asking(20), async |(_, mut reply): Accepted| {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let mut send = respond(&mut reply);
            tokio::time::sleep(Duration::from_millis(300)).await;
            send.send_data(Bytes::from_static(b"late"), true).unwrap();
        })
        .await;
        let mut response = connection.send(&head("/x"), None, Body::Empty, sent()).await.unwrap();
        assert_eq!(collect(&mut response.body).await.unwrap().0, b"late");
        assert!(!connection.is_closed());
    });
}

#[test]
fn one_without_streams_is_not_asked() {
    run(async {
        let (near, far) = duplex(1 << 16);
        spawn_local(async move {
            let mut connection = h2::server::handshake(far).await.unwrap();
            let looking = poll_fn(|cx| connection.poll_accept(cx).map(drop));
            let _ = timeout(Duration::from_millis(100), looking).await;
            std::future::pending::<()>().await;
        });
        let connection = Connection::handshake(near, &asking(20), Default::default()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert!(!connection.is_closed() && connection.capacity() > 0);
    });
}
