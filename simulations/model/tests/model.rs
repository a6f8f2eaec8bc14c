//! The protocol keeps its promises in every order of events within the small bound; with one thing left out it does not.

use std::collections::HashMap;

use klatch_model::Protocol;
use klatch_model::bounds::{Bound, Bounds};
use klatch_model::properties::{
    ACKNOWLEDGED_STAYS, ALWAYS, COMES_TO_AN_END, GAPLESS, ONE_TURN_PER_KEY, ONE_WRITER, SHOWN_STAYS, SOMETIMES,
};
use klatch_model::search::{Found, search};
use klatch_model::variants::Variant;
use klatch_model::world::World;
use stateright::Model;

fn small() -> Bounds {
    Bound::small()
}

fn searched(variant: Variant, bounds: Bounds, until: &[&'static str]) -> Found {
    search(Protocol { variant, bounds }, until, 1, |_| {})
}

/// A run that ends the search is the first that breaks anything of what is asked.
fn breaks(variant: Variant, property: &'static str) {
    assert_eq!(variant.breaks(), Some(property), "the program searches for it too");
    let found = searched(variant, small(), &[property]);
    let run = found.runs.get(property).unwrap_or_else(|| panic!("{variant:?} keeps \"{property}\""));
    let holds = Protocol { variant, bounds: small() }.property(property).condition;
    assert!(!holds(&Protocol { variant, bounds: small() }, &run.end), "{run:?}");
}

fn keeps_everything_and_shows(bounds: Bounds, seen: &[&'static str]) -> Found {
    let found = searched(Variant::Correct, bounds, &ALWAYS);
    assert_eq!(found.broken(), Vec::<&str>::new(), "{:#?}", found.runs);
    for property in seen {
        assert!(found.runs.contains_key(property), "never seen: {property}");
    }
    found
}

#[test]
fn the_protocol_keeps_every_promise_over_steals_failovers_and_lost_connections() {
    let found = keeps_everything_and_shows(small(), &SOMETIMES);
    assert!(found.states > 50_000, "so few states are not all: {}", found.states);
}

#[test]
fn the_protocol_keeps_every_promise_over_crashes() {
    keeps_everything_and_shows(Bounds { steals: 0, breaks: 0, crashes: 2, ..small() }, &SOMETIMES[1..]);
}

#[test]
fn two_turns_in_one_queue_are_each_answered_once() {
    keeps_everything_and_shows(Bounds { clients: 2, submits: 1, breaks: 0, ..small() }, &[]);
}

#[test]
fn without_a_fence_the_log_gets_a_hole() {
    breaks(Variant::NoFence, GAPLESS);
}

#[test]
fn a_claim_that_is_not_waited_for_shows_what_a_failover_takes_back() {
    breaks(Variant::ClaimNotReplicated, ACKNOWLEDGED_STAYS);
}

#[test]
fn to_acknowledge_before_it_is_durable_promises_what_is_lost() {
    breaks(Variant::AcknowledgedBeforeDurable, ACKNOWLEDGED_STAYS);
}

#[test]
fn to_read_before_the_claim_makes_two_turns_of_one_key() {
    breaks(Variant::ReadBeforeClaim, ONE_TURN_PER_KEY);
}

#[test]
fn without_a_look_on_a_new_connection_a_log_that_went_back_gets_a_hole() {
    breaks(Variant::NoLookOnNewConnection, GAPLESS);
}

#[test]
fn without_a_look_at_the_key_a_repeated_turn_is_two() {
    breaks(Variant::NoIdempotencyCheck, ONE_TURN_PER_KEY);
}

#[test]
fn by_its_epoch_alone_an_owner_takes_the_claim_of_another_for_its_own() {
    breaks(Variant::EpochWithoutToken, ONE_WRITER);
}

#[test]
fn in_durability_primary_a_failover_loses_acknowledged_turns() {
    breaks(Variant::Primary, ACKNOWLEDGED_STAYS);
}

#[test]
fn in_durability_primary_the_log_is_still_in_order() {
    let bounds = Bounds { breaks: 0, submits: 1, ..small() };
    let found = searched(Variant::Primary, bounds, &[ONE_WRITER, GAPLESS, ONE_TURN_PER_KEY, COMES_TO_AN_END]);
    let broken = found.broken();
    for kept in [ONE_WRITER, GAPLESS, ONE_TURN_PER_KEY, COMES_TO_AN_END] {
        assert!(!broken.contains(&kept), "{:#?}", found.runs[kept]);
    }
    assert!(broken.contains(&SHOWN_STAYS), "what was shown may be lost too");
}

/// Else a run could go on for ever without an end, and that each run that comes to rest has ended its turns would say
/// nothing about it.
#[test]
fn no_run_goes_in_a_circle() {
    let protocol = Protocol { variant: Variant::Correct, bounds: Bounds { submits: 1, ..small() } };
    let mut finished: HashMap<World, bool> = HashMap::new();
    let mut path = vec![(protocol.init_states().remove(0), None::<Vec<World>>)];
    while let Some((world, after)) = path.last_mut() {
        let after = match after {
            Some(after) => after,
            None => {
                finished.insert(world.clone(), false);
                after.insert(protocol.next_states(world))
            }
        };
        match after.pop() {
            Some(next) => match finished.get(&next) {
                Some(finished) => assert!(finished, "a circle through {next:?}"),
                None => path.push((next, None)),
            },
            None => {
                finished.insert(world.clone(), true);
                path.pop();
            }
        }
    }
    assert!(finished.len() > 10_000, "so few states are not all: {}", finished.len());
}
