//! Conversations: made, listed, read, changed, forked, deleted.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use futures::StreamExt;
use klatch_actors::reader::belongs;
use klatch_actors::request::Missing;
use klatch_actors::store::{IndexRow, Order};
use klatch_actors::{Answer, Caller, Refusal, Request};
use klatch_protocol::event::Created;
use klatch_protocol::state::Did;
use klatch_protocol::{ConversationId, State as ConversationState};

use super::edge::Edge;
use super::errors::{ApiError, Refused, short};
use super::extract::{Asked, ItemName, PathConversation, Query, Sent, SentOrNothing};
use super::idempotency::Identity;
use super::inputs::{self, Destination};
use super::lookup::{self, Paging, unexpected};
use super::reply::Replayable;
use super::wire::conversation::{
    Conversation, CreateConversation, DeletedConversation, ForkConversation, TTL_SECONDS_MAX, UpdateConversation,
};
use super::wire::field::Field;
use super::wire::given::{ADDED_ITEMS_MAX, read_items};
use super::wire::list::List;
use super::wire::options::{Metadata, check_metadata};

/// Rows looked at for one page: a filter that fits few conversations answers a short page, that there is more, and
/// where to go on.
pub(super) const ROWS_SCANNED_MAX: usize = 1_000;
/// Rows read from the index at once.
const ROWS_AT_ONCE: usize = 100;
/// Conversations read at once for a page.
const READS_AT_ONCE: usize = 8;

/// Makes a conversation.
#[utoipa::path(post, path = "/v1/conversations", tag = "conversations", request_body = CreateConversation,
    responses((status = 200, body = Conversation), Refused))]
pub async fn create(
    State(edge): State<Edge>,
    SentOrNothing(sent): SentOrNothing<CreateConversation>,
) -> Result<Replayable<Conversation>, ApiError> {
    let Sent { caller, identity, body, .. } = sent;
    let metadata = checked_metadata(body.metadata)?;
    if body.ttl_seconds.is_some_and(|seconds| !(1..=TTL_SECONDS_MAX).contains(&seconds)) {
        return Err(ApiError::invalid("ttl_seconds", format!("must be between 1 and {TTL_SECONDS_MAX}")));
    }
    let given = read_items(&Field::new("items", body.items.as_ref()), ADDED_ITEMS_MAX)?;
    let resolved = match inputs::resolve(&edge, &caller, Destination::new_one(), given).await {
        Ok(resolved) => resolved,
        Err(error) => return made_before(&edge, &caller, &identity, identity.new_conversation()).await.ok_or(error),
    };
    let created = Created {
        tenant: caller.tenant.to_string(),
        subject: caller.subject.to_string(),
        metadata,
        ttl_seconds: body.ttl_seconds,
        explicit: true,
        items: inputs::new_items(&resolved),
        parent: None,
        key: identity.key_use(),
    };
    let id = identity.new_conversation();
    let answer = edge.handle.ask(id, Request::Create(Box::new(created))).await;
    summary(id, &identity, answer.map_err(|refusal| of_key(refusal, identity.key.is_some()))?)
}

/// The conversation that this very request made before.
async fn made_before(
    edge: &Edge,
    caller: &Caller,
    identity: &Identity,
    keeper: ConversationId,
) -> Option<Replayable<Conversation>> {
    let body = match lookup::done_before(edge, caller, identity, keeper).await? {
        (state, Did::Created) => shown(keeper, &state),
        (_, Did::Forked(_, child)) => {
            let state = lookup::conversation(edge, child, caller).await.ok()?;
            shown(child, &state)
        }
        (_, Did::Turn(_) | Did::ItemsAdded(_) | Did::MetadataSet) => return None,
    };
    Some(Replayable { body, replayed: identity.tells(true) })
}

/// A conversation that a key leads to and that is not the caller's: the key has been used by someone else, or for a
/// conversation that is gone.
pub fn of_key(refusal: Refusal, has_key: bool) -> ApiError {
    match refusal {
        Refusal::NotFound(Missing::Conversation) if has_key => ApiError::key_reused(),
        refusal => refusal.into(),
    }
}

fn checked_metadata(metadata: Option<Metadata>) -> Result<Vec<(String, String)>, ApiError> {
    let metadata = metadata.unwrap_or_default();
    check_metadata(&metadata)?;
    Ok(metadata.into_iter().collect())
}

fn summary(id: ConversationId, identity: &Identity, answer: Answer) -> Result<Replayable<Conversation>, ApiError> {
    match answer {
        Answer::Conversation { created_at_ms, metadata, replayed } => {
            let body = Conversation::new(id, created_at_ms, &metadata);
            Ok(Replayable { body, replayed: identity.tells(replayed) })
        }
        other => Err(unexpected(&other)),
    }
}

/// Shows a conversation.
#[utoipa::path(get, path = "/v1/conversations/{conversation_id}", tag = "conversations",
    params(("conversation_id" = String, Path)), responses((status = 200, body = Conversation), Refused))]
pub async fn read(
    State(edge): State<Edge>,
    Asked(caller): Asked,
    PathConversation(id): PathConversation,
) -> Result<Json<Conversation>, ApiError> {
    let state = lookup::conversation(&edge, id, &caller).await?;
    Ok(Json(shown(id, &state)))
}

fn shown(id: ConversationId, state: &ConversationState) -> Conversation {
    Conversation::new(id, state.created_at_ms, &state.metadata)
}

/// Replaces a conversation's metadata.
#[utoipa::path(post, path = "/v1/conversations/{conversation_id}", tag = "conversations",
    params(("conversation_id" = String, Path)), request_body = UpdateConversation,
    responses((status = 200, body = Conversation), Refused))]
pub async fn update(
    State(edge): State<Edge>,
    PathConversation(id): PathConversation,
    Sent { caller, identity, body, .. }: Sent<UpdateConversation>,
) -> Result<Replayable<Conversation>, ApiError> {
    let given =
        body.metadata.ok_or_else(|| ApiError::invalid("metadata", "is required: an object, or null for none"))?;
    let metadata = checked_metadata(given)?;
    let request = Request::SetMetadata { caller, metadata, key: identity.key_use() };
    summary(id, &identity, ask_of(&edge, id, request).await?)
}

/// Deletes a conversation with all that it holds.
#[utoipa::path(delete, path = "/v1/conversations/{conversation_id}", tag = "conversations",
    params(("conversation_id" = String, Path)), responses((status = 200, body = DeletedConversation), Refused))]
pub async fn delete(
    State(edge): State<Edge>,
    Asked(caller): Asked,
    PathConversation(id): PathConversation,
) -> Result<Json<DeletedConversation>, ApiError> {
    ask_of(&edge, id, Request::Delete { caller }).await?;
    Ok(Json(DeletedConversation { id: id.to_string(), object: "conversation.deleted", deleted: true }))
}

/// Asks a conversation that the request named; one that is not there is refused as by every other route.
pub async fn ask_of(edge: &Edge, id: ConversationId, request: Request) -> Result<Answer, ApiError> {
    edge.handle.ask(id, request).await.map_err(|refusal| match refusal {
        Refusal::NotFound(Missing::Conversation) => ApiError::not_found(format!("there is no conversation `{id}`")),
        refusal => refusal.into(),
    })
}

/// Makes a conversation that begins with the items of this one, up to an item or all of them.
#[utoipa::path(post, path = "/v1/conversations/{conversation_id}/fork", tag = "conversations",
    params(("conversation_id" = String, Path)), request_body = ForkConversation,
    responses((status = 200, body = Conversation), Refused))]
pub async fn fork(
    State(edge): State<Edge>,
    PathConversation(id): PathConversation,
    SentOrNothing(sent): SentOrNothing<ForkConversation>,
) -> Result<Replayable<Conversation>, ApiError> {
    let Sent { caller, identity, body, .. } = sent;
    let before = match fork_point(&edge, &caller, id, body.after.as_deref()).await {
        Ok(before) => before,
        Err(error) => return made_before(&edge, &caller, &identity, id).await.ok_or(error),
    };
    let child = identity.new_conversation();
    let request = Request::Fork { caller, child, before, key: identity.known_by() };
    match ask_of(&edge, id, request).await? {
        Answer::Forked { child, created, replayed } => {
            let made = edge.handle.ask(child, Request::Create(created)).await;
            let made = made.map_err(|refusal| of_key(refusal, identity.key.is_some()))?;
            let made = summary(child, &identity, made)?;
            Ok(Replayable { replayed: identity.tells(replayed) || made.replayed, ..made })
        }
        other => Err(unexpected(&other)),
    }
}

/// The first ordinal that the fork does not have.
async fn fork_point(
    edge: &Edge,
    caller: &Caller,
    id: ConversationId,
    after: Option<&str>,
) -> Result<Option<u64>, ApiError> {
    let Some(text) = after else { return Ok(None) };
    let state = lookup::conversation(edge, id, caller).await?;
    let item = lookup::item(edge, id, &state, &ItemName::from(text)).await?;
    let missing = || ApiError::not_found(format!("there is no item `{}`", short(text))).about("after");
    Ok(Some(item.ok_or_else(missing)?.ordinal + 1))
}

/// Lists the caller's conversations, newest first.
///
/// Not part of OpenAI's API. `metadata[key]=value` keeps those with that pair.
#[utoipa::path(get, path = "/v1/conversations", tag = "conversations",
    params(
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 100),
        ("order" = Option<String>, Query, description = "`asc` or `desc`"),
        ("after" = Option<String>, Query, description = "A conversation's id: what comes behind it"),
        ("before" = Option<String>, Query, description = "A conversation's id: what comes right before it"),
    ),
    responses((status = 200, body = List<Conversation>), Refused))]
pub async fn list(
    State(edge): State<Edge>,
    Asked(caller): Asked,
    query: Query,
) -> Result<Json<List<Conversation>>, ApiError> {
    let paging = Paging::read(&query)?;
    let wanted: Vec<(String, String)> =
        query.members("metadata").map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let (param, cursor, backwards) = match (&paging.after, &paging.before) {
        (Some(_), Some(_)) => return Err(ApiError::invalid("before", "excludes `after`")),
        (None, Some(before)) => ("before", Some(before.clone()), true),
        (after, None) => ("after", after.clone(), false),
    };
    let start = match cursor {
        Some(id) => Some(cursor_row(&edge, &caller, param, &id).await?),
        None => None,
    };
    let order = if backwards { opposite(paging.order) } else { paging.order };
    let (mut found, scanned_to) = scan(&edge, &caller, start, order, &wanted, paging.limit + 1).await?;
    let has_more = scanned_to.is_some() || found.len() > paging.limit;
    found.truncate(paging.limit);
    if backwards {
        found.reverse();
    }
    let page = List::new(found, has_more);
    Ok(Json(match scanned_to.map(|id| id.to_string()) {
        Some(id) if backwards => page.beginning_with(id),
        Some(id) => page.ending_with(id),
        None => page,
    }))
}

fn opposite(order: Order) -> Order {
    match order {
        Order::Ascending => Order::Descending,
        Order::Descending => Order::Ascending,
    }
}

async fn cursor_row(
    edge: &Edge,
    caller: &Caller,
    param: &'static str,
    id: &str,
) -> Result<(u64, ConversationId), ApiError> {
    let wrong = || ApiError::invalid(param, format!("`{}` is none of your conversations", short(id)));
    let conversation: ConversationId = id.parse().map_err(|_| wrong())?;
    let state = edge.handle.reader().state(conversation).await?;
    // One that was deleted still has its place; it says nothing but when it was made.
    if state.deleted || belongs(&state, caller) { Ok((state.created_at_ms, conversation)) } else { Err(wrong()) }
}

/// At most `limit` conversations that fit, and the last row looked at where the scan ended before the rows did.
async fn scan(
    edge: &Edge,
    caller: &Caller,
    mut after: Option<(u64, ConversationId)>,
    order: Order,
    wanted: &[(String, String)],
    limit: usize,
) -> Result<(Vec<Conversation>, Option<ConversationId>), ApiError> {
    let (mut found, mut scanned) = (Vec::new(), 0);
    while scanned < ROWS_SCANNED_MAX {
        let rows = edge.handle.reader().list(caller, after, order, ROWS_AT_ONCE).await?;
        let Some(last) = rows.last() else { return Ok((found, None)) };
        after = Some((last.created_at_ms, last.conversation));
        scanned += rows.len();
        let all = rows.len() < ROWS_AT_ONCE;
        let mut reads = futures::stream::iter(rows).map(|row| listed(edge, caller, row)).buffered(READS_AT_ONCE);
        while let Some(read) = reads.next().await {
            let Some((id, state)) = read? else { continue };
            if !wanted.iter().all(|pair| state.metadata.contains(pair)) {
                continue;
            }
            found.push(shown(id, &state));
            if found.len() == limit {
                return Ok((found, None));
            }
        }
        if all {
            return Ok((found, None));
        }
    }
    Ok((found, after.map(|(_, id)| id)))
}

/// The conversation of a row, where it lives and was made by a request for it.
async fn listed(
    edge: &Edge,
    caller: &Caller,
    row: IndexRow,
) -> Result<Option<(ConversationId, Arc<ConversationState>)>, ApiError> {
    let state = edge.handle.reader().conversation(row.conversation, caller).await?;
    let explicit = |state: &Arc<ConversationState>| state.created.as_ref().is_some_and(|created| created.explicit);
    Ok(state.filter(explicit).map(|state| (row.conversation, state)))
}
