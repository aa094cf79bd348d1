use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base::TlsInfo;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, IsCa, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, HandshakeKind, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;

type ServerStream = TlsStream<DuplexStream>;
type ClientStream = tokio_rustls::client::TlsStream<DuplexStream>;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

struct Pair {
    chain: String,
    key: String,
}

impl Pair {
    fn identity(&self) -> Identity<'_> {
        Identity { chain: self.chain.as_bytes(), key: self.key.as_bytes() }
    }
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    fn issue(&self, names: &[&str], serial: u8) -> Pair {
        self.issue_until(names, serial, 2099)
    }

    fn issue_until(&self, names: &[&str], serial: u8, year: i32) -> Pair {
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.serial_number = Some(SerialNumber::from_slice(&[serial]));
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        Pair { chain: params.signed_by(&key, &self.0).unwrap().pem(), key: key.serialize_pem() }
    }

    fn revoke(&self, serial: u8) -> String {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from_slice(&[serial]),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2099, 1, 1),
            crl_number: SerialNumber::from_slice(&[1]),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.0).unwrap().pem().unwrap()
    }
}

fn server(pairs: &[&Pair], client: Option<ClientCertificates<'_>>) -> Arc<ServerConfig> {
    let certificates = pairs.iter().map(|pair| pair.identity()).collect();
    ServerTls { certificates, live: Vec::new(), client, tls12: true }
        .build(&provider())
        .map_err(|errors| format!("{errors:?}"))
        .unwrap()
        .config
}

fn client(authority: &Authority, certificate: Option<&Pair>) -> Arc<ClientConfig> {
    let pem = authority.pem();
    let certificate = certificate.map(Pair::identity);
    let tls =
        ClientTls { authorities: Some(pem.as_bytes()), certificate, verify: true, alpn: &[Alpn::H2, Alpn::Http1] };
    tls.build(&provider()).map_err(|errors| format!("{errors:?}")).unwrap().config
}

struct Both {
    server: Result<(ServerStream, TlsInfo), String>,
    client: Result<(ClientStream, Option<Alpn>), String>,
}

async fn handshake(current: &ArcSwap<ServerConfig>, config: &Arc<ClientConfig>, name: &str) -> Both {
    let (near, far) = tokio::io::duplex(1 << 16);
    let name = server_name(name).unwrap();
    let (server, client) =
        tokio::join!(accept(far, current, Duration::from_secs(5)), connect(near, config.clone(), name));
    Both {
        server: server.map_err(|error| match error {
            AcceptError::Handshake(error) => error.to_string(),
            AcceptError::Answered => panic!("no authority asks here"),
            AcceptError::Timeout => "timeout".into(),
        }),
        client: client.map_err(|error| error.to_string()),
    }
}

impl Both {
    fn ok(self) -> (ServerStream, TlsInfo, ClientStream, Option<Alpn>) {
        let ((server, info), (client, alpn)) = (self.server.unwrap(), self.client.unwrap());
        (server, info, client, alpn)
    }

    fn served(&self) -> Vec<u8> {
        self.client.as_ref().unwrap().0.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    }
}

/// Both ways, so that tickets sent after the handshake have arrived too.
async fn talk(server: &mut ServerStream, client: &mut ClientStream) {
    let mut byte = [0];
    client.write_all(b"a").await.unwrap();
    client.flush().await.unwrap();
    server.read_exact(&mut byte).await.unwrap();
    server.write_all(b"b").await.unwrap();
    server.flush().await.unwrap();
    client.read_exact(&mut byte).await.unwrap();
}

fn der(pair: &Pair) -> Vec<u8> {
    use rustls_pki_types::pem::PemObject;
    rustls_pki_types::CertificateDer::from_pem_slice(pair.chain.as_bytes()).unwrap().to_vec()
}

#[tokio::test]
async fn the_name_picks_the_certificate() {
    let authority = Authority::new();
    let first = authority.issue(&["first.test"], 1);
    let exact = authority.issue(&["b.wild.test", "other.test"], 2);
    let wild = authority.issue(&["*.wild.test"], 3);
    let current = ArcSwap::new(server(&[&first, &exact, &wild], None));
    let blind = ClientTls { authorities: None, certificate: None, verify: false, alpn: &[] };
    let blind = blind.build(&provider()).map_err(|errors| format!("{errors:?}")).unwrap().config;
    for (name, pair) in [
        ("first.test", &first),
        ("other.test", &exact),
        ("OTHER.test", &exact),
        ("b.wild.test", &exact),
        ("a.wild.test", &wild),
        ("a.b.wild.test", &first),
        ("wild.test", &first),
        ("unknown.test", &first),
        ("127.0.0.1", &first),
    ] {
        assert_eq!(handshake(&current, &blind, name).await.served(), der(pair), "{name}");
    }
}

#[tokio::test]
async fn what_was_agreed_is_told() {
    let authority = Authority::new();
    let pair = authority.issue(&["a.test"], 1);
    let current = ArcSwap::new(server(&[&pair], None));
    let (_, info, _, alpn) = handshake(&current, &client(&authority, None), "a.test").await.ok();
    assert_eq!((info.sni.as_deref(), info.alpn.as_deref(), &*info.version), (Some("a.test"), Some("h2"), "1.3"));
    assert!(info.client.is_empty());
    assert_eq!(alpn, Some(Alpn::H2));
}

#[tokio::test]
async fn a_reload_serves_the_new_certificate_and_keeps_the_old_connection() {
    let authority = Authority::new();
    let (old, new) = (authority.issue(&["a.test"], 1), authority.issue(&["a.test"], 2));
    let current = ArcSwap::new(server(&[&old], None));
    let config = client(&authority, None);
    let before = handshake(&current, &config, "a.test").await;
    assert_eq!(before.served(), der(&old));
    let (mut far, _, mut near, _) = before.ok();
    talk(&mut far, &mut near).await;

    current.store(server(&[&new], None));
    assert_eq!(handshake(&current, &config, "a.test").await.served(), der(&new));
    talk(&mut far, &mut near).await;
}

#[tokio::test]
async fn client_certificates_are_asked_for_and_verified() {
    let (authority, clients, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let pair = authority.issue(&["a.test"], 1);
    let good = clients.issue(&["good.client"], 7);
    let revoked = clients.issue(&["bad.client"], 8);
    let stranger = strangers.issue(&["good.client"], 7);
    let (pem, list) = (clients.pem(), clients.revoke(8));
    for (required, certificate, accepted) in [
        (true, Some(&good), true),
        (true, None, false),
        (true, Some(&revoked), false),
        (true, Some(&stranger), false),
        (false, Some(&good), true),
        (false, None, true),
        (false, Some(&revoked), false),
        (false, Some(&stranger), false),
    ] {
        let wanted = ClientCertificates { authorities: pem.as_bytes(), revoked: list.as_bytes(), required };
        let current = ArcSwap::new(server(&[&pair], Some(wanted)));
        let both = handshake(&current, &client(&authority, certificate), "a.test").await;
        assert_eq!(both.server.is_ok(), accepted, "{required} {:?}", both.server.as_ref().err());
        if let (Ok((_, info)), Some(certificate)) = (&both.server, certificate) {
            assert_eq!(info.client, [der(certificate)]);
        }
    }
}

#[tokio::test]
async fn a_session_from_before_the_revocation_opens_no_door() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let pair = authority.issue(&["a.test"], 1);
    let caller = clients.issue(&["a.client"], 7);
    let (pem, list) = (clients.pem(), clients.revoke(7));
    let wanted = |revoked| Some(ClientCertificates { authorities: pem.as_bytes(), revoked, required: true });
    for tls12 in [false, true] {
        let current = ArcSwap::new(server(&[&pair], wanted(b"")));
        let mut config = client(&authority, Some(&caller));
        if tls12 {
            let pem = authority.pem();
            config = only_tls12(pem.as_bytes(), &caller);
        }
        for _ in 0..2 {
            let (mut far, info, mut near, _) = handshake(&current, &config, "a.test").await.ok();
            assert_eq!(info.version, if tls12 { "1.2" } else { "1.3" });
            assert_ne!(far.session().handshake_kind(), Some(HandshakeKind::Resumed));
            talk(&mut far, &mut near).await;
        }
        current.store(server(&[&pair], wanted(list.as_bytes())));
        let error = handshake(&current, &config, "a.test").await.server.map(|_| ()).unwrap_err();
        assert!(error.contains("Revoked"), "{error}");
    }
}

fn only_tls12(authorities: &[u8], pair: &Pair) -> Arc<ClientConfig> {
    let certified = pem::certified(pair.identity(), 0, &provider()).map_err(|errors| format!("{errors:?}")).unwrap();
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(pem::authorities(authorities).unwrap())
        .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified.key)));
    Arc::new(config)
}

#[tokio::test]
async fn without_client_certificates_sessions_are_resumed() {
    let authority = Authority::new();
    let pair = authority.issue(&["a.test"], 1);
    let current = ArcSwap::new(server(&[&pair], None));
    let config = client(&authority, None);
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let (mut far, _, mut near, _) = handshake(&current, &config, "a.test").await.ok();
        kinds.push(far.session().handshake_kind());
        talk(&mut far, &mut near).await;
    }
    assert_eq!(kinds[1], Some(HandshakeKind::Resumed));
}

#[tokio::test]
async fn an_upstream_is_verified_unless_told_otherwise() {
    let (authority, other) = (Authority::new(), Authority::new());
    let current = ArcSwap::new(server(&[&authority.issue(&["a.test"], 1)], None));
    assert!(handshake(&current, &client(&authority, None), "a.test").await.client.is_ok());
    assert!(handshake(&current, &client(&authority, None), "b.test").await.client.is_err());
    assert!(handshake(&current, &client(&other, None), "a.test").await.client.is_err());

    let system = ClientTls { authorities: None, certificate: None, verify: true, alpn: &[] };
    match system.build(&provider()) {
        Ok(built) => assert!(handshake(&current, &built.config, "a.test").await.client.is_err()),
        Err(errors) => assert_eq!(errors[0].which, Which::Authorities),
    }
    let blind = ClientTls { verify: false, ..system };
    let blind = blind.build(&provider()).map_err(|errors| format!("{errors:?}")).unwrap().config;
    assert!(handshake(&current, &blind, "b.test").await.client.is_ok());
}

#[tokio::test]
async fn a_silent_client_is_given_up() {
    let authority = Authority::new();
    let current = ArcSwap::new(server(&[&authority.issue(&["a.test"], 1)], None));
    let (_near, far) = tokio::io::duplex(64);
    let error = accept(far, &current, Duration::from_millis(20)).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, AcceptError::Timeout));
}

#[test]
fn everything_wrong_is_said_at_once() {
    let authority = Authority::new();
    let (one, two) = (authority.issue(&["a.test"], 1), authority.issue(&["b.test"], 2));
    let swapped = Identity { chain: one.chain.as_bytes(), key: two.key.as_bytes() };
    let reversed = format!("{}{}", authority.pem(), one.chain);
    let tls = ServerTls {
        certificates: vec![
            swapped,
            Identity { chain: b"", key: b"secret" },
            Identity { chain: reversed.as_bytes(), key: one.key.as_bytes() },
        ],
        live: Vec::new(),
        client: Some(ClientCertificates { authorities: b"x", revoked: b"y", required: true }),
        tls12: false,
    };
    let errors = tls.build(&provider()).map(|_| ()).unwrap_err();
    let which: Vec<Which> = errors.iter().map(|error| error.which).collect();
    let expected =
        [Which::Key(0), Which::Certificate(1), Which::Key(1), Which::Key(2), Which::Authorities, Which::Revoked];
    assert_eq!(which, expected, "{errors:?}");
    assert!(errors[3].message.contains("must begin with"), "{}", errors[3]);
    assert!(!format!("{errors:?}").contains("secret"));
}

#[test]
fn an_expired_certificate_is_a_warning() {
    let authority = Authority::new();
    let expired = authority.issue_until(&["a.test"], 1, 2020);
    let tls = ServerTls { certificates: vec![expired.identity()], live: Vec::new(), client: None, tls12: false };
    let warnings = tls.build(&provider()).map_err(|errors| format!("{errors:?}")).unwrap().warnings;
    assert!(warnings[0].message.starts_with("expired on"), "{warnings:?}");
}

/// Bytes that are not the same anywhere.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

#[tokio::test]
async fn bytes_pass_both_ways_in_pieces_of_all_sizes_over_a_socket_of_any() {
    let authority = Authority::new();
    let pair = authority.issue(&["a.test"], 1);
    let caller = authority.issue(&["a.client"], 7);
    let pem = authority.pem();
    let data = pattern(400_000);
    for (config, room) in [
        (client(&authority, None), 1),
        (client(&authority, None), 1000),
        (client(&authority, None), 1 << 20),
        (only_tls12(pem.as_bytes(), &caller), 1000),
    ] {
        let current = ArcSwap::new(server(&[&pair], None));
        let (near, far) = tokio::io::duplex(room);
        eprintln!("a socket of {room} bytes");
        let data = if room == 1 { &data[..20_000] } else { &data };
        let serving = async {
            let (stream, _) = accept(far, &current, Duration::from_secs(60)).await.unwrap();
            let (mut read, mut write) = tokio::io::split(stream);
            let writing = async {
                let mut rest = data;
                for length in [1, 70_000, 16_384, 16_385, 5, 200_000].into_iter().cycle() {
                    let (piece, behind) = rest.split_at(length.min(rest.len()));
                    write.write_all(piece).await.unwrap();
                    rest = behind;
                    if rest.is_empty() {
                        break;
                    }
                }
                write.shutdown().await.unwrap();
            };
            let reading = async {
                let (mut got, mut buffer) = (Vec::new(), [0; 3000]);
                for size in [1, 3000, 17].into_iter().cycle() {
                    match read.read(&mut buffer[..size]).await.unwrap() {
                        0 => break,
                        length => got.extend_from_slice(&buffer[..length]),
                    }
                }
                got
            };
            let ((), got) = tokio::join!(writing, reading);
            assert!(got == data);
        };
        let calling = async {
            let stream = connect(near, config, server_name("a.test").unwrap()).await.unwrap().0;
            let (mut read, mut write) = tokio::io::split(stream);
            let writing = async {
                write.write_all(data).await.unwrap();
                write.shutdown().await.unwrap();
            };
            let mut got = Vec::new();
            // A clean end, or this is an error.
            let reading = read.read_to_end(&mut got);
            let ((), read) = tokio::join!(writing, reading);
            read.unwrap();
            assert!(got == data);
        };
        tokio::join!(serving, calling);
    }
}

#[tokio::test]
async fn a_connection_that_is_cut_does_not_pass_for_one_that_ended() {
    let authority = Authority::new();
    let current = ArcSwap::new(server(&[&authority.issue(&["a.test"], 1)], None));
    let (mut far, _, mut near, _) = handshake(&current, &client(&authority, None), "a.test").await.ok();
    near.write_all(b"whole").await.unwrap();
    near.flush().await.unwrap();
    let mut got = [0; 5];
    far.read_exact(&mut got).await.unwrap();
    // Without saying farewell.
    drop(near);
    assert_eq!(far.read(&mut got).await.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn garbage_is_answered_with_an_alert_before_the_handshake_and_after() {
    let authority = Authority::new();
    let current = ArcSwap::new(server(&[&authority.issue(&["a.test"], 1)], None));
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 3, 1, 0, 4, 1, 0, 0, 0]] {
        let (mut near, far) = tokio::io::duplex(1 << 16);
        near.write_all(garbage).await.unwrap();
        let error = accept(far, &current, Duration::from_secs(60)).await.map(|_| ()).unwrap_err();
        assert!(matches!(error, AcceptError::Handshake(_)), "{error:?}");
        let mut said = Vec::new();
        near.read_to_end(&mut said).await.unwrap();
        assert_eq!(said.first(), Some(&0x15), "no alert to {garbage:?}: {said:?}, {error:?}");
    }
    let (mut far, _, near, _) = handshake(&current, &client(&authority, None), "a.test").await.ok();
    let (mut io, _) = near.into_inner();
    // A record that is not sealed with the keys, in two halves, since it may come so.
    let record = [&[0x17, 3, 3, 0, 40][..], &[7; 40]].concat();
    io.write_all(&record[..20]).await.unwrap();
    let mut got = [0; 5];
    let (read, ()) = tokio::join!(far.read(&mut got), async {
        tokio::task::yield_now().await;
        io.write_all(&record[20..]).await.unwrap();
    });
    assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::InvalidData);
    assert!(far.write_all(b"more").await.is_err(), "nothing goes on behind it");
}
