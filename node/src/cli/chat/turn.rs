//! One turn as the client sees it: what arrives, what is lost, and what to do about it. Pure: `answer.rs` carries it out.
//!
//! It shows each event once and in order whatever happens to connections, since it knows how far it came.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use crate::cli::client::backoff::Backoff;
use crate::cli::client::events::{StreamEvent, StreamItem};
use crate::cli::client::failure::Failure;

#[derive(Debug)]
pub enum Input {
    Arrived(StreamItem),
    /// The connection, or the attempt to get one, has failed.
    Lost(Failure),
    /// Ctrl-C.
    Interrupted,
}

#[derive(Debug, PartialEq)]
pub enum Effect {
    Show(StreamEvent),
    Note(String),
    Cancel { response: String },
    Connect { from: Start, after: Duration },
    End(Ending),
}

/// Where a new connection starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// The POST, under the turn's own key.
    Turn,
    /// The stream of a response that is known, after this number.
    After { response: String, sequence_number: u64 },
}

#[derive(Debug, PartialEq)]
pub enum Ending {
    Completed,
    Incomplete(String),
    Cancelled,
    Failed(String),
    /// The user did not want to wait for the end.
    Abandoned,
    GivenUp(String),
    /// Whoever logs in again may go on.
    Unauthorized(String),
}

#[derive(Debug, Default)]
pub struct Turn {
    response: Option<String>,
    /// The number of the event that comes next.
    next: u64,
    backoff: Backoff,
    troubled: bool,
    cancel: Cancel,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Cancel {
    #[default]
    No,
    /// As soon as the response has an id.
    Wanted,
    Sent,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Ended {
    response: EndedResponse,
    message: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct EndedResponse {
    id: String,
    status: String,
    error: Option<Value>,
    incomplete_details: Option<Value>,
}

impl Turn {
    pub fn decide(&mut self, now: Instant, input: Input) -> Vec<Effect> {
        match input {
            Input::Arrived(StreamItem::Event(event)) => self.arrived(now, event),
            // An end of the stream that tells no end of the response: what is missing must be asked for.
            Input::Arrived(StreamItem::Done) => self.lost(now, Failure::CutShort),
            Input::Lost(failure) => self.lost(now, failure),
            Input::Interrupted => self.interrupted(),
        }
    }

    fn arrived(&mut self, now: Instant, event: StreamEvent) -> Vec<Effect> {
        if event.sequence_number < self.next {
            return vec![];
        }
        if event.sequence_number > self.next {
            return self.lost(now, Failure::CutShort);
        }
        self.next += 1;
        self.backoff.progressed();
        self.troubled = false;
        let mut effects = vec![];
        if self.response.is_none() {
            self.response = Some(serde_json::from_str::<Ended>(&event.data).unwrap_or_default().response.id);
            effects.extend(self.cancel_if_wanted());
        }
        let end = ending(&event);
        effects.push(Effect::Show(event));
        effects.extend(end.map(Effect::End));
        effects
    }

    fn lost(&mut self, now: Instant, failure: Failure) -> Vec<Effect> {
        let wait = failure.repeat_after().and_then(|asked| self.backoff.next(now, asked));
        let Some(after) = wait else {
            return vec![Effect::End(given_up(&failure))];
        };
        let connect = Effect::Connect { from: self.start(), after };
        if std::mem::replace(&mut self.troubled, true) {
            return vec![connect];
        }
        vec![Effect::Note(format!("{failure}; trying again")), connect]
    }

    fn interrupted(&mut self) -> Vec<Effect> {
        match self.cancel {
            Cancel::No => {
                self.cancel = Cancel::Wanted;
                let mut effects = vec![Effect::Note("cancelling; Ctrl-C again stops waiting".to_owned())];
                effects.extend(self.cancel_if_wanted());
                effects
            }
            Cancel::Wanted | Cancel::Sent => vec![Effect::End(Ending::Abandoned)],
        }
    }

    fn cancel_if_wanted(&mut self) -> Option<Effect> {
        let response = self.response.clone().filter(|_| self.cancel == Cancel::Wanted)?;
        self.cancel = Cancel::Sent;
        Some(Effect::Cancel { response })
    }

    fn start(&self) -> Start {
        match (&self.response, self.next.checked_sub(1)) {
            (Some(response), Some(sequence_number)) => Start::After { response: response.clone(), sequence_number },
            (None, _) | (_, None) => Start::Turn,
        }
    }
}

fn ending(event: &StreamEvent) -> Option<Ending> {
    let told = || serde_json::from_str::<Ended>(&event.data).unwrap_or_default();
    let member = |value: &Option<Value>, name: &str| {
        value.as_ref().and_then(|value| value[name].as_str()).unwrap_or("no reason given").to_owned()
    };
    match event.kind.as_str() {
        "response.completed" => Some(Ending::Completed),
        "response.failed" => Some(Ending::Failed(member(&told().response.error, "message"))),
        "response.incomplete" => Some(match told().response {
            response if response.status == "cancelled" => Ending::Cancelled,
            response => Ending::Incomplete(member(&response.incomplete_details, "reason")),
        }),
        "error" => Some(Ending::Failed(told().message.unwrap_or_default())),
        _ => None,
    }
}

fn given_up(failure: &Failure) -> Ending {
    match failure {
        Failure::Refused(refusal) if refusal.status == 401 => Ending::Unauthorized(failure.to_string()),
        _ => Ending::GivenUp(failure.to_string()),
    }
}

#[cfg(test)]
mod tests;
