//! What must hold in every state, and what must be seen in some.
//!
//! The names are what a run prints. A property of the log is one of the log of the primary at any time; since a failover
//! may come at any time, what holds in every state holds for every later primary.

use stateright::Property;

use crate::Protocol;
use crate::owner::{Memory, Phase, Sending, Serving};
use crate::store::{Entry, Event, Place};
use crate::world::World;

pub const ONE_WRITER: &str = "an epoch has one writer";
pub const GAPLESS: &str = "the log has no hole";
pub const ACKNOWLEDGED_STAYS: &str = "an acknowledged turn stays in the log, unchanged";
pub const ONE_TURN_PER_KEY: &str = "a key is one turn";
pub const CALLED_ON_RECORD: &str = "a responder is called only by an owner whose attempt is on record";
pub const SHOWN_STAYS: &str = "what was shown is the beginning of what is stored";
pub const COMES_TO_AN_END: &str = "a run that comes to rest has ended every accepted turn";

pub const FENCED: &str = "a write is about to be fenced";
pub const LOST: &str = "a failover has lost an entry that nobody was told of";
pub const TAKEN_OVER: &str = "a turn is taken over in the middle of its answer";
pub const WRITTEN_AFTER_ALL: &str = "an append of unknown outcome was written after all";

pub const ALWAYS: [&str; 7] =
    [ONE_WRITER, GAPLESS, ACKNOWLEDGED_STAYS, ONE_TURN_PER_KEY, CALLED_ON_RECORD, SHOWN_STAYS, COMES_TO_AN_END];
pub const SOMETIMES: [&str; 4] = [FENCED, LOST, TAKEN_OVER, WRITTEN_AFTER_ALL];

pub fn all() -> Vec<Property<Protocol>> {
    vec![
        Property::always(ONE_WRITER, |_, world| one_writer(world)),
        Property::always(GAPLESS, |_, world: &World| gapless(&world.store.log)),
        Property::always(ACKNOWLEDGED_STAYS, |_, world| acknowledged_stays(world)),
        Property::always(ONE_TURN_PER_KEY, |_, world| one_turn_per_key(world)),
        Property::always(CALLED_ON_RECORD, |_, world| called_on_record(world)),
        Property::always(SHOWN_STAYS, |_, world| shown_stays(world)),
        Property::always(COMES_TO_AN_END, comes_to_an_end),
        Property::sometimes(FENCED, |protocol: &Protocol, world: &World| {
            world.store.requests.iter().any(|sent| world.store.refuses(protocol.variant, sent.entry.place.position))
        }),
        Property::sometimes(LOST, |_, world: &World| world.store.lost),
        Property::sometimes(TAKEN_OVER, |_, world: &World| taken_over(&world.store.log)),
        Property::sometimes(WRITTEN_AFTER_ALL, |_, world| written_after_all(world)),
    ]
}

fn one_writer(world: &World) -> bool {
    let log = &world.store.log;
    log.iter().enumerate().all(|(at, entry)| {
        let same_epoch = |other: &&Entry| other.place.position.epoch == entry.place.position.epoch;
        log[..at].iter().find(same_epoch).is_none_or(|other| other.place.token == entry.place.token)
    })
}

pub fn gapless(log: &[Entry]) -> bool {
    log.windows(2).all(|pair| pair[1].place.position.follows(pair[0].place.position))
}

fn acknowledged_stays(world: &World) -> bool {
    (0..).zip(&world.clients).all(|(key, client)| {
        let is_there = |place| {
            let accepts = |event| matches!(event, Event::TurnAccepted { key: accepted, .. } if accepted == key);
            world.store.log.iter().any(|entry| entry.place == place && accepts(entry.event))
        };
        client.accepted.iter().copied().all(is_there)
    })
}

fn one_turn_per_key(world: &World) -> bool {
    (0..world.clients.len()).all(|client| {
        let accepts =
            |entry: &&Entry| matches!(entry.event, Event::TurnAccepted { key, .. } if usize::from(key) == client);
        world.store.log.iter().filter(accepts).count() <= 1
    })
}

fn called_on_record(world: &World) -> bool {
    world.calls.iter().all(|&(token, called)| {
        world.store.log.iter().any(|entry| {
            let attempts = match entry.event {
                Event::TurnAccepted { key, attempt } => attempt && key == called,
                Event::AttemptStarted { key } => key == called,
                Event::Claimed | Event::Text { .. } | Event::TurnEnded { .. } => false,
            };
            attempts && entry.place.token == token
        })
    })
}

fn shown_stays(world: &World) -> bool {
    let stored = Memory::replay(&world.store.log);
    (0..).zip(&world.clients).all(|(key, client)| {
        let nothing = client.shown.is_empty() && !client.ended;
        let stands = || {
            stored.turn(key).is_some_and(|turn| {
                turn.text.starts_with(&client.shown) && (!client.ended || (turn.ended && turn.text == client.shown))
            })
        };
        !client.contradicted && (nothing || stands())
    })
}

/// At rest: nothing more happens but by another fault.
fn comes_to_an_end(protocol: &Protocol, world: &World) -> bool {
    Memory::replay(&world.store.log).open().is_none() || !world.is_at_rest(protocol)
}

fn taken_over(log: &[Entry]) -> bool {
    log.iter().enumerate().any(|(at, entry)| {
        matches!(entry.event, Event::AttemptStarted { key } if log[..at].iter().any(|before| before.event == Event::Text { key }))
    })
}

fn written_after_all(world: &World) -> bool {
    let stands = |place: Place| world.store.log.iter().any(|entry| entry.place == place);
    world.owners.iter().filter(|owner| owner.sending() == Some(Sending::Unknown)).any(|owner| match &owner.phase {
        Phase::Claiming { claim, .. } => stands(*claim),
        Phase::Serving(Serving { in_flight: Some(append), .. }) => stands(append.entry.place),
        Phase::Looking | Phase::Claimed { .. } | Phase::Serving(_) => false,
    })
}
