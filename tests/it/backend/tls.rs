//! Backends over TLS: the authorities that Weir trusts, its own certificate, and the error when that fails.

use std::{net::SocketAddr, time::Duration};

use http::{HeaderMap, Method};
use http_body_util::BodyExt;
use tokio::{net::TcpListener, time::Instant};
use weir::{
    backend::{Backend, BackendError, BaseUrl, Kind, Outgoing, Settings, Tls, TlsSettings},
    base::ErrorKind,
};

use crate::support::{
    fake_upstream::{Act, FakeUpstream},
    pki::{Pki, TlsServer},
};

/// A backend at the address, called by this host.
fn backend(host: &str, address: SocketAddr, tls: &TlsSettings) -> Settings {
    let url = BaseUrl::parse(&format!("https://{host}:{}", address.port())).unwrap();
    Settings { tls: Some(Tls::load(tls).unwrap()), ..Settings::new("main", Kind::Prometheus, vec![url]) }
}

async fn ask(settings: Settings) -> Result<Vec<u8>, BackendError> {
    let backend = Backend::new(settings);
    let request = Outgoing {
        method: Method::GET,
        path_and_query: "/api/v1/query?query=up".parse().unwrap(),
        headers: HeaderMap::new(),
        body: bytes::Bytes::new(),
    };
    let response = backend.send(request, Instant::now() + Duration::from_secs(5), true).await?;
    Ok(response.into_body().collect().await?.to_bytes().to_vec())
}

fn trusting(pki: &Pki) -> TlsSettings {
    TlsSettings { ca_file: Some(pki.file("ca.pem")), ..TlsSettings::default() }
}

#[tokio::test]
async fn a_certificate_is_checked_and_what_is_wrong_with_it_is_said() {
    let (pki, other) = (Pki::new(), Pki::new());
    pki.issue("server", "localhost");
    let server = TlsServer::start(&pki, "server", false).await;
    let named = TlsSettings { server_name: Some("localhost".to_owned()), ..trusting(&pki) };
    let any = TlsSettings { insecure_skip_verify: true, ..TlsSettings::default() };
    let cases = [
        ("localhost", trusting(&pki), None),
        ("127.0.0.1", named, None),
        ("127.0.0.1", any, None),
        ("localhost", trusting(&other), Some("an authority that is not trusted here (`tls.ca_file`)")),
        ("localhost", TlsSettings::default(), Some("an authority that is not trusted here")),
        ("127.0.0.1", trusting(&pki), Some("localhost\"), not for `127.0.0.1` (`tls.server_name`)")),
    ];
    for (host, tls, expected) in cases {
        match (ask(backend(host, server.address, &tls)).await, expected) {
            (Ok(body), None) => assert_eq!(body, b"{}"),
            (Err(error), Some(expected)) => {
                assert_eq!(error.kind(), ErrorKind::UpstreamDead);
                assert!(error.message().contains(expected), "{error}");
            }
            (got, expected) => panic!("{host} {tls:?}: {got:?} instead of {expected:?}"),
        }
    }
}

#[tokio::test]
async fn a_plain_self_signed_certificate_fails_with_a_sentence_that_helps() {
    let pki = Pki::new();
    pki.issue_self_signed("own", "localhost");
    let server = TlsServer::start(&pki, "own", false).await;
    let trusting_itself = TlsSettings { ca_file: Some(pki.file("own.pem")), ..TlsSettings::default() };
    let error = ask(backend("localhost", server.address, &trusting_itself)).await.unwrap_err();
    assert!(error.message().contains("-addext basicConstraints=critical,CA:FALSE"), "{error}");
    assert!(!error.message().contains("OtherError"), "{error}");
}

#[tokio::test]
async fn a_backend_that_asks_for_a_certificate_gets_one() {
    let pki = Pki::new();
    pki.issue("server", "localhost");
    pki.issue("weir", "weir");
    let server = TlsServer::start(&pki, "server", true).await;
    let error = ask(backend("localhost", server.address, &trusting(&pki))).await.unwrap_err();
    assert!(error.message().contains("`tls.client_cert_file`"), "{error}");
    let known = TlsSettings {
        client_cert_file: Some(pki.file("weir.pem")),
        client_key_file: Some(pki.file("weir-key.pem")),
        ..trusting(&pki)
    };
    assert_eq!(ask(backend("localhost", server.address, &known)).await.unwrap(), b"{}");
}

#[tokio::test]
async fn health_checks_go_over_tls_as_well() {
    let pki = Pki::new();
    pki.issue("server", "localhost");
    let server = TlsServer::start(&pki, "server", false).await;
    // The server there is no database, which shows only after the handshake.
    for (tls, said) in [(trusting(&pki), "no database of PromQL"), (TlsSettings::default(), "`tls.ca_file`")]
    {
        let backend = Backend::new(backend("localhost", server.address, &tls));
        backend.check_all().await;
        let why = backend.snapshot().replicas[0].last_error.clone().unwrap();
        assert!(why.contains(said), "{why}");
    }
}

#[tokio::test]
async fn a_peer_without_tls_is_named_and_a_silent_one_is_given_up() {
    let any = TlsSettings { insecure_skip_verify: true, ..TlsSettings::default() };
    let plain = FakeUpstream::start(|_| Act::json("{}")).await;
    let error = ask(backend("127.0.0.1", plain.address, &any)).await.unwrap_err();
    assert!(error.message().contains("could not be reached"), "{error}");
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = Settings {
        connect_timeout: Duration::from_millis(50),
        ..backend("127.0.0.1", silent.local_addr().unwrap(), &any)
    };
    let error = ask(settings).await.unwrap_err();
    assert!(error.message().contains("could not be reached within 50ms"), "{error}");
}

#[test]
fn files_that_cannot_be_used_are_refused_by_key() {
    let pki = Pki::new();
    pki.issue("weir", "weir");
    pki.issue("other", "other");
    let file = |name: &str| Some(pki.file(name));
    let with = |client_cert_file, client_key_file| TlsSettings {
        client_cert_file,
        client_key_file,
        ..trusting(&pki)
    };
    for (tls, key, expected) in [
        (TlsSettings { ca_file: file("gone.pem"), ..TlsSettings::default() }, "ca_file", "cannot be read"),
        (
            TlsSettings { ca_file: file("weir-key.pem"), ..TlsSettings::default() },
            "ca_file",
            "no certificate",
        ),
        (with(file("weir.pem"), None), "client_cert_file", "needs its key"),
        (with(None, file("weir-key.pem")), "client_key_file", "needs its certificate"),
        (with(file("weir.pem"), file("weir.pem")), "client_key_file", "no private key"),
        (with(file("weir.pem"), file("other-key.pem")), "client_key_file", "not the key of the certificate"),
        (TlsSettings { server_name: Some("a b".to_owned()), ..trusting(&pki) }, "server_name", "invalid"),
    ] {
        let wrong = Tls::load(&tls).unwrap_err();
        assert_eq!(wrong.key, key, "{wrong}");
        assert!(wrong.message.contains(expected), "{wrong}");
    }
}
