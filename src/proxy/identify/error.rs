//! Why a request belongs to nobody.

use std::fmt;

use http::HeaderName;

use super::{IdentitySource, JwtError};
use crate::base::{TenantId, tenant::TENANT_NAME_MAX};

/// Why a request belongs to nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentifyError {
    /// The tenant's name is empty, too long or not printable.
    Name(&'static str),
    /// The bearer token stands for nobody.
    Token,
    /// A header that names the tenant is there twice, with different values.
    Twice(HeaderName),
    /// Several tenants at once whose data no one backend has.
    Apart(TenantId),
    /// A name that the backend could take for a pattern of names.
    Pattern(TenantId),
    /// The token of an issuer is not believed.
    Jwt(JwtError),
    /// A header asks for a tenant that the token does not name.
    NotNamed(IdentitySource),
    /// The client's certificate names no tenant.
    Certificate,
    /// Nothing names the caller, and a name is required.
    Nobody,
}

impl IdentifyError {
    /// The source that should have named the tenant.
    pub fn source(&self) -> IdentitySource {
        match self {
            Self::Token => IdentitySource::Bearer,
            Self::Jwt(_) => IdentitySource::Jwt,
            Self::NotNamed(by) => *by,
            Self::Certificate => IdentitySource::Certificate,
            Self::Name(place) if *place == BASIC => IdentitySource::BasicAuth,
            Self::Name(_) | Self::Twice(_) | Self::Apart(_) | Self::Pattern(_) => IdentitySource::Header,
            Self::Nobody => IdentitySource::Default,
        }
    }
}

/// Where a tenant's name stands in basic authentication.
pub(super) const BASIC: &str = "basic authentication";

impl fmt::Display for IdentifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(place) => {
                write!(f, "the tenant in {place} must be 1 to {TENANT_NAME_MAX} visible ASCII characters")
            }
            Self::Token => f.write_str("the bearer token is not known here"),
            Self::Twice(name) => write!(f, "the header {name} is given twice, with different values"),
            Self::Pattern(name) => {
                write!(f, "the tenant {name} is not one name: the backend may take it for a pattern of names")
            }
            Self::Apart(names) => write!(f, "the tenants {names} are kept by different backends"),
            Self::Jwt(error) => error.fmt(f),
            Self::NotNamed(_) => f.write_str("the header asks for a tenant that the token does not name"),
            Self::Certificate => f.write_str("the client's certificate names no tenant"),
            Self::Nobody => f.write_str("nothing in the request says who asks, and that is required here"),
        }
    }
}

impl std::error::Error for IdentifyError {}
