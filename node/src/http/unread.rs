//! Reads what a refused request still sends. hyper closes a connection whose request was answered before its body was
//! read, and a client that is still sending then, or sends its next request, is told of a broken pipe and not of the
//! refusal.
//!
//! Stands around all routes; bounded in bytes and time, so a body that is refused for its size still ends its connection.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::Response;
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, Limited};
use tokio::sync::oneshot;

/// As much as a request may have by default: what is larger is refused for that.
const BYTES_MAX: usize = 1 << 20;
/// What was sent is here at once; who sends slowly on purpose is not waited for.
const WAIT_MAX: Duration = Duration::from_secs(1);

pub async fn read_rest<F>(request: Request, answer: impl FnOnce(Request) -> F) -> Response
where
    F: Future<Output = Response>,
{
    let (parts, body) = request.into_parts();
    if http_body::Body::is_end_stream(&body) {
        return answer(Request::from_parts(parts, body)).await;
    }
    let (back, mut unread) = oneshot::channel();
    let lent = Lent { body: Some(body), back: Some(back) };
    let response = answer(Request::from_parts(parts, Body::new(lent))).await;
    // Without one it was read to its end, or is being read by a task that goes on.
    if let Ok(rest) = unread.try_recv() {
        // What does not come in time, or is too much, is not worth its connection.
        let _ = tokio::time::timeout(WAIT_MAX, Limited::new(rest, BYTES_MAX).collect()).await;
    }
    response
}

/// A body that comes back if it is given up before its end.
struct Lent {
    body: Option<Body>,
    back: Option<oneshot::Sender<Body>>,
}

impl http_body::Body for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = std::task::ready!(Pin::new(body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::new, http_body::Body::size_hint)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let (Some(body), Some(back)) = (self.body.take(), self.back.take())
            && !http_body::Body::is_end_stream(&body)
        {
            // A connection that is gone has nobody to read for.
            let _ = back.send(body);
        }
    }
}
