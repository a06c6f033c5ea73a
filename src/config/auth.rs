//! Tokens of the admin address: from the file to the settings.

use std::{collections::BTreeMap, fs};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{raw_limits::is_default, scalar::Secret};
use crate::http::Tokens;

/// Bytes of the shortest token: a shorter one is guessed.
const TOKEN_BYTES_MIN: usize = 16;
/// The holder of the token in `token_file`.
const FILE_HOLDER: &str = "admin";

/// Tokens of the admin address (`Authorization: Bearer TOKEN`), and client certificates. Without any, everybody who reaches it may do everything.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminAuth {
    /// Tokens by the name of their holder, which the audit log shows: `{alice: "${WEIR_ADMIN_TOKEN}"}`.
    #[serde(skip_serializing_if = "is_default")]
    pub tokens: BTreeMap<String, Secret>,
    /// A file that holds one more token, of the holder `admin`; read again when it changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<String>,
    /// Names in client certificates whose holders need no token: a common name, or an alternative one; `*` is any that
    /// `server.admin_tls.client_ca_file` vouches for.
    #[serde(skip_serializing_if = "is_default")]
    pub client_certificates: Vec<String>,
    /// The requests that need a token or a certificate, where there is one; `/-/healthy` and `/-/ready` never do.
    pub protect: Protected,
}

/// The requests that need a token or a certificate.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protected {
    /// Requests that change something: kill, rules, reload.
    #[default]
    Writes,
    /// Status, queries and metrics as well.
    Everything,
}

/// Reads the tokens. Blocks.
///
/// # Errors
/// The key and its mistake; never the token.
pub(super) fn tokens(raw: &AdminAuth) -> Result<Tokens, (&'static str, String)> {
    let mut tokens: Vec<(&str, String)> = Vec::new();
    for (name, token) in &raw.tokens {
        let usable =
            usable(token.reveal()).map_err(|why| ("tokens", format!("the token of `{name}` {why}")))?;
        tokens.push((name, usable));
    }
    if let Some(file) = &raw.token_file {
        let text = fs::read_to_string(file).map_err(|error| ("token_file", format!("{file}: {error}")))?;
        let usable = usable(&text).map_err(|why| ("token_file", format!("the token in {file} {why}")))?;
        tokens.push((FILE_HOLDER, usable));
    }
    let pairs = tokens.iter().map(|(name, token)| (*name, token.as_str()));
    let tokens = Tokens::new(pairs, raw.protect == Protected::Everything);
    Ok(tokens.with_certificates(&raw.client_certificates))
}

fn usable(token: &str) -> Result<String, String> {
    let token = token.trim();
    if token.len() < TOKEN_BYTES_MIN {
        return Err(format!("is shorter than {TOKEN_BYTES_MIN} bytes"));
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("has characters that no header can hold: write visible ASCII characters".to_owned());
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_that_cannot_be_meant_are_refused_without_being_shown() {
        for (token, why) in
            [("hunter2", "shorter"), ("", "shorter"), ("sixteen bytes and a space", "no header")]
        {
            let tokens = [("alice".to_owned(), token.parse().unwrap())].into();
            let (key, message) = super::tokens(&AdminAuth { tokens, ..AdminAuth::default() }).unwrap_err();
            assert_eq!(key, "tokens");
            assert!(message.contains(why) && message.contains("alice"), "{message}");
            assert!(token.is_empty() || !message.contains(token), "{message}");
        }
        let token_file = Some("/nowhere/token".to_owned());
        let (key, _) = super::tokens(&AdminAuth { token_file, ..AdminAuth::default() }).unwrap_err();
        assert_eq!(key, "token_file");
    }
}
