//! TLS of Weir's own listeners: the certificate that they show.

use std::{fmt, io, path::PathBuf, sync::Arc};

use tokio::net::TcpStream;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, CertificateRevocationListDer},
        server::{VerifierBuilderError, WebPkiClientVerifier, danger::ClientCertVerifier},
    },
    server::TlsStream,
};

use super::{
    client_certificate::ClientCertificate,
    pem::{TlsError, certificates, in_words, pair_error, private_key},
    revocation::{first_end, revocation_lists},
};

/// Settings of TLS on one listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerTlsSettings {
    /// The certificate to show, its chain included, PEM.
    pub cert_file: PathBuf,
    /// The key of that certificate, PEM.
    pub key_file: PathBuf,
    /// The authorities whose clients are asked for certificates, PEM; without it none is asked.
    pub client_ca_file: Option<PathBuf>,
    /// The revocation lists of these authorities, and of those between them and the clients, PEM; without it no certificate
    /// is taken for revoked.
    pub client_crl_file: Option<PathBuf>,
    /// A client may come without a certificate.
    pub client_auth_optional: bool,
}

/// How the connections of a listener are secured; its files are read.
#[derive(Clone)]
pub struct ServerTls {
    acceptor: TlsAcceptor,
    clients: Arc<Clients>,
}

/// The clients whose certificates are accepted.
#[derive(Default, PartialEq, Eq)]
struct Clients {
    authorities: Vec<CertificateDer<'static>>,
    lists: Vec<CertificateRevocationListDer<'static>>,
    /// When the first list ends, milliseconds since the epoch.
    first_end: Option<i64>,
}

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
        let clients = Clients::read(settings)?;
        let builder = if clients.authorities.is_empty() {
            builder.with_no_client_auth()
        } else {
            builder.with_client_cert_verifier(clients.verifier(settings.client_auth_optional)?)
        };
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|error| TlsError::new("key_file", pair_error(&error)))?;
        // The listeners speak nothing else.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), clients: Arc::new(clients) })
    }

    /// Whether other certificates of clients are accepted than by the other one.
    pub(crate) fn accepts_others(now: Option<&Self>, before: Option<&Self>) -> bool {
        let clients = |tls: Option<&Self>| tls.map(|tls| Arc::clone(&tls.clients)).unwrap_or_default();
        clients(now) != clients(before)
    }

    /// When the first of its revocation lists ends, milliseconds since the epoch. It is obeyed beyond that.
    pub(crate) fn revocation_ends(&self) -> Option<i64> {
        self.clients.first_end
    }

    /// Shakes hands on an accepted connection.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.acceptor.accept(stream).await
    }
}

impl Clients {
    /// Reads the files of authorities and revocation lists. Blocks.
    fn read(settings: &ServerTlsSettings) -> Result<Self, TlsError> {
        let Some(file) = &settings.client_ca_file else { return Ok(Self::default()) };
        let authorities = certificates(file).map_err(|error| TlsError::new("client_ca_file", error))?;
        let Some(file) = &settings.client_crl_file else {
            return Ok(Self { authorities, ..Self::default() });
        };
        let wrong = |error| TlsError::new("client_crl_file", error);
        let lists = revocation_lists(file).map_err(wrong)?;
        let first_end = first_end(&lists, &authorities).map_err(wrong)?;
        Ok(Self { authorities, lists, first_end })
    }

    /// Checks certificates against the authorities and all lists. A list that has ended stays in force: without it every client
    /// would be refused, or none.
    fn verifier(&self, is_optional: bool) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let wrong = |error: String| TlsError::new("client_ca_file", error);
        let mut roots = RootCertStore::empty();
        for authority in &self.authorities {
            roots.add(authority.clone()).map_err(|error| wrong(in_words(&error)))?;
        }
        let provider = Arc::new(ring::default_provider());
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let builder = builder.with_crls(self.lists.iter().cloned());
        let builder = if is_optional { builder.allow_unauthenticated() } else { builder };
        builder.build().map_err(|error| match error {
            VerifierBuilderError::InvalidCrl(error) => TlsError::new(
                "client_crl_file",
                format!("holds a list that cannot be used: {}", in_words(&error.into())),
            ),
            other => wrong(other.to_string()),
        })
    }
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
