//! Bytes: a version, then bincode. The only file that names bincode, which is frozen, so that it can be replaced.
//!
//! A reader refuses what it does not know whole: a version above its own, bytes left over, a length that lies.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::trace::TraceContext;
use bincode::config::{self, Configuration, Limit, LittleEndian, Varint};

/// The format of what is stored, and of what travels outside of a trace.
pub const VERSION: u8 = 1;

/// The same, behind where it stands in a trace. It only travels, and only to nodes that say that they read it.
pub const TRACED: u8 = 2;

/// What is stored stays [`VERSION`], and a log may hold what webhooks are still to be told. A format that nothing has: a node
/// says by it that it reads such logs, and nobody begins one before all do.
pub const UNTOLD: u8 = 3;

/// The newest format that this build reads.
pub const READS: u8 = UNTOLD;

/// Nothing that travels or is stored is larger, in bytes; also bounds what a lying length can make us allocate.
pub const BYTES_MAX: usize = 64 << 20;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    #[error("it is empty")]
    Empty,
    #[error("its format {0} is not one that this build reads (1 to {READS})")]
    Version(u8),
    #[error("it is damaged: {0}")]
    Damaged(String),
}

/// Most of what is sealed is no longer, in bytes, and grows in no steps.
const BYTES_USUAL: usize = 1_024;

fn configuration() -> Configuration<LittleEndian, Varint, Limit<BYTES_MAX>> {
    config::standard().with_limit::<BYTES_MAX>()
}

/// The value's bytes, ready to be stored or sent.
pub fn seal<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BYTES_USUAL);
    bytes.push(VERSION);
    bincode::serde::encode_into_std_write(value, &mut bytes, config::standard())
        .expect("memory takes what it is given, and every stored type can be encoded");
    bytes
}

/// The value again.
pub fn open<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, EnvelopeError> {
    let (version, body) = bytes.split_first().ok_or(EnvelopeError::Empty)?;
    if *version != VERSION {
        return Err(EnvelopeError::Version(*version));
    }
    decode(body)
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, EnvelopeError> {
    let (value, read) = bincode::serde::decode_from_slice(body, configuration())
        .map_err(|error| EnvelopeError::Damaged(error.to_string()))?;
    if read != body.len() {
        return Err(EnvelopeError::Damaged(format!("{} bytes left over", body.len() - read)));
    }
    Ok(value)
}

/// As [`seal`], with where it stands in a trace.
pub fn seal_traced<T: Serialize>(trace: &TraceContext, value: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BYTES_USUAL);
    bytes.push(TRACED);
    bincode::serde::encode_into_std_write((trace, value), &mut bytes, config::standard())
        .expect("memory takes what it is given, and every type that travels can be encoded");
    bytes
}

/// What was sealed either way.
pub fn open_traced<T: DeserializeOwned>(bytes: &[u8]) -> Result<(Option<TraceContext>, T), EnvelopeError> {
    match bytes.split_first() {
        Some((&TRACED, body)) => decode(body).map(|(trace, value)| (Some(trace), value)),
        Some(_) | None => open(bytes).map(|value| (None, value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Attempt, AttemptReason, Call, Created, KeyUse, Parent};
    use crate::turn::{Outcome, Usage};
    use crate::{
        Body, ClaimToken, ConversationId, Ended, Entry, Event, Item, Position, State, Turn, Untold, WebhookId,
    };

    /// One of each event, so that a changed or moved variant shows.
    fn every_event() -> Entry {
        let item = Item { ordinal: 0, client_id: Some("mine".into()), body: Body::user("hello").into() };
        let key = Some(KeyUse { key: [1; 16], fingerprint: [2; 16] });
        let events = vec![
            Event::Claimed { node: "klatch-0".into(), incarnation: 7, view: 3 },
            Event::Created(Box::new(Created {
                tenant: "acme".into(),
                subject: "ann".into(),
                metadata: vec![("topic".into(), "tea".into())],
                ttl_seconds: Some(60),
                explicit: true,
                items: vec![item.clone()],
                parent: None,
                key,
            })),
            Event::TurnAccepted(crate::turn::tests::accepted(0).into()),
            Event::AttemptStarted { turn: 0, attempt: Attempt { n: 1, incarnation: 7, reason: AttemptReason::First } },
            Event::Delta { turn: 0, pieces: ["hel", "lo"].into() },
            Event::ToolCall {
                turn: 0,
                call: Call { call_id: "call_1".into(), name: "weather".into(), arguments: "{}".into() },
            },
            Event::TurnEnded {
                turn: 0,
                outcome: Outcome::Completed {
                    usage: Usage { input: 1, input_cached: 0, output: 2, output_reasoning: 0 },
                },
                memory: None,
            },
            Event::ItemsAdded { items: vec![item], key },
            Event::ItemDeleted { ordinal: 3 },
            Event::MetadataSet { metadata: vec![], key: None },
            Event::ResponseDeleted { turn: 0 },
            Event::Forked {
                child: ConversationId([5; 16]),
                prefix: Parent { conversation: ConversationId([4; 16]), before: 3, version: 1 },
                key: None,
            },
            Event::Deleted,
            Event::Snapshot(Box::new(State {
                open: [Turn::new(crate::turn::tests::accepted(0), 0)].into(),
                ..State::default()
            })),
            Event::AtWork,
            Event::ToTell(Untold { turn: 0, ended: Ended::Cancelled, at_ms: 5, to: vec![WebhookId(9)] }),
            Event::Told { turn: 0, to: WebhookId(9) },
        ];
        Entry { position: Position { epoch: 2, seq: 3 }, token: ClaimToken(11), at_ms: 1_700_000_000_000, events }
    }

    #[test]
    fn the_bytes_of_every_event_are_those_of_the_golden_file() {
        let golden = include_str!("../golden/entry-v1.hex");
        let bytes: String = seal(&every_event()).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(bytes, golden.trim(), "stored conversations would not be read any more: add a version instead");
    }

    #[test]
    fn what_is_sealed_is_opened() {
        assert_eq!(open(&seal(&every_event())), Ok(every_event()));
    }

    #[test]
    fn damage_is_refused_and_never_panics() {
        let sealed = seal(&every_event());
        assert_eq!(open::<Entry>(&[]), Err(EnvelopeError::Empty));
        assert_eq!(open::<Entry>(&[9, 0]), Err(EnvelopeError::Version(9)));
        for length in 1..sealed.len() {
            assert!(open::<Entry>(&sealed[..length]).is_err(), "{length} of {} bytes were taken for all", sealed.len());
        }
        let mut longer = sealed.clone();
        longer.push(0);
        assert!(open::<Entry>(&longer).is_err());
        for place in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[place] ^= 0xff;
            let _ = open::<Entry>(&damaged);
        }
    }

    #[test]
    fn where_it_stands_in_a_trace_is_read_where_it_is_said() {
        let trace = TraceContext { trace: [1; 16], span: [2; 8], flags: 1 };
        let sealed = seal_traced(&trace, &7u64);
        let golden = format!("02{}{}0107", "01".repeat(16), "02".repeat(8));
        let bytes: String = sealed.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(bytes, golden, "nodes of two versions would not understand one another");
        assert_eq!(open_traced(&sealed), Ok((Some(trace), 7u64)));
        assert_eq!(open_traced(&seal(&7u64)), Ok((None, 7u64)));
        assert_eq!(open::<u64>(&sealed), Err(EnvelopeError::Version(TRACED)), "nothing stored is of this format");
        for place in 0..sealed.len() {
            assert!(open_traced::<u64>(&sealed[..place]).is_err());
        }
    }
}
