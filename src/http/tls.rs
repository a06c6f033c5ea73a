//! TLS of Weir's own listeners: the certificate that they show.

use std::{fmt, io, path::PathBuf, sync::Arc};

use tokio::net::TcpStream;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring},
    server::TlsStream,
};

use super::pem::{TlsError, certificates, in_words, pair_error, private_key};

/// Settings of TLS on one listener.
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

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It holds a key.
        f.write_str("ServerTls")
    }
}

impl ServerTls {
    /// Reads the files that the settings name. Blocks.
    ///
    /// # Errors
    /// A file cannot be read or used, or the two do not go together.
    pub fn load(settings: &ServerTlsSettings) -> Result<Self, TlsError> {
        let chain = certificates(&settings.cert_file).map_err(|error| TlsError::new("cert_file", error))?;
        let key = private_key(&settings.key_file).map_err(|error| TlsError::new("key_file", error))?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::new("cert_file", in_words(&error)))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| TlsError::new("key_file", pair_error(&error)))?;
        // The listeners speak nothing else.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// Shakes hands on an accepted connection.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.0.accept(stream).await
    }
}

/// How a listener secures its connections, asked for each of them: a reload may change it.
#[derive(Clone)]
pub struct ListenerTls {
    current: Arc<dyn Fn() -> Option<ServerTls> + Send + Sync>,
    /// Takes the result of each handshake: `done`, `failed`, `late` or `replaced`.
    counted: Arc<dyn Fn(&'static str) + Send + Sync>,
}

impl fmt::Debug for ListenerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerTls").finish_non_exhaustive()
    }
}

impl ListenerTls {
    /// TLS as `current` says for each connection; `counted` takes the result of each handshake.
    pub fn new(
        current: impl Fn() -> Option<ServerTls> + Send + Sync + 'static,
        counted: impl Fn(&'static str) + Send + Sync + 'static,
    ) -> Self {
        Self { current: Arc::new(current), counted: Arc::new(counted) }
    }

    /// Plain HTTP, always.
    pub fn never() -> Self {
        Self::new(|| None, |_| ())
    }

    pub(super) fn current(&self) -> Option<ServerTls> {
        (self.current)()
    }

    pub(super) fn count(&self, result: &'static str) {
        (self.counted)(result);
    }
}
