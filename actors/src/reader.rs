//! Reads what is durable, past the actors: the fold of a conversation's log, its items page by page through the
//! conversations it was forked from, its turns. Never claims, so it works on any node and disturbs no owner.

use std::sync::Arc;

use klatch_protocol::event::Parent;
use klatch_protocol::state::ItemRow;
use klatch_protocol::{ConversationId, Item, State, Turn};

use crate::request::Caller;
use crate::store::{IndexRow, Order, Store, StoreError};

/// Rows asked of the store at once while a page is filled, so that a run of deleted items costs few trips.
const ROWS_AT_ONCE: usize = 128;

#[derive(Clone)]
pub struct Reader {
    store: Arc<dyn Store>,
}

/// A page of items: ordinals in `from..to`.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    pub from: u64,
    pub to: u64,
    pub order: Order,
    pub limit: usize,
}

/// One conversation of a line of forks, and what of it belongs to the one that is read.
struct Level {
    conversation: ConversationId,
    state: Arc<State>,
    /// Own ordinals in `from..to`.
    from: u64,
    to: u64,
    /// Deletions after this version are not this reader's affair.
    as_of: u64,
}

impl Reader {
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// The conversation as it is now, if it exists and is the caller's.
    pub async fn conversation(
        &self,
        conversation: ConversationId,
        caller: &Caller,
    ) -> Result<Option<Arc<State>>, StoreError> {
        let state = self.state(conversation).await?;
        Ok(belongs(&state, caller).then(|| Arc::new(state)))
    }

    /// The fold of the log, whoever it belongs to; the empty state where there is none.
    pub async fn state(&self, conversation: ConversationId) -> Result<State, StoreError> {
        let log = self.store.log(conversation).await?;
        Ok(State::replay(&log.entries))
    }

    /// The visible items of a page, at most `page.limit`, in its order.
    pub async fn items(
        &self,
        conversation: ConversationId,
        state: &Arc<State>,
        page: Page,
    ) -> Result<Vec<Item>, StoreError> {
        let mut line = vec![Level::own(conversation, state.clone())];
        let mut items = Vec::new();
        match page.order {
            Order::Ascending => {
                while let Some(parent) = self.parent(&line).await? {
                    line.push(parent);
                }
                for depth in (0..line.len()).rev() {
                    self.fill(&line, depth, page, &mut items).await?;
                }
            }
            Order::Descending => {
                for depth in 0.. {
                    self.fill(&line, depth, page, &mut items).await?;
                    if items.len() >= page.limit || line[depth].from <= page.from {
                        break;
                    }
                    match self.parent(&line).await? {
                        Some(parent) => line.push(parent),
                        None => break,
                    }
                }
            }
        }
        Ok(items)
    }

    pub async fn item(
        &self,
        conversation: ConversationId,
        state: &Arc<State>,
        ordinal: u64,
    ) -> Result<Option<Item>, StoreError> {
        let Some(to) = ordinal.checked_add(1) else { return Ok(None) };
        let page = Page { from: ordinal, to, order: Order::Descending, limit: 1 };
        Ok(self.items(conversation, state, page).await?.pop())
    }

    /// The item to which the client itself gave this id, here or in the part of a parent that is shared.
    pub async fn item_of_client(
        &self,
        conversation: ConversationId,
        state: &Arc<State>,
        client_id: &str,
    ) -> Result<Option<Item>, StoreError> {
        let mut line = vec![Level::own(conversation, state.clone())];
        loop {
            let level = line.last().expect("a line begins with one level");
            // The last of that id: an earlier one was deleted.
            let hot = level.state.items.values().rev().find(|item| item.client_id.as_deref() == Some(client_id));
            let ordinal = match hot {
                Some(item) => Some(item.ordinal),
                None => self.store.item_of_client(level.conversation, client_id.to_owned()).await?,
            };
            if let Some(ordinal) = ordinal.filter(|ordinal| (level.from..level.to).contains(ordinal)) {
                return self.item(conversation, state, ordinal).await;
            }
            match self.parent(&line).await? {
                Some(parent) => line.push(parent),
                None => return Ok(None),
            }
        }
    }

    /// A turn of this conversation, open or ended, whole.
    pub async fn turn(
        &self,
        conversation: ConversationId,
        state: &Arc<State>,
        ordinal: u64,
    ) -> Result<Option<Turn>, StoreError> {
        if let Some(turn) = state.turn(ordinal) {
            return Ok(Some(turn.clone()));
        }
        if ordinal >= state.next_turn || state.dropped_turns.contains(&ordinal) {
            return Ok(None);
        }
        let Some(mut turn) = self.store.turn(conversation, ordinal).await? else { return Ok(None) };
        if turn.stripped {
            let block =
                Page { from: turn.first_item, to: turn.block_end(), order: Order::Ascending, limit: usize::MAX };
            turn.refill(self.items(conversation, state, block).await?);
        }
        Ok(Some(turn))
    }

    /// The caller's conversations, a page of index rows; rows of deleted ones may be among them.
    pub async fn list(
        &self,
        caller: &Caller,
        after: Option<(u64, ConversationId)>,
        order: Order,
        limit: usize,
    ) -> Result<Vec<IndexRow>, StoreError> {
        self.store.index(caller.tenant.to_string(), caller.subject.to_string(), after, order, limit).await
    }

    /// The conversation from which the last of the line was forked, with the part that is seen of it.
    async fn parent(&self, line: &[Level]) -> Result<Option<Level>, StoreError> {
        let Some(Parent { conversation, before, version }) = line.last().and_then(|level| level.state.parent) else {
            return Ok(None);
        };
        let state = Arc::new(self.state(conversation).await?);
        let from = state.parent.map_or(0, |parent| parent.before);
        let to = before.min(line.last().map_or(before, |level| level.from));
        Ok(Some(Level { conversation, from: from.min(to), to, state, as_of: version }))
    }

    /// Adds the visible items of one level that are on the page.
    async fn fill(&self, line: &[Level], depth: usize, page: Page, items: &mut Vec<Item>) -> Result<(), StoreError> {
        let level = &line[depth];
        let (mut from, mut to) = (page.from.max(level.from), page.to.min(level.to));
        let hot: Vec<ItemRow> =
            level.state.items.range(from.min(to)..to).map(|(_, item)| ItemRow::from(item.clone())).collect();
        // A compaction since the state was read may have moved hot items to the list: they are shown once.
        to = to.min(level.state.items.keys().next().copied().unwrap_or(u64::MAX));
        if page.order == Order::Descending {
            let newest_first = hot.iter().rev().cloned().collect();
            self.keep_visible(line, depth, newest_first, page.limit, items).await?;
        }
        while items.len() < page.limit && from < to {
            let rows = self.store.items(level.conversation, from, to, page.order, ROWS_AT_ONCE).await?;
            let Some(end) = rows.last().map(|row| row.ordinal) else { break };
            let all = rows.len() < ROWS_AT_ONCE;
            self.keep_visible(line, depth, rows, page.limit, items).await?;
            match page.order {
                _ if all => break,
                Order::Ascending => from = end + 1,
                Order::Descending => to = end,
            }
        }
        if page.order == Order::Ascending {
            self.keep_visible(line, depth, hot, page.limit, items).await?;
        }
        Ok(())
    }

    async fn keep_visible(
        &self,
        line: &[Level],
        depth: usize,
        rows: Vec<ItemRow>,
        limit: usize,
        items: &mut Vec<Item>,
    ) -> Result<(), StoreError> {
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(()) };
        let (low, high) = (first.ordinal.min(last.ordinal), first.ordinal.max(last.ordinal));
        let mut hiding: Vec<(&Level, Vec<ItemRow>)> = Vec::new();
        for level in line[..depth].iter().filter(|level| level.state.hides_inherited) {
            let masks = self.store.items(level.conversation, low, high + 1, Order::Ascending, usize::MAX).await?;
            hiding.push((level, masks));
        }
        for row in rows {
            if items.len() >= limit {
                break;
            }
            let hidden = line[depth].hides(&row)
                || hiding.iter().any(|(level, masks)| {
                    let mask = masks.binary_search_by_key(&row.ordinal, |mask| mask.ordinal);
                    level.hides_ordinal(row.ordinal) || mask.is_ok_and(|place| level.hides(&masks[place]))
                });
            if let (false, Some(body)) = (hidden, row.body) {
                items.push(Item { ordinal: row.ordinal, client_id: row.client_id, body });
            }
        }
        Ok(())
    }
}

/// Whether the conversation exists for this caller.
pub fn belongs(state: &State, caller: &Caller) -> bool {
    state.alive().is_some_and(|created| created.tenant == *caller.tenant && created.subject == *caller.subject)
}

impl Level {
    fn own(conversation: ConversationId, state: Arc<State>) -> Self {
        let from = state.parent.map_or(0, |parent| parent.before);
        Self { conversation, state, from, to: u64::MAX, as_of: u64::MAX }
    }

    fn hides(&self, row: &ItemRow) -> bool {
        row.hidden_at.is_some_and(|version| version <= self.as_of) || self.hides_ordinal(row.ordinal)
    }

    fn hides_ordinal(&self, ordinal: u64) -> bool {
        self.state.hidden.get(&ordinal).is_some_and(|version| *version <= self.as_of)
    }
}
