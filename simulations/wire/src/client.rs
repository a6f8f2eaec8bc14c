//! A client: one conversation, one turn after the other, each under its key, over one connection for each request; it
//! reads streams, notices what is missing, repeated or told differently, and goes on with `starting_after` at any node.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use klatch::net::Net;
use klatch_world::responder::whole_reply;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::net::Wire;
use crate::node::HTTP_PORT;
use crate::responder::MODEL;
use crate::shared::Shared;

/// Of a connection, and of an answer's head: a turn that is accepted is told at once, but for a node that looks for its owner.
const CONNECT_MAX: Duration = Duration::from_secs(2);
const ANSWER_MAX: Duration = Duration::from_secs(13);
/// A stream says something each second.
const SILENCE_MAX: Duration = Duration::from_secs(3);
const AGAIN_AFTER_MAX: Duration = Duration::from_millis(800);
/// Items of a page.
const PAGE: usize = 100;

pub struct Client {
    pub name: String,
    pub shared: Arc<Shared>,
    pub net: Wire,
    pub nodes: Vec<String>,
    pub token: String,
}

/// What was seen of one turn's stream, over however many connections.
#[derive(Default)]
struct Seen {
    response: Option<String>,
    events: Vec<Value>,
    is_over: bool,
}

/// Why a request came to nothing; it can be sent again.
enum Again {
    NotConnected,
    BrokenOff,
    Silent,
    Refused(u16),
}

impl Client {
    /// Until all its turns are done.
    pub async fn run(self, turns: usize, until: Duration) -> turmoil::Result {
        let conversation = self.begin().await;
        let mut said = Vec::new();
        for turn in 0..turns {
            if self.shared.elapsed() > until {
                break;
            }
            let text = format!("{}/{turn}", self.name);
            let reply = self.turn(&conversation, &text).await;
            said.extend([text, reply]);
            tokio::time::sleep(self.shared.dice.up_to(Duration::from_secs(1))).await;
        }
        let items = self.items(&conversation).await;
        if items != said {
            self.shared.fail(format_args!("{} said {said:?} in {conversation}, which has {items:?}", self.name));
        }
        self.shared.trace(format_args!("{} is done with {} turns", self.name, said.len() / 2));
        Ok(())
    }

    async fn begin(&self) -> String {
        let key = format!("{}/begin", self.name);
        loop {
            if let Some(made) = self.json(Method::POST, "/v1/conversations", Some(&key), Some(json!({}))).await
                && let Some(id) = made["id"].as_str()
            {
                return id.to_owned();
            }
        }
    }

    /// The reply, as it was shown and is stored.
    async fn turn(&self, conversation: &str, text: &str) -> String {
        let mut seen = Seen::default();
        let body = json!({"model": MODEL, "input": text, "conversation": conversation, "stream": true});
        while !seen.is_over && self.shared.failure().is_none() {
            let next = seen.events.len();
            let asked = match (&seen.response, next) {
                (Some(response), 1..) if !self.shared.dice.permille(100) => {
                    self.shared.count("streams resumed", 1);
                    let path = format!("/v1/responses/{response}?stream=true&starting_after={}", next - 1);
                    self.send(Method::GET, &path, None, None).await
                }
                _ => self.send(Method::POST, "/v1/responses", Some(text), Some(body.clone())).await,
            };
            let read = match asked {
                Ok(answer) if answer.status() == 200 => self.read(answer, &mut seen).await,
                Ok(answer) => Err(Again::Refused(answer.status().as_u16())),
                Err(again) => Err(again),
            };
            if let Err(again) = read {
                self.again(again).await;
            }
        }
        let shown = seen.text();
        if self.shared.failure().is_some() {
            return shown;
        }
        let (id, whole) = (seen.response.clone().unwrap_or_default(), whole_reply(text));
        self.shared.count("turns", 1);
        if shown != whole {
            self.shared.fail(format_args!("{id} showed {shown:?}, and the reply is {whole:?}"));
        }
        self.stored(&id, &shown).await;
        shown
    }

    async fn stored(&self, id: &str, shown: &str) {
        let path = format!("/v1/responses/{id}");
        while self.shared.failure().is_none() {
            let Some(stored) = self.json(Method::GET, &path, None, None).await else { continue };
            let text = stored["output"][0]["content"][0]["text"].as_str().unwrap_or_default();
            if text != shown || stored["status"] != "completed" {
                self.shared.fail(format_args!("{id} showed {shown:?}, and is stored as {stored}"));
            }
            return;
        }
    }

    async fn items(&self, conversation: &str) -> Vec<String> {
        let path = format!("/v1/conversations/{conversation}/items?order=asc&limit={PAGE}");
        let text = |item: &Value| item["content"][0]["text"].as_str().unwrap_or_default().to_owned();
        while self.shared.failure().is_none() {
            if let Some(page) = self.json(Method::GET, &path, None, None).await {
                return page["data"].as_array().into_iter().flatten().map(text).collect();
            }
        }
        Vec::new()
    }

    /// None where it has to be asked again.
    async fn json(&self, method: Method, path: &str, key: Option<&str>, body: Option<Value>) -> Option<Value> {
        let read = match self.send(method, path, key, body).await {
            Ok(answer) if answer.status() == 200 => match timeout(SILENCE_MAX, answer.into_body().collect()).await {
                Ok(Ok(body)) => match serde_json::from_slice(&body.to_bytes()) {
                    Ok(value) => return Some(value),
                    Err(error) => {
                        self.shared.fail(format_args!("{path} was answered with what is no JSON: {error}"));
                        return None;
                    }
                },
                Ok(Err(_)) => Again::BrokenOff,
                Err(_) => Again::Silent,
            },
            Ok(answer) => Again::Refused(answer.status().as_u16()),
            Err(again) => again,
        };
        self.again(read).await;
        None
    }

    async fn again(&self, why: Again) {
        match why {
            Again::NotConnected => self.shared.count("connections refused", 1),
            Again::BrokenOff => self.shared.count("answers broken off", 1),
            Again::Silent => self.shared.count("answers given up as silent", 1),
            Again::Refused(429 | 503) => self.shared.count("requests refused", 1),
            // Nothing that a client has seen may be gone, and no key may be another's.
            Again::Refused(status) => self.shared.fail(format_args!("{} was answered {status}", self.name)),
        }
        tokio::time::sleep(self.shared.dice.up_to(AGAIN_AFTER_MAX)).await;
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: Option<Value>,
    ) -> Result<Response<Incoming>, Again> {
        let node = self.shared.dice.pick(&self.nodes).expect("a world has nodes");
        self.shared.trace(format_args!("{} {method} {path} at {node}", self.name));
        let dialled = timeout(CONNECT_MAX, self.net.dial(&format!("{node}:{HTTP_PORT}"))).await;
        let Ok(Ok(stream)) = dialled else { return Err(Again::NotConnected) };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|_| Again::BrokenOff)?;
        // Its end is the end of what is read over it.
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", node)
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let request = request.body(Full::new(body)).expect("its parts are fine");
        match timeout(ANSWER_MAX, sender.send_request(request)).await {
            Ok(Ok(answer)) => {
                self.shared.trace(format_args!("{} is answered {}", self.name, answer.status().as_u16()));
                Ok(answer)
            }
            Ok(Err(_)) => Err(Again::BrokenOff),
            Err(_) => Err(Again::Silent),
        }
    }

    async fn read(&self, answer: Response<Incoming>, seen: &mut Seen) -> Result<(), Again> {
        let (mut body, mut text) = (answer.into_body(), String::new());
        loop {
            let Ok(frame) = timeout(SILENCE_MAX, body.frame()).await else { return Err(Again::Silent) };
            let Some(Ok(frame)) = frame else { return Err(Again::BrokenOff) };
            let Ok(data) = frame.into_data() else { continue };
            text.push_str(&String::from_utf8_lossy(&data));
            while let Some((event, rest)) = text.split_once("\n\n") {
                let data = event.lines().find_map(|line| line.strip_prefix("data: "));
                match data {
                    Some("[DONE]") if seen.is_whole() => {
                        seen.is_over = true;
                        return Ok(());
                    }
                    Some("[DONE]") => self.shared.fail(format_args!("{} was told half a stream", self.name)),
                    Some(data) => {
                        if let Err(why) = seen.event(data) {
                            self.shared.fail(format_args!("{}, {:?}: {why}", self.name, seen.response));
                        }
                    }
                    None => self.shared.count("signs of life", 1),
                }
                text = rest.to_owned();
            }
        }
    }
}

impl Seen {
    /// Those that come again must be what they were.
    fn event(&mut self, data: &str) -> Result<(), String> {
        let event: Value = serde_json::from_str(data).map_err(|error| format!("{error}: {data}"))?;
        if let Some(id) = event["response"]["id"].as_str() {
            let known = self.response.get_or_insert_with(|| id.to_owned());
            if known != id {
                return Err(format!("the same key is {id} now"));
            }
        }
        let Some(sequence) = event["sequence_number"].as_u64() else { return Err(format!("no number: {data}")) };
        match self.events.get(sequence as usize) {
            Some(known) if self.shown(known) == self.shown(&event) => Ok(()),
            Some(known) => Err(format!("{sequence} was {known}, and is {event}")),
            None if sequence as usize == self.events.len() => {
                self.events.push(event);
                Ok(())
            }
            None => Err(format!("{} is missing, and {sequence} came", self.events.len())),
        }
    }

    /// What may not change: a response that is shown whole says how far it is now.
    fn shown(&self, event: &Value) -> (Value, Value) {
        (event["type"].clone(), event["delta"].clone())
    }

    fn is_whole(&self) -> bool {
        self.events.last().is_some_and(|last| last["type"] == "response.completed")
    }

    fn text(&self) -> String {
        self.events.iter().filter_map(|event| event["delta"].as_str()).collect()
    }
}
