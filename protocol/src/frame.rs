//! What two nodes say to one another on a connection: first who they are, then frames. What an ask and its answer mean
//! is opaque here.
//!
//! A frame says which connection and which lives of the two nodes it is for, so that what a thawed node sends late is
//! refused.

use serde::{Deserialize, Serialize};

/// A longer request or answer travels in pieces of this size, in bytes, between which others find their place.
pub const PIECE_BYTES_MAX: usize = 32 << 10;

/// The longest request or answer, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// The longest frame, in bytes: a piece, and what stands around it.
pub const FRAME_BYTES_MAX: usize = 64 << 10;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Of the connection, from what both ends said at its start.
    pub link: u64,
    /// The sender's incarnation.
    pub from: u64,
    /// The incarnation of the node that it is for.
    pub to: u64,
    pub said: Said,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Said {
    /// Each second, and at once where the other end waits for it.
    Beat(Beat),
    /// A request, or the begin of one of `length` bytes.
    Ask {
        ask: u64,
        deadline_ms: u32,
        length: u32,
        #[serde(with = "raw")]
        bytes: Vec<u8>,
    },
    /// An answer, or the begin of one of `length` bytes.
    Answer {
        ask: u64,
        length: u32,
        #[serde(with = "raw")]
        bytes: Vec<u8>,
    },
    /// The next bytes of a request.
    AskPiece {
        ask: u64,
        #[serde(with = "raw")]
        bytes: Vec<u8>,
    },
    /// The next bytes of an answer.
    AnswerPiece {
        ask: u64,
        #[serde(with = "raw")]
        bytes: Vec<u8>,
    },
    /// No more pieces of this request come.
    GivenUp { ask: u64 },
    /// There will be no answer.
    Refused { ask: u64, why: Refusal },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// Counts the sender's beats, from 1.
    pub number: u64,
    /// The newest beat of the other end that the sender has seen; 0 before the first.
    pub seen: u64,
    /// Bytes of requests and answers that the sender has taken from this connection so far.
    pub taken: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// It was not begun: the node takes no more for now.
    Busy,
    /// It was begun, and ended without an answer.
    Failed,
    /// It was done, and its answer is too long or found no place.
    Unsendable,
}

/// How each end introduces itself. Both prove with the cluster's secret that they said and heard these very words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub name: String,
    pub incarnation: u64,
    /// The host that others are told; of the node's certificate, where that is for a host and not for the node's name.
    pub host: String,
    /// Whom the dialling end means; of the accepting end, whom it heard.
    pub to_name: String,
    pub to_incarnation: u64,
    /// New for each connection.
    pub nonce: [u8; 32],
}

/// Bytes as one piece: element by element they would cost far more time. The written form is the same.
mod raw {
    use std::fmt;

    use serde::de::{Deserializer, Error, Visitor};
    use serde::ser::Serializer;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        deserializer.deserialize_byte_buf(Raw)
    }

    struct Raw;

    impl Visitor<'_> for Raw {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes")
        }

        fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
            Ok(bytes)
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_vec())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::{open, seal};

    /// One of each, so that a changed or moved variant shows.
    fn every_frame() -> Vec<Frame> {
        let bytes = || b"bytes".to_vec();
        let said = vec![
            Said::Beat(Beat { number: 1, seen: 2, taken: 300 }),
            Said::Ask { ask: 1, deadline_ms: 5_000, length: 5, bytes: bytes() },
            Said::Answer { ask: 1, length: 70_000, bytes: bytes() },
            Said::AskPiece { ask: 1, bytes: bytes() },
            Said::AnswerPiece { ask: 1, bytes: bytes() },
            Said::GivenUp { ask: 1 },
            Said::Refused { ask: 1, why: Refusal::Busy },
            Said::Refused { ask: 1, why: Refusal::Failed },
            Said::Refused { ask: 1, why: Refusal::Unsendable },
        ];
        said.into_iter().map(|said| Frame { link: 9, from: 1 << 50, to: 7, said }).collect()
    }

    fn hello() -> Hello {
        let (name, to_name) = ("klatch-0".to_owned(), "klatch-1".to_owned());
        Hello { name, incarnation: 7, host: "10.0.0.1".into(), to_name, to_incarnation: 8, nonce: [3; 32] }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_bytes_of_every_frame_are_those_of_the_golden_file() {
        let golden = include_str!("../golden/frames-v1.hex");
        let mut lines: Vec<String> = every_frame().iter().map(|frame| hex(&seal(frame))).collect();
        lines.push(hex(&seal(&hello())));
        assert_eq!(lines.join("\n"), golden.trim(), "nodes of yesterday's build would not understand this one");
    }

    #[test]
    fn what_is_said_is_understood() {
        for frame in every_frame() {
            assert_eq!(open(&seal(&frame)), Ok(frame));
        }
        assert_eq!(open(&seal(&hello())), Ok(hello()));
    }

    #[test]
    fn a_damaged_frame_is_refused_and_never_panics() {
        for sealed in every_frame().iter().map(seal) {
            for place in 0..sealed.len() {
                assert!(open::<Frame>(&sealed[..place]).is_err());
                let mut damaged = sealed.clone();
                damaged[place] ^= 0xff;
                let _ = open::<Frame>(&damaged);
            }
        }
    }

    #[test]
    fn the_longest_piece_fits_into_a_frame() {
        let said = Said::Ask {
            ask: u64::MAX,
            deadline_ms: u32::MAX,
            length: MESSAGE_BYTES_MAX as u32,
            bytes: vec![1; PIECE_BYTES_MAX],
        };
        let frame = Frame { link: u64::MAX, from: u64::MAX, to: u64::MAX, said };
        assert!(seal(&frame).len() <= FRAME_BYTES_MAX);
    }
}
