//! Around every request: its id, its metrics, its line in the log where it failed (at debug every one), and an answer even
//! if a handler panics. The one layer around all routes: each further one is a task's worth of moving and boxing.
//!
//! Logs no body, no token and no query value.

use std::convert::Infallible;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use futures::future::BoxFuture;
use klatch_actors::trace;
use klatch_protocol::ids::{random_bytes, write_hex};
use tower::{Layer, Service, ServiceExt};

use super::edge::Edge;
use super::errors::ApiError;
use super::{access, metrics, unread};
use crate::traces::EdgeSpan;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REQUEST_ID_CHARS_MAX: usize = 128;

/// Puts [`Observed`] around each route.
#[derive(Clone)]
pub struct Observe {
    /// Of routes that need a caller.
    pub edge: Option<Edge>,
}

impl<S> Layer<S> for Observe {
    type Service = Observed<S>;

    fn layer(&self, route: S) -> Observed<S> {
        Observed { edge: self.edge.clone(), route }
    }
}

#[derive(Clone)]
pub struct Observed<S> {
    edge: Option<Edge>,
    route: S,
}

impl<S> Service<Request> for Observed<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    /// A route is always ready; it is asked again before the call.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let (edge, route) = (self.edge.clone(), self.route.clone());
        Box::pin(async move { Ok(observe(edge, request, route).await) })
    }
}

async fn observe<S>(edge: Option<Edge>, request: Request, route: S) -> Response
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    let begun = Instant::now();
    let request_id = taken_over(request.headers()).unwrap_or_else(new_request_id);
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let path = matched.as_ref().map_or(metrics::ROUTE_NONE, MatchedPath::as_str);
    let method = metrics::known(request.method());
    let span_of_edge = EdgeSpan::begin(request.headers(), method, path);
    let answer = unread::read_rest(request, move |request| async move {
        match edge {
            Some(edge) => access::admit(edge, request, route).await,
            None => answered(route, request).await,
        }
    });
    let answer = REQUEST.scope(request_id.clone(), trace::within(span_of_edge.traced.clone(), answer));
    let mut response = AssertUnwindSafe(answer).catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!(request.id = shown(&request_id), http.route = path, "a handler panicked");
        ApiError::failed().into_response()
    });
    let (status, took) = (response.status(), begun.elapsed());
    macro_rules! log {
        ($level:ident) => {
            tracing::$level!(
                request.id = shown(&request_id),
                trace.id = span_of_edge.trace_id(),
                http.route = path,
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
    metrics::answered(path, method, status.as_u16(), took);
    response.headers_mut().insert(REQUEST_ID, request_id);
    response
}

/// What the route answers: it cannot fail.
pub async fn answered<S>(route: S, request: Request) -> Response
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    let Ok(response) = route.oneshot(request).await;
    response
}

/// The id that the client or a proxy gave the request, where it is fit to be logged.
fn taken_over(headers: &HeaderMap) -> Option<HeaderValue> {
    let value = headers.get(REQUEST_ID)?;
    let printable = value.as_bytes().iter().all(|byte| (b'!'..=b'~').contains(byte));
    (printable && (1..=REQUEST_ID_CHARS_MAX).contains(&value.len())).then(|| value.clone())
}

fn new_request_id() -> HeaderValue {
    let mut id = *b"req_00000000000000000000000000000000";
    write_hex(&random_bytes(), &mut id[4..]);
    HeaderValue::from_bytes(&id).expect("hex digits are fit for a header")
}

fn shown(request_id: &HeaderValue) -> &str {
    request_id.to_str().unwrap_or_default()
}

tokio::task_local! {
    static REQUEST: HeaderValue;
}

/// Of the request that is being answered, for the log: empty outside of any. No span says it, since one for each request
/// costs more than most that is done in it.
pub fn request_id() -> impl fmt::Display {
    struct Shown(Option<HeaderValue>);
    impl fmt::Display for Shown {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0.as_ref().map(shown).unwrap_or_default())
        }
    }
    Shown(REQUEST.try_with(Clone::clone).ok())
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
