//! A thin client of Klatch's own API: base URL, bearer token, idempotency keys, bounded repetition, and streams.
//!
//! Used by `klatch chat` and `klatch load`, which live in one process each: nothing here outlives a command.
//! It deliberately knows no conversation and no turn: callers build bodies and read answers; it never decides by
//! itself to repeat anything, except in [`ApiClient::patiently`].

pub mod backoff;
pub mod events;
pub mod failure;
pub mod sse;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Response};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use self::backoff::Backoff;
use self::events::EventReader;
use self::failure::Failure;

/// How long to knock at a door that does not open: packets to a dead node vanish silently.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub struct ApiClient {
    http: reqwest::Client,
    base: Arc<str>,
    bearer: Arc<ArcSwapOption<HeaderValue>>,
}

/// One request, which may be sent more than once under the same key.
#[derive(Clone, Debug)]
pub struct Call {
    pub method: Method,
    /// From the root of the server, with its query, such as `/v1/models`.
    pub path: String,
    /// Every POST carries one.
    pub key: Option<String>,
    pub body: Bytes,
}

impl Call {
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), key: None, body: Bytes::new() }
    }

    pub fn post(path: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self { method: Method::POST, path: path.into(), key: Some(new_key()), body: body.into() }
    }
}

impl ApiClient {
    /// `url` is where the server is, with or without `/v1` at its end, as SDKs have it.
    pub fn new(http: reqwest::Client, url: &str) -> Result<Self, String> {
        let base = url.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches('/');
        let parsed = reqwest::Url::parse(base).map_err(|wrong| format!("`{url}` is not a URL: {wrong}"))?;
        if !matches!(parsed.scheme(), "http" | "https") || !parsed.has_host() {
            return Err(format!("`{url}` is not the URL of a server: http://127.0.0.1:8080 would be"));
        }
        Ok(Self { http, base: base.into(), bearer: Arc::default() })
    }

    pub fn set_bearer(&self, token: &str) -> Result<(), String> {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim()))
            .map_err(|_| "the access token has characters that no token has".to_owned())?;
        value.set_sensitive(true);
        self.bearer.store(Some(Arc::new(value)));
        Ok(())
    }

    /// Sends once; an answer of success is handed out unread.
    pub async fn once(&self, call: &Call) -> Result<Response, Failure> {
        let mut request = self.http.request(call.method.clone(), format!("{}{}", self.base, call.path));
        if let Some(bearer) = self.bearer.load().as_deref() {
            request = request.header(AUTHORIZATION, bearer.clone());
        }
        if let Some(key) = &call.key {
            request = request.header("idempotency-key", key);
        }
        if call.method == Method::POST {
            request =
                request.header(CONTENT_TYPE, HeaderValue::from_static("application/json")).body(call.body.clone());
        }
        let response = request.send().await.map_err(|why| Failure::of_transport(&self.base, why))?;
        if response.status().is_success() { Ok(response) } else { Err(Failure::of_refusal(response).await) }
    }

    /// Sends once and reads the stream's head.
    pub async fn stream(&self, call: &Call) -> Result<EventReader, Failure> {
        self.once(call).await.map(EventReader::new)
    }

    /// Repeats under the same key while that may help, for at most [`backoff::GIVE_UP_AFTER`]. Says so once on stderr: a
    /// person who sees nothing for a minute takes the program for dead.
    pub async fn patiently<T: DeserializeOwned>(&self, call: &Call) -> Result<T, Failure> {
        let (mut backoff, mut told) = (Backoff::default(), false);
        loop {
            let failure = match self.json(call).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let wait = failure.repeat_after().and_then(|asked| backoff.next(Instant::now(), asked));
            match wait {
                Some(wait) => {
                    if !std::mem::replace(&mut told, true) {
                        eprintln!("{failure}; trying again for up to {} s", backoff::GIVE_UP_AFTER.as_secs());
                    }
                    tokio::time::sleep(wait).await;
                }
                None => return Err(failure),
            }
        }
    }

    async fn json<T: DeserializeOwned>(&self, call: &Call) -> Result<T, Failure> {
        let body = self.once(call).await?.bytes().await.map_err(|why| Failure::of_transport(&self.base, why))?;
        serde_json::from_slice(&body).map_err(|wrong| Failure::Malformed(format!("{}: {wrong}", call.path)))
    }
}

/// A fresh idempotency key: 128 random bits.
pub fn new_key() -> String {
    format!("{:032x}", u128::from_le_bytes(random_bytes()))
}

pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system's random source does not fail once it has started");
    bytes
}

#[cfg(test)]
pub mod tests;
