//! Items as answers show them. Reading what clients send is `given`'s affair.

use klatch_protocol::{Body, ConversationId, Item, Part, Role, Status};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schema(as = Item)]
pub enum WireItem {
    Message { id: String, role: WireRole, status: WireStatus, content: Vec<WirePart> },
    FunctionCall { id: String, call_id: String, name: String, arguments: String, status: WireStatus },
    FunctionCallOutput { id: String, call_id: String, output: String, status: WireStatus },
}

#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schema(as = Part)]
pub enum WirePart {
    InputText {
        text: String,
    },
    OutputText {
        text: String,
        #[schema(value_type = Vec<Object>)]
        annotations: Vec<Value>,
        #[schema(value_type = Vec<Object>)]
        logprobs: Vec<Value>,
    },
    Refusal {
        refusal: String,
    },
    InputImage {
        image_url: String,
        detail: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = Role)]
pub enum WireRole {
    User,
    Assistant,
    System,
    Developer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ItemStatus)]
pub enum WireStatus {
    InProgress,
    Completed,
    Incomplete,
}

/// The id under which clients know the item: their own, where they gave it one.
pub fn item_id(conversation: ConversationId, item: &Item) -> String {
    item.client_id.clone().unwrap_or_else(|| conversation.item(item.ordinal).text(item.body.prefix()))
}

impl WireItem {
    pub fn new(conversation: ConversationId, item: &Item) -> Self {
        Self::with_id(item_id(conversation, item), &item.body)
    }

    pub fn with_id(id: String, body: &Body) -> Self {
        match body {
            Body::Message { role, status, content } => WireItem::Message {
                id,
                role: (*role).into(),
                status: (*status).into(),
                content: content.iter().map(WirePart::from).collect(),
            },
            Body::FunctionCall { call_id, name, arguments, status } => WireItem::FunctionCall {
                id,
                call_id: call_id.clone(),
                name: name.clone(),
                arguments: arguments.clone(),
                status: (*status).into(),
            },
            Body::FunctionCallOutput { call_id, output, status } => WireItem::FunctionCallOutput {
                id,
                call_id: call_id.clone(),
                output: output.clone(),
                status: (*status).into(),
            },
        }
    }

    pub fn id(&self) -> &str {
        match self {
            WireItem::Message { id, .. }
            | WireItem::FunctionCall { id, .. }
            | WireItem::FunctionCallOutput { id, .. } => id,
        }
    }
}

impl WirePart {
    pub fn output_text(text: impl Into<String>) -> Self {
        WirePart::OutputText { text: text.into(), annotations: Vec::new(), logprobs: Vec::new() }
    }
}

impl From<&Part> for WirePart {
    fn from(part: &Part) -> Self {
        match part {
            Part::InputText(text) => WirePart::InputText { text: text.clone() },
            Part::OutputText(text) => WirePart::output_text(text),
            Part::Refusal(refusal) => WirePart::Refusal { refusal: refusal.clone() },
            Part::InputImage { url, detail } => WirePart::InputImage { image_url: url.clone(), detail: detail.clone() },
        }
    }
}

impl From<Role> for WireRole {
    fn from(role: Role) -> Self {
        match role {
            Role::User => WireRole::User,
            Role::Assistant => WireRole::Assistant,
            Role::System => WireRole::System,
            Role::Developer => WireRole::Developer,
        }
    }
}

impl From<Status> for WireStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::InProgress => WireStatus::InProgress,
            Status::Completed => WireStatus::Completed,
            Status::Incomplete => WireStatus::Incomplete,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_kind_of_item_has_all_its_fields() {
        let shown = |body: &Body| serde_json::to_value(WireItem::with_id("x".into(), body)).expect("json");
        assert_eq!(
            shown(&Body::user("hi")),
            json!({"type": "message", "id": "x", "role": "user", "status": "completed",
                   "content": [{"type": "input_text", "text": "hi"}]})
        );
        let call = Body::FunctionCall {
            call_id: "c".into(),
            name: "f".into(),
            arguments: "{}".into(),
            status: Status::Incomplete,
        };
        assert_eq!(
            shown(&call),
            json!({"type": "function_call", "id": "x", "call_id": "c", "name": "f", "arguments": "{}",
                   "status": "incomplete"})
        );
    }
}
