//! Names of keys, and what is in them. All keys of a conversation share the hash tag of its id, so that one script can
//! change them in a cluster.
//!
//! | key | type | holds |
//! |---|---|---|
//! | `{conversation}:log` | stream | id `<epoch>-<seq>`, fields `t` (token) and `e` (the sealed entry) |
//! | `{conversation}:items` | sorted set | blocks of sealed rows, in the order of bytes: see `blocks` |
//! | `{conversation}:clients` | hash | the client's own item id → ordinal (8 bytes) |
//! | `{conversation}:turns` | sorted set | blocks of sealed turns, as those of items |
//! | `{index:tenant and subject}` | sorted set | created_at (8 bytes) and conversation (16), in the order of bytes |
//! | `{open:shard}` | sorted set | conversations (16 bytes) |
//! | `{due}` | sorted set | at (8 bytes) and conversation (16) |
//! | `{records}:values`, `{records}:names` | hash, sorted set | key → version (8 bytes) and bytes; the keys in order |
//! | `{view}:…` | | see `views` |

use klatch_actors::store::{OpenRow, StoreError};
use klatch_protocol::envelope::open;
use klatch_protocol::ids::write_hex;
use klatch_protocol::{ConversationId, Position, Shard};
use serde::de::DeserializeOwned;

pub const TOKEN: &str = "t";
pub const ENTRY: &str = "e";

#[derive(Clone, Debug)]
pub struct Keys {
    pub prefix: String,
}

impl Keys {
    pub fn log(&self, conversation: ConversationId) -> String {
        self.of(conversation, "log")
    }

    pub fn items(&self, conversation: ConversationId) -> String {
        self.of(conversation, "items")
    }

    pub fn clients(&self, conversation: ConversationId) -> String {
        self.of(conversation, "clients")
    }

    pub fn turns(&self, conversation: ConversationId) -> String {
        self.of(conversation, "turns")
    }

    /// Hex, since a tenant's name may hold anything, a brace too; its length keeps tenant and subject apart.
    pub fn index(&self, tenant: &str, subject: &str) -> String {
        let (tenant, subject) = (tenant.as_bytes(), subject.as_bytes());
        format!("{}{{index:{}:{}:{}}}", self.prefix, tenant.len(), hex(tenant), hex(subject))
    }

    pub fn open(&self, shard: Shard) -> String {
        format!("{}{{open:{}}}", self.prefix, shard.0)
    }

    pub fn due(&self) -> String {
        format!("{}{{due}}", self.prefix)
    }

    pub fn records(&self, part: &str) -> String {
        format!("{}{{records}}:{part}", self.prefix)
    }

    pub fn view(&self, part: &str) -> String {
        format!("{}{{view}}:{part}", self.prefix)
    }

    fn of(&self, conversation: ConversationId, part: &str) -> String {
        format!("{}{{{}}}:{part}", self.prefix, hex(&conversation.0))
    }
}

pub fn hex(bytes: &[u8]) -> String {
    let mut digits = vec![0; bytes.len() * 2];
    write_hex(bytes, &mut digits);
    String::from_utf8(digits).expect("hex digits are ASCII")
}

pub fn entry_id(position: Position) -> String {
    format!("{}-{}", position.epoch, position.seq)
}

pub fn position_of(id: &[u8]) -> Result<Position, StoreError> {
    let read = || {
        let (epoch, seq) = std::str::from_utf8(id).ok()?.split_once('-')?;
        Some(Position { epoch: epoch.parse().ok()?, seq: seq.parse().ok()? })
    };
    read().ok_or_else(|| damaged("an entry's id is none"))
}

/// Sorts by time, then by id.
pub fn dated(at_ms: u64, conversation: ConversationId) -> Vec<u8> {
    [&at_ms.to_be_bytes()[..], &conversation.0].concat()
}

pub fn date_of(member: &[u8]) -> Result<(u64, ConversationId), StoreError> {
    let (at_ms, conversation) = number_and_rest(member)?;
    Ok((at_ms, conversation_of(conversation)?))
}

pub fn open_row(row: OpenRow) -> Vec<u8> {
    [&row.conversation.0[..], &row.epoch.to_be_bytes()].concat()
}

pub fn open_row_of(member: &[u8]) -> Result<OpenRow, StoreError> {
    let (conversation, epoch) =
        member.split_last_chunk::<8>().ok_or_else(|| damaged("a row of an unfinished turn is cut off"))?;
    Ok(OpenRow { conversation: conversation_of(conversation)?, epoch: u64::from_be_bytes(*epoch) })
}

pub fn conversation_of(bytes: &[u8]) -> Result<ConversationId, StoreError> {
    let id = bytes.try_into().map_err(|_| damaged("the id of a conversation has a wrong length"))?;
    Ok(ConversationId(id))
}

/// An ordinal, a time or a version before what it is of.
pub fn numbered(number: u64, rest: &[u8]) -> Vec<u8> {
    [&number.to_be_bytes()[..], rest].concat()
}

pub fn number_and_rest(bytes: &[u8]) -> Result<(u64, &[u8]), StoreError> {
    let (number, rest) = bytes.split_first_chunk::<8>().ok_or_else(|| damaged("a number is cut off"))?;
    Ok((u64::from_be_bytes(*number), rest))
}

pub fn unseal<T: DeserializeOwned>(sealed: &[u8]) -> Result<T, StoreError> {
    open(sealed).map_err(|error| StoreError::Damaged(error.to_string()))
}

pub fn damaged(what: &str) -> StoreError {
    StoreError::Damaged(what.to_owned())
}

/// Bounds of a range by bytes, as Redis writes them.
pub fn including(bound: &[u8]) -> Vec<u8> {
    [b"[", bound].concat()
}

pub fn excluding(bound: &[u8]) -> Vec<u8> {
    [b"(", bound].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_of_a_conversation_share_its_hash_tag() {
        let keys = Keys { prefix: "k:".into() };
        let id = ConversationId([0xab; 16]);
        for key in [keys.log(id), keys.items(id), keys.clients(id), keys.turns(id)] {
            assert!(key.starts_with(&format!("k:{{{}}}:", "ab".repeat(16))), "{key}");
        }
    }

    #[test]
    fn tenants_and_subjects_do_not_run_into_each_other() {
        let keys = Keys { prefix: String::new() };
        assert_ne!(keys.index("ab", ""), keys.index("a", "b"));
        assert_ne!(keys.index("{", "}"), keys.index("}", "{"));
    }

    #[test]
    fn an_id_is_read_as_it_was_written() {
        let position = Position { epoch: u64::MAX, seq: 7 };
        assert_eq!(position_of(entry_id(position).as_bytes()), Ok(position));
        assert!(position_of(b"7").is_err());
    }
}
