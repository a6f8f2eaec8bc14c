//! Carries out what `turn.rs` decides: sends the message, reads the stream, comes back to it, cancels it.
//! Called by `session.rs` for each message; decides nothing itself.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::de::IgnoredAny;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::credentials::Credentials;
use super::output::Printer;
use super::turn::{Effect, Ending, Input, Start, Turn};
use crate::cli::client::events::EventReader;
use crate::cli::client::failure::Failure;
use crate::cli::client::{ApiClient, Call};

pub struct Answering<'a> {
    pub client: &'a ApiClient,
    pub credentials: &'a Credentials,
    pub printer: &'a mut Printer,
    pub interrupts: &'a mut mpsc::Receiver<()>,
    /// The turn's POST; one key for its whole life.
    pub post: Call,
}

enum Line {
    Connecting(BoxFuture<'static, Result<EventReader, Failure>>),
    Reading(Box<EventReader>),
}

pub fn post(model: &str, conversation: &str, message: &str) -> Call {
    let body = json!({"model": model, "conversation": conversation, "input": message, "stream": true});
    Call::post("/v1/responses", body.to_string())
}

impl Line {
    async fn next(&mut self) -> Input {
        loop {
            match self {
                Self::Connecting(connecting) => match connecting.await {
                    Ok(reader) => *self = Self::Reading(Box::new(reader)),
                    Err(failure) => return Input::Lost(failure),
                },
                Self::Reading(reader) => return reader.next().await.map_or_else(Input::Lost, Input::Arrived),
            }
        }
    }
}

impl Answering<'_> {
    pub async fn run(self) -> std::io::Result<Ending> {
        // A Ctrl-C that came before this turn was not meant for it.
        while self.interrupts.try_recv().is_ok() {}
        let (mut turn, mut cancels) = (Turn::default(), JoinSet::new());
        let mut line = self.connect(Start::Turn, Duration::ZERO);
        loop {
            let input = tokio::select! {
                input = line.next() => input,
                Some(()) = self.interrupts.recv() => Input::Interrupted,
                Some(done) = cancels.join_next() => {
                    if let Ok(Err(failure)) = done {
                        self.printer.note(&format!("not cancelled: {failure}"))?;
                    }
                    continue;
                }
            };
            for effect in turn.decide(Instant::now(), input) {
                match effect {
                    Effect::Show(event) => self.printer.event(&event)?,
                    Effect::Note(text) => self.printer.note(&text)?,
                    Effect::Cancel { response } => drop(cancels.spawn(self.cancel(&response))),
                    Effect::Connect { from, after } => line = self.connect(from, after),
                    Effect::End(ending) => return self.printer.end_answer().map(|()| ending),
                }
            }
        }
    }

    fn connect(&self, from: Start, after: Duration) -> Line {
        let (client, credentials) = (self.client.clone(), self.credentials.clone());
        let call = match from {
            Start::Turn => self.post.clone(),
            Start::After { response, sequence_number } => {
                Call::get(format!("/v1/responses/{response}?stream=true&starting_after={sequence_number}"))
            }
        };
        let connecting = async move {
            tokio::time::sleep(after).await;
            credentials.keep_fresh(&client).await?;
            client.stream(&call).await
        };
        Line::Connecting(connecting.boxed())
    }

    fn cancel(&self, response: &str) -> impl Future<Output = Result<(), Failure>> + Send + 'static {
        let (client, call) = (self.client.clone(), Call::post(format!("/v1/responses/{response}/cancel"), "{}"));
        async move { client.patiently::<IgnoredAny>(&call).await.map(|_| ()) }
    }
}
