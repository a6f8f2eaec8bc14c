//! One turn at the server: sends it, reads the answer to its end, and has it checked. Called by `drive.rs`.
//!
//! With `--retry` a turn is repeated under its own key, and a stream that broke goes on after the last event seen.

use std::time::Instant;

use reqwest::Method;

use super::super::client::backoff::Backoff;
use super::super::client::failure::Failure;
use super::super::client::{ApiClient, Call};
use super::check::{Expected, Kind, StreamCheck};
use super::messages::Message;
use super::plan::Plan;

pub struct Turn<'a> {
    pub client: &'a ApiClient,
    pub plan: &'a Plan,
    pub conversation: &'a str,
    pub message: Message,
}

#[derive(Debug, Default)]
pub struct Turned {
    pub first_token: Option<Instant>,
    pub retries: u64,
}

enum Trouble {
    Wrong(Kind),
    Lost(Failure),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Lost(failure)
    }
}

impl From<Kind> for Trouble {
    fn from(kind: Kind) -> Self {
        Self::Wrong(kind)
    }
}

impl Turn<'_> {
    pub async fn run(&self) -> (Turned, Result<(), Kind>) {
        let mut turned = Turned::default();
        let ended = tokio::time::timeout(self.plan.timeout, self.attempts(&mut turned)).await;
        (turned, ended.unwrap_or(Err(Kind::TimedOut)))
    }

    async fn attempts(&self, turned: &mut Turned) -> Result<(), Kind> {
        let (mut backoff, mut check) = (Backoff::default(), StreamCheck::default());
        loop {
            let failure = match self.attempt(&mut check, turned).await {
                Ok(()) => return Ok(()),
                Err(Trouble::Wrong(kind)) => return Err(kind),
                Err(Trouble::Lost(failure)) => failure,
            };
            let asked = failure.repeat_after().filter(|_| self.plan.retry);
            match asked.and_then(|asked| backoff.next(tokio::time::Instant::now(), asked)) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return Err(Kind::of(&failure)),
            }
            turned.retries += 1;
        }
    }

    async fn attempt(&self, check: &mut StreamCheck, turned: &mut Turned) -> Result<(), Trouble> {
        let text = (!self.plan.any_text).then_some(self.message.text.as_str());
        let expected = Expected { conversation: self.conversation, text };
        if !self.plan.stream {
            let answer = self.client.once(&self.post()).await?;
            let body = answer.bytes().await.map_err(|_| Failure::CutShort)?;
            return Ok(expected.check(&body)?);
        }
        let call = match check.seen() {
            Some((response, number)) => {
                Call::get(format!("/v1/responses/{response}?stream=true&starting_after={number}"))
            }
            None => self.post(),
        };
        let mut events = self.client.stream(&call).await?;
        while !check.take(events.next().await?, &expected)? {
            if turned.first_token.is_none() && check.has_said_something() {
                turned.first_token = Some(Instant::now());
            }
        }
        Ok(())
    }

    fn post(&self) -> Call {
        let (key, body) = (Some(self.message.key.clone()), self.message.body.clone());
        Call { method: Method::POST, path: "/v1/responses".to_owned(), key, body }
    }
}
