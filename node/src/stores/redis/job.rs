//! What waits for a batcher: one command each, with what its answer needs.

use ::redis::{Cmd, Value};
use klatch_actors::store::StoreError;
use klatch_protocol::{ClaimToken, ConversationId, Position};

pub struct Job {
    pub command: Cmd,
    pub kind: Kind,
    /// Answered only once the replicas have it, where replicas are waited for; also if it only reads: what was read is
    /// theirs too then.
    pub durable: bool,
    pub bytes: usize,
    pub ack: Ack,
}

/// Is told the answer. Dropped untold, the outcome is unknown.
pub struct Ack(Option<Told>);

type Told = Box<dyn FnOnce(Result<Reply, StoreError>) + Send + Sync>;

impl Ack {
    pub fn new(told: impl FnOnce(Result<Reply, StoreError>) + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(told)))
    }

    pub fn tell(mut self, answer: Result<Reply, StoreError>) {
        if let Some(told) = self.0.take() {
            told(answer);
        }
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        if let Some(told) = self.0.take() {
            told(Err(StoreError::Unknown("the batcher ended".to_owned())));
        }
    }
}

pub enum Kind {
    /// The fence decides it; a refusal leaves nothing behind.
    Append(Fence),
    /// Where it fails in the middle, nobody knows how far it came.
    Script,
    /// Can be repeated without harm.
    Plain,
}

#[derive(Clone, Copy, Debug)]
pub struct Fence {
    pub conversation: ConversationId,
    pub position: Position,
    pub token: ClaimToken,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    pub value: Value,
    /// Of the connection over which it came.
    pub generation: u64,
}

impl Job {
    pub fn answer(self, answer: Result<Reply, StoreError>) {
        self.ack.tell(answer);
    }

    /// It was sent, and no answer came.
    pub fn lost(self, why: &str) {
        self.answer(Err(StoreError::Unknown(why.to_owned())));
    }

    /// It was never sent.
    pub fn refused(self, why: &str) {
        self.answer(Err(StoreError::Unavailable(why.to_owned())));
    }
}
