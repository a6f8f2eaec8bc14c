//! Preparing a compaction: all reading it takes, done before the batcher sees it, so that nobody waits for it.
//!
//! What is read here holds as long as the log ends where it is expected to, since only appends and compactions change
//! a conversation and both move its end. The batcher checks that once more.

use std::collections::BTreeMap;

use fjall::{Readable, Snapshot, UserKey};
use klatch_actors::store::{Compaction, LogEnd, StoreError, hidden};
use klatch_protocol::ConversationId;
use klatch_protocol::state::{ItemRow, Settled};

use super::batcher::{Change, Table, Write};
use super::engine::{Engine, read_error};
use super::keys::{self, End};

/// What one compaction writes. No key may stand in a batch twice, hence a map.
struct Writes<'a> {
    engine: &'a Engine,
    moment: Snapshot,
    conversation: ConversationId,
    changes: BTreeMap<(Table, UserKey), Option<Vec<u8>>>,
}

pub fn prepare(engine: &Engine, conversation: ConversationId, compaction: Compaction) -> Result<Change, StoreError> {
    let Compaction { expected, snapshot, mut settled, clear_but_items_below } = compaction;
    let moment = engine.snapshot();
    let found = moment.get(&engine.ends, conversation.0).map_err(read_error)?;
    let found = found.map(|value| keys::read_end(&value)).transpose()?;
    let Some(found) = found.filter(|found| found.last == expected) else {
        return Err(StoreError::Fenced(found.map(|found| found.last.position)));
    };
    let mut writes = Writes { engine, moment, conversation, changes: BTreeMap::new() };
    if let Some(below) = clear_but_items_below {
        writes.clear(below)?;
        settled.items.retain(|row| row.ordinal < below);
        settled.hide.retain(|(ordinal, ..)| *ordinal < below);
        settled.turns.clear();
    }
    writes.settle(settled)?;
    writes.trim(found)?;
    let mut value = keys::entry_value(&snapshot);
    keys::link_entry(&mut value, expected.position);
    writes.put(Table::Log, keys::log(conversation, snapshot.position), value);
    let last = LogEnd { position: snapshot.position, token: snapshot.token };
    let end = End { first: last.position, last };
    Ok(Change::Compact { conversation, expected, end, writes: writes.finish() })
}

impl Writes<'_> {
    fn settle(&mut self, settled: Settled) -> Result<(), StoreError> {
        let mut rows: BTreeMap<u64, ItemRow> = BTreeMap::new();
        for row in settled.items {
            if let Some(client_id) = &row.client_id {
                let ordinal = keys::plain_value(&row.ordinal.to_be_bytes());
                self.put(Table::Clients, keys::client(self.conversation, client_id), ordinal);
            }
            rows.insert(row.ordinal, row);
        }
        for (ordinal, version, keep) in settled.hide {
            let row = match rows.remove(&ordinal) {
                Some(row) => Some(row),
                None => self.item(ordinal)?,
            };
            rows.insert(ordinal, hidden(row, ordinal, version, keep));
        }
        for (ordinal, row) in rows {
            self.put(Table::Items, keys::numbered(self.conversation, ordinal), keys::sealed_value(&row));
        }
        for turn in settled.turns {
            let key = keys::numbered(self.conversation, turn.accepted.turn);
            self.put(Table::Turns, key, keys::sealed_value(&turn));
        }
        for turn in settled.drop_turns {
            self.remove(Table::Turns, keys::numbered(self.conversation, turn));
        }
        Ok(())
    }

    fn item(&self, ordinal: u64) -> Result<Option<ItemRow>, StoreError> {
        let key = keys::numbered(self.conversation, ordinal);
        let value = self.moment.get(&self.engine.items, key).map_err(read_error)?;
        value.map(|value| keys::read_sealed(&value)).transpose()
    }

    /// Removes what a deleted conversation has in its lists, but the items that its children share.
    fn clear(&mut self, below: u64) -> Result<(), StoreError> {
        for guard in self.moment.prefix(&self.engine.turns, self.conversation.0) {
            self.changes.insert((Table::Turns, guard.key().map_err(read_error)?), None);
        }
        let from = keys::numbered(self.conversation, below);
        let to = keys::numbered(self.conversation, u64::MAX);
        for guard in self.moment.range(&self.engine.items, from..=to) {
            self.changes.insert((Table::Items, guard.key().map_err(read_error)?), None);
        }
        for guard in self.moment.prefix(&self.engine.clients, self.conversation.0) {
            let (key, value) = guard.into_inner().map_err(read_error)?;
            if keys::number_of(keys::checked(&value)?)? >= below {
                self.changes.insert((Table::Clients, key), None);
            }
        }
        Ok(())
    }

    fn trim(&mut self, end: End) -> Result<(), StoreError> {
        let from = keys::log(self.conversation, end.first);
        let to = keys::log(self.conversation, end.last.position);
        for guard in self.moment.range(&self.engine.log, from..=to) {
            self.changes.insert((Table::Log, guard.key().map_err(read_error)?), None);
        }
        Ok(())
    }

    fn put(&mut self, table: Table, key: impl AsRef<[u8]>, value: Vec<u8>) {
        self.changes.insert((table, key.as_ref().into()), Some(value));
    }

    fn remove(&mut self, table: Table, key: impl AsRef<[u8]>) {
        self.changes.insert((table, key.as_ref().into()), None);
    }

    fn finish(self) -> Vec<Write> {
        self.changes.into_iter().map(|((to, key), value)| Write { to, key, value }).collect()
    }
}

impl Write {
    pub fn bytes(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Vec::len)
    }
}
