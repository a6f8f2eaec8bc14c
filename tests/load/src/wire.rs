//! The request and the answer of the baselines: the same fields as Klatch reads and writes, as a Rust server would have
//! them that does nothing else. Borrows what it reads.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::lists::Turn;

/// Body of `POST /v1/responses`.
#[derive(Deserialize)]
pub struct CreateResponse<'a> {
    #[serde(borrow)]
    pub model: Cow<'a, str>,
    #[serde(borrow)]
    pub input: Cow<'a, str>,
    #[serde(borrow)]
    pub conversation: Cow<'a, str>,
}

#[derive(Serialize)]
pub struct Response<'a> {
    id: &'a str,
    object: &'static str,
    created_at: u64,
    status: &'static str,
    completed_at: Option<u64>,
    error: Option<()>,
    incomplete_details: Option<()>,
    instructions: Option<()>,
    max_output_tokens: Option<u64>,
    max_tool_calls: Option<u64>,
    model: &'a str,
    output: [Message<'a>; 1],
    parallel_tool_calls: bool,
    previous_response_id: Option<()>,
    conversation: Conversation<'a>,
    reasoning: Option<()>,
    store: bool,
    background: bool,
    temperature: f64,
    top_p: f64,
    presence_penalty: f64,
    frequency_penalty: f64,
    top_logprobs: u64,
    text: Text,
    tool_choice: &'static str,
    tools: [(); 0],
    truncation: &'static str,
    service_tier: &'static str,
    safety_identifier: Option<()>,
    prompt_cache_key: Option<()>,
    metadata: Empty,
    usage: Usage,
}

#[derive(Serialize)]
struct Message<'a> {
    r#type: &'static str,
    id: String,
    role: &'static str,
    status: &'static str,
    content: [OutputText<'a>; 1],
}

#[derive(Serialize)]
struct OutputText<'a> {
    r#type: &'static str,
    text: &'a str,
    annotations: [(); 0],
    logprobs: [(); 0],
}

#[derive(Serialize)]
struct Conversation<'a> {
    id: &'a str,
}

#[derive(Serialize)]
struct Text {
    format: Format,
}

#[derive(Serialize)]
struct Format {
    r#type: &'static str,
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct Usage {
    input_tokens: usize,
    input_tokens_details: InputTokens,
    output_tokens: usize,
    output_tokens_details: OutputTokens,
    total_tokens: usize,
}

#[derive(Serialize)]
struct InputTokens {
    cached_tokens: usize,
    cache_write_tokens: usize,
}

#[derive(Serialize)]
struct OutputTokens {
    reasoning_tokens: usize,
}

impl<'a> Response<'a> {
    pub fn new(turn: &'a Turn<'a>, model: &'a str, conversation: &'a str) -> Self {
        let (input_tokens, output_tokens) = (words(&turn.input), words(&turn.output));
        let content = [OutputText { r#type: "output_text", text: &turn.output, annotations: [], logprobs: [] }];
        let id = turn.response.replacen("resp_", "msg_", 1);
        Self {
            id: &turn.response,
            object: "response",
            created_at: turn.at,
            status: "completed",
            completed_at: Some(turn.at),
            error: None,
            incomplete_details: None,
            instructions: None,
            max_output_tokens: None,
            max_tool_calls: None,
            model,
            output: [Message { r#type: "message", id, role: "assistant", status: "completed", content }],
            parallel_tool_calls: true,
            previous_response_id: None,
            conversation: Conversation { id: conversation },
            reasoning: None,
            store: true,
            background: false,
            temperature: 1.0,
            top_p: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            top_logprobs: 0,
            text: Text { format: Format { r#type: "text" } },
            tool_choice: "auto",
            tools: [],
            truncation: "disabled",
            service_tier: "default",
            safety_identifier: None,
            prompt_cache_key: None,
            metadata: Empty {},
            usage: Usage {
                input_tokens,
                input_tokens_details: InputTokens { cached_tokens: 0, cache_write_tokens: 0 },
                output_tokens,
                output_tokens_details: OutputTokens { reasoning_tokens: 0 },
                total_tokens: input_tokens + output_tokens,
            },
        }
    }
}

/// What an echo calls its tokens.
fn words(text: &str) -> usize {
    text.split_ascii_whitespace().count()
}
