//! TLS from paths as written to files as read.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::raw::BackendTls;
use crate::{
    backend::{Tls, TlsSettings},
    http::{self, ServerTlsSettings, pem::TlsError},
};

/// TLS on a listener. Files are PEM, and read again with every reload and whenever they change.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerTls {
    /// The certificate that Weir shows, with its chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<String>,
    /// The key of that certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<String>,
    /// Authorities whose clients show certificates (mTLS). Left out, no client is asked for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca_file: Option<String>,
    /// Revocation lists of these authorities, and of those between them and the clients: a certificate on one is turned away, and
    /// so is one whose authority has no list here. When the file changes, open connections end after their answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_crl_file: Option<String>,
    /// Whether a client without a certificate is turned away in the handshake, health checks included.
    pub client_auth: ClientAuth,
}

/// Whether clients must show certificates.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// A client without a valid certificate is turned away.
    #[default]
    Required,
    /// A client may come without one; an invalid one is turned away.
    Optional,
}

/// Reads the files of a listener's TLS; `None` is plain HTTP. Blocks.
pub(super) fn of_listener(raw: &ServerTls) -> Result<Option<http::ServerTls>, TlsError> {
    let wrong = |key, message: &str| Err(TlsError { key, message: message.to_owned() });
    if raw.client_crl_file.is_some() && raw.client_ca_file.is_none() {
        return wrong("client_crl_file", "no client is asked for a certificate: set `client_ca_file`");
    }
    match (&raw.cert_file, &raw.key_file) {
        (None, None) if raw.client_ca_file.is_some() => {
            wrong("client_ca_file", "needs TLS: set `cert_file` and `key_file`")
        }
        (None, None) => Ok(None),
        (Some(cert), Some(key)) => {
            let settings = ServerTlsSettings {
                cert_file: cert.into(),
                key_file: key.into(),
                client_ca_file: raw.client_ca_file.as_ref().map(PathBuf::from),
                client_crl_file: raw.client_crl_file.as_ref().map(PathBuf::from),
                client_auth_optional: raw.client_auth == ClientAuth::Optional,
            };
            http::ServerTls::load(&settings).map(Some)
        }
        (Some(_), None) => wrong("cert_file", "needs its key in `key_file`"),
        (None, Some(_)) => wrong("key_file", "needs its certificate in `cert_file`"),
    }
}

/// Reads the files of a backend's `tls`. Blocks.
pub(super) fn load(raw: &BackendTls) -> Result<Tls, TlsError> {
    let path = |file: &Option<String>| file.as_ref().map(PathBuf::from);
    Tls::load(&TlsSettings {
        ca_file: path(&raw.ca_file),
        insecure_skip_verify: raw.insecure_skip_verify,
        server_name: raw.server_name.clone(),
        client_cert_file: path(&raw.client_cert_file),
        client_key_file: path(&raw.client_key_file),
    })
}
