use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use serde_json::json;

use super::*;

const NOW: i64 = 1_800_000_000;

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    BASE64URL.encode(bytes)
}

/// An issuer with a key on P-256, as a JWKS has it.
struct Issuer {
    pair: EcdsaKeyPair,
    id: &'static str,
}

impl Issuer {
    fn new(id: &'static str) -> Self {
        let (random, algorithm) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Self { pair: EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap(), id }
    }

    fn jwk(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        json!({"kty": "EC", "crv": "P-256", "use": "sig", "kid": self.id, "x": encoded(&point[1..33]), "y": encoded(&point[33..])})
    }

    fn token(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", encoded(header.to_string()), encoded(claims.to_string()));
        let signature = self.pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", encoded(signature))
    }

    fn good(&self) -> String {
        self.token(&json!({"alg": "ES256", "kid": self.id}), &claims())
    }
}

fn claims() -> Value {
    json!({"iss": "https://id", "aud": ["other", "weir"], "exp": NOW + 300, "tenant": "team-a", "sub": "alice",
           "groups": ["sre", "dev"], "realm": {"roles": ["x"]}})
}

fn set(keys: &[Value]) -> KeySet {
    KeySet::read(json!({"keys": keys}).to_string().as_bytes()).unwrap()
}

fn expected() -> Expected {
    Expected {
        issuer: "https://id".to_owned(),
        audiences: vec!["weir".to_owned(), "weir-2".to_owned()],
        tenant: "tenant".to_owned(),
        actor: "sub".to_owned(),
        class: None,
        groups: "groups".to_owned(),
    }
}

fn check(token: &str, keys: &KeySet) -> Result<Map<String, Value>, JwtError> {
    verify(token, keys, &expected(), NOW * 1_000)
}

#[test]
fn a_token_names_tenant_actor_and_groups() {
    let issuer = Issuer::new("k1");
    let source = JwtSource::with_keys(expected(), set(&[issuer.jwk()]));
    let found = source.named(&issuer.good(), NOW * 1_000).unwrap();
    assert_eq!(found.tenants[0].as_str(), "team-a");
    assert_eq!(found.actor.as_deref(), Some("alice"));
    assert_eq!(found.groups, ["sre", "dev"].map(Arc::<str>::from));
    let with = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        source.named(&issuer.token(&json!({"alg": "ES256"}), &claims), NOW * 1_000)
    };
    let names = |found: Result<Named, JwtError>| {
        found.map(|found| found.tenants.iter().map(ToString::to_string).collect())
    };
    assert_eq!(names(with("tenant", json!(["b", "a", "b"]))), Ok(vec!["a".to_owned(), "b".to_owned()]));
    for bad in [
        json!(null),
        json!(""),
        json!([]),
        json!(["a", ""]),
        json!("two words"),
        json!(7),
        json!(["a", 5]),
        json!(["a", ["b"]]),
    ] {
        assert_eq!(with("tenant", bad.clone()), Err(JwtError::Claim("tenant".to_owned())), "{bad}");
    }
    let nested = Expected { groups: "realm.roles".to_owned(), ..expected() };
    let source = JwtSource::with_keys(nested, set(&[issuer.jwk()]));
    assert_eq!(source.named(&issuer.good(), NOW * 1_000).unwrap().groups, ["x"].map(Arc::<str>::from));
    let none = JwtSource::with_keys(expected(), KeySet::default());
    assert_eq!(none.named(&issuer.good(), NOW * 1_000), Err(JwtError::NoKeys));
}

#[test]
fn issuer_audience_and_time_are_always_checked() {
    let issuer = Issuer::new("k1");
    let keys = set(&[issuer.jwk()]);
    let claim = |name: &str| Err(JwtError::Claim(name.to_owned()));
    for (name, value, want) in [
        ("iss", json!("https://other"), claim("iss")),
        ("iss", json!(null), claim("iss")),
        ("iss", json!(["https://id", "x"]), claim("iss")),
        ("aud", json!("other"), claim("aud")),
        ("aud", json!(null), claim("aud")),
        ("aud", json!("weir-2"), Ok(())),
        ("exp", json!(null), claim("exp")),
        ("exp", json!("never"), claim("exp")),
        ("exp", json!(NOW - 61), Err(JwtError::Expired)),
        ("exp", json!(NOW - 59), Ok(())),
        ("exp", json!(-1), Err(JwtError::Expired)),
        ("nbf", json!(NOW + 61), Err(JwtError::Early)),
        ("nbf", json!(NOW + 59), Ok(())),
        ("nbf", json!("soon"), claim("nbf")),
    ] {
        let mut claims = claims();
        claims[name] = value.clone();
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        }
        let token = issuer.token(&json!({"alg": "ES256", "kid": "k1"}), &claims);
        let found = check(&token, &keys).map(drop);
        let is_same = found == want || (name == "exp" && value == json!(-1) && found.is_err());
        assert!(is_same, "{name} {value}: {found:?}");
    }
}

#[test]
fn only_the_issuers_own_keys_and_their_algorithms_count() {
    let (issuer, other) = (Issuer::new("k1"), Issuer::new("k1"));
    let keys = set(&[issuer.jwk()]);
    assert!(check(&issuer.good(), &keys).is_ok());
    assert_eq!(check(&other.good(), &keys), Err(JwtError::Signature));
    let signed = |header: Value| check(&issuer.token(&header, &claims()), &keys);
    assert!(signed(json!({"alg": "ES256"})).is_ok(), "without a name each key is tried");
    assert_eq!(signed(json!({"alg": "ES256", "kid": "k2"})), Err(JwtError::UnknownKey));
    for algorithm in ["ES384", "RS256", "PS256", "EdDSA", "HS256"] {
        assert_eq!(signed(json!({"alg": algorithm, "kid": "k1"})), Err(JwtError::UnknownKey), "{algorithm}");
    }
    for algorithm in ["none", "None", "NONE", "", "es256"] {
        assert_eq!(signed(json!({"alg": algorithm, "kid": "k1"})), Err(JwtError::Malformed), "{algorithm}");
        let unsigned =
            format!("{}.{}.", encoded(json!({"alg": algorithm}).to_string()), encoded(claims().to_string()));
        assert_eq!(check(&unsigned, &keys), Err(JwtError::Malformed), "{algorithm}");
    }
    // A key that says which algorithm it is for is for no other.
    let mut narrow = issuer.jwk();
    narrow["alg"] = json!("ES384");
    let both = json!({"keys": [narrow, Issuer::new("k9").jwk()]});
    assert_eq!(
        check(&issuer.good(), &KeySet::read(both.to_string().as_bytes()).unwrap()),
        Err(JwtError::UnknownKey)
    );
    // The public key as the secret of an HMAC.
    let point = issuer.pair.public_key().as_ref();
    let message = format!("{}.{}", encoded(r#"{"alg":"HS256","kid":"k1"}"#), encoded(claims().to_string()));
    let tag = ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, point), message.as_bytes());
    assert_eq!(check(&format!("{message}.{}", encoded(tag)), &keys), Err(JwtError::UnknownKey));
    // Damage anywhere.
    let good = issuer.good();
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..300 {
        let mut bytes = good.clone().into_bytes();
        let at = random.usize(..bytes.len() - 1);
        bytes[at] = *random.choice(b"abcXYZ019-_.").unwrap();
        let damaged = String::from_utf8(bytes).unwrap();
        assert!(damaged == good || check(&damaged, &keys).is_err(), "{damaged}");
    }
    assert_eq!(check(&"a".repeat(20_000), &keys), Err(JwtError::Malformed));
}

#[test]
fn sets_hold_public_keys_that_sign() {
    let issuer = Issuer::new("k1");
    for (key, why) in [
        (
            json!({"kty": "oct", "k": encoded("a shared secret of thirty-two by"), "alg": "HS256", "kid": "k1"}),
            "a secret",
        ),
        (json!({"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA"}), "an unknown curve"),
        (json!({"kty": "future", "kid": "k1"}), "an unknown kind"),
    ] {
        let only = json!({"keys": [key]}).to_string();
        assert!(KeySet::read(only.as_bytes()).is_err(), "{why}");
        // It is no reason to leave out the others.
        assert_eq!(set(&[key, issuer.jwk()]).keys.len(), 1, "{why}");
    }
    let mut encrypts = issuer.jwk();
    encrypts["use"] = json!("enc");
    assert!(KeySet::read(json!({"keys": [encrypts]}).to_string().as_bytes()).is_err());
    for text in ["", "{", "{}", "hello", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"] {
        assert!(KeySet::read(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn keys_come_as_pem_too() {
    // P-256 and Ed25519 by certificates, as `openssl req -x509` makes them.
    let made = rcgen::generate_simple_self_signed(vec!["id".to_owned()]).unwrap();
    let pem = format!("{}{}", made.cert.pem(), made.signing_key.public_key_pem());
    let keys = KeySet::read(pem.as_bytes()).unwrap();
    assert_eq!(keys.keys.len(), 2);
    let (random, pkcs8) = (SystemRandom::new(), made.signing_key.serialize_der());
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8, &random).unwrap();
    let issuer = Issuer { pair, id: "any" };
    assert!(check(&issuer.good(), &keys).is_ok(), "PEM names no key");
    let ed = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let keys = KeySet::read(ed.public_key_pem().as_bytes()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&ed.serialize_der()).unwrap();
    let message = format!("{}.{}", encoded(r#"{"alg":"EdDSA"}"#), encoded(claims().to_string()));
    let token = format!("{message}.{}", encoded(pair.sign(message.as_bytes())));
    assert!(check(&token, &keys).is_ok());
    assert_eq!(check(&issuer.good(), &keys), Err(JwtError::UnknownKey));
}

/// The example of RFC 7515, A.2: it says nothing of an audience, which is found out after its signature.
#[test]
fn rsa_is_checked_as_the_standard_has_it() {
    const N: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
    const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    let keys = set(&[json!({"kty": "RSA", "n": N, "e": "AQAB"})]);
    let at =
        |token: &str| verify(token, &keys, &Expected { issuer: "joe".to_owned(), ..expected() }, NOW * 1_000);
    assert_eq!(at(TOKEN), Err(JwtError::Claim("aud".to_owned())));
    let wrong = TOKEN.replace("cC4hiUPoj9Ee", "cC4hiUPoj9Ef");
    assert_eq!(at(&wrong), Err(JwtError::Signature));
}
