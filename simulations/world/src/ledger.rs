//! What clients were told, and when: each promise that was made to one is held against the journal at the end.

use std::collections::{BTreeMap, BTreeSet};

use klatch_protocol::{Body, ConversationId, Outcome};

#[derive(Default)]
pub struct Ledger {
    ticks: u64,
    /// Made, and acknowledged.
    pub conversations: Vec<ConversationId>,
    /// Somebody asked for it to be deleted, with whatever success.
    pub deletions: BTreeSet<ConversationId>,
    pub deleted: BTreeSet<ConversationId>,
    /// Those that are deleted so many seconds after their last turn.
    pub mortal: BTreeMap<ConversationId, u64>,
    /// Somebody asked for it to be deleted, with whatever success.
    pub responses_deleted: BTreeSet<(ConversationId, u64)>,
    /// How many turns some read has shown.
    pub read: BTreeMap<ConversationId, u64>,
    pub turns: Vec<ToldTurn>,
    /// The longest text shown of each turn.
    pub shown: BTreeMap<(ConversationId, u64), String>,
    pub ends: BTreeMap<(ConversationId, u64), (Outcome, String)>,
    pub items: Vec<(ConversationId, u64, Body)>,
    pub items_deleted: BTreeSet<(ConversationId, u64)>,
}

/// A turn that a client was told of. Times are ticks.
#[derive(Clone, Debug)]
pub struct ToldTurn {
    pub conversation: ConversationId,
    pub turn: u64,
    pub text: String,
    pub asked_at: u64,
    pub told_at: u64,
}

impl Ledger {
    /// Rises with every call: an order of what clients did, as they saw it.
    pub fn tick(&mut self) -> u64 {
        self.ticks += 1;
        self.ticks
    }

    /// Those that nobody wanted to delete.
    pub fn living(&self) -> Vec<ConversationId> {
        self.conversations.iter().copied().filter(|id| !self.deletions.contains(id)).collect()
    }

    /// Those that must be there whatever time it is.
    pub fn lasting(&self) -> Vec<ConversationId> {
        self.living().into_iter().filter(|id| !self.mortal.contains_key(id)).collect()
    }

    /// A read that begins now shows at least so many turns.
    pub fn turns_to_be_read(&self, conversation: ConversationId) -> u64 {
        let told = self.turns.iter().filter(|told| told.conversation == conversation).map(|told| told.turn + 1);
        told.max().unwrap_or(0).max(self.read.get(&conversation).copied().unwrap_or(0))
    }

    /// One view of a turn never takes back what another has shown.
    pub fn show(&mut self, conversation: ConversationId, turn: u64, text: &str) -> Result<(), String> {
        let shown = self.shown.entry((conversation, turn)).or_default();
        if !shown.starts_with(text) && !text.starts_with(shown.as_str()) {
            return Err(format!("{conversation} turn {turn} showed {shown:?}, then {text:?}"));
        }
        if text.len() > shown.len() {
            *shown = text.to_owned();
        }
        Ok(())
    }

    /// A turn ends once.
    pub fn end(
        &mut self,
        conversation: ConversationId,
        turn: u64,
        outcome: &Outcome,
        text: &str,
    ) -> Result<(), String> {
        self.show(conversation, turn, text)?;
        let end = (outcome.clone(), text.to_owned());
        let known = self.ends.entry((conversation, turn)).or_insert_with(|| end.clone());
        if *known == end { Ok(()) } else { Err(format!("{conversation} turn {turn} ended as {known:?}, then {end:?}")) }
    }
}
