//! A client of the HTTP API as the tests need it: it times what it sees, notices every token that is missing, repeated or
//! told differently, and never tries again by itself.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use futures::StreamExt;
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::history::Stored;

/// Connecting on one machine takes no time; a node that is frozen accepts all the same.
const CONNECT_MAX: Duration = Duration::from_secs(2);
const PAGE: usize = 100;

/// Speaks for one user to any node.
#[derive(Clone)]
pub struct Api {
    http: Client,
    token: String,
}

/// A turn to be sent.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    pub conversation: &'a str,
    pub model: &'a str,
    pub text: &'a str,
    pub key: Option<&'a str>,
}

/// When a stream is given up as silent.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// No byte came for so long, a comment neither.
    pub bytes: Duration,
    /// No event came for so long.
    pub events: Duration,
}

/// What a turn was answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Completed {
        reply: String,
    },
    /// It ended in another way: `failed`, `incomplete`, `cancelled`.
    Ended {
        status: String,
    },
    /// HTTP status of a refusal.
    Refused {
        status: u16,
        why: String,
    },
    /// No answer, or half of one.
    Nothing,
}

/// What has been seen of one response's stream, over however many connections.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub response: Option<String>,
    /// Sequence number of the event that comes next.
    pub next: u64,
    pub pieces: Vec<Piece>,
    /// Events that came again, and that were left out.
    pub repeated: u64,
    pub missing: u64,
    /// Type of the last event, once it came.
    pub ended: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Piece {
    pub text: String,
    pub at: Instant,
}

/// How one connection of a stream came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With `[DONE]`.
    Done,
    /// In the middle.
    Cut,
    /// Nothing came for too long.
    Silent,
}

impl Seen {
    pub fn text(&self) -> String {
        self.pieces.iter().map(|piece| piece.text.as_str()).collect()
    }

    /// The longest time between two tokens.
    pub fn longest_gap(&self) -> Duration {
        let pauses = self.pieces.windows(2).map(|pair| pair[1].at - pair[0].at);
        pauses.max().unwrap_or_default()
    }

    fn event(&mut self, event: &Value) {
        if let Some(id) = event["response"]["id"].as_str() {
            self.response = Some(id.to_owned());
        }
        let Some(sequence) = event["sequence_number"].as_u64() else { return };
        if sequence < self.next {
            self.repeated += 1;
            return;
        }
        self.missing += sequence - self.next;
        self.next = sequence + 1;
        match event["type"].as_str().unwrap_or_default() {
            "response.output_text.delta" => {
                let text = event["delta"].as_str().unwrap_or_default().to_owned();
                self.pieces.push(Piece { text, at: Instant::now() });
            }
            ended @ ("response.completed" | "response.incomplete" | "response.failed") => {
                self.ended = Some(ended.to_owned());
            }
            _ => {}
        }
    }
}

impl Api {
    pub fn new(token: String) -> anyhow::Result<Self> {
        // A connection that is kept to an address that vanished breaks only when it is used again.
        let http =
            Client::builder().no_proxy().connect_timeout(CONNECT_MAX).tcp_nodelay(true).pool_max_idle_per_host(0);
        Ok(Self::over(http.build()?, token))
    }

    /// Over connections as this client makes and keeps them.
    pub fn over(http: Client, token: String) -> Self {
        Self { http, token }
    }

    fn get(&self, url: &str) -> RequestBuilder {
        self.http.get(url).bearer_auth(&self.token)
    }

    fn post(&self, url: &str, ask: &Ask, stream: bool) -> RequestBuilder {
        let body = json!({"model": ask.model, "input": ask.text, "conversation": ask.conversation, "stream": stream});
        let request = self.http.post(format!("{url}/v1/responses")).bearer_auth(&self.token).json(&body);
        match ask.key {
            Some(key) => request.header("Idempotency-Key", key),
            None => request,
        }
    }

    /// Its id.
    pub async fn create(&self, url: &str) -> anyhow::Result<String> {
        let created = self.http.post(format!("{url}/v1/conversations")).bearer_auth(&self.token).json(&json!({}));
        let created: Value = created.send().await?.error_for_status()?.json().await?;
        created["id"].as_str().map(str::to_owned).context("a conversation has an id")
    }

    /// Sends a turn in the background; the id of its response.
    pub async fn begin(&self, url: &str, ask: &Ask<'_>) -> anyhow::Result<String> {
        let body = json!({"model": ask.model, "input": ask.text, "conversation": ask.conversation, "background": true});
        let begun = self.http.post(format!("{url}/v1/responses")).bearer_auth(&self.token).json(&body);
        let begun: Value = begun.send().await?.error_for_status()?.json().await?;
        begun["id"].as_str().map(str::to_owned).context("a response has an id")
    }

    /// The head of a request, for those who write and read the connection themselves.
    pub fn head(&self, path: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nhost: klatch\r\nauthorization: Bearer {}\r\n\r\n", self.token)
    }

    /// Sends a turn and waits for its end, at most so long.
    pub async fn turn(&self, url: &str, ask: &Ask<'_>, patience: Duration) -> Answer {
        let answered = async {
            let answer = self.post(url, ask, false).send().await?;
            let status = answer.status();
            anyhow::Ok((status, answer.text().await?))
        };
        match tokio::time::timeout(patience, answered).await {
            Ok(Ok((StatusCode::OK, body))) => serde_json::from_str(&body).map_or(Answer::Nothing, |body| ended(&body)),
            Ok(Ok((status, why))) => Answer::Refused { status: status.as_u16(), why },
            Ok(Err(_)) | Err(_) => Answer::Nothing,
        }
    }

    /// Sends a turn and reads its stream, as long as something comes at least so often.
    pub async fn stream(
        &self,
        url: &str,
        ask: &Ask<'_>,
        patience: Patience,
        told: &mut impl Tell,
    ) -> Result<End, Answer> {
        self.follow(self.post(url, ask, true), patience, told).await
    }

    /// Reads a stream on behind what was seen of it.
    pub async fn resume(&self, url: &str, patience: Patience, told: &mut impl Tell) -> Result<End, Answer> {
        let seen = told.seen();
        let response = seen.response.clone().unwrap_or_default();
        let after = seen.next.checked_sub(1).map(|last| format!("&starting_after={last}")).unwrap_or_default();
        let request = self.get(&format!("{url}/v1/responses/{response}?stream=true{after}"));
        self.follow(request, patience, told).await
    }

    async fn follow(&self, request: RequestBuilder, patience: Patience, told: &mut impl Tell) -> Result<End, Answer> {
        let answer = match tokio::time::timeout(patience.events, request.send()).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => return Err(Answer::Nothing),
        };
        if answer.status() != StatusCode::OK {
            let status = answer.status().as_u16();
            return Err(Answer::Refused { status, why: answer.text().await.unwrap_or_default() });
        }
        let mut body = answer.bytes_stream();
        let (mut frames, mut newest) = (Frames::default(), Instant::now());
        loop {
            let left = patience.events.saturating_sub(newest.elapsed()).min(patience.bytes);
            let bytes = match tokio::time::timeout(left, body.next()).await {
                Err(_) => return Ok(End::Silent),
                Ok(None | Some(Err(_))) => return Ok(End::Cut),
                Ok(Some(Ok(bytes))) => bytes,
            };
            for frame in frames.add(&bytes) {
                if frame == "[DONE]" {
                    return Ok(End::Done);
                }
                if let Ok(event) = serde_json::from_str(&frame) {
                    newest = Instant::now();
                    told.seen().event(&event);
                    told.changed();
                }
            }
        }
    }

    pub async fn response(&self, url: &str, id: &str) -> anyhow::Result<Value> {
        let answer = self.get(&format!("{url}/v1/responses/{id}")).send().await?;
        Ok(answer.error_for_status()?.json().await?)
    }

    /// All turns of a conversation, as this node shows them; within this time or not at all.
    pub async fn turns(&self, url: &str, conversation: &str, patience: Duration) -> anyhow::Result<Vec<Stored>> {
        let reading = async {
            let (mut after, mut texts) = (String::new(), Vec::new());
            loop {
                let page = format!("{url}/v1/conversations/{conversation}/items?order=asc&limit={PAGE}{after}");
                let page: Value = self.get(&page).send().await?.error_for_status()?.json().await?;
                for item in page["data"].as_array().context("a page has data")? {
                    let text = item["content"][0]["text"].as_str().context("an item has a text")?;
                    texts.push((item["role"].as_str().unwrap_or_default().to_owned(), text.to_owned()));
                }
                if page["has_more"] != true {
                    return pairs(texts);
                }
                after = format!("&after={}", page["last_id"].as_str().context("a page has a last id")?);
            }
        };
        tokio::time::timeout(patience, reading).await.context("the items were not read in time")?
    }
}

/// Where a stream is written down while it is read.
pub trait Tell {
    fn seen(&mut self) -> &mut Seen;

    /// Something was added.
    fn changed(&mut self) {}
}

impl Tell for Seen {
    fn seen(&mut self) -> &mut Seen {
        self
    }
}

/// The text of a response's output.
pub fn reply_of(response: &Value) -> String {
    let parts = response["output"].as_array().into_iter().flatten();
    let parts = parts.flat_map(|item| item["content"].as_array().into_iter().flatten());
    parts.filter_map(|part| part["text"].as_str()).collect()
}

fn ended(response: &Value) -> Answer {
    match response["status"].as_str().unwrap_or_default() {
        "completed" => Answer::Completed { reply: reply_of(response) },
        status => {
            Answer::Ended { status: format!("{status}: {} {}", response["error"], response["incomplete_details"]) }
        }
    }
}

/// Each input with the reply behind it: the two enter a conversation together.
fn pairs(texts: Vec<(String, String)>) -> anyhow::Result<Vec<Stored>> {
    let mut turns = Vec::new();
    let mut texts = texts.into_iter();
    while let Some((role, text)) = texts.next() {
        ensure!(role == "user", "a reply stands without its input: {text:?}");
        match texts.next() {
            Some((role, reply)) if role == "assistant" => turns.push(Stored { text, reply }),
            other => bail!("{text:?} has no reply but {other:?}"),
        }
    }
    Ok(turns)
}

/// Takes a stream apart into the `data` of its events.
#[derive(Default)]
struct Frames {
    rest: Vec<u8>,
}

impl Frames {
    fn add(&mut self, bytes: &[u8]) -> Vec<String> {
        self.rest.extend_from_slice(bytes);
        let mut frames = Vec::new();
        while let Some(end) = self.rest.windows(2).position(|pair| pair == b"\n\n") {
            let block: Vec<u8> = self.rest.drain(..end + 2).collect();
            let block = String::from_utf8_lossy(&block);
            frames.extend(block.lines().find_map(|line| line.strip_prefix("data: ")).map(str::to_owned));
        }
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_however_they_are_cut() {
        let stream = b": comment\n\nevent: a\ndata: {\"n\":1}\n\ndata: [DONE]\n\n";
        for cut in 0..stream.len() {
            let mut frames = Frames::default();
            let found = [frames.add(&stream[..cut]), frames.add(&stream[cut..])].concat();
            assert_eq!(found, ["{\"n\":1}", "[DONE]"], "cut at {cut}");
        }
    }

    #[test]
    fn what_is_missing_and_what_comes_again_is_counted() {
        let mut seen = Seen::default();
        let delta =
            |n: u64| json!({"type": "response.output_text.delta", "sequence_number": n, "delta": n.to_string()});
        for n in [0, 1, 1, 4, 2] {
            seen.event(&delta(n));
        }
        assert_eq!((seen.text().as_str(), seen.missing, seen.repeated, seen.next), ("014", 2, 2, 5));
    }

    #[test]
    fn a_conversation_is_read_as_turns() {
        let item = |role: &str, text: &str| (role.to_owned(), text.to_owned());
        let turns = pairs(vec![item("user", "a"), item("assistant", "b")]).unwrap();
        assert_eq!(turns, [Stored { text: "a".into(), reply: "b".into() }]);
        assert!(pairs(vec![item("user", "a"), item("user", "b")]).is_err());
        assert!(pairs(vec![item("assistant", "a")]).is_err());
    }
}
