//! A receiver of webhooks, whose mood can be changed: it hears, refuses, or hangs. It verifies each signature with the
//! library of Standard Webhooks, and keeps all calls in their order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::Value;
use standardwebhooks::Webhook;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Of these tests.
pub const SECRET: &str = "whsec_a2xhdGNoIHdlYmhvb2sgb2YgdGhlIHRlc3Rz";
pub const SECRET_ENV: &str = "KLATCH_TEST_WEBHOOK_SECRET";

/// Longer than any wait between two attempts here, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Hears,
    Refuses,
    /// Never answers.
    Hangs,
    /// Sends elsewhere: to its own address.
    Redirects,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// It was in the mood to hear.
    pub heard: bool,
    pub verified: bool,
    /// `webhook-id`.
    pub id: String,
    pub body: Value,
}

impl Call {
    pub fn response(&self) -> &str {
        self.body["data"]["id"].as_str().unwrap_or_default()
    }

    pub fn kind(&self) -> &str {
        self.body["type"].as_str().unwrap_or_default()
    }
}

pub struct WebhookReceiver {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

struct Shared {
    mood: watch::Sender<Mood>,
    calls: watch::Sender<Vec<Call>>,
}

impl WebhookReceiver {
    pub async fn start(mood: Mood) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { mood: watch::Sender::new(mood), calls: watch::Sender::default() });
        let router = Router::new().route("/hook", post(called)).with_state(shared.clone());
        let server = tokio::spawn(async move {
            // It ends with the test.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, shared, server })
    }

    pub fn be(&self, mood: Mood) {
        self.shared.mood.send_replace(mood);
    }

    /// A `[[webhook]]` with short waits that points here; with more lines for it.
    pub fn section(&self, more: &str) -> String {
        format!(
            "[[webhook]]\nurl = \"http://{}/hook\"\nsecret_env = \"{SECRET_ENV}\"\nallow_http = true\nallow_private = true\n{more}\n",
            self.address
        )
    }

    pub fn calls(&self) -> Vec<Call> {
        self.shared.calls.borrow().clone()
    }

    /// Those that it heard, each event once, in the order in which it first heard of them.
    pub fn heard(&self) -> Vec<Call> {
        let mut heard: Vec<Call> = Vec::new();
        for call in self.calls().into_iter().filter(|call| call.heard) {
            if heard.iter().all(|other| other.id != call.id) {
                heard.push(call);
            }
        }
        heard
    }

    pub async fn until(&self, what: &str, is: impl Fn(&Self) -> bool) -> anyhow::Result<()> {
        let mut calls = self.shared.calls.subscribe();
        let so = async {
            while !is(self) {
                calls.changed().await?;
            }
            anyhow::Ok(())
        };
        let waited = tokio::time::timeout(PATIENCE, so).await;
        waited.with_context(|| format!("waited in vain until {what}; the calls: {:?}", self.calls()))?
    }
}

impl Drop for WebhookReceiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn called(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: String) -> (StatusCode, HeaderMap) {
    let mood = *shared.mood.borrow();
    let verified = Webhook::new(SECRET).is_ok_and(|webhook| webhook.verify(body.as_bytes(), &headers).is_ok());
    let id = headers.get("webhook-id").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
    let call = Call { heard: mood == Mood::Hears, verified, id, body: body.parse().unwrap_or_default() };
    shared.calls.send_modify(|calls| calls.push(call));
    match mood {
        Mood::Hears => (StatusCode::NO_CONTENT, HeaderMap::new()),
        Mood::Refuses => (StatusCode::INTERNAL_SERVER_ERROR, HeaderMap::new()),
        Mood::Hangs => std::future::pending().await,
        Mood::Redirects => {
            let here = "/hook".parse().expect("a path is a header's value");
            (StatusCode::TEMPORARY_REDIRECT, HeaderMap::from_iter([(axum::http::header::LOCATION, here)]))
        }
    }
}
