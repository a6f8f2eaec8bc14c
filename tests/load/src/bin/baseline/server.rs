//! The edge that all modes share: a token is verified, the body read, and a turn of the mode answered.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::serve::ListenerExt;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use klatch_load::lists::Turn;
use klatch_load::wire::{self, CreateResponse};
use serde::Deserialize;
use tokio::net::TcpListener;

/// A response of some 1,200 bytes without its text.
const RESPONSE_BYTES: usize = 1_500;

/// How a turn is kept.
pub trait Turns: Send + Sync + 'static {
    /// The turn, once it is as durable as this mode makes it; an earlier one where its key was there before.
    fn turn<'a>(&self, asked: &'a Asked<'a>) -> impl Future<Output = Result<Turn<'a>, Refused>> + Send;
}

/// A request that may be made.
pub struct Asked<'a> {
    /// Whose conversation it is.
    pub owner: String,
    pub conversation: &'a str,
    pub input: &'a str,
    /// The client's key, or one that was made for this request alone.
    pub key: Cow<'a, str>,
    /// Id of the response.
    pub response: String,
    /// Seconds since 1970.
    pub at: u64,
}

impl<'a> Asked<'a> {
    /// The turn that becomes of it where these stand before it.
    pub fn answered(&'a self, history: &[Turn]) -> Turn<'a> {
        let output = echo(history, self.input);
        Turn { response: Cow::Borrowed(&self.response), at: self.at, input: Cow::Borrowed(self.input), output }
    }
}

/// What a model would be: it is given the history, and says the input again.
fn echo<'a>(_history: &[Turn], input: &'a str) -> Cow<'a, str> {
    Cow::Borrowed(input)
}

/// Named for what the client can do.
#[derive(Clone, Copy, Debug)]
pub enum Refused {
    Unauthorized,
    Invalid,
    NotFound,
    KeyReused,
    /// Others were faster, again and again.
    Busy,
    /// The store failed; the turn may be there.
    Failed,
}

impl From<redis::RedisError> for Refused {
    fn from(error: redis::RedisError) -> Self {
        eprintln!("baseline: the store failed: {error}");
        Self::Failed
    }
}

impl From<serde_json::Error> for Refused {
    fn from(error: serde_json::Error) -> Self {
        eprintln!("baseline: what is stored cannot be read: {error}");
        Self::Failed
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (status, message) = match self {
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "the token is not valid"),
            Self::Invalid => (StatusCode::BAD_REQUEST, "the body is not valid"),
            Self::NotFound => (StatusCode::NOT_FOUND, "there is no such conversation"),
            Self::KeyReused => (StatusCode::UNPROCESSABLE_ENTITY, "the key was used for another request"),
            Self::Busy => (StatusCode::CONFLICT, "the conversation is busy"),
            Self::Failed => (StatusCode::SERVICE_UNAVAILABLE, "the store failed"),
        };
        let error = serde_json::json!({"error": {"message": message, "type": "error", "param": null, "code": null}});
        (status, axum::Json(error)).into_response()
    }
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
}

struct Edge<T> {
    key: DecodingKey,
    validation: Validation,
    /// Before the number of each response, so that no two processes give the same id.
    process: u64,
    responses: AtomicU64,
    turns: T,
}

pub async fn serve<T: Turns>(address: SocketAddr, secret: &str, turns: T) -> anyhow::Result<()> {
    let mut process = [0; 8];
    getrandom::fill(&mut process).map_err(|error| anyhow::anyhow!("{error}"))?;
    let edge = Edge {
        key: DecodingKey::from_secret(secret.as_bytes()),
        validation: Validation::new(Algorithm::HS256),
        process: u64::from_le_bytes(process),
        responses: AtomicU64::new(0),
        turns,
    };
    let app = Router::new().route("/v1/responses", post(create::<T>)).with_state(Arc::new(edge));
    let listener = TcpListener::bind(address).await.with_context(|| format!("{address} cannot be opened"))?;
    println!("http://{}", listener.local_addr()?);
    let listener = listener.tap_io(|stream| {
        // Without it an answer may be held back, and that is all.
        let _ = stream.set_nodelay(true);
    });
    Ok(axum::serve(listener, app).await?)
}

async fn create<T: Turns>(
    State(edge): State<Arc<Edge<T>>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refused> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let token = bearer.ok_or(Refused::Unauthorized)?;
    let claims = decode::<Claims>(token, &edge.key, &edge.validation).map_err(|_| Refused::Unauthorized)?.claims;
    let request: CreateResponse = serde_json::from_slice(&body).map_err(|_| Refused::Invalid)?;
    let response = format!("resp_{:016x}{:016x}", edge.process, edge.responses.fetch_add(1, Ordering::Relaxed));
    let key = headers.get("idempotency-key").and_then(|value| value.to_str().ok());
    let asked = Asked {
        owner: claims.sub,
        conversation: &request.conversation,
        input: &request.input,
        key: key.map_or_else(|| Cow::Owned(response.clone()), Cow::Borrowed),
        response,
        at: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
    };
    let turn = edge.turns.turn(&asked).await?;
    if turn.input != request.input {
        return Err(Refused::KeyReused);
    }
    let mut text = Vec::with_capacity(RESPONSE_BYTES + turn.output.len());
    serde_json::to_writer(&mut text, &wire::Response::new(&turn, &request.model, &request.conversation))?;
    Ok(([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], text).into_response())
}
