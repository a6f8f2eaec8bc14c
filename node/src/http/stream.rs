//! A turn told as server-sent events, whoever owns it and however far it is.
//!
//! Keeps a copy of the turn, asks its owner for what is news, and sends every step that has become ready as one
//! write. Whatever goes wrong on the way, the same question goes to the next owner; only if none is found in time is the stream cut,
//! in the middle of the body, so that the client knows that it is not the end.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures::future::BoxFuture;
use klatch_actors::{Answer, Caller, Refusal, Request};
use klatch_protocol::stream::{Cursor, Step};
use klatch_protocol::turn::Change;
use klatch_protocol::{Mark, Outcome, ResponseId, Turn};
use tokio::time::Instant;

use super::delivery::Delivery;
use super::edge::{Edge, now_ms};
use super::wire::events::{DONE, KEEP_ALIVE};
use super::{lookup, metrics, render};

/// Text asked of the owner at once.
const NEWS_BYTES_MAX: usize = 64 << 10;
/// A write is not made larger than this by joining events, so that a slow reader of a long reply costs little memory.
const WRITE_BYTES: usize = 64 << 10;
/// Between two questions for a turn whose owner cannot be reached: doubled each time, up to a tenth of a second, which is
/// added to the gap that a client sees.
const RETRY_FIRST: Duration = Duration::from_millis(10);
const RETRY_LAST: Duration = Duration::from_millis(100);

/// Who reads what, from where.
pub struct Reading {
    pub caller: Caller,
    pub response: ResponseId,
    /// As far as it is known now.
    pub turn: Turn,
    /// Sequence number of the first event to send.
    pub from: u64,
    /// Events carry ids, for a browser's EventSource.
    pub with_ids: bool,
    /// For the streams that began a turn.
    pub asked_at: Option<Instant>,
    pub delivery: Option<Delivery>,
}

/// The turn cannot be followed any further.
#[derive(Debug, thiserror::Error)]
#[error("the response cannot be followed at this moment; go on reading it with `starting_after`")]
pub struct Cut;

enum Learned {
    News(Vec<Change>),
    Whole(Box<Turn>),
}

struct Telling {
    edge: Edge,
    reading: Reading,
    cursor: Cursor,
    /// The question under way, kept while keep-alives are sent.
    question: Option<BoxFuture<'static, Result<Learned, Cut>>>,
    finished: bool,
    _open: metrics::OpenStream,
}

/// The answer that tells the turn.
pub fn tell(edge: &Edge, reading: Reading) -> Response {
    let telling = Telling {
        edge: edge.clone(),
        reading,
        cursor: Cursor::default(),
        question: None,
        finished: false,
        _open: metrics::OpenStream::begin(),
    };
    let frames = futures::stream::unfold(telling, |mut telling| async move {
        let frame = telling.next_frame().await?;
        Some((frame, telling))
    });
    (stream_headers(), Body::from_stream(frames)).into_response()
}

/// Nothing on the way keeps, gathers or squeezes what is sent.
pub fn stream_headers() -> [(HeaderName, HeaderValue); 3] {
    [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ]
}

/// Whether the reader is a browser's EventSource, which needs ids to go on by itself.
pub fn wants_ids(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accepted.split(',').any(|kind| kind.split(';').next().unwrap_or_default().trim() == "text/event-stream")
}

/// The turn, once it has ended.
pub async fn until_ended(edge: &Edge, caller: &Caller, response: ResponseId, mut turn: Turn) -> Result<Turn, Cut> {
    while turn.outcome.is_none() {
        learn(edge.clone(), caller.clone(), response, turn.mark()).await?.add_to(&mut turn);
    }
    Ok(turn)
}

impl Telling {
    async fn next_frame(&mut self) -> Option<Result<Bytes, Cut>> {
        loop {
            let ready = self.ready();
            if !ready.is_empty() {
                self.delivered();
                return Some(Ok(ready.into()));
            }
            if self.finished {
                return None;
            }
            match tokio::time::timeout(self.edge.options.limits.keep_alive, self.news()).await {
                Err(_) => return Some(Ok(Bytes::from_static(KEEP_ALIVE))),
                Ok(Ok(learned)) => learned.add_to(&mut self.reading.turn),
                Ok(Err(cut)) => {
                    metrics::stream_cut();
                    tracing::warn!(response.id = %self.reading.response, "a stream was cut: no owner told its turn");
                    self.finished = true;
                    return Some(Err(cut));
                }
            }
        }
    }

    /// All events that can be told now, as far as one write goes, and the end behind the last.
    fn ready(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let reading = &mut self.reading;
        while out.len() < WRITE_BYTES {
            let Some((sequence, step)) = self.cursor.step(&reading.turn) else { break };
            if matches!(step, Step::TextDelta { .. } | Step::ArgumentsDelta { .. })
                && let Some(asked_at) = reading.asked_at.take()
            {
                metrics::first_token(asked_at.elapsed());
            }
            if sequence >= reading.from {
                render::write_step(&mut out, reading.response, &reading.turn, sequence, step, reading.with_ids);
            }
        }
        if self.cursor.is_done() && !self.finished {
            self.finished = true;
            out.extend_from_slice(DONE);
        }
        out
    }

    fn delivered(&mut self) {
        let Some(delivery) = &mut self.reading.delivery else { return };
        if self.finished { delivery.delivered() } else { delivery.begun() }
    }

    /// Dropping the future keeps the question.
    async fn news(&mut self) -> Result<Learned, Cut> {
        let Reading { caller, response, turn, .. } = &self.reading;
        let question = self
            .question
            .get_or_insert_with(|| Box::pin(learn(self.edge.clone(), caller.clone(), *response, turn.mark())));
        let learned = question.await;
        self.question = None;
        learned
    }
}

impl Learned {
    fn add_to(self, turn: &mut Turn) {
        match self {
            Learned::News(changes) => changes.into_iter().for_each(|change| turn.apply(change)),
            Learned::Whole(whole) => *turn = *whole,
        }
    }
}

/// It was deleted while it was read, which ends it: nothing of it is left that could be told.
fn deleted() -> Learned {
    Learned::News(vec![Change::Ended { outcome: Outcome::Cancelled { keep: false }, at_ms: now_ms() }])
}

/// What has happened to the turn since `have`.
async fn learn(edge: Edge, caller: Caller, response: ResponseId, have: Mark) -> Result<Learned, Cut> {
    let (mut lost_since, mut wait) = (None, RETRY_FIRST);
    loop {
        let request = Request::Watch { caller: caller.clone(), turn: response.turn, have, bytes_max: NEWS_BYTES_MAX };
        match edge.handle.ask(response.conversation, request).await {
            Ok(Answer::News(changes)) if !changes.is_empty() => return Ok(Learned::News(changes)),
            Ok(Answer::NotOpen | Answer::News(_)) => match lookup::any_response(&edge, response, &caller).await {
                Ok(Some(turn)) if turn.outcome.is_some() => return Ok(Learned::Whole(Box::new(turn))),
                Ok(None) => return Ok(deleted()),
                Ok(Some(_)) | Err(_) => {}
            },
            Err(
                Refusal::Moved
                | Refusal::Elsewhere { .. }
                | Refusal::Lost
                | Refusal::Unavailable(_)
                | Refusal::Busy { .. },
            ) => {
                // What is durable can be shown without its owner.
                if let Ok(Some(turn)) = lookup::any_response(&edge, response, &caller).await
                    && turn.mark() > have
                {
                    return Ok(Learned::Whole(Box::new(turn)));
                }
            }
            Err(Refusal::NotFound(_)) => return Ok(deleted()),
            Ok(_) | Err(_) => return Err(Cut),
        }
        if lost_since.get_or_insert_with(Instant::now).elapsed() > edge.options.limits.owner_lost_max {
            return Err(Cut);
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY_LAST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_event_source_gets_ids() {
        let wants = |accept: &'static str| {
            wants_ids(&HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]))
        };
        assert!(wants("text/event-stream"));
        assert!(wants("text/html, text/event-stream;q=0.9"));
        assert!(!wants("application/json"));
        assert!(!wants("*/*"));
        assert!(!wants_ids(&HeaderMap::new()));
    }
}
