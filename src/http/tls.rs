//! TLS of Weir's own listeners: the certificate that they show.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::net::TcpStream;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::ring,
        server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    },
    server::TlsStream,
};

use super::client_certificate::ClientCertificate;
use super::pem::{TlsError, certificates, in_words, pair_error, private_key};

/// Settings of TLS on one listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerTlsSettings {
    /// The certificate to show, its chain included, PEM.
    pub cert_file: PathBuf,
    /// The key of that certificate, PEM.
    pub key_file: PathBuf,
    /// The authorities whose clients are asked for certificates, PEM; without it none is asked.
    pub client_ca_file: Option<PathBuf>,
    /// A client may come without a certificate.
    pub client_auth_optional: bool,
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
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::new("cert_file", in_words(&error)))?;
        let builder = match &settings.client_ca_file {
            Some(file) => builder.with_client_cert_verifier(verifier(file, settings.client_auth_optional)?),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder
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

/// Checks the certificates of clients against these authorities. Blocks.
fn verifier(file: &Path, is_optional: bool) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let wrong = |error: String| TlsError::new("client_ca_file", error);
    let mut roots = RootCertStore::empty();
    for authority in certificates(file).map_err(wrong)? {
        roots.add(authority).map_err(|error| wrong(in_words(&error)))?;
    }
    let provider = Arc::new(ring::default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = if is_optional { builder.allow_unauthenticated() } else { builder };
    builder.build().map_err(|error| wrong(error.to_string()))
}

/// Whom the certificate names that a client showed, if it did.
pub(super) fn client_certificate(stream: &TlsStream<TcpStream>) -> Option<Arc<ClientCertificate>> {
    let chain = stream.get_ref().1.peer_certificates()?;
    chain.first().map(|certificate| Arc::new(ClientCertificate::of(certificate)))
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
