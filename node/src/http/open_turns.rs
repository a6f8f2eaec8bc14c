//! The turns of a conversation that have not ended: what a client that comes later, or comes back, can follow.

use axum::Json;
use axum::extract::State;

use super::edge::Edge;
use super::errors::{ApiError, Refused};
use super::extract::{Asked, PathConversation};
use super::wire::list::List;
use super::wire::response::Response as WireResponse;
use super::{lookup, render};

/// Lists the responses of a conversation that have not ended, oldest first: all of them, on one page.
///
/// Not part of OpenAI's API. Items enter a conversation when their response ends; until then they are here.
#[utoipa::path(get, path = "/v1/conversations/{conversation_id}/responses", tag = "conversations",
    params(("conversation_id" = String, Path)), responses((status = 200, body = List<WireResponse>), Refused))]
pub async fn list(
    State(edge): State<Edge>,
    Asked(caller): Asked,
    PathConversation(id): PathConversation,
) -> Result<Json<List<WireResponse>>, ApiError> {
    let state = lookup::conversation(&edge, id, &caller).await?;
    // As many as limits.queue_per_conversation allows. One that is not to be stored is nobody's to read.
    let stored = state.open.iter().filter(|turn| turn.accepted.parameters.store && turn.outcome.is_none());
    let open = stored.map(|turn| render::response(id.response(turn.accepted.turn), turn)).collect();
    Ok(Json(List::new(open, false)))
}
