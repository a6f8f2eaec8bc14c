//! The end of a turn that webhooks are to be told of: what the log holds of it until all of them were.

use serde::{Deserialize, Serialize};

use crate::{ConversationId, Outcome};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Untold {
    pub turn: u64,
    pub ended: Ended,
    /// When the turn ended, in ms since 1970: fixed, however often and by whomever it is told.
    pub at_ms: u64,
    /// Those that are still to be told.
    pub to: Vec<WebhookId>,
}

/// How a turn ended, as far as webhooks tell ends apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Ended {
    Completed,
    Incomplete,
    Failed,
    Cancelled,
}

/// Names a webhook in logs, so that each node and each later configuration knows it again: a hash of its tenant and URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WebhookId(pub u64);

impl Ended {
    pub const ALL: [Self; 4] = [Self::Completed, Self::Incomplete, Self::Failed, Self::Cancelled];
}

impl From<&Outcome> for Ended {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Completed { .. } => Self::Completed,
            Outcome::Incomplete { .. } => Self::Incomplete,
            Outcome::Failed { .. } => Self::Failed,
            Outcome::Cancelled { .. } => Self::Cancelled,
        }
    }
}

impl Untold {
    /// The id of the event that tells it: the same at each attempt, for each webhook.
    pub fn event_id(&self, conversation: ConversationId) -> String {
        conversation.response(self.turn).event_id()
    }
}
