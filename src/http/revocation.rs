//! Certificate revocation lists (RFC 5280, 5): the certificates of clients that are no longer valid.

use std::{path::Path, time::SystemTime};

use tokio_rustls::rustls::pki_types::{CertificateDer, CertificateRevocationListDer, pem::PemObject};
use x509_parser::{
    certificate::X509Certificate, prelude::FromDer, revocation_list::CertificateRevocationList,
};

use super::pem;

/// The lists in a PEM file, at least one. Blocks.
pub(super) fn revocation_lists(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    let pem = pem::read(path)?;
    let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(found) if found.is_empty() => {
            Err(format!("{} holds no revocation list in PEM form (`X509 CRL`)", path.display()))
        }
        Ok(found) => Ok(found),
        Err(error) => Err(format!("{} is no PEM file: {error}", path.display())),
    }
}

/// When the first of these lists ends, milliseconds since the epoch. There is one of each authority: of a certificate whose
/// authority has none nobody knows whether it is revoked, and it is refused.
///
/// # Errors
/// One has ended, or is missing.
pub(super) fn first_end(
    lists: &[CertificateRevocationListDer<'_>],
    authorities: &[CertificateDer<'_>],
) -> Result<Option<i64>, String> {
    let lists = lists.iter().map(|list| CertificateRevocationList::from_der(list));
    let lists: Vec<_> = lists.collect::<Result<_, _>>().map_err(|_| "holds a damaged list".to_owned())?;
    for authority in authorities {
        // One that cannot be read is refused as an authority.
        let Ok((_, authority)) = X509Certificate::from_der(authority) else { continue };
        let subject = authority.subject();
        if !lists.iter().any(|(_, list)| list.issuer().as_raw() == subject.as_raw()) {
            return Err(format!("holds no list of the authority `{subject}` in `client_ca_file`"));
        }
    }
    let ends = lists.iter().filter_map(|(_, list)| Some((list.next_update()?.timestamp(), list)));
    let Some((ends, list)) = ends.min_by_key(|(ends, _)| *ends) else { return Ok(None) };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    if u64::try_from(ends).unwrap_or(0) <= now {
        return Err(format!(
            "the list of `{}` has expired (its `nextUpdate`); fetch the new one",
            list.issuer()
        ));
    }
    Ok(Some(ends.saturating_mul(1_000)))
}
