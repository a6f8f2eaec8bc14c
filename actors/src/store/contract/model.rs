//! What a store is, as plainly as it can be said, and random operations on it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use klatch_protocol::envelope::seal;
use klatch_protocol::state::{ItemRow, Settled};
use klatch_protocol::{ClaimToken, ConversationId, Entry, Event, Position, Shard, State, Turn};

use super::super::{Compaction, IndexRow, Log, LogEnd, OpenRow, Order, Store, StoreError, hidden, is_snapshot};
use super::samples::{Dice, entry, long_turn, row, snapshot_entry};

/// Few of each, so that operations meet.
const CONVERSATIONS: u64 = 8;
const ORDINALS: u64 = 60;
const TURNS: u64 = 30;
/// So that all of them together are more than a store would keep as one.
const ROW_BYTES: u64 = 1_500;
const TIMES: u64 = 6;
const SHARDS: u64 = 3;
const NAMES: [&str; 4] = ["a", "ab", "b\0", ""];

#[derive(Clone, Debug)]
pub enum Operation {
    Append(ConversationId, Arc<Entry>),
    LogEnd(ConversationId),
    Log(ConversationId),
    Compact(ConversationId, Compaction),
    Items { conversation: ConversationId, from: u64, to: u64, order: Order, limit: usize },
    ItemOfClient(ConversationId, String),
    Turn(ConversationId, u64),
    IndexAdd(IndexRow),
    IndexRemove(IndexRow),
    Index { tenant: String, subject: String, after: Option<(u64, ConversationId)>, order: Order, limit: usize },
    OpenAdd(Shard, OpenRow),
    OpenRemove(Shard, OpenRow),
    Open(Shard, Option<OpenRow>, usize),
    DueAdd(u64, ConversationId),
    DueRemove(u64, ConversationId),
    Due(u64, usize),
}

#[derive(Debug, PartialEq)]
pub enum Outcome {
    Done,
    /// Which end the refusal names is checked elsewhere: not all stores can tell.
    Fenced,
    Failed(StoreError),
    LogEnd(Option<LogEnd>),
    Log(Log),
    Items(Vec<ItemRow>),
    Ordinal(Option<u64>),
    Turn(Option<Box<Turn>>),
    Index(Vec<IndexRow>),
    Open(Vec<OpenRow>),
    Due(Vec<(u64, ConversationId)>),
}

#[derive(Default)]
pub struct Model {
    logs: BTreeMap<ConversationId, Vec<Entry>>,
    items: BTreeMap<(ConversationId, u64), ItemRow>,
    turns: BTreeMap<(ConversationId, u64), Turn>,
    index: BTreeSet<(String, String, u64, ConversationId)>,
    open: BTreeSet<(Shard, OpenRow)>,
    due: BTreeSet<(u64, ConversationId)>,
}

impl Operation {
    pub async fn run(&self, store: &dyn Store) -> Outcome {
        match self.clone() {
            Self::Append(conversation, entry) => outcome(store.append(conversation, entry).await, |()| Outcome::Done),
            Self::LogEnd(conversation) => outcome(store.log_end(conversation).await, Outcome::LogEnd),
            Self::Log(conversation) => outcome(store.log(conversation).await, Outcome::Log),
            Self::Compact(conversation, how) => outcome(store.compact(conversation, how).await, |()| Outcome::Done),
            Self::Items { conversation, from, to, order, limit } => {
                outcome(store.items(conversation, from, to, order, limit).await, Outcome::Items)
            }
            Self::ItemOfClient(conversation, id) => {
                outcome(store.item_of_client(conversation, id).await, Outcome::Ordinal)
            }
            Self::Turn(conversation, turn) => {
                outcome(store.turn(conversation, turn).await, |turn| Outcome::Turn(turn.map(Box::new)))
            }
            Self::IndexAdd(row) => outcome(store.index_add(row).await, |()| Outcome::Done),
            Self::IndexRemove(row) => outcome(store.index_remove(row).await, |()| Outcome::Done),
            Self::Index { tenant, subject, after, order, limit } => {
                outcome(store.index(tenant, subject, after, order, limit).await, Outcome::Index)
            }
            Self::OpenAdd(shard, row) => outcome(store.open_add(shard, row).await, |()| Outcome::Done),
            Self::OpenRemove(shard, upto) => outcome(store.open_remove(shard, upto).await, |()| Outcome::Done),
            Self::Open(shard, after, limit) => outcome(store.open(shard, after, limit).await, Outcome::Open),
            Self::DueAdd(at, conversation) => outcome(store.due_add(at, conversation).await, |()| Outcome::Done),
            Self::DueRemove(at, conversation) => outcome(store.due_remove(at, conversation).await, |()| Outcome::Done),
            Self::Due(now, limit) => outcome(store.due(now, limit).await, Outcome::Due),
        }
    }
}

fn outcome<T>(done: Result<T, StoreError>, make: impl FnOnce(T) -> Outcome) -> Outcome {
    match done {
        Ok(value) => make(value),
        Err(StoreError::Fenced(_)) => Outcome::Fenced,
        Err(error) => Outcome::Failed(error),
    }
}

impl Model {
    pub fn run(&mut self, operation: &Operation) -> Outcome {
        match operation.clone() {
            Operation::Append(conversation, entry) => self.append(conversation, &entry),
            Operation::LogEnd(conversation) => Outcome::LogEnd(self.end(conversation)),
            Operation::Log(conversation) => Outcome::Log(self.log(conversation)),
            Operation::Compact(conversation, compaction) => self.compact(conversation, compaction),
            Operation::Items { conversation, from, to, order, limit } => {
                let mut rows = self.items_of(conversation);
                rows.retain(|row| from <= row.ordinal && row.ordinal < to);
                Outcome::Items(page(rows, order, limit))
            }
            Operation::ItemOfClient(conversation, id) => {
                let rows = self.items_of(conversation);
                Outcome::Ordinal(rows.iter().find(|row| row.client_id.as_ref() == Some(&id)).map(|row| row.ordinal))
            }
            Operation::Turn(conversation, turn) => {
                Outcome::Turn(self.turns.get(&(conversation, turn)).cloned().map(Box::new))
            }
            Operation::IndexAdd(row) => {
                self.index.insert((row.tenant, row.subject, row.created_at_ms, row.conversation));
                Outcome::Done
            }
            Operation::IndexRemove(row) => {
                self.index.remove(&(row.tenant, row.subject, row.created_at_ms, row.conversation));
                Outcome::Done
            }
            Operation::Index { tenant, subject, after, order, limit } => {
                Outcome::Index(self.index(&tenant, &subject, after, order, limit))
            }
            Operation::OpenAdd(shard, row) => {
                self.open.insert((shard, row));
                Outcome::Done
            }
            Operation::OpenRemove(shard, upto) => {
                let gone = |row: &OpenRow| row.conversation == upto.conversation && row.epoch <= upto.epoch;
                self.open.retain(|(of, row)| *of != shard || !gone(row));
                Outcome::Done
            }
            Operation::Open(shard, after, limit) => {
                let rows = self.open.iter().filter(|row| row.0 == shard && after.is_none_or(|after| row.1 > after));
                Outcome::Open(rows.map(|row| row.1).take(limit).collect())
            }
            Operation::DueAdd(at, conversation) => {
                self.due.insert((at, conversation));
                Outcome::Done
            }
            Operation::DueRemove(at, conversation) => {
                self.due.remove(&(at, conversation));
                Outcome::Done
            }
            Operation::Due(now, limit) => {
                Outcome::Due(self.due.iter().filter(|row| row.0 <= now).take(limit).copied().collect())
            }
        }
    }

    fn append(&mut self, conversation: ConversationId, entry: &Entry) -> Outcome {
        let first = Position { epoch: 1, seq: 0 };
        let allowed = match self.end(conversation) {
            Some(end) => entry.position > end.position,
            None => entry.position == first,
        };
        if !allowed {
            return Outcome::Fenced;
        }
        self.logs.entry(conversation).or_default().push(entry.clone());
        Outcome::Done
    }

    fn end(&self, conversation: ConversationId) -> Option<LogEnd> {
        let last = self.logs.get(&conversation)?.last()?;
        Some(LogEnd { position: last.position, token: last.token })
    }

    fn log(&self, conversation: ConversationId) -> Log {
        let entries = self.logs.get(&conversation).cloned().unwrap_or_default();
        let tail = entries.iter().skip(usize::from(entries.first().is_some_and(is_snapshot)));
        let tail_bytes = tail.map(|entry| seal(entry).len()).sum();
        Log { entries, tail_bytes }
    }

    fn compact(&mut self, conversation: ConversationId, compaction: Compaction) -> Outcome {
        if self.end(conversation) != Some(compaction.expected) {
            return Outcome::Fenced;
        }
        let Settled { items, hide, turns, drop_turns } = compaction.settled;
        self.items.extend(items.into_iter().map(|row| ((conversation, row.ordinal), row)));
        for (ordinal, version, keep) in hide {
            let row = self.items.remove(&(conversation, ordinal));
            self.items.insert((conversation, ordinal), hidden(row, ordinal, version, keep));
        }
        self.turns.extend(turns.into_iter().map(|turn| ((conversation, turn.accepted.turn), turn)));
        self.turns.retain(|(of, turn), _| *of != conversation || !drop_turns.contains(turn));
        if let Some(below) = compaction.clear_but_items_below {
            self.items.retain(|(of, ordinal), _| *of != conversation || *ordinal < below);
            self.turns.retain(|(of, _), _| *of != conversation);
        }
        self.logs.insert(conversation, vec![Entry::clone(&compaction.snapshot)]);
        Outcome::Done
    }

    fn items_of(&self, conversation: ConversationId) -> Vec<ItemRow> {
        self.items.iter().filter(|((of, _), _)| *of == conversation).map(|(_, row)| row.clone()).collect()
    }

    fn index(
        &self,
        tenant: &str,
        subject: &str,
        after: Option<(u64, ConversationId)>,
        order: Order,
        limit: usize,
    ) -> Vec<IndexRow> {
        let rows = self.index.iter().filter(|row| row.0 == tenant && row.1 == subject);
        let bound = after.map_or(Bound::Unbounded, Bound::Excluded);
        let range = match order {
            Order::Ascending => (bound, Bound::Unbounded),
            Order::Descending => (Bound::Unbounded, bound),
        };
        let rows = rows.filter(|row| std::ops::RangeBounds::contains(&range, &(row.2, row.3)));
        let rows = rows.map(|(tenant, subject, created_at_ms, conversation)| IndexRow {
            tenant: tenant.clone(),
            subject: subject.clone(),
            created_at_ms: *created_at_ms,
            conversation: *conversation,
        });
        page(rows.collect(), order, limit)
    }
}

fn page<T>(mut rows: Vec<T>, order: Order, limit: usize) -> Vec<T> {
    if order == Order::Descending {
        rows.reverse();
    }
    rows.truncate(limit);
    rows
}

/// Choosing what to do next: mostly what is allowed, so that something happens.
impl Model {
    pub fn next(&self, dice: &mut Dice) -> Operation {
        let conversation = id(dice);
        let (at, shard, limit) = (dice.below(TIMES), Shard(dice.below(SHARDS) as u16), dice.below(7) as usize);
        let order = if dice.chance(50) { Order::Ascending } else { Order::Descending };
        let open_row = OpenRow { conversation, epoch: dice.below(3) };
        match dice.below(100) {
            0..30 => Operation::Append(conversation, Arc::new(self.next_entry(conversation, dice))),
            30..38 => Operation::Compact(conversation, self.next_compaction(conversation, dice)),
            38..44 => Operation::LogEnd(conversation),
            44..52 => Operation::Log(conversation),
            52..60 => {
                let (from, to) = (dice.below(2 * ORDINALS), dice.below(2 * ORDINALS + 1));
                Operation::Items { conversation, from, to, order, limit: limit * 4 }
            }
            60..64 => Operation::ItemOfClient(conversation, format!("client-{}", dice.below(2 * ORDINALS))),
            64..68 => Operation::Turn(conversation, dice.below(2 * TURNS)),
            68..73 => Operation::IndexAdd(index_row(dice, at, conversation)),
            73..76 => Operation::IndexRemove(index_row(dice, at, conversation)),
            76..82 => {
                let IndexRow { tenant, subject, .. } = index_row(dice, at, conversation);
                let after = dice.chance(60).then_some((at, conversation));
                Operation::Index { tenant, subject, after, order, limit }
            }
            82..86 => Operation::OpenAdd(shard, open_row),
            86..89 => Operation::OpenRemove(shard, open_row),
            89..92 => Operation::Open(shard, dice.chance(50).then_some(open_row), limit),
            92..95 => Operation::DueAdd(at, conversation),
            95..97 => Operation::DueRemove(at, conversation),
            _ => Operation::Due(at, limit),
        }
    }

    fn next_entry(&self, conversation: ConversationId, dice: &mut Dice) -> Entry {
        let end = self.end(conversation);
        let position = match (end, dice.below(10)) {
            (_, 0) => Position { epoch: dice.below(4), seq: dice.below(4) },
            (None, _) => Position::default().claim(),
            (Some(end), 1) => end.position,
            (Some(end), 2) => end.position.claim(),
            (Some(end), _) => end.position.next(),
        };
        let kept = end.map(|end| end.token).filter(|_| position.seq > 0);
        let token = kept.unwrap_or(ClaimToken(u128::from(dice.next())));
        let pieces = (0..dice.below(4)).map(|n| "é".repeat((n * dice.below(100)) as usize)).collect();
        entry(position.epoch, position.seq, token, vec![Event::Delta { turn: 0, pieces }])
    }

    fn next_compaction(&self, conversation: ConversationId, dice: &mut Dice) -> Compaction {
        let nowhere = LogEnd { position: Position::default(), token: ClaimToken(1) };
        let mut expected = self.end(conversation).unwrap_or(nowhere);
        match dice.below(10) {
            0 => expected.position = expected.position.next(),
            1 => expected.token = ClaimToken(expected.token.0 ^ 1),
            _ => {}
        }
        let few =
            |dice: &mut Dice, end: u64| -> BTreeSet<u64> { (0..dice.below(6)).map(|_| dice.below(end)).collect() };
        // Mostly what is settled comes behind all that is there, and nothing there changes.
        let (is_next, count) = (dice.chance(50), dice.below(9));
        let (items, turns) = match is_next {
            true => (next(self.items.keys(), conversation, count), next(self.turns.keys(), conversation, count)),
            false => (few(dice, ORDINALS), few(dice, TURNS)),
        };
        let mut text = || "text ".repeat(dice.below(ROW_BYTES / 5) as usize);
        let items = items.into_iter().map(|ordinal| row(ordinal, &text())).collect();
        let turns = turns.into_iter().map(|turn| long_turn(turn, &text())).collect();
        let (hide, drop_turns) = match is_next {
            true => Default::default(),
            false => (few(dice, ORDINALS), few(dice, TURNS)),
        };
        let hide = hide.into_iter().map(|at| (at, dice.below(9), dice.chance(50))).collect();
        let settled = Settled { items, hide, turns, drop_turns: drop_turns.into_iter().collect() };
        let clear_but_items_below = dice.chance(10).then(|| dice.below(ORDINALS));
        let state = State { next_item: dice.next(), ..State::default() };
        Compaction { expected, snapshot: Arc::new(snapshot_entry(expected, state)), settled, clear_but_items_below }
    }
}

/// Ordinals behind the last of this conversation, which may reach beyond those of its changes.
fn next<'a>(
    all: impl DoubleEndedIterator<Item = &'a (ConversationId, u64)>,
    conversation: ConversationId,
    count: u64,
) -> BTreeSet<u64> {
    let last = all.rev().find(|(of, _)| *of == conversation).map(|(_, ordinal)| *ordinal);
    let from = last.map_or(0, |last| last + 1);
    (from..from + count).collect()
}

fn id(dice: &mut Dice) -> ConversationId {
    ConversationId([dice.below(CONVERSATIONS) as u8; 16])
}

fn index_row(dice: &mut Dice, created_at_ms: u64, conversation: ConversationId) -> IndexRow {
    let mut name = || NAMES[dice.below(NAMES.len() as u64) as usize].to_owned();
    IndexRow { tenant: name(), subject: name(), created_at_ms, conversation }
}
