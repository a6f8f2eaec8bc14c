//! What every single entry of a log must be, at the moment at which the master takes it: gapless, under rising epochs, and
//! each epoch one owner's.

use klatch_protocol::envelope;
use klatch_protocol::{Entry, Event, Position};

use crate::shared::Shared;
use crate::twin::data::{Added, Bytes, StreamId};

pub fn check(shared: &Shared, added: &Added) {
    shared.trace(format_args!("log {} {}-{}", String::from_utf8_lossy(&added.key), added.id.0, added.id.1));
    if !shared.checks_logs {
        return;
    }
    if let Err(why) = follows(shared, added) {
        let key = String::from_utf8_lossy(&added.key);
        shared.fail(format_args!("{key} at {}-{}: {why}", added.id.0, added.id.1));
    }
}

fn follows(shared: &Shared, added: &Added) -> Result<(), String> {
    let entry = entry(added.id, &added.fields)?;
    let is_claim = matches!(entry.events.first(), Some(Event::Claimed { .. }));
    match entry.events.first() {
        Some(Event::Snapshot(_)) => shared.count("compactions", 1),
        Some(Event::Claimed { .. }) if added.before.is_some() => shared.count("claims", 1),
        _ => {}
    }
    let Some((id, fields)) = &added.before else {
        return if entry.position == Position::default().claim() { Ok(()) } else { Err("a log began late".into()) };
    };
    let before = self::entry(*id, fields)?;
    if entry.position == before.position.next() {
        return if entry.token == before.token { Ok(()) } else { Err("two owners wrote in one epoch".into()) };
    }
    match (entry.position == before.position.claim(), is_claim) {
        (true, true) => Ok(()),
        (true, false) => Err("an epoch began without a claim".into()),
        (false, _) => Err(format!("the log had ended at {}-{}", id.0, id.1)),
    }
}

fn entry(id: StreamId, fields: &[Bytes]) -> Result<Entry, String> {
    let [.., sealed] = fields else { return Err("it has no fields".into()) };
    let entry: Entry = envelope::open(sealed).map_err(|error| error.to_string())?;
    if (entry.position.epoch, entry.position.seq) != id {
        return Err("it says that it stands elsewhere".into());
    }
    Ok(entry)
}
