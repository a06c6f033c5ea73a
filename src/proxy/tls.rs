//! TLS of Weir's own listeners: the certificate that they show.

use std::{path::PathBuf, sync::Arc};

use tokio::net::TcpStream;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring},
    server::TlsStream,
};

use crate::backend::tls::{TlsError, certificates, pair_error, private_key};

/// What the configuration says of TLS on one listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerTlsSettings {
    /// The certificate to show, its chain included, PEM.
    pub cert_file: PathBuf,
    /// The key of that certificate, PEM.
    pub key_file: PathBuf,
}

/// How the connections of a listener are secured; its files are read.
#[derive(Clone)]
pub struct ServerTls(TlsAcceptor);

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // What it holds is a key.
        f.write_str("ServerTls")
    }
}

impl ServerTls {
    /// Reads the files that the settings name. Blocks.
    ///
    /// # Errors
    /// A file cannot be read or used, or the two do not go together.
    pub fn load(settings: &ServerTlsSettings) -> Result<Self, TlsError> {
        let wrong = |key, message: String| TlsError { key, message };
        let chain = certificates(&settings.cert_file).map_err(|error| wrong("cert_file", error))?;
        let key = private_key(&settings.key_file).map_err(|error| wrong("key_file", error))?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong("cert_file", error.to_string()))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| wrong("key_file", pair_error(&error)))?;
        // The listeners speak nothing else.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// Shakes hands on an accepted connection.
    pub(super) async fn accept(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        self.0.accept(stream).await
    }
}
