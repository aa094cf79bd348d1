use std::sync::Arc;

use base::{Consumer, Peer, Place, Reply, StatusCode, TlsInfo};

use super::*;
use crate::testing;

fn call() -> Call {
    let mut call = testing::call(&[("x-a", "1"), ("x-b", "one"), ("X-B", "two")]);
    call.head.authority = "API.example.com:8443".into();
    call.head.target = "/v1/%61dmin%2Fx?role=user&n%61me=b%20c&role=admin&flag".into();
    call.client.peer = Arc::new(Peer {
        remote: None,
        local: None,
        tls: Some(TlsInfo { version: "1.3".into(), sni: Some("api".into()), ..TlsInfo::default() }),
    });
    call.place = Some(Arc::new(Place { api: "orders".into(), route: "orders/0".into() }));
    call.consumer = Some(Arc::new(Consumer { index: 0, name: "agent".into(), team: None }));
    let claims = r#"{
        "scope": "read write", "roles": ["a", "b"], "n": 7, "big": 18446744073709551615, "f": 1.5, "none": null,
        "ok": true, "realm": { "roles": [{ "name": "x" }] }, "https://x/y": "z"
    }"#;
    call.claims = Some(Arc::new(serde_json::from_str(claims).unwrap()));
    call
}

fn truth(text: &str, call: &Call) -> Result<bool, String> {
    Expr::compile(text, Gives::Truth)?.truth(&Scope::of(call)).map_err(|error| error.to_string())
}

#[test]
fn expressions_see_what_is_asked_of_a_model() {
    let mut call = call();
    assert!(truth("model.prompt < 10", &call).is_err(), "not before it is understood");
    call.model = testing::model(1200, 512, 0);
    for text in [
        "model.name == 'smart' && model.dialect == 'anthropic'",
        "model.prompt + model.output < 2000 && model.stream && model.tools && !model.images",
    ] {
        assert_eq!(truth(text, &call), Ok(true), "{text}");
    }
    assert!(Expr::compile("model.size > 1", Gives::Truth).is_err());
}

#[test]
fn expressions_see_the_call() {
    let call = call();
    for text in [
        "api == 'orders' && route == 'orders/0'",
        "consumer.name == 'agent' && !has(consumer.team)",
        "request.method == 'GET' && request.scheme == 'http' && request.version == '1.1'",
        "request.host == 'api.example.com'",
        "request.path == '/v1/admin/x'",
        "request.query.role == 'user, admin' && request.query['name'] == 'b c' && request.query.flag == ''",
        "'flag' in request.query && !('x' in request.query) && size(request.query) == 3",
        "request.headers['X-A'] == '1' && request.headers['x-b'] == 'one, two' && has(request.headers.x) == false",
        "request.headers.exists(name, name.startsWith('x-')) && request.headers.size() == 2",
        "request.address.within('127.0.0.0/8') && !request.address.within('::1')",
        "request.tls.sni == 'api' && has(request.tls) && request.tls.client == false && request.tls.version > '1.2'",
        "'read' in claims.scope.split(' ') && !('rea' in claims.scope.split(' '))",
        "claims.roles == ['a', 'b'] && 'b' in claims.roles && claims.roles[0] == 'a'",
        "claims.n == 7 && claims.n + 1 > 7 && claims.big == 18446744073709551615u && claims.f < 2.0",
        "claims.none == null && claims.ok && has(claims.realm.roles) && !has(claims.realm.x)",
        "claims.realm.roles.all(role, role.name == 'x') && claims['https://x/y'] == 'z'",
        "claims.exists(name, name == 'n') && claims.realm.size() == 1",
        "claims.roles.map(r, r + 'x').join(',') == 'ax,bx' && claims.roles.filter(r, r == 'a').size() == 1",
        "claims.scope.matches('^read') && claims.scope.replace('read', 'w').upperAscii() == 'W WRITE'",
        "' ab '.trim().substring(1).indexOf('b') == 0 && 'abc'.charAt(1) == 'b' && 'aba'.lastIndexOf('a') == 2",
        "type(claims.n) == int && string(claims.n) == '7' && int('7') == 7 && double(7) == 7.0 && uint(7) == 7u",
        "(claims.n > 6 ? claims.ok : false) && 'aB'.lowerAscii() == 'ab' && bool('true') && bytes('a') == b'a'",
        "'a,b'.split(',', 1) == ['a,b'] && 'aaa'.replace('a', 'b', 1) == 'baa' && -claims.n < 0",
        "claims.roles.exists_one(r, r == 'a') && 'request'.contains('quest') && 'x'.endsWith('x')",
        "['x'].exists(request, request == 'x')",
    ] {
        assert_eq!(truth(text, &call), Ok(true), "{text}");
    }
}

#[test]
fn what_is_absent_is_an_error_when_it_is_used() {
    let mut call = call();
    for text in ["consumer.team == 'a'", "claims.absent == 1", "request.headers['absent'] == ''", "claims.scope > 1"] {
        assert!(Expr::compile(text, Gives::Truth).is_ok(), "{text}");
        assert!(truth(text, &call).is_err(), "{text}");
    }
    // A dynamic pattern or network that is none.
    assert!(truth("'a'.matches(claims.scope + '(')", &call).unwrap_err().contains("unclosed group"));
    assert!(truth("request.address.within(claims.scope)", &call).is_err());
    assert!(truth("claims.roles", &call).unwrap_err().contains("list"), "only known when it is there");

    call.claims = None;
    call.consumer = None;
    call.place = None;
    call.client.peer = Arc::new(Peer { remote: None, local: None, tls: None });
    for text in ["!has(claims.n)", "claims.size() == 0", "!has(consumer.name)", "!has(request.tls)", "api == ''"] {
        assert_eq!(truth(text, &call), Ok(true), "{text}");
    }
    assert!(truth("consumer.name != 'agent'", &call).is_err(), "nobody is not somebody else");
}

#[test]
fn numbers_and_texts_are_given_too() {
    let call = call();
    let number = |text: &str| Expr::compile(text, Gives::Number).unwrap().number(&Scope::of(&call)).unwrap();
    assert_eq!((number("claims.n * 2"), number("size(request.path)"), number("1.5")), (14.0, 11.0, 1.5));
    let text = Expr::compile("consumer.name + '/' + string(claims.n)", Gives::Text).unwrap();
    assert_eq!(text.string(&Scope::of(&call)), Ok("agent/7".into()));
    let reply = Reply::new(StatusCode::NOT_FOUND);
    let late = Expr::compile_for_reply("response.status / 100 == 4", Gives::Truth).unwrap();
    assert_eq!(late.truth(&Scope::with_reply(&call, &reply)), Ok(true));
}

#[test]
fn errors_are_found_when_it_is_compiled() {
    let check = |text: &str, gives: Gives, part: &str| {
        let error = Expr::compile(text, gives).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    };
    for (text, part) in [
        ("", "not an expression"),
        ("claims.a ==", "not an expression, at column"),
        ("true && reqest.path == ''", "at column 9: there is no `reqest`; known here: `api`"),
        ("request.metod == 'GET'", "there is no field `metod`; known here: `method`"),
        ("has(request.metod)", "no field `metod`"),
        ("consumer.name.x == ''", "a string has no fields"),
        ("request.path == 1", "a string and a number do not go together"),
        ("request.path > 1", "do not go together"),
        ("request.path + 1 == ''", "do not go together"),
        ("request.path", "gives a string, expected true or false"),
        ("request.path && true", "expected true or false, found a string"),
        ("!size(request.path)", "found a number"),
        ("request.path.startWith('/')", "there is no function `startWith`"),
        ("startsWith(request.path, '/')", "expected `….startsWith(…)`"),
        ("request.path.string() == ''", "expected `string(…)`"),
        ("request.path.startsWith(1)", "`startsWith` takes a string, found a number"),
        ("request.path.startsWith()", "does not take 0 arguments"),
        ("claims.n.startsWith('a') || request.headers.startsWith('')", "is about a string, found a map"),
        ("request.path.matches('a(')", "not a regular expression: unclosed group"),
        ("request.path.matches('(a{1000}){1000}')", "not a regular expression"),
        ("request.address.within('10.0.0.0/33')", "neither an address nor a network"),
        ("'a' in request.path", "expected `contains`, or a list"),
        ("request['path'] == ''", "its fields follow a dot"),
        ("request == claims", "only its fields can be compared"),
        ("request.path.all(c, c == '')", "a string has no items to go through"),
        ("claims.roles.all(r, r == req)", "there is no `req`"),
        ("response.status == 200", "no answer yet"),
        ("claims.?a.orValue(1) == 1", "optional"),
        ("Thing{a: 1} == 1", "messages"),
    ] {
        check(text, Gives::Truth, part);
    }
    check("'a'", Gives::Number, "gives a string, expected a number");
    check("1", Gives::Text, "expected a string");
    check(&" ".repeat(5000), Gives::Truth, "longer than");
}

#[test]
fn deep_expressions_are_refused_and_break_no_stack() {
    let call = call();
    let long = |part: &str, joint: &str| {
        let most = (LONGEST - 10) / (part.len() + joint.len());
        vec![part; most].join(joint)
    };
    // Long is not deep: these are read as balanced trees.
    assert_eq!(truth(&long("true", "&&"), &call), Ok(true));
    assert_eq!(truth(&long("false", "||"), &call), Ok(false));
    for text in [
        format!("{}>0", long("1", "+")),
        format!("{}1{}==1", "(".repeat(1500), ")".repeat(1500)),
        format!("{}{}==[]", "[".repeat(1500), "]".repeat(1500)),
        format!("{}{{}}{}=={{}}", "{1:".repeat(1000), "}".repeat(1000)),
        format!("claims{}", ".a".repeat(1500)),
        format!("claims{}==1", "['a']".repeat(700)),
        format!("{}true{}", "true?(".repeat(300), "):false".repeat(300)),
        format!("'a'{}==''", ".trim()".repeat(500)),
    ] {
        let error = truth(&text, &call).unwrap_err();
        assert!(error.contains("deep") || error.contains("not an expression"), "{error}");
    }
    // As deep as may be.
    let deep = |depth: usize| truth(&format!("1{}==1", "+0".repeat(depth)), &call);
    assert_eq!(deep(check::DEEPEST - 2), Ok(true));
    assert!(deep(check::DEEPEST).unwrap_err().contains("deeper"));
    let nested = (0..12).fold("true".to_owned(), |inner, n| format!("claims.roles.exists(r{n}, {inner})"));
    assert_eq!(truth(&nested, &call), Ok(true));
}
