//! The one file that maps what can go wrong to HTTP: status, the error object, and when to try again.
//!
//! Used by every handler and middleware of the edge. Logs what a person should look at, once, here; shows clients
//! nothing of the store's or the node's insides.

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use klatch_actors::Refusal;
use klatch_actors::request::Full;
use klatch_actors::responder::ResponderError;
use klatch_actors::store::StoreError;
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

use super::observe::request_id;
use super::wire::field::Wrong;
use crate::auth::{AuthError, Denied};

/// Waited before a retry where nothing better is known: an owner is found again within a few seconds.
const RETRY_AFTER_MS: u64 = 500;

pub const RETRY_AFTER_MS_HEADER: HeaderName = HeaderName::from_static("retry-after-ms");
pub const SHOULD_RETRY_HEADER: HeaderName = HeaderName::from_static("x-should-retry");

/// A refusal as the client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    status: StatusCode,
    kind: &'static str,
    code: Option<&'static str>,
    param: Option<String>,
    message: String,
    retry_after_ms: Option<u64>,
    /// `x-should-retry`, where the SDKs' own rule would be wrong.
    should_retry: Option<bool>,
}

/// Every error answer has this body.
#[derive(Serialize, ToSchema)]
pub struct ErrorAnswer {
    error: ErrorObject,
}

#[derive(Serialize, ToSchema)]
pub struct ErrorObject {
    message: String,
    r#type: String,
    /// The field or parameter that was wrong.
    #[schema(required)]
    param: Option<String>,
    #[schema(required)]
    code: Option<String>,
}

/// What any route under /v1 may answer instead, for the description of the API.
#[derive(IntoResponses)]
pub enum Refused {
    #[response(status = 400, description = "The request is not valid; `param` names the field")]
    Invalid(#[to_schema] ErrorAnswer),
    #[response(status = 401, description = "There is no valid access token")]
    Unauthorized(#[to_schema] ErrorAnswer),
    #[response(status = 403, description = "The caller may not do this")]
    Forbidden(#[to_schema] ErrorAnswer),
    #[response(status = 404, description = "There is no such thing, or it belongs to someone else")]
    NotFound(#[to_schema] ErrorAnswer),
    #[response(status = 408, description = "The body did not arrive in time")]
    Slow(#[to_schema] ErrorAnswer),
    #[response(status = 409, description = "Another turn of the conversation is open")]
    Conflict(#[to_schema] ErrorAnswer),
    #[response(status = 413, description = "The body is too large")]
    TooLarge(#[to_schema] ErrorAnswer),
    #[response(status = 422, description = "The idempotency key was used with another request")]
    KeyReused(#[to_schema] ErrorAnswer),
    #[response(status = 429, description = "A limit is reached: try again after `retry-after-ms`")]
    TooMany(#[to_schema] ErrorAnswer),
    #[response(status = 500, description = "The node failed")]
    Failed(#[to_schema] ErrorAnswer),
    #[response(status = 503, description = "Not available now: try again, with the same idempotency key")]
    Unavailable(#[to_schema] ErrorAnswer),
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, code: Option<&'static str>, message: impl Into<String>) -> Self {
        Self { status, kind, code, param: None, message: message.into(), retry_after_ms: None, should_retry: None }
    }

    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", Some("invalid_value"), message);
        error.about(param)
    }

    /// The request as a whole is wrong, not one field of it.
    pub fn malformed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", None, message)
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", Some("not_found"), message)
    }

    pub fn no_route() -> Self {
        Self::not_found("there is no such route; /openapi.json lists all of them")
    }

    pub fn method_not_allowed() -> Self {
        let message = "this route does not know the method; the header `allow` names those it knows";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", Some("method_not_allowed"), message)
    }

    pub fn unknown_model(model: &str, status: StatusCode) -> Self {
        let message = format!("there is no model `{}`; GET /v1/models lists those there are", short(model));
        Self::new(status, "invalid_request_error", Some("model_not_found"), message).about("model")
    }

    pub fn too_large(bytes_max: usize) -> Self {
        let message = format!("the body is larger than {bytes_max} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", Some("body_too_large"), message)
    }

    pub fn slow_body() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", None, "the body did not arrive in time")
    }

    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_request_error", Some("invalid_api_key"), message)
    }

    pub fn key_reused() -> Self {
        let message = Refusal::KeyReused.to_string();
        let code = Some("idempotency_key_reused");
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_request_error", code, message)
    }

    pub fn too_many(message: impl Into<String>, retry_after_ms: u64) -> Self {
        let code = Some("rate_limit_exceeded");
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", code, message);
        error.retry_after(retry_after_ms)
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", Some("server_error"), message);
        error.retry_after(RETRY_AFTER_MS)
    }

    pub fn failed() -> Self {
        let message = "the node failed; the request id finds the reason in its log";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", Some("server_error"), message)
    }

    /// Names the field that was wrong.
    pub fn about(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    pub fn retry_after(mut self, milliseconds: u64) -> Self {
        self.retry_after_ms = Some(milliseconds);
        self
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }

    pub fn param(&self) -> Option<&str> {
        self.param.as_deref()
    }

    fn write_headers(&self, headers: &mut HeaderMap) {
        if let Some(milliseconds) = self.retry_after_ms {
            headers.insert(header::RETRY_AFTER, milliseconds.div_ceil(1_000).into());
            headers.insert(RETRY_AFTER_MS_HEADER, milliseconds.into());
        }
        if let Some(should) = self.should_retry {
            headers.insert(SHOULD_RETRY_HEADER, HeaderValue::from_static(if should { "true" } else { "false" }));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let answer = ErrorAnswer {
            error: ErrorObject {
                message: self.message.clone(),
                r#type: self.kind.to_owned(),
                param: self.param.clone(),
                code: self.code.map(str::to_owned),
            },
        };
        let mut response = (self.status, axum::Json(answer)).into_response();
        self.write_headers(response.headers_mut());
        response
    }
}

impl From<Wrong> for ApiError {
    fn from(wrong: Wrong) -> Self {
        Self::invalid(wrong.param, wrong.message)
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        match refusal {
            Refusal::NotFound(_) => Self::not_found(message),
            Refusal::Invalid { param, message } => Self::invalid(param.name(), message),
            Refusal::Locked => {
                let kind = "invalid_request_error";
                let error = Self::new(StatusCode::CONFLICT, kind, Some("conversation_locked"), message);
                // The SDKs would send a conflict again by themselves; the client asked to be told at once.
                Self { should_retry: Some(false), ..error }
            }
            Refusal::KeyReused => Self::key_reused(),
            Refusal::Busy { what: Full::Queue, retry_after_ms } => Self::too_many(message, retry_after_ms),
            Refusal::Busy { retry_after_ms, .. } => Self::unavailable(message).retry_after(retry_after_ms),
            Refusal::Moved | Refusal::Elsewhere { .. } => {
                Self::unavailable("the conversation is moving to another node")
            }
            Refusal::Lost => {
                tracing::warn!(request.id = %request_id(), "a conversation's owner was lost before it answered");
                Self::unavailable("it is not known whether it was done: try again with the same idempotency key")
            }
            Refusal::Unavailable(why) => {
                tracing::warn!(request.id = %request_id(), why, "a conversation did not answer");
                Self::unavailable("it is not known whether it was done: try again with the same idempotency key")
            }
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Damaged(_) => {
                tracing::error!(request.id = %request_id(), %error, "a read failed");
                Self::failed()
            }
            StoreError::Fenced(_) | StoreError::Unknown(_) | StoreError::Unavailable(_) => {
                tracing::warn!(request.id = %request_id(), %error, "a read failed");
                Self::unavailable("the store does not answer")
            }
        }
    }
}

/// Of a chat completion; a turn fails with it instead, and is stored.
impl From<ResponderError> for ApiError {
    fn from(error: ResponderError) -> Self {
        match error.code.as_str() {
            "invalid_prompt" => Self::malformed(error.message),
            "rate_limit_exceeded" => Self::too_many(error.message, RETRY_AFTER_MS),
            _ => Self::unavailable(error.message),
        }
    }
}

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> Self {
        if denied.is_temporary() {
            return Self::unavailable("the keys that verify the token are not there yet");
        }
        Self::unauthorized(denied.to_string())
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        let message = error.to_string();
        let unauthorized = |code| Self::new(StatusCode::UNAUTHORIZED, "invalid_request_error", Some(code), &*message);
        match error {
            AuthError::Invalid { param, problem } => Self::invalid(param, problem),
            AuthError::WrongCredentials => unauthorized("invalid_credentials"),
            AuthError::RefreshRefused => unauthorized("invalid_refresh_token"),
            AuthError::TooManyAttempts { retry_after } | AuthError::Busy { retry_after } => {
                Self::too_many(message, retry_after.as_millis() as u64)
            }
            AuthError::NoSigningKey => {
                Self::new(StatusCode::FORBIDDEN, "invalid_request_error", Some("no_signing_key"), message)
            }
            AuthError::AccountExists | AuthError::NoAccount => Self::malformed(message),
            AuthError::Store(source) => Self::from(source),
            AuthError::Broken(_) => {
                tracing::error!(request.id = %request_id(), error = message, "auth failed");
                Self::failed()
            }
        }
    }
}

/// What a client sent, short enough to be said back to it.
pub fn short(text: &str) -> String {
    const CHARS_MAX: usize = 80;
    if text.chars().count() <= CHARS_MAX {
        return text.to_owned();
    }
    text.chars().take(CHARS_MAX).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use klatch_actors::request::{Missing, Param};

    use super::*;

    #[test]
    fn each_refusal_has_its_status() {
        let status = |refusal: Refusal| ApiError::from(refusal).status().as_u16();
        assert_eq!(status(Refusal::NotFound(Missing::Conversation)), 404);
        assert_eq!(status(Refusal::Invalid { param: Param::Id, message: "y".into() }), 400);
        assert_eq!(status(Refusal::Locked), 409);
        assert_eq!(status(Refusal::KeyReused), 422);
        assert_eq!(status(Refusal::Busy { what: Full::Queue, retry_after_ms: 1 }), 429);
        assert_eq!(status(Refusal::Busy { what: Full::Node, retry_after_ms: 1 }), 503);
        assert_eq!(status(Refusal::Moved), 503);
        assert_eq!(status(Refusal::Unavailable("?".into())), 503);
    }

    #[test]
    fn retry_headers_are_rounded_up_to_seconds() {
        let response = ApiError::too_many("full", 1_001).into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
        assert_eq!(response.headers()[RETRY_AFTER_MS_HEADER], "1001");
    }

    #[test]
    fn a_conflict_is_not_to_be_repeated() {
        let response = ApiError::from(Refusal::Locked).into_response();
        assert_eq!(response.headers()[SHOULD_RETRY_HEADER], "false");
    }
}
