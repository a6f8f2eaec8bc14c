//! A compaction as one script, which looks at the log's end first.
//!
//! What is finished mostly lies above all that its lists hold. The script sees that by the last block of each, and adds.
//! Where it is not so, or rows that are there change, the blocks around those rows are read before, and the script puts
//! others in their place. What is read holds as long as the log ends where it is expected to, since only appends and
//! compactions change a conversation and both move its end.

use std::collections::{BTreeMap, BTreeSet};

use ::redis::{Cmd, Value};
use klatch_actors::store::{Compaction, StoreError, hidden};
use klatch_protocol::ConversationId;
use klatch_protocol::envelope::seal;
use klatch_protocol::state::{ItemRow, Settled};

use super::around::{Around, Changes, Replacement};
use super::blocks::{BLOCK_BYTES, pack};
use super::keys::{Keys, entry_id};
use super::read::unreadable;
use super::scripts::Script;

/// Redis takes no more arguments in a command than 1,048,576.
const ARGUMENTS_MAX: usize = 1_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Done,
    Fenced,
    /// Nothing was written: what there is must be read first.
    Look,
}

/// What is done to one list.
enum Step {
    Above(Vec<Vec<u8>>),
    Replace(Replacement),
}

/// The script's call where nothing changes that may be there already. It may answer [`Answer::Look`].
pub fn above(keys: &Keys, conversation: ConversationId, compaction: &Compaction) -> Option<Result<Cmd, StoreError>> {
    let Settled { items, hide, turns, drop_turns } = &compaction.settled;
    if compaction.clear_but_items_below.is_some() || !drop_turns.is_empty() {
        return None;
    }
    let mut rows: BTreeMap<u64, ItemRow> = items.iter().map(|row| (row.ordinal, row.clone())).collect();
    for (ordinal, version, keep) in hide {
        let row = rows.get_mut(ordinal)?;
        *row = hidden(Some(row.clone()), *ordinal, *version, *keep);
    }
    let items: BTreeMap<u64, Vec<u8>> = rows.iter().map(|(ordinal, row)| (*ordinal, seal(row))).collect();
    let turns: BTreeMap<u64, Vec<u8>> = turns.iter().map(|turn| (turn.accepted.turn, seal(turn))).collect();
    let packed = [items, turns].map(|rows| Step::Above(pack(rows.iter().map(|(ordinal, row)| (*ordinal, &row[..])))));
    Some(call(keys, conversation, compaction, packed))
}

/// Ordinals of items around which the list must be known, and those of turns.
pub fn touched(compaction: &Compaction) -> [BTreeSet<u64>; 2] {
    let Compaction { settled: Settled { items, hide, turns, drop_turns }, clear_but_items_below, .. } = compaction;
    let items = items.iter().map(|row| row.ordinal).chain(hide.iter().map(|(ordinal, ..)| *ordinal));
    let turns = turns.iter().map(|turn| turn.accepted.turn).chain(drop_turns.iter().copied());
    match clear_but_items_below {
        Some(below) => [items.filter(|ordinal| ordinal < below).chain([*below]).collect(), BTreeSet::new()],
        None => [items.collect(), turns.collect()],
    }
}

/// The script's call where what is there around [`touched`] is known.
pub fn replacing(
    keys: &Keys,
    conversation: ConversationId,
    compaction: &Compaction,
    [mut around_items, around_turns]: [Around; 2],
) -> Result<Cmd, StoreError> {
    let Compaction { settled: Settled { items, hide, turns, drop_turns }, clear_but_items_below, .. } = compaction;
    let mut rows: BTreeMap<u64, ItemRow> = items.iter().map(|row| (row.ordinal, row.clone())).collect();
    for (ordinal, version, keep) in hide {
        let row = match rows.remove(ordinal) {
            Some(row) => Some(row),
            None => item(&around_items, *ordinal)?,
        };
        rows.insert(*ordinal, hidden(row, *ordinal, *version, *keep));
    }
    let mut items: Changes = rows.iter().map(|(ordinal, row)| (*ordinal, Some(seal(row)))).collect();
    let mut turns: Changes = turns.iter().map(|turn| (turn.accepted.turn, Some(seal(turn)))).collect();
    turns.extend(drop_turns.iter().map(|turn| (*turn, None)));
    if let Some(below) = clear_but_items_below {
        around_items.clear_from(*below, &mut items);
        // The script removes them all.
        turns.clear();
    }
    let steps = [around_items.replace(&items), around_turns.replace(&turns)].map(Step::Replace);
    call(keys, conversation, compaction, steps)
}

fn item(around: &Around, ordinal: u64) -> Result<Option<ItemRow>, StoreError> {
    let found = around.block(ordinal).and_then(|block| Some((block, block.row(ordinal)?)));
    found.map(|(block, sealed)| block.open(ordinal, sealed, |row: &ItemRow| row.ordinal)).transpose()
}

fn call(
    keys: &Keys,
    conversation: ConversationId,
    compaction: &Compaction,
    steps: [Step; 2],
) -> Result<Cmd, StoreError> {
    let Compaction { expected, snapshot, settled, clear_but_items_below: below } = compaction;
    let names =
        [keys.log(conversation), keys.items(conversation), keys.clients(conversation), keys.turns(conversation)];
    let mut call = Script::Compact.call(&names);
    call.arg(entry_id(expected.position)).arg(&expected.token.0.to_be_bytes()[..]);
    call.arg(entry_id(snapshot.position)).arg(&snapshot.token.0.to_be_bytes()[..]).arg(seal(&**snapshot));
    call.arg(below.map_or_else(Vec::new, |below| below.to_be_bytes().to_vec()));
    call.arg(BLOCK_BYTES);
    let stay = settled.items.iter().filter(|row| below.is_none_or(|below| row.ordinal < below));
    let clients: Vec<_> = stay.filter_map(|row| Some((row.client_id.as_ref()?, row.ordinal))).collect();
    call.arg(clients.len());
    for (id, ordinal) in clients {
        call.arg(id).arg(&ordinal.to_be_bytes()[..]);
    }
    for step in steps {
        let (how, Replacement { removed, added }) = match step {
            Step::Above(added) => ("above", Replacement { added, ..Replacement::default() }),
            Step::Replace(replacement) => ("replace", replacement),
        };
        call.arg(how).arg(removed.len());
        for first in removed {
            call.arg(&first.to_be_bytes()[..]);
        }
        call.arg(added.len()).arg(added);
    }
    let given = call.args_iter().len();
    match given {
        0..=ARGUMENTS_MAX => Ok(call),
        _ => Err(StoreError::Unavailable(format!("a compaction of {given} parts is more than Redis takes"))),
    }
}

pub fn answer(value: Value) -> Result<Answer, StoreError> {
    let Value::BulkString(said) = value else { return Err(unreadable("what a compaction answers")) };
    match &said[..] {
        b"ok" => Ok(Answer::Done),
        b"fenced" => Ok(Answer::Fenced),
        b"look" => Ok(Answer::Look),
        _ => match said.strip_prefix(b"type ") {
            Some(key) => Err(StoreError::Damaged(format!(
                "{} is of another type than this build writes: builds before it kept turns in a hash",
                String::from_utf8_lossy(key)
            ))),
            None => Err(unreadable("what a compaction answers")),
        },
    }
}
