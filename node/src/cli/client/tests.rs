//! A small server for the tests of the clients: answers what it is told to, can break off in mid-stream, and keeps
//! what it was asked. Time may be paused: nothing here waits for a clock.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::Response;
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::failure::Failure;
use super::{ApiClient, Call};

#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    /// With its query.
    pub path: String,
    pub key: Option<String>,
    pub bearer: Option<String>,
    pub body: Value,
}

#[derive(Clone)]
pub enum Reply {
    Json(u16, Vec<(&'static str, String)>, Value),
    /// Events, then (`until`) a wait, then more of them; `cut` breaks the connection off instead of ending it.
    Events {
        first: Vec<String>,
        until: Option<Arc<Notify>>,
        rest: Vec<String>,
        cut: bool,
    },
}

pub struct FakeServer {
    pub url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Reply {
    pub fn ok(body: Value) -> Self {
        Self::Json(200, vec![], body)
    }

    pub fn refused(status: u16, retry_after_ms: u64) -> Self {
        let headers = vec![("retry-after-ms", retry_after_ms.to_string()), ("x-request-id", "req_7".to_owned())];
        Self::Json(status, headers, json!({"error": {"message": "No.", "type": "t", "param": null, "code": null}}))
    }

    pub fn events(events: &[String]) -> Self {
        Self::Events { first: events.to_vec(), until: None, rest: vec![], cut: false }
    }

    pub fn cut_after(events: &[String]) -> Self {
        Self::Events { first: events.to_vec(), until: None, rest: vec![], cut: true }
    }

    fn into_response(self) -> Response {
        match self {
            Self::Json(status, headers, body) => {
                let start = Response::builder().status(status);
                let start = headers.into_iter().fold(start, |response, (name, value)| response.header(name, value));
                start.body(Body::from(body.to_string())).unwrap()
            }
            Self::Events { first, until, rest, cut } => {
                let gate = async move {
                    if let Some(until) = until {
                        until.notified().await;
                    }
                    Ok(Bytes::new())
                };
                let end = if cut { Err(std::io::Error::other("cut")) } else { Ok(Bytes::new()) };
                let bytes = |events: Vec<String>| futures::stream::iter(events).map(|event| Ok(Bytes::from(event)));
                let body = bytes(first).chain(futures::stream::once(gate)).chain(bytes(rest));
                // The pause lets hyper flush what came before the error.
                let pause = futures::stream::once(async move {
                    for _ in 0..20 {
                        tokio::task::yield_now().await;
                    }
                    end
                });
                Response::new(Body::from_stream(body.chain(pause)))
            }
        }
    }
}

impl FakeServer {
    pub async fn with(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(vec![]));
        let (record, answer) = (seen.clone(), Arc::new(answer));
        let handler = move |request: Request| {
            let (record, answer) = (record.clone(), answer.clone());
            async move {
                let one = read(request).await;
                record.lock().unwrap().push(one.clone());
                Ok::<_, Infallible>(answer(&one).into_response())
            }
        };
        let serve = axum::serve(listener, axum::Router::new().fallback(handler));
        tokio::spawn(async move { serve.await });
        Self { url, seen }
    }

    /// Answers in this order, whatever is asked.
    pub async fn script(replies: impl IntoIterator<Item = Reply>) -> Self {
        let replies = Mutex::new(replies.into_iter().collect::<VecDeque<_>>());
        Self::with(move |seen| {
            replies
                .lock()
                .unwrap()
                .pop_front()
                .unwrap_or_else(|| panic!("{} {} was not expected", seen.method, seen.path))
        })
        .await
    }

    pub fn client(&self) -> ApiClient {
        ApiClient::new(reqwest::Client::new(), &self.url).unwrap()
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// `METHOD path` of all that was asked.
    pub fn asked(&self) -> Vec<String> {
        self.seen().iter().map(|seen| format!("{} {}", seen.method, seen.path)).collect()
    }
}

async fn read(request: Request) -> Seen {
    let (parts, body) = request.into_parts();
    let header = |name: &str| parts.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let (key, bearer) = (header("idempotency-key"), header("authorization"));
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let body = serde_json::from_slice(&body).unwrap_or_default();
    Seen { method: parts.method.to_string(), path: parts.uri.to_string(), key, bearer, body }
}

/// The events of a response that says `deltas`; the last one has this `end` (`completed`, `failed`, …).
pub fn events_of(response: &str, conversation: &str, deltas: &[&str], end: &str) -> Vec<String> {
    let text = deltas.concat();
    let base = |status: &str, output: Value| json!({"id": response, "object": "response", "status": status, "conversation": {"id": conversation}, "output": output, "error": null});
    let part = json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []});
    let item = json!({"id": response.replace("resp_", "msg_"), "type": "message", "role": "assistant", "status": "completed", "content": [part]});
    let mut events = vec![json!({"type": "response.created", "response": base("in_progress", json!([]))})];
    events.extend(
        deltas.iter().map(|delta| json!({"type": "response.output_text.delta", "delta": delta, "logprobs": []})),
    );
    events.push(json!({"type": "response.output_text.done", "text": text}));
    let kind = if end == "cancelled" { "incomplete" } else { end };
    events.push(json!({"type": format!("response.{kind}"), "response": base(end, json!([item]))}));
    let mut lines: Vec<_> = events.into_iter().enumerate().map(|(number, event)| as_event(number, event)).collect();
    lines.push("data: [DONE]\n\n".to_owned());
    lines
}

fn as_event(number: usize, mut event: Value) -> String {
    event["sequence_number"] = json!(number);
    format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_refused_post_is_repeated_with_the_same_key_and_the_bearer() {
    let server =
        FakeServer::script([Reply::refused(503, 1500), Reply::refused(429, 10), Reply::ok(json!({"id": "x"}))]).await;
    let client = server.client();
    client.set_bearer("secret").unwrap();
    let before = tokio::time::Instant::now();
    let answer: Value = client.patiently(&Call::post("/v1/conversations", "{}")).await.unwrap();
    assert_eq!(answer["id"], "x");
    assert!(before.elapsed().as_millis() >= 1510, "the server's wish is honoured");
    let seen = server.seen();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|one| one.key.is_some() && one.key == seen[0].key));
    assert_eq!(seen[0].bearer.as_deref(), Some("Bearer secret"));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stays_away_is_given_up_after_a_minute() {
    let client = ApiClient::new(reqwest::Client::new(), "http://127.0.0.1:1").unwrap();
    let before = tokio::time::Instant::now();
    let failure = client.patiently::<Value>(&Call::get("/v1/models")).await.unwrap_err();
    assert!(matches!(failure, Failure::Unreachable { .. }), "{failure}");
    assert!((50..=61).contains(&before.elapsed().as_secs()));
}

#[tokio::test]
async fn what_cannot_be_helped_is_not_repeated() {
    let server = FakeServer::script([Reply::refused(404, 1)]).await;
    let failure = server.client().patiently::<Value>(&Call::get("/v1/models/x")).await.unwrap_err();
    assert_eq!(failure.to_string(), "there is no such thing here (HTTP 404): No. [request req_7]");
}

#[test]
fn a_base_url_may_end_as_sdks_have_it_and_must_be_one() {
    let base = |url| ApiClient::new(reqwest::Client::new(), url).map(|client| client.base.to_string());
    for url in ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"] {
        assert_eq!(base(url).as_deref(), Ok("http://h:1"));
    }
    assert!(base("127.0.0.1:8080").is_err());
    assert!(base("ftp://h").is_err());
}

#[test]
fn keys_differ() {
    assert_ne!(super::new_key(), super::new_key());
    assert_eq!(super::new_key().len(), 32);
}
