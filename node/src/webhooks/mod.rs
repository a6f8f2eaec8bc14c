//! Webhooks: the ends of turns, POSTed to the URLs of the configuration and signed. Made by `serve`, called by the
//! conversations, which decide whom to tell of what and when again; here is how. Keeps nothing: what is lost in the middle of
//! a call is told again by the conversation's next owner.
//!
//! A receiver learns ids and nothing of what was said. Its answer is not read, and no log holds a secret or a whole URL.

mod address;
mod metrics;
mod options;
mod signature;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::future::BoxFuture;
use klatch_actors::webhooks::{End, NotTold, Webhook, Webhooks};
use klatch_protocol::{Untold, WebhookId};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Url, redirect};
use serde::Serialize;
use tokio::sync::Semaphore;

pub use self::options::{WebhookEvent, WebhookOptions};

use self::address::{Forbidden, PublicOnly};
use self::metrics::Outcome;
use self::signature::Secrets;
use crate::config::ConfigRefused;

const ID: &str = "webhook-id";
const TIMESTAMP: &str = "webhook-timestamp";
const SIGNATURE: &str = "webhook-signature";

/// Under the shortest time after which servers close a connection that they keep.
const POOL_IDLE: Duration = Duration::from_secs(50);

/// A configuration that is refused: it names the webhook, and what would be right.
#[derive(Debug, thiserror::Error)]
pub enum WebhookConfigError {
    #[error("webhook {webhook}: `{key}` {must}")]
    Value { webhook: String, key: &'static str, must: String },
    #[error("webhook {0}: the same URL and tenant stand there twice")]
    Twice(String),
    #[error("there are more than {} webhooks", options::WEBHOOKS_MAX)]
    TooMany,
    #[error("webhook {webhook}: the environment variable `{variable}` (its `secret_env`) is not set, or empty")]
    SecretMissing { webhook: String, variable: String },
    #[error(
        "webhook {webhook}: the value of `{variable}` (its `secret_env`) is no secret: `whsec_` and 24 to 64 bytes in base64 is, such as \
         \"whsec_$(openssl rand -base64 32)\""
    )]
    SecretUnfit { webhook: String, variable: String },
    #[error("webhook {webhook}: no HTTP client can be made")]
    Client { webhook: String, source: reqwest::Error },
}

impl From<WebhookConfigError> for ConfigRefused {
    fn from(wrong: WebhookConfigError) -> Self {
        let why = std::error::Error::source(&wrong).map(|source| format!(": {source}")).unwrap_or_default();
        Self::new("webhook", format!("{wrong}{why}"))
    }
}

/// What can be known without the environment.
pub fn check(all: &[WebhookOptions]) -> Result<(), WebhookConfigError> {
    if all.len() > options::WEBHOOKS_MAX {
        return Err(WebhookConfigError::TooMany);
    }
    for (place, webhook) in all.iter().enumerate() {
        webhook.check()?;
        if all[..place].iter().any(|other| other.id() == webhook.id()) {
            return Err(WebhookConfigError::Twice(webhook.name()));
        }
    }
    Ok(())
}

/// Those of a configuration; none where it has none. Secrets are read from the environment here, once.
pub fn build(all: &[WebhookOptions]) -> Result<Option<Arc<dyn Webhooks>>, WebhookConfigError> {
    check(all)?;
    metrics::describe();
    let lines = all.iter().map(|options| Line::new(options, |variable| std::env::var(variable).ok()));
    let lines: Lines = lines.collect::<Result<_, _>>()?;
    if lines.0.is_empty() {
        return Ok(None);
    }
    Ok(Some(Arc::new(lines)))
}

/// By id.
struct Lines(HashMap<WebhookId, Arc<Line>>);

impl FromIterator<Line> for Lines {
    fn from_iter<T: IntoIterator<Item = Line>>(lines: T) -> Self {
        Self(lines.into_iter().map(|line| (line.webhook.id, Arc::new(line))).collect())
    }
}

impl Webhooks for Lines {
    fn all(&self) -> Vec<Webhook> {
        self.0.values().map(|line| line.webhook.clone()).collect()
    }

    fn tell(&self, webhook: WebhookId, end: End) -> BoxFuture<'static, Result<(), NotTold>> {
        let line = self.0.get(&webhook).cloned();
        Box::pin(async move {
            match line {
                Some(line) => line.tell(&end).await,
                None => Err(NotTold("it is not configured".into())),
            }
        })
    }
}

/// One webhook.
struct Line {
    webhook: Webhook,
    url: Url,
    secrets: Secrets,
    client: Client,
    places: Semaphore,
}

/// The body: OpenAI's, with ids and nothing else.
#[derive(Serialize)]
struct Body {
    object: &'static str,
    id: String,
    #[serde(rename = "type")]
    kind: WebhookEvent,
    created_at: u64,
    data: Data,
}

#[derive(Serialize)]
struct Data {
    id: String,
}

impl Body {
    fn of(end: &End) -> Self {
        let End { conversation, untold } = end;
        let Untold { turn, ended, at_ms, .. } = untold;
        Self {
            object: "event",
            id: untold.event_id(*conversation),
            kind: (*ended).into(),
            created_at: at_ms / 1_000,
            data: Data { id: conversation.response(*turn).to_string() },
        }
    }
}

impl Line {
    fn new(options: &WebhookOptions, variable: impl Fn(&str) -> Option<String>) -> Result<Self, WebhookConfigError> {
        let url = options.check()?;
        let (webhook, named) = (options.name(), options.secret_env.clone());
        let secrets = match variable(&named).filter(|secret| !secret.trim().is_empty()) {
            None => return Err(WebhookConfigError::SecretMissing { webhook, variable: named }),
            Some(text) => Secrets::parse(&text).ok_or(WebhookConfigError::SecretUnfit { webhook, variable: named })?,
        };
        let client =
            client(options).map_err(|source| WebhookConfigError::Client { webhook: options.name(), source })?;
        let webhook = Webhook {
            id: options.id(),
            name: options.name().into(),
            tenant: options.tenant.clone(),
            ends: options.events.iter().copied().map(Into::into).collect(),
            patience: options.patience(),
        };
        Ok(Self { webhook, url, secrets, client, places: Semaphore::new(options.concurrency) })
    }

    async fn tell(&self, end: &End) -> Result<(), NotTold> {
        let _place = self.places.acquire().await.map_err(|_| NotTold("the node is stopping".into()))?;
        let begun = Instant::now();
        let (outcome, told) = self.post(end).await;
        metrics::attempted(outcome, begun.elapsed());
        if told.is_ok() {
            metrics::heard_after(now().saturating_sub(Duration::from_millis(end.untold.at_ms)));
        }
        told
    }

    /// Signed anew each time: receivers refuse what was signed too long ago. The id stays.
    async fn post(&self, end: &End) -> (Outcome, Result<(), NotTold>) {
        let body = Body::of(end);
        let text = serde_json::to_string(&body).expect("ids and numbers are JSON");
        let timestamp = now().as_secs();
        let request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(ID, &body.id)
            .header(TIMESTAMP, timestamp)
            .header(SIGNATURE, self.secrets.sign(&body.id, timestamp, &text))
            .body(text);
        match request.send().await {
            Ok(answer) if answer.status().is_success() => (Outcome::Heard, Ok(())),
            Ok(answer) => (Outcome::Refused, Err(NotTold(format!("it answered {}", answer.status())))),
            Err(error) => {
                let (outcome, why) = why(&error);
                (outcome, Err(NotTold(why)))
            }
        }
    }
}

/// What is sent is for this receiver alone: no redirect is followed, no proxy of the environment used.
fn client(options: &WebhookOptions) -> reqwest::Result<Client> {
    let client = Client::builder()
        .redirect(redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .connect_timeout(options.connect_timeout)
        .timeout(options.timeout)
        .pool_max_idle_per_host(options.concurrency)
        .pool_idle_timeout(POOL_IDLE)
        .user_agent(concat!("klatch/", env!("CARGO_PKG_VERSION")));
    if options.allow_private { client } else { client.dns_resolver(PublicOnly) }.build()
}

/// Without the URL, which reqwest's errors show.
fn why(error: &reqwest::Error) -> (Outcome, String) {
    let causes = || std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    if causes().any(|cause| cause.is::<Forbidden>()) {
        return (Outcome::Forbidden, Forbidden.to_string());
    }
    if error.is_timeout() {
        return (Outcome::Timeout, "it did not answer in time".into());
    }
    let deepest = causes().last().map(ToString::to_string).unwrap_or_default();
    (Outcome::Unreachable, format!("it was not reached: {deepest}"))
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests;
