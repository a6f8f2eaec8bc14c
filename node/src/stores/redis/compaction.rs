//! A compaction as one script. Rows to be hidden are read before: what is read holds as long as the log ends where it is
//! expected to, since only appends and compactions change a conversation and both move its end. The script looks at the
//! end first.

use std::collections::BTreeMap;

use ::redis::{Cmd, Value};
use klatch_actors::store::{Compaction, Order, StoreError, hidden};
use klatch_protocol::ConversationId;
use klatch_protocol::envelope::seal;
use klatch_protocol::state::ItemRow;

use super::keys::{Keys, entry_id, excluding, including, number_and_rest, numbered, unseal};
use super::read::{members, page_command, unreadable};
use super::scripts::Script;

/// Redis takes no more arguments in a command than 1,048,576.
const ARGUMENTS_MAX: usize = 1_000_000;

/// Reads one row; there is none for an item that is inherited.
pub fn row_command(keys: &Keys, conversation: ConversationId, ordinal: u64) -> Cmd {
    let low = including(&ordinal.to_be_bytes());
    let high = ordinal.checked_add(1).map_or_else(|| b"+".to_vec(), |next| excluding(&next.to_be_bytes()));
    page_command(&keys.items(conversation), &low, &high, Order::Ascending, 1)
}

pub fn row(value: Value) -> Result<Option<ItemRow>, StoreError> {
    Ok(members(value, |member| unseal(number_and_rest(member)?.1))?.pop())
}

/// The script's call; `found` are the rows to be hidden that are in the list already.
pub fn call(
    keys: &Keys,
    conversation: ConversationId,
    compaction: &Compaction,
    mut found: BTreeMap<u64, ItemRow>,
) -> Result<Cmd, StoreError> {
    let Compaction { expected, snapshot, settled, clear_but_items_below } = compaction;
    let mut rows: BTreeMap<u64, ItemRow> = settled.items.iter().map(|row| (row.ordinal, row.clone())).collect();
    let clients = settled.items.iter().filter_map(|row| Some((row.client_id.as_ref()?, row.ordinal)));
    let clients: Vec<_> = clients.collect();
    for (ordinal, version, keep) in &settled.hide {
        let row = rows.remove(ordinal).or_else(|| found.remove(ordinal));
        rows.insert(*ordinal, hidden(row, *ordinal, *version, *keep));
    }
    let names =
        [keys.log(conversation), keys.items(conversation), keys.clients(conversation), keys.turns(conversation)];
    let mut call = Script::Compact.call(&names);
    call.arg(entry_id(expected.position)).arg(&expected.token.0.to_be_bytes()[..]);
    call.arg(entry_id(snapshot.position)).arg(&snapshot.token.0.to_be_bytes()[..]).arg(seal(&**snapshot));
    call.arg(clear_but_items_below.map_or_else(Vec::new, |below| below.to_be_bytes().to_vec()));
    call.arg(rows.len());
    for (ordinal, row) in &rows {
        call.arg(&ordinal.to_be_bytes()[..]).arg(numbered(*ordinal, &seal(row)));
    }
    call.arg(clients.len());
    for (id, ordinal) in clients {
        call.arg(id).arg(&ordinal.to_be_bytes()[..]);
    }
    call.arg(settled.turns.len());
    for turn in &settled.turns {
        call.arg(&turn.accepted.turn.to_be_bytes()[..]).arg(seal(turn));
    }
    call.arg(settled.drop_turns.len());
    for turn in &settled.drop_turns {
        call.arg(&turn.to_be_bytes()[..]);
    }
    let given = call.args_iter().len();
    match given {
        0..=ARGUMENTS_MAX => Ok(call),
        _ => Err(StoreError::Unavailable(format!("a compaction of {given} parts is more than Redis takes"))),
    }
}

/// Whether it was done, or refused.
pub fn done(value: Value) -> Result<bool, StoreError> {
    match value {
        Value::BulkString(said) if said == b"ok" => Ok(true),
        Value::BulkString(said) if said == b"fenced" => Ok(false),
        _ => Err(unreadable("what a compaction answers")),
    }
}
