//! What can be asked of a conversation, and how it answers. Reads of what is finished go past the actors, through
//! [`crate::Reader`].

use std::fmt;
use std::sync::Arc;

use klatch_protocol::event::{Created, KeyUse, Parameters};
use klatch_protocol::turn::Change;
use klatch_protocol::{ConversationId, Item, Mark, Turn};
use serde::{Deserialize, Serialize};

use crate::peers::PeerId;

/// Who asks. A conversation belongs to one tenant and subject; to everyone else it does not exist.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Caller {
    pub tenant: Arc<str>,
    pub subject: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Make the conversation; an existing one with the same creation key or the same parent is the answer too.
    Create(Box<Created>),
    Submit(Box<Submit>),
    AddItems {
        caller: Caller,
        items: Vec<Item>,
        key: Option<KeyUse>,
    },
    SetMetadata {
        caller: Caller,
        metadata: Vec<(String, String)>,
        key: Option<KeyUse>,
    },
    DeleteItem {
        caller: Caller,
        ordinal: u64,
    },
    /// Let `child` share the items below `before` (none: all there are). Answers [`Answer::Forked`]; the child is
    /// made by a request of its own.
    Fork {
        caller: Caller,
        child: ConversationId,
        before: Option<u64>,
        key: Option<KeyUse>,
    },
    Cancel {
        caller: Caller,
        turn: u64,
    },
    DeleteResponse {
        caller: Caller,
        turn: u64,
    },
    Delete {
        caller: Caller,
    },
    /// Delete it if it has outlived its time: `retention_ms` after its last turn, or its own `ttl_seconds`.
    Expire {
        retention_ms: Option<u64>,
    },
    /// Answers [`Answer::News`] as soon as there is anything after `have`, and [`Answer::NotOpen`] where the turn is
    /// not open here: then the store has it. One request at a time is the watcher's credit: who does not ask costs
    /// nothing.
    Watch {
        caller: Caller,
        turn: u64,
        have: Mark,
        bytes_max: usize,
    },
    /// The turn's answer could not be delivered: a retry without a key may join it.
    Undelivered {
        turn: u64,
    },
    /// Be active: there may be an unfinished turn.
    Wake,
    /// A row says that a turn may be open, and nobody has the conversation in memory here: claim it, so that nothing older
    /// can be added any more, finish what is open, and let the row go. Never leaves the node.
    Settle,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submit {
    pub caller: Caller,
    /// Ordinals are given when the turn is accepted.
    pub input: Vec<Item>,
    pub parameters: Parameters,
    pub on_busy: OnBusy,
    pub key: Option<[u8; 16]>,
    /// The edge's own key, where the client sent none: by it the edge may send the request again.
    pub attempt: Option<[u8; 16]>,
    pub fingerprint: [u8; 16],
    /// The client says that it repeats a request, without a key.
    pub retry: bool,
    pub wait: Wait,
    /// Made where it does not exist yet: a response without a conversation has one of its own.
    pub create: Option<Box<Created>>,
    pub chain: Option<Chain>,
}

/// The turn follows that one; where anything else has come since, in the fork `child`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    pub after_turn: u64,
    /// First ordinal behind that turn's items.
    pub items_end: u64,
    pub child: ConversationId,
}

/// What a turn does that finds another one open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnBusy {
    #[default]
    Enqueue,
    Reject,
    /// The running turn ends incomplete; its text stays.
    Interrupt,
    /// The running turn ends cancelled and leaves nothing.
    Rollback,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wait {
    /// Answer once the turn is durable.
    Accepted,
    /// Answer once its end is durable.
    Ended,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    Conversation {
        created_at_ms: u64,
        metadata: Vec<(String, String)>,
        replayed: bool,
    },
    /// The turn as it is now, ended if that was asked for.
    Turn {
        turn: Arc<Turn>,
        replayed: bool,
    },
    /// Ordinals of the items that were asked to be added, in order.
    Items {
        ordinals: Vec<u64>,
        replayed: bool,
    },
    /// Go on with `child`, made with `created` as its first event.
    Forked {
        child: ConversationId,
        created: Box<Created>,
        replayed: bool,
    },
    News(Vec<Change>),
    NotOpen,
    Done,
    /// It has not expired; look again then, in ms since 1970.
    DueAt(u64),
}

/// Named for what the caller can do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Refusal {
    #[error("there is no such {0}")]
    NotFound(Missing),
    #[error("{message}")]
    Invalid { param: Param, message: String },
    /// `on_busy: reject` met an open turn.
    #[error("another turn of this conversation is still open")]
    Locked,
    #[error("the idempotency key was used before, with another request")]
    KeyReused,
    /// Retry here, later: a limit is reached.
    #[error("{what} is full")]
    Busy { what: Full, retry_after_ms: u64 },
    /// Nothing was done. Retry elsewhere, now.
    #[error("this node does not own the conversation")]
    Moved,
    /// Nothing was done: a turn is open under that owner, which is alive. Ask there.
    #[error("an open turn of the conversation belongs to {owner}")]
    Elsewhere { owner: PeerId },
    /// It was sent to its owner, and that was lost before it answered. It may have been done: what is repeatable may be
    /// sent again, now.
    #[error("the conversation's owner was lost before it answered")]
    Lost,
    /// Retry later, with the same key: the store does not answer, or the conversation crashed. It may have been done.
    #[error("the outcome is not known: {0}")]
    Unavailable(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Missing {
    Conversation,
    Response,
}

/// The field of the request that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Param {
    Model,
    Id,
}

/// Which limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Full {
    Conversation,
    /// The client's own turns wait there.
    Queue,
    Node,
    Memory,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Conversation => "conversation",
            Self::Response => "response",
        })
    }
}

impl fmt::Display for Param {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Param {
    pub fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Id => "id",
        }
    }
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Conversation => "the conversation",
            Self::Queue => "the conversation's queue",
            Self::Node => "the node",
            Self::Memory => "the node's memory",
        })
    }
}

impl Request {
    /// Whether it can be sent again where it is not known if it was done: it changes nothing, or doing it twice is
    /// doing it once.
    pub fn is_repeatable(&self) -> bool {
        match self {
            Request::Create(_)
            | Request::DeleteItem { .. }
            | Request::Cancel { .. }
            | Request::Expire { .. }
            | Request::Watch { .. }
            | Request::Undelivered { .. }
            | Request::Wake
            | Request::Settle => true,
            Request::Submit(submit) => submit.key.is_some() || submit.attempt.is_some(),
            Request::AddItems { key, .. } | Request::Fork { key, .. } => key.is_some(),
            Request::SetMetadata { .. } => true,
            // The second time it is gone already, which is told as an error.
            Request::DeleteResponse { .. } | Request::Delete { .. } => false,
        }
    }

    /// Whether it makes the conversation where there is none.
    pub fn makes_it(&self) -> bool {
        match self {
            Request::Create(_) => true,
            Request::Submit(submit) => submit.create.is_some(),
            _ => false,
        }
    }

    /// Whether it makes sense without taking the conversation over: it only looks at, or stops, what is open.
    pub fn needs_no_claim(&self) -> bool {
        match self {
            Request::Watch { .. } | Request::Undelivered { .. } | Request::Wake => true,
            Request::Settle
            | Request::Create(_)
            | Request::Submit(_)
            | Request::AddItems { .. }
            | Request::SetMetadata { .. }
            | Request::DeleteItem { .. }
            | Request::Fork { .. }
            | Request::Cancel { .. }
            | Request::DeleteResponse { .. }
            | Request::Delete { .. }
            | Request::Expire { .. } => false,
        }
    }
}
