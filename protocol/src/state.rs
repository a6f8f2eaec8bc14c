//! What a conversation's events add up to: its snapshot. Small, whatever the conversation's length: finished items
//! and turns move to lists of their own at compaction (see [`State::settle`]), and keys are pruned.
//!
//! `apply` accepts every event in every state: what cannot be is ignored, since a log is never argued with.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::event::{Accepted, Created, Entry, Event, KeyUse, Memory, Parent};
use crate::turn::Change;
use crate::{Body, ConversationId, Item, Outcome, Turn, Untold};

/// Idempotency keys kept per conversation, beyond which the oldest go however young they are.
pub const KEYS_MAX: usize = 1_000;
/// The edges' own keys kept: more than turns can be open, since one is repeated within seconds.
const ATTEMPTS_MAX: usize = 64;
/// The newest keys stay however old they look: the clocks of two owners may be days apart, and a retry comes soon.
const KEYS_KEPT_MIN: usize = 64;
/// Idempotency keys are kept this long, in ms.
pub const KEYS_KEPT_MS: u64 = 24 * 60 * 60 * 1_000;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// How it was made, items left out; none before it is.
    pub created: Option<Created>,
    /// Where its inherited items are; kept when it is deleted, for its own children.
    pub parent: Option<Parent>,
    pub created_at_ms: u64,
    pub metadata: Vec<(String, String)>,
    pub deleted: bool,
    /// Ordinals not yet given.
    pub next_item: u64,
    pub next_turn: u64,
    /// First ordinal behind all items that have entered.
    pub entered_end: u64,
    /// Items not yet in the item list.
    pub items: BTreeMap<u64, Item>,
    /// Items deleted and not yet so in the item list, with the version at which they were.
    pub hidden: BTreeMap<u64, u64>,
    /// Finished turns not yet in the turn list.
    pub turns: BTreeMap<u64, Turn>,
    pub dropped_turns: BTreeSet<u64>,
    /// Unfinished turns in their order; only the first can be running.
    pub open: VecDeque<Turn>,
    pub keys: VecDeque<Key>,
    /// The edges' own keys of the last turns, with the turns.
    pub attempts: VecDeque<([u8; 16], u64)>,
    pub last: Option<Last>,
    /// Children share the items below this ordinal: their content outlives a deletion here.
    pub shared_before: u64,
    /// Counts deletions and forks, so that each child sees its prefix as it was.
    pub version: u64,
    /// Items of the parent's were deleted here: the item list holds rows that hide them.
    pub hides_inherited: bool,
    pub memory: Option<Memory>,
    pub last_turn_ms: u64,
    /// Whose claim was the last.
    pub claimed_by: Option<Claimant>,
    /// Ends that webhooks are still to be told of, in their order. A snapshot's bytes are as they were before there were
    /// any: the events behind it say them again.
    #[serde(skip)]
    pub untold: VecDeque<Untold>,
}

/// One life of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claimant {
    pub node: String,
    pub incarnation: u64,
    /// Number of a view in which it stands.
    pub view: u64,
}

/// The last turn that entered, and the first ordinal behind its items: chaining from it goes on here while nothing
/// else has come since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    pub turn: u64,
    pub items_end: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    pub used: KeyUse,
    pub at_ms: u64,
    pub did: Did,
}

/// What the request under a key did: enough to answer it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Did {
    Created,
    Turn(u64),
    ItemsAdded(Vec<u64>),
    MetadataSet,
    /// With the prefix that it was promised.
    Forked(Parent, ConversationId),
}

/// An item as the item list holds it. Deleted ones stay as a row: with its content while a child needs it, without
/// where nobody does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemRow {
    pub ordinal: u64,
    pub client_id: Option<String>,
    pub body: Option<Arc<Body>>,
    /// The version at which it was deleted.
    pub hidden_at: Option<u64>,
}

impl From<Item> for ItemRow {
    fn from(item: Item) -> Self {
        Self { ordinal: item.ordinal, client_id: item.client_id, body: Some(item.body), hidden_at: None }
    }
}

/// What compaction moves out of the state, into lists of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    pub items: Vec<ItemRow>,
    /// Rows already in the list, or inherited: mark them deleted at this version; keep the content if `true`.
    pub hide: Vec<(u64, u64, bool)>,
    pub turns: Vec<Turn>,
    pub drop_turns: Vec<u64>,
}

impl State {
    /// The fold of a log's entries, which begin with a snapshot or with the conversation itself.
    pub fn replay<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Self {
        let mut state = Self::default();
        for entry in entries {
            state.apply_entry(entry);
        }
        state
    }

    pub fn apply_entry(&mut self, entry: &Entry) {
        for event in &entry.events {
            self.apply(event, entry.at_ms);
        }
    }

    pub fn apply(&mut self, event: &Event, at_ms: u64) {
        match event {
            Event::Claimed { node, incarnation, view } => {
                let (node, incarnation, view) = (node.clone(), *incarnation, *view);
                self.claimed_by = Some(Claimant { node, incarnation, view });
            }
            Event::Created(created) => self.create(created, at_ms),
            Event::TurnAccepted(accepted) => {
                let turn = Turn::new(Self::numbered(accepted.clone(), self.next_item), self.next_item);
                self.next_item = turn.block_end();
                self.next_turn = self.next_turn.max(accepted.turn + 1);
                self.last_turn_ms = at_ms;
                if let Some(key) = accepted.key {
                    self.use_key(
                        Some(KeyUse { key, fingerprint: accepted.fingerprint }),
                        at_ms,
                        Did::Turn(accepted.turn),
                    );
                }
                if let Some(attempt) = accepted.attempt {
                    self.attempts.push_back((attempt, accepted.turn));
                    if self.attempts.len() > ATTEMPTS_MAX {
                        self.attempts.pop_front();
                    }
                }
                self.open.push_back(turn);
            }
            Event::AttemptStarted { turn, attempt } => self.change(*turn, Change::Attempt(*attempt)),
            Event::Delta { turn, pieces } => {
                if let Some(turn) = self.open_turn(*turn) {
                    turn.add_pieces(pieces);
                }
            }
            Event::ToolCall { turn, call } => self.change(*turn, Change::Call(call.clone())),
            Event::TurnEnded { turn, outcome, memory } => self.end(*turn, outcome, memory.as_ref(), at_ms),
            Event::ItemsAdded { items, key } => {
                let ordinals = self.enter(items.iter().cloned());
                self.use_key(*key, at_ms, Did::ItemsAdded(ordinals));
            }
            Event::ItemDeleted { ordinal } => {
                self.version += 1;
                self.hides_inherited |= self.parent.is_some_and(|parent| *ordinal < parent.before);
                // Deleted again is deleted since the first time: a child made between must not see it.
                self.hidden.entry(*ordinal).or_insert(self.version);
            }
            Event::MetadataSet { metadata, key } => {
                self.metadata.clone_from(metadata);
                self.use_key(*key, at_ms, Did::MetadataSet);
            }
            Event::ResponseDeleted { turn } => {
                self.turns.remove(turn);
                self.dropped_turns.insert(*turn);
            }
            Event::Forked { child, prefix, key } => {
                self.version += 1;
                self.shared_before = self.shared_before.max(prefix.before);
                self.use_key(*key, at_ms, Did::Forked(*prefix, *child));
            }
            Event::Deleted => self.delete(),
            Event::Snapshot(state) => self.clone_from(state),
            Event::AtWork => {}
            Event::ToTell(untold) if self.untold.iter().any(|known| known.turn == untold.turn) => {}
            Event::ToTell(untold) => self.untold.push_back(untold.clone()),
            Event::Told { turn, to } => {
                if let Some(untold) = self.untold.iter_mut().find(|untold| untold.turn == *turn) {
                    untold.to.retain(|webhook| webhook != to);
                }
                self.untold.retain(|untold| !untold.to.is_empty());
            }
        }
    }

    /// The conversation, to those who may know of it.
    pub fn alive(&self) -> Option<&Created> {
        self.created.as_ref().filter(|_| !self.deleted)
    }

    /// What a child that is forked now shares of this conversation, `id`: all below `before`, as it is then.
    pub fn prefix(&self, id: ConversationId, before: u64) -> Parent {
        Parent { conversation: id, before, version: self.version + 1 }
    }

    pub fn key(&self, key: &[u8; 16]) -> Option<&Key> {
        self.keys.iter().rev().find(|known| known.used.key == *key)
    }

    /// Roughly what is kept in memory, and written with each snapshot, of items and turns, in bytes.
    pub fn hot_bytes(&self) -> usize {
        let items = self.items.values().map(|item| item.body.bytes());
        let turns = self.turns.values().chain(&self.open).map(Turn::bytes);
        items.chain(turns).sum()
    }

    /// Whether nothing is left to move or to trim.
    pub fn is_settled(&self) -> bool {
        self.items.is_empty() && self.hidden.is_empty() && self.turns.is_empty() && self.dropped_turns.is_empty()
    }

    /// The state as events that replace all before them.
    pub fn snapshot(&self) -> Vec<Event> {
        let untold = self.untold.iter().cloned().map(Event::ToTell);
        std::iter::once(Event::Snapshot(Box::new(self.clone()))).chain(untold).collect()
    }

    /// Moves out all that is finished. Items above the first open turn's block stay: what enters later below them
    /// must still come before them in the list.
    pub fn settle(&mut self) -> Settled {
        let below = self.open.front().map_or(u64::MAX, |turn| turn.first_item);
        let kept = self.items.split_off(&below);
        let items = std::mem::replace(&mut self.items, kept);
        let (mut rows, mut hide) = (Vec::with_capacity(items.len()), Vec::new());
        for (ordinal, item) in items {
            let hidden_at = self.hidden.remove(&ordinal);
            let keep = hidden_at.is_none() || ordinal < self.shared_before;
            let row = ItemRow::from(item);
            rows.push(ItemRow { body: row.body.filter(|_| keep), hidden_at, ..row });
        }
        let kept = self.hidden.split_off(&below);
        for (ordinal, version) in std::mem::replace(&mut self.hidden, kept) {
            hide.push((ordinal, version, ordinal < self.shared_before));
        }
        let turns = std::mem::take(&mut self.turns).into_values().map(|mut turn| {
            // Only what the item list already holds can be told from it.
            if turn.entered() && turn.block_end() <= below {
                turn.strip();
            }
            turn
        });
        Settled {
            items: rows,
            hide,
            turns: turns.collect(),
            drop_turns: std::mem::take(&mut self.dropped_turns).into_iter().collect(),
        }
    }

    fn create(&mut self, created: &Created, at_ms: u64) {
        let mut how = created.clone();
        let items = std::mem::take(&mut how.items);
        self.next_item = created.parent.map_or(0, |parent| parent.before);
        self.entered_end = self.next_item;
        self.parent = created.parent;
        self.metadata.clone_from(&created.metadata);
        self.created_at_ms = at_ms;
        self.last_turn_ms = at_ms;
        self.created = Some(how);
        self.enter(items);
        self.use_key(created.key, at_ms, Did::Created);
    }

    /// Leaves what keeps a deleted conversation deleted, its place in the list, what its children share, and the ends that
    /// came before it.
    fn delete(&mut self) {
        let mut was = std::mem::take(self);
        was.items.split_off(&was.shared_before);
        was.hidden.split_off(&was.shared_before);
        *self = Self {
            deleted: true,
            created_at_ms: was.created_at_ms,
            parent: was.parent,
            items: was.items,
            hidden: was.hidden,
            shared_before: was.shared_before,
            version: was.version,
            hides_inherited: was.hides_inherited,
            untold: was.untold,
            ..Self::default()
        };
    }

    /// Gives the items their ordinals, in order, and lets them in.
    fn enter(&mut self, items: impl IntoIterator<Item = Item>) -> Vec<u64> {
        let enter_one = |mut item: Item| {
            item.ordinal = self.next_item;
            self.next_item += 1;
            self.entered_end = self.next_item;
            self.items.insert(item.ordinal, item);
            self.next_item - 1
        };
        items.into_iter().map(enter_one).collect()
    }

    /// With the ordinals of the block that begins at `first`. Who accepted it has mostly numbered it already, and then it
    /// is not copied.
    fn numbered(mut accepted: Arc<Accepted>, first: u64) -> Arc<Accepted> {
        if (first..).zip(&accepted.input).any(|(ordinal, item)| item.ordinal != ordinal) {
            let items = &mut Arc::make_mut(&mut accepted).input;
            (first..).zip(items).for_each(|(ordinal, item)| item.ordinal = ordinal);
        }
        accepted
    }

    fn open_turn(&mut self, turn: u64) -> Option<&mut Turn> {
        self.open.iter_mut().find(|open| open.accepted.turn == turn)
    }

    fn change(&mut self, turn: u64, change: Change) {
        if let Some(turn) = self.open_turn(turn) {
            turn.apply(change);
        }
    }

    fn end(&mut self, turn: u64, outcome: &Outcome, memory: Option<&Memory>, at_ms: u64) {
        let Some(place) = self.open.iter().position(|open| open.accepted.turn == turn) else { return };
        let Some(mut turn) = self.open.remove(place) else { return };
        turn.apply(Change::Ended { outcome: outcome.clone(), at_ms });
        if turn.entered() {
            let outputs = turn.output_items();
            let items_end = turn.output_ordinal(outputs.len());
            self.items.extend(turn.accepted.input.iter().cloned().chain(outputs).map(|item| (item.ordinal, item)));
            self.entered_end = self.entered_end.max(items_end);
            self.last = Some(Last { turn: turn.accepted.turn, items_end });
        }
        if memory.is_some() {
            self.memory = memory.cloned();
        }
        self.last_turn_ms = at_ms;
        self.turns.insert(turn.accepted.turn, turn);
    }

    fn use_key(&mut self, used: Option<KeyUse>, at_ms: u64, did: Did) {
        let Some(used) = used else { return };
        self.keys.push_back(Key { used, at_ms, did });
        // A derived conversation keeps its creation key for life: without it a late retry would find it taken.
        let forever = usize::from(self.keys.front().is_some_and(|key| key.did == Did::Created));
        let is_old = |key: &Key| key.at_ms.saturating_add(KEYS_KEPT_MS) < at_ms;
        while self.keys.len() > KEYS_MAX
            || (self.keys.len() > KEYS_KEPT_MIN + forever && self.keys.get(forever).is_some_and(is_old))
        {
            self.keys.remove(forever);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn::Usage;
    use crate::turn::tests::accepted;
    use crate::untold::{Ended, WebhookId};

    fn begun() -> State {
        let mut state = State::default();
        let created = Created {
            tenant: "t".into(),
            subject: "s".into(),
            metadata: vec![],
            ttl_seconds: None,
            explicit: true,
            items: vec![],
            parent: None,
            key: Some(KeyUse { key: [9; 16], fingerprint: [9; 16] }),
        };
        state.apply(&Event::Created(Box::new(created)), 1);
        state
    }

    fn done() -> Event {
        Event::TurnEnded { turn: 0, outcome: Outcome::Completed { usage: Usage::default() }, memory: None }
    }

    fn text(text: &str) -> Item {
        Item { ordinal: 0, client_id: None, body: Body::user(text).into() }
    }

    #[test]
    fn items_added_while_a_turn_runs_stand_behind_its_block_and_wait_for_it() {
        let mut state = begun();
        state.apply(&Event::TurnAccepted(Arc::new(accepted(0))), 2);
        state.apply(&Event::ItemsAdded { items: vec![text("later")], key: None }, 3);
        assert!(state.settle().items.is_empty(), "an item moved to the list before one that comes before it");
        state.apply(&Event::Delta { turn: 0, pieces: ["hi"].into() }, 4);
        state.apply(&done(), 5);
        let texts: Vec<String> =
            state.settle().items.into_iter().filter_map(|row| row.body.map(|body| body.text())).collect();
        assert_eq!(texts, ["hello", "hi", "later"]);
        assert!(state.is_settled());
    }

    #[test]
    fn keys_are_pruned_by_age_and_number_but_for_the_creations() {
        let mut state = begun();
        let set = |n: u64| Event::MetadataSet {
            metadata: vec![],
            key: Some(KeyUse { key: u128::from(n).to_be_bytes(), fingerprint: [0; 16] }),
        };
        for n in 0..KEYS_MAX as u64 + 500 {
            state.apply(&set(n), 2);
        }
        assert_eq!(state.keys.len(), KEYS_MAX);
        assert!(state.key(&[9; 16]).is_some(), "the creation's key is gone");
        state.apply(&set(1 << 60), KEYS_KEPT_MS + 3);
        assert_eq!(state.keys.len(), KEYS_KEPT_MIN + 1);
    }

    #[test]
    fn a_clock_that_jumps_by_days_makes_no_retry_a_second_turn() {
        let mut state = begun();
        let set = |n: u64| Event::MetadataSet {
            metadata: vec![],
            key: Some(KeyUse { key: u128::from(n).to_be_bytes(), fingerprint: [0; 16] }),
        };
        state.apply(&set(1), 2);
        state.apply(&set(2), 10 * KEYS_KEPT_MS);
        assert!(state.key(&1_u128.to_be_bytes()).is_some());
    }

    #[test]
    fn a_deleted_item_keeps_its_content_only_for_children() {
        let mut state = begun();
        state.apply(&Event::ItemsAdded { items: vec![text("shared"), text("own")], key: None }, 2);
        state.apply(
            &Event::Forked {
                child: ConversationId([1; 16]),
                prefix: state.prefix(ConversationId([2; 16]), 1),
                key: None,
            },
            3,
        );
        state.apply(&Event::ItemDeleted { ordinal: 0 }, 4);
        state.apply(&Event::ItemDeleted { ordinal: 1 }, 5);
        let rows = state.settle().items;
        assert_eq!((rows[0].hidden_at, rows[0].body.is_some()), (Some(2), true));
        assert_eq!((rows[1].hidden_at, rows[1].body.is_some()), (Some(3), false));
    }

    #[test]
    fn a_snapshot_is_the_state_again() {
        let mut state = begun();
        state.apply(&Event::TurnAccepted(Arc::new(accepted(0))), 2);
        state.apply(&Event::ToTell(untold(7)), 3);
        let sealed: Vec<_> = state.snapshot().iter().map(crate::envelope::seal).collect();
        let mut again = State::default();
        for event in &sealed {
            again.apply(&crate::envelope::open(event).expect("it was sealed here"), 3);
        }
        assert_eq!(again, state);
    }

    fn untold(turn: u64) -> Untold {
        Untold { turn, ended: Ended::Completed, at_ms: 3, to: vec![WebhookId(1), WebhookId(2)] }
    }

    #[test]
    fn an_end_is_untold_until_the_last_webhook_was_told_and_outlives_the_conversation() {
        let mut state = begun();
        let told = |turn, to| Event::Told { turn, to: WebhookId(to) };
        state.apply(&Event::ToTell(untold(0)), 2);
        state.apply(&Event::ToTell(untold(1)), 2);
        state.apply(&told(0, 2), 3);
        state.apply(&Event::Deleted, 4);
        assert_eq!(state.untold.iter().map(|untold| untold.to.len()).collect::<Vec<_>>(), [1, 2]);
        state.apply(&told(0, 1), 5);
        assert_eq!(state.untold, [untold(1)]);
    }
}
