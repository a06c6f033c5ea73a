//! Bearer tokens that stand for tenants. Their hashes are kept and compared, so that neither a core dump nor the time of a
//! comparison says anything of a token.

use std::{collections::HashMap, fmt, sync::Arc};

use ring::digest::{SHA256, digest};

use crate::base::TenantId;

type Hash = [u8; 32];

/// Bytes of the shortest token in a file: a shorter one is guessed.
const TOKEN_BYTES_MIN: usize = 16;
/// Most tokens of a file.
const TOKENS_MAX: usize = 100_000;
/// How the hash of a token begins where a file has that in its place.
const HASHED: &str = "sha256:";

/// Tokens, and the tenants that they stand for.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct BearerTokens(Arc<HashMap<Hash, TenantId>>);

impl fmt::Debug for BearerTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.values()).finish()
    }
}

impl BearerTokens {
    /// Of pairs of token and tenant.
    pub fn new<'t>(pairs: impl IntoIterator<Item = (&'t str, TenantId)>) -> Self {
        Self(Arc::new(pairs.into_iter().map(|(token, tenant)| (hash(token), tenant)).collect()))
    }

    /// Reads a file: a tenant and its token on each line, with spaces between. The token may be `sha256:` and the 64
    /// hexadecimal digits of its hash. Empty lines, and those that begin with `#`, are skipped.
    ///
    /// # Errors
    /// The line that is wrong, by its number, and why; never a token.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut tokens = HashMap::new();
        let lines = text.lines().map(str::trim).enumerate();
        for (at, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            let wrong = |why: &str| Err(format!("line {}: {why}", at + 1));
            let mut words = line.split_whitespace();
            let (Some(tenant), Some(token), None) = (words.next(), words.next(), words.next()) else {
                return wrong("a tenant and its token stand on each line, with spaces between");
            };
            let Some(tenant) = TenantId::new(tenant) else { return wrong("the tenant is no name") };
            let hash = match token.strip_prefix(HASHED).map(read_hash) {
                Some(Some(hash)) => hash,
                Some(None) => {
                    return wrong("behind `sha256:` stand the 64 hexadecimal digits of the token's hash");
                }
                None if token.len() < TOKEN_BYTES_MIN => return wrong("the token is shorter than 16 bytes"),
                None => hash(token),
            };
            if tokens.len() == TOKENS_MAX {
                return wrong("there are more than 100,000 tokens");
            }
            if tokens.insert(hash, tenant).is_some() {
                return wrong("the token stands there twice");
            }
        }
        Ok(Self(Arc::new(tokens)))
    }

    /// The tenant that a token stands for.
    pub(super) fn tenant(&self, token: &str) -> Option<&TenantId> {
        self.0.get(&hash(token))
    }
}

fn hash(token: &str) -> Hash {
    // A SHA-256 digest is 32 bytes long.
    digest(&SHA256, token.as_bytes()).as_ref().first_chunk().copied().unwrap_or_default()
}

fn read_hash(digits: &str) -> Option<Hash> {
    let mut hash = Hash::default();
    if digits.len() != 2 * hash.len() || !digits.is_ascii() {
        return None;
    }
    for (byte, at) in hash.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_tokens_or_their_hashes() {
        let digits = hash("the-other-one-of-b").map(|byte| format!("{byte:02x}")).concat();
        let text = format!("# people\n\na  a-token-of-16-by\n b\tsha256:{digits}\n");
        let tokens = BearerTokens::read(&text).unwrap();
        let tenant = |token| tokens.tenant(token).map(TenantId::as_str);
        assert_eq!(tenant("a-token-of-16-by"), Some("a"));
        assert_eq!(tenant("the-other-one-of-b"), Some("b"));
        let hashed = format!("sha256:{digits}");
        assert_eq!(tenant(&hashed), None, "the hash opens nothing");
        assert_eq!(tenant(&digits), None);
        assert!(!format!("{tokens:?}").contains("token"), "never shown");
    }

    #[test]
    fn a_file_with_a_mistake_is_refused_without_showing_a_token() {
        for (text, why) in [
            ("a", "line 1: a tenant and"),
            ("a b-token-of-16-by c", "line 1: a tenant and"),
            ("\na hunter2", "line 2: the token is shorter"),
            ("a sha256:00ff", "line 1: behind"),
            ("a a-token-of-16-by\nb a-token-of-16-by", "line 2: the token stands there twice"),
            (&format!("{} a-token-of-16-by", "x".repeat(151)), "line 1: the tenant"),
        ] {
            let error = BearerTokens::read(text).unwrap_err();
            assert!(error.starts_with(why) && !error.contains("hunter2"), "{error}");
        }
    }
}
