//! Conversations in requests and answers.

use klatch_protocol::ConversationId;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::given::InputItem;
use super::options::Metadata;

/// A conversation may outlive its last turn by ten years at most: what is meant for ever needs no limit.
pub const TTL_SECONDS_MAX: u64 = 10 * 365 * 24 * 60 * 60;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Conversation {
    pub id: String,
    /// Always `conversation`.
    #[schema(value_type = String)]
    pub object: &'static str,
    /// Seconds since 1970.
    pub created_at: u64,
    pub metadata: Metadata,
}

impl Conversation {
    pub fn new(id: ConversationId, created_at_ms: u64, metadata: &[(String, String)]) -> Self {
        Self {
            id: id.to_string(),
            object: "conversation",
            created_at: created_at_ms / 1_000,
            metadata: metadata.iter().cloned().collect(),
        }
    }
}

/// `DELETE /conversations/{id}`.
#[derive(Serialize, ToSchema)]
pub struct DeletedConversation {
    pub id: String,
    /// Always `conversation.deleted`.
    #[schema(value_type = String)]
    pub object: &'static str,
    pub deleted: bool,
}

#[derive(Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct CreateConversation {
    /// At most 20.
    #[schema(value_type = Option<Vec<InputItem>>)]
    pub items: Option<Value>,
    pub metadata: Option<Metadata>,
    /// Deleted so many seconds after its last turn.
    #[schema(minimum = 1)]
    pub ttl_seconds: Option<u64>,
}

#[derive(Deserialize, ToSchema)]
pub struct UpdateConversation {
    /// Replaces all metadata; null removes it. A body without it changes nothing, and is refused: a misspelt name would
    /// else remove all.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Metadata>, required)]
    pub metadata: Option<Option<Metadata>>,
}

/// Some where the member is there, whatever it says, even null.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<Metadata>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

#[derive(Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct ForkConversation {
    /// The last item that the fork has; all items where it is left out.
    pub after: Option<String>,
}

#[derive(Deserialize, ToSchema)]
pub struct AddItems {
    /// 1 to 20.
    #[schema(value_type = Vec<InputItem>)]
    pub items: Option<Value>,
}
