//! TLS from paths as written to files as read.

use std::path::PathBuf;

use super::raw::{BackendTls, ServerTls};
use crate::{
    backend::{Tls, TlsSettings, tls::TlsError},
    proxy::{self, ServerTlsSettings},
};

/// Reads what a listener's TLS names; `None` is plain HTTP. Blocks.
pub(super) fn of_listener(raw: &ServerTls) -> Result<Option<proxy::ServerTls>, TlsError> {
    let wrong = |key, message: &str| Err(TlsError { key, message: message.to_owned() });
    match (&raw.cert_file, &raw.key_file) {
        (None, None) => Ok(None),
        (Some(cert), Some(key)) => {
            let settings = ServerTlsSettings { cert_file: cert.into(), key_file: key.into() };
            proxy::ServerTls::load(&settings).map(Some)
        }
        (Some(_), None) => wrong("cert_file", "needs its key in `key_file`"),
        (None, Some(_)) => wrong("key_file", "needs its certificate in `cert_file`"),
    }
}

/// Reads what a backend's `tls` names. Blocks.
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
