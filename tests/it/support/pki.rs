//! Certificates made for one test, and a TLS server that shows them.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber, date_time_ymd,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, pem::PemObject},
        server::WebPkiClientVerifier,
    },
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

/// An authority, and a folder of PEM files.
pub(crate) struct Pki {
    authority: CertifiedIssuer<'static, KeyPair>,
    dir: tempfile::TempDir,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, dir.path().display().to_string());
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(dir.path().join("ca.pem"), authority.pem()).unwrap();
        Self { authority, dir }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes `<name>.pem` and `<name>-key.pem`, for this host.
    pub(crate) fn issue(&self, name: &str, host: &str) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        std::fs::write(self.file(&format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.file(&format!("{name}-key.pem")), key.serialize_pem()).unwrap();
    }

    /// The same for a client: its common name, its organisation, and one alternative name.
    pub(crate) fn issue_client(&self, name: &str, common_name: &str, organisation: &str, alternative: &str) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![alternative.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.distinguished_name.push(DnType::OrganizationName, organisation);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        std::fs::write(self.file(&format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.file(&format!("{name}-key.pem")), key.serialize_pem()).unwrap();
    }

    /// Writes a revocation list of these certificates, in force until the first of January of a year.
    pub(crate) fn revoke(&self, file: &str, names: &[&str], until: i32) {
        let revoked = |name: &&str| {
            let der: CertificateDer<'_> =
                PemObject::from_pem_file(self.file(&format!("{name}.pem"))).unwrap();
            let serial = X509Certificate::from_der(&der).unwrap().1.raw_serial().to_vec();
            RevokedCertParams {
                serial_number: SerialNumber::from(serial),
                revocation_time: date_time_ymd(2020, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(until, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: names.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        std::fs::write(self.file(file), list.signed_by(&self.authority).unwrap().pem().unwrap()).unwrap();
    }

    /// The same with a certificate that signed itself and says that it is an authority, as `openssl req -x509` makes it.
    pub(crate) fn issue_self_signed(&self, name: &str, host: &str) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(self.file(&format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.file(&format!("{name}-key.pem")), key.serialize_pem()).unwrap();
    }

    pub(crate) fn copy_to(&self, name: &str, to: &Path) {
        std::fs::copy(self.file(name), to).unwrap();
    }

    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        roots
    }
}

/// Answers `{}` over TLS to every request, until it is dropped.
pub(crate) struct TlsServer {
    pub(crate) address: SocketAddr,
    _connections: JoinSet<()>,
}

impl TlsServer {
    pub(crate) async fn start(pki: &Pki, certificate: &str, asks_for_certificate: bool) -> Self {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = if asks_for_certificate {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(pki.roots()), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let chain = PemObject::from_pem_file(pki.file(&format!("{certificate}.pem"))).unwrap();
        let key = PemObject::from_pem_file(pki.file(&format!("{certificate}-key.pem"))).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(builder.with_single_cert(vec![chain], key).unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                connections.spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut buffer = [0; 4096];
                    // The requests of these tests have no body and come whole.
                    while stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
                        if stream.write_all(answer).await.is_err() || stream.flush().await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, _connections: tasks }
    }
}
