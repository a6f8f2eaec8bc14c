//! Finds what a request names, for the caller that it belongs to; everyone else is told that it is not there.

use std::sync::Arc;

use klatch_actors::store::Order;
use klatch_actors::{Answer, Caller};
use klatch_protocol::state::Did;
use klatch_protocol::{ConversationId, Item, ResponseId, State, Turn};

use super::edge::Edge;
use super::errors::{ApiError, short};
use super::extract::{ItemName, Query};
use super::idempotency::Identity;
use super::observe::request_id;
use super::wire::list::{LIMIT_DEFAULT, LIMIT_MAX};

pub async fn conversation(edge: &Edge, id: ConversationId, caller: &Caller) -> Result<Arc<State>, ApiError> {
    let found = edge.handle.reader().conversation(id, caller).await?;
    found.ok_or_else(|| ApiError::not_found(format!("there is no conversation `{id}`")))
}

/// A response that is stored for later.
pub async fn response(edge: &Edge, id: ResponseId, caller: &Caller) -> Result<Turn, ApiError> {
    let missing = || ApiError::not_found(format!("there is no response `{id}`"));
    let turn = any_response(edge, id, caller).await?.ok_or_else(missing)?;
    if turn.accepted.parameters.store { Ok(turn) } else { Err(missing()) }
}

/// A response, also one that was not to be stored and is still known.
pub async fn any_response(edge: &Edge, id: ResponseId, caller: &Caller) -> Result<Option<Turn>, ApiError> {
    let reader = edge.handle.reader();
    let Some(state) = reader.conversation(id.conversation, caller).await? else { return Ok(None) };
    Ok(reader.turn(id.conversation, &state, id.turn).await?)
}

/// What this very request did before under its key or attempt, and the conversation that keeps it. Asked once the request
/// cannot be carried out: what it names may have gone since, and it is answered again all the same.
pub async fn done_before(
    edge: &Edge,
    caller: &Caller,
    identity: &Identity,
    keeper: ConversationId,
) -> Option<(Arc<State>, Did)> {
    let used = identity.known_by()?;
    let state = edge.handle.reader().conversation(keeper, caller).await.ok()??;
    let did = state.key(&used.key).filter(|known| known.used == used)?.did.clone();
    Some((state, did))
}

pub async fn item(
    edge: &Edge,
    conversation: ConversationId,
    state: &Arc<State>,
    name: &ItemName,
) -> Result<Option<Item>, ApiError> {
    let reader = edge.handle.reader();
    Ok(match name {
        ItemName::Own(id) if id.conversation == conversation => reader.item(conversation, state, id.ordinal).await?,
        ItemName::Own(_) => None,
        ItemName::Client(id) => reader.item_of_client(conversation, state, id).await?,
    })
}

/// What a conversation never answers to such a request: a fault of this node.
pub fn unexpected(answer: &Answer) -> ApiError {
    let kind = match answer {
        Answer::Conversation { .. } => "conversation",
        Answer::Turn { .. } => "turn",
        Answer::Items { .. } => "items",
        Answer::Forked { .. } => "forked",
        Answer::News(_) => "news",
        Answer::NotOpen => "not open",
        Answer::Done => "done",
        Answer::DueAt(_) => "due at",
    };
    tracing::error!(request.id = %request_id(), answer = kind, "a conversation answered what it was not asked");
    ApiError::failed()
}

/// How a list is to be paged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paging {
    pub limit: usize,
    pub order: Order,
    pub after: Option<String>,
    pub before: Option<String>,
}

impl Paging {
    pub fn read(query: &Query) -> Result<Self, ApiError> {
        let limit = query.number("limit")?.unwrap_or(LIMIT_DEFAULT as u64);
        if !(1..=LIMIT_MAX as u64).contains(&limit) {
            return Err(ApiError::invalid("limit", format!("must be between 1 and {LIMIT_MAX}")));
        }
        let order = match query.get("order") {
            None | Some("desc") => Order::Descending,
            Some("asc") => Order::Ascending,
            Some(_) => return Err(ApiError::invalid("order", "must be asc or desc")),
        };
        let cursor = |name| query.get(name).filter(|id| !id.is_empty()).map(str::to_owned);
        Ok(Self { limit: limit as usize, order, after: cursor("after"), before: cursor("before") })
    }

    /// The ordinals of the page: behind `after`, up to `before`, in the page's order.
    pub async fn ordinals(
        &self,
        edge: &Edge,
        conversation: ConversationId,
        state: &Arc<State>,
    ) -> Result<(u64, u64), ApiError> {
        let after = cursor(edge, conversation, state, "after", self.after.as_deref()).await?;
        let before = cursor(edge, conversation, state, "before", self.before.as_deref()).await?;
        let (low, high) = match self.order {
            Order::Ascending => (after, before),
            Order::Descending => (before, after),
        };
        Ok((low.map_or(0, |low| low.saturating_add(1)), high.unwrap_or(u64::MAX)))
    }
}

/// The ordinal that a cursor stands for. The item itself may have been deleted since, so it is not looked for.
async fn cursor(
    edge: &Edge,
    conversation: ConversationId,
    state: &Arc<State>,
    param: &'static str,
    id: Option<&str>,
) -> Result<Option<u64>, ApiError> {
    let Some(text) = id else { return Ok(None) };
    let found = match ItemName::from(text) {
        ItemName::Own(id) => (id.conversation == conversation).then_some(id.ordinal),
        name @ ItemName::Client(_) => item(edge, conversation, state, &name).await?.map(|item| item.ordinal),
    };
    let wrong = || ApiError::invalid(param, format!("`{}` is no item of this conversation", short(text)));
    found.map(Some).ok_or_else(wrong)
}
