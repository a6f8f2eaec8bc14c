//! An owner: what one node has of the conversation, from the look to serving. Types and pure steps; when a step may be
//! taken is for `world.rs`.
//!
//! Stands for `actors/src/conversation`: `tasks.rs` (look, claim, read), `saving.rs` (one append at a time, its outcome
//! known before the next), and for the look that `batcher.rs` of Redis takes on each new connection.

use crate::store::{Entry, Event, Key, Place, Token};
use crate::variants::Variant;

/// One activation. It is known by its token: the same node after a crash is another one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    pub token: Token,
    pub phase: Phase,
    /// On this connection an entry of this log was written, so the log cannot have gone back since.
    pub verified: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Its claim was not written: it will look and claim again.
    Looking,
    /// `early`: what a fault keeps from before the claim.
    Claiming {
        claim: Place,
        sending: Sending,
        early: Option<Memory>,
    },
    /// The claim is acknowledged, and the log not read yet.
    Claimed {
        claim: Place,
    },
    Serving(Serving),
}

/// How far an append has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sending {
    Sent,
    /// By the primary, as entry number `length`; the answer is still to come.
    Written {
        length: usize,
    },
    /// The connection was lost before the answer: the log's end has to be read.
    Unknown,
    /// The log ends with the entry before it: it is to be sent again.
    NotWritten,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Serving {
    /// The last entry that it knows to be its own.
    pub end: Place,
    pub memory: Memory,
    pub in_flight: Option<InFlight>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InFlight {
    pub entry: Entry,
    pub sent_again: bool,
    pub sending: Sending,
}

/// The fold of a log: its turns, in the order of their acceptance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Memory {
    pub turns: Vec<Turn>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Turn {
    pub key: Key,
    pub accepted: Place,
    /// Who recorded an attempt last.
    pub attempt: Option<Token>,
    pub text: Vec<Token>,
    pub ended: bool,
}

impl Owner {
    pub fn serving(&self) -> Option<&Serving> {
        match &self.phase {
            Phase::Serving(serving) => Some(serving),
            Phase::Looking | Phase::Claiming { .. } | Phase::Claimed { .. } => None,
        }
    }

    /// How far its append has come, if one is not over yet.
    pub fn sending(&self) -> Option<Sending> {
        match &self.phase {
            Phase::Claiming { sending, .. } => Some(*sending),
            Phase::Serving(serving) => serving.in_flight.as_ref().map(|append| append.sending),
            Phase::Looking | Phase::Claimed { .. } => None,
        }
    }

    pub fn set_sending(&mut self, now: Sending) {
        match &mut self.phase {
            Phase::Claiming { sending, .. } => *sending = now,
            Phase::Serving(Serving { in_flight: Some(append), .. }) => append.sending = now,
            Phase::Looking | Phase::Claimed { .. } | Phase::Serving(_) => {}
        }
    }

    /// Its connection is gone, and made again.
    pub fn disconnected(&mut self) {
        self.verified = false;
        if let Some(Sending::Sent | Sending::Written { .. }) = self.sending() {
            self.set_sending(Sending::Unknown);
        }
    }

    /// What the running turn adds next: the record of an attempt of this owner's own, then text behind what is there,
    /// then its end.
    pub fn next(&self, pieces: usize) -> Option<Event> {
        let turn = self.serving()?.memory.open()?;
        let key = turn.key;
        Some(if turn.attempt != Some(self.token) {
            Event::AttemptStarted { key }
        } else if turn.text.len() < pieces {
            Event::Text { key }
        } else {
            Event::TurnEnded { key }
        })
    }
}

impl Memory {
    pub fn replay(log: &[Entry]) -> Self {
        let mut memory = Self::default();
        log.iter().for_each(|entry| memory.apply(entry));
        memory
    }

    pub fn apply(&mut self, entry: &Entry) {
        let Place { token, .. } = entry.place;
        match entry.event {
            Event::Claimed => {}
            Event::TurnAccepted { key, attempt } => self.turns.push(Turn {
                key,
                accepted: entry.place,
                attempt: attempt.then_some(token),
                text: Vec::new(),
                ended: false,
            }),
            Event::AttemptStarted { key } => self.on_open(key, |turn| turn.attempt = Some(token)),
            Event::Text { key } => self.on_open(key, |turn| turn.text.push(token)),
            Event::TurnEnded { key } => self.on_open(key, |turn| turn.ended = true),
        }
    }

    /// What is about a turn that is not open has no effect.
    fn on_open(&mut self, key: Key, change: impl FnOnce(&mut Turn)) {
        if let Some(turn) = self.turns.iter_mut().find(|turn| turn.key == key && !turn.ended) {
            change(turn);
        }
    }

    pub fn turn(&self, key: Key) -> Option<&Turn> {
        self.turns.iter().find(|turn| turn.key == key)
    }

    /// The turn at the head of the queue.
    pub fn open(&self) -> Option<&Turn> {
        self.turns.iter().find(|turn| !turn.ended)
    }
}

/// Whether the log ends with this entry of the owner's.
pub fn is_own(variant: Variant, end: Place, own: Place) -> bool {
    end.position == own.position && (variant == Variant::EpochWithoutToken || end.token == own.token)
}

/// What the look on a new connection says of an entry that is about to be sent behind `own`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoesOn {
    Yes,
    Fenced,
    WentBack,
}

pub fn goes_on(variant: Variant, end: Place, own: Place) -> GoesOn {
    if is_own(variant, end, own) {
        GoesOn::Yes
    } else if end.position > own.position {
        GoesOn::Fenced
    } else {
        GoesOn::WentBack
    }
}
