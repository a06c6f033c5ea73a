//! The identity that a credential gives, once its issuer's or authority's signature is checked.

use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

use crate::{base::TenantId, http::ClientCertificate};

/// Most tenants of one credential.
const TENANTS_MAX: usize = 100;

/// Where an identity came from, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentitySource {
    /// Nothing named anybody.
    Default,
    /// A header of a trusted proxy.
    Header,
    /// HTTP basic authentication behind a trusted proxy.
    BasicAuth,
    /// A bearer token.
    Bearer,
    /// A JWT.
    Jwt,
    /// A client's certificate.
    Certificate,
    /// An operator, who names the tenant.
    Operator,
}

impl IdentitySource {
    /// Its name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Header => "header",
            Self::BasicAuth => "basic_auth",
            Self::Bearer => "bearer",
            Self::Jwt => "jwt",
            Self::Certificate => "client_certificate",
            Self::Operator => "operator",
        }
    }
}

/// Whom a credential names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Named {
    /// The tenants whose data it may read, sorted, at least one.
    pub(super) tenants: SmallVec<[TenantId; 1]>,
    /// The actor.
    pub(super) actor: Option<Arc<str>>,
    /// The class.
    pub(super) class: Option<Arc<str>>,
    /// The groups that it belongs to.
    pub(super) groups: Vec<Arc<str>>,
}

impl Named {
    /// This tenant, and nothing else.
    pub(super) fn tenant(tenant: TenantId) -> Self {
        Self { tenants: smallvec![tenant], ..Self::default() }
    }
}

/// The part of a client's certificate that names its tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateName {
    /// The common name of its subject.
    CommonName,
    /// Its first alternative name: a DNS name, a URI or an address of mail.
    AlternativeName,
}

impl CertificateName {
    /// Whom a certificate names; `None` if it has no such name, or one that no tenant can have.
    pub(super) fn named(self, certificate: &ClientCertificate) -> Option<Named> {
        let name = match self {
            Self::CommonName => certificate.common_name.as_ref(),
            Self::AlternativeName => certificate.alternative_names.first(),
        }?;
        Some(Named {
            tenants: names(std::iter::once(&**name))?,
            actor: certificate.name().cloned(),
            class: None,
            groups: certificate.groups.clone(),
        })
    }
}

/// Names of tenants, sorted and each once; `None` where there is none, too many, or one that is no name.
pub(super) fn names<'n>(texts: impl Iterator<Item = &'n str>) -> Option<SmallVec<[TenantId; 1]>> {
    let mut names = texts.map(TenantId::new).collect::<Option<SmallVec<[_; 1]>>>()?;
    names.sort_unstable();
    names.dedup();
    (1..=TENANTS_MAX).contains(&names.len()).then_some(names)
}
