//! Responses that are there: read, streamed again, cancelled, deleted, and what they were given.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use klatch_actors::reader::Page;
use klatch_actors::store::Order;
use klatch_actors::{Answer, Request};
use klatch_protocol::{Item, ResponseId, Turn};

use super::conversations::ask_of;
use super::edge::Edge;
use super::errors::{ApiError, Refused, short};
use super::extract::{Asked, PathResponse, Query};
use super::lookup::{self, Paging, unexpected};
use super::render;
use super::stream::{self, Reading};
use super::wire::items::{WireItem, item_id};
use super::wire::list::List;
use super::wire::response::{DeletedResponse, Response as WireResponse};

const LAST_EVENT_ID: &str = "last-event-id";

/// Shows a response, or tells its stream again.
#[utoipa::path(get, path = "/v1/responses/{response_id}", tag = "responses",
    params(
        ("response_id" = String, Path),
        ("stream" = Option<bool>, Query, description = "Its events instead, from the first on"),
        ("starting_after" = Option<u64>, Query, description = "A sequence number: only events behind it"),
    ),
    responses(
        (status = 200, description = "The response, or with `stream` its events", content(
            (WireResponse = "application/json"),
            (super::openapi::ServerSentEvent = "text/event-stream"),
        )),
        Refused,
    ))]
pub async fn read(
    State(edge): State<Edge>,
    Asked(caller): Asked,
    PathResponse(response): PathResponse,
    headers: HeaderMap,
    query: Query,
) -> Result<Response, ApiError> {
    let (wants_stream, from) = (query.flag("stream")?, first_event(&query, &headers)?);
    let turn = lookup::response(&edge, response, &caller).await?;
    if !wants_stream {
        return Ok(Json(render::response(response, &turn)).into_response());
    }
    let with_ids = stream::wants_ids(&headers);
    let reading = Reading { caller, response, turn, from, with_ids, asked_at: None, delivery: None };
    Ok(stream::tell(&edge, reading))
}

/// A browser's EventSource repeats the address it began with, so the last id that it saw counts first.
fn first_event(query: &Query, headers: &HeaderMap) -> Result<u64, ApiError> {
    let seen = headers.get(LAST_EVENT_ID).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let after = match seen {
        Some(seen) => Some(seen),
        None => query.number("starting_after")?,
    };
    Ok(after.map_or(0, |after| after.saturating_add(1)))
}

/// Ends a response that has not ended; one that has is answered as it is.
#[utoipa::path(post, path = "/v1/responses/{response_id}/cancel", tag = "responses",
    params(("response_id" = String, Path)), responses((status = 200, body = WireResponse), Refused))]
pub async fn cancel(
    State(edge): State<Edge>,
    Asked(caller): Asked,
    PathResponse(response): PathResponse,
) -> Result<Json<WireResponse>, ApiError> {
    let turn = lookup::any_response(&edge, response, &caller).await?.ok_or_else(|| no_such(response))?;
    if turn.outcome.is_some() {
        return shown_if_stored(response, &turn);
    }
    match ask_of(&edge, response.conversation, Request::Cancel { caller, turn: response.turn }).await? {
        Answer::Turn { turn, .. } => Ok(Json(render::response(response, &turn))),
        other => Err(unexpected(&other)),
    }
}

fn shown_if_stored(response: ResponseId, turn: &Turn) -> Result<Json<WireResponse>, ApiError> {
    if turn.accepted.parameters.store { Ok(Json(render::response(response, turn))) } else { Err(no_such(response)) }
}

fn no_such(response: ResponseId) -> ApiError {
    ApiError::not_found(format!("there is no response `{response}`"))
}

/// Deletes a response; its items stay in the conversation.
#[utoipa::path(delete, path = "/v1/responses/{response_id}", tag = "responses",
    params(("response_id" = String, Path)), responses((status = 200, body = DeletedResponse), Refused))]
pub async fn delete(
    State(edge): State<Edge>,
    Asked(caller): Asked,
    PathResponse(response): PathResponse,
) -> Result<Json<DeletedResponse>, ApiError> {
    lookup::response(&edge, response, &caller).await?;
    ask_of(&edge, response.conversation, Request::DeleteResponse { caller, turn: response.turn }).await?;
    Ok(Json(DeletedResponse { id: response.to_string(), object: "response", deleted: true }))
}

/// Lists what a response was given, newest first.
#[utoipa::path(get, path = "/v1/responses/{response_id}/input_items", tag = "responses",
    params(
        ("response_id" = String, Path),
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 100),
        ("order" = Option<String>, Query, description = "`asc` or `desc`"),
        ("after" = Option<String>, Query, description = "An item's id: what comes behind it"),
        ("before" = Option<String>, Query, description = "An item's id: the list ends before it"),
    ),
    responses((status = 200, body = List<WireItem>), Refused))]
pub async fn input_items(
    State(edge): State<Edge>,
    Asked(caller): Asked,
    PathResponse(response): PathResponse,
    query: Query,
) -> Result<Json<List<WireItem>>, ApiError> {
    let paging = Paging::read(&query)?;
    let turn = lookup::response(&edge, response, &caller).await?;
    let ordinal = |param: &'static str, id: &Option<String>| match id {
        None => Ok(None),
        Some(id) => input_ordinal(response, &turn, id)
            .map(Some)
            .ok_or_else(|| ApiError::invalid(param, format!("`{}` is no input item of this response", short(id)))),
    };
    let (after, before) = (ordinal("after", &paging.after)?, ordinal("before", &paging.before)?);
    let (low, high) = match paging.order {
        Order::Ascending => (after, before),
        Order::Descending => (before, after),
    };
    let (from, to) = (low.map_or(0, |low| low + 1), high.unwrap_or(u64::MAX));
    let page = Page { from, to, order: paging.order, limit: paging.limit + 1 };
    let shown = inputs_on(page, turn.accepted.input.clone())
        .iter()
        .map(|item| WireItem::new(response.conversation, item))
        .collect();
    Ok(Json(List::page(shown, paging.limit)))
}

fn input_ordinal(response: ResponseId, turn: &Turn, id: &str) -> Option<u64> {
    let mut inputs = turn.accepted.input.iter();
    inputs.find(|item| item_id(response.conversation, item) == id).map(|item| item.ordinal)
}

fn inputs_on(page: Page, mut inputs: Vec<Item>) -> Vec<Item> {
    inputs.retain(|item| (page.from..page.to).contains(&item.ordinal));
    if page.order == Order::Descending {
        inputs.reverse();
    }
    inputs.truncate(page.limit);
    inputs
}
