//! The client of a measurement: it asks for conversations and turns, and refuses every answer but the right one.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures::stream::{self, StreamExt, TryStreamExt};
use reqwest::Client;
use serde_json::{Value, json};

/// Items that one request may add.
const ITEMS_AT_ONCE: usize = 20;
/// Longer than any answer here takes, however busy the machine.
const PATIENCE: Duration = Duration::from_secs(120);
const DELTA: &[u8] = b"\"delta\":\"";

#[derive(Clone)]
pub struct Api {
    pub http: Client,
    pub url: String,
    token: String,
}

/// What came of a stream, and when.
#[derive(Debug, Default)]
pub struct Told {
    /// Of each delta: when it came, and its text.
    pub deltas: Vec<(Instant, String)>,
    /// The last event that is no delta.
    pub last: Vec<u8>,
    pub done: bool,
}

impl Api {
    pub fn new(url: String, token: String) -> anyhow::Result<Self> {
        let http = Client::builder().no_proxy().timeout(PATIENCE).build()?;
        Ok(Self { http, url, token })
    }

    /// The same user at another node.
    pub fn at(&self, url: &str) -> Self {
        Self { url: url.to_owned(), ..self.clone() }
    }

    pub async fn post(&self, path: &str, body: Value) -> anyhow::Result<Value> {
        let sent = self.http.post(format!("{}{path}", self.url)).bearer_auth(&self.token).json(&body).send().await?;
        Ok(sent.error_for_status()?.json().await?)
    }

    /// A new one, of so many items.
    pub async fn conversation(&self, items: usize) -> anyhow::Result<String> {
        let made = self.post("/v1/conversations", json!({})).await?;
        let id = made["id"].as_str().context("a conversation has an id")?.to_owned();
        let message = |n| json!({"type": "message", "role": "user", "content": text(n)});
        for first in (0..items).step_by(ITEMS_AT_ONCE) {
            let some: Vec<Value> = (first..items.min(first + ITEMS_AT_ONCE)).map(message).collect();
            self.post(&format!("/v1/conversations/{id}/items"), json!({"items": some})).await?;
        }
        Ok(id)
    }

    pub async fn conversations(&self, count: usize, items: usize, at_once: usize) -> anyhow::Result<Vec<String>> {
        let made = stream::iter(0..count).map(|_| self.conversation(items)).buffer_unordered(at_once);
        made.try_collect().await
    }

    /// A turn of `echo`, whose answer must be its input.
    pub async fn echoed(&self, conversation: &str, n: usize) -> anyhow::Result<()> {
        let said = self.turn(conversation, "echo", n).await?;
        ensure!(said == text(n), "turn {n} was answered with {said:?}");
        Ok(())
    }

    pub async fn turn(&self, conversation: &str, model: &str, n: usize) -> anyhow::Result<String> {
        let body = json!({"model": model, "input": text(n), "conversation": conversation});
        let response = self.post("/v1/responses", body).await?;
        ensure!(response["status"] == "completed", "turn {n} was answered with {response}");
        Ok(response["output"][0]["content"][0]["text"].as_str().unwrap_or_default().to_owned())
    }

    /// So many turns, spread over the conversations, each of which is asked by one client at a time.
    pub async fn turns(&self, conversations: &[String], model: &str, turns: usize) -> anyhow::Result<()> {
        let clients = conversations.iter().enumerate().map(|(client, conversation)| async move {
            for n in (client..turns).step_by(conversations.len()) {
                if model == "echo" {
                    self.echoed(conversation, n).await?;
                } else {
                    self.turn(conversation, model, n).await?;
                }
            }
            anyhow::Ok(())
        });
        futures::future::try_join_all(clients).await.map(drop)
    }

    /// A turn whose answer is streamed; none: in a conversation of its own.
    pub async fn streamed(&self, conversation: Option<&str>, model: &str, input: &str) -> anyhow::Result<Told> {
        let mut body = json!({"model": model, "input": input, "stream": true});
        if let Some(conversation) = conversation {
            body["conversation"] = conversation.into();
        }
        let request = self.http.post(format!("{}/v1/responses", self.url)).bearer_auth(&self.token).json(&body);
        let told = read(request, DELTA).await?;
        let last = String::from_utf8_lossy(&told.last);
        ensure!(last.contains("response.completed"), "the stream ended with {last}");
        Ok(told)
    }
}

/// Reads a stream of events to its end, and picks from each what stands behind `mark` up to the next quotation mark.
/// Nothing of a measurement's texts is escaped.
pub async fn read(request: reqwest::RequestBuilder, mark: &[u8]) -> anyhow::Result<Told> {
    let mut body = request.send().await?.error_for_status()?.bytes_stream();
    let (mut told, mut rest) = (Told::default(), Vec::new());
    while let Some(bytes) = body.next().await {
        let now = Instant::now();
        rest.extend_from_slice(&bytes?);
        while let Some(end) = rest.windows(2).position(|pair| pair == b"\n\n") {
            let event: Vec<u8> = rest.drain(..end + 2).collect();
            // Some servers begin with an empty piece that says whose turn it is.
            if let Some(text) = behind(&event, mark).filter(|text| !text.is_empty()) {
                told.deltas.push((now, text));
            } else if event.starts_with(b"data: [DONE]") {
                told.done = true;
            } else {
                told.last = event;
            }
        }
    }
    ensure!(told.done, "the stream was cut");
    Ok(told)
}

fn behind(event: &[u8], mark: &[u8]) -> Option<String> {
    let at = event.windows(mark.len()).position(|part| part == mark)? + mark.len();
    let end = event[at..].iter().position(|byte| *byte == b'"')?;
    Some(String::from_utf8_lossy(&event[at..at + end]).into_owned())
}

/// A text of some 200 bytes: what people write.
pub fn text(n: usize) -> String {
    format!("{n} {}", "x".repeat(190))
}
