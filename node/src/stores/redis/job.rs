//! What waits for a batcher: one command each, with what its answer needs.

use ::redis::{Cmd, Value};
use klatch_actors::store::StoreError;
use klatch_protocol::{ClaimToken, ConversationId, Position};
use tokio::sync::oneshot;

pub struct Job {
    pub command: Cmd,
    pub kind: Kind,
    /// Answered only once the replicas have it, where replicas are waited for; also if it only reads: what was read is
    /// theirs too then.
    pub durable: bool,
    pub bytes: usize,
    pub ack: oneshot::Sender<Result<Reply, StoreError>>,
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
    /// Who no longer waits is not told.
    pub fn answer(self, answer: Result<Reply, StoreError>) {
        let _ = self.ack.send(answer);
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
