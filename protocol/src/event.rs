//! The events of a conversation's log, in the order of a conversation's life. An entry is what one append writes:
//! one or more events, all or none of them.
//!
//! Variants are encoded by their place in the enum: add new ones at the end, and never remove or reorder any.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{ClaimToken, ConversationId, Item, Outcome, Pieces, ResponseId, State, Untold, WebhookId};

/// Where an entry stands in its log. The store refuses a position that is not above the log's last: that is the fence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// Counts claims, from 1.
    pub epoch: u64,
    /// Counts the entries of an epoch, from 0: the claim itself.
    pub seq: u64,
}

impl Position {
    pub fn next(self) -> Self {
        Self { epoch: self.epoch, seq: self.seq + 1 }
    }

    /// Where the next owner writes its claim.
    pub fn claim(self) -> Self {
        Self { epoch: self.epoch + 1, seq: 0 }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub position: Position,
    /// Of the claim under which it was written.
    pub token: ClaimToken,
    /// The owner's wall clock, in ms since 1970. For display and retention only: no order depends on it.
    pub at_ms: u64,
    pub events: Vec<Event>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    Claimed {
        node: String,
        incarnation: u64,
        /// Number of a view in which this life of the node stands: who has an older one cannot hold it for dead.
        view: u64,
    },
    Created(Box<Created>),
    TurnAccepted(Arc<Accepted>),
    /// The responder is about to be called for the `n`th time, from 1: no call without such a record before it.
    AttemptStarted {
        turn: u64,
        attempt: Attempt,
    },
    /// A batch of the reply. Each piece is one event of the stream, for ever.
    Delta {
        turn: u64,
        pieces: Pieces,
    },
    ToolCall {
        turn: u64,
        call: Call,
    },
    TurnEnded {
        turn: u64,
        outcome: Outcome,
        memory: Option<Memory>,
    },
    ItemsAdded {
        items: Vec<Item>,
        key: Option<KeyUse>,
    },
    ItemDeleted {
        ordinal: u64,
    },
    MetadataSet {
        metadata: Vec<(String, String)>,
        key: Option<KeyUse>,
    },
    ResponseDeleted {
        turn: u64,
    },
    /// A child now shares these items of the conversation.
    Forked {
        child: ConversationId,
        prefix: Parent,
        key: Option<KeyUse>,
    },
    Deleted,
    /// What all earlier events add up to; they may be trimmed.
    Snapshot(Box<State>),
    /// The owner is at work on an open turn, of which there is nothing new: so that nobody takes it for dead.
    AtWork,
    /// Webhooks are to be told of the end of a turn. In the entry that ends it; and behind a snapshot, whose bytes do not
    /// hold it.
    ToTell(Untold),
    /// The webhook was told, or was given up for this end.
    Told {
        turn: u64,
        to: WebhookId,
    },
}

impl Event {
    /// The client's key of the request that caused it.
    pub fn key(&self) -> Option<&[u8; 16]> {
        match self {
            Self::TurnAccepted(accepted) => accepted.key.as_ref(),
            Self::Created(created) => created.key.as_ref().map(|used| &used.key),
            Self::ItemsAdded { key, .. } | Self::MetadataSet { key, .. } | Self::Forked { key, .. } => {
                key.as_ref().map(|used| &used.key)
            }
            Self::Claimed { .. }
            | Self::AttemptStarted { .. }
            | Self::Delta { .. }
            | Self::ToolCall { .. }
            | Self::TurnEnded { .. }
            | Self::ItemDeleted { .. }
            | Self::ResponseDeleted { .. }
            | Self::Deleted
            | Self::Snapshot(_)
            | Self::AtWork
            | Self::ToTell(_)
            | Self::Told { .. } => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Created {
    pub tenant: String,
    pub subject: String,
    pub metadata: Vec<(String, String)>,
    /// Lives this long after its last turn, in seconds.
    pub ttl_seconds: Option<u64>,
    /// Made by a request for a conversation, not by a response without one.
    pub explicit: bool,
    pub items: Vec<Item>,
    pub parent: Option<Parent>,
    pub key: Option<KeyUse>,
}

/// A fork's prefix: the parent's items below `before`, as they were at the parent's `version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    pub conversation: ConversationId,
    pub before: u64,
    pub version: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    pub turn: u64,
    /// With the ordinals of the turn's block: inputs first, outputs after them.
    pub input: Vec<Item>,
    pub key: Option<[u8; 16]>,
    /// Made by the edge for a request without a key, so that it can send it again to the next owner: known for a short
    /// time only.
    pub attempt: Option<[u8; 16]>,
    /// Hash of method, path and body: what makes a retry the same request.
    pub fingerprint: [u8; 16],
    pub parameters: Parameters,
    /// It had to wait for another turn, or runs in the background: the stream says `response.queued`.
    pub queued: bool,
    pub at_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameters {
    /// Names a responder.
    pub model: Arc<str>,
    pub background: bool,
    pub store: bool,
    /// The request named the conversation, so the response does too.
    pub conversation_named: bool,
    pub previous: Option<ResponseId>,
    pub cancel_on_disconnect: bool,
    /// Given up if it has not started by then, in ms since 1970.
    pub start_by_ms: Option<u64>,
    /// The request's other fields, as JSON: the edge shows them again, the responder reads what it needs.
    pub request: Arc<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    pub n: u32,
    /// Of the node that makes the call: tells a conversation that crashes from a node that did.
    pub incarnation: u64,
    pub reason: AttemptReason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttemptReason {
    First,
    /// The conversation was activated and found the turn unfinished.
    TakenOver,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    pub call_id: String,
    pub name: String,
    /// JSON text as the model wrote it.
    pub arguments: String,
}

/// What a built-in bot remembers of a conversation between turns; opaque to all but the responder of that name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    pub model: String,
    pub bytes: Vec<u8>,
}

/// An idempotency key in use: hash of (tenant, key), and of the request that used it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyUse {
    pub key: [u8; 16],
    pub fingerprint: [u8; 16],
}
