use std::path::Path;

use super::*;
use crate::files::Disk;

fn errors(text: &str) -> Vec<String> {
    match compile(&Source::new("test.yaml", text.into()), &Disk { base: "/nowhere".into() }, None) {
        Ok((_, warnings)) => warnings,
        Err(errors) => errors,
    }
    .into_iter()
    .map(|found| format!("{}:{} {}: {}", found.line, found.column, found.path, found.message))
    .collect()
}

fn check(text: &str, expected: &[&str]) {
    let found = errors(text);
    let alike = found.len() == expected.len() && found.iter().zip(expected).all(|(found, part)| found.contains(part));
    assert!(alike, "{text}\n{found:#?}\n{expected:#?}");
}

/// The disk, with what an example has somebody make first: a certificate, a provider's key.
struct Made(Disk);

impl Files for Made {
    fn read(&self, reference: &SecretRef) -> Result<Vec<u8>, String> {
        let pem = |label: &str| Ok(format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n").into_bytes());
        match reference {
            SecretRef::File(path) if path == "web.crt" => pem("CERTIFICATE"),
            SecretRef::File(path) if path == "web.key" => pem("PRIVATE KEY"),
            SecretRef::File(path) if path == "provider.key" => Ok(b"sk-provider".to_vec()),
            other => self.0.read(other),
        }
    }
}

#[test]
fn examples_compile() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let source = Source::new(path.to_str().unwrap(), std::fs::read_to_string(&path).unwrap());
        // Certificates are for who tries it to make.
        let files = Made(Disk::beside(&path));
        match compile(&source, &files, None) {
            Ok((snapshot, warnings)) => assert!(warnings.is_empty() && !snapshot.routes.is_empty(), "{warnings:?}"),
            Err(errors) => panic!("{}", errors.iter().map(|e| e.render(false)).collect::<Vec<_>>().join("\n")),
        }
    }
}

#[test]
fn all_errors_at_once_and_no_consequences() {
    check(
        "version: 1
upstreams:
  orders: { endpoints: [http://a], retries: 3, retry: { backoff: 5 } }
  broken: 7
apis:
  a:
    upstrem: orders
    routes:
      - match: { path: /x, method: get }
        upstream: order
      - { match: { path: /y }, upstream: broken }
      - { match: { path: /z }, upstream: orders, policies: { authenticat: none } }
      - { match: { path: /z }, upstream: orders }
",
        &[
            "3:36 upstreams.orders.retries: unknown field `retries`",
            "3:66 upstreams.orders.retry.backoff: found integer `5`, expected a duration",
            "4:11 upstreams.broken: found integer `7`",
            "7:5 apis.a.upstrem: unknown field `upstrem`",
            "9:36 apis.a.routes[0].match.method: `get` is not a method",
            "10:19 apis.a.routes[0].upstream: there is no upstream `order`",
            "12:62 apis.a.routes[2].policies.authenticat: unknown field",
            "13:9 apis.a.routes[3]: takes the same calls as `apis.a.routes[2]`",
        ],
    );
}

#[test]
fn yaml_is_read_strictly() {
    check("version: 1\nversion: 1\n", &["2:1 : `version` stands twice"]);
    check("a: 0755\n", &["1:4 : `0755` is octal"]);
    check("a: &x { b: 1 }\nc: { <<: *x }\n", &["merge keys"]);
    check("version: 1\napis: { no: { upstream: http://a, host: no } }\n", &[]);
    let mut bomb = String::from("a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n");
    for n in 1..9 {
        let aliases = vec![format!("*a{}", n - 1); 10].join(",");
        bomb += &format!("a{n}: &a{n} [{aliases}]\n");
    }
    check(&bomb, &["too large"]);
}

#[test]
fn meaning_is_checked() {
    check("version: 2\napis: {}\n", &["version 2 is not known", "no api"]);
    check("version: 1\nlisteners: { web: { address: ':80' } }\napis: { a: { upstream: http://a } }\n", &["`[::]:80`"]);
    check(
        "version: 1\nupstreams: { x: { endpoints: [http://a] } }\napis: { a: { upstream: http://a } }\n",
        &["no route uses"],
    );
    check("version: 1\napis: { a: { upstream: { http://a: 0 } } }\n", &["all weights are zero"]);
}

#[test]
fn by_what_consumers_are_known_is_checked() {
    let hash = |digit: &str| format!("sha256:{}", digit.repeat(64));
    let (a, b) = (hash("a"), hash("b"));
    check(
        &format!(
            "version: 1
apis: {{ a: {{ upstream: http://a }} }}
consumers:
  x:
    keys:
      - {{ id: k1, hash: '{a}', not-before: 2027-01-31T00:00:00Z, expires: 2027-01-31T01:00:00+02:00 }}
      - {{ id: k2, hash: '{b}', expires: tomorrow }}
    certificates:
      - {{ san: agent }}
      - {{ spiffe: 'spiffe://td/a', subject: CN=a }}
      - {{}}
      - {{ fingerprint: 'sha256:1' }}
      - {{ spiffe: 'spiffe://td/a' }}
      - {{ sna: 'dns:a' }}
  y: {{ certificates: [{{ spiffe: 'spiffe://td/a' }}] }}
"
        ),
        &[
            "consumers.x.keys[0].expires: ceases to be valid before",
            "consumers.x.keys[1].expires: not a moment; expected one such as `2027",
            "consumers.x.certificates[0].san: expected the kind of the name and the name",
            "consumers.x.certificates[1]: expected one of `san`",
            "consumers.x.certificates[2]: expected one of `san`",
            "consumers.x.certificates[3].fingerprint: expected `sha256:` and 64",
            "consumers.x.certificates[5].sna: unknown field",
            "consumers.y.certificates[0]: `x` has the same certificate",
        ],
    );
}

#[test]
fn who_and_may_are_checked_where_they_are_written() {
    check(
        "version: 1
policies:
  authenticate: { jwt: [{ issuer: i, jwks: https://k }, { issuer: i, audience: [a], jwks: 'file:absent' }] }
apis:
  a:
    upstream: http://a
    policies:
      authorize: { allow: [\"reqest.path == ''\"], deny: ['request.path'] }
",
        &[
            "policies.authenticate.jwt[0]: field `audience` is missing",
            "policies.authenticate.jwt[1].jwks: cannot read /nowhere/absent",
            "8:28 apis.a.policies.authorize.allow[0]: at column 1: there is no `reqest`; known here: `api`",
            "apis.a.policies.authorize.deny[0]: gives a string, expected true or false",
        ],
    );
}

#[test]
fn a_snapshot_crosses_threads() {
    fn check<T: Send + Sync>() {}
    check::<Snapshot>();
}

#[test]
fn diagnostics_show_the_place() {
    let source = Source::new("weir.yaml", "version: 1\napis:\n  a:\n    upstrem: http://a\n".into());
    let Err(errors) = compile(&source, &Disk { base: ".".into() }, None) else { panic!("compiled") };
    assert_eq!(errors.len(), 1, "{errors:#?}");
    let rendered = errors[0].render(false);
    for part in ["error: unknown field `upstrem`", "weir.yaml:4:5", "did you mean `upstream`?"] {
        assert!(rendered.contains(part), "{rendered}");
    }
}

#[test]
fn the_reference_names_every_field() {
    let reference = crate::schema::reference();
    for field in ["`apis`", "`trusted-proxies`", "`api-key`", "`max-series`", "`match`"] {
        assert!(reference.contains(field), "{field}");
    }
}

/// The paths of all that is wrong, in the order of the document.
fn places(text: &str) -> Vec<String> {
    match compile(&Source::new("test.yaml", text.into()), &Disk { base: "/nowhere".into() }, None) {
        Ok((_, warnings)) => warnings,
        Err(errors) => errors,
    }
    .into_iter()
    .map(|found| found.path)
    .collect()
}

#[test]
fn exactly_what_is_wrong_is_told() {
    for (text, expected) in [
        // A rule that cannot be read, and where the api leads.
        (
            "apis: { a: { upstream: b, policies: { limit: [{ per: all, rate: x }] } } }",
            "apis.a.upstream apis.a.policies.limit[0].rate",
        ),
        (
            "apis: { a: { upstream: http://a, policies: { limit: [{ per: all, weight: 9 }, { rate: 1/s }, { rate: 2/s, burst: x }] } } }",
            "apis.a.policies.limit[0] apis.a.policies.limit[1] apis.a.policies.limit[2] apis.a.policies.limit[2].burst",
        ),
        (
            "policies: { limit: [7], authenticate: x }\napis: { a: { upstream: http://a, policies: { limit: [] } } }",
            "policies.limit[0] policies.authenticate apis.a.policies.limit",
        ),
        // All in one route, whose match is broken too.
        (
            "apis:
  a:
    upstream: http://a
    routes:
      - 7
      - match: { path: 7 }
        upstream: b
        rewrite: { path: '/{id', host: '!' }
        mirror: { share: 2 }
        timeouts: { call: 0s }
        retry: { on: [connect, never], attempts: 0 }
      - { match: { method: get }, policies: { headers: 7 } }
      - { match: { prefix: x, headers: { a: { regex: '(' } } } }
",
            "apis.a.routes[0] apis.a.routes[1].match.path apis.a.routes[1].upstream apis.a.routes[1].rewrite.path \
             apis.a.routes[1].rewrite.host apis.a.routes[1].mirror apis.a.routes[1].mirror.share \
             apis.a.routes[1].timeouts.call apis.a.routes[1].retry.on[1] apis.a.routes[1].retry.attempts \
             apis.a.routes[2].match.method apis.a.routes[2].policies.headers apis.a.routes[3].match.prefix \
             apis.a.routes[3].match.headers.a.regex",
        ),
        // What an api says for its routes is told once, also where no route asks for it.
        (
            "apis: { a: { upstream: b, timeouts: { call: 0s }, retry: { attempts: 0, on: [x] }, routes: [{ match: { path: /a } }, { match: { path: /b } }] } }",
            "apis.a.upstream apis.a.timeouts.call apis.a.retry.attempts apis.a.retry.on[0]",
        ),
        (
            "apis: { a: { upstream: b, timeouts: { idle: 0s }, routes: [{ respond: { status: 7 } }] } }",
            "apis.a.upstream apis.a.timeouts.idle apis.a.routes[0].respond.status",
        ),
        (
            "upstreams: { u: { endpoints: [http://a], timeouts: { connect: 0s, call: 0s } } }\napis: { a: { upstream: u, routes: [{ match: { path: /a } }, { match: { path: /b } }] } }",
            "upstreams.u.timeouts.connect upstreams.u.timeouts.call",
        ),
        // Upstreams, and those that name them.
        (
            "upstreams:
  a: { endpoints: [7, 'ftp://a', { url: http://a, weight: 0 }], balance: x, health: { every: 0s }, tls: { certificate: { cert: file:a } } }
  b: { endpoint: [http://a] }
  c: 7
  d: { endpoints: [] }
apis:
  x: { upstream: { a: 1, b: 1, c: 1, d: 1, e: 1 } }
  xy: { upstrem: d }
",
            "upstreams.a.endpoints[0] upstreams.a.endpoints[1] upstreams.a.endpoints[2].weight upstreams.a.balance \
             upstreams.a.health upstreams.a.tls.certificate upstreams.a.tls.certificate.cert upstreams.b.endpoint \
             upstreams.c upstreams.d apis.x.upstream.e apis.xy.upstrem",
        ),
        // Listeners, consumers, telemetry, the rest.
        (
            "listeners:
  a: { address: 7, limits: { head: 0B, fields: x }, tls: { certificates: [{ key: file:x }], minimum: '2' } }
  b: { adress: '127.0.0.1:1' }
  c: { address: '127.0.0.1:1', trusted-proxies: [x] }
  d: { address: '127.0.0.1:1', tls: {} }
apis: { a: { upstream: http://a, listeners: [a, b, c, e] } }
",
            "listeners.a.address listeners.a.limits.head listeners.a.limits.fields listeners.a.tls.certificates[0] \
             listeners.a.tls.certificates[0].key listeners.a.tls.minimum listeners.b.adress \
             listeners.c.trusted-proxies[0] listeners.d.address listeners.d.tls apis.a.listeners[3]",
        ),
        (
            "node: { workers: 0, drain: 7 }
apis: { a: { upstream: http://a, hosts: b } }
consumers: { c: { keys: [{ id: a }, { id: b, hash: x }, { hash: y }], teams: d }, e: 7 }
telemetry: { metrics: x, sample: y, access-log: z, otlp: { every: 0s, headers: { 'a(b': env:WEIR_NO_SUCH } } }
",
            "node.workers node.drain apis.a.hosts consumers.c.keys[0] consumers.c.keys[1].hash consumers.c.keys[2] \
             consumers.c.keys[2].hash consumers.c.teams consumers.e telemetry.metrics telemetry.sample \
             telemetry.access-log telemetry.otlp telemetry.otlp.every telemetry.otlp.headers[\"a(b\"] \
             telemetry.otlp.headers[\"a(b\"]",
        ),
        ("version: x\napis: 7", "version apis"),
    ] {
        let text = match text.starts_with("version") {
            true => text.to_owned(),
            false => format!("version: 1\n{text}"),
        };
        let mut found = places(&text);
        let mut expected: Vec<&str> = expected.split_whitespace().collect();
        // Without the order: two errors may begin at the same place.
        found.sort();
        expected.sort_unstable();
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn the_same_calls_however_written() {
    let routes = |one: &str, other: &str| {
        let text = format!("version: 1\napis: {{ a: {{ upstream: http://a, routes: [{one}, {other}] }} }}");
        places(&text).len()
    };
    for (one, other, conflicts) in [
        ("{ match: { path: /a } }", "{ match: { path: '/%61' } }", 1),
        ("{ match: { path: '/%61/{x}' } }", "{ match: { path: '/a/{y}' } }", 1),
        ("{ match: { prefix: /a } }", "{ match: { prefix: '/%61/' } }", 1),
        ("{ match: { path: /a/b } }", "{ match: { path: '/a%2Fb' } }", 0),
        ("{ match: { path: /a } }", "{ match: { prefix: /a } }", 0),
        ("{ match: { path: /a } }", "{ match: { path: /a, method: GET } }", 0),
    ] {
        assert_eq!(routes(one, other), conflicts, "{one} {other}");
    }
}

#[test]
fn nothing_goes_upstream_beside_an_answer() {
    check(
        "version: 1
apis:
  a:
    routes:
      - { match: { path: /a }, respond: { body: x }, upstream: http://a, mirror: { upstream: http://b } }
      - { match: { path: /b }, redirect: { path: /c }, rewrite: { path: /d }, timeouts: {}, retry: {} }
      - { match: { path: /c }, redirect: { path: /c }, respond: {} }
",
        &[
            "routes[0].upstream: `upstream` has no meaning beside `respond`",
            "routes[0].mirror: `mirror` has no meaning beside `respond`",
            "routes[1].rewrite: `rewrite` has no meaning beside `redirect`",
            "routes[1].timeouts: `timeouts` has no meaning beside `redirect`",
            "routes[1].retry: `retry` has no meaning beside `redirect`",
            "routes[2]: leads to more than one place",
        ],
    );
}

/// Files by name.
struct Given(&'static [(&'static str, &'static str)]);

impl Files for Given {
    fn read(&self, reference: &SecretRef) -> Result<Vec<u8>, String> {
        let name = reference.to_string();
        let found = self.0.iter().find(|(file, _)| name == format!("file:{file}"));
        found.map(|(_, text)| text.as_bytes().to_vec()).ok_or_else(|| format!("cannot read {name}"))
    }
}

#[test]
fn certificates_are_read_and_looked_at() {
    let files = Given(&[
        ("good.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        ("empty", "nothing\n"),
    ]);
    let text = "version: 1
listeners:
  a:
    address: 127.0.0.1:1
    tls:
      certificates:
        - { cert: file:empty, key: file:empty }
        - { cert: file:good.crt, key: file:good.crt }
        - { cert: file:none, key: file:none }
      client: { authorities: file:empty, revoked: file:none }
upstreams: { u: { endpoints: [https://a], tls: { authorities: file:empty } } }
apis: { a: { upstream: u } }
";
    let Err(errors) = compile(&Source::new("test.yaml", text.into()), &files, None) else { panic!("compiled") };
    let found: Vec<String> = errors.iter().map(|it| format!("{} {} {}", it.line, it.path, it.message)).collect();
    let at = "listeners.a.tls";
    let expected = [
        format!("7 {at}.certificates[0].cert file:empty has no certificate in PEM"),
        format!("7 {at}.certificates[0].key file:empty has no private key in PEM"),
        format!("8 {at}.certificates[1].key file:good.crt has no private key in PEM"),
        format!("9 {at}.certificates[2].cert cannot read file:none"),
        format!("9 {at}.certificates[2].key cannot read file:none"),
        format!("10 {at}.client.authorities file:empty has no certificate in PEM"),
        format!("10 {at}.client.revoked cannot read file:none"),
        "11 upstreams.u.tls.authorities file:empty has no certificate in PEM".into(),
    ];
    assert_eq!(found, expected);
}

#[test]
fn models_are_checked() {
    check(
        "version: 1
providers:
  openai: {}
  mine: { kind: opnai }
  local: { kind: openai-compatible }
  cloud: { kind: bedrock, keys: env:NO_SUCH_VARIABLE }
  here: { kind: vllm }
models:
  a: there/m
  b: { candidates: [] }
  c: here/m*
  'd*': here/m*
  e: { candidates: [{ model: here, when: '1 +' }, { model: here/m, when: 'model.prompt' }] }
budgets:
  none: { per: consumer, amount: 0 USD }
  odd: { per: task, only: [x], amount: 1 USD }
apis:
  brain: { llm: { models: [f, 'd*'] }, upstream: http://x }
",
        &[
            "openai: `keys` is missing",
            "no kind of provider is called `opnai`",
            "`upstream` is missing",
            "`region` is missing",
            "there is no provider `there`",
            "no candidate",
            "`*` stands for nothing",
            "expected `provider/model`",
            "not an expression",
            "gives a number, expected true or false",
            "budgets.none.amount",
            "budgets.odd.only",
            "there is no model `f`",
            "has no meaning beside `llm`",
        ],
    );
}

#[test]
fn who_lends_a_budget_is_a_store() {
    let check = |more: &str, expected: &[&str]| {
        let rest = "stores: { here: { url: redis://127.0.0.1 } }\napis: { a: { upstream: http://x } }";
        check(&format!("version: 1\nbudgets: {{ b: {{ per: team, amount: 1 USD, {more} }} }}\n{rest}\n"), expected);
    };
    check("shared: here", &[]);
    check("shared: there", &["there is no store `there`"]);
    check("shared: here, enforce: soft", &["counted by each node alone"]);
}

#[test]
fn answers_wait_for_a_disk_that_is_there() {
    let check = |ledger: &str, expected: &[&str]| {
        check(&format!("version: 1\nledger: {{ {ledger} }}\napis: {{ a: {{ upstream: http://x }} }}\n"), expected);
    };
    check("data: /d, sync: each", &[]);
    check("sync: group", &[]);
    check("sync: each", &["expected `ledger.data`"]);
    check("data: /d, sync: always", &["always"]);
}

#[test]
fn the_model_that_gives_vectors_is_checked() {
    check(
        "version: 1
providers: { anthropic: { upstream: 'http://a' }, openai: { upstream: 'http://o' } }
models: { chat: anthropic/claude-sonnet-4-5, vectors: openai/text-embedding-3-small }
policies: { answer-cache: { semantic: { model: vector } } }
apis:
  a: { llm: { prefix: /a } }
  b: { llm: { prefix: /b }, policies: { answer-cache: { semantic: { model: chat } } } }
  c: { llm: { prefix: /c }, policies: { answer-cache: { semantic: { model: vectors, threshold: 2 } } } }
",
        &[
            "policies.answer-cache.semantic.model",
            "no provider of `chat` gives vectors",
            "expected more than 0 and at most 1",
        ],
    );
}

/// Written anew with `WEIR_GOLDEN=write`.
#[test]
fn diagnostics_read_as_they_should() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden"));
    for name in ["many.yaml", "two.toml", "one.json"] {
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        let Err(errors) = compile(&Source::new(name, text), &Disk { base: "/nowhere".into() }, None) else {
            panic!("{name} compiled")
        };
        let rendered: String = errors.iter().map(|error| error.render(false) + "\n\n").collect();
        let golden = folder.join(format!("{name}.txt"));
        if std::env::var_os("WEIR_GOLDEN").is_some() {
            std::fs::write(&golden, &rendered).unwrap();
        }
        assert_eq!(rendered, std::fs::read_to_string(&golden).unwrap(), "{name}");
    }
}

#[test]
fn what_an_upstream_bears_is_checked() {
    let wrong = |settings: &str| {
        let text = format!(
            "version: 1\nupstreams: {{ s: {{ endpoints: ['http://a'], {settings} }} }}\napis: {{ a: {{ upstream: s }} }}\n"
        );
        match compile(&Source::new("w.yaml", text), &Disk { base: ".".into() }, None) {
            Ok((snapshot, warnings)) => (Some(snapshot), warnings),
            Err(errors) => (None, errors),
        }
    };
    for (settings, at) in [
        ("eject: never", "eject"),
        ("eject: { failures: 0 }", "eject.failures"),
        ("eject: { on: [conect] }", "eject.on[0]"),
        ("eject: { for: 1m, at-most: 10s }", "eject.at-most"),
        ("eject: { failure-share: 0% }", "eject.failure-share"),
        ("breaker: { trials: 0 }", "breaker.trials"),
        ("breaker: { window: 1ms }", "breaker.window"),
        ("breaker: { on: ['399'] }", "breaker.on[0]"),
        ("limits: { calls: 0 }", "limits.calls"),
        ("limits: { endpoint: { connections: 0 } }", "limits.endpoint.connections"),
        ("limits: { wait: 1s }", "limits.wait"),
        ("zones: { spill-below: 0% }", "zones.spill-below"),
        ("retry: { hedge: p40 }", "retry.hedge"),
        ("retry: { hedge: { after: soon } }", "retry.hedge.after"),
        ("retry: { hedge: { attempts: 1 } }", "retry.hedge"),
        ("retry: { hedge: { after: p99, attempts: 0 } }", "retry.hedge.attempts"),
    ] {
        let (_, found) = wrong(settings);
        let places: Vec<_> = found.iter().map(|it| it.path.as_str()).collect();
        assert_eq!(places, [format!("upstreams.s.{at}")], "{settings}: {found:?}");
    }
    let (snapshot, found) =
        wrong("eject: none, breaker: {}, limits: {}, slow-start: 30s, retry: { hedge: p99.9, on: ['5xx'] }");
    assert!(found.is_empty(), "{found:?}");
    let upstream = &snapshot.unwrap().upstreams[0];
    assert!(upstream.eject.is_none() && upstream.breaker.is_some());
    assert!(
        upstream.retry.on.has_status(base::StatusCode::BAD_GATEWAY)
            && !upstream.retry.on.has_status(base::StatusCode::NOT_FOUND)
    );
}

#[test]
fn endpoints_are_grouped_by_priority_and_then_by_zone() {
    let text = "version: 1\nnode: { zone: b }\nupstreams: { s: { endpoints: [{ url: 'http://1', zone: a }, { url: 'http://2', zone: b },\n\
        { url: 'http://3', zone: b, priority: 7 }, { url: 'http://4', priority: 7 }, { url: 'http://5' }] } }\n\
        apis: { a: { upstream: s } }\n";
    let levels = |text: String| -> Vec<u32> {
        let compiled = compile(&Source::new("z.yaml", text), &Disk { base: ".".into() }, None);
        let (snapshot, _) = compiled.unwrap_or_else(|found| panic!("{found:?}"));
        snapshot.upstreams[0].endpoints.iter().map(|endpoint| endpoint.level).collect()
    };
    assert_eq!(levels(text.to_owned()), [1, 0, 2, 3, 1]);
    assert_eq!(levels(text.replace("] } }\n", "], zones: { prefer-own: false } } }\n")), [0, 0, 1, 1, 0]);
    assert_eq!(levels(text.replace("node: { zone: b }\n", "")), [0, 0, 1, 1, 0]);
}

#[test]
fn a_service_has_no_port_and_a_name_server_has_an_address() {
    check(
        "version: 1
node: { dns: { servers: ['10.0.0.53', '[::1]:5353', '::1', names.internal] } }
upstreams:
  a: { endpoints: ['srv+http://a:80', 'srv+https://10.0.0.1', 'srv+ftp://a', 'srv+http://_a._tcp.internal/base'] }
apis: { a: { upstream: a } }
",
        &[
            "node.dns.servers[3]: `names.internal` is not an address",
            "upstreams.a.endpoints[0]: `srv+http://a:80` is not a service; expected a name without a port",
            "upstreams.a.endpoints[1]: ",
            "upstreams.a.endpoints[2]: ",
        ],
    );
}

#[test]
fn silent_clients_are_asked_where_that_is_wanted() {
    let document = |limits: &str| {
        format!(
            "version: 1\nlisteners: {{ web: {{ address: '127.0.0.1:0', limits: {{ {limits} }} }} }}\napis: {{ a: {{ routes: [{{ respond: {{ body: x }} }}] }} }}\n"
        )
    };
    let asked = |limits: &str| {
        let source = Source::new("test.yaml", document(limits));
        let (snapshot, _) = compile(&source, &Disk { base: "/nowhere".into() }, None).unwrap();
        let limits = &snapshot.listeners[0].limits;
        limits.ping.map(|ping| (ping.as_secs(), limits.ping_timeout.as_secs()))
    };
    assert_eq!(asked(""), None);
    assert_eq!(asked("ping: none"), None);
    assert_eq!(asked("ping: 30s"), Some((30, 20)));
    assert_eq!(asked("ping: 1m, ping-timeout: 5s"), Some((60, 5)));
    check(&document("ping: 0s"), &["limits.ping: expected more than zero, or `none`"]);
    check(&document("ping: 30s, ping-timeout: 0s"), &["limits.ping-timeout: nothing would pass"]);
    check(&document("ping: never"), &["limits.ping: "]);
    check(&document("ping-timeout: 5s"), &["limits.ping-timeout: nobody is asked; expected `ping` beside it"]);
}

#[test]
fn an_authority_issues_for_hosts_and_what_it_issued_is_kept() {
    let acme = |node: &str, acme: &str| {
        format!(
            "version: 1\nnode: {{ {node} }}\nlisteners: {{ web: {{ address: '127.0.0.1:0', tls: {{ acme: {{ {acme} }} }} }} }}\napis: {{ a: {{ routes: [{{ respond: {{ body: x }} }}] }} }}\n"
        )
    };
    check(&acme("data: d", "domains: [a.test]"), &[]);
    check(&acme("", "domains: [a.test]"), &["listeners.web.tls.acme: there is nowhere to keep the certificate"]);
    check(
        &acme("data: d", "domains: ['*.a.test', 'a b', 10.0.0.1], contact: [me], directory: 'http://ca/dir'"),
        &[
            "domains[0]: a `*` takes a proof in DNS",
            "domains[1]: `a b` is not a host's name",
            "domains[2]: ",
            "contact[0]: `me` is no address",
            "directory: `http://ca/dir` is not an authority",
        ],
    );
    check(&acme("data: d", "domains: []"), &["listeners.web.tls.acme: no name"]);
}

#[test]
fn answers_are_kept_on_a_disk_where_there_is_a_folder_for_them() {
    let document = |node: &str| {
        format!("version: 1\nnode: {{ {node} }}\napis: {{ a: {{ routes: [{{ respond: {{ body: x }} }}] }} }}\n")
    };
    check(&document("data: d, cache: { disk: {} }"), &[]);
    check(&document("cache: { disk: {} }"), &["node.cache.disk: there is nowhere to keep the answers"]);
    check(&document("data: d, cache: { disk: { size: 1KiB } }"), &["node.cache.disk.size: too little"]);
    let source = Source::new("weir.yaml", document("data: d, cache: { disk: { size: 10GiB } }"));
    let (snapshot, _) = compile(&source, &Disk { base: "/b".into() }, None).unwrap();
    let disk = snapshot.node.cache_disk.as_ref().unwrap();
    assert_eq!((disk.folder.to_str(), disk.size), (Some("/b/d/cache"), 10 << 30));
}
