//! One connection to one life of one peer: what is asked and answered over it, as events and effects. Both ends run
//! the same.
//!
//! Life is a round trip: a beat that says it saw a newer one of ours. It is counted in our own beats and not by a
//! clock, so that a node that was frozen itself suspects nobody. What was sent and not yet taken is bounded; of long
//! messages only a window is under way, piece by piece in turn, so that short ones pass between.

use std::collections::{BTreeMap, HashMap, VecDeque};

use klatch_actors::peers::PeerError;
use klatch_protocol::frame::{Beat, MESSAGE_BYTES_MAX, PIECE_BYTES_MAX, Refusal, Said};

/// Beats without a sign of life until asks end: one a second.
pub const SUSPECT_AFTER_BEATS: u32 = 3;
/// Beats without a sign of life until the connection is given up: a frozen process may come back on the same one.
pub const CLOSE_AFTER_BEATS: u32 = 30;
/// Asks in flight to one peer: each stream that an edge shows of its turns is one, and a node shows some 10,000.
pub const ASKS_MAX: usize = 65_536;
/// Bytes asked and unanswered, or sent and not taken, of one peer: two of the longest messages.
pub const BUDGET_BYTES: usize = 2 * MESSAGE_BYTES_MAX;
/// What a peer's asks and answers may hold here: it has the same budget, and asks that it gave up may still run.
const HELD_BYTES_MAX: usize = 2 * BUDGET_BYTES;
/// Of long messages, bytes under way: a millisecond of a slow network.
const WINDOW_BYTES: u64 = 256 << 10;
/// The other end is told what was taken so often: four times a window.
const TELL_TAKEN_BYTES: u64 = WINDOW_BYTES / 4;

pub const SILENT: PeerError = PeerError::NoAnswer("the peer does not answer any more");
pub const LOST: PeerError = PeerError::NoAnswer("the connection to the peer was lost");
pub const LATE: PeerError = PeerError::NoAnswer("the deadline passed");
pub const NOT_ALIVE: PeerError = PeerError::NotSent("the peer does not answer");
const TOO_LONG: PeerError = PeerError::NotSent("it is longer than a message may be");
const TOO_MANY: PeerError = PeerError::NotSent("too many asks are in flight to the peer");
const OVER_BUDGET: PeerError = PeerError::NotSent("it would exceed the peer's byte budget");

#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The peer's gateway is known: from now on something can be said.
    Ready,
    Ask {
        ask: u64,
        request: Vec<u8>,
        deadline_ms: u32,
    },
    /// The asker waits no longer.
    GaveUp(u64),
    /// What this node made of the peer's ask; none if it failed.
    Answered {
        ask: u64,
        answer: Option<Vec<u8>>,
    },
    Heard(Said),
    /// Each second.
    Tick,
    Lost,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    Say(Said),
    Serve { ask: u64, request: Vec<u8> },
    End { ask: u64, result: Result<Vec<u8>, PeerError> },
    Close,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Ask,
    Answer,
}

struct Pending {
    bytes: usize,
    ends_ms: u64,
}

/// A long message on its way out.
struct Going {
    kind: Kind,
    ask: u64,
    deadline_ms: u32,
    bytes: Vec<u8>,
    sent: usize,
}

/// A long message on its way in.
struct Coming {
    length: usize,
    bytes: Vec<u8>,
    ends_ms: u64,
}

#[derive(Default)]
pub struct Link {
    ready: bool,
    alive: bool,
    /// Own beats since the last sign of life.
    missed: u32,
    beat: Beat,
    told_taken: u64,
    peer_saw: u64,
    peer_took: u64,
    sent: u64,
    asks: BTreeMap<u64, Pending>,
    asked_bytes: usize,
    going: VecDeque<Going>,
    coming: HashMap<(Kind, u64), Coming>,
    /// Lengths that `coming` was promised.
    coming_bytes: usize,
    serving: HashMap<u64, usize>,
    serving_bytes: usize,
    effects: Vec<Effect>,
}

impl Link {
    pub fn decide(&mut self, now_ms: u64, event: Event) -> Vec<Effect> {
        match event {
            Event::Ready => {
                self.ready = true;
                self.say_beat();
            }
            Event::Ask { ask, request, deadline_ms } => self.ask(now_ms, ask, request, deadline_ms),
            Event::GaveUp(ask) => self.give_up(ask),
            Event::Answered { ask, answer } => self.answered(ask, answer),
            Event::Heard(said) => self.heard(now_ms, said),
            Event::Tick => self.tick(now_ms),
            Event::Lost => self.end_all(&LOST),
        }
        self.pump();
        std::mem::take(&mut self.effects)
    }

    pub fn alive(&self) -> bool {
        self.alive
    }

    fn ask(&mut self, now_ms: u64, ask: u64, request: Vec<u8>, deadline_ms: u32) {
        let length = request.len();
        let refused = match () {
            () if length > MESSAGE_BYTES_MAX => Some(TOO_LONG),
            () if !self.alive => Some(NOT_ALIVE),
            () if self.asks.len() >= ASKS_MAX => Some(TOO_MANY),
            () if self.asked_bytes + length > BUDGET_BYTES || self.under_way() + length > BUDGET_BYTES => {
                Some(OVER_BUDGET)
            }
            () => None,
        };
        if let Some(refused) = refused {
            return self.effects.push(Effect::End { ask, result: Err(refused) });
        }
        self.asks.insert(ask, Pending { bytes: length, ends_ms: now_ms + u64::from(deadline_ms) });
        self.asked_bytes += length;
        self.send(Going { kind: Kind::Ask, ask, deadline_ms, bytes: request, sent: 0 });
    }

    fn answered(&mut self, ask: u64, answer: Option<Vec<u8>>) {
        let Some(bytes) = self.serving.remove(&ask) else { return };
        self.serving_bytes -= bytes;
        match answer {
            None => self.refuse(ask, Refusal::Failed),
            Some(answer) if answer.len() > MESSAGE_BYTES_MAX || self.under_way() + answer.len() > HELD_BYTES_MAX => {
                self.refuse(ask, Refusal::Unsendable);
            }
            Some(answer) => self.send(Going { kind: Kind::Answer, ask, deadline_ms: 0, bytes: answer, sent: 0 }),
        }
    }

    fn heard(&mut self, now_ms: u64, said: Said) {
        let payload = match &said {
            Said::Ask { bytes, .. }
            | Said::Answer { bytes, .. }
            | Said::AskPiece { bytes, .. }
            | Said::AnswerPiece { bytes, .. } => bytes.len() as u64,
            Said::Beat(_) | Said::GivenUp { .. } | Said::Refused { .. } => 0,
        };
        self.beat.taken += payload;
        match said {
            Said::Beat(beat) => self.heard_beat(beat),
            Said::Ask { ask, deadline_ms, length, bytes } => {
                self.begin(Kind::Ask, ask, length as usize, bytes, now_ms + u64::from(deadline_ms));
            }
            Said::Answer { ask, length, bytes } => {
                let Some(pending) = self.asks.get(&ask) else { return };
                let ends_ms = pending.ends_ms;
                self.begin(Kind::Answer, ask, length as usize, bytes, ends_ms);
            }
            Said::AskPiece { ask, bytes } => self.go_on(Kind::Ask, ask, &bytes),
            Said::AnswerPiece { ask, bytes } => self.go_on(Kind::Answer, ask, &bytes),
            Said::GivenUp { ask } => self.forget_coming(Kind::Ask, ask),
            Said::Refused { ask, why } => self.end(ask, Err(refusal(why))),
        }
        if self.ready && self.beat.taken - self.told_taken >= TELL_TAKEN_BYTES {
            self.say_beat();
        }
    }

    fn heard_beat(&mut self, beat: Beat) {
        self.beat.seen = self.beat.seen.max(beat.number);
        self.peer_took = self.peer_took.max(beat.taken.min(self.sent));
        if beat.seen > self.peer_saw && beat.seen <= self.beat.number {
            self.peer_saw = beat.seen;
            self.missed = 0;
            // The other end waits for the same sign.
            if !std::mem::replace(&mut self.alive, true) {
                self.say_beat();
            }
        }
    }

    fn tick(&mut self, now_ms: u64) {
        if self.ready {
            self.say_beat();
        }
        self.missed += 1;
        if self.missed >= SUSPECT_AFTER_BEATS && std::mem::replace(&mut self.alive, false) {
            self.end_all(&SILENT);
        }
        if self.missed == CLOSE_AFTER_BEATS {
            self.effects.push(Effect::Close);
        }
        let late: Vec<u64> =
            self.asks.iter().filter(|(_, pending)| pending.ends_ms <= now_ms).map(|(ask, _)| *ask).collect();
        for ask in late {
            self.give_up(ask);
            self.effects.push(Effect::End { ask, result: Err(LATE) });
        }
        let late: Vec<(Kind, u64)> =
            self.coming.iter().filter(|(_, coming)| coming.ends_ms <= now_ms).map(|(key, _)| *key).collect();
        for (kind, ask) in late {
            self.forget_coming(kind, ask);
        }
    }

    /// The first bytes of a message, or all.
    fn begin(&mut self, kind: Kind, ask: u64, length: usize, bytes: Vec<u8>, ends_ms: u64) {
        if length > MESSAGE_BYTES_MAX || bytes.len() > length || self.coming.contains_key(&(kind, ask)) {
            return self.refuse_coming(kind, ask);
        }
        if bytes.len() == length {
            return self.arrived(kind, ask, bytes);
        }
        if self.coming_bytes + length > HELD_BYTES_MAX {
            return self.refuse_coming(kind, ask);
        }
        self.coming_bytes += length;
        self.coming.insert((kind, ask), Coming { length, bytes, ends_ms });
    }

    /// Pieces of what was refused or forgotten may still be under way.
    fn go_on(&mut self, kind: Kind, ask: u64, more: &[u8]) {
        let Some(coming) = self.coming.get_mut(&(kind, ask)) else { return };
        if coming.bytes.len() + more.len() > coming.length {
            return self.refuse_coming(kind, ask);
        }
        coming.bytes.extend_from_slice(more);
        if coming.bytes.len() == coming.length {
            let bytes = std::mem::take(&mut coming.bytes);
            self.forget_coming(kind, ask);
            self.arrived(kind, ask, bytes);
        }
    }

    fn arrived(&mut self, kind: Kind, ask: u64, bytes: Vec<u8>) {
        match kind {
            Kind::Answer => self.end(ask, Ok(bytes)),
            Kind::Ask
                if self.serving.len() >= ASKS_MAX
                    || self.serving_bytes + bytes.len() > HELD_BYTES_MAX
                    || self.serving.contains_key(&ask) =>
            {
                self.refuse(ask, Refusal::Busy);
            }
            Kind::Ask => {
                self.serving.insert(ask, bytes.len());
                self.serving_bytes += bytes.len();
                self.effects.push(Effect::Serve { ask, request: bytes });
            }
        }
    }

    fn refuse_coming(&mut self, kind: Kind, ask: u64) {
        self.forget_coming(kind, ask);
        match kind {
            Kind::Ask => self.refuse(ask, Refusal::Busy),
            Kind::Answer => self.end(ask, Err(refusal(Refusal::Unsendable))),
        }
    }

    fn forget_coming(&mut self, kind: Kind, ask: u64) {
        if let Some(coming) = self.coming.remove(&(kind, ask)) {
            self.coming_bytes -= coming.length;
        }
    }

    fn refuse(&mut self, ask: u64, why: Refusal) {
        if self.ready {
            self.effects.push(Effect::Say(Said::Refused { ask, why }));
        }
    }

    fn end(&mut self, ask: u64, result: Result<Vec<u8>, PeerError>) {
        if self.asks.contains_key(&ask) {
            self.give_up(ask);
            self.effects.push(Effect::End { ask, result });
        }
    }

    fn end_all(&mut self, why: &PeerError) {
        for ask in self.asks.keys().copied().collect::<Vec<_>>() {
            self.end(ask, Err(why.clone()));
        }
    }

    /// The ask is over here, whether it is answered or not.
    fn give_up(&mut self, ask: u64) {
        let Some(pending) = self.asks.remove(&ask) else { return };
        self.asked_bytes -= pending.bytes;
        self.forget_coming(Kind::Answer, ask);
        let unsent = self.going.iter().position(|going| going.kind == Kind::Ask && going.ask == ask);
        if let Some(going) = unsent.and_then(|index| self.going.remove(index))
            && going.sent > 0
        {
            self.effects.push(Effect::Say(Said::GivenUp { ask }));
        }
    }

    fn send(&mut self, mut message: Going) {
        if message.bytes.len() <= PIECE_BYTES_MAX {
            let piece = message.next_piece();
            self.say_piece(piece);
        } else {
            self.going.push_back(message);
        }
    }

    /// Long messages, a piece of each in turn, as far as the window goes.
    fn pump(&mut self) {
        while self.sent - self.peer_took < WINDOW_BYTES {
            let Some(mut message) = self.going.pop_front() else { return };
            let piece = message.next_piece();
            self.say_piece(piece);
            if message.sent < message.bytes.len() {
                self.going.push_back(message);
            }
        }
    }

    fn say_piece(&mut self, (said, bytes): (Said, usize)) {
        self.sent += bytes as u64;
        self.effects.push(Effect::Say(said));
    }

    fn say_beat(&mut self) {
        self.beat.number += 1;
        self.told_taken = self.beat.taken;
        self.effects.push(Effect::Say(Said::Beat(self.beat)));
    }

    /// Bytes that were given to this connection, and that the other end has not said it took.
    fn under_way(&self) -> usize {
        let waiting: usize = self.going.iter().map(|going| going.bytes.len() - going.sent).sum();
        waiting + (self.sent - self.peer_took) as usize
    }
}

impl Going {
    fn next_piece(&mut self) -> (Said, usize) {
        let (ask, first, length) = (self.ask, self.sent == 0, self.bytes.len() as u32);
        let end = self.bytes.len().min(self.sent + PIECE_BYTES_MAX);
        let whole = first && end == self.bytes.len();
        let bytes = if whole { std::mem::take(&mut self.bytes) } else { self.bytes[self.sent..end].to_vec() };
        self.sent = end;
        let said = match (self.kind, first) {
            (Kind::Ask, true) => Said::Ask { ask, deadline_ms: self.deadline_ms, length, bytes },
            (Kind::Ask, false) => Said::AskPiece { ask, bytes },
            (Kind::Answer, true) => Said::Answer { ask, length, bytes },
            (Kind::Answer, false) => Said::AnswerPiece { ask, bytes },
        };
        let sent = match &said {
            Said::Ask { bytes, .. }
            | Said::Answer { bytes, .. }
            | Said::AskPiece { bytes, .. }
            | Said::AnswerPiece { bytes, .. } => bytes.len(),
            Said::Beat(_) | Said::GivenUp { .. } | Said::Refused { .. } => 0,
        };
        (said, sent)
    }
}

fn refusal(why: Refusal) -> PeerError {
    match why {
        Refusal::Busy => PeerError::NotSent("the peer takes no more for now"),
        Refusal::Failed => PeerError::NoAnswer("the peer ended without an answer"),
        Refusal::Unsendable => PeerError::NoAnswer("the answer is too long, or found no place"),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
