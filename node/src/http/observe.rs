//! Around every request: its id, its metrics, its line in the log where it failed (at debug every one), and an answer even
//! if a handler panics. The one layer around all routes: each further one is a task's worth of moving and boxing.
//!
//! Logs no body, no token and no query value.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use klatch_actors::trace;
use klatch_protocol::ids::random_bytes;
use tracing::Instrument;

use super::edge::Edge;
use super::errors::ApiError;
use super::{access, metrics, unread};
use crate::traces::EdgeSpan;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REQUEST_ID_CHARS_MAX: usize = 128;

/// `edge`: of routes that need a caller.
pub async fn observe(State(edge): State<Option<Edge>>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let request_id = taken_over(request.headers()).unwrap_or_else(new_request_id);
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let route = matched.as_ref().map_or(metrics::ROUTE_NONE, MatchedPath::as_str);
    let method = metrics::known(request.method());
    let span_of_edge = EdgeSpan::begin(request.headers(), method, route);
    let id = request_id.to_str().unwrap_or_default();
    let span = tracing::info_span!("request", request.id = id, trace.id = span_of_edge.trace_id());
    let answer = Box::pin(unread::read_rest(request, move |request| async move {
        match edge {
            Some(edge) => access::admit(edge, request, next).await,
            None => next.run(request).await,
        }
    }));
    let run = AssertUnwindSafe(trace::within(span_of_edge.traced.clone(), answer)).catch_unwind();
    let mut response = run.instrument(span.clone()).await.unwrap_or_else(|_| {
        tracing::error!(parent: &span, http.route = route, "a handler panicked");
        ApiError::failed().into_response()
    });
    let (status, took) = (response.status(), begun.elapsed());
    macro_rules! log {
        ($level:ident) => {
            tracing::$level!(
                parent: &span,
                http.route = route,
                http.method = method,
                http.status = status.as_u16(),
                duration_ms = took.as_secs_f64() * 1_000.0,
                "answered"
            )
        };
    }
    // The proxy in front logs every request, and a line for each is a good part of what a turn costs here.
    if status.is_client_error() || status.is_server_error() {
        log!(info)
    } else {
        log!(debug)
    }
    span_of_edge.answered(status.as_u16());
    metrics::answered(route, method, status.as_u16(), took);
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
