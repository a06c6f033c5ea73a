//! TLS from paths as written to files as read.

use std::path::PathBuf;

use super::raw::BackendTls;
use crate::backend::{Tls, TlsSettings, tls::TlsError};

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
