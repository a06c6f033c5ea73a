//! Certificates and keys from PEM files.

use std::{
    error::Error,
    fmt,
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use tokio_rustls::rustls::{
    self,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// Far more than any chain, bundle of authorities or key takes.
pub const FILE_BYTES_MAX: u64 = 4 << 20;

/// TLS settings that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsError {
    /// The key of the configuration that is wrong.
    pub key: &'static str,
    /// The problem.
    pub message: String,
}

impl TlsError {
    /// This is wrong with that key.
    pub fn new(key: &'static str, message: impl ToString) -> Self {
        Self { key, message: message.to_string() }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

impl Error for TlsError {}

/// The certificates in a PEM file, at least one. Blocks.
///
/// # Errors
/// The file cannot be read or holds no certificate; a sentence that names it.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err(format!("{} holds no certificate in PEM form", path.display())),
        Ok(found) => Ok(found),
        Err(error) => Err(format!("{} is no PEM file: {error}", path.display())),
    }
}

/// The first private key in a PEM file. Blocks.
///
/// # Errors
/// The file cannot be read or holds no key; a sentence that names it.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(&read(path)?)
        .map_err(|error| format!("{} holds no private key in PEM form: {error}", path.display()))
}

/// Why a certificate and a key do not go together.
pub fn pair_error(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InconsistentKeys(_) => "is not the key of the certificate".to_owned(),
        other => in_words(other),
    }
}

/// An error of TLS as a sentence: rustls prints some of its errors as they are written in code.
pub fn in_words(error: &rustls::Error) -> String {
    let rustls::Error::InvalidCertificate(bad) = error else { return error.to_string() };
    match bad {
        rustls::CertificateError::Other(other) => certificate_in_words(&other.to_string()),
        bad => certificate_in_words(&bad.to_string()),
    }
}

/// The names of certificate errors in webpki and rustls, as sentences.
fn certificate_in_words(name: &str) -> String {
    const KNOWN: [(&str, &str); 8] = [
        ("UnsupportedCertVersion", "it is a certificate of X.509 version 1, and TLS wants version 3"),
        (
            "CaUsedAsEndEntity",
            "it is the certificate of an authority (CA:TRUE), shown as that of a server; `openssl req -x509` makes one of a server \
             with `-addext basicConstraints=critical,CA:FALSE`",
        ),
        ("EndEntityUsedAsCa", "it is signed by a certificate that is not one of an authority"),
        ("BadEncoding", "it is damaged or is no X.509 certificate"),
        ("BadDer", "it is damaged or is no X.509 certificate"),
        ("MissingOrMalformedExtensions", "its extensions are missing or malformed"),
        ("UnsupportedCriticalExtension", "it has a critical extension that Weir does not know"),
        ("UnsupportedSignatureAlgorithm", "it is signed by an algorithm that Weir does not know"),
    ];
    let known = KNOWN.iter().find(|(known, _)| name.contains(known));
    known.map_or_else(|| spaced(name), |(_, sentence)| (*sentence).to_owned())
}

/// A name as words: `InvalidCertValidity` becomes `invalid cert validity`. A sentence stays as it is.
fn spaced(name: &str) -> String {
    if name.contains(' ') {
        return name.to_owned();
    }
    let mut words = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !words.is_empty() && !words.ends_with(|c: char| !c.is_alphanumeric()) {
            words.push(' ');
        }
        words.extend(letter.to_lowercase());
    }
    words
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: io::Error| format!("{} cannot be read: {error}", path.display());
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_certificate_is_a_sentence() {
        let cases = [
            ("UnsupportedCertVersion", "it is a certificate of X.509 version 1, and TLS wants version 3"),
            (
                "OtherError(CaUsedAsEndEntity)",
                "it is the certificate of an authority (CA:TRUE), shown as that of a server; `openssl req -x509` makes one of a server \
                 with `-addext basicConstraints=critical,CA:FALSE`",
            ),
            ("InvalidCertValidity", "invalid cert validity"),
            ("certificate expired", "certificate expired"),
        ];
        for (name, expected) in cases {
            assert_eq!(certificate_in_words(name), expected);
        }
    }
}
