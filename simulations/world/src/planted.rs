//! Faults planted on purpose, so that it is known that the checks find what they are for. Each stands at a boundary of
//! the nodes: nothing in production knows of them.

use std::sync::Arc;
use std::time::Duration;

use klatch_actors::Request;
use klatch_actors::gateway::forward::{Forwarded, ToPeer};
use klatch_actors::responder::Ask;
use klatch_actors::store::{Compaction, OpenRow};
use klatch_protocol::{Entry, Event, Position, envelope};

use crate::dice::Dice;
use crate::redis::Write;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// The store takes what a stale owner writes, behind what is there.
    NoFence,
    /// The store says that it is durable while it is still on its way.
    AcknowledgedEarly,
    /// Text is shown while it is still on its way into the log.
    ShownEarly,
    /// What only the master has is acknowledged, and a failover loses it.
    NotReplicated,
    /// A claim is acknowledged when only the master has it.
    ClaimNotReplicated,
    /// No turn is known by its key.
    NoKeys,
    /// The next owner does not know what was said already.
    NoPartialText,
    /// A watcher is told twice of what it was shown.
    ForgottenMarks,
    /// A watch goes on at another node behind a piece that it never got.
    WrongCursor,
    /// A watch that was passed on is never answered.
    ForgottenWatch,
    /// The rows of unfinished turns are not kept.
    NoOpenRows,
    /// What a passivation takes away is taken away again later, when it may be another owner's.
    PassivatedTwice,
    /// A node is shown an old table as the newest one.
    ViewTakenBack,
    /// A deleted conversation leaves nothing that says so.
    Revived,
    /// Compaction loses the last item that it moves to the list.
    CompactionDropsTail,
    /// Nobody is told which conversations have expired.
    LostWakeUp,
    /// A webhook says that it heard, and did not.
    DeafWebhook,
}

/// By name, and within how many seeds, from 0, it is found at the latest.
pub const ALL: [(&str, Planted, u64); 17] = [
    ("deaf-webhook", Planted::DeafWebhook, 10),
    ("no-fence", Planted::NoFence, 10),
    ("acknowledged-early", Planted::AcknowledgedEarly, 3),
    ("shown-early", Planted::ShownEarly, 10),
    ("not-replicated", Planted::NotReplicated, 5),
    ("claim-not-replicated", Planted::ClaimNotReplicated, 20),
    ("no-keys", Planted::NoKeys, 3),
    ("no-partial-text", Planted::NoPartialText, 10),
    ("forgotten-marks", Planted::ForgottenMarks, 3),
    ("wrong-cursor", Planted::WrongCursor, 5),
    ("forgotten-watch", Planted::ForgottenWatch, 5),
    ("no-open-rows", Planted::NoOpenRows, 10),
    ("passivated-twice", Planted::PassivatedTwice, 20),
    ("view-taken-back", Planted::ViewTakenBack, 5),
    ("revived", Planted::Revived, 5),
    ("compaction-drops-tail", Planted::CompactionDropsTail, 5),
    ("lost-wake-up", Planted::LostWakeUp, 15),
];

pub fn named(name: &str) -> Option<Planted> {
    ALL.into_iter().find(|(known, ..)| *known == name).map(|(_, planted, _)| planted)
}

/// What a node writes that has this fault.
pub fn written(planted: Option<Planted>, write: Write) -> Write {
    match (planted, write) {
        (Some(Planted::NoKeys), Write::Append(id, entry)) => Write::Append(id, without_keys(&entry)),
        (_, write) => write,
    }
}

/// What a store keeps of it that has this fault.
pub fn kept(planted: Option<Planted>, write: &Write) -> Option<Write> {
    match (planted, write) {
        (Some(Planted::NoOpenRows), Write::OpenAdd(..)) => None,
        (Some(Planted::CompactionDropsTail), Write::Compact(id, compaction)) => {
            let mut compaction = Compaction::clone(compaction);
            compaction.settled.items.pop();
            Some(Write::Compact(*id, Arc::new(compaction)))
        }
        (Some(Planted::Revived), Write::Compact(id, compaction)) => {
            Some(Write::Compact(*id, Arc::new(without_tombstone(compaction))))
        }
        (_, write) => Some(write.clone()),
    }
}

pub fn is_acknowledged_early(planted: Option<Planted>, entry: &Entry) -> bool {
    let only_text = || entry.events.iter().all(|event| matches!(event, Event::Delta { .. }));
    match planted {
        Some(Planted::AcknowledgedEarly) => true,
        Some(Planted::ShownEarly) => only_text(),
        _ => false,
    }
}

pub fn is_told_before_kept(planted: Option<Planted>, write: &Write) -> bool {
    let is_claim = |entry: &Entry| matches!(entry.events.first(), Some(Event::Claimed { .. }));
    match (planted, write) {
        (Some(Planted::NotReplicated), _) => true,
        (Some(Planted::ClaimNotReplicated), Write::Append(_, entry)) => is_claim(entry),
        _ => false,
    }
}

/// A request as it arrives.
pub fn passed_on(planted: Option<Planted>, sealed: Vec<u8>) -> Vec<u8> {
    if planted != Some(Planted::WrongCursor) {
        return sealed;
    }
    let Ok(ToPeer::Ask(Forwarded { view, hops, conversation, request, direct, relayed })) = envelope::open(&sealed)
    else {
        return sealed;
    };
    let request = match request {
        Request::Watch { caller, turn, mut have, bytes_max } => {
            have.pieces += u32::from(have.outputs > 0);
            Request::Watch { caller, turn, have, bytes_max }
        }
        request => request,
    };
    envelope::seal(&ToPeer::Ask(Forwarded { view, hops, conversation, request, direct, relayed }))
}

pub fn is_forgotten(planted: Option<Planted>, sealed: &[u8]) -> bool {
    let is_watch = || match envelope::open::<ToPeer>(sealed) {
        Ok(ToPeer::Ask(forwarded)) => matches!(forwarded.request, Request::Watch { .. }),
        Ok(ToPeer::Load | ToPeer::Spent(_)) | Err(_) => false,
    };
    planted == Some(Planted::ForgottenWatch) && is_watch()
}

/// Takes away what later owners wrote, too.
pub fn as_if_the_last(upto: OpenRow) -> OpenRow {
    OpenRow { epoch: u64::MAX, ..upto }
}

/// Until a passivation comes for the second time, and the third, and so on.
pub fn passivations(dice: &Dice) -> Vec<Duration> {
    (0..6).map(|_| dice.secs(0, 40)).collect()
}

fn without_tombstone(compaction: &Compaction) -> Compaction {
    let mut compaction = compaction.clone();
    let mut snapshot = Entry::clone(&compaction.snapshot);
    for event in &mut snapshot.events {
        if let Event::Snapshot(state) = event {
            state.deleted = false;
        }
    }
    compaction.snapshot = Arc::new(snapshot);
    compaction
}

/// The entry where a store without a fence would put it.
pub fn above(entry: &Entry, end: Position) -> Arc<Entry> {
    let is_claim = matches!(entry.events.first(), Some(Event::Claimed { .. }));
    let position = if is_claim { end.claim() } else { end.next() };
    Arc::new(Entry { position, ..entry.clone() })
}

/// The entry as a node without idempotency would write it.
fn without_keys(entry: &Entry) -> Arc<Entry> {
    let mut entry = entry.clone();
    for event in &mut entry.events {
        if let Event::TurnAccepted(accepted) = event {
            (accepted.key, accepted.attempt) = (None, None);
        }
    }
    Arc::new(entry)
}

/// What a responder is asked by an owner that did not read what was said.
pub fn without_partial(ask: Ask) -> Ask {
    Ask { partial: String::new(), ..ask }
}
