//! Where tenants are read from, as written and as obeyed.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::scalar::{Secret, Span};
use crate::{
    backend::{Tls, TlsSettings},
    base::TenantId,
    http::pem::FILE_BYTES_MAX,
    proxy::identify::{
        BearerTokens, CertificateName, Expected, JwtSource, KeySet, KeyUrl, TenantSource as Source,
    },
};

/// Where the tenant is read from; exactly one of the keys.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TenantSource {
    /// A request header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// A part of HTTP basic authentication.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub basic_auth: Option<BasicAuthPart>,
    /// Bearer tokens by tenant: `{team-a: "${TOKEN_A}"}`. A token that is not listed is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bearer: Option<BTreeMap<String, Secret>>,
    /// A file of bearer tokens: a tenant and its token, or `sha256:` and the hash of that, on each line. Read again when it
    /// changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bearer_file: Option<String>,
    /// JSON Web Tokens of an issuer, as bearer tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt: Option<Jwt>,
    /// The certificate that the client shows (`server.tls.client_ca_file`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<CertificatePart>,
}

/// The part of basic authentication that names the tenant.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BasicAuthPart {
    /// The user name.
    User,
}

/// The part of a client's certificate that names the tenant.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificatePart {
    /// The common name of its subject.
    CommonName,
    /// Its first alternative name: a DNS name, a URI or an address of mail.
    AlternativeName,
}

/// JSON Web Tokens of an issuer. Issuer, audience, time and signature are always checked; shared secrets (`HS256`) are no keys.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Jwt {
    /// The issuer, as `iss` has it.
    pub issuer: String,
    /// Audiences, one of which `aud` must name.
    #[schemars(length(min = 1))]
    pub audience: Vec<String>,
    /// A file of the issuer's public keys: a JWKS, or PEM. Read again when it changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys_file: Option<String>,
    /// The URL of the issuer's public keys, a JWKS; the old ones stay where fetching fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<String>,
    /// Authorities to trust at that URL in place of the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// How often the keys are fetched; sooner where a token names one that is not known, every 10s at most.
    pub refresh: Span,
    /// The claims that name the client; `a.b` is the claim `b` in the claim `a`.
    pub claims: JwtClaims,
}

impl Default for Jwt {
    fn default() -> Self {
        Self {
            issuer: String::new(),
            audience: Vec::new(),
            keys_file: None,
            jwks_url: None,
            ca_file: None,
            refresh: "5m".parse().unwrap_or_else(|_| unreachable!("a duration")),
            claims: JwtClaims::default(),
        }
    }
}

/// Claims that name the client.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct JwtClaims {
    /// The tenant, or a list of tenants: their limits and labels apply together, unless a header of `sources` asks for some of them.
    pub tenant: String,
    /// The actor inside the tenant.
    pub actor: String,
    /// The class by its name, if any claim names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// The groups, which `classes[].match.group` meets.
    pub groups: String,
}

impl Default for JwtClaims {
    fn default() -> Self {
        Self {
            tenant: "tenant".to_owned(),
            actor: "sub".to_owned(),
            class: None,
            groups: "groups".to_owned(),
        }
    }
}

/// The key that is wrong, and the reason; never a secret.
pub(super) type Mistake = (&'static str, String);

impl TenantSource {
    /// How many of its keys are written.
    fn written(&self) -> usize {
        let Self { header, basic_auth, bearer, bearer_file, jwt, client_certificate } = self;
        [
            header.is_some(),
            basic_auth.is_some(),
            bearer.is_some(),
            bearer_file.is_some(),
            jwt.is_some(),
            client_certificate.is_some(),
        ]
        .into_iter()
        .filter(|is_written| *is_written)
        .count()
    }

    /// Reads it, and the files that it names. Blocks.
    pub(super) fn resolve(&self) -> Result<Source, Mistake> {
        if self.written() != 1 {
            let keys = "`header`, `basic_auth`, `bearer`, `bearer_file`, `jwt` and `client_certificate`";
            return Err(("", format!("needs exactly one of {keys}")));
        }
        let tenant =
            |name: &str| TenantId::new(name).ok_or_else(|| ("bearer", format!("`{name}` is no tenant name")));
        if let Some(tokens) = &self.bearer {
            let pairs = tokens.iter().map(|(name, token)| Ok((token.reveal(), tenant(name)?)));
            return Ok(Source::Bearer(BearerTokens::new(pairs.collect::<Result<Vec<_>, Mistake>>()?)));
        }
        if let Some(file) = &self.bearer_file {
            let wrong = |why: String| ("bearer_file", format!("{file}: {why}"));
            let text = text_of(Path::new(file)).map_err(wrong)?;
            return BearerTokens::read(&text).map(Source::Bearer).map_err(wrong);
        }
        if let Some(jwt) = &self.jwt {
            return jwt.resolve().map(|source| Source::Jwt(Arc::new(source)));
        }
        if let Some(part) = self.client_certificate {
            return Ok(Source::Certificate(match part {
                CertificatePart::CommonName => CertificateName::CommonName,
                CertificatePart::AlternativeName => CertificateName::AlternativeName,
            }));
        }
        match &self.header {
            Some(name) => {
                let name = name.parse().map_err(|_| ("header", format!("`{name}` is not a header name")))?;
                Ok(Source::Header(name))
            }
            None => Ok(Source::BasicAuthUser),
        }
    }
}

impl Jwt {
    fn resolve(&self) -> Result<JwtSource, Mistake> {
        let wrong = |why: String| Err(("jwt", why));
        if self.issuer.is_empty() || self.audience.is_empty() || self.audience.iter().any(String::is_empty) {
            return wrong("needs `issuer` and `audience`, which are always checked".to_owned());
        }
        let JwtClaims { tenant, actor, class, groups } = self.claims.clone();
        let (issuer, audiences) = (self.issuer.clone(), self.audience.clone());
        let expected = Expected { issuer, audiences, tenant, actor, class, groups };
        match (&self.keys_file, &self.jwks_url) {
            (Some(file), None) => match KeySet::load(Path::new(file)) {
                Ok(keys) => Ok(JwtSource::with_keys(expected, keys)),
                Err(why) => wrong(format!("keys_file: {file} {why}")),
            },
            (None, Some(url)) => {
                let settings =
                    TlsSettings { ca_file: self.ca_file.as_ref().map(Into::into), ..TlsSettings::default() };
                let tls = url.starts_with("https:").then(|| Tls::load(&settings)).transpose();
                let tls = tls.map_err(|error| ("jwt", error.to_string()))?;
                match KeyUrl::new(url, tls, self.refresh.duration()) {
                    Ok(url) => Ok(JwtSource::with_url(expected, url)),
                    Err(why) => wrong(format!("jwks_url: {why}")),
                }
            }
            _ => wrong("needs exactly one of `keys_file` and `jwks_url`".to_owned()),
        }
    }
}

fn text_of(file: &Path) -> Result<String, String> {
    let length = fs::metadata(file).map_err(|error| error.to_string())?.len();
    if length > FILE_BYTES_MAX {
        return Err("is longer than 4 MiB".to_owned());
    }
    fs::read_to_string(file).map_err(|error| error.to_string())
}
