//! The boundary to durable storage: per conversation one append-only log with a fence, and the lists that compaction
//! moves finished things to; beside them the rows by which conversations are found.
//!
//! All stores pass the contract suite in `contract`. A store decides nothing but the fence.

#[cfg(any(test, feature = "testing"))]
pub mod contract;
pub mod memory;

use std::sync::Arc;

use futures::future::BoxFuture;
use klatch_protocol::state::{ItemRow, Settled};
use klatch_protocol::{ClaimToken, ConversationId, Entry, Event, Position, Shard, Turn};

pub type Stored<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// Is told what became of an append.
pub type Done = Box<dyn FnOnce(Result<(), StoreError>) + Send + Sync>;

/// The end of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEnd {
    pub position: Position,
    pub token: ClaimToken,
}

/// The log from its last snapshot on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Log {
    pub entries: Vec<Entry>,
    /// Size of the entries after the snapshot (all of them where there is none), as sealed; what a store adds to them
    /// is not counted.
    pub tail_bytes: usize,
}

/// All or nothing: settled things go to their lists, the snapshot is added to the log, all before it is trimmed.
#[derive(Clone, Debug, PartialEq)]
pub struct Compaction {
    /// Refused as fenced unless the log ends exactly so.
    pub expected: LogEnd,
    /// One entry with one [`klatch_protocol::Event::Snapshot`], and behind it what its bytes do not hold, at the position after `expected`.
    pub snapshot: Arc<Entry>,
    pub settled: Settled,
    /// The conversation was deleted: of its lists only the items below this ordinal stay, for its children. None
    /// where it lives.
    pub clear_but_items_below: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Ascending,
    Descending,
}

/// By which a subject's conversations are listed, newest first or last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexRow {
    pub tenant: String,
    pub subject: String,
    pub created_at_ms: u64,
    pub conversation: ConversationId,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The position is not above the log's last, or the log is not as expected: someone else owns it now. Nothing was
    /// written.
    #[error("the store refused it: the log ends at {0:?}")]
    Fenced(Option<Position>),
    /// It may or may not have been written: read the log's end before anything else.
    #[error("the store did not say whether it was written: {0}")]
    Unknown(String),
    /// Nothing was written, or nothing could be read. Later it may work.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// What was read cannot be understood.
    #[error("the store holds something unreadable: {0}")]
    Damaged(String),
}

/// By which a conversation with an unfinished turn is found when its owner is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpenRow {
    pub conversation: ConversationId,
    /// Of the owner that wrote it.
    pub epoch: u64,
}

pub trait Store: Send + Sync + 'static {
    /// Adds the entry and answers once it is durable. Gaps in `seq` are not the store's affair. Refused as fenced unless its position is above the log's last;
    /// the position 1-0 makes a log and needs that there is none, every other needs that there is one.
    fn append(&self, conversation: ConversationId, entry: Arc<Entry>) -> Stored<'_, ()>;

    /// The same for who does not wait: `done` is told the outcome, on whatever task. It is under way when this returns. Dropped
    /// untold, something broke, and the outcome is unknown. For stores that can do it without a task of its own.
    fn append_then(self: Arc<Self>, conversation: ConversationId, entry: Arc<Entry>, done: Done) {
        tokio::spawn(async move { done(self.append(conversation, entry).await) });
    }

    /// The log's end; none where there is no log.
    fn log_end(&self, conversation: ConversationId) -> Stored<'_, Option<LogEnd>>;

    /// Empty where there is no log.
    fn log(&self, conversation: ConversationId) -> Stored<'_, Log>;

    /// See [`Compaction`]. Afterwards the log is its snapshot alone.
    fn compact(&self, conversation: ConversationId, compaction: Compaction) -> Stored<'_, ()>;

    /// Rows of the item list with ordinals in `from..to`, at most `limit`, hidden ones included.
    fn items(
        &self,
        conversation: ConversationId,
        from: u64,
        to: u64,
        order: Order,
        limit: usize,
    ) -> Stored<'_, Vec<ItemRow>>;

    /// The ordinal of the item in the list that carries this id of the client's own, hidden or not; of several, the
    /// one that came last.
    fn item_of_client(&self, conversation: ConversationId, client_id: String) -> Stored<'_, Option<u64>>;

    /// A turn of the turn list.
    fn turn(&self, conversation: ConversationId, turn: u64) -> Stored<'_, Option<Turn>>;

    /// Rows are sets: one that is there is added again, and one that is not removed, without an error.
    fn index_add(&self, row: IndexRow) -> Stored<'_, ()>;

    fn index_remove(&self, row: IndexRow) -> Stored<'_, ()>;

    /// Rows of one subject by (created_at_ms, conversation), beginning behind `after` in the given order.
    fn index(
        &self,
        tenant: String,
        subject: String,
        after: Option<(u64, ConversationId)>,
        order: Order,
        limit: usize,
    ) -> Stored<'_, Vec<IndexRow>>;

    /// The conversation may have an unfinished turn. A row too many is harmless.
    fn open_add(&self, shard: Shard, row: OpenRow) -> Stored<'_, ()>;

    /// Removes the conversation's rows of this epoch and all before it: one that is done late, when its sender has given
    /// it up long ago, takes nothing from the owners after it.
    fn open_remove(&self, shard: Shard, upto: OpenRow) -> Stored<'_, ()>;

    /// At most `limit` rows of the shard, by id and epoch, behind `after`.
    fn open(&self, shard: Shard, after: Option<OpenRow>, limit: usize) -> Stored<'_, Vec<OpenRow>>;

    /// The conversation is to be looked at then, whether it has expired.
    fn due_add(&self, at_ms: u64, conversation: ConversationId) -> Stored<'_, ()>;

    fn due_remove(&self, at_ms: u64, conversation: ConversationId) -> Stored<'_, ()>;

    /// At most `limit` rows due at `now_ms` or before, oldest first.
    fn due(&self, now_ms: u64, limit: usize) -> Stored<'_, Vec<(u64, ConversationId)>>;
}

/// The fence: whether an entry at this position may follow that end, for stores that must compare themselves.
pub fn fence(end: Option<Position>, position: Position) -> Result<(), StoreError> {
    let allowed = match end {
        Some(end) => position > end,
        None => position == Position::default().claim(),
    };
    if allowed { Ok(()) } else { Err(StoreError::Fenced(end)) }
}

/// Whether an entry may follow that end where the store may have lost what it had acknowledged, as after a failover: the
/// end must be the owner's own last entry. The fence alone would take the entry over a log that went back.
pub fn goes_on(position: Position, token: ClaimToken, end: Option<LogEnd>) -> Result<(), StoreError> {
    let Position { epoch, seq } = position;
    let own = seq.checked_sub(1).map(|seq| LogEnd { position: Position { epoch, seq }, token });
    match end {
        _ if own.is_none() || end == own => Ok(()),
        Some(end) if end.position >= position => Err(StoreError::Fenced(Some(end.position))),
        Some(LogEnd { position: end, .. }) => {
            Err(StoreError::Damaged(format!("the log went back: it ends at {end:?} before {position:?}")))
        }
        None => Err(StoreError::Fenced(None)),
    }
}

/// Whether it is the snapshot that a log may begin with.
pub fn is_snapshot(entry: &Entry) -> bool {
    matches!(entry.events.first(), Some(Event::Snapshot(_)))
}

/// What [`Settled::hide`] makes of a row: of one in the list, or of none, where the item is inherited and only masked
/// here. The first deletion counts, since children see their prefix as it was.
pub fn hidden(row: Option<ItemRow>, ordinal: u64, version: u64, keep: bool) -> ItemRow {
    let row = row.unwrap_or(ItemRow { ordinal, client_id: None, body: None, hidden_at: None });
    ItemRow { body: row.body.filter(|_| keep), hidden_at: row.hidden_at.or(Some(version)), ..row }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(epoch: u64, seq: u64) -> Position {
        Position { epoch, seq }
    }

    fn end(epoch: u64, seq: u64, token: u128) -> Option<LogEnd> {
        Some(LogEnd { position: at(epoch, seq), token: ClaimToken(token) })
    }

    #[test]
    fn behind_a_failover_an_entry_follows_the_owners_own_last_one_only() {
        let goes_on = |end| goes_on(at(2, 6), ClaimToken(7), end);
        assert_eq!(goes_on(end(2, 5, 7)), Ok(()));
        assert_eq!(goes_on(end(3, 0, 8)), Err(StoreError::Fenced(Some(at(3, 0)))));
        assert_eq!(goes_on(end(2, 6, 8)), Err(StoreError::Fenced(Some(at(2, 6)))));
        assert_eq!(goes_on(None), Err(StoreError::Fenced(None)));
        for went_back in [end(2, 4, 7), end(1, 9, 6), end(2, 5, 8)] {
            assert!(matches!(goes_on(went_back), Err(StoreError::Damaged(_))), "{went_back:?}");
        }
    }

    #[test]
    fn a_claim_follows_whatever_is_there() {
        assert_eq!(goes_on(at(3, 0), ClaimToken(7), end(2, 5, 8)), Ok(()));
        assert_eq!(goes_on(at(1, 0), ClaimToken(7), None), Ok(()));
    }
}
