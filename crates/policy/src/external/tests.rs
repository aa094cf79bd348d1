use std::cell::RefCell;
use std::sync::Arc;

use prost::Message as _;

use super::*;
use crate::outside::Local;
use crate::testing::{call, compile, consumer, errors, ready};
use crate::{Errand, Eval, OutsideError, StoreAway};

/// Answers every question so, and keeps it.
struct World(Result<Told, OutsideError>, RefCell<Vec<Asked>>);

impl Outside for World {
    fn ask(&self, asked: Asked) -> Local<'_, Result<Told, OutsideError>> {
        self.1.borrow_mut().push(asked);
        Box::pin(std::future::ready(self.0.clone()))
    }

    fn ask_aside(&self, _: Errand) {}

    fn aside(&self, _: Local<'static, ()>) {}

    fn eval(&self, _: Eval, _: Box<dyn FnOnce(Result<Vec<i64>, StoreAway>)>) {
        unreachable!("no store is asked")
    }

    fn node(&self) -> u64 {
        0
    }

    fn random(&self) -> u64 {
        0
    }
}

fn http(status: u16, fields: &[(&str, &str)], body: &str) -> World {
    let status = StatusCode::from_u16(status).unwrap();
    let headers = Headers::from_iter(fields.iter().copied());
    World(Ok(Told { status, headers, body: body.to_owned().into(), trailers: None }), RefCell::default())
}

fn grpc(response: &check::CheckResponse) -> World {
    let mut world = http(200, &[("content-type", "application/grpc")], "");
    if let Ok(told) = &mut world.0 {
        told.body = check::framed(response);
        told.trailers = Some(Headers::from_iter([("grpc-status", "0")]));
    }
    world
}

fn policy(json: &str) -> Arc<External> {
    compile(&format!(r#"{{"external":{json}}}"#)).external.unwrap()
}

/// What became of a call: `Ok` with the fields of the request to the upstream, or the status (or refusal).
fn outcome(policy: &External, world: &World, fields: &[(&str, &str)]) -> Result<Headers, String> {
    let mut call = call(fields);
    call.head.target = "/a?b".into();
    match ready(policy.request(&mut call, world)) {
        Ok(_) => Ok(call.head.headers),
        Err(Stop::Answer(reply, body)) => {
            Err(format!("{} {:?} {}", reply.status.as_u16(), reply.headers, String::from_utf8_lossy(&body)))
        }
        Err(Stop::Refuse(refusal)) => Err(format!("{refusal:?}")),
    }
}

const HTTP: &str = r#"{"http":{"url":"http://authorizer/verify"},"to-upstream":["x-user"],"to-client":["set-cookie"]}"#;

#[test]
fn the_status_decides_and_what_is_listed_is_taken_over() {
    let policy = policy(HTTP);
    let spoofed = [("x-user", "root"), ("X_User", "admin"), ("x-a", "1")];
    let passes = |world: World| outcome(&policy, &world, &spoofed);
    let told = [("x-user", "alice"), ("x-other", "no"), ("set-cookie", "a=b")];
    assert_eq!(passes(http(200, &told, "")).unwrap(), Headers::from_iter([("x-a", "1"), ("x-user", "alice")]));
    assert_eq!(passes(http(204, &[], "")).unwrap(), Headers::from_iter([("x-a", "1")]), "nobody is nobody");
    let denied = passes(http(401, &[("www-authenticate", "Basic"), ("x-user", "alice")], "no")).unwrap_err();
    assert_eq!(denied, r#"401 {"www-authenticate": "Basic"} no"#);
    assert!(passes(http(302, &[("location", "/login")], "")).unwrap_err().starts_with("302"));
    for status in [500, 503, 101] {
        assert_eq!(passes(http(status, &told, "")).unwrap_err(), "Undecided");
    }
    let mut call = call(&[]);
    let mut memo = ready(policy.request(&mut call, &http(200, &told, ""))).unwrap();
    let mut reply = Reply::new(StatusCode::OK);
    reply.headers.append("set-cookie", "c=d");
    policy.response(&mut memo, &mut reply);
    assert_eq!(reply.headers, Headers::from_iter([("set-cookie", "c=d"), ("set-cookie", "a=b")]));
}

#[test]
fn no_answer_lets_pass_only_where_that_is_said_and_never_what_the_caller_made_up() {
    let open = HTTP.replacen('{', r#"{"fail":"open","#, 1);
    for error in [OutsideError::Late, OutsideError::Connect("refused".into()), OutsideError::TooLong(1)] {
        let world = World(Err(error), RefCell::default());
        assert_eq!(outcome(&policy(HTTP), &world, &[("x-user", "root")]).unwrap_err(), "Undecided");
        assert!(outcome(&policy(&open), &world, &[("x-user", "root")]).unwrap().is_empty());
    }
    assert!(outcome(&policy(&open), &http(403, &[], ""), &[]).is_err(), "a denial is an answer");
    // Callers that speak gRPC are told in its words.
    let grpc = [("content-type", "application/grpc")];
    assert_eq!(outcome(&policy(HTTP), &http(401, &[], "no"), &grpc).unwrap_err(), "Forbidden");
}

#[test]
fn the_service_is_told_of_the_call_and_shown_what_it_may_see() {
    let ask = |json: &str| {
        let world = http(200, &[], "");
        let fields = [
            ("authorization", "a"),
            ("x-user", "root"),
            ("range", "bytes=0-1"),
            ("x-forwarded-for", "6.6.6.6"),
            ("x-weir-consumer", "root"),
        ];
        outcome(&policy(json), &world, &fields).unwrap();
        world.1.into_inner().remove(0)
    };
    let asked = ask(HTTP);
    assert_eq!(
        (asked.method, &*asked.url, asked.within),
        (Method::GET, "http://authorizer/verify", Duration::from_secs(1))
    );
    let expected = [
        ("authorization", "a"),
        ("x-forwarded-method", "GET"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "h"),
        ("x-forwarded-uri", "/a?b"),
        ("x-forwarded-for", "127.0.0.1"),
    ];
    assert_eq!(asked.headers, Headers::from_iter(expected));
    let asked = ask(
        r#"{"http":{"url":"http://a/v/","method":"original","append-path":true},"to-service":["X-A"],"timeout":"5ms"}"#,
    );
    assert_eq!((&*asked.url, asked.within), ("http://a/v/a?b", Duration::from_millis(5)));
    assert_eq!(asked.headers, Headers::from_iter(expected[1..].iter().copied()));
}

#[test]
fn over_grpc_the_whole_call_is_described() {
    let policy = policy(r#"{"grpc":"http://a:1","to-upstream":["x-user"],"context":{"k":"v"}}"#);
    let world = grpc(&check::CheckResponse::default());
    let mut call = call(&[("cookie", "a=1"), ("cookie", "b=2"), ("x-user", "root"), ("x-a", "1"), ("x-a", "2")]);
    call.consumer = Some(consumer("agent"));
    call.length = None;
    ready(policy.request(&mut call, &world)).unwrap();
    let asked = world.1.into_inner().remove(0);
    assert_eq!(asked.url, "http://a:1/envoy.service.auth.v3.Authorization/Check");
    assert!(asked.prior_knowledge && asked.headers.get_str("grpc-timeout") == Some("1000m"));
    let request = check::CheckRequest::decode(&asked.body[5..]).unwrap().attributes.unwrap();
    assert_eq!(request.context_extensions["k"], "v");
    let source = request.source.unwrap();
    assert_eq!(source.principal, "agent");
    assert_eq!(source.address.unwrap().socket_address.unwrap().address, "127.0.0.1");
    let http = request.request.unwrap().http.unwrap();
    assert_eq!(
        (&*http.method, &*http.path, &*http.host, &*http.protocol, http.size),
        ("GET", "/", "h", "HTTP/1.1", -1)
    );
    assert_eq!((&*http.headers["cookie"], &*http.headers["x-a"], &*http.headers[":path"]), ("a=1; b=2", "1, 2", "/"));
    assert!(!http.headers.contains_key("x-user"));
}

#[test]
fn over_grpc_its_answer_edits_what_is_listed() {
    let json = r#"{"grpc":"http://a:1","to-upstream":["x-user","x-b"],"to-client":["x-c"],"with-denial":["x-d"]}"#;
    let policy = policy(json);
    let option = |key: &str, value: &str, append: bool| check::HeaderOption {
        header: Some(check::HeaderValue { key: key.into(), value: value.into(), raw_value: Vec::new() }),
        append: Some(check::Truth { value: append }),
    };
    let mut response = check::CheckResponse {
        status: Some(check::Status { code: 0 }),
        ok: Some(check::Passed {
            headers: vec![
                option("X-User", "alice", false),
                option("x-user", "bob", true),
                option("x-evil", "1", false),
            ],
            headers_to_remove: vec!["Authorization".into()],
            response_headers: vec![option("x-c", "1", false), option("x-z", "1", false)],
        }),
        denied: None,
    };
    let fields = [("authorization", "a"), ("x-user", "root"), ("x-b", "2")];
    let found = outcome(&policy, &grpc(&response), &fields).unwrap();
    assert_eq!(found, Headers::from_iter([("x-user", "alice"), ("x-user", "bob")]));
    let mut call = call(&[]);
    let memo = ready(policy.request(&mut call, &grpc(&response))).unwrap();
    assert_eq!(*memo.unwrap(), Headers::from_iter([("x-c", "1")]));

    // What would split the message is no answer.
    response.ok.as_mut().unwrap().headers[0] = option("x-user", "a\r\nb: c", false);
    assert_eq!(outcome(&policy, &grpc(&response), &[]).unwrap_err(), "Undecided");

    let mut denied = check::CheckResponse { status: Some(check::Status { code: 7 }), ..Default::default() };
    assert_eq!(outcome(&policy, &grpc(&denied), &[]).unwrap_err(), "403 {} ");
    denied.denied = Some(check::Denied {
        status: Some(check::HttpStatus { code: 401 }),
        headers: vec![option("x-d", "1", false), option("x-e", "1", false)],
        body: "no".into(),
    });
    assert_eq!(
        outcome(&policy, &grpc(&denied), &[]).unwrap_err(),
        r#"401 {"x-d": "1", "content-type": "text/plain"} no"#
    );
    denied.denied.as_mut().unwrap().status = Some(check::HttpStatus { code: 200 });
    assert!(outcome(&policy, &grpc(&denied), &[]).unwrap_err().starts_with("403"));
}

#[test]
fn over_grpc_what_cannot_be_read_is_no_answer() {
    let policy = policy(r#"{"grpc":"http://a:1"}"#);
    let check = |change: &dyn Fn(&mut Told)| {
        let mut world = grpc(&check::CheckResponse::default());
        if let Ok(told) = &mut world.0 {
            change(told);
        }
        outcome(&policy, &world, &[]).err()
    };
    assert_eq!(check(&|_| {}), None);
    for change in [
        &(|told: &mut Told| told.trailers = Some(Headers::from_iter([("grpc-status", "14")]))) as &dyn Fn(&mut Told),
        &|told: &mut Told| told.trailers = None,
        &|told: &mut Told| told.status = StatusCode::BAD_GATEWAY,
        &|told: &mut Told| told.body = Bytes::new(),
        &|told: &mut Told| told.body = Bytes::from_static(b"\0\0\0\0\x02\xff"),
        &|told: &mut Told| told.body = Bytes::from_static(b"\0\0\0\0\x02\xff\xff"),
        &|told: &mut Told| told.body = Bytes::from_static(b"\x01\0\0\0\0"),
    ] {
        assert_eq!(check(change).as_deref(), Some("Undecided"));
    }
}

#[test]
fn what_is_no_service_is_told() {
    let check = |spec: &str, path: &str| assert_eq!(errors(&format!(r#"{{"external":{spec}}}"#)), [path], "{spec}");
    check("{}", "external");
    check(r#"{"grpc":"http://a","http":{"url":"http://a"}}"#, "external");
    check(r#"{"grpc":"http://a/b"}"#, "external.grpc");
    check(r#"{"grpc":"a:1"}"#, "external.grpc");
    check(r#"{"http":{"url":"ftp://a"}}"#, "external.http.url");
    check(r#"{"http":{"url":"http://u@a"}}"#, "external.http.url");
    check(r#"{"http":{"url":"http://a?b","append-path":true}}"#, "external.http.url");
    check(r#"{"http":{"url":"http://a","method":"G T"}}"#, "external.http.method");
    check(r#"{"http":{"url":"http://a"},"context":{"a":"b"}}"#, "external.context");
    check(r#"{"grpc":"http://a","to-upstream":["x-a","host"]}"#, "external.to-upstream[1]");
    check(r#"{"grpc":"http://a","timeout":"0s"}"#, "external.timeout");
}
