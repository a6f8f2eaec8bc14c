//! The boundary to what produces replies: a model behind HTTP, or a built-in bot.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::stream::BoxStream;
use klatch_protocol::event::Call;
use klatch_protocol::turn::{Incomplete, Usage};
use klatch_protocol::{ConversationId, Item, Pieces};

use crate::trace::Traced;

/// The configured responders by name.
pub type Responders = BTreeMap<String, Arc<dyn Responder>>;

pub trait Responder: Send + Sync + 'static {
    /// How many of the newest items it wants to be given; 0 where it needs no history.
    fn history_items(&self) -> usize;

    /// Whether [`Responder::answer`] may be used: it answers without waiting and without effects outside, so the whole
    /// turn can be saved in a single append.
    fn answers_at_once(&self) -> bool {
        false
    }

    /// The whole reply at once. Only called where `answers_at_once`.
    fn answer(&self, ask: &Ask) -> Answered {
        let _ = ask;
        Answered::default()
    }

    /// The reply as it comes, its last piece an [`Said::End`]. Dropping the stream stops the responder.
    fn respond(&self, ask: Ask) -> BoxStream<'static, Result<Said, ResponderError>>;
}

/// One call of a responder.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    pub conversation: ConversationId,
    pub turn: u64,
    /// The responder's own name.
    pub model: Arc<str>,
    /// From 1. Above 1 an earlier owner began this reply.
    pub attempt: u32,
    /// Fields of the HTTP request that concern the model, as a JSON object: `instructions`, `temperature`, `tools`, …
    pub request: Arc<str>,
    /// Older items of the conversation, oldest first.
    pub history: Vec<Arc<Item>>,
    pub input: Vec<Item>,
    /// What was said and shown already: go on behind it.
    pub partial: String,
    /// What this responder asked to have remembered at the last turn it answered here.
    pub memory: Option<Vec<u8>>,
    /// What this call is a part of.
    pub traced: Traced,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// The next piece of text: one event of the stream.
    Text(String),
    Call(Call),
    End(End),
}

/// A whole reply that is text alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answered {
    pub pieces: Pieces,
    pub end: End,
}

impl Answered {
    /// The same, one after the other.
    pub fn into_said(self) -> Vec<Said> {
        let texts = self.pieces.iter().map(|piece| Said::Text(piece.to_owned()));
        texts.chain([Said::End(self.end.clone())]).collect()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct End {
    pub usage: Usage,
    /// Why it is not the whole reply.
    pub incomplete: Option<Incomplete>,
    /// To be given to this responder at its next turn here, at most [`MEMORY_BYTES_MAX`].
    pub memory: Option<Vec<u8>>,
}

/// A built-in bot's memory of one conversation; kept in its snapshot, so it must be small.
pub const MEMORY_BYTES_MAX: usize = 16 << 10;

/// The turn fails with it. `message` is shown to the client: no address, no key, no upstream body in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ResponderError {
    /// `server_error`, `rate_limit_exceeded`, …: OpenAI's codes.
    pub code: String,
    pub message: String,
}
