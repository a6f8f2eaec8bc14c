//! A response as answers show it: every field is always there. Filled by `render`.

use serde::{Serialize, Serializer};
use serde_json::Value;
use utoipa::ToSchema;

use super::items::WireItem;
use super::options::Metadata;

#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Response {
    pub id: String,
    /// Always `response`.
    #[schema(value_type = String)]
    pub object: &'static str,
    /// Seconds since 1970.
    pub created_at: u64,
    pub status: ResponseStatus,
    #[schema(required)]
    pub completed_at: Option<u64>,
    #[schema(required)]
    pub error: Option<Fault>,
    #[schema(required)]
    pub incomplete_details: Option<IncompleteDetails>,
    #[schema(required)]
    pub instructions: Option<String>,
    #[schema(required)]
    pub max_output_tokens: Option<u64>,
    #[schema(required)]
    pub max_tool_calls: Option<u64>,
    pub model: String,
    pub output: Vec<WireItem>,
    pub parallel_tool_calls: bool,
    #[schema(required)]
    pub previous_response_id: Option<String>,
    /// The conversation, where the request named it.
    #[schema(required)]
    pub conversation: Option<ConversationRef>,
    #[schema(required, value_type = Option<Object>)]
    pub reasoning: Option<Value>,
    pub store: bool,
    pub background: bool,
    pub temperature: f64,
    pub top_p: f64,
    pub presence_penalty: f64,
    pub frequency_penalty: f64,
    pub top_logprobs: u64,
    /// None: plain text.
    #[serde(serialize_with = "given_or_plain_text")]
    #[schema(required, value_type = Object)]
    pub text: Option<Value>,
    /// None: `auto`.
    #[serde(serialize_with = "given_or_auto")]
    #[schema(required, value_type = Value)]
    pub tool_choice: Option<Value>,
    #[schema(value_type = Vec<Object>)]
    pub tools: Vec<Value>,
    pub truncation: String,
    /// Always `default`: there is one tier.
    #[schema(value_type = String)]
    pub service_tier: &'static str,
    #[schema(required)]
    pub safety_identifier: Option<String>,
    #[schema(required)]
    pub prompt_cache_key: Option<String>,
    pub metadata: Metadata,
    #[schema(required)]
    pub usage: Option<Usage>,
    pub klatch: Own,
}

fn given_or_plain_text<S: Serializer>(given: &Option<Value>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Text {
        format: Format,
    }
    #[derive(Serialize)]
    struct Format {
        r#type: &'static str,
    }
    match given {
        Some(text) => text.serialize(serializer),
        None => Text { format: Format { r#type: "text" } }.serialize(serializer),
    }
}

fn given_or_auto<S: Serializer>(given: &Option<Value>, serializer: S) -> Result<S::Ok, S::Error> {
    match given {
        Some(choice) => choice.serialize(serializer),
        None => serializer.serialize_str("auto"),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResponseStatus {
    Queued,
    InProgress,
    Completed,
    Failed,
    Cancelled,
    Incomplete,
}

/// Why a response failed. `code` is one of the few that strict clients know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Fault {
    #[schema(value_type = String)]
    pub code: &'static str,
    pub message: String,
    #[schema(value_type = String)]
    pub r#type: &'static str,
    #[schema(required)]
    pub param: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct IncompleteDetails {
    #[schema(value_type = String)]
    pub reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ConversationRef {
    pub id: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Usage {
    pub input_tokens: u64,
    pub input_tokens_details: InputTokens,
    pub output_tokens: u64,
    pub output_tokens_details: OutputTokens,
    pub total_tokens: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct InputTokens {
    pub cached_tokens: u64,
    pub cache_write_tokens: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct OutputTokens {
    pub reasoning_tokens: u64,
}

/// What OpenAI's response has no field for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Own {
    /// The conversation that the response stands in, named by the request or not.
    pub conversation: String,
    /// Why an incomplete response is: also where OpenAI has no word for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false)]
    pub incomplete_reason: Option<&'static str>,
}

/// `DELETE /responses/{id}`.
#[derive(Serialize, ToSchema)]
pub struct DeletedResponse {
    pub id: String,
    /// Always `response`.
    #[schema(value_type = String)]
    pub object: &'static str,
    pub deleted: bool,
}
