//! TLS to a backend: trust, client certificate, and errors that an operator can act on.
//!
//! The system's certificates and not a list compiled in: an operator who installs the authority of the house on the
//! machine expects it to count.

use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::{io::AsyncRead, io::AsyncWrite};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        self, AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore,
        SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
        pki_types::{CertificateDer, ServerName, UnixTime},
    },
};

use crate::http::pem::{self, TlsError, certificates, pair_error, private_key};

/// Settings of TLS to one backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// Authorities to trust, PEM, in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// Take any certificate: the connection is encrypted, but the peer is not verified.
    pub insecure_skip_verify: bool,
    /// The name that the certificate must carry; the URL's host when there is none.
    pub server_name: Option<String>,
    /// The certificate to show, its chain included, PEM.
    pub client_cert_file: Option<PathBuf>,
    /// The key of that certificate, PEM.
    pub client_key_file: Option<PathBuf>,
}

/// How connections to a backend are secured; its files are read.
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
}

/// The same only if read at the same time: the files may have changed since.
impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.config, &other.config) && self.server_name == other.server_name
    }
}

impl Tls {
    /// Reads the files that the settings name. Blocks.
    pub fn load(settings: &TlsSettings) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let versions = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong("tls", pem::in_words(&error)))?;
        let trusting = if settings.insecure_skip_verify {
            versions.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        } else {
            versions.with_root_certificates(roots(settings.ca_file.as_deref())?)
        };
        let mut config = match (&settings.client_cert_file, &settings.client_key_file) {
            (None, None) => trusting.with_no_client_auth(),
            (Some(cert), Some(key)) => {
                let chain = certificates(cert).map_err(|error| wrong("client_cert_file", error))?;
                let key = private_key(key).map_err(|error| wrong("client_key_file", error))?;
                trusting
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| wrong("client_key_file", pair_error(&error)))?
            }
            (Some(_), None) => {
                return Err(wrong("client_cert_file", "needs its key in `client_key_file`"));
            }
            (None, Some(_)) => {
                return Err(wrong("client_key_file", "needs its certificate in `client_cert_file`"));
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let name = settings.server_name.clone().map(ServerName::try_from).transpose();
        let server_name = name.map_err(|error| wrong("server_name", error))?;
        Ok(Self { config: Arc::new(config), server_name })
    }

    /// Shakes hands over an open connection to `host`.
    pub(super) async fn connect<S>(&self, host: &str, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.to_owned()).map_err(io::Error::other)?,
        };
        TlsConnector::from(Arc::clone(&self.config)).connect(name, stream).await
    }
}

fn wrong(key: &'static str, error: impl ToString) -> TlsError {
    TlsError::new(key, error)
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca_file {
        for certificate in certificates(path).map_err(|error| wrong("ca_file", error))? {
            roots.add(certificate).map_err(|error| {
                let why = pem::in_words(&error);
                wrong("ca_file", format!("{} holds an unusable certificate: {why}", path.display()))
            })?;
        }
        return Ok(roots);
    }
    let system = rustls_native_certs::load_native_certs();
    // A system carries some that nobody can use; only to have none at all is a mistake.
    roots.add_parsable_certificates(system.certs);
    if roots.is_empty() {
        let why = system.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
        let message = format!("this system has no certificates of authorities{why}; name a file here");
        return Err(wrong("ca_file", message));
    }
    Ok(roots)
}

/// The reason and the cure of a failure of TLS; `None` for one of the network. Looks through the whole chain of an
/// error, because a refusal of our certificate comes with the first byte read and not with the handshake.
pub(super) fn explain(error: &(dyn Error + 'static)) -> Option<String> {
    let mut link = Some(error);
    while let Some(error) = link {
        // An `io::Error` hides its inner error from `source`.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let inner = inner.map_or(error, |inner| inner as &(dyn Error + 'static));
        if let Some(error) = inner.downcast_ref::<rustls::Error>() {
            return Some(in_words(error));
        }
        link = error.source();
    }
    None
}

fn in_words(error: &rustls::Error) -> String {
    use CertificateError as Bad;
    match error {
        // A bad signature: an authority of the same name with another key, such as one that was made anew.
        rustls::Error::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature) => {
            "its certificate is signed by an authority that is not trusted here (`tls.ca_file`)".to_owned()
        }
        rustls::Error::InvalidCertificate(Bad::NotValidForNameContext { expected, presented }) => format!(
            "its certificate is for {}, not for `{}` (`tls.server_name`)",
            presented.join(", "),
            expected.to_str()
        ),
        rustls::Error::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => {
            "its certificate has expired".to_owned()
        }
        rustls::Error::InvalidCertificate(_) => {
            format!("its certificate is not accepted: {}", pem::in_words(error))
        }
        rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::AccessDenied,
        ) => format!("it does not accept Weir's certificate or misses one (`tls.client_cert_file`): {error}"),
        rustls::Error::InvalidMessage(_) => format!("it does not speak TLS; is `http://` meant? ({error})"),
        other => format!("TLS failed: {other}"),
    }
}

/// Believes any certificate, but still only one whose key the peer holds.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
