//! Whether an answer is the right one. Pure; used by `turn.rs` for each turn.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::super::client::events::{StreamEvent, StreamItem};
use super::super::client::failure::Failure;

/// What went wrong with a turn, named as in the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Refused(u16),
    Unreachable,
    TimedOut,
    CutShort,
    Malformed,
    NotCompleted,
    WrongId,
    WrongText,
    WrongSequence,
    WrongDeltas,
}

impl Kind {
    pub fn of(failure: &Failure) -> Self {
        match failure {
            Failure::Unreachable { .. } => Self::Unreachable,
            Failure::Silent { .. } => Self::TimedOut,
            Failure::CutShort => Self::CutShort,
            Failure::Refused(refusal) => Self::Refused(refusal.status),
            Failure::Malformed(_) => Self::Malformed,
        }
    }

    pub fn name(self) -> String {
        match self {
            Self::Refused(status) => return format!("http_{status}"),
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed_out",
            Self::CutShort => "cut_short",
            Self::Malformed => "malformed",
            Self::NotCompleted => "not_completed",
            Self::WrongId => "wrong_id",
            Self::WrongText => "wrong_text",
            Self::WrongSequence => "wrong_sequence",
            Self::WrongDeltas => "wrong_deltas",
        }
        .to_owned()
    }
}

pub fn by_name(errors: &BTreeMap<Kind, u64>) -> BTreeMap<String, u64> {
    errors.iter().map(|(kind, count)| (kind.name(), *count)).collect()
}

pub struct Expected<'a> {
    pub conversation: &'a str,
    /// None: any text will do.
    pub text: Option<&'a str>,
}

#[derive(Deserialize)]
struct Answer {
    id: String,
    status: String,
    conversation: Option<Reference>,
    #[serde(default)]
    output: Vec<Item>,
}

#[derive(Deserialize)]
struct Reference {
    id: String,
}

#[derive(Deserialize)]
struct Item {
    id: String,
    #[serde(default)]
    content: Vec<Part>,
}

#[derive(Deserialize)]
struct Part {
    #[serde(default)]
    text: String,
}

impl Expected<'_> {
    pub fn check(&self, body: &[u8]) -> Result<(), Kind> {
        let answer = serde_json::from_slice(body).map_err(|_| Kind::Malformed)?;
        self.check_answer(&answer).map(|_| ())
    }

    /// The answer's text.
    fn check_answer(&self, answer: &Answer) -> Result<String, Kind> {
        if answer.status != "completed" {
            return Err(Kind::NotCompleted);
        }
        let here = answer.conversation.as_ref().is_some_and(|conversation| conversation.id == self.conversation);
        if !here || !self.belongs(&answer.id) || !answer.output.iter().all(|item| self.belongs(&item.id)) {
            return Err(Kind::WrongId);
        }
        let text: String = answer.output.iter().flat_map(|item| &item.content).map(|part| part.text.as_str()).collect();
        match self.text {
            Some(expected) if expected != text => Err(Kind::WrongText),
            Some(_) | None => Ok(text),
        }
    }

    /// The first 32 digits of each id say which conversation it belongs to.
    fn belongs(&self, id: &str) -> bool {
        let place = |id: &'_ str| id.split_once('_').and_then(|(_, digits)| digits.get(..32)).map(str::to_owned);
        place(id).is_some_and(|found| Some(found) == place(self.conversation))
    }
}

/// One stream as it comes in, over as many connections as it takes.
#[derive(Debug, Default)]
pub struct StreamCheck {
    response: Option<String>,
    next: u64,
    said: String,
    ended: bool,
}

#[derive(Deserialize)]
struct Event {
    delta: Option<String>,
    text: Option<String>,
    response: Option<Answer>,
}

impl StreamCheck {
    /// Where to go on after a lost connection: the response and the last number seen.
    pub fn seen(&self) -> Option<(&str, u64)> {
        self.response.as_deref().zip(self.next.checked_sub(1))
    }

    pub fn has_said_something(&self) -> bool {
        !self.said.is_empty()
    }

    /// True once the stream has come to its right end.
    pub fn take(&mut self, item: StreamItem, expected: &Expected<'_>) -> Result<bool, Kind> {
        match item {
            StreamItem::Done if self.ended => Ok(true),
            StreamItem::Done => Err(Kind::WrongSequence),
            StreamItem::Event(event) => self.take_event(&event, expected).map(|()| false),
        }
    }

    fn take_event(&mut self, event: &StreamEvent, expected: &Expected<'_>) -> Result<(), Kind> {
        let first = self.next == 0;
        if event.sequence_number != self.next || self.ended || first != (event.kind == "response.created") {
            return Err(Kind::WrongSequence);
        }
        self.next += 1;
        let read = || serde_json::from_str::<Event>(&event.data).map_err(|_| Kind::Malformed);
        match event.kind.as_str() {
            "response.created" => {
                let response = read()?.response.ok_or(Kind::Malformed)?;
                self.response = Some(response.id).filter(|id| expected.belongs(id));
                self.response.as_ref().map(|_| ()).ok_or(Kind::WrongId)
            }
            "response.output_text.delta" => {
                self.said.push_str(&read()?.delta.ok_or(Kind::Malformed)?);
                Ok(())
            }
            "response.output_text.done" => self.is_what_was_said(&read()?.text.ok_or(Kind::Malformed)?),
            "response.completed" => {
                self.ended = true;
                let answer = read()?.response.ok_or(Kind::Malformed)?;
                if Some(&answer.id) != self.response.as_ref() {
                    return Err(Kind::WrongId);
                }
                let text = expected.check_answer(&answer)?;
                self.is_what_was_said(&text)
            }
            "response.failed" | "response.incomplete" | "error" => Err(Kind::NotCompleted),
            _ => Ok(()),
        }
    }

    fn is_what_was_said(&self, text: &str) -> Result<(), Kind> {
        if text == self.said { Ok(()) } else { Err(Kind::WrongDeltas) }
    }
}

#[cfg(test)]
mod tests;
