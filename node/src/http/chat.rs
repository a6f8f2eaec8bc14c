//! `POST /chat/completions`: straight to a responder and back. Nothing is stored, nothing is queued, and a client
//! that goes away takes its call with it.

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use futures::stream::BoxStream;
use klatch_actors::responder::{Ask, End, ResponderError, Said};
use klatch_protocol::event::Call;
use klatch_protocol::{ConversationId, Item};
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;

use super::edge::{Edge, now_ms};
use super::errors::{ApiError, Refused};
use super::extract::Sent;
use super::stream::stream_headers;
use super::wire::chat::{
    Answer, Chat, ChatCompletion, ChatUsage, Choice, CreateChatCompletion, finish_reason, tool_call,
};
use super::wire::events::{DONE, KEEP_ALIVE};

/// Told to who finds no room: a completion takes about so long.
const RETRY_AFTER_MS: u64 = 1_000;

type Reply = BoxStream<'static, Result<Said, ResponderError>>;

/// What stands in every chunk.
struct Head {
    id: String,
    created: u64,
    model: String,
}

/// Answers a chat without keeping it.
#[utoipa::path(post, path = "/v1/chat/completions", tag = "chat", request_body = CreateChatCompletion,
    responses(
        (status = 200, description = "The completion, or with `stream` its chunks", content(
            (ChatCompletion = "application/json"),
            (super::openapi::ServerSentEvent = "text/event-stream"),
        )),
        Refused,
    ))]
pub async fn create(
    State(edge): State<Edge>,
    Sent { body, .. }: Sent<CreateChatCompletion>,
) -> Result<Response, ApiError> {
    let chat = body.check()?;
    let unknown = || ApiError::unknown_model(&chat.model, StatusCode::NOT_FOUND);
    let responder = edge.responders.get(&chat.model).ok_or_else(unknown)?;
    let full = |_| ApiError::too_many("as many chat completions are under way as this node allows", RETRY_AFTER_MS);
    let permit = edge.chats.clone().try_acquire_owned().map_err(full)?;
    let conversation = ConversationId::random();
    let head = Head { id: chat_id(conversation), created: now_ms() / 1_000, model: chat.model.clone() };
    let mut reply = responder.respond(ask(conversation, &chat));
    if !chat.stream {
        let whole = tokio::time::timeout(edge.options.limits.wait_max, collect(&mut reply)).await;
        let late = |_| ApiError::unavailable("the model takes longer than a request may wait");
        return Ok(Json(completion(head, whole.map_err(late)??)).into_response());
    }
    // A refusal before the first word can still be told with a status.
    let first = tokio::time::timeout(edge.options.limits.wait_max, reply.next()).await;
    let first = first.map_err(|_| ApiError::unavailable("the model does not begin to answer"))?.transpose()?;
    let chunks = Chunks {
        head,
        reply: Box::pin(futures::stream::iter(first.map(Ok)).chain(reply)),
        include_usage: chat.include_usage,
        calls: 0,
        begun: false,
        over: false,
        keep_alive: edge.options.limits.keep_alive,
        _permit: permit,
    };
    let frames = futures::stream::unfold(chunks, |mut chunks| async move {
        let frame = chunks.next_frame().await?;
        Some((frame, chunks))
    });
    Ok((stream_headers(), Body::from_stream(frames)).into_response())
}

fn chat_id(conversation: ConversationId) -> String {
    format!("chatcmpl-{:032x}", u128::from_be_bytes(conversation.0))
}

/// A conversation of one turn, which nobody will see again: all but the last message is its history.
fn ask(conversation: ConversationId, chat: &Chat) -> Ask {
    let mut items: Vec<Item> = (0..)
        .zip(&chat.messages)
        .map(|(ordinal, body)| Item { ordinal, client_id: None, body: body.clone().into() })
        .collect();
    let input = items.split_off(items.len().saturating_sub(1));
    Ask {
        model: chat.model.clone().into(),
        conversation,
        turn: 0,
        attempt: 1,
        request: chat.options.to_json().into(),
        history: items.into_iter().map(std::sync::Arc::new).collect(),
        input,
        partial: String::new(),
        memory: None,
        traced: klatch_actors::trace::current(),
    }
}

#[derive(Default)]
struct Whole {
    text: String,
    calls: Vec<Call>,
    end: End,
}

async fn collect(reply: &mut Reply) -> Result<Whole, ResponderError> {
    let mut whole = Whole::default();
    while let Some(said) = reply.next().await {
        match said? {
            Said::Text(text) => whole.text.push_str(&text),
            Said::Call(call) => whole.calls.push(call),
            Said::End(end) => {
                whole.end = end;
                break;
            }
        }
    }
    Ok(whole)
}

fn completion(head: Head, Whole { text, calls, end }: Whole) -> ChatCompletion {
    let choice = Choice {
        index: 0,
        finish_reason: finish_reason(end.incomplete, !calls.is_empty()),
        message: Answer {
            role: "assistant",
            content: (!text.is_empty() || calls.is_empty()).then_some(text),
            refusal: None,
            tool_calls: calls.iter().map(tool_call).collect(),
        },
        logprobs: None,
    };
    let Head { id, created, model } = head;
    let usage = ChatUsage::from(end.usage);
    ChatCompletion { id, object: "chat.completion", created, model, choices: vec![choice], usage }
}

struct Chunks {
    head: Head,
    reply: Reply,
    include_usage: bool,
    calls: usize,
    begun: bool,
    over: bool,
    keep_alive: std::time::Duration,
    _permit: OwnedSemaphorePermit,
}

impl Chunks {
    async fn next_frame(&mut self) -> Option<Result<Bytes, ResponderError>> {
        if self.over {
            return None;
        }
        let frame = match tokio::time::timeout(self.keep_alive, self.reply.next()).await {
            Err(_) => Bytes::from_static(KEEP_ALIVE),
            Ok(Some(Ok(said))) => self.frame(said).into(),
            Ok(Some(Err(error))) => {
                self.over = true;
                error_frame(&error).into()
            }
            Ok(None) => self.frame(Said::End(End::default())).into(),
        };
        Some(Ok(frame))
    }

    fn frame(&mut self, said: Said) -> Vec<u8> {
        let mut out = Vec::new();
        if !std::mem::replace(&mut self.begun, true) {
            self.write(&mut out, choices(json!({"role": "assistant", "content": ""}), None), Value::Null);
        }
        match said {
            Said::Text(text) => self.write(&mut out, choices(json!({"content": text}), None), Value::Null),
            Said::Call(call) => {
                let mut shown = tool_call(&call);
                shown["index"] = self.calls.into();
                self.calls += 1;
                self.write(&mut out, choices(json!({"tool_calls": [shown]}), None), Value::Null);
            }
            Said::End(end) => self.write_end(&mut out, &end),
        }
        out
    }

    fn write_end(&mut self, out: &mut Vec<u8>, end: &End) {
        self.over = true;
        let reason = finish_reason(end.incomplete, self.calls > 0);
        self.write(out, choices(json!({}), Some(reason)), Value::Null);
        if self.include_usage {
            self.write(out, json!([]), json!(ChatUsage::from(end.usage)));
        }
        out.extend_from_slice(DONE);
    }

    fn write(&self, out: &mut Vec<u8>, choices: Value, usage: Value) {
        let Head { id, created, model } = &self.head;
        let mut chunk = json!({
            "id": id, "object": "chat.completion.chunk", "created": created, "model": model, "choices": choices,
        });
        if self.include_usage {
            chunk["usage"] = usage;
        }
        out.extend_from_slice(format!("data: {chunk}\n\n").as_bytes());
    }
}

fn choices(delta: Value, finish_reason: Option<&str>) -> Value {
    json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason}])
}

/// The SDKs raise it as an error of the API.
fn error_frame(error: &ResponderError) -> Vec<u8> {
    let error = json!({"message": error.message, "type": "server_error", "param": null, "code": error.code});
    format!("data: {}\n\n", json!({ "error": error })).into_bytes()
}
