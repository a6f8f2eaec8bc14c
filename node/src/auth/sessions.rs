//! Logins: families of refresh tokens, one record per login.
//!
//! A refresh token is no JWT: a family's id and end, and 256 random bits of which only a hash is stored. Each
//! is used once and gives its successor. A token that was used before its successor was revokes the family,
//! since one of two holders is a thief and the server cannot tell which (RFC 9700, 4.14.2).
//!
//! One case is honest: the answer was lost, or two tabs refreshed at once. So for [`GRACE_MS`] the token before the
//! current one gives *the same* successor again, never a second one: the successor is an HMAC of its predecessor,
//! under a key of the family that is in the record. Whoever reads the store alone can compute nothing, since no
//! token is in it; a thief who uses a stolen token within the grace is found as soon as both holders go on. As soon as
//! the successor has been used, there is no grace for what came before its predecessor.
//!
//! A family ends `refresh_ttl` after its login, however often it is refreshed. The end is part of the record's key, so
//! the sweep finds what has ended without reading the rest.

use std::fmt::Write;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::accounts::{Account, Accounts, decode, encode, random};
use super::errors::AuthError;
use super::metrics;
use super::secret::Secret;
use crate::stores::records::Records;

/// A request's time-out and its repetition on a bad connection.
pub const GRACE_MS: u64 = 30_000;
const PREFIX: &str = "refresh/";
/// So that scanners of repositories and logs can find one.
const TOKEN_PREFIX: &str = "klatch_rt_";
/// End, id, secret.
const TOKEN_BYTES: usize = 8 + 16 + 32;
/// Of one token in use by that many at once, one wins and the others repeat; more rounds are a broken store.
const ROUNDS_MAX: usize = 4;
const RETRY_AFTER: std::time::Duration = std::time::Duration::from_secs(1);
/// Records looked at in one step of the sweep.
const SWEEP_PAGE: usize = 500;

type Hash = [u8; 32];
type TokenSecret = [u8; 32];

/// What is stored of a login.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Family {
    account: String,
    /// Of the account at its login.
    generation: String,
    /// Makes successors.
    #[serde(with = "base64_bytes")]
    key: [u8; 32],
    /// Of the token that is to be used next.
    #[serde(with = "base64_bytes")]
    current: Hash,
    /// Of the token before it; of a new family, of none.
    #[serde(with = "base64_bytes")]
    previous: Hash,
    rotated_at_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FamilyId {
    ends_at_ms: u64,
    random: [u8; 16],
}

struct RefreshToken {
    family: FamilyId,
    secret: TokenSecret,
}

/// What a token is to its family.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// It is the current one: write the family so, and give the successor.
    Rotate(Box<Family>, TokenSecret),
    /// It is the one before, within the grace: give the same successor again.
    Repeat(TokenSecret),
    /// It was used before.
    Reused,
    Ended,
}

impl Family {
    fn step(&self, token: &RefreshToken, now_ms: u64) -> Step {
        if now_ms >= token.family.ends_at_ms {
            return Step::Ended;
        }
        let shown = hash(&token.secret);
        let successor = successor(&self.key, &token.secret);
        if bool::from(shown.ct_eq(&self.current)) {
            let (current, previous) = (hash(&successor), shown);
            return Step::Rotate(
                Box::new(Self { current, previous, rotated_at_ms: now_ms, ..self.clone() }),
                successor,
            );
        }
        let in_grace = now_ms.saturating_sub(self.rotated_at_ms) < GRACE_MS;
        if in_grace && bool::from(shown.ct_eq(&self.previous)) { Step::Repeat(successor) } else { Step::Reused }
    }
}

fn hash(secret: &TokenSecret) -> Hash {
    Sha256::digest(secret).into()
}

fn successor(key: &[u8; 32], secret: &TokenSecret) -> TokenSecret {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(secret);
    mac.finalize().into_bytes().into()
}

impl FamilyId {
    fn key(&self) -> String {
        let mut key = format!("{PREFIX}{:016x}-", self.ends_at_ms);
        for byte in self.random {
            write!(key, "{byte:02x}").expect("a string takes all that is written");
        }
        key
    }
}

impl RefreshToken {
    fn parse(text: &str) -> Option<Self> {
        let encoded = text.strip_prefix(TOKEN_PREFIX)?;
        // Decoding takes as much room as the text, so the text is measured first.
        if encoded.len() != TOKEN_BYTES.div_ceil(3) * 4 - 1 {
            return None;
        }
        let bytes: [u8; TOKEN_BYTES] = URL_SAFE_NO_PAD.decode(encoded).ok()?.try_into().ok()?;
        let (end, rest) = bytes.split_first_chunk::<8>()?;
        let (random, secret) = rest.split_first_chunk::<16>()?;
        let family = FamilyId { ends_at_ms: u64::from_be_bytes(*end), random: *random };
        Some(Self { family, secret: secret.try_into().ok()? })
    }

    fn text(family: FamilyId, secret: &TokenSecret) -> Secret {
        let bytes = [&family.ends_at_ms.to_be_bytes()[..], &family.random, secret].concat();
        Secret::new(format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
    }
}

/// Whose login it is, and the token to use next.
pub struct Refreshed {
    pub name: String,
    pub account: Account,
    pub token: Secret,
}

pub struct Sessions {
    records: Arc<dyn Records>,
    accounts: Accounts,
    ttl_ms: u64,
}

impl Sessions {
    pub fn new(records: Arc<dyn Records>, accounts: Accounts, ttl_ms: u64) -> Self {
        Self { records, accounts, ttl_ms }
    }

    /// A new family, and its first token.
    pub async fn begin(&self, name: &str, account: &Account, now_ms: u64) -> Result<Secret, AuthError> {
        let id = FamilyId { ends_at_ms: now_ms.saturating_add(self.ttl_ms), random: random()? };
        let secret: TokenSecret = random()?;
        let family = Family {
            account: name.to_owned(),
            generation: account.generation.clone(),
            key: random()?,
            current: hash(&secret),
            previous: [0; 32],
            rotated_at_ms: now_ms,
        };
        let added = self.records.put(id.key(), None, encode(&family)?).await?;
        if added { Ok(RefreshToken::text(id, &secret)) } else { Err(AuthError::Broken("a random id came twice")) }
    }

    /// The account and the successor of the token.
    pub async fn refresh(&self, token: &Secret, now_ms: u64) -> Result<Refreshed, AuthError> {
        let token = RefreshToken::parse(token.reveal()).ok_or(AuthError::RefreshRefused)?;
        for _ in 0..ROUNDS_MAX {
            if let Some(refreshed) = self.round(&token, now_ms).await? {
                return Ok(refreshed);
            }
        }
        Err(AuthError::Busy { retry_after: RETRY_AFTER })
    }

    /// None: the family changed meanwhile.
    async fn round(&self, token: &RefreshToken, now_ms: u64) -> Result<Option<Refreshed>, AuthError> {
        let key = token.family.key();
        let record = self.records.get(key.clone()).await?.ok_or(AuthError::RefreshRefused)?;
        let family: Family = decode(&record.bytes)?;
        let (next, secret) = match family.step(token, now_ms) {
            Step::Rotate(next, secret) => (Some(next), secret),
            Step::Repeat(secret) => (None, secret),
            Step::Reused => return self.reused(key).await,
            Step::Ended => return Err(AuthError::RefreshRefused),
        };
        let account = self.account_of(&family, &key).await?;
        match next {
            Some(next) if !self.records.put(key, Some(record.version), encode(&next)?).await? => return Ok(None),
            Some(_) => {}
            None => metrics::count(metrics::REFRESH_REPEATED),
        }
        let token = RefreshToken::text(token.family, &secret);
        Ok(Some(Refreshed { name: family.account, account, token }))
    }

    async fn reused<T>(&self, key: String) -> Result<T, AuthError> {
        metrics::count(metrics::REFRESH_REUSED);
        tracing::warn!("a used refresh token came again; its login is revoked");
        self.records.remove(key).await?;
        Err(AuthError::RefreshRefused)
    }

    /// The account, if it is still the one that logged in; if not, the family goes.
    async fn account_of(&self, family: &Family, key: &str) -> Result<Account, AuthError> {
        match self.accounts.get(&family.account).await? {
            Some(account) if account.generation == family.generation => Ok(account),
            Some(_) | None => {
                self.records.remove(key.to_owned()).await?;
                Err(AuthError::RefreshRefused)
            }
        }
    }

    /// Ends the login that the token is of, used or not. What is no token has no login.
    pub async fn end(&self, token: &Secret) -> Result<(), AuthError> {
        match RefreshToken::parse(token.reveal()) {
            Some(token) => Ok(self.records.remove(token.family.key()).await?),
            None => Ok(()),
        }
    }

    /// Removes what has ended; answers how many.
    pub async fn sweep(&self, now_ms: u64) -> Result<usize, AuthError> {
        let end = format!("{PREFIX}{now_ms:016x}");
        let mut removed = 0;
        loop {
            let keys = self.records.keys(PREFIX.to_owned(), None, SWEEP_PAGE).await?;
            let ended: Vec<String> = keys.into_iter().take_while(|key| *key < end).collect();
            let last = ended.len() < SWEEP_PAGE;
            removed += ended.len();
            for key in ended {
                self.records.remove(key).await?;
            }
            if last {
                return Ok(removed);
            }
        }
    }
}

mod base64_bytes {
    use super::*;
    use serde::de::Error;
    use serde::{Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&URL_SAFE_NO_PAD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        let text = <&str>::deserialize(deserializer)?;
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| Error::custom("no base64url"))?;
        bytes.try_into().map_err(|_| Error::custom("not 32 bytes"))
    }
}

#[cfg(test)]
mod tests;
