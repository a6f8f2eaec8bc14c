//! Items: what a conversation is made of. The stored form; the wire's JSON is the edge's affair.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Place in the conversation. Ordinals rise in reading order and have gaps.
    pub ordinal: u64,
    /// The id that the client gave it, where it gave one that is not our own form.
    pub client_id: Option<String>,
    /// Shared by all that hold the item: it never changes.
    pub body: Arc<Body>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    Message {
        role: Role,
        status: Status,
        content: Vec<Part>,
    },
    /// A call that the model wants made. `arguments` is JSON text as the model wrote it, valid or not.
    FunctionCall {
        call_id: String,
        name: String,
        arguments: String,
        status: Status,
    },
    /// `output` is the text that the client gave back.
    FunctionCallOutput {
        call_id: String,
        output: String,
        status: Status,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Role {
    User,
    Assistant,
    System,
    Developer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    InProgress,
    Completed,
    Incomplete,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    InputText(String),
    OutputText(String),
    Refusal(String),
    /// An image by URL (`data:` included), for models that see; `detail` is `low`, `high` or `auto`.
    InputImage {
        url: String,
        detail: String,
    },
}

impl Body {
    /// What the item's id begins with.
    pub fn prefix(&self) -> &'static str {
        match self {
            Body::Message { .. } => "msg_",
            Body::FunctionCall { .. } => "fc_",
            Body::FunctionCallOutput { .. } => "fco_",
        }
    }

    /// A completed user message of one text.
    pub fn user(text: impl Into<String>) -> Self {
        Body::Message { role: Role::User, status: Status::Completed, content: vec![Part::InputText(text.into())] }
    }

    /// All text of a message, parts joined; empty for other kinds.
    pub fn text(&self) -> String {
        let Body::Message { content, .. } = self else { return String::new() };
        content.iter().filter_map(Part::text).collect()
    }

    /// Roughly what it weighs in memory and in the store, in bytes.
    pub fn bytes(&self) -> usize {
        const OVERHEAD: usize = 48;
        OVERHEAD
            + match self {
                Body::Message { content, .. } => content
                    .iter()
                    .map(|part| match part {
                        Part::InputText(text) | Part::OutputText(text) | Part::Refusal(text) => text.len(),
                        Part::InputImage { url, .. } => url.len(),
                    })
                    .sum(),
                Body::FunctionCall { call_id, name, arguments, .. } => call_id.len() + name.len() + arguments.len(),
                Body::FunctionCallOutput { call_id, output, .. } => call_id.len() + output.len(),
            }
    }
}

impl Part {
    pub fn text(&self) -> Option<&str> {
        match self {
            Part::InputText(text) | Part::OutputText(text) | Part::Refusal(text) => Some(text),
            Part::InputImage { .. } => None,
        }
    }
}
