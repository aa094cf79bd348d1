//! Certificates from an authority that is not ours: Pebble, which proves the names over sockets before it issues any.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use proxy::CertificateStatus;
use testkit::acme::Pebble;
use testkit::curl::{Said, curl};
use testkit::dns::NameServer;
use testkit::{Folder, Gateway, Raw, eventually};

const HOSTS: &str = "a 60 A 127.0.0.1\nb 60 A 127.0.0.1\n";

/// Two ports that were free a moment ago: the authority has to know them before the gateway starts.
fn ports() -> (u16, u16) {
    let sockets = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    (sockets[0].local_addr().unwrap().port(), sockets[1].local_addr().unwrap().port())
}

fn document(pebble: &Pebble, http: u16, tls: u16, acme: &str) -> String {
    format!(
        "node: {{ workers: 2, data: data }}\nlisteners:\n  plain: {{ address: '127.0.0.1:{http}' }}\n  web: {{ address: '127.0.0.1:{tls}', tls: {{ acme: {{ domains: [a.test, b.test], directory: '{}', authorities: 'file:{}', {acme} }} }} }}\napis: {{ a: {{ routes: [{{ respond: {{ body: here }} }}] }} }}\n",
        pebble.directory(),
        pebble.ca().display()
    )
}

fn certificate(gateway: &Gateway) -> CertificateStatus {
    gateway.node().upstreams().certificates().remove(0)
}

/// Waits until there is one; a failure is told, since the next attempt is a minute away.
#[track_caller]
fn issued(gateway: &Gateway) {
    eventually("it is issued", || {
        let CertificateStatus { not_after, issue, .. } = certificate(gateway);
        let error = issue.and_then(|issue| issue.error);
        assert!(not_after.is_some() || error.is_none(), "{error:?}");
        not_after.is_some()
    });
}

fn https(folder: &Folder, pebble: &Pebble, host: &str, port: u16) -> Said {
    let root = folder.write("root.pem", pebble.root());
    let resolve = format!("{host}:{port}:127.0.0.1");
    curl(&["--resolve", &resolve, "--cacert", root.to_str().unwrap(), &format!("https://{host}:{port}/")])
}

/// Files that are kept.
fn kept(folder: &Folder) -> Vec<PathBuf> {
    let authority = std::fs::read_dir(folder.path("data/acme")).unwrap().next().unwrap().unwrap().path();
    let mut files: Vec<_> = std::fs::read_dir(authority).unwrap().map(|it| it.unwrap().path()).collect();
    // What is still being written is not kept yet.
    files.retain(|file| !file.extension().is_some_and(|end| end.to_string_lossy().starts_with("new-")));
    files.sort();
    files
}

#[test]
fn a_certificate_is_issued_served_and_kept() {
    for challenge in ["http-01", "tls-alpn-01"] {
        let folder = Folder::new();
        let names = NameServer::start(HOSTS);
        let (http, tls) = ports();
        let mut pebble = Pebble::start(&names, http, tls, None);
        let document = document(&pebble, http, tls, &format!("contact: ['mailto:a@b.test'], challenge: {challenge}"));
        let gateway = Gateway::start_in(&folder, &document);
        // What needs no certificate is served meanwhile, and what lies under the path of the questions is the routes' own.
        assert_eq!(Raw::connect(gateway.address("plain")).get("/.well-known/acme-challenge/x", "").text(), "here");
        issued(&gateway);
        for host in ["a.test", "b.test"] {
            let said = https(&folder, &pebble, host, tls);
            assert_eq!(said.answer.text(), "here", "{challenge} {said:?}");
        }
        let issue = certificate(&gateway).issue.unwrap();
        assert_eq!((issue.failures, issue.error), (0, None));
        let metrics = gateway.node().telemetry().render();
        assert!(!metrics.contains("weir_certificate_expiry_seconds{listener=\"web\",name=\"a.test\"} 0"), "{metrics}");
        assert!(metrics.contains("weir_certificate_failures{listener=\"web\",name=\"a.test\"} 0"), "{metrics}");

        eventually("it is kept", || kept(&folder).len() == 2);
        for file in kept(&folder) {
            assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
        }
        let before = certificate(&gateway).not_before;
        drop(gateway);
        // It is there from the start, without the authority.
        pebble.stop();
        let gateway = Gateway::start_in(&folder, &document);
        assert_eq!(certificate(&gateway).not_before, before);
        let said = curl(&["--resolve", &format!("a.test:{tls}:127.0.0.1"), "-k", &format!("https://a.test:{tls}/")]);
        assert_eq!(said.answer.text(), "here");
    }
}

#[test]
fn what_is_wrong_is_told_and_a_reload_tries_again() {
    let folder = Folder::new();
    let mut names = NameServer::start("a 1 A 127.0.0.1\n");
    let (http, tls) = ports();
    let pebble = Pebble::start(&names, http, tls, None);
    let document = document(&pebble, http, tls, "challenge: tls-alpn-01");
    let mut gateway = Gateway::start_in(&folder, &document);
    eventually("it fails", || certificate(&gateway).issue.unwrap().error.is_some());
    let issue = certificate(&gateway).issue.unwrap();
    assert!(issue.error.as_ref().unwrap().contains("b.test"), "{issue:?}");
    assert!(issue.failures == 1 && issue.next.is_some(), "{issue:?}");
    assert!(certificate(&gateway).not_after.is_none());
    // The handshake fails, and the other listener serves.
    assert_eq!(curl(&["-k", &format!("https://127.0.0.1:{tls}/")]).code, 35);
    assert_eq!(Raw::connect(gateway.address("plain")).get("/", "").text(), "here");

    names.say(HOSTS);
    gateway.apply(&document);
    eventually("it is issued", || certificate(&gateway).not_after.is_some());
    assert_eq!(https(&folder, &pebble, "b.test", tls).answer.text(), "here");
}

#[test]
fn one_that_ages_is_renewed_without_a_restart() {
    let folder = Folder::new();
    let names = NameServer::start(HOSTS);
    let (http, tls) = ports();
    let pebble = Pebble::start(&names, http, tls, None);
    let document = document(&pebble, http, tls, "challenge: http-01");
    let gateway = Gateway::start_in(&folder, &document);
    issued(&gateway);
    let certificate = || kept(&folder).into_iter().find(|it| it.extension().is_some_and(|it| it == "pem"));
    eventually("it is kept", || certificate().is_some() && kept(&folder).len() == 2);
    drop(gateway);
    // One that has lived for two thirds of its time lies in its place.
    let file = certificate().unwrap();
    folder.authority("old-ca").issue_for("old", &["a.test", "b.test"], (1975, 2040));
    let old = [std::fs::read(folder.path("old.crt")).unwrap(), std::fs::read(folder.path("old.key")).unwrap()].concat();
    std::fs::write(&file, &old).unwrap();
    let gateway = Gateway::start_in(&folder, &document);
    eventually("another is served", || https(&folder, &pebble, "a.test", tls).answer.status == 200);
    eventually("and kept", || std::fs::read(&file).unwrap() != old);
    drop(gateway);
}

#[test]
fn an_authority_may_want_to_know_its_clients() {
    let folder = Folder::new();
    let names = NameServer::start(HOSTS);
    let (http, tls) = ports();
    let key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let pebble = Pebble::start(&names, http, tls, Some(("kid-1", key)));
    let mut gateway = Gateway::start_in(&folder, &document(&pebble, http, tls, ""));
    eventually("it is refused", || certificate(&gateway).issue.unwrap().error.is_some());
    let error = certificate(&gateway).issue.unwrap().error.unwrap();
    assert!(error.contains("externalAccount") || error.contains("external account"), "{error}");
    folder.write("eab", key);
    gateway.apply(&document(&pebble, http, tls, "external-account: { id: kid-1, key: 'file:eab' }"));
    issued(&gateway);
    assert_eq!(https(&folder, &pebble, "a.test", tls).answer.text(), "here");
}
