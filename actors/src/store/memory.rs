//! A store in memory, for `--store memory:` and for tests: as safe as its process, and gone with it.
//!
//! It keeps the sealed bytes, not the values, so that whatever it is tested with goes through the stored form. It is
//! bounded by nothing but what is put into it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use klatch_protocol::envelope::{open, seal};
use klatch_protocol::state::{ItemRow, Settled};
use klatch_protocol::{ConversationId, Entry, Shard, Turn};
use serde::de::DeserializeOwned;

use super::{Compaction, IndexRow, Log, LogEnd, OpenRow, Order, Store, StoreError, Stored, fence, hidden};

/// Locks over which the conversations are spread, so that appends to different ones seldom meet.
const PARTS: usize = 64;

type Sealed = Arc<[u8]>;

pub struct MemoryStore {
    parts: Vec<Mutex<HashMap<ConversationId, Conversation>>>,
    rows: Mutex<Rows>,
}

#[derive(Clone)]
struct Conversation {
    end: LogEnd,
    log: Vec<Sealed>,
    tail_bytes: usize,
    items: BTreeMap<u64, Sealed>,
    clients: BTreeMap<String, u64>,
    turns: BTreeMap<u64, Sealed>,
}

#[derive(Clone, Default)]
struct Rows {
    index: BTreeMap<(String, String), BTreeSet<(u64, ConversationId)>>,
    open: BTreeSet<(Shard, OpenRow)>,
    due: BTreeSet<(u64, ConversationId)>,
}

/// Another store that holds the same, from then on its own.
impl Clone for MemoryStore {
    fn clone(&self) -> Self {
        let part = |part: &Mutex<HashMap<_, _>>| Mutex::new(lock(part).clone());
        Self { parts: self.parts.iter().map(part).collect(), rows: Mutex::new(lock(&self.rows).clone()) }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self { parts: (0..PARTS).map(|_| Mutex::default()).collect(), rows: Mutex::default() }
    }
}

impl MemoryStore {
    fn part(&self, conversation: ConversationId) -> MutexGuard<'_, HashMap<ConversationId, Conversation>> {
        lock(&self.parts[usize::from(conversation.0[0]) % PARTS])
    }

    fn append_now(&self, conversation: ConversationId, entry: &Entry) -> Result<(), StoreError> {
        let sealed = Sealed::from(seal(entry));
        let mut part = self.part(conversation);
        let end = part.get(&conversation).map(|known| known.end.position);
        fence(end, entry.position)?;
        let end = LogEnd { position: entry.position, token: entry.token };
        let known = part.entry(conversation).or_insert_with(|| Conversation::new(end));
        known.end = end;
        known.tail_bytes += sealed.len();
        known.log.push(sealed);
        Ok(())
    }

    fn log_now(&self, conversation: ConversationId) -> Result<Log, StoreError> {
        let (sealed, tail_bytes) = match self.part(conversation).get(&conversation) {
            Some(known) => (known.log.clone(), known.tail_bytes),
            None => return Ok(Log::default()),
        };
        let entries = sealed.iter().map(|sealed| unseal(sealed)).collect::<Result<_, _>>()?;
        Ok(Log { entries, tail_bytes })
    }

    fn compact_now(&self, conversation: ConversationId, compaction: Compaction) -> Result<(), StoreError> {
        let snapshot = Sealed::from(seal(&*compaction.snapshot));
        let mut part = self.part(conversation);
        let Some(known) = part.get_mut(&conversation) else { return Err(StoreError::Fenced(None)) };
        if known.end != compaction.expected {
            return Err(StoreError::Fenced(Some(known.end.position)));
        }
        known.settle(compaction.settled)?;
        if let Some(below) = compaction.clear_but_items_below {
            known.clear(below);
        }
        known.end = LogEnd { position: compaction.snapshot.position, token: compaction.snapshot.token };
        known.log = vec![snapshot];
        known.tail_bytes = 0;
        Ok(())
    }

    fn items_now(
        &self,
        conversation: ConversationId,
        from: u64,
        to: u64,
        order: Order,
        limit: usize,
    ) -> Result<Vec<ItemRow>, StoreError> {
        let page: Vec<Sealed> = match self.part(conversation).get(&conversation) {
            Some(known) if from < to => {
                let rows = known.items.range(from..to).map(|(_, row)| row.clone());
                match order {
                    Order::Ascending => rows.take(limit).collect(),
                    Order::Descending => rows.rev().take(limit).collect(),
                }
            }
            _ => Vec::new(),
        };
        page.iter().map(|sealed| unseal(sealed)).collect()
    }

    fn index_now(
        &self,
        subject: &(String, String),
        after: Option<(u64, ConversationId)>,
        order: Order,
        limit: usize,
    ) -> Vec<IndexRow> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rows = lock(&self.rows);
        let Some(set) = rows.index.get(subject) else { return Vec::new() };
        let row = |&(created_at_ms, conversation): &(u64, ConversationId)| IndexRow {
            tenant: subject.0.clone(),
            subject: subject.1.clone(),
            created_at_ms,
            conversation,
        };
        match order {
            Order::Ascending => set.range((after, Bound::Unbounded)).take(limit).map(row).collect(),
            Order::Descending => set.range((Bound::Unbounded, after)).rev().take(limit).map(row).collect(),
        }
    }
}

impl Conversation {
    fn new(end: LogEnd) -> Self {
        Self {
            end,
            log: Vec::new(),
            tail_bytes: 0,
            items: BTreeMap::new(),
            clients: BTreeMap::new(),
            turns: BTreeMap::new(),
        }
    }

    /// Reads what it needs before it changes anything: all or nothing.
    fn settle(&mut self, settled: Settled) -> Result<(), StoreError> {
        let mut changed: BTreeMap<u64, ItemRow> = settled.items.into_iter().map(|row| (row.ordinal, row)).collect();
        let named = changed.values().filter_map(|row| Some((row.client_id.clone()?, row.ordinal)));
        let named: Vec<(String, u64)> = named.collect();
        for (ordinal, version, keep) in settled.hide {
            let row = match changed.remove(&ordinal) {
                Some(row) => Some(row),
                None => self.items.get(&ordinal).map(|sealed| unseal(sealed)).transpose()?,
            };
            changed.insert(ordinal, hidden(row, ordinal, version, keep));
        }
        self.clients.extend(named);
        self.items.extend(changed.into_iter().map(|(ordinal, row)| (ordinal, seal(&row).into())));
        self.turns.extend(settled.turns.iter().map(|turn| (turn.accepted.turn, seal(turn).into())));
        for turn in settled.drop_turns {
            self.turns.remove(&turn);
        }
        Ok(())
    }

    fn clear(&mut self, below: u64) {
        self.items.split_off(&below);
        self.clients.retain(|_, ordinal| *ordinal < below);
        self.turns.clear();
    }
}

impl Store for MemoryStore {
    fn append(&self, conversation: ConversationId, entry: Arc<Entry>) -> Stored<'_, ()> {
        Box::pin(async move { self.append_now(conversation, &entry) })
    }

    fn log_end(&self, conversation: ConversationId) -> Stored<'_, Option<LogEnd>> {
        Box::pin(async move { Ok(self.part(conversation).get(&conversation).map(|known| known.end)) })
    }

    fn log(&self, conversation: ConversationId) -> Stored<'_, Log> {
        Box::pin(async move { self.log_now(conversation) })
    }

    fn compact(&self, conversation: ConversationId, compaction: Compaction) -> Stored<'_, ()> {
        Box::pin(async move { self.compact_now(conversation, compaction) })
    }

    fn items(
        &self,
        conversation: ConversationId,
        from: u64,
        to: u64,
        order: Order,
        limit: usize,
    ) -> Stored<'_, Vec<ItemRow>> {
        Box::pin(async move { self.items_now(conversation, from, to, order, limit) })
    }

    fn item_of_client(&self, conversation: ConversationId, client_id: String) -> Stored<'_, Option<u64>> {
        Box::pin(async move {
            let part = self.part(conversation);
            Ok(part.get(&conversation).and_then(|known| known.clients.get(&client_id).copied()))
        })
    }

    fn turn(&self, conversation: ConversationId, turn: u64) -> Stored<'_, Option<Turn>> {
        Box::pin(async move {
            let sealed = self.part(conversation).get(&conversation).and_then(|known| known.turns.get(&turn).cloned());
            sealed.map(|sealed| unseal(&sealed)).transpose()
        })
    }

    fn index_add(&self, row: IndexRow) -> Stored<'_, ()> {
        Box::pin(async move {
            let mut rows = lock(&self.rows);
            let set = rows.index.entry((row.tenant, row.subject)).or_default();
            set.insert((row.created_at_ms, row.conversation));
            Ok(())
        })
    }

    fn index_remove(&self, row: IndexRow) -> Stored<'_, ()> {
        Box::pin(async move {
            if let Some(set) = lock(&self.rows).index.get_mut(&(row.tenant, row.subject)) {
                set.remove(&(row.created_at_ms, row.conversation));
            }
            Ok(())
        })
    }

    fn index(
        &self,
        tenant: String,
        subject: String,
        after: Option<(u64, ConversationId)>,
        order: Order,
        limit: usize,
    ) -> Stored<'_, Vec<IndexRow>> {
        Box::pin(async move { Ok(self.index_now(&(tenant, subject), after, order, limit)) })
    }

    fn open_add(&self, shard: Shard, row: OpenRow) -> Stored<'_, ()> {
        Box::pin(async move {
            lock(&self.rows).open.insert((shard, row));
            Ok(())
        })
    }

    fn open_remove(&self, shard: Shard, upto: OpenRow) -> Stored<'_, ()> {
        Box::pin(async move {
            let gone = |row: &OpenRow| row.conversation == upto.conversation && row.epoch <= upto.epoch;
            lock(&self.rows).open.retain(|(of, row)| *of != shard || !gone(row));
            Ok(())
        })
    }

    fn open(&self, shard: Shard, after: Option<OpenRow>, limit: usize) -> Stored<'_, Vec<OpenRow>> {
        Box::pin(async move {
            let row = |id, epoch| (shard, OpenRow { conversation: ConversationId([id; 16]), epoch });
            let from = after.map_or(Bound::Included(row(0, 0)), |after| Bound::Excluded((shard, after)));
            let to = Bound::Included(row(0xff, u64::MAX));
            Ok(lock(&self.rows).open.range((from, to)).take(limit).map(|(_, row)| *row).collect())
        })
    }

    fn due_add(&self, at_ms: u64, conversation: ConversationId) -> Stored<'_, ()> {
        Box::pin(async move {
            lock(&self.rows).due.insert((at_ms, conversation));
            Ok(())
        })
    }

    fn due_remove(&self, at_ms: u64, conversation: ConversationId) -> Stored<'_, ()> {
        Box::pin(async move {
            lock(&self.rows).due.remove(&(at_ms, conversation));
            Ok(())
        })
    }

    fn due(&self, now_ms: u64, limit: usize) -> Stored<'_, Vec<(u64, ConversationId)>> {
        Box::pin(async move {
            let until = (now_ms, ConversationId([0xff; 16]));
            Ok(lock(&self.rows).due.range(..=until).take(limit).copied().collect())
        })
    }
}

/// No operation leaves a map half changed, so a panic elsewhere poisons nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unseal<T: DeserializeOwned>(sealed: &[u8]) -> Result<T, StoreError> {
    open(sealed).map_err(|error| StoreError::Damaged(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::super::contract;
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn it_keeps_the_contract() {
        contract::suite(async || Arc::new(MemoryStore::default()) as Arc<dyn Store>).await;
    }
}
