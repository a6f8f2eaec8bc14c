//! Another issuer: its public keys, fetched from a URL, kept while it cannot be reached, and fetched again when they
//! are old or a token names an unknown one.
//!
//! One fetch at a time, and those that unknown ids cause at most every `jwks_retry`, so strangers who invent ids
//! cost the issuer nothing. A fetch runs in a task of its own: a client that goes away does not end it for the others.
//!
//! It does not follow redirects, and takes no secrets from a URL.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jsonwebtoken::Algorithm;
use jsonwebtoken::jwk::{Jwk, KeyAlgorithm, PublicKeyUse};
use klatch_actors::Caller;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{Mutex, OwnedMutexGuard, Semaphore};

use super::errors::{AuthConfigError, Reason};
use super::keys::{self, Key, KeySet, TokenDigest, Typed};
use super::metrics;
use super::options::AuthOptions;
use super::tokens::{self, Rules, Unverified};

/// Requests that may wait for one fetch. A waiting one costs a task's memory; more than these in one fetch are
/// no honest clients after a rotation.
const WAITING_MAX: usize = 1_024;
/// An issuer has two keys while it rotates, or one per region; more is a mistake.
const KEYS_MAX: usize = 100;

pub struct Foreign {
    url: String,
    algorithms: Vec<Algorithm>,
    bytes_max: usize,
    retry_ms: u64,
    rules: Rules,
    client: reqwest::Client,
    keys: ArcSwap<KeySet>,
    /// When the last fetch began that an unknown id caused, unix time in ms; held while fetching.
    asked_at_ms: Arc<Mutex<Option<u64>>>,
    waiting: Semaphore,
}

#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("the issuer's keys could not be fetched")]
    Http(#[from] reqwest::Error),
    #[error("the issuer answered {0} when asked for its keys")]
    Status(u16),
    #[error("the issuer's key document is larger than auth.jwks_bytes_max")]
    TooLarge,
    #[error("the issuer's key document is no JSON object with `keys`")]
    Malformed(#[from] serde_json::Error),
    #[error("the issuer's key document has no key that can be used with auth.algorithms")]
    NoKeys,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

impl Foreign {
    /// None without a URL. Nothing is fetched yet.
    pub fn new(options: &AuthOptions) -> Result<Option<Arc<Self>>, AuthConfigError> {
        let (Some(url), Some(issuer)) = (&options.jwks_url, &options.jwks_issuer) else {
            return Ok(None);
        };
        let client = client(options.jwks_timeout)
            .map_err(|e| AuthConfigError::io("jwks_url", "cannot be fetched by this program", io::Error::other(e)))?;
        let rules =
            Rules { issuer: issuer.clone(), audience: options.audience.clone(), leeway_secs: options.leeway.as_secs() };
        Ok(Some(Arc::new(Self {
            url: url.clone(),
            algorithms: options.algorithms.clone(),
            bytes_max: options.jwks_bytes_max,
            retry_ms: u64::try_from(options.jwks_retry.as_millis()).unwrap_or(u64::MAX),
            rules,
            client,
            keys: ArcSwap::from_pointee(KeySet::new([])),
            asked_at_ms: Arc::default(),
            waiting: Semaphore::new(WAITING_MAX),
        })))
    }

    pub fn recall(&self, token: &TokenDigest, now_secs: u64) -> Option<Caller> {
        self.keys.load().recall(token, now_secs)
    }

    pub async fn verify(
        self: &Arc<Self>,
        token: &Unverified<'_>,
        digest: TokenDigest,
        now_ms: u64,
    ) -> Result<Caller, Reason> {
        let mut keys = self.keys.load_full();
        if keys.find(token.kid.as_deref()).is_none() {
            keys = self.look_for(token.kid.as_deref(), now_ms).await;
        }
        let unknown = || if keys.is_empty() { Reason::KeysUnavailable } else { Reason::UnknownKey };
        let key = keys.find(token.kid.as_deref()).ok_or_else(unknown)?;
        let verified = tokens::check(token, key, &self.rules, now_ms / 1_000)?;
        keys.remember(digest, verified.clone());
        Ok(verified.caller)
    }

    /// The keys after a fetch, if one is due; who waited for another's fetch has its keys.
    async fn look_for(self: &Arc<Self>, kid: Option<&str>, now_ms: u64) -> Arc<KeySet> {
        let Ok(_place) = self.waiting.try_acquire() else {
            return self.keys.load_full();
        };
        let mut asked_at_ms = self.asked_at_ms.clone().lock_owned().await;
        let due = asked_at_ms.is_none_or(|at| now_ms.saturating_sub(at) >= self.retry_ms);
        if due && self.keys.load().find(kid).is_none() {
            *asked_at_ms = Some(now_ms);
            let fetch = tokio::spawn(self.clone().fetch_holding(asked_at_ms));
            // A fetch that panicked is one that failed: the keys stay as they are.
            let _ = fetch.await;
        }
        self.keys.load_full()
    }

    async fn fetch_holding(self: Arc<Self>, _single: OwnedMutexGuard<Option<u64>>) {
        self.fetch().await;
    }

    /// Fetches regularly, until dropped.
    pub async fn keep_fresh(self: Arc<Self>, every: Duration) {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let single = self.asked_at_ms.clone().lock_owned().await;
            self.clone().fetch_holding(single).await;
        }
    }

    /// Replaces the keys; if it fails, they stay.
    async fn fetch(&self) {
        match self.fetched().await {
            Ok(keys) => {
                metrics::count(metrics::KEYS_FETCHED);
                self.keys.store(Arc::new(KeySet::new(keys)));
            }
            Err(error) => {
                metrics::count(metrics::KEYS_FETCH_FAILED);
                let error = &error as &(dyn std::error::Error + 'static);
                tracing::warn!(error, "the other issuer's keys stay as they are");
            }
        }
    }

    async fn fetched(&self) -> Result<Vec<Key>, FetchError> {
        let mut response = self.client.get(&self.url).header("accept", "application/json").send().await?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(FetchError::Status(response.status().as_u16()));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if bytes.len() + chunk.len() > self.bytes_max {
                return Err(FetchError::TooLarge);
            }
            bytes.extend_from_slice(&chunk);
        }
        let document: Document = serde_json::from_slice(&bytes)?;
        let keys: Vec<Key> =
            document.keys.into_iter().take(KEYS_MAX).filter_map(|key| usable(key, &self.algorithms)).collect();
        if keys.is_empty() { Err(FetchError::NoKeys) } else { Ok(keys) }
    }
}

fn client(timeout: Duration) -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder().timeout(timeout).redirect(reqwest::redirect::Policy::none()).build()
}

/// The key, if it is for signatures and of a configured algorithm. What is not, stays out alone: issuers show keys
/// for encryption and for algorithms of next year beside those that are used.
fn usable(key: Value, algorithms: &[Algorithm]) -> Option<Key> {
    let public: Jwk = serde_json::from_value(key).ok()?;
    if !matches!(public.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return None;
    }
    let named = public.common.key_algorithm;
    let mut candidates = algorithms.iter().filter(|a| named.is_none_or(|named| named == KeyAlgorithm::from(**a)));
    let fits = |algorithm: &Algorithm| Some((*algorithm, keys::verifying(&public, *algorithm).ok()?));
    let (algorithm, decoding) = candidates.find_map(fits)?;
    // A key without an id is found only by tokens without one, while it is the only key.
    let kid = public.common.key_id.clone().unwrap_or_default();
    Some(Key { kid, algorithm, typed: Typed::AlsoUntyped, decoding, public: Some(public) })
}

#[cfg(test)]
mod tests;
