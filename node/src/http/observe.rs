//! Around every request: its id, its line in the access log, its metrics, and an answer even if a handler panics.
//!
//! Logs no body, no token and no query value.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use klatch_actors::trace;
use klatch_protocol::ids::random_bytes;
use tracing::Instrument;

use super::errors::ApiError;
use super::metrics;
use crate::traces::EdgeSpan;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REQUEST_ID_CHARS_MAX: usize = 128;

pub async fn observe(request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let request_id = taken_over(request.headers()).unwrap_or_else(new_request_id);
    let route =
        request.extensions().get::<MatchedPath>().map_or(metrics::ROUTE_NONE.into(), |path| path.as_str().to_owned());
    let method = request.method().clone();
    let edge = EdgeSpan::begin(request.headers(), metrics::known(&method), &route);
    let id = request_id.to_str().unwrap_or_default();
    let span = tracing::info_span!("request", request.id = id, trace.id = edge.trace_id());
    let run =
        AssertUnwindSafe(trace::within(edge.traced.clone(), next.run(request))).catch_unwind().instrument(span.clone());
    let mut response = run.await.unwrap_or_else(|_| {
        tracing::error!(parent: &span, http.route = route, "a handler panicked");
        ApiError::failed().into_response()
    });
    let (status, took) = (response.status().as_u16(), begun.elapsed());
    tracing::info!(
        parent: &span,
        http.route = route,
        http.method = %method,
        http.status = status,
        duration_ms = took.as_secs_f64() * 1_000.0,
        "answered"
    );
    edge.answered(status);
    metrics::answered(&route, &method, status, took);
    response.headers_mut().insert(REQUEST_ID, request_id);
    response
}

/// The id that the client or a proxy gave the request, where it is fit to be logged.
fn taken_over(headers: &HeaderMap) -> Option<HeaderValue> {
    let value = headers.get(REQUEST_ID)?;
    let printable = value.as_bytes().iter().all(|byte| (b'!'..=b'~').contains(byte));
    (printable && (1..=REQUEST_ID_CHARS_MAX).contains(&value.len())).then(|| value.clone())
}

fn new_request_id() -> HeaderValue {
    let id = format!("req_{:032x}", u128::from_be_bytes(random_bytes()));
    HeaderValue::from_str(&id).expect("hex digits are fit for a header")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let value = HeaderValue::from_str(value).expect("a header");
        HeaderMap::from_iter([(HeaderName::from_static(name), value)])
    }

    #[test]
    fn a_sane_request_id_is_taken_over() {
        let kept = |value: &str| taken_over(&headers("x-request-id", value)).is_some();
        assert!(kept("abc-123"));
        assert!(kept(&"x".repeat(128)));
        assert!(!kept(&"x".repeat(129)));
        assert!(!kept("with space"));
        assert!(!kept(""));
    }
}
