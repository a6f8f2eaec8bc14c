//! What auth refuses, and why. Which HTTP status each becomes is not said here.
//!
//! A refused access token looks the same to the client whatever was wrong with it; the [`Reason`] is for a metric.

use std::io;
use std::time::Duration;

use klatch_actors::store::StoreError;

/// The access token is not accepted. One text for all reasons: a client can only get another token, and who
/// tries tokens out learns nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the access token is missing, expired or not valid")]
pub struct Denied {
    pub reason: Reason,
}

impl Denied {
    /// The fault is not the token's: the other issuer's keys could not be fetched yet, and later may be.
    pub fn is_temporary(&self) -> bool {
        self.reason == Reason::KeysUnavailable
    }
}

/// In the order in which a token is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Oversize,
    Malformed,
    CriticalHeader,
    EmbeddedKey,
    UnknownKey,
    KeysUnavailable,
    Algorithm,
    Type,
    Signature,
    Issuer,
    Audience,
    NoExpiry,
    Expired,
    NotYetValid,
    Subject,
}

impl Reason {
    /// Value of the label `outcome`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Oversize => "oversize",
            Self::Malformed => "malformed",
            Self::CriticalHeader => "critical_header",
            Self::EmbeddedKey => "embedded_key",
            Self::UnknownKey => "unknown_key",
            Self::KeysUnavailable => "keys_unavailable",
            Self::Algorithm => "algorithm",
            Self::Type => "type",
            Self::Signature => "signature",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::NoExpiry => "no_expiry",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Subject => "subject",
        }
    }
}

/// Of login, refresh, logout and the accounts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The field has to be changed.
    #[error("`{param}` {problem}")]
    Invalid { param: &'static str, problem: &'static str },
    /// The name or the password is wrong; which, is not said.
    #[error("the username or the password is wrong")]
    WrongCredentials,
    /// Log in again: the refresh token was never given, was used before, is too old, or was logged out.
    #[error("the refresh token is not valid any more; log in again")]
    RefreshRefused,
    /// Too many failed logins, of this account or from this address.
    #[error("too many logins have failed; wait before the next")]
    TooManyAttempts { retry_after: Duration },
    /// As many passwords are being checked as this node allows, or the record is being changed by too many at once.
    #[error("too many logins at this moment")]
    Busy { retry_after: Duration },
    /// This cluster verifies tokens and has no key to sign its own.
    #[error("this cluster signs no tokens: get one from its issuer")]
    NoSigningKey,
    #[error("there is an account of this name")]
    AccountExists,
    #[error("there is no account of this name")]
    NoAccount,
    /// It may or may not have happened; the same request again does no harm.
    #[error("the store of accounts is not available")]
    Store(#[from] StoreError),
    /// The node itself failed, not the request: the random source, the key, a panic.
    #[error("the node could not do it: {0}")]
    Broken(&'static str),
}

/// A configuration that is refused: names the key and says what would be right.
#[derive(Debug, thiserror::Error)]
#[error("auth.{key}: {problem}")]
pub struct AuthConfigError {
    pub key: &'static str,
    pub problem: String,
    pub source: Option<io::Error>,
}

impl AuthConfigError {
    pub fn new(key: &'static str, problem: impl Into<String>) -> Self {
        Self { key, problem: problem.into(), source: None }
    }

    pub fn io(key: &'static str, problem: impl Into<String>, source: io::Error) -> Self {
        Self { key, problem: problem.into(), source: Some(source) }
    }
}
