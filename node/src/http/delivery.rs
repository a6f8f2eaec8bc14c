//! What is to happen if a client goes away before it has its answer: the turn goes on and a retry may join it, or it
//! is cancelled.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use http_body::{Frame, SizeHint};
use klatch_actors::{Caller, Request};
use klatch_protocol::ResponseId;

use super::edge::Edge;

/// Acts when dropped, unless the answer was delivered before.
pub struct Delivery {
    edge: Edge,
    caller: Caller,
    response: ResponseId,
    cancel: bool,
    delivered: bool,
}

impl Delivery {
    /// `cancel`: a client that goes away ends its turn.
    pub fn new(edge: &Edge, caller: &Caller, response: ResponseId, cancel: bool) -> Self {
        Self { edge: edge.clone(), caller: caller.clone(), response, cancel, delivered: false }
    }

    /// The first bytes were taken: no SDK repeats the request from here on.
    pub fn begun(&mut self) {
        self.delivered |= !self.cancel;
    }

    pub fn delivered(&mut self) {
        self.delivered = true;
    }

    /// A body that counts as delivered once the server has taken it.
    pub fn body(self, bytes: Bytes) -> Body {
        Body::new(Delivered { bytes: Some(bytes), delivery: self })
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if self.delivered {
            return;
        }
        let ResponseId { conversation, turn } = self.response;
        let request = match self.cancel {
            true => Request::Cancel { caller: self.caller.clone(), turn },
            false => Request::Undelivered { turn },
        };
        self.edge.handle.tell(conversation, request);
    }
}

struct Delivered {
    bytes: Option<Bytes>,
    delivery: Delivery,
}

impl http_body::Body for Delivered {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.delivery.delivered();
        Poll::Ready(self.bytes.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}
