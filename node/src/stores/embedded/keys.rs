//! The layout of the embedded store: keys whose order as bytes is the order of what they stand for, and values that
//! carry a checksum of their own.
//!
//! | keyspace | key | value |
//! |---|---|---|
//! | log | conversation, epoch, seq | checksum, position of the entry before, sealed entry |
//! | ends | conversation | checksum, [`End`] |
//! | items | conversation, ordinal | checksum, sealed row |
//! | clients | conversation, hash of the client's id | checksum, ordinal |
//! | turns | conversation, turn | checksum, sealed turn |
//! | rows | `i`, hash of tenant and subject, created_at_ms, conversation | nothing |
//! | | `o`, shard, conversation | nothing |
//! | | `d`, at_ms, conversation | nothing |
//! | records | the record's key | checksum, version, bytes |
//!
//! Integers are big-endian. Names are hashed (SHA-256) so that no name can be made that reaches into another's rows.

use klatch_actors::store::{IndexRow, LogEnd, OpenRow, StoreError};
use klatch_protocol::envelope::{open, seal};
use klatch_protocol::{ClaimToken, ConversationId, Entry, Position, Shard};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::xxh3_64;

const CHECKSUM: usize = 8;
const POSITION: usize = 16;
const ID: usize = 16;
const END: usize = CHECKSUM + 2 * POSITION + ID;

pub const INDEX: u8 = b'i';
pub const OPEN: u8 = b'o';
pub const DUE: u8 = b'd';

/// Where a log begins and ends. The beginning spares readers the tombstones of what was trimmed below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    pub first: Position,
    pub last: LogEnd,
}

pub fn log(conversation: ConversationId, position: Position) -> [u8; ID + POSITION] {
    let mut key = [0; ID + POSITION];
    key[..ID].copy_from_slice(&conversation.0);
    key[ID..].copy_from_slice(&position_bytes(position));
    key
}

/// Of an item, or of a turn.
pub fn numbered(conversation: ConversationId, number: u64) -> [u8; ID + 8] {
    let mut key = [0; ID + 8];
    key[..ID].copy_from_slice(&conversation.0);
    key[ID..].copy_from_slice(&number.to_be_bytes());
    key
}

pub fn client(conversation: ConversationId, client_id: &str) -> [u8; 2 * ID] {
    let mut key = [0; 2 * ID];
    key[..ID].copy_from_slice(&conversation.0);
    key[ID..].copy_from_slice(&Sha256::digest(client_id)[..ID]);
    key
}

pub fn subject(tenant: &str, subject: &str) -> [u8; 33] {
    let mut key = [INDEX; 33];
    let hash = Sha256::new().chain_update((tenant.len() as u64).to_be_bytes());
    key[1..].copy_from_slice(&hash.chain_update(tenant).chain_update(subject).finalize());
    key
}

pub fn index(row: &IndexRow) -> Vec<u8> {
    dated(&subject(&row.tenant, &row.subject), row.created_at_ms, row.conversation)
}

pub fn open_row(shard: Shard, row: OpenRow) -> Vec<u8> {
    [&open_shard(shard)[..], &row.conversation.0, &row.epoch.to_be_bytes()].concat()
}

pub fn open_row_of(key: &[u8]) -> Result<OpenRow, StoreError> {
    let (conversation, epoch) =
        key.split_last_chunk::<8>().ok_or_else(|| damaged("a row of an unfinished turn is cut off"))?;
    Ok(OpenRow { conversation: conversation_of(conversation)?, epoch: u64::from_be_bytes(*epoch) })
}

pub fn open_shard(shard: Shard) -> [u8; 3] {
    let [high, low] = shard.0.to_be_bytes();
    [OPEN, high, low]
}

pub fn due(at_ms: u64, conversation: ConversationId) -> Vec<u8> {
    dated(&[DUE], at_ms, conversation)
}

pub fn dated(prefix: &[u8], at_ms: u64, conversation: ConversationId) -> Vec<u8> {
    [prefix, &at_ms.to_be_bytes(), &conversation.0].concat()
}

/// The last 8 bytes as a number, of [`numbered`] keys.
pub fn number_of(key: &[u8]) -> Result<u64, StoreError> {
    let bytes = key.last_chunk().ok_or_else(|| damaged("a key is too short"))?;
    Ok(u64::from_be_bytes(*bytes))
}

/// The last 24 bytes, of [`dated`] keys.
pub fn date_of(key: &[u8]) -> Result<(u64, ConversationId), StoreError> {
    let conversation = conversation_of(key)?;
    number_of(&key[..key.len() - ID]).map(|at_ms| (at_ms, conversation))
}

/// The last 16 bytes.
pub fn conversation_of(key: &[u8]) -> Result<ConversationId, StoreError> {
    key.last_chunk().map(|bytes| ConversationId(*bytes)).ok_or_else(|| damaged("a key is too short"))
}

/// An entry as it is stored, but for the place of the entry before it, which only the batcher knows: see
/// [`link_entry`].
pub fn entry_value(entry: &Entry) -> Vec<u8> {
    let sealed = seal(entry);
    let mut value = Vec::with_capacity(CHECKSUM + POSITION + sealed.len());
    value.extend_from_slice(&xxh3_64(&sealed).to_be_bytes());
    value.extend_from_slice(&[0; POSITION]);
    value.extend_from_slice(&sealed);
    value
}

/// Says which entry comes before. With it, one that is missing shows, wherever in the log it stood.
pub fn link_entry(value: &mut [u8], before: Position) {
    value[CHECKSUM..CHECKSUM + POSITION].copy_from_slice(&position_bytes(before));
}

/// The position of the entry before, the entry, and its size when sealed.
pub fn read_entry(value: &[u8]) -> Result<(Position, Entry, usize), StoreError> {
    let (checksum, rest) = value.split_at_checked(CHECKSUM).ok_or_else(|| damaged("an entry is too short"))?;
    let (before, sealed) = rest.split_at_checked(POSITION).ok_or_else(|| damaged("an entry is too short"))?;
    if xxh3_64(sealed).to_be_bytes() != checksum {
        return Err(damaged("an entry's checksum is wrong"));
    }
    Ok((read_position(before)?, unseal(sealed)?, sealed.len()))
}

pub fn end_value(end: &End) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(END);
    bytes.extend_from_slice(&[0; CHECKSUM]);
    bytes.extend_from_slice(&position_bytes(end.first));
    bytes.extend_from_slice(&position_bytes(end.last.position));
    bytes.extend_from_slice(&end.last.token.0.to_be_bytes());
    with_checksum(bytes)
}

pub fn read_end(value: &[u8]) -> Result<End, StoreError> {
    let bytes = checked(value)?;
    let (first, rest) = bytes.split_at_checked(POSITION).ok_or_else(|| damaged("a log's end is too short"))?;
    let (last, token) = rest.split_at_checked(POSITION).ok_or_else(|| damaged("a log's end is too short"))?;
    let token = token.try_into().map_err(|_| damaged("a log's end has another size"))?;
    let last = LogEnd { position: read_position(last)?, token: ClaimToken(u128::from_be_bytes(token)) };
    Ok(End { first: read_position(first)?, last })
}

pub fn sealed_value<T: Serialize>(value: &T) -> Vec<u8> {
    plain_value(&seal(value))
}

pub fn read_sealed<T: DeserializeOwned>(value: &[u8]) -> Result<T, StoreError> {
    unseal(checked(value)?)
}

pub fn plain_value(bytes: &[u8]) -> Vec<u8> {
    with_checksum([&[0; CHECKSUM], bytes].concat())
}

pub fn record_value(version: u64, bytes: &[u8]) -> Vec<u8> {
    with_checksum([&[0; CHECKSUM], &version.to_be_bytes()[..], bytes].concat())
}

/// Version and bytes.
pub fn read_record(value: &[u8]) -> Result<(u64, &[u8]), StoreError> {
    let (version, bytes) = checked(value)?.split_first_chunk().ok_or_else(|| damaged("a record is too short"))?;
    Ok((u64::from_be_bytes(*version), bytes))
}

/// The value without its checksum, which is right.
pub fn checked(value: &[u8]) -> Result<&[u8], StoreError> {
    let (checksum, bytes) = value.split_first_chunk::<CHECKSUM>().ok_or_else(|| damaged("a value is too short"))?;
    if xxh3_64(bytes).to_be_bytes() != *checksum {
        return Err(damaged("a value's checksum is wrong"));
    }
    Ok(bytes)
}

pub fn damaged(what: &str) -> StoreError {
    StoreError::Damaged(what.to_owned())
}

fn with_checksum(mut value: Vec<u8>) -> Vec<u8> {
    let checksum = xxh3_64(&value[CHECKSUM..]);
    value[..CHECKSUM].copy_from_slice(&checksum.to_be_bytes());
    value
}

fn unseal<T: DeserializeOwned>(sealed: &[u8]) -> Result<T, StoreError> {
    open(sealed).map_err(|error| StoreError::Damaged(error.to_string()))
}

fn position_bytes(position: Position) -> [u8; POSITION] {
    (u128::from(position.epoch) << 64 | u128::from(position.seq)).to_be_bytes()
}

fn read_position(bytes: &[u8]) -> Result<Position, StoreError> {
    let bytes = bytes.try_into().map_err(|_| damaged("a position has another size"))?;
    let both = u128::from_be_bytes(bytes);
    Ok(Position { epoch: (both >> 64) as u64, seq: both as u64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_damage_shows() {
        let last = LogEnd { position: Position { epoch: 3, seq: u64::MAX }, token: ClaimToken(u128::MAX - 1) };
        let end = End { first: Position { epoch: 2, seq: 7 }, last };
        let entry = Entry { position: last.position, token: last.token, at_ms: 5, events: vec![] };
        let mut linked = entry_value(&entry);
        link_entry(&mut linked, end.first);
        assert_eq!(read_end(&end_value(&end)), Ok(end));
        assert_eq!(read_entry(&linked), Ok((end.first, entry, linked.len() - CHECKSUM - POSITION)));
        assert_eq!(read_record(&record_value(9, b"x")), Ok((9, &b"x"[..])));
        for place in 0..END {
            let mut bad = end_value(&end);
            bad[place] ^= 1;
            assert!(read_end(&bad).is_err(), "a changed byte {place} went unseen");
            assert!(read_end(&bad[..place]).is_err(), "a cut at byte {place} went unseen");
        }
    }

    #[test]
    fn keys_sort_as_what_they_stand_for() {
        let id = ConversationId([7; 16]);
        let at = |epoch, seq| log(id, Position { epoch, seq });
        assert!(at(1, 255) < at(1, 256) && at(1, u64::MAX) < at(2, 0) && at(255, 0) < at(256, 0));
        assert!(numbered(id, 255) < numbered(id, 256) && due(255, id) < due(256, id));
        assert_eq!(date_of(&due(77, id)), Ok((77, id)));
        assert_eq!(number_of(&numbered(id, 9)), Ok(9));
        assert_ne!(subject("a", "bc"), subject("ab", "c"));
    }
}
