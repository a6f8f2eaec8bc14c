//! What `[[webhook]]` says, and what of it is refused.

use std::time::Duration;

use klatch_actors::webhooks::Patience;
use klatch_protocol::{Ended, WebhookId};
use reqwest::Url;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::WebhookConfigError;
use super::address;

/// Each end that somebody is to be told of names them in its log.
pub(super) const WEBHOOKS_MAX: usize = 16;

/// More would hold an end for weeks, and the doubled waits have reached their longest long before.
const ATTEMPTS_MAX: u32 = 200;

/// Places are counted by a semaphore, which has a limit of its own far above; each is a connection.
const CONCURRENCY_MAX: usize = 10_000;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookOptions {
    /// Where the ends of turns are POSTed: `https://app.example.com/klatch`. No user, password or fragment in it. What stands
    /// behind its `?` is not shown. It names the webhook: with another URL it is another one, and what the old one was not
    /// told is given up after a day.
    pub url: String,
    /// The environment variable that holds the secret by which the receiver knows who sends: `whsec_` and 24 to 64 bytes in
    /// base64. To change it, put the new one before the old, with a space between, until the receiver has the new one.
    pub secret_env: String,
    /// Which ends are told: `response.completed`, `response.incomplete`, `response.failed`, `response.cancelled`. Default: all.
    #[serde(default = "defaults::events")]
    pub events: Vec<WebhookEvent>,
    /// Only turns of this tenant's. Default: everybody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Also where the host has an address of a private, loopback, link-local or other special network. Default false: who can
    /// write URLs could else reach what is meant to be inside.
    #[serde(default)]
    pub allow_private: bool,
    /// Also `http://`. Default false: anybody on the way could read and repeat what is sent.
    #[serde(default)]
    pub allow_http: bool,
    /// Default "5s": a receiver further away than that is down.
    #[serde(default = "defaults::connect_timeout", with = "crate::durations")]
    pub connect_timeout: Duration,
    /// From the first byte to the answer. Default "15s": a receiver should take the event down and answer.
    #[serde(default = "defaults::timeout", with = "crate::durations")]
    pub timeout: Duration,
    /// Attempts for one event; any answer but 2xx is a failure, a redirect too. Default 34, which with the waits below is about
    /// a day. Then the event is given up, which is logged and counted.
    #[serde(default = "defaults::attempts")]
    pub attempts: u32,
    /// The wait behind the first failure, doubled with each further one; of each, up to half is left out by chance.
    /// Default "5s".
    #[serde(default = "defaults::retry_after", with = "crate::durations")]
    pub retry_after: Duration,
    /// The longest wait. Default "1h".
    #[serde(default = "defaults::retry_after_max", with = "crate::durations")]
    pub retry_after_max: Duration,
    /// Calls at once, of this node. What waits for a place is one event for each conversation. Default 32.
    #[serde(default = "defaults::concurrency")]
    pub concurrency: usize,
}

/// As OpenAI names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WebhookEvent {
    #[serde(rename = "response.completed")]
    Completed,
    #[serde(rename = "response.incomplete")]
    Incomplete,
    #[serde(rename = "response.failed")]
    Failed,
    #[serde(rename = "response.cancelled")]
    Cancelled,
}

impl From<WebhookEvent> for Ended {
    fn from(event: WebhookEvent) -> Self {
        match event {
            WebhookEvent::Completed => Self::Completed,
            WebhookEvent::Incomplete => Self::Incomplete,
            WebhookEvent::Failed => Self::Failed,
            WebhookEvent::Cancelled => Self::Cancelled,
        }
    }
}

impl From<Ended> for WebhookEvent {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Completed => Self::Completed,
            Ended::Incomplete => Self::Incomplete,
            Ended::Failed => Self::Failed,
            Ended::Cancelled => Self::Cancelled,
        }
    }
}

mod defaults {
    use std::time::Duration;

    use klatch_protocol::Ended;

    use super::WebhookEvent;

    pub fn events() -> Vec<WebhookEvent> {
        Ended::ALL.map(WebhookEvent::from).to_vec()
    }

    pub fn connect_timeout() -> Duration {
        Duration::from_secs(5)
    }

    pub fn timeout() -> Duration {
        Duration::from_secs(15)
    }

    pub fn attempts() -> u32 {
        34
    }

    pub fn retry_after() -> Duration {
        Duration::from_secs(5)
    }

    pub fn retry_after_max() -> Duration {
        Duration::from_secs(60 * 60)
    }

    pub fn concurrency() -> usize {
        32
    }
}

impl WebhookOptions {
    pub fn id(&self) -> WebhookId {
        WebhookId(xxh3_64(format!("{}\n{}", self.tenant.as_deref().unwrap_or_default(), self.url).as_bytes()))
    }

    /// The URL without anything that may be secret.
    pub fn name(&self) -> String {
        Url::parse(&self.url).map_or_else(|_| "?".into(), |url| url.origin().ascii_serialization())
    }

    pub(super) fn patience(&self) -> Patience {
        Patience { attempts: self.attempts, first: self.retry_after, longest: self.retry_after_max }
    }

    /// Its URL, if all is well.
    pub(super) fn check(&self) -> Result<Url, WebhookConfigError> {
        let refuse =
            |key, must: &str| Err(WebhookConfigError::Value { webhook: self.name(), key, must: must.to_owned() });
        let url = match Url::parse(&self.url) {
            Ok(url) if url.host().is_some() && matches!(url.scheme(), "http" | "https") => url,
            Ok(_) | Err(_) => return refuse("url", "must be a URL such as https://app.example.com/klatch"),
        };
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return refuse(
                "url",
                "must have no user, password or fragment: receivers know the sender by the signature",
            );
        }
        if url.scheme() == "http" && !self.allow_http {
            return refuse("url", "must begin with https:// (or set `allow_http = true`)");
        }
        if address::literal(&url).is_some_and(address::is_special) && !self.allow_private {
            return refuse(
                "url",
                "must not be in a private, loopback, link-local or other special network (or set `allow_private = true`)",
            );
        }
        if self.events.is_empty() {
            return refuse("events", "must name one at least; leave it out for all");
        }
        if self.secret_env.is_empty() {
            return refuse("secret_env", "must name an environment variable");
        }
        if self.attempts == 0 || self.attempts > ATTEMPTS_MAX {
            return refuse("attempts", &format!("must be 1 to {ATTEMPTS_MAX}"));
        }
        if self.concurrency == 0 || self.concurrency > CONCURRENCY_MAX {
            return refuse("concurrency", &format!("must be 1 to {CONCURRENCY_MAX}"));
        }
        for (key, duration) in [
            ("connect_timeout", self.connect_timeout),
            ("timeout", self.timeout),
            ("retry_after", self.retry_after),
            ("retry_after_max", self.retry_after_max),
        ] {
            if duration.is_zero() {
                return refuse(key, "must be longer than nothing");
            }
        }
        if self.retry_after_max < self.retry_after {
            return refuse("retry_after_max", "must not be shorter than `retry_after`");
        }
        Ok(url)
    }
}
