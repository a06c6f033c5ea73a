//! TLS of Weir's own listeners: their certificates, the answer to a client without TLS, and the renewal of
//! certificates.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName},
};

use crate::{
    proxy::forward::database,
    support::{
        fake_upstream::FakeUpstream,
        pki::Pki,
        weir::{Weir, settings},
    },
};

const SOON: Duration = Duration::from_secs(10);
const ASKED: &str = "GET /api/v1/query?query=small HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

/// A configuration whose listeners show these certificates.
fn yaml(url: &str, pki: &Pki, queries: Option<&str>, admin: Option<&str>) -> String {
    let tls = |name: Option<&str>| match name {
        Some(name) => {
            let (cert, key) = (pki.file(&format!("{name}.pem")), pki.file(&format!("{name}-key.pem")));
            format!("{{cert_file: {}, key_file: {}}}", cert.display(), key.display())
        }
        None => "{}".to_owned(),
    };
    let (tls, admin_tls) = (tls(queries), tls(admin));
    format!("server: {{tls: {tls}, admin_tls: {admin_tls}}}\nbackends: [{{name: main, urls: [\"{url}\"]}}]")
}

/// The answer to a client that trusts these authorities, with the protocol that both agreed on.
async fn ask(
    address: SocketAddr,
    roots: RootCertStore,
    text: &str,
) -> Result<(String, Option<Vec<u8>>), std::io::Error> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let mut config = config.with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let agreed = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
    stream.write_all(text.as_bytes()).await?;
    let mut answer = String::new();
    timeout(SOON, stream.read_to_string(&mut answer)).await.expect("an answer in time")?;
    Ok((answer, agreed))
}

/// The answer to a client that speaks plainly.
async fn ask_plainly(address: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(SOON, stream.read_to_string(&mut answer)).await.expect("an answer in time").unwrap();
    answer
}

#[tokio::test]
async fn queries_and_admin_are_served_over_tls_and_plain_requests_are_told() {
    let pki = Pki::new();
    pki.issue("weir", "localhost");
    let upstream = FakeUpstream::start(database).await;
    let weir = Weir::start(&yaml(&upstream.url(), &pki, Some("weir"), Some("weir"))).await;
    let admin = weir.admin().await;
    let (answer, agreed) = ask(weir.address, pki.roots(), ASKED).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"success\""), "{answer}");
    assert_eq!(agreed.as_deref(), Some(&b"http/1.1"[..]));
    let healthy = "GET /-/healthy HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let (answer, _) = ask(admin, pki.roots(), healthy).await.unwrap();
    assert!(answer.ends_with("Weir is healthy.\n"), "{answer}");
    assert!(ask(weir.address, Pki::new().roots(), ASKED).await.is_err(), "nobody else's authority");
    for address in [weir.address, admin] {
        let answer = ask_plainly(address, ASKED).await;
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request"), "{answer}");
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        let json: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(json["error"], "this address speaks https, and the request came over http");
    }
    let metrics = weir.metrics();
    for line in [
        "weir_tls_handshakes_total{listener=\"queries\",result=\"done\"} 1",
        "weir_tls_handshakes_total{listener=\"admin\",result=\"failed\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    weir.until_idle().await;
}

#[tokio::test]
async fn who_shakes_no_hands_keeps_nobody_waiting() {
    let pki = Pki::new();
    pki.issue("weir", "localhost");
    let upstream = FakeUpstream::start(database).await;
    let weir = Weir::start(&yaml(&upstream.url(), &pki, Some("weir"), None)).await;
    let mut slow = Vec::new();
    for i in 0..200 {
        let mut stream = TcpStream::connect(weir.address).await.unwrap();
        // Nothing, the beginning of a handshake, and bytes that are neither.
        stream.write_all([&b""[..], b"\x16\x03\x01\x02", b"\0\0\0\0"][i % 3]).await.unwrap();
        slow.push(stream);
    }
    let (answer, _) = ask(weir.address, pki.roots(), ASKED).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // Nor does a shutdown wait for them.
    assert_eq!(timeout(SOON / 5, weir.stop()).await.expect("no handshake is waited for").cut, 0);
}

#[tokio::test]
async fn a_reload_takes_a_renewed_certificate_and_leaves_open_connections() {
    let (old, new) = (Pki::new(), Pki::new());
    old.issue("weir", "localhost");
    new.issue("weir", "localhost");
    let upstream = FakeUpstream::start(database).await;
    let weir = Weir::start(&yaml(&upstream.url(), &old, None, None)).await;
    assert!(ask_plainly(weir.address, ASKED).await.starts_with("HTTP/1.1 200"));
    let until_open = async |connections: &str| {
        while !weir.metrics().contains(&format!("weir_client_connections {connections}\n")) {
            tokio::task::yield_now().await;
        }
    };
    // The first may still be on its way out.
    until_open("0").await;
    let mut open = TcpStream::connect(weir.address).await.unwrap();
    open.write_all(&ASKED.as_bytes()[..10]).await.unwrap();
    until_open("1").await;
    for (shown, other) in [(&old, &new), (&new, &old)] {
        weir.proxy.reload(settings(&yaml(&upstream.url(), shown, Some("weir"), None)));
        assert!(ask(weir.address, shown.roots(), ASKED).await.is_ok());
        assert!(ask(weir.address, other.roots(), ASKED).await.is_err());
    }
    open.write_all(&ASKED.as_bytes()[10..]).await.unwrap();
    let mut answer = String::new();
    timeout(SOON, open.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    weir.until_idle().await;
}

/// A container's health check: the certificate is for the names by which others know Weir.
#[tokio::test]
async fn health_is_asked_for_over_tls_as_well() {
    let pki = Pki::new();
    pki.issue("weir", "weir.example");
    let upstream = FakeUpstream::start(database).await;
    let weir = Weir::start(&yaml(&upstream.url(), &pki, None, Some("weir"))).await;
    let url = format!("https://{}", weir.admin().await);
    let check = tokio::task::spawn_blocking(move || {
        std::process::Command::new(env!("CARGO_BIN_EXE_weir")).args(["check-health", &url]).output().unwrap()
    });
    let asked = check.await.unwrap();
    assert!(asked.status.success(), "{asked:?}");
}
