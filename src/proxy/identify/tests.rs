use super::*;
use crate::backend::Kind;

const NOW_MS: i64 = 1_800_000_000_000;

fn attribution() -> Attribution {
    let team = |name| TenantId::new(name).unwrap();
    Attribution {
        trusted: vec!["10.0.0.0/8".parse().unwrap(), "127.0.0.0/8".parse().unwrap()],
        sources: vec![
            TenantSource::Header(HeaderName::from_static("x-scope-orgid")),
            TenantSource::Bearer(BearerTokens::new([("s3cret", team("robots"))])),
            TenantSource::BasicAuthUser,
        ],
        default: team("anonymous"),
        required: false,
        classes: vec![ClassRule {
            name: "rules".into(),
            headers: vec![(HeaderName::from_static("fromalert"), Pattern::new("tr*"))],
            ..ClassRule::default()
        }],
    }
}

fn ask(peer: &str, headers: &[(&'static str, &str)]) -> Result<Identity, IdentifyError> {
    let map = headers.iter().map(|(n, v)| (HeaderName::from_static(n), v.parse().unwrap())).collect();
    identify(&attribution(), &map, peer.parse().unwrap())
}

fn identify(attribution: &Attribution, headers: &HeaderMap, peer: IpAddr) -> Result<Identity, IdentifyError> {
    attribution.identify(&Presented {
        headers,
        peer: SocketAddr::new(peer, 1),
        certificate: None,
        clock: || NOW_MS,
    })
}

#[test]
fn tenants_come_from_the_first_source_present() {
    let tenant = |peer, headers: &[_]| ask(peer, headers).map(|identity| identity.tenant.to_string());
    let basic = format!("Basic {}", BASE64.encode("alice:pw"));
    assert_eq!(tenant("10.1.1.1", &[("x-scope-orgid", "a")]).unwrap(), "a");
    assert_eq!(tenant("10.1.1.1", &[("x-scope-orgid", "a"), ("authorization", &basic)]).unwrap(), "a");
    assert_eq!(tenant("10.1.1.1", &[("authorization", &basic)]).unwrap(), "alice");
    assert_eq!(tenant("10.1.1.1", &[("authorization", "bearer s3cret")]).unwrap(), "robots");
    assert_eq!(tenant("10.1.1.1", &[]).unwrap(), "anonymous");
    assert_eq!(tenant("::ffff:10.1.1.1", &[("x-scope-orgid", "a")]).unwrap(), "a");
}

/// A header source that comes first does not hide a token, and a header asks for nobody else's data.
#[test]
fn a_token_is_believed_or_refused_whatever_stands_beside_it() {
    for (peer, headers, want) in [
        ("10.1.1.1", [("x-scope-orgid", "a"), ("authorization", "Bearer guess!")], Err(IdentifyError::Token)),
        ("10.1.1.1", [("x-scope-orgid", "a"), ("authorization", "Bearer s3cret")], Ok("a")),
        (
            "192.0.2.1",
            [("x-scope-orgid", "a"), ("authorization", "Bearer s3cret")],
            Err(IdentifyError::NotNamed(IdentitySource::Bearer)),
        ),
        ("192.0.2.1", [("x-scope-orgid", "robots"), ("authorization", "Bearer s3cret")], Ok("robots")),
    ] {
        let found = ask(peer, &headers).map(|identity| identity.tenant.to_string());
        assert_eq!(found, want.map(ToOwned::to_owned), "{peer} {headers:?}");
    }
}

#[test]
fn strangers_cannot_name_themselves_by_header() {
    let stranger =
        ask("192.0.2.1", &[("x-scope-orgid", "a"), ("fromalert", "true"), ("x-dashboard-uid", "d")]);
    let stranger = stranger.unwrap();
    assert_eq!((stranger.tenant.as_str(), stranger.class, stranger.trusted), ("anonymous", 1, false));
    assert_eq!(&*stranger.actor, "ip:192.0.2.1");
    assert_eq!(ask("192.0.2.1", &[("authorization", "Bearer guess!")]), Err(IdentifyError::Token));
    let basic = format!("Basic {}", BASE64.encode("vip:whatever"));
    let stranger = ask("192.0.2.1", &[("authorization", &basic)]).unwrap();
    assert_eq!((stranger.tenant.as_str(), &*stranger.actor), ("anonymous", "ip:192.0.2.1"));
    for bad in ["", " ", "a b", &"x".repeat(151)] {
        assert!(ask("10.1.1.1", &[("x-scope-orgid", bad)]).is_err(), "{bad:?}");
    }
}

/// Headers by which somebody takes another's place.
const FORGED: [(&str, &str); 21] = [
    ("x-scope-orgid", "victim"),
    ("thanos-tenant", "victim"),
    ("fromalert", "true"),
    ("x-forwarded-for", "203.0.113.9"),
    ("x-forwarded-user", "admin"),
    ("forwarded", "for=203.0.113.9"),
    ("x-webauth-user", "admin"),
    ("x_webauth_user", "admin"),
    ("remote-user", "admin"),
    ("x-user", "admin"),
    ("x-goog-authenticated-user-email", "admin"),
    ("x-ssl-client-s-dn", "CN=admin"),
    ("x-jwt-assertion", "e30.e30."),
    ("x-amzn-oidc-data", "e30.e30."),
    ("impersonate-user", "admin"),
    ("true-client-ip", "203.0.113.9"),
    ("x-client-ip", "203.0.113.9"),
    ("tenantid", "victim"),
    ("x-tenant-id", "victim"),
    ("x-panel-id", "1"),
    ("x-next-years-identity", "admin"),
];

/// Each kind of source, and a stranger beside it who names a victim: the backend sees the tenant that pays.
#[test]
fn the_backend_sees_the_tenant_that_pays_whatever_the_client_wrote() {
    let basic = format!("Basic {}", BASE64.encode("alice:pw"));
    let one = |name: &str| vec![name.to_owned()];
    for (source, peer, own, paid) in [
        ("bearer", "192.0.2.1", Some(("authorization", "Bearer s3cret")), "robots"),
        ("basic_auth", "10.1.1.1", Some(("authorization", basic.as_str())), "alice"),
        ("header", "10.1.1.1", Some(("x-team", "blue")), "blue"),
        ("default", "192.0.2.1", None, "anonymous"),
    ] {
        let mut attribution = attribution();
        attribution.sources.remove(0);
        attribution.sources.insert(0, TenantSource::Header(HeaderName::from_static("x-team")));
        let harmless = [
            ("traceparent", "00-1-2-01"),
            ("user-agent", "curl"),
            ("x-request-id", "7"),
            ("content-encoding", "snappy"),
            ("m3-storage-policy", "1m:14d"),
        ];
        let given = FORGED.iter().copied().chain(harmless).chain(own);
        let headers = given.map(|(n, v)| (HeaderName::from_static(n), v.parse().unwrap())).collect();
        let who = identify(&attribution, &headers, peer.parse().unwrap()).unwrap();
        assert_eq!(who.tenant.as_str(), paid, "{source}");
        let all = |sent: &HeaderMap, name| -> Vec<String> {
            sent.get_all(name).iter().map(|v: &http::HeaderValue| v.to_str().unwrap().to_owned()).collect()
        };
        for (kind, orgid, thanos) in [
            (Kind::Mimir, one(paid), vec![]),
            (Kind::Cortex, one(paid), vec![]),
            (Kind::Weir, one(paid), vec![]),
            (Kind::Thanos, vec![], one(paid)),
            (Kind::Prometheus, vec![], vec![]),
            (Kind::VictoriaMetrics, vec![], vec![]),
            (Kind::M3, vec![], vec![]),
        ] {
            let mut sent: HeaderMap = headers.clone();
            attribution.forward(&mut sent, &who, (kind, &Tenancy::of(kind)));
            assert_eq!(all(&sent, "x-scope-orgid"), orgid, "{source} {kind:?}");
            assert_eq!(all(&sent, "thanos-tenant"), thanos, "{source} {kind:?}");
            assert!(!sent.contains_key("authorization") && !sent.contains_key("x-team"), "{source}");
            let harmless = ["traceparent", "user-agent", "x-request-id", "content-encoding"];
            assert!(harmless.iter().all(|name| sent.contains_key(*name)), "{source} {kind:?}: {sent:?}");
            assert_eq!(
                sent.contains_key("m3-storage-policy"),
                kind == Kind::M3 || who.trusted,
                "{source} {kind:?}"
            );
            // A stranger is no alert and no administrator; a trusted proxy may say that its client is one.
            for (name, _) in &FORGED[2..] {
                assert_eq!(sent.contains_key(*name), who.trusted, "{source} {name}");
            }
        }
    }
}

#[test]
fn configured_headers_and_credentials_of_a_stranger_go_on() {
    let given =
        [("x-shard", "7"), ("x-user", "admin"), ("authorization", "Basic eDp5"), ("x-grafana-id", "e30")];
    let headers: HeaderMap =
        given.iter().map(|(n, v)| (HeaderName::from_static(n), v.parse().unwrap())).collect();
    let attribution = Attribution { sources: Vec::new(), ..attribution() };
    let who = identify(&attribution, &headers, "192.0.2.1".parse().unwrap()).unwrap();
    for (forward_credentials, forward_headers, want) in [
        (false, vec![], ""),
        (false, vec![HeaderName::from_static("x-shard")], "x-shard"),
        (true, vec![], "authorization x-grafana-id"),
    ] {
        let tenancy = Tenancy { forward_credentials, forward_headers, ..Tenancy::default() };
        let mut sent = headers.clone();
        attribution.forward(&mut sent, &who, (Kind::Prometheus, &tenancy));
        let mut names: Vec<&str> = sent.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names.join(" "), want);
    }
}

#[test]
fn a_tenant_named_twice_is_nobody() {
    let mut headers = HeaderMap::new();
    headers.append("x-scope-orgid", "a".parse().unwrap());
    headers.append("x-scope-orgid", "a".parse().unwrap());
    let peer = "10.1.1.1".parse().unwrap();
    assert_eq!(identify(&attribution(), &headers, peer).unwrap().tenant.as_str(), "a");
    headers.append("x-scope-orgid", "b".parse().unwrap());
    let twice = IdentifyError::Twice(HeaderName::from_static("x-scope-orgid"));
    assert_eq!(identify(&attribution(), &headers, peer), Err(twice));
    let mut headers = HeaderMap::new();
    headers.append("authorization", "Bearer s3cret".parse().unwrap());
    assert_eq!(identify(&attribution(), &headers, peer).unwrap().tenant.as_str(), "robots");
    headers.append("authorization", "Basic YWxpY2U6cHc=".parse().unwrap());
    assert_eq!(identify(&attribution(), &headers, peer), Err(IdentifyError::Twice(header::AUTHORIZATION)));
}

#[test]
fn actors_and_classes() {
    let actor = |headers: &[_]| ask("10.1.1.1", headers).unwrap().actor.to_string();
    assert_eq!(actor(&[("x-dashboard-uid", "d"), ("x-rule-uid", "r")]), "rule:r");
    assert_eq!(actor(&[("x-dashboard-uid", "d")]), "dashboard:d");
    assert_eq!(actor(&[("x-forwarded-for", "203.0.113.9, 198.51.100.7, 10.2.2.2")]), "ip:198.51.100.7");
    assert_eq!(actor(&[("x-forwarded-for", "203.0.113.9, garbage")]), "ip:10.1.1.1");
    assert_eq!(actor(&[]), "ip:10.1.1.1");
    assert_eq!(ask("10.1.1.1", &[("fromalert", "true")]).unwrap().class, 0);
    assert_eq!(ask("10.1.1.1", &[("fromalert", "false")]).unwrap().class, 1);
}

fn certificate(common_name: &str, alternative: &[&str], groups: &[&str]) -> ClientCertificate {
    ClientCertificate {
        common_name: (!common_name.is_empty()).then(|| common_name.into()),
        alternative_names: alternative.iter().map(|name| (*name).into()).collect(),
        groups: groups.iter().map(|group| (*group).into()).collect(),
    }
}

/// A certificate is believed of anybody, and its groups give the class.
#[test]
fn certificates_name_tenants_and_classes() {
    let mut attribution = attribution();
    attribution.classes.push(ClassRule {
        name: "sre".into(),
        group: Some(Pattern::new("sre*")),
        ..ClassRule::default()
    });
    let headers = HeaderMap::new();
    for (part, shown, want) in [
        (
            CertificateName::CommonName,
            certificate("grafana", &["spiffe://x/y"], &["sre-berlin"]),
            Ok(("grafana", 1)),
        ),
        (
            CertificateName::AlternativeName,
            certificate("grafana", &["spiffe://x/y"], &[]),
            Ok(("spiffe://x/y", 2)),
        ),
        (CertificateName::CommonName, certificate("", &["a"], &[]), Err(IdentifyError::Certificate)),
        (CertificateName::CommonName, certificate("two words", &[], &[]), Err(IdentifyError::Certificate)),
    ] {
        attribution.sources[0] = TenantSource::Certificate(part);
        let peer = SocketAddr::new("192.0.2.1".parse().unwrap(), 1);
        let presented = Presented { headers: &headers, peer, certificate: Some(&shown), clock: || NOW_MS };
        let found = attribution.identify(&presented);
        let found = found.as_ref().map(|found| (found.tenant.as_str(), found.class)).map_err(Clone::clone);
        assert_eq!(found, want, "{shown:?}");
    }
    // Without one the next source decides, and in the end nobody does where that is not enough.
    let stranger = "192.0.2.1".parse().unwrap();
    assert_eq!(identify(&attribution, &headers, stranger).unwrap().tenant.as_str(), "anonymous");
    attribution.required = true;
    assert_eq!(identify(&attribution, &headers, stranger), Err(IdentifyError::Nobody));
    assert_eq!(attribution.challenge(), "Bearer realm=\"weir\"");
}
