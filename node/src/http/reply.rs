//! Answers that more than one handler gives.

use axum::Json;
use axum::http::HeaderValue;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::idempotency::REPLAYED_HEADER;

/// An answer that may have been given before, to the same request.
pub struct Replayable<T> {
    pub body: T,
    pub replayed: bool,
}

impl<T: Serialize> IntoResponse for Replayable<T> {
    fn into_response(self) -> Response {
        mark_replayed(Json(self.body).into_response(), self.replayed)
    }
}

pub fn mark_replayed(mut response: Response, replayed: bool) -> Response {
    if replayed {
        response.headers_mut().insert(REPLAYED_HEADER, HeaderValue::from_static("true"));
    }
    response
}
