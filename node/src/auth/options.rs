//! The `[auth]` section of the configuration: who signs access tokens, how long they live, and whom else to believe.
//!
//! Checked as a whole by [`AuthOptions::check`], before a file is read; errors name the key and what would be right.

use std::path::PathBuf;
use std::time::Duration;

use jsonwebtoken::{Algorithm, AlgorithmFamily};
use serde::{Deserialize, Serialize};

use super::errors::AuthConfigError;
use crate::durations;

/// Longer than any clock is wrong by accident; a token that outlives its `exp` by more was not meant to expire.
const LEEWAY_MAX: Duration = Duration::from_secs(300);
/// A lost access token cannot be revoked, so its life is its whole protection.
const ACCESS_TTL_MAX: Duration = Duration::from_secs(24 * 3600);

/// Paths to secrets are kept here, never secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthOptions {
    /// `iss` of the tokens that this cluster signs, and the only one believed with its keys. Default `klatch`.
    pub issuer: String,
    /// `aud` that every token must carry, from whatever issuer. Default `klatch`.
    pub audience: String,
    /// Life of an access token. Default `15m`: a removed account can go on for so long, and a client refreshes four
    /// times an hour. At most `24h`.
    #[serde(with = "durations")]
    pub access_ttl: Duration,
    /// Life of a login, counted from the password and not from the last refresh. Default `30d`: people log in once a
    /// month.
    #[serde(with = "durations")]
    pub refresh_ttl: Duration,
    /// PEM files with private keys in PKCS#8 (Ed25519, P-256, or RSA from 2048 bits). The first signs, all verify.
    /// To rotate: add the new key behind the old on every node, then put it first, then drop the old one after
    /// `access_ttl`. Files are read again when they change. Default: `keys/signing.pem` in the data folder, made once;
    /// required where there is no data folder.
    pub signing_keys: Vec<PathBuf>,
    /// A file with a secret of 32 bytes or more, shared with whoever else makes tokens for this cluster (HS256). One
    /// line end at its end does not count. It signs only where `signing_keys` is empty. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hs256_secret_file: Option<PathBuf>,
    /// Where another issuer shows its public keys: https, or http on this host. Its subjects and the accounts of this
    /// cluster share one space of names. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<String>,
    /// `iss` of the other issuer's tokens; required with `jwks_url`, and different from `issuer`: its keys are
    /// believed for its own tokens only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks_issuer: Option<String>,
    /// Signatures accepted of the other issuer. A key that names an algorithm is used with that one, if it is here; a
    /// key that names none, with the first here that fits its type. Never HS*. Default `["RS256"]`, what most issue.
    pub algorithms: Vec<Algorithm>,
    /// The other issuer's keys are fetched again after so long. Default `10m`: a key withdrawn there is believed here
    /// at most so long, while the issuer can be reached.
    #[serde(with = "durations")]
    pub jwks_refresh: Duration,
    /// Shortest time between two fetches that unknown key ids cause. Default `30s`: whoever invents key ids makes
    /// two fetches a minute, and a new key works within half a minute.
    #[serde(with = "durations")]
    pub jwks_retry: Duration,
    /// A fetch takes no longer. Default `5s`: a request with an unknown key id waits for it.
    #[serde(with = "durations")]
    pub jwks_timeout: Duration,
    /// Size of the other issuer's key document, in bytes. Default 256 KiB: a hundred RSA keys with certificates.
    pub jwks_bytes_max: usize,
    /// How far clocks may differ in `exp` and `nbf`. Default `30s`: hosts with NTP differ by milliseconds, and a
    /// virtual machine that just woke up by seconds. At most `5m`.
    #[serde(with = "durations")]
    pub leeway: Duration,
}

impl Default for AuthOptions {
    fn default() -> Self {
        Self {
            issuer: "klatch".to_owned(),
            audience: "klatch".to_owned(),
            access_ttl: Duration::from_secs(15 * 60),
            refresh_ttl: Duration::from_secs(30 * 86_400),
            signing_keys: Vec::new(),
            hs256_secret_file: None,
            jwks_url: None,
            jwks_issuer: None,
            algorithms: vec![Algorithm::RS256],
            jwks_refresh: Duration::from_secs(600),
            jwks_retry: Duration::from_secs(30),
            jwks_timeout: Duration::from_secs(5),
            jwks_bytes_max: 256 << 10,
            leeway: Duration::from_secs(30),
        }
    }
}

impl AuthOptions {
    /// Contradictions that can be seen without reading a file.
    pub fn check(&self) -> Result<(), AuthConfigError> {
        self.check_names()?;
        self.check_times()?;
        self.check_other_issuer()
    }

    fn check_names(&self) -> Result<(), AuthConfigError> {
        for (key, name) in [("issuer", &self.issuer), ("audience", &self.audience)] {
            if name.is_empty() {
                return Err(AuthConfigError::new(key, "must not be empty, since every token is checked against it"));
            }
        }
        Ok(())
    }

    fn check_times(&self) -> Result<(), AuthConfigError> {
        let second = Duration::from_secs(1);
        if self.access_ttl < second || self.access_ttl > ACCESS_TTL_MAX {
            return Err(AuthConfigError::new("access_ttl", "must be from 1s to 24h, since it cannot be revoked"));
        }
        if self.refresh_ttl < self.access_ttl {
            return Err(AuthConfigError::new("refresh_ttl", "must not be shorter than access_ttl"));
        }
        if self.leeway > LEEWAY_MAX {
            return Err(AuthConfigError::new("leeway", "must be at most 5m; mend the clocks instead"));
        }
        for (key, wait) in
            [("jwks_refresh", self.jwks_refresh), ("jwks_retry", self.jwks_retry), ("jwks_timeout", self.jwks_timeout)]
        {
            if wait < Duration::from_millis(1) {
                return Err(AuthConfigError::new(key, "must be more than nothing"));
            }
        }
        Ok(())
    }

    fn check_other_issuer(&self) -> Result<(), AuthConfigError> {
        let Some(url) = &self.jwks_url else {
            let alone = "has no meaning without jwks_url; set both, or neither";
            return self.jwks_issuer.as_ref().map_or(Ok(()), |_| Err(AuthConfigError::new("jwks_issuer", alone)));
        };
        check_url(url)?;
        match &self.jwks_issuer {
            Some(issuer) if !issuer.is_empty() && *issuer != self.issuer => {}
            Some(_) | None => {
                let right = "is required with jwks_url: the `iss` of its tokens, other than `issuer`";
                return Err(AuthConfigError::new("jwks_issuer", right));
            }
        }
        if self.algorithms.is_empty() || self.algorithms.iter().any(|a| a.family() == AlgorithmFamily::Hmac) {
            let right = "must name at least one of EdDSA, ES256, ES384, RS256, RS384, RS512, PS256, PS384, PS512; \
                         a secret from a URL is none";
            return Err(AuthConfigError::new("algorithms", right));
        }
        Ok(())
    }
}

/// Whoever can change the answer on its way signs in as anybody, so it comes encrypted or does not leave the host.
fn check_url(url: &str) -> Result<(), AuthConfigError> {
    let right = "must be an https:// URL, or http:// on 127.0.0.1, [::1] or localhost";
    let parsed = reqwest::Url::parse(url).map_err(|_| AuthConfigError::new("jwks_url", right))?;
    let local = matches!(parsed.host_str(), Some("127.0.0.1" | "[::1]" | "localhost"));
    match parsed.scheme() {
        "https" => Ok(()),
        "http" if local => Ok(()),
        _ => Err(AuthConfigError::new("jwks_url", right)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(toml: &str) -> String {
        toml::from_str::<AuthOptions>(toml).unwrap().check().unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_accepted_and_written_as_people_write_them() {
        AuthOptions::default().check().unwrap();
        let written = toml::to_string(&AuthOptions::default()).unwrap();
        assert!(written.contains("access_ttl = \"15m\"") && written.contains("refresh_ttl = \"30d\""), "{written}");
        assert_eq!(toml::from_str::<AuthOptions>(&written).unwrap(), AuthOptions::default());
    }

    #[test]
    fn an_unknown_key_is_refused() {
        assert!(toml::from_str::<AuthOptions>("isuer = \"x\"").unwrap_err().to_string().contains("isuer"));
    }

    #[test]
    fn what_contradicts_itself_is_refused_by_the_name_of_its_key() {
        let https = "jwks_url = \"https://id.example/keys\"\n";
        for (toml, key) in [
            ("issuer = \"\"".to_owned(), "auth.issuer"),
            ("audience = \"\"".to_owned(), "auth.audience"),
            ("access_ttl = \"25h\"".to_owned(), "auth.access_ttl"),
            ("access_ttl = \"0s\"".to_owned(), "auth.access_ttl"),
            ("refresh_ttl = \"1m\"".to_owned(), "auth.refresh_ttl"),
            ("leeway = \"301s\"".to_owned(), "auth.leeway"),
            ("jwks_timeout = \"0s\"".to_owned(), "auth.jwks_timeout"),
            ("jwks_issuer = \"x\"".to_owned(), "auth.jwks_issuer"),
            (https.to_owned(), "auth.jwks_issuer"),
            (format!("{https}jwks_issuer = \"klatch\""), "auth.jwks_issuer"),
            (format!("{https}jwks_issuer = \"x\"\nalgorithms = []"), "auth.algorithms"),
            (format!("{https}jwks_issuer = \"x\"\nalgorithms = [\"HS256\"]"), "auth.algorithms"),
            ("jwks_url = \"http://id.example/keys\"\njwks_issuer = \"x\"".to_owned(), "auth.jwks_url"),
            ("jwks_url = \"keys\"\njwks_issuer = \"x\"".to_owned(), "auth.jwks_url"),
        ] {
            let said = refused(&toml);
            assert!(said.starts_with(key), "{toml}: {said}");
        }
    }
}
