//! One call of a model server over HTTP, from its request to the end of its reply.
//!
//! Carries bytes to the decoders and decides nothing about failures. Dropping it closes the connection: that is how a turn is
//! cancelled, and what tells the server to stop.

use std::collections::VecDeque;
use std::time::Duration;

use klatch_actors::responder::Said;
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{RequestBuilder, Response};

use super::failure::Failure;
use super::reply::Reply;
use super::sse::Decoder;

/// The answer of a server that does not stream. Above the runtime's limit of a reply, in JSON.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// Of an error's body: enough to find out what it is about.
const ERROR_BYTES_MAX: usize = 16 << 10;
/// Once the reply is whole, its usage is waited for so long, and its end.
const USAGE_WAIT: Duration = Duration::from_secs(2);

/// Behind a whole reply there is an end of the body, and nothing else.
const REST_BYTES_MAX: usize = 1 << 10;
const REST_WAIT: Duration = Duration::from_secs(1);

pub struct Call {
    /// None once it was given away, to be read to its end.
    response: Option<Response>,
    decoder: Decoder,
    reply: Reply,
    ready: VecDeque<Said>,
    over: Option<Result<(), Failure>>,
}

impl Call {
    /// Until the first sign of a reply, or its end.
    pub async fn open(request: RequestBuilder, reply: Reply) -> Result<Self, Failure> {
        let response = request.send().await.map_err(|error| unsent(&error))?;
        let status = response.status().as_u16();
        if !response.status().is_success() {
            return Err(refused(status, response).await);
        }
        let kind = content_type(response.headers());
        let response = Some(response);
        let mut call = Self { response, decoder: Decoder::default(), reply, ready: VecDeque::new(), over: None };
        match kind.as_str() {
            "text/event-stream" => call.read_begin().await?,
            "application/json" => call.read_whole().await?,
            _ => return Err(Failure::Malformed("it is neither a stream of events nor JSON")),
        }
        Ok(call)
    }

    /// The next thing said; none after the end. `idle` is the longest silence allowed.
    pub async fn next(&mut self, idle: Duration) -> Result<Option<Said>, Failure> {
        loop {
            if let Some(said) = self.ready.pop_front() {
                return Ok(Some(said));
            }
            if let Some(how) = &self.over {
                return how.clone().map(|()| None);
            }
            let wait = if self.reply.finished() { idle.min(USAGE_WAIT) } else { idle };
            if tokio::time::timeout(wait, self.read_event()).await.is_err() {
                self.ended_with(Failure::Silent);
            }
        }
    }

    async fn read_begin(&mut self) -> Result<(), Failure> {
        while !self.reply.begun() && self.over.is_none() {
            self.read_event().await;
        }
        match &self.over {
            Some(Err(failure)) if !self.reply.begun() => Err(failure.clone()),
            Some(_) | None => Ok(()),
        }
    }

    /// Reads until one event at least has come. Comments, which some servers send to keep a connection open, are no
    /// sign of life of the model.
    async fn read_event(&mut self) {
        let mut events = Vec::new();
        while events.is_empty() && self.over.is_none() {
            let Some(response) = &mut self.response else { return self.ended_with(Failure::Interrupted) };
            match response.chunk().await {
                Ok(Some(bytes)) => {
                    let fed = self.decoder.feed(&bytes, &mut events);
                    self.take(&events);
                    if fed.is_err() {
                        self.ended_with(Failure::TooLarge);
                    }
                }
                Ok(None) => {
                    self.take_last();
                    self.ended_with(Failure::Interrupted);
                }
                Err(_) => self.ended_with(Failure::Interrupted),
            }
        }
    }

    fn take(&mut self, events: &[Vec<u8>]) {
        for event in events {
            if self.over.is_some() {
                return;
            }
            match self.reply.event(event) {
                Ok(said) => self.ready.extend(said),
                // What follows a whole reply cannot spoil it.
                Err(failure) => self.ended_with(failure),
            }
            if self.reply.done() {
                self.ended_with(Failure::Interrupted);
            }
        }
    }

    /// An event that was cut off in its middle is an interruption, not garbage.
    fn take_last(&mut self) {
        if let Some(Ok(said)) = self.decoder.finish().map(|last| self.reply.event(&last)) {
            self.ready.extend(said);
        }
    }

    /// Nothing more comes: the end of a reply that is whole, and else a failure.
    fn ended_with(&mut self, failure: Failure) {
        if self.over.is_some() {
            return;
        }
        self.over = Some(match self.reply.end() {
            Ok(said) => {
                self.ready.extend(said);
                Ok(())
            }
            Err(Failure::Interrupted) => Err(failure),
            Err(other) => Err(other),
        });
    }

    async fn read_whole(&mut self) -> Result<(), Failure> {
        let Some(response) = &mut self.response else { return Err(Failure::Interrupted) };
        let answer = read_bounded(response, ANSWER_BYTES_MAX).await?;
        self.ready.extend(self.reply.whole(&answer)?);
        self.over = Some(Ok(()));
        Ok(())
    }
}

/// A reply that is whole is over before its body is: what ends that may come a moment later, and a connection is used again
/// only behind it. Where it was given up before, the connection is closed.
impl Drop for Call {
    fn drop(&mut self) {
        let Some(mut response) = self.response.take().filter(|_| self.reply.done()) else { return };
        let rest = async move { read_bounded(&mut response, REST_BYTES_MAX).await };
        // Whatever it says concerns nobody any more.
        tokio::spawn(async { drop(tokio::time::timeout(REST_WAIT, rest).await) });
    }
}

async fn read_bounded(response: &mut Response, bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let mut read = Vec::new();
    while let Some(bytes) = response.chunk().await.map_err(|_| Failure::Interrupted)? {
        if read.len() + bytes.len() > bytes_max {
            return Err(Failure::TooLarge);
        }
        read.extend_from_slice(&bytes);
    }
    Ok(read)
}

fn unsent(error: &reqwest::Error) -> Failure {
    if error.is_connect() { Failure::Unreachable } else { Failure::Interrupted }
}

/// The body of a refusal may hold anything, the prompt included: all that is taken from it is whether it speaks of
/// the context's length, the one refusal that a person can do something about.
async fn refused(status: u16, mut response: Response) -> Failure {
    let retry_after = retry_after(response.headers());
    if matches!(status, 400 | 413 | 422) {
        let body = read_bounded(&mut response, ERROR_BYTES_MAX).await.unwrap_or_default();
        if speaks_of_context(&String::from_utf8_lossy(&body).to_lowercase()) {
            return Failure::ContextTooLong;
        }
    }
    Failure::Status { status, retry_after }
}

/// OpenAI's code, vLLM's sentence, llama.cpp's error type.
fn speaks_of_context(body: &str) -> bool {
    ["context_length_exceeded", "maximum context length", "exceed_context_size"].iter().any(|sign| body.contains(sign))
}

fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// In seconds, or in milliseconds as OpenAI says it. A date is not read: it would need both clocks to agree.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
    let seconds = number("retry-after-ms").map(|ms| ms / 1_000.0).or_else(|| number(RETRY_AFTER.as_str()))?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_in_seconds_and_in_milliseconds() {
        let read = |name: &'static str, value: &str| {
            let headers = HeaderMap::from_iter([(name.parse().expect("a name"), value.parse().expect("a value"))]);
            retry_after(&headers)
        };
        assert_eq!(read("retry-after", "2"), Some(Duration::from_secs(2)));
        assert_eq!(read("retry-after", "0.5"), Some(Duration::from_millis(500)));
        assert_eq!(read("retry-after-ms", "250"), Some(Duration::from_millis(250)));
        for wrong in ["-1", "NaN", "inf", "1e300", "Wed, 21 Oct 2026 07:28:00 GMT", ""] {
            assert_eq!(read("retry-after", wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_three_ways_to_say_that_a_conversation_is_too_long_are_known() {
        assert!(speaks_of_context("this model's maximum context length is 4096 tokens"));
        assert!(!speaks_of_context("in the context of your request"));
    }
}
