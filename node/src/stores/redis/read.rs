//! Reading what Redis answers. What cannot be understood is `Damaged`, and nothing is left out.

use ::redis::{Cmd, Value, cmd};
use klatch_actors::store::{Log, LogEnd, Order, StoreError, is_snapshot};
use klatch_protocol::{ClaimToken, ConversationId, Entry};

use super::blocks::{Block, List};
use super::keys::{ENTRY, Keys, TOKEN, position_of, unseal};

/// The last entry: its id and token say where the log ends.
pub fn end_command(keys: &Keys, conversation: ConversationId) -> Cmd {
    cmd("XREVRANGE").arg(keys.log(conversation)).arg("+").arg("-").arg("COUNT").arg(1).take()
}

pub fn end(value: Value) -> Result<Option<LogEnd>, StoreError> {
    let last = entries(value)?.pop();
    last.map(|stored| Ok(LogEnd { position: position_of(&stored.id)?, token: stored.token })).transpose()
}

pub fn log_command(keys: &Keys, conversation: ConversationId) -> Cmd {
    cmd("XRANGE").arg(keys.log(conversation)).arg("-").arg("+").take()
}

/// Compaction leaves the snapshot first.
pub fn log(value: Value) -> Result<Log, StoreError> {
    let mut log = Log::default();
    for stored in entries(value)? {
        let entry: Entry = unseal(&stored.sealed)?;
        if position_of(&stored.id)? != entry.position || stored.token != entry.token {
            return Err(unreadable("an entry of a log that says it stands elsewhere"));
        }
        if !(log.entries.is_empty() && is_snapshot(&entry)) {
            log.tail_bytes += stored.sealed.len();
        }
        log.entries.push(entry);
    }
    Ok(log)
}

struct Stored {
    id: Vec<u8>,
    token: ClaimToken,
    sealed: Vec<u8>,
}

fn entries(value: Value) -> Result<Vec<Stored>, StoreError> {
    list(value)?.into_iter().map(entry).collect()
}

fn entry(value: Value) -> Result<Stored, StoreError> {
    let Ok([id, fields]) = <[Value; 2]>::try_from(list(value)?) else { return Err(unreadable("an entry")) };
    let Ok([token_name, token, entry_name, sealed]) = <[Value; 4]>::try_from(list(fields)?) else {
        return Err(unreadable("the fields of an entry"));
    };
    if (bytes(token_name)?, bytes(entry_name)?) != (TOKEN.into(), ENTRY.into()) {
        return Err(unreadable("the names of an entry's fields"));
    }
    let token: [u8; 16] = bytes(token)?.try_into().map_err(|_| unreadable("a token"))?;
    Ok(Stored { id: bytes(id)?, token: ClaimToken(u128::from_be_bytes(token)), sealed: bytes(sealed)? })
}

/// A page of a sorted set that is in the order of bytes. The bounds are as Redis writes them: `[` or `(` before, or `-`
/// and `+` for the ends.
pub fn page_command(key: &str, low: &[u8], high: &[u8], order: Order, limit: usize) -> Cmd {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let (name, first, second) = match order {
        Order::Ascending => ("ZRANGEBYLEX", low, high),
        Order::Descending => ("ZREVRANGEBYLEX", high, low),
    };
    cmd(name).arg(key).arg(first).arg(second).arg("LIMIT").arg(0).arg(limit).take()
}

pub fn members<T>(value: Value, read: impl Fn(&[u8]) -> Result<T, StoreError>) -> Result<Vec<T>, StoreError> {
    list(value)?.into_iter().map(|member| read(&bytes(member)?)).collect()
}

pub fn blocks(of: List, value: Value) -> Result<Vec<Block>, StoreError> {
    Block::read_all(of, list(value)?.into_iter().map(bytes).collect::<Result<_, _>>()?)
}

pub fn optional(value: Value) -> Result<Option<Vec<u8>>, StoreError> {
    match value {
        Value::Nil => Ok(None),
        value => bytes(value).map(Some),
    }
}

pub fn list(value: Value) -> Result<Vec<Value>, StoreError> {
    match value {
        Value::Array(values) => Ok(values),
        _ => Err(unreadable("a list")),
    }
}

pub fn bytes(value: Value) -> Result<Vec<u8>, StoreError> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        Value::SimpleString(text) => Ok(text.into_bytes()),
        _ => Err(unreadable("a text")),
    }
}

pub fn whether(value: &Value) -> Result<bool, StoreError> {
    match value {
        Value::Int(1) => Ok(true),
        Value::Int(0) => Ok(false),
        _ => Err(unreadable("a yes or no")),
    }
}

pub fn unreadable(what: &str) -> StoreError {
    StoreError::Damaged(format!("Redis answered with something that is not {what}"))
}
