//! `POST /responses`: from a request to a turn, and from the turn to an answer, a background answer, or a stream.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::future::BoxFuture;
use klatch_actors::request::{Chain, Wait};
use klatch_actors::{Answer, Caller, Request, Submit, trace};
use klatch_protocol::event::{Created, Parameters};
use klatch_protocol::state::Did;
use klatch_protocol::{ConversationId, ResponseId, Turn};
use tokio::time::Instant;

use super::conversations::{ask_of, of_key};
use super::delivery::Delivery;
use super::edge::{Edge, now_ms};
use super::errors::{ApiError, Refused};
use super::extract::Sent;
use super::idempotency::Identity;
use super::inputs::{self, Destination};
use super::lookup::{self, unexpected};
use super::render;
use super::reply::mark_replayed;
use super::stream::{self, Reading};
use super::wire::create_response::{CreateResponse, Place, Wanted};
use super::wire::response::Response as WireResponse;

/// Seconds that the client waits for an answer, as the SDKs and as proxies say it.
const READ_TIMEOUT_HEADERS: [&str; 2] = ["x-stainless-read-timeout", "x-request-timeout"];

/// Most responses are no longer, in bytes, and grow in no steps.
const JSON_BYTES_USUAL: usize = 2_048;

/// Fields in the head of an answer: those of the rate, the request's id, and one or two more.
const HEADERS_USUAL: usize = 6;

/// A turn that was accepted, now or by an earlier request.
struct Accepted {
    response: ResponseId,
    turn: Arc<Turn>,
    replayed: bool,
}

/// Makes a response.
///
/// With `stream` the answer is an event stream that ends with `data: [DONE]`; each event's `data` is JSON.
#[utoipa::path(post, path = "/v1/responses", tag = "responses", request_body = CreateResponse,
    responses(
        (status = 200, description = "The response, or with `stream` its events", content(
            (WireResponse = "application/json"),
            (super::openapi::ServerSentEvent = "text/event-stream"),
        )),
        Refused,
    ))]
pub async fn create(
    State(edge): State<Edge>,
    Sent { caller, identity, headers, body }: Sent<CreateResponse>,
) -> Result<Response, ApiError> {
    let asked_at = Instant::now();
    let wanted = body.check()?;
    if !edge.responders.contains_key(&wanted.model) {
        return Err(ApiError::unknown_model(&wanted.model, StatusCode::BAD_REQUEST));
    }
    let (stream, background, cancel) = (wanted.stream, wanted.background, wanted.cancel_on_disconnect);
    let wait = if stream || background || cancel { Wait::Accepted } else { Wait::Ended };
    let place = wanted.place;
    let accepted = match prepare(&edge, &caller, &identity, &headers, wanted, wait).await {
        Ok((target, submit)) if wait == Wait::Ended => return answer_at_end(&edge, caller, target, submit).await,
        Ok((target, submit)) => send(&edge, target, submit).await?,
        Err(error) => accepted_before(&edge, &caller, &identity, place).await.ok_or(error)?,
    };
    let Accepted { response, turn, replayed } = accepted;
    let turn = Arc::unwrap_or_clone(turn);
    let answer = if stream {
        let delivery = Delivery::new(&edge, &caller, response, cancel && !background);
        let reading = Reading {
            caller,
            response,
            turn,
            from: 0,
            with_ids: false,
            asked_at: Some(asked_at),
            delivery: Some(delivery),
        };
        stream::tell(&edge, reading)
    } else if background {
        axum::Json(render::response(response, &turn)).into_response()
    } else {
        let delivery = Delivery::new(&edge, &caller, response, cancel);
        let following = stream::until_ended(&edge, &caller, response, turn);
        let ended = tokio::time::timeout(edge.options.limits.wait_max, following).await;
        let turn = ended.map_err(|_| too_long())?.map_err(|cut| ApiError::unavailable(cut.to_string()))?;
        deliver(delivery, response, &turn)
    };
    Ok(mark_replayed(answer, replayed))
}

/// The turn that this very request was accepted as before, here or in the fork that it made.
async fn accepted_before(edge: &Edge, caller: &Caller, identity: &Identity, place: Place) -> Option<Accepted> {
    let named = match place {
        Place::New => identity.new_conversation(),
        Place::In(conversation) => conversation,
        Place::After(previous) => previous.conversation,
    };
    let (conversation, did) = match lookup::done_before(edge, caller, identity, named).await?.1 {
        Did::Forked(_, child) => (child, lookup::done_before(edge, caller, identity, child).await?.1),
        did => (named, did),
    };
    let Did::Turn(turn) = did else { return None };
    let response = conversation.response(turn);
    let turn = Arc::new(lookup::any_response(edge, response, caller).await.ok()??);
    Some(Accepted { response, turn, replayed: true })
}

/// Waits for the turn's end; an answer that nobody waits for any more is noticed all the same.
async fn answer_at_end(
    edge: &Edge,
    caller: Caller,
    target: ConversationId,
    submit: Submit,
) -> Result<Response, ApiError> {
    let (sending, owner) = (edge.clone(), caller.clone());
    let sent = Box::pin(async move { send(&sending, target, submit).await });
    let attended = Attended { sent: Some(sent), edge: edge.clone(), owner };
    let answer = tokio::time::timeout(edge.options.limits.wait_max, attended).await.map_err(|_| too_long())?;
    let Accepted { response, turn, replayed } = answer?;
    let delivery = Delivery::new(edge, &caller, response, false);
    Ok(mark_replayed(deliver(delivery, response, &turn), replayed))
}

/// A turn on its way to its end. Where its client goes away before, it is waited for by a task of its own, and counted as
/// not delivered.
struct Attended {
    sent: Option<BoxFuture<'static, Result<Accepted, ApiError>>>,
    edge: Edge,
    owner: Caller,
}

impl Future for Attended {
    type Output = Result<Accepted, ApiError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let sent = self.sent.as_mut().expect("it is polled until it is ready");
        let answer = std::task::ready!(sent.as_mut().poll(context));
        self.sent = None;
        Poll::Ready(answer)
    }
}

impl Drop for Attended {
    fn drop(&mut self) {
        let Some(sent) = self.sent.take() else { return };
        let (edge, owner) = (self.edge.clone(), self.owner.clone());
        let unwanted = async move {
            if let Ok(unwanted) = sent.await {
                drop(Delivery::new(&edge, &owner, unwanted.response, false));
            }
        };
        tokio::spawn(trace::within(trace::current(), unwanted));
    }
}

fn too_long() -> ApiError {
    ApiError::unavailable(
        "the turn takes longer than a request may wait; it goes on: ask for a stream, or in the background",
    )
}

fn deliver(delivery: Delivery, response: ResponseId, turn: &Turn) -> Response {
    let mut bytes = Vec::with_capacity(JSON_BYTES_USUAL);
    serde_json::to_writer(&mut bytes, &render::response(response, turn)).expect("a response is plain data");
    let mut response = Response::new(delivery.body(Bytes::from(bytes)));
    response.headers_mut().reserve(HEADERS_USUAL);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Sends the turn to its conversation, and on to a fork where it has to go there.
async fn send(edge: &Edge, mut target: ConversationId, mut submit: Submit) -> Result<Accepted, ApiError> {
    let derived = submit.key.is_some() && submit.create.is_some();
    if let Some(again) = submit.chain.is_some().then(|| submit.clone()) {
        match ask_of(edge, target, Request::Submit(Box::new(submit))).await? {
            Answer::Forked { child, created, .. } => {
                target = child;
                submit = Submit { create: Some(created), chain: None, ..again };
            }
            answer => return accepted(target, answer),
        }
    }
    let named = submit.create.is_none();
    let request = Request::Submit(Box::new(submit));
    if named {
        return accepted(target, ask_of(edge, target, request).await?);
    }
    let answer = edge.handle.ask(target, request).await.map_err(|refusal| of_key(refusal, derived))?;
    accepted(target, answer)
}

fn accepted(conversation: ConversationId, answer: Answer) -> Result<Accepted, ApiError> {
    match answer {
        Answer::Turn { turn, replayed } => {
            Ok(Accepted { response: conversation.response(turn.accepted.turn), turn, replayed })
        }
        other => Err(unexpected(&other)),
    }
}

/// Where the turn goes, and what goes there.
async fn prepare(
    edge: &Edge,
    caller: &Caller,
    identity: &Identity,
    headers: &HeaderMap,
    wanted: Wanted,
    wait: Wait,
) -> Result<(ConversationId, Submit), ApiError> {
    let (target, chain) = match wanted.place {
        Place::New => (identity.new_conversation(), None),
        Place::In(conversation) => (conversation, None),
        Place::After(previous) => {
            let chain = chain(edge, caller, previous, identity.new_conversation()).await?;
            (previous.conversation, Some(chain))
        }
    };
    let destination = match wanted.place {
        Place::New => Destination::new_one(),
        Place::In(_) | Place::After(_) => Destination::unread(target),
    };
    let create = (wanted.place == Place::New).then(|| Box::new(own_conversation(caller, identity)));
    let resolved = inputs::resolve(edge, caller, destination, wanted.input).await?;
    let parameters = Parameters {
        model: wanted.model.into(),
        background: wanted.background,
        store: wanted.store,
        conversation_named: matches!(wanted.place, Place::In(_)),
        previous: match wanted.place {
            Place::After(previous) => Some(previous),
            Place::New | Place::In(_) => None,
        },
        cancel_on_disconnect: wanted.cancel_on_disconnect,
        start_by_ms: start_by_ms(headers, wanted.background),
        request: wanted.options.to_json().into(),
    };
    let submit = Submit {
        caller: caller.clone(),
        input: inputs::new_items(&resolved),
        parameters,
        on_busy: wanted.on_busy,
        key: identity.key,
        attempt: identity.attempt,
        fingerprint: identity.fingerprint,
        retry: identity.retry,
        wait,
        create,
        chain,
    };
    Ok((target, submit))
}

/// What follows the previous response: its items' end tells whether anything came since.
async fn chain(edge: &Edge, caller: &Caller, previous: ResponseId, child: ConversationId) -> Result<Chain, ApiError> {
    const PARAM: &str = "previous_response_id";
    let missing = || ApiError::not_found(format!("there is no response `{previous}`")).about(PARAM);
    let turn = lookup::any_response(edge, previous, caller).await?.ok_or_else(missing)?;
    if !turn.accepted.parameters.store {
        return Err(ApiError::invalid(PARAM, "names a response that was not stored: nothing can follow it"));
    }
    let items_end = match turn.outcome {
        None => turn.block_end(),
        Some(_) if turn.entered() => turn.output_ordinal(turn.outputs.len()),
        Some(_) => turn.first_item,
    };
    Ok(Chain { after_turn: previous.turn, items_end, child })
}

fn own_conversation(caller: &Caller, identity: &Identity) -> Created {
    Created {
        tenant: caller.tenant.to_string(),
        subject: caller.subject.to_string(),
        metadata: Vec::new(),
        ttl_seconds: None,
        explicit: false,
        items: Vec::new(),
        parent: None,
        key: identity.key_use(),
    }
}

/// A turn that has not begun when its client gives up need not begin; one in the background has no such client.
fn start_by_ms(headers: &HeaderMap, background: bool) -> Option<u64> {
    let seconds = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
    let shortest =
        READ_TIMEOUT_HEADERS.iter().filter_map(|name| seconds(name)).filter(|s| *s > 0.0).reduce(f64::min)?;
    (!background && shortest.is_finite()).then(|| now_ms().saturating_add((shortest * 1_000.0) as u64))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    fn bound(pairs: &[(&'static str, &'static str)], background: bool) -> Option<u64> {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        start_by_ms(&pairs.iter().map(pair).collect(), background)
    }

    #[test]
    fn the_shorter_patience_bounds_the_wait() {
        let bound_by = bound(&[("x-stainless-read-timeout", "600"), ("x-request-timeout", "1.5")], false);
        let left_ms = bound_by.expect("a bound").saturating_sub(now_ms());
        assert!((1_000..=1_500).contains(&left_ms), "{left_ms}");
    }

    #[test]
    fn nonsense_and_the_background_have_no_bound() {
        for value in ["", "soon", "0", "-1", "NaN", "inf"] {
            assert_eq!(bound(&[("x-request-timeout", value)], false), None, "{value}");
        }
        assert_eq!(bound(&[("x-request-timeout", "5")], true), None);
    }
}
