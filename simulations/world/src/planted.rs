//! Faults planted on purpose, so that it is known that the checks find what they are for. Each stands at a boundary of
//! the nodes: nothing in production knows of them.

use std::sync::Arc;

use klatch_actors::responder::Ask;
use klatch_actors::store::Stored;
use klatch_protocol::{ConversationId, Entry, Event, Position};

use crate::store::SimulatedStore;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// The store takes what a stale owner writes, behind what is there.
    NoFence,
    /// The store says that it is durable while it is still on its way.
    AcknowledgedEarly,
    /// No turn is known by its key.
    NoKeys,
    /// The next owner does not know what was said already.
    NoPartialText,
    /// A watcher is told twice of what it was shown.
    ForgottenMarks,
    /// The rows of unfinished turns are not kept.
    NoOpenRows,
}

pub const ALL: [(&str, Planted); 6] = [
    ("no-fence", Planted::NoFence),
    ("acknowledged-early", Planted::AcknowledgedEarly),
    ("no-keys", Planted::NoKeys),
    ("no-partial-text", Planted::NoPartialText),
    ("forgotten-marks", Planted::ForgottenMarks),
    ("no-open-rows", Planted::NoOpenRows),
];

pub fn named(name: &str) -> Option<Planted> {
    ALL.into_iter().find(|(known, _)| *known == name).map(|(_, planted)| planted)
}

/// The entry where a store without a fence would put it.
pub fn above(entry: &Entry, end: Position) -> Arc<Entry> {
    let is_claim = matches!(entry.events.first(), Some(Event::Claimed { .. }));
    let position = if is_claim { end.claim() } else { end.next() };
    Arc::new(Entry { position, ..entry.clone() })
}

/// The entry as a node without idempotency would write it.
pub fn without_keys(entry: &Entry) -> Arc<Entry> {
    let mut entry = entry.clone();
    for event in &mut entry.events {
        if let Event::TurnAccepted(accepted) = event {
            (accepted.key, accepted.attempt) = (None, None);
        }
    }
    Arc::new(entry)
}

/// Says that it is done, and does it.
pub fn acknowledge_early(store: &SimulatedStore, conversation: ConversationId, entry: Arc<Entry>) -> Stored<'_, ()> {
    let later = store.clone();
    Box::pin(async move {
        // Nobody waits for it: that is the fault.
        tokio::spawn(async move { drop(later.append_well(conversation, entry).await) });
        Ok(())
    })
}

/// What a responder is asked by an owner that did not read what was said.
pub fn without_partial(ask: Ask) -> Ask {
    Ask { partial: String::new(), ..ask }
}
