//! The items of a conversation: added, read by page, read and deleted one by one.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use klatch_actors::reader::Page;
use klatch_actors::{Answer, Caller, Request};
use klatch_protocol::state::Did;
use klatch_protocol::{ConversationId, Item, State as ConversationState};

use super::conversations::ask_of;
use super::edge::Edge;
use super::errors::{ApiError, Refused, short};
use super::extract::{Asked, ItemName, PathConversation, PathItem, Query, Sent};
use super::idempotency::Identity;
use super::inputs::{self, Destination, Resolved};
use super::lookup::{self, Paging, unexpected};
use super::reply::Replayable;
use super::wire::conversation::{AddItems, Conversation};
use super::wire::field::Field;
use super::wire::given::{ADDED_ITEMS_MAX, read_items};
use super::wire::items::WireItem;
use super::wire::list::List;

/// Adds items to the end of a conversation; answers them in the order in which they were sent.
#[utoipa::path(post, path = "/v1/conversations/{conversation_id}/items", tag = "items",
    params(("conversation_id" = String, Path)), request_body = AddItems,
    responses((status = 200, body = List<WireItem>), Refused))]
pub async fn add(
    State(edge): State<Edge>,
    PathConversation(id): PathConversation,
    Sent { caller, identity, body, .. }: Sent<AddItems>,
) -> Result<Replayable<List<WireItem>>, ApiError> {
    let field = Field::new("items", body.items.as_ref());
    let given = read_items(&field, ADDED_ITEMS_MAX)?;
    if given.is_empty() {
        return Err(field.wrong(format!("must have 1 to {ADDED_ITEMS_MAX} items")).into());
    }
    let resolved = match inputs::resolve(&edge, &caller, Destination::unread(id), given).await {
        Ok(resolved) => resolved,
        Err(error) => return added_before(&edge, &caller, &identity, id).await.ok_or(error),
    };
    let items = inputs::new_items(&resolved);
    let request = Request::AddItems { caller: caller.clone(), items, key: identity.known_by() };
    let (ordinals, replayed) = match ask_of(&edge, id, request).await? {
        Answer::Items { ordinals, replayed } => (ordinals, replayed),
        other => return Err(unexpected(&other)),
    };
    let added = match replayed {
        false => with_ordinals(&resolved, &ordinals),
        true => {
            let state = lookup::conversation(&edge, id, &caller).await?;
            read_all(&edge, id, &state, &ordinals).await?
        }
    };
    let shown = in_order(resolved, added).iter().map(|item| WireItem::new(id, item)).collect();
    Ok(Replayable { body: List::new(shown, false), replayed: identity.tells(replayed) })
}

/// The items that this very request added before.
async fn added_before(
    edge: &Edge,
    caller: &Caller,
    identity: &Identity,
    id: ConversationId,
) -> Option<Replayable<List<WireItem>>> {
    let (state, Did::ItemsAdded(ordinals)) = lookup::done_before(edge, caller, identity, id).await? else {
        return None;
    };
    let added = read_all(edge, id, &state, &ordinals).await.ok()?;
    let shown = added.iter().map(|item| WireItem::new(id, item)).collect();
    Some(Replayable { body: List::new(shown, false), replayed: identity.tells(true) })
}

/// The new items, as they were added.
fn with_ordinals(resolved: &[Resolved], ordinals: &[u64]) -> Vec<Item> {
    let new = inputs::new_items(resolved).into_iter().zip(ordinals);
    new.map(|(item, ordinal)| Item { ordinal: *ordinal, ..item }).collect()
}

async fn read_all(
    edge: &Edge,
    id: ConversationId,
    state: &Arc<ConversationState>,
    ordinals: &[u64],
) -> Result<Vec<Item>, ApiError> {
    let mut items = Vec::new();
    for ordinal in ordinals {
        items.extend(edge.handle.reader().item(id, state, *ordinal).await?);
    }
    Ok(items)
}

/// Known items where they were sent, and the added ones in the places of the others.
fn in_order(resolved: Vec<Resolved>, added: Vec<Item>) -> Vec<Item> {
    let known = |ordinal: u64| {
        resolved.iter().any(|resolved| matches!(resolved, Resolved::Known(item) if item.ordinal == ordinal))
    };
    // In a replay, what was added then is known by its id now.
    let mut added: std::collections::VecDeque<Item> = added.into_iter().filter(|item| !known(item.ordinal)).collect();
    let mut shown = Vec::with_capacity(resolved.len());
    for resolved in resolved {
        match resolved {
            Resolved::Known(item) => shown.push(item),
            Resolved::New(_) => shown.extend(added.pop_front()),
        }
    }
    shown
}

/// Lists a conversation's items, newest first.
#[utoipa::path(get, path = "/v1/conversations/{conversation_id}/items", tag = "items",
    params(
        ("conversation_id" = String, Path),
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 100),
        ("order" = Option<String>, Query, description = "`asc` or `desc`"),
        ("after" = Option<String>, Query, description = "An item's id: what comes behind it"),
        ("before" = Option<String>, Query, description = "An item's id: the list ends before it"),
    ),
    responses((status = 200, body = List<WireItem>), Refused))]
pub async fn list(
    State(edge): State<Edge>,
    Asked(caller): Asked,
    PathConversation(id): PathConversation,
    query: Query,
) -> Result<Json<List<WireItem>>, ApiError> {
    let paging = Paging::read(&query)?;
    let state = lookup::conversation(&edge, id, &caller).await?;
    let (from, to) = paging.ordinals(&edge, id, &state).await?;
    let page = Page { from, to, order: paging.order, limit: paging.limit + 1 };
    let items = if from < to { edge.handle.reader().items(id, &state, page).await? } else { Vec::new() };
    let shown = items.iter().map(|item| WireItem::new(id, item)).collect();
    Ok(Json(List::page(shown, paging.limit)))
}

/// Shows an item.
#[utoipa::path(get, path = "/v1/conversations/{conversation_id}/items/{item_id}", tag = "items",
    params(("conversation_id" = String, Path), ("item_id" = String, Path)),
    responses((status = 200, body = WireItem), Refused))]
pub async fn read(
    State(edge): State<Edge>,
    Asked(caller): Asked,
    PathItem(id, name): PathItem,
) -> Result<Json<WireItem>, ApiError> {
    let state = lookup::conversation(&edge, id, &caller).await?;
    let item = lookup::item(&edge, id, &state, &name).await?.ok_or_else(|| no_such(&name))?;
    Ok(Json(WireItem::new(id, &item)))
}

/// Deletes an item; answers the conversation.
#[utoipa::path(delete, path = "/v1/conversations/{conversation_id}/items/{item_id}", tag = "items",
    params(("conversation_id" = String, Path), ("item_id" = String, Path)),
    responses((status = 200, body = Conversation), Refused))]
pub async fn delete(
    State(edge): State<Edge>,
    Asked(caller): Asked,
    PathItem(id, name): PathItem,
) -> Result<Json<Conversation>, ApiError> {
    let state = lookup::conversation(&edge, id, &caller).await?;
    let item = lookup::item(&edge, id, &state, &name).await?.ok_or_else(|| no_such(&name))?;
    match ask_of(&edge, id, Request::DeleteItem { caller, ordinal: item.ordinal }).await? {
        Answer::Conversation { created_at_ms, metadata, .. } => {
            Ok(Json(Conversation::new(id, created_at_ms, &metadata)))
        }
        other => Err(unexpected(&other)),
    }
}

fn no_such(name: &ItemName) -> ApiError {
    let id = match name {
        ItemName::Own(id) => id.text("msg_"),
        ItemName::Client(id) => short(id),
    };
    ApiError::not_found(format!("there is no item `{id}`"))
}

#[cfg(test)]
mod tests {
    use klatch_protocol::Body;

    use super::*;

    fn item(ordinal: u64, text: &str) -> Item {
        Item { ordinal, client_id: None, body: Body::user(text).into() }
    }

    fn ordinals(items: Vec<Item>) -> Vec<u64> {
        items.iter().map(|item| item.ordinal).collect()
    }

    #[test]
    fn added_and_known_items_are_shown_as_they_were_sent() {
        let resolved = vec![Resolved::New(item(0, "a")), Resolved::Known(item(3, "b")), Resolved::New(item(0, "c"))];
        let added = with_ordinals(&resolved, &[7, 8]);
        assert_eq!(ordinals(in_order(resolved, added)), [7, 3, 8]);
    }

    #[test]
    fn a_replay_shows_the_same_items_although_their_ids_are_known_now() {
        let resolved = vec![Resolved::Known(item(7, "a")), Resolved::New(item(0, "c"))];
        assert_eq!(ordinals(in_order(resolved, vec![item(7, "a"), item(8, "c")])), [7, 8]);
    }
}
