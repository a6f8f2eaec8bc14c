//! Reading, from one moment's state of the files. Called on threads that may block; what cannot be understood is
//! `Damaged`, and nothing is left out.

use std::ops::Bound;

use fjall::{Guard, Iter, Readable};
use klatch_actors::store::{IndexRow, Log, OpenRow, Order, StoreError, is_snapshot};
use klatch_protocol::state::ItemRow;
use klatch_protocol::{ConversationId, Position, Shard, Turn};

use super::engine::{Engine, read_error};
use super::keys::{self, damaged};
use crate::stores::records::Record;

type Read<T> = Result<T, StoreError>;
type Key = Vec<u8>;

/// The log, checked: from its first entry to its end, each following the one that was there when it was written.
pub fn log(engine: &Engine, conversation: ConversationId) -> Read<Log> {
    let moment = engine.snapshot();
    let Some(end) = moment.get(&engine.ends, conversation.0).map_err(read_error)? else { return Ok(Log::default()) };
    let end = keys::read_end(&end)?;
    let (first, last) = (keys::log(conversation, end.first), keys::log(conversation, end.last.position));
    let mut log = Log::default();
    let mut expected: Option<Position> = None;
    for guard in moment.range(&engine.log, first..=last) {
        let (key, value) = guard.into_inner().map_err(read_error)?;
        let (before, entry, bytes) = keys::read_entry(&value)?;
        if *key != keys::log(conversation, entry.position) || expected.is_some_and(|expected| expected != before) {
            return Err(damaged("an entry of the log is missing"));
        }
        log.tail_bytes += if expected.is_none() && is_snapshot(&entry) { 0 } else { bytes };
        expected = Some(entry.position);
        log.entries.push(entry);
    }
    let ends = (log.entries.first(), log.entries.last());
    match ends {
        (Some(begin), Some(finish)) if begin.position == end.first && finish.position == end.last.position => Ok(log),
        _ => Err(damaged("the log does not begin or end where it should")),
    }
}

pub fn items(
    engine: &Engine,
    conversation: ConversationId,
    from: u64,
    to: u64,
    order: Order,
    limit: usize,
) -> Read<Vec<ItemRow>> {
    if from >= to {
        return Ok(Vec::new());
    }
    let range = keys::numbered(conversation, from)..keys::numbered(conversation, to);
    let read = |guard: Guard| keys::read_sealed(&guard.value().map_err(read_error)?);
    page(engine.items.range(range), order, limit, read)
}

pub fn item_of_client(engine: &Engine, conversation: ConversationId, client_id: &str) -> Read<Option<u64>> {
    let value = engine.clients.get(keys::client(conversation, client_id)).map_err(read_error)?;
    value.map(|value| keys::number_of(keys::checked(&value)?)).transpose()
}

pub fn turn(engine: &Engine, conversation: ConversationId, turn: u64) -> Read<Option<Turn>> {
    let value = engine.turns.get(keys::numbered(conversation, turn)).map_err(read_error)?;
    value.map(|value| keys::read_sealed(&value)).transpose()
}

pub fn index(
    engine: &Engine,
    tenant: &str,
    subject: &str,
    after: Option<(u64, ConversationId)>,
    order: Order,
    limit: usize,
) -> Read<Vec<IndexRow>> {
    let prefix = keys::subject(tenant, subject);
    let after = after.map(|(at_ms, conversation)| Bound::Excluded(keys::dated(&prefix, at_ms, conversation)));
    let (low, high) = match order {
        Order::Ascending => (after, None),
        Order::Descending => (None, after),
    };
    let low = low.unwrap_or_else(|| Bound::Included(prefix.to_vec()));
    let high = high.unwrap_or_else(|| Bound::Included(keys::dated(&prefix, u64::MAX, LAST_ID)));
    let read = |guard: Guard| {
        let (created_at_ms, conversation) = keys::date_of(&guard.key().map_err(read_error)?)?;
        Ok(IndexRow { tenant: tenant.to_owned(), subject: subject.to_owned(), created_at_ms, conversation })
    };
    page(engine.rows.range::<Key, _>((low, high)), order, limit, read)
}

const LAST_ID: ConversationId = ConversationId([0xff; 16]);

pub fn open(engine: &Engine, shard: Shard, after: Option<OpenRow>, limit: usize) -> Read<Vec<OpenRow>> {
    let low = match after {
        Some(after) => Bound::Excluded(keys::open_row(shard, after)),
        None => Bound::Included(keys::open_shard(shard).to_vec()),
    };
    let high = Bound::Included(keys::open_row(shard, OpenRow { conversation: LAST_ID, epoch: u64::MAX }));
    let read = |guard: Guard| keys::open_row_of(&guard.key().map_err(read_error)?);
    page(engine.rows.range::<Key, _>((low, high)), Order::Ascending, limit, read)
}

/// The keys of the conversation's rows of this epoch and before.
pub fn open_rows_upto(engine: &Engine, shard: Shard, upto: OpenRow) -> Read<Vec<Key>> {
    let (low, high) = (keys::open_row(shard, OpenRow { epoch: 0, ..upto }), keys::open_row(shard, upto));
    let read = |guard: Guard| Ok(guard.key().map_err(read_error)?.to_vec());
    page(engine.rows.range::<Key, _>(low..=high), Order::Ascending, usize::MAX, read)
}

pub fn due(engine: &Engine, now_ms: u64, limit: usize) -> Read<Vec<(u64, ConversationId)>> {
    let read = |guard: Guard| keys::date_of(&guard.key().map_err(read_error)?);
    page(engine.rows.range(vec![keys::DUE]..=keys::due(now_ms, LAST_ID)), Order::Ascending, limit, read)
}

pub fn record(engine: &Engine, key: &str) -> Read<Option<Record>> {
    let Some(value) = engine.records.get(key).map_err(read_error)? else { return Ok(None) };
    let (version, bytes) = keys::read_record(&value)?;
    Ok(Some(Record { version, bytes: bytes.to_vec() }))
}

pub fn record_keys(engine: &Engine, prefix: &str, after: Option<String>, limit: usize) -> Read<Vec<String>> {
    let low = match after {
        Some(after) if after.as_str() >= prefix => Bound::Excluded(after.into_bytes()),
        Some(_) | None => Bound::Included(prefix.as_bytes().to_vec()),
    };
    let mut found = Vec::new();
    for guard in engine.records.range::<Key, _>((low, Bound::Unbounded)).take(limit) {
        let key = guard.key().map_err(read_error)?;
        if !key.starts_with(prefix.as_bytes()) {
            break;
        }
        found.push(String::from_utf8(key.to_vec()).map_err(|_| damaged("a record's key is no text"))?);
    }
    Ok(found)
}

fn page<T>(rows: Iter, order: Order, limit: usize, read: impl FnMut(Guard) -> Read<T>) -> Read<Vec<T>> {
    match order {
        Order::Ascending => rows.take(limit).map(read).collect(),
        Order::Descending => rows.rev().take(limit).map(read).collect(),
    }
}
