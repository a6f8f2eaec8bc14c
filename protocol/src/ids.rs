//! Ids. Every id of a conversation begins with the conversation's own 16 bytes, so any id says where it belongs
//! and nothing has to be looked up: `conv_`, `resp_`, `msg_`, `fc_`, `fco_` + 48 lowercase hex digits.
//!
//! The last 8 bytes are an ordinal, big-endian: of the turn in a response's id, of the item in an item's, zero in
//! a conversation's. Parsing accepts exactly what `Display` writes.

use std::cell::RefCell;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// Shards of a cluster. Fixed for its life: placement and the `open` sets depend on it.
pub const SHARDS: u16 = 1024;

const HEX_DIGITS: usize = 48;
/// Of the longest prefix, in bytes.
const PREFIX_MAX: usize = 5;
const DIGITS: &[u8; 16] = b"0123456789abcdef";

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConversationId(pub [u8; 16]);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ResponseId {
    pub conversation: ConversationId,
    /// Ordinal of the turn in its conversation, from 0.
    pub turn: u64,
}

/// An item's id, whatever its kind: the prefix follows from the kind and is checked by nobody but the eye.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ItemId {
    pub conversation: ConversationId,
    /// Ordinal of the item in its conversation; ordinals rise, and have gaps.
    pub ordinal: u64,
}

/// A fixed slice of all conversations, `0..SHARDS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Shard(pub u16);

/// Random, made at each claim: tells an owner's own entries from those of any other.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ClaimToken(pub u128);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("must begin with {0}")]
    Prefix(&'static str),
    #[error("must have {HEX_DIGITS} lowercase hex digits after its prefix")]
    Digits,
    #[error("is not the id of a conversation")]
    NotAConversation,
}

impl ConversationId {
    /// A new random id.
    pub fn random() -> Self {
        Self(random_bytes())
    }

    pub fn shard(&self) -> Shard {
        Shard((xxh3_64(&self.0) % u64::from(SHARDS)) as u16)
    }

    pub fn response(self, turn: u64) -> ResponseId {
        ResponseId { conversation: self, turn }
    }

    pub fn item(self, ordinal: u64) -> ItemId {
        ItemId { conversation: self, ordinal }
    }
}

impl ClaimToken {
    /// A new random token.
    pub fn random() -> Self {
        Self(u128::from_be_bytes(random_bytes()))
    }
}

/// Random bytes that a thread has asked the system for and not given out yet: a call for each id costs more than the id.
const RANDOM_AHEAD: usize = 1_024;

thread_local! {
    static RANDOM: RefCell<(usize, [u8; RANDOM_AHEAD])> = const { RefCell::new((RANDOM_AHEAD, [0; RANDOM_AHEAD])) };
}

/// 16 bytes of the system's randomness, given out once.
pub fn random_bytes() -> [u8; 16] {
    RANDOM.with_borrow_mut(|(next, ahead)| {
        if *next == RANDOM_AHEAD {
            getrandom::fill(ahead).expect("the system has a random source");
            *next = 0;
        }
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&ahead[*next..*next + 16]);
        // Nothing that was given out stays to be read.
        ahead[*next..*next + 16].fill(0);
        *next += 16;
        bytes
    })
}

impl fmt::Display for ConversationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, "conv_", self, 0)
    }
}

impl fmt::Display for ResponseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, "resp_", &self.conversation, self.turn)
    }
}

impl ResponseId {
    /// Of the event that tells webhooks of the response's end: there is one.
    pub fn event_id(self) -> String {
        struct Text(ResponseId);
        impl fmt::Display for Text {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write(f, "evt_", &self.0.conversation, self.0.turn)
            }
        }
        Text(self).to_string()
    }
}

impl ItemId {
    /// The id as text; `prefix` is that of the item's kind, see [`crate::Body::prefix`].
    pub fn text(&self, prefix: &str) -> String {
        struct Text<'a>(&'a str, &'a ItemId);
        impl fmt::Display for Text<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write(f, self.0, &self.1.conversation, self.1.ordinal)
            }
        }
        Text(prefix, self).to_string()
    }
}

macro_rules! debug_as_display {
    ($($t:ty),*) => { $(impl fmt::Debug for $t {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { fmt::Display::fmt(self, f) }
    })* };
}
debug_as_display!(ConversationId, ResponseId);

impl fmt::Debug for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, "item_", &self.conversation, self.ordinal)
    }
}

impl fmt::Debug for ClaimToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}…", (self.0 >> 96) as u32)
    }
}

impl FromStr for ConversationId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        match parse(text, "conv_")? {
            (conversation, 0) => Ok(conversation),
            _ => Err(IdError::NotAConversation),
        }
    }
}

impl FromStr for ResponseId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        parse(text, "resp_").map(|(conversation, turn)| Self { conversation, turn })
    }
}

/// Accepts each of the prefixes that items have.
impl FromStr for ItemId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let prefix = ["msg_", "fc_", "fco_"].into_iter().find(|prefix| text.starts_with(prefix));
        let prefix = prefix.ok_or(IdError::Prefix("msg_, fc_ or fco_"))?;
        parse(text, prefix).map(|(conversation, ordinal)| Self { conversation, ordinal })
    }
}

fn write(f: &mut fmt::Formatter<'_>, prefix: &str, conversation: &ConversationId, ordinal: u64) -> fmt::Result {
    // In one piece, for which memory is taken once.
    let mut text = [0; PREFIX_MAX + HEX_DIGITS];
    let (before, digits) = text.split_at_mut(prefix.len());
    before.copy_from_slice(prefix.as_bytes());
    write_hex(&conversation.0, digits);
    write_hex(&ordinal.to_be_bytes(), &mut digits[conversation.0.len() * 2..]);
    f.write_str(std::str::from_utf8(&text[..prefix.len() + HEX_DIGITS]).expect("prefixes and hex digits are ASCII"))
}

/// Lowercase hex digits, two for each byte, as far as there is room.
pub fn write_hex(bytes: &[u8], digits: &mut [u8]) {
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

fn parse(text: &str, prefix: &'static str) -> Result<(ConversationId, u64), IdError> {
    let digits = text.strip_prefix(prefix).ok_or(IdError::Prefix(prefix))?.as_bytes();
    if digits.len() != HEX_DIGITS {
        return Err(IdError::Digits);
    }
    let mut bytes = [0u8; HEX_DIGITS / 2];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    let (conversation, ordinal) = bytes.split_at(16);
    Ok((
        ConversationId(conversation.try_into().expect("16 of 24 bytes")),
        u64::from_be_bytes(ordinal.try_into().expect("8 of 24 bytes")),
    ))
}

fn nibble(digit: u8) -> Result<u8, IdError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(IdError::Digits),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(bytes: [u8; 16], ordinal: u64) {
            let conversation = ConversationId(bytes);
            prop_assert_eq!(conversation.to_string().parse(), Ok(conversation));
            let response = conversation.response(ordinal);
            prop_assert_eq!(response.to_string().parse(), Ok(response));
            let item = conversation.item(ordinal);
            prop_assert_eq!(item.text("fc_").parse(), Ok(item));
        }

        #[test]
        fn what_is_read_is_written_the_same(text in "(conv|resp|msg)_[0-9a-fA-F]{47,49}") {
            if let Ok(id) = text.parse::<ResponseId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }

    #[test]
    fn no_two_random_ids_are_the_same() {
        let many: std::collections::BTreeSet<[u8; 16]> = (0..1_000).map(|_| random_bytes()).collect();
        assert_eq!(many.len(), 1_000);
        assert!(!many.contains(&[0; 16]));
    }

    #[test]
    fn the_shard_of_an_id_never_changes() {
        assert_eq!(ConversationId([0; 16]).shard(), Shard(360));
        assert_eq!(ConversationId([7; 16]).shard(), Shard(627));
    }

    #[test]
    fn garbage_is_told_what_would_be_right() {
        let said = |text: &str| text.parse::<ConversationId>().expect_err("garbage").to_string();
        assert_eq!(said("resp_00"), "must begin with conv_");
        assert_eq!(said("conv_00"), "must have 48 lowercase hex digits after its prefix");
        assert_eq!(said(&format!("conv_{}", "0".repeat(47) + "1")), "is not the id of a conversation");
        assert_eq!(said(&format!("conv_{}", "é".repeat(24))), "must have 48 lowercase hex digits after its prefix");
    }
}
