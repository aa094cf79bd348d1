//! TLS on both sides: OpenSSL (curl) towards the gateway, a service over rustls behind it.

use std::time::Duration;

use testkit::curl::{Said, curl};
use testkit::tls::Service;
use testkit::{Folder, Gateway, eventually};

/// `https://HOST:PORT/path` for curl, which is told where HOST is.
fn https(gateway: &Gateway, folder: &Folder, host: &str, more: &[&str]) -> Said {
    let address = gateway.web();
    let resolve = format!("{host}:{}:{}", address.port(), address.ip());
    let authority = folder.path("ca.crt").display().to_string();
    let url = format!("https://{host}:{}/path", address.port());
    curl(&[&["--resolve", &resolve, "--cacert", &authority], more, &[&url]].concat())
}

const RESPOND: &str = "apis: { a: { routes: [{ respond: { body: here } }] } }\n";

#[test]
fn each_name_gets_its_certificate() {
    let folder = Folder::new();
    let authority = folder.authority("ca");
    authority.issue("a", &["a.test"]);
    authority.issue("b", &["b.test", "*.wild.test"]);
    let gateway = Gateway::start_in(
        &folder,
        &format!(
            "listeners: {{ web: {{ address: '127.0.0.1:0', tls: {{ certificates: [{{ cert: file:a.crt, key: file:a.key }}, {{ cert: file:b.crt, key: file:b.key }}] }} }} }}\n{RESPOND}"
        ),
    );
    for host in ["a.test", "b.test", "x.wild.test"] {
        for (flag, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
            let said = https(&gateway, &folder, host, &[flag]);
            assert_eq!((said.answer.text().as_str(), said.version.as_str()), ("here", version), "{said:?}");
        }
        for flags in [&["--tlsv1.3"][..], &["--tls-max", "1.2"]] {
            assert_eq!(https(&gateway, &folder, host, flags).answer.text(), "here", "{flags:?}");
        }
    }
    // A name that none covers gets the first, which curl does not take for it.
    let said = https(&gateway, &folder, "c.test", &[]);
    assert_eq!(said.code, 60, "{said:?}");
    assert!(said.verbose.contains("CN=a"), "{}", said.verbose);
    // TLS only.
    let said = curl(&[&gateway.url()]);
    assert_ne!(said.code, 0, "{said:?}");
}

#[test]
fn an_old_version_is_refused_where_the_document_says_so() {
    let folder = Folder::new();
    folder.authority("ca").issue("a", &["a.test"]);
    let gateway = Gateway::start_in(
        &folder,
        &format!(
            "listeners: {{ web: {{ address: '127.0.0.1:0', tls: {{ minimum: '1.3', certificates: [{{ cert: file:a.crt, key: file:a.key }}] }} }} }}\n{RESPOND}"
        ),
    );
    assert_eq!(https(&gateway, &folder, "a.test", &[]).answer.text(), "here");
    assert_eq!(https(&gateway, &folder, "a.test", &["--tls-max", "1.2"]).code, 35);
}

#[test]
fn clients_must_show_certificates_where_they_are_asked_for() {
    let folder = Folder::new();
    folder.authority("ca").issue("a", &["a.test"]);
    folder.authority("people").issue("alice", &["alice"]);
    folder.authority("strangers").issue("mallory", &["mallory"]);
    let document = |require: bool| {
        format!(
            "listeners: {{ web: {{ address: '127.0.0.1:0', tls: {{ certificates: [{{ cert: file:a.crt, key: file:a.key }}], client: {{ authorities: file:people.crt, require: {require} }} }} }} }}\n{RESPOND}"
        )
    };
    let with = |gateway: &Gateway, who: &str| {
        let (cert, key) = (folder.path(&format!("{who}.crt")), folder.path(&format!("{who}.key")));
        https(gateway, &folder, "a.test", &["--cert", cert.to_str().unwrap(), "--key", key.to_str().unwrap()])
    };
    let mut gateway = Gateway::start_in(&folder, &document(true));
    assert_eq!(with(&gateway, "alice").answer.text(), "here");
    assert_ne!(with(&gateway, "mallory").code, 0);
    assert_ne!(https(&gateway, &folder, "a.test", &[]).code, 0);
    // Changed in place: the listener stays.
    let before = gateway.web();
    gateway.apply(&document(false));
    assert_eq!(gateway.web(), before);
    assert_eq!(https(&gateway, &folder, "a.test", &[]).answer.text(), "here");
    assert_eq!(with(&gateway, "alice").answer.text(), "here");
    assert_ne!(with(&gateway, "mallory").code, 0);
}

#[test]
fn a_new_certificate_is_used_from_the_next_handshake_on() {
    let folder = Folder::new();
    let authority = folder.authority("ca");
    authority.issue("a", &["a.test"]);
    authority.issue("b", &["a.test"]);
    let document = |name: &str| {
        format!(
            "listeners: {{ web: {{ address: '127.0.0.1:0', tls: {{ certificates: [{{ cert: file:{name}.crt, key: file:{name}.key }}] }} }} }}\n{RESPOND}"
        )
    };
    let mut gateway = Gateway::start_in(&folder, &document("a"));
    assert!(https(&gateway, &folder, "a.test", &[]).verbose.contains("CN=a"));
    gateway.apply(&document("b"));
    let said = https(&gateway, &folder, "a.test", &[]);
    assert_eq!(said.answer.text(), "here");
    assert!(said.verbose.contains("CN=b"), "{}", said.verbose);
    // A key that is not the certificate's is refused whole.
    let mixed = document("b").replace("file:b.key", "file:a.key");
    let wrong = gateway.try_apply(&mixed).unwrap_err();
    assert!(wrong[0].contains("listeners.web.tls.certificates[0]"), "{wrong:?}");
    assert_eq!(https(&gateway, &folder, "a.test", &[]).answer.text(), "here");
}

#[test]
fn upstreams_are_verified() {
    let folder = Folder::new();
    folder.authority("ca").issue("service", &["service.test", "127.0.0.1"]);
    folder.authority("other").issue("stranger", &["service.test", "127.0.0.1"]);
    let service = Service::start(&folder, "service", &["h2", "http/1.1"], None);
    let stranger = Service::start(&folder, "stranger", &["http/1.1"], None);
    let get = |service: &Service, tls: &str, protocol: &str| {
        let gateway = Gateway::start_in(
            &folder,
            &format!(
                "upstreams: {{ s: {{ endpoints: ['https://{}'], protocol: {protocol}, tls: {tls} }} }}\napis: {{ a: {{ upstream: s }} }}\n",
                service.address()
            ),
        );
        curl(&[&format!("{}/p", gateway.url())]).answer
    };
    // By its address, by a name that it is asked for, and with each protocol.
    for (tls, protocol, said) in [
        ("{ authorities: file:ca.crt }", "http1", "HTTP/1.1 alpn=http/1.1 sni= client=no /p"),
        ("{ authorities: file:ca.crt }", "http2", "HTTP/2.0 alpn=h2 sni= client=no /p"),
        ("{ authorities: file:ca.crt, name: service.test }", "auto", "HTTP/2.0 alpn=h2 sni=service.test client=no /p"),
        ("{ verify: false }", "http1", "HTTP/1.1 alpn=http/1.1 sni= client=no /p"),
    ] {
        assert_eq!(get(&service, tls, protocol).text(), said, "{tls}");
    }
    let before = (service.requests(), stranger.requests());
    for (service, tls) in [
        (&stranger, "{ authorities: file:ca.crt }"),
        (&service, "{ authorities: file:ca.crt, name: wrong.test }"),
        // The system's authorities know nothing of it.
        (&service, "{}"),
    ] {
        let answer = get(service, tls, "auto");
        assert_eq!(answer.status, 502, "{tls}: {answer:?}");
        assert_eq!(answer.json()["type"], "urn:weir:problem:upstream-unreachable");
    }
    assert_eq!((service.requests(), stranger.requests()), before, "nothing is said to a stranger");
    // Where only HTTP/1.1 is spoken, `auto` speaks it.
    let answer = get(&stranger, "{ authorities: file:other.crt }", "auto");
    assert_eq!(answer.text(), "HTTP/1.1 alpn=http/1.1 sni= client=no /p");
}

#[test]
fn an_upstream_is_shown_our_certificate() {
    let folder = Folder::new();
    folder.authority("ca").issue("service", &["127.0.0.1"]);
    folder.authority("gateways").issue("us", &["us"]);
    let service = Service::start(&folder, "service", &["h2", "http/1.1"], Some("gateways"));
    for (tls, status) in [
        ("{ authorities: file:ca.crt, certificate: { cert: file:us.crt, key: file:us.key } }", 200),
        ("{ authorities: file:ca.crt, certificate: { cert: file:service.crt, key: file:service.key } }", 502),
        ("{ authorities: file:ca.crt }", 502),
    ] {
        for protocol in ["http1", "http2"] {
            let gateway = Gateway::start_in(
                &folder,
                &format!(
                    "upstreams: {{ s: {{ endpoints: ['https://{}'], protocol: {protocol}, tls: {tls} }} }}\napis: {{ a: {{ upstream: s }} }}\n",
                    service.address()
                ),
            );
            let answer = curl(&[&gateway.url()]).answer;
            assert_eq!(answer.status, status, "{protocol} {tls} {answer:?}");
            assert_eq!(answer.text().contains("client=yes"), status == 200);
        }
    }
}

#[test]
fn a_proxy_header_comes_before_the_handshake() {
    let folder = Folder::new();
    folder.authority("ca").issue("a", &["a.test"]);
    let gateway = Gateway::start_in(
        &folder,
        &format!(
            "listeners: {{ web: {{ address: '127.0.0.1:0', proxy-protocol: true, tls: {{ certificates: [{{ cert: file:a.crt, key: file:a.key }}] }} }} }}\n{RESPOND}"
        ),
    );
    assert_eq!(https(&gateway, &folder, "a.test", &["--haproxy-protocol"]).answer.text(), "here");
    assert_ne!(https(&gateway, &folder, "a.test", &[]).code, 0);
}

#[test]
fn a_collector_is_reached_over_tls() {
    let folder = Folder::new();
    let authority = folder.authority("ca");
    authority.issue("collector", &["127.0.0.1"]);
    authority.issue("us", &["weir"]);
    folder.authority("other");
    for (protocol, alpn) in [("http", "http/1.1"), ("grpc", "h2")] {
        // It wants to see a certificate of ours.
        let collector = Service::start(&folder, "collector", &[alpn], Some("ca"));
        let document = |tls: &str| {
            format!(
                "telemetry: {{ otlp: {{ endpoint: 'https://{}', protocol: {protocol}, every: 100ms, tls: {{ {tls} }} }} }}\napis: {{ a: {{ routes: [{{ respond: {{ body: here }} }}] }} }}\n",
                collector.address()
            )
        };
        let ours = "authorities: file:ca.crt, certificate: { cert: file:us.crt, key: file:us.key }";
        let trusting = Gateway::start_in(&folder, &document(ours));
        eventually("it gets something", || collector.requests() > 0);
        drop(trusting);
        let before = collector.requests();
        let wary = Gateway::start_in(&folder, &document(&ours.replace("ca.crt", "other.crt")));
        std::thread::sleep(Duration::from_millis(500));
        drop(wary);
        assert_eq!(collector.requests(), before, "it is not who we know");
    }
    let wrong = "telemetry: { otlp: { endpoint: 'https://127.0.0.1:1', tls: { authorities: file:us.key } } }\napis: { a: { routes: [{ respond: { body: here } }] } }\n";
    let mut gateway = Gateway::start_in(&folder, "apis: { a: { routes: [{ respond: { body: here } }] } }\n");
    let told = gateway.try_apply(wrong).unwrap_err();
    assert!(told[0].contains("telemetry.otlp.tls.authorities"), "{told:?}");
}
