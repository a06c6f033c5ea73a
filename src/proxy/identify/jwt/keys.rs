//! The public keys that sign JWTs, each with the algorithms that it may be used with.

use std::{fmt, path::Path};

use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse},
};
use tokio_rustls::rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, pem::PemObject};
use x509_parser::{
    certificate::X509Certificate,
    oid_registry::{OID_KEY_TYPE_EC_PUBLIC_KEY, OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519},
    prelude::FromDer,
    x509::SubjectPublicKeyInfo,
};

use super::crypto;

/// Most keys of a set; providers have two or three.
const KEYS_MAX: usize = 100;
/// Bytes of the largest set that is read.
pub(super) const BYTES_MAX: usize = 1 << 20;

/// The keys of an issuer.
#[derive(Clone, Default)]
pub struct KeySet {
    pub(super) keys: Vec<Key>,
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| (&key.id, &key.algorithms))).finish()
    }
}

/// A public key.
#[derive(Clone)]
pub(super) struct Key {
    /// Its `kid`; keys of PEM files have none.
    pub(super) id: Option<String>,
    /// The algorithms that its signatures may have.
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) decoding: DecodingKey,
}

impl KeySet {
    /// Reads a file: a JWKS as JSON, or public keys and certificates as PEM. Blocks.
    ///
    /// # Errors
    /// The problem, as the end of a sentence that names the file.
    pub fn load(path: &Path) -> Result<Self, String> {
        let text = std::fs::read(path).map_err(|error| error.to_string())?;
        Self::read(&text)
    }

    /// Reads a JWKS or PEM.
    ///
    /// # Errors
    /// It is neither, or holds no key that could sign a token.
    pub fn read(text: &[u8]) -> Result<Self, String> {
        crypto::install();
        if text.len() > BYTES_MAX {
            return Err("is larger than 1 MiB".to_owned());
        }
        let keys = if text.trim_ascii_start().starts_with(b"{") { of_jwks(text)? } else { of_pem(text)? };
        match keys.len() {
            0 => Err("holds no public key that signs (RSA, P-256, P-384 or Ed25519)".to_owned()),
            1..=KEYS_MAX => Ok(Self { keys }),
            _ => Err(format!("holds more than {KEYS_MAX} keys")),
        }
    }
}

/// The keys of a set that sign. A key for something else is no mistake, nor is one of a kind that nobody knows here.
fn of_jwks(text: &[u8]) -> Result<Vec<Key>, String> {
    let set: JwkSet = serde_json::from_slice(text).map_err(|error| format!("is no JWKS: {error}"))?;
    Ok(set.keys.iter().filter_map(of_jwk).collect())
}

fn of_jwk(jwk: &Jwk) -> Option<Key> {
    if matches!(&jwk.common.public_key_use, Some(r#use) if *r#use != PublicKeyUse::Signature) {
        return None;
    }
    let mut algorithms = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => AlgorithmFamily::Rsa.algorithms().to_vec(),
        AlgorithmParameters::EllipticCurve(curve) => match curve.curve {
            EllipticCurve::P256 => vec![Algorithm::ES256],
            EllipticCurve::P384 => vec![Algorithm::ES384],
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(curve) if curve.curve == EllipticCurve::Ed25519 => {
            vec![Algorithm::EdDSA]
        }
        // A shared secret in a set of public keys would sign for everybody who reads the set.
        _ => return None,
    };
    if let Some(algorithm) = jwk.common.key_algorithm {
        let only = Algorithm::try_from(algorithm).ok()?;
        algorithms.retain(|algorithm| *algorithm == only);
    }
    let key = DecodingKey::from_jwk(jwk).ok().filter(|_| !algorithms.is_empty())?;
    Some(Key { id: jwk.common.key_id.clone(), algorithms, decoding: key })
}

fn of_pem(text: &[u8]) -> Result<Vec<Key>, String> {
    let damaged = |error| format!("is neither a JWKS nor PEM: {error}");
    let mut keys = Vec::new();
    for der in SubjectPublicKeyInfoDer::pem_slice_iter(text) {
        let der = der.map_err(damaged)?;
        let (_, info) = SubjectPublicKeyInfo::from_der(&der).map_err(|_| "holds a damaged key".to_owned())?;
        keys.extend(of_info(&info));
    }
    for der in CertificateDer::pem_slice_iter(text) {
        let der = der.map_err(damaged)?;
        let (_, certificate) =
            X509Certificate::from_der(&der).map_err(|_| "holds a damaged certificate".to_owned())?;
        keys.extend(of_info(certificate.public_key()));
    }
    Ok(keys)
}

fn of_info(info: &SubjectPublicKeyInfo<'_>) -> Option<Key> {
    let (kind, bytes) = (&info.algorithm.algorithm, &*info.subject_public_key.data);
    let (algorithms, key) = if *kind == OID_PKCS1_RSAENCRYPTION {
        (AlgorithmFamily::Rsa.algorithms().to_vec(), DecodingKey::from_rsa_der(bytes))
    } else if *kind == OID_KEY_TYPE_EC_PUBLIC_KEY {
        // An uncompressed point: 4, then both coordinates.
        let algorithm = match bytes.len() {
            65 => Algorithm::ES256,
            97 => Algorithm::ES384,
            _ => return None,
        };
        (vec![algorithm], DecodingKey::from_ec_der(bytes))
    } else if *kind == OID_SIG_ED25519 {
        (vec![Algorithm::EdDSA], DecodingKey::from_ed_der(bytes))
    } else {
        return None;
    };
    Some(Key { id: None, algorithms, decoding: key })
}
