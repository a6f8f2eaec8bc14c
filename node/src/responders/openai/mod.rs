//! The responder `openai`: a model behind `/v1/chat/completions`, with streaming.
//!
//! A call fails before its first token or after it. Before: it is made again a few times, then handed to the fallback;
//! nobody has seen anything. After: the turn fails, for a second reply would contradict what was shown.
//!
//! `request`, `sse`, `reply` and `failure` decide, and know no socket and no clock; `call` carries bytes; this file puts them
//! together. Nothing that a server sends reaches a log or an error, and neither does the key or the address.

mod call;
mod failure;
mod reply;
mod request;
#[cfg(test)]
mod reuse;
mod sse;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use klatch_actors::Responder;
use klatch_actors::responder::{Ask, End, ResponderError, Said};
use klatch_protocol::turn::Incomplete;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Url, redirect};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use self::request::{CarryOn, MaxTokensField};

use self::call::Call;
use self::failure::{Failure, Next};
use self::reply::Reply;
use self::request::{Request, Shape};
use super::ResponderConfigError;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenAiOptions {
    /// What `model` names it by.
    pub name: String,
    /// What stands before `/chat/completions`: `http://127.0.0.1:11434/v1`. No user, query or fragment in it.
    pub base_url: String,
    /// The server's name of the model. Default: the responder's own name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The environment variable that holds the server's key. It is read once, when the node starts. Default: no key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_env: Option<String>,
    /// Default "5s": a server further away than that is down.
    #[serde(default = "defaults::connect_timeout", with = "crate::durations")]
    pub connect_timeout: Duration,
    /// From the request to the first sign of a reply, and for a place in the queue. Default "60s": long prompts are read for long.
    #[serde(default = "defaults::first_token_timeout", with = "crate::durations")]
    pub first_token_timeout: Duration,
    /// The longest silence within a reply. Default "30s".
    #[serde(default = "defaults::idle_timeout", with = "crate::durations")]
    pub idle_timeout: Duration,
    /// Calls at once, of this node. Default 64: about what one GPU serves well.
    #[serde(default = "defaults::concurrency")]
    pub concurrency: usize,
    /// Calls that wait for a place. Beyond it a turn fails at once with `rate_limit_exceeded`. Default 256.
    #[serde(default = "defaults::queue")]
    pub queue: usize,
    /// Further calls after one that failed before its first token: no connection, HTTP 408, 429 or 5xx, an error or an
    /// end in place of a reply, no first token in time. Default 2, at most 10.
    #[serde(default = "defaults::retries")]
    pub retries: u32,
    /// The responder that answers instead where all calls failed before the first token, or all places are taken.
    /// Not where the request itself is at fault. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
    /// How to go on when another node takes a turn over: `prefill`, `context` (the default) or `incomplete`.
    #[serde(default, rename = "continue")]
    pub carry_on: CarryOn,
    /// So much is given to the model, in tokens of 4 bytes; the oldest history is left out first. Leave room for the
    /// reply. Default 32,768.
    #[serde(default = "defaults::context_tokens")]
    pub context_tokens: usize,
    /// What `max_output_tokens` is called: `max_tokens` (the default: every server knows it) or
    /// `max_completion_tokens` (OpenAI's reasoning models refuse the other; both at once are refused too).
    #[serde(default)]
    pub max_tokens_field: MaxTokensField,
}

mod defaults {
    use std::time::Duration;

    pub fn connect_timeout() -> Duration {
        Duration::from_secs(5)
    }

    pub fn first_token_timeout() -> Duration {
        Duration::from_secs(60)
    }

    pub fn idle_timeout() -> Duration {
        Duration::from_secs(30)
    }

    pub fn concurrency() -> usize {
        64
    }

    pub fn queue() -> usize {
        256
    }

    pub fn retries() -> u32 {
        2
    }

    pub fn context_tokens() -> usize {
        32_768
    }
}

const RETRIES_MAX: u32 = 10;
/// Places are counted by a semaphore, which has a limit of its own far above.
const PLACES_MAX: usize = 1_000_000;
/// No item is given in fewer tokens.
const ITEM_TOKENS_MIN: usize = 4;
/// The call as a part of its turn's trace, for a server that records one (W3C).
const TRACEPARENT: &str = "traceparent";
/// Under the shortest time after which servers close a connection that they keep.
const POOL_IDLE: Duration = Duration::from_secs(50);

impl OpenAiOptions {
    pub fn new(name: &str, base_url: &str) -> Self {
        Self {
            name: name.into(),
            base_url: base_url.into(),
            model: None,
            api_key_env: None,
            connect_timeout: defaults::connect_timeout(),
            first_token_timeout: defaults::first_token_timeout(),
            idle_timeout: defaults::idle_timeout(),
            concurrency: defaults::concurrency(),
            queue: defaults::queue(),
            retries: defaults::retries(),
            fallback: None,
            carry_on: CarryOn::default(),
            context_tokens: defaults::context_tokens(),
            max_tokens_field: MaxTokensField::default(),
        }
    }

    fn check(&self) -> Result<Url, ResponderConfigError> {
        let refuse = |key, must| ResponderConfigError::Value { responder: self.name.clone(), key, must };
        let timeouts = [
            ("connect_timeout", self.connect_timeout),
            ("first_token_timeout", self.first_token_timeout),
            ("idle_timeout", self.idle_timeout),
        ];
        if let Some((key, _)) = timeouts.into_iter().find(|(_, timeout)| timeout.is_zero()) {
            return Err(refuse(key, "must be above 0"));
        }
        if self.concurrency == 0 {
            return Err(refuse("concurrency", "must be at least 1"));
        }
        for (key, value) in [("concurrency", self.concurrency), ("queue", self.queue)] {
            if value > PLACES_MAX {
                return Err(refuse(key, "must be at most 1,000,000"));
            }
        }
        if self.retries > RETRIES_MAX {
            return Err(refuse("retries", "must be at most 10"));
        }
        self.url().ok_or_else(|| refuse("base_url", "must be http(s)://HOST/PATH, without user, query or fragment"))
    }

    fn url(&self) -> Option<Url> {
        let base = self.base_url.trim_end_matches('/');
        let url = Url::parse(base).ok()?;
        let has_more = url.password().is_some() || url.query().is_some() || url.fragment().is_some();
        let fits = url.username().is_empty() && !has_more && matches!(url.scheme(), "http" | "https");
        Url::parse(&format!("{base}/chat/completions")).ok().filter(|_| fits)
    }
}

/// A model server's key. It can be sent, and not be printed.
#[derive(Clone)]
pub struct ApiKey(HeaderValue);

impl ApiKey {
    /// None where no header can carry it.
    pub fn new(key: &str) -> Option<Self> {
        let mut value = HeaderValue::from_str(&format!("Bearer {key}")).ok()?;
        value.set_sensitive(true);
        Some(Self(value))
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("ApiKey(…)")
    }
}

pub struct OpenAi {
    line: Arc<Line>,
    history_items: usize,
}

/// What all calls of one responder share.
struct Line {
    options: OpenAiOptions,
    url: Url,
    client: Client,
    key: Option<ApiKey>,
    fallback: Option<Arc<dyn Responder>>,
    /// `concurrency`
    places: Arc<Semaphore>,
    /// `concurrency + queue`
    admissions: Arc<Semaphore>,
}

/// Held for as long as a call lasts, its retries included.
struct Place {
    _place: OwnedSemaphorePermit,
    _admission: OwnedSemaphorePermit,
}

enum Phase {
    Asked(Box<Ask>),
    Answering(Box<Call>, Place),
    FallenBack(BoxStream<'static, Result<Said, ResponderError>>),
    Over,
}

impl OpenAi {
    pub fn new(
        options: &OpenAiOptions,
        key: Option<ApiKey>,
        fallback: Option<Arc<dyn Responder>>,
    ) -> Result<Self, ResponderConfigError> {
        let url = options.check()?;
        let client = client(options)
            .map_err(|source| ResponderConfigError::Client { responder: options.name.clone(), source })?;
        let fallback_items = fallback.as_ref().map_or(0, |fallback| fallback.history_items());
        let line = Line {
            url,
            client,
            key,
            fallback,
            places: Arc::new(Semaphore::new(options.concurrency)),
            admissions: Arc::new(Semaphore::new(options.concurrency + options.queue)),
            options: options.clone(),
        };
        let history_items = (options.context_tokens / ITEM_TOKENS_MIN).max(fallback_items);
        Ok(Self { line: Arc::new(line), history_items })
    }
}

/// The key must reach no one but the server that it is for: no redirect is followed, no proxy of the environment used.
fn client(options: &OpenAiOptions) -> reqwest::Result<Client> {
    Client::builder()
        .redirect(redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .connect_timeout(options.connect_timeout)
        .pool_max_idle_per_host(options.concurrency)
        .pool_idle_timeout(POOL_IDLE)
        .user_agent(concat!("klatch/", env!("CARGO_PKG_VERSION")))
        .build()
}

impl Responder for OpenAi {
    fn history_items(&self) -> usize {
        self.history_items
    }

    fn respond(&self, ask: Ask) -> BoxStream<'static, Result<Said, ResponderError>> {
        if !ask.partial.is_empty() && self.line.options.carry_on == CarryOn::Incomplete {
            let end = End { incomplete: Some(Incomplete::TakenOver), ..End::default() };
            return stream::iter([Ok(Said::End(end))]).boxed();
        }
        let line = self.line.clone();
        stream::unfold(Phase::Asked(Box::new(ask)), move |phase| {
            let line = line.clone();
            async move { line.step(phase).await }
        })
        .boxed()
    }
}

impl Line {
    /// The client is told too; this is for whoever runs the node.
    fn given_up(&self, failure: Failure) -> ResponderError {
        tracing::warn!(responder.name = self.options.name, error = %failure, "a model failed a turn");
        failure.into()
    }

    async fn step(&self, mut phase: Phase) -> Option<(Result<Said, ResponderError>, Phase)> {
        loop {
            phase = match phase {
                Phase::Over => return None,
                Phase::FallenBack(mut stream) => {
                    let said = stream.next().await?;
                    return Some((said, Phase::FallenBack(stream)));
                }
                Phase::Answering(mut call, place) => match call.next(self.options.idle_timeout).await {
                    Ok(Some(said)) => return Some((Ok(said), Phase::Answering(call, place))),
                    Ok(None) => Phase::Over,
                    Err(failure) => return Some((Err(self.given_up(failure)), Phase::Over)),
                },
                Phase::Asked(ask) => match self.begin(&ask).await {
                    Ok((call, place)) => Phase::Answering(Box::new(call), place),
                    Err(failure) => match self.fallback_from(&failure) {
                        Some(fallback) => Phase::FallenBack(fallback.respond(*ask)),
                        None => return Some((Err(self.given_up(failure)), Phase::Over)),
                    },
                },
            };
        }
    }

    fn fallback_from(&self, failure: &Failure) -> Option<&Arc<dyn Responder>> {
        let fallback = self.fallback.as_ref().filter(|_| !failure.is_the_requests_fault())?;
        tracing::warn!(
            responder.name = self.options.name,
            responder.fallback = self.options.fallback,
            failure = %failure,
            "model failed before its first token; its fallback answers"
        );
        Some(fallback)
    }

    /// A call that has begun to answer.
    async fn begin(&self, ask: &Ask) -> Result<(Call, Place), Failure> {
        let place = self.place().await?;
        let request = Request::new(&self.shape(), ask);
        let body = Bytes::from(request.body.to_string());
        let mut calls = 0;
        loop {
            calls += 1;
            let reply = Reply::new(format!("call_{}_{}", ask.turn, ask.attempt), request.input_tokens as u64);
            let failure = match self.call(body.clone(), reply, ask).await {
                Ok(call) => return Ok((call, place)),
                Err(failure) => failure,
            };
            tracing::debug!(responder.name = self.options.name, calls, failure = %failure, "call of a model failed");
            match failure.next(calls, self.options.retries, jitter()) {
                Next::Again { after } => tokio::time::sleep(after).await,
                Next::GiveUp => return Err(failure),
            }
        }
    }

    async fn place(&self) -> Result<Place, Failure> {
        let admission = self.admissions.clone().try_acquire_owned().map_err(|_| Failure::QueueFull)?;
        let place = tokio::time::timeout(self.options.first_token_timeout, self.places.clone().acquire_owned());
        let place = place.await.map_err(|_| Failure::QueueSlow)?.expect("the semaphore is never closed");
        Ok(Place { _place: place, _admission: admission })
    }

    async fn call(&self, body: Bytes, reply: Reply, ask: &Ask) -> Result<Call, Failure> {
        let mut request = self.client.post(self.url.clone()).header(CONTENT_TYPE, "application/json");
        request = request.header(ACCEPT, "text/event-stream").body(body);
        if let Some(ApiKey(value)) = &self.key {
            request = request.header(AUTHORIZATION, value.clone());
        }
        if let Some(context) = ask.traced.context() {
            request = request.header(TRACEPARENT, context.to_string());
        }
        let opened = tokio::time::timeout(self.options.first_token_timeout, Call::open(request, reply)).await;
        opened.unwrap_or(Err(Failure::NoFirstToken))
    }

    fn shape(&self) -> Shape<'_> {
        Shape {
            model: self.options.model.as_deref().unwrap_or(&self.options.name),
            carry_on: self.options.carry_on,
            context_tokens: self.options.context_tokens,
            max_tokens_field: self.options.max_tokens_field,
        }
    }
}

/// In `0.0..1.0`. Without randomness all wait alike, which is no reason to fail.
fn jitter() -> f64 {
    getrandom::u32().map_or(0.5, |random| f64::from(random) / (f64::from(u32::MAX) + 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_not_printed() {
        let key = ApiKey::new("sk-secret").expect("a key");
        assert!(!format!("{key:?} {:?}", key.0).contains("secret"));
        assert!(ApiKey::new("line\nbreak").is_none());
    }

    #[test]
    fn what_could_only_fail_later_is_refused() {
        let refusal = |change: fn(&mut OpenAiOptions)| {
            let mut options = OpenAiOptions::new("m", "https://host/v1/");
            change(&mut options);
            options.check().map(String::from).map_err(|error| error.to_string())
        };
        assert_eq!(refusal(|_| ()), Ok("https://host/v1/chat/completions".into()));
        for url in ["", "host/v1", "ftp://host", "http://", "http://u:p@host", "http://host/v1?key=x", "http://host/#a"]
        {
            let options = OpenAiOptions::new("m", url);
            let error = options.check().expect_err(url).to_string();
            assert!(error.starts_with("responder `m`: `base_url` must be http(s)://"), "{error}");
        }
        assert!(
            refusal(|options| options.idle_timeout = Duration::ZERO).is_err_and(|error| error.contains("idle_timeout"))
        );
        assert!(refusal(|options| options.retries = 11).is_err());
        assert!(refusal(|options| options.queue = PLACES_MAX + 1).is_err());
    }

    #[test]
    fn jitter_is_a_fraction() {
        assert!((0..100).map(|_| jitter()).all(|jitter| (0.0..1.0).contains(&jitter)));
    }
}
