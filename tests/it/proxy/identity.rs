//! Who asks, where somebody vouches for it: certificates over real handshakes, tokens whose keys are fetched, and tokens of a
//! file.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use ring::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig,
        crypto::ring::default_provider,
        pki_types::{ServerName, pem::PemObject},
    },
};

use weir::{
    admin::{Finding, Snapshot},
    config,
};

use crate::{
    proxy::forward::database,
    support::{
        fake_upstream::{Act, FakeUpstream, Seen},
        logs::Logs,
        pki::Pki,
        weir::{Weir, now_ms, settings},
    },
};

const SOON: Duration = Duration::from_secs(10);

/// A connection of a client that shows this certificate, or none.
async fn connect(
    address: SocketAddr,
    pki: &Pki,
    shown: Option<&str>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_root_certificates(pki.roots());
    let config = match shown {
        Some(name) => {
            let chain = PemObject::from_pem_file(pki.file(&format!("{name}.pem"))).unwrap();
            let key = PemObject::from_pem_file(pki.file(&format!("{name}-key.pem"))).unwrap();
            config.with_client_auth_cert(vec![chain], key).unwrap()
        }
        None => config.with_no_client_auth(),
    };
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// The answer to a client that shows this certificate, or none.
async fn ask(address: SocketAddr, pki: &Pki, shown: Option<&str>, head: &str) -> std::io::Result<String> {
    let mut stream = connect(address, pki, shown).await?;
    let text = format!("{head} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).await?;
    let mut answer = String::new();
    timeout(SOON, stream.read_to_string(&mut answer)).await.expect("an answer in time")?;
    Ok(answer)
}

fn pki() -> Pki {
    let pki = Pki::new();
    pki.issue("weir", "localhost");
    pki.issue_client("alice", "alice", "sre", "spiffe.example");
    pki.issue_client("bob", "bob", "dev", "other.example");
    let stranger = Pki::new();
    stranger.issue_client("mallory", "alice", "sre", "spiffe.example");
    for file in ["mallory.pem", "mallory-key.pem"] {
        std::fs::copy(stranger.file(file), pki.file(file)).unwrap();
    }
    pki
}

fn tls(pki: &Pki, more: &str) -> String {
    let file = |name: &str| pki.file(name).display().to_string();
    let (cert, key, ca) = (file("weir.pem"), file("weir-key.pem"), file("ca.pem"));
    format!("{{cert_file: {cert}, key_file: {key}, client_ca_file: {ca}{more}}}")
}

#[tokio::test]
async fn a_certificate_names_tenant_and_class() {
    let pki = pki();
    let upstream = FakeUpstream::start(database).await;
    let yaml = |more: &str, part: &str| {
        format!(
            "server: {{tls: {}}}\nbackends: [{{name: main, kind: mimir, urls: [\"{}\"]}}]\n\
             tenancy: {{sources: [{{client_certificate: {part}}}], required: true}}\n\
             classes: [{{name: operators, match: {{group: sre}}}}]",
            tls(&pki, more),
            upstream.url()
        )
    };
    let query = "GET /api/v1/query?query=small";
    let weir = Weir::start(&yaml("", "common_name")).await;
    let answer = ask(weir.address, &pki, Some("alice"), query).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let asked =
        |tenant: &str| upstream.seen().iter().any(|seen| seen.header("x-scope-orgid") == Some(tenant));
    assert!(asked("alice"));
    let metrics = weir.metrics();
    for line in
        ["weir_identified_total{outcome=\"known\",source=\"client_certificate\"} 1", "class=\"operators\""]
    {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    // Neither without one, nor with one of another authority in the same name.
    for shown in [None, Some("mallory")] {
        assert!(ask(weir.address, &pki, shown, query).await.is_err(), "{shown:?}");
    }
    let weir = Weir::start(&yaml(", client_auth: optional", "alternative_name")).await;
    let answer = ask(weir.address, &pki, None, query).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("www-authenticate: "), "{answer}");
    let health = ask(weir.address, &pki, None, "GET /-/healthy").await.unwrap();
    assert!(health.starts_with("HTTP/1.1 200"), "{health}");
    assert!(ask(weir.address, &pki, Some("bob"), query).await.unwrap().starts_with("HTTP/1.1 200"));
    assert!(asked("other.example"));
    assert!(ask(weir.address, &pki, Some("mallory"), query).await.is_err());
}

/// The configuration of mTLS with this revocation list.
fn with_list(pki: &Pki, upstream: &FakeUpstream, list: &str) -> String {
    let list = format!(", client_crl_file: {}", pki.file(list).display());
    format!(
        "server: {{tls: {}}}\nbackends: [{{name: main, urls: [\"{}\"]}}]\n\
         tenancy: {{sources: [{{client_certificate: common_name}}], required: true}}",
        tls(pki, &list),
        upstream.url()
    )
}

const ASKED: &str = "GET /api/v1/query?query=small";

#[tokio::test]
async fn a_revoked_certificate_is_turned_away_and_its_open_connection_ends() {
    let pki = pki();
    let upstream = FakeUpstream::start(database).await;
    let (yaml, file) = (with_list(&pki, &upstream, "list.pem"), pki.file("weir.yaml"));
    std::fs::write(&file, &yaml).unwrap();
    pki.revoke("list.pem", &["bob"], 2040);
    let weir = Weir::start(&yaml).await;
    let loaded = config::load_file(&file).unwrap();
    let proxy = Arc::clone(&weir.proxy);
    let reloader = config::Reloader::new(file, loaded, move |new| {
        proxy.reload(config::resolve(&new.raw)?);
        Ok(())
    });
    let status = async |name| {
        ask(weir.address, &pki, Some(name), ASKED).await.ok().map(|answer| answer[9..12].to_owned())
    };
    assert_eq!(status("alice").await.as_deref(), Some("200"));
    assert_eq!(status("bob").await, None);
    let mut open = connect(weir.address, &pki, Some("alice")).await.unwrap();
    let text = format!("{ASKED} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    open.write_all(text.as_bytes()).await.unwrap();
    let mut first = [0; 12];
    open.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    // A list that cannot be used changes nothing: the one before stays in force.
    for (make, why) in [
        (Box::new(|| pki.revoke("list.pem", &["alice"], 2024)) as Box<dyn Fn()>, "has expired"),
        (Box::new(|| Pki::new().copy_to("ca.pem", &pki.file("list.pem"))), "holds no revocation list"),
        (Box::new(|| _ = std::fs::remove_file(pki.file("list.pem"))), "cannot be read"),
    ] {
        make();
        let error = reloader.reload().unwrap_err().to_string();
        assert!(error.contains("server.tls.client_crl_file") && error.contains(why), "{error}");
        assert!(config::load_text("weir.yaml", &yaml, &|_| None).is_err(), "nor does it start: {why}");
        assert_eq!((status("alice").await.as_deref(), status("bob").await), (Some("200"), None), "{why}");
    }
    pki.revoke("list.pem", &["alice"], 2040);
    reloader.reload().unwrap();
    assert_eq!((status("alice").await, status("bob").await.as_deref()), (None, Some("200")));
    let mut rest = Vec::new();
    // Without a word where it is between two requests.
    let _ = timeout(SOON, open.read_to_end(&mut rest)).await.expect("the connection ends");
    assert!(rest.ends_with(b"}"), "after the whole answer: {}", rest.escape_ascii());
}

/// Each authority needs a list, or all of its clients would be refused.
#[tokio::test]
async fn a_list_is_of_the_authorities_and_one_that_ends_is_found() {
    let (pki, other) = (pki(), Pki::new());
    let upstream = FakeUpstream::start(database).await;
    let yaml = with_list(&pki, &upstream, "list.pem");
    other.revoke("list.pem", &[], 2040);
    other.copy_to("list.pem", &pki.file("list.pem"));
    let error = config::load_text("weir.yaml", &yaml, &|_| None).unwrap_err().to_string();
    assert!(error.contains("holds no list of the authority"), "{error}");
    pki.revoke("list.pem", &["bob"], 2040);
    let in_2041 = || 2_240_611_200_000;
    let weir = Weir::start_at(&yaml, in_2041).await;
    assert!(ask(weir.address, &pki, Some("bob"), ASKED).await.is_err(), "it is obeyed all the same");
    let found = Snapshot::take(&weir.proxy).findings();
    let is_it =
        |finding: &Finding| finding.text.contains("a revocation list in server.tls.client_crl_file ended");
    assert!(found.iter().any(is_it), "{found:?}");
}

#[tokio::test]
async fn a_certificate_opens_the_admin_address_and_is_on_record() {
    let pki = pki();
    let logs = Logs::catch();
    let upstream = FakeUpstream::start(database).await;
    let weir = Weir::start_here(&format!(
        "server: {{admin_tls: {}, admin_auth: {{client_certificates: [alice]}}}}\n\
         backends: [{{name: main, urls: [\"{}\"]}}]",
        tls(&pki, ", client_auth: optional"),
        upstream.url()
    ))
    .await;
    let admin = weir.admin().await;
    let kill = "DELETE /api/v1/admin/queries?tenant=x";
    for (shown, status) in [(None, 401), (Some("bob"), 401), (Some("alice"), 200)] {
        let answer = ask(admin, &pki, shown, kill).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{shown:?}: {answer}");
    }
    assert_eq!(logs.of("weir::audit").remove(0)["by"], "alice");
}

/// An issuer of tokens.
struct Issuer(Ed25519KeyPair, &'static str);

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    BASE64URL.encode(bytes)
}

impl Issuer {
    fn new(id: &'static str) -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self(Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap(), id)
    }

    fn jwks(&self) -> String {
        let key = json!({"kty": "OKP", "crv": "Ed25519", "kid": self.1, "x": encoded(self.0.public_key())});
        json!({"keys": [key]}).to_string()
    }

    fn bearer(&self, more: &Value) -> String {
        let mut claims =
            json!({"iss": "https://id", "aud": "weir", "exp": now_ms() / 1_000 + 300, "sub": "ann"});
        for (name, value) in more.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let header = json!({"alg": "EdDSA", "kid": self.1}).to_string();
        let message = format!("{}.{}", encoded(header), encoded(claims.to_string()));
        format!("Bearer {message}.{}", encoded(self.0.sign(message.as_bytes())))
    }
}

const QUERY: &str = "/api/v1/query?query=small";

async fn status(weir: &Weir, bearer: &str) -> u16 {
    weir.get_as(QUERY, &[("authorization", bearer)]).await.status.as_u16()
}

/// Asks until the keys are there.
async fn until(weir: &Weir, bearer: &str, wanted: u16) {
    let waiting = async {
        while status(weir, bearer).await != wanted {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, waiting).await.expect("the keys are fetched");
}

#[tokio::test]
async fn keys_are_fetched_and_the_old_ones_stay_while_that_fails() {
    let issuer = Arc::new(Issuer::new("k1"));
    let (works, jwks) = (Arc::new(AtomicBool::new(false)), issuer.jwks());
    let up = Arc::clone(&works);
    let id =
        FakeUpstream::start(
            move |_: &Seen| {
                if up.load(Relaxed) { Act::json(&jwks) } else { Act::answer(500, &[], b"no") }
            },
        )
        .await;
    let upstream = FakeUpstream::start(database).await;
    let yaml = format!(
        "backends: [{{name: main, kind: mimir, urls: [\"{}\"]}}]\n\
         tenancy: {{required: true, sources: [{{jwt: {{issuer: \"https://id\", audience: [weir], jwks_url: \"{}/keys?a=1\"}}}}, \
         {{header: X-Scope-OrgID}}]}}\n\
         limits: {{tenants: {{small: {{per_query: {{series: 1}}}}, team-a: {{enforce: {{ns: [a]}}}}}}}}\n\
         classes: [{{name: operators, match: {{group: sre}}, per_query: {{series: 1}}}}]",
        upstream.url(),
        id.url()
    );
    let weir = Weir::start(&yaml).await;
    let good = issuer.bearer(&json!({"tenant": "team-a"}));
    // Nobody can say whose it is.
    let answer = weir.get_as(QUERY, &[("authorization", &good)]).await;
    assert_eq!(
        (answer.status.as_u16(), answer.headers["weir-error"].to_str().unwrap()),
        (503, "identity_unavailable")
    );
    works.store(true, Relaxed);
    weir.proxy.reload(settings(&yaml));
    until(&weir, &good, 200).await;
    assert!(id.seen().iter().all(|seen| seen.target == "/keys?a=1"));
    weir.proxy.warm().await;
    let seen = upstream.seen();
    let asked: Vec<_> = seen.iter().filter(|seen| seen.path() == "/api/v1/query").collect();
    assert!(asked.iter().any(|seen| seen.header("x-scope-orgid") == Some("team-a")));
    assert!(seen.iter().all(|seen| seen.header("authorization").is_none()), "no token goes on");
    assert!(asked.iter().any(|seen| seen.target.contains("ns%3D%22a%22")), "confined as its tenant is");
    // The issuer is gone and the configuration is read again: the old keys stay.
    works.store(false, Relaxed);
    weir.proxy.reload(settings(&yaml));
    assert_eq!(status(&weir, &good).await, 200);
    for (claims, wanted) in [
        (json!({"tenant": "x", "iss": "https://other"}), 401),
        (json!({"tenant": "x", "aud": "other"}), 401),
        (json!({"tenant": "x", "exp": now_ms() / 1_000 - 90}), 401),
        (json!({"tenant": "x"}), 200),
        (json!({}), 401),
        (json!({"tenant": ["x", "small"]}), 422),
        (json!({"tenant": "y", "groups": ["sre"]}), 422),
        (json!({"tenant": "z"}), 200),
    ] {
        assert_eq!(status(&weir, &issuer.bearer(&claims)).await, wanted, "{claims}");
    }
    let other = Issuer::new("k1").bearer(&json!({"tenant": "x"}));
    let answer = weir.get_as(QUERY, &[("authorization", &other)]).await;
    assert_eq!(answer.status, 401, "{}", answer.body);
    assert_eq!(answer.headers["www-authenticate"], "Bearer realm=\"weir\"");
    assert!(!answer.body.contains(&other[7..]), "a token is never shown");
    // A header chooses among the tenants of a token, and none beside them; a header alone counts from trusted proxies.
    let both = issuer.bearer(&json!({"tenant": ["x", "small"]}));
    for (asked, wanted) in [("x", 200), ("small", 422), ("small|x", 422), ("y", 403), ("x|y", 403), ("", 403)]
    {
        let headers = [("authorization", both.as_str()), ("x-scope-orgid", asked)];
        assert_eq!(weir.get_as(QUERY, &headers).await.status, wanted, "{asked}");
    }
    assert_eq!(weir.get(QUERY).await.status, 401);
    let metrics = weir.metrics();
    assert!(metrics.contains("weir_identified_total{outcome=\"refused\",source=\"jwt\"}"), "{metrics}");
    assert!(metrics.contains("weir_jwks_fetches_total{outcome=\"failed\"}"), "{metrics}");
}

/// To a database that knows no tenants, several of a token are several all the same.
#[tokio::test]
async fn several_tenants_of_a_token_have_the_limits_of_each() {
    let issuer = Issuer::new("k1");
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys.json");
    std::fs::write(&keys, issuer.jwks()).unwrap();
    let upstream = FakeUpstream::start(database).await;
    let weir = Weir::start(&format!(
        "backends: [{{name: main, urls: [\"{}\"]}}, {{name: other, urls: [\"{}\"]}}]\n\
         routes: [{{tenants: [far], backend: other}}]\n\
         tenancy: {{sources: [{{jwt: {{issuer: \"https://id\", audience: [weir], keys_file: {}}}}}]}}\n\
         limits: {{tenants: {{a: {{enforce: {{ns: [a]}}}}, b: {{enforce: {{team: [b]}}}}}}}}",
        upstream.url(),
        upstream.url(),
        keys.display()
    ))
    .await;
    assert_eq!(status(&weir, &issuer.bearer(&json!({"tenant": ["b", "a"]}))).await, 200);
    let sent = |text: &str| {
        upstream.seen().iter().any(|seen| seen.params("query").iter().any(|query| query == text))
    };
    assert!(sent(r#"small{ns="a",team="b"}"#));
    assert_eq!(status(&weir, &issuer.bearer(&json!({"tenant": ["a", "far"]}))).await, 400);
}

#[tokio::test]
async fn tokens_of_a_file_are_read_again_with_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokens");
    std::fs::write(&file, "a  the-token-of-tenant-a\n").unwrap();
    let upstream = FakeUpstream::start(database).await;
    let yaml = format!(
        "backends: [{{name: main, kind: mimir, urls: [\"{}\"]}}]\ntenancy: {{sources: [{{bearer: {{c: inline-token}}}}, {{bearer_file: {}}}]}}",
        upstream.url(),
        file.display()
    );
    let weir = Weir::start(&yaml).await;
    for (token, wanted) in [
        ("the-token-of-tenant-a", 200),
        ("inline-token", 200),
        ("the-token-of-tenant-b", 401),
        ("a.b.c", 401),
    ] {
        assert_eq!(status(&weir, &format!("Bearer {token}")).await, wanted, "{token}");
    }
    std::fs::write(&file, "b  the-token-of-tenant-b\n").unwrap();
    weir.proxy.reload(settings(&yaml));
    for (token, wanted) in [("the-token-of-tenant-a", 401), ("the-token-of-tenant-b", 200)] {
        assert_eq!(status(&weir, &format!("Bearer {token}")).await, wanted, "{token}");
    }
    let tenants: Vec<_> =
        upstream.seen().iter().filter_map(|seen| seen.header("x-scope-orgid").map(str::to_owned)).collect();
    for tenant in ["a", "b", "c"] {
        assert!(tenants.iter().any(|seen| seen == tenant), "{tenant}: {tenants:?}");
    }
}
