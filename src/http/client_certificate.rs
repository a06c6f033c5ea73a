//! The certificate that a client showed, as far as it names somebody. Its chain was verified in the handshake.

use std::sync::Arc;

use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName, prelude::FromDer, x509::AttributeTypeAndValue,
};

/// Most names, and most groups, that are kept of a certificate.
const NAMES_MAX: usize = 100;

/// Whom a client's certificate names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The common name of the subject, if it has one alone.
    pub common_name: Option<Arc<str>>,
    /// The alternative names: DNS names, URIs and addresses of mail, in their order.
    pub alternative_names: Vec<Arc<str>>,
    /// Organisations and organisational units of the subject.
    pub groups: Vec<Arc<str>>,
}

impl ClientCertificate {
    /// Reads a certificate; an unreadable one names nobody.
    pub(super) fn of(der: &[u8]) -> Self {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else { return Self::default() };
        let subject = certificate.subject();
        let text = |attribute: &AttributeTypeAndValue<'_>| attribute.as_str().ok().map(Arc::from);
        let mut common: Vec<Arc<str>> = subject.iter_common_name().filter_map(text).take(2).collect();
        let groups = subject.iter_organization().chain(subject.iter_organizational_unit());
        let alternative = certificate.subject_alternative_name().ok().flatten();
        let alternative = alternative.iter().flat_map(|extension| &extension.value.general_names);
        let name = |name: &GeneralName<'_>| match name {
            GeneralName::DNSName(name) | GeneralName::URI(name) | GeneralName::RFC822Name(name) => {
                Some(Arc::from(*name))
            }
            _ => None,
        };
        Self {
            common_name: common.pop().filter(|_| common.is_empty()),
            alternative_names: alternative.filter_map(name).take(NAMES_MAX).collect(),
            groups: groups.filter_map(text).take(NAMES_MAX).collect(),
        }
    }

    /// The name by which people know its holder: the common name, or the first alternative one.
    pub fn name(&self) -> Option<&Arc<str>> {
        self.common_name.as_ref().or(self.alternative_names.first())
    }

    /// Whether it is made out to this name.
    pub fn has_name(&self, name: &str) -> bool {
        self.common_name.iter().chain(&self.alternative_names).any(|own| **own == *name)
    }
}
