//! Worlds written by hand: a plan each, for what the draws of seeds meet too seldom, or what somebody wants to see. Clients,
//! checks and the end are those of every world.

use std::time::Duration;

use crate::plan::Disturbance::{Crash, CutApart, CutFromStore, Freeze, RollingRestart};
use crate::plan::Plan;

/// By name, and made for a seed, from which the clients and all that is not said here follow.
pub type Scenario = (&'static str, fn(u64) -> Plan);

pub const ALL: [Scenario; 4] = [
    ("peace", peace),
    ("owners-crash-in-turn", owners_crash_in_turn),
    ("a-frozen-node-thaws", a_frozen_node_thaws),
    ("rolling-restart-under-partition", rolling_restart_under_partition),
];

/// None where there is no such scenario.
pub fn named(name: &str, seed: u64) -> Option<Plan> {
    ALL.iter().find(|(known, _)| *known == name).map(|(_, made)| made(seed))
}

fn peace(seed: u64) -> Plan {
    Plan::peaceful(seed, 3, Duration::from_secs(30))
}

/// Whoever owns a turn dies in the middle of it, and then its next owner.
fn owners_crash_in_turn(seed: u64) -> Plan {
    let mut plan = Plan::peaceful(seed, 3, Duration::from_secs(40));
    plan.faults.responder.pause = Duration::from_secs(3);
    plan.with(5, Crash, 0, 3).with(10, Crash, 1, 3).with(15, Crash, 2, 3).with(20, Crash, 0, 3)
}

/// It has been declared dead meanwhile, and what it wanted to write is refused.
fn a_frozen_node_thaws(seed: u64) -> Plan {
    Plan::peaceful(seed, 3, Duration::from_secs(40)).with(6, Freeze, 0, 8).with(18, Freeze, 1, 8).with(30, Freeze, 2, 4)
}

fn rolling_restart_under_partition(seed: u64) -> Plan {
    let plan = Plan::peaceful(seed, 4, Duration::from_secs(60));
    plan.with(4, CutApart, 0, 30).with(8, RollingRestart, 0, 0).with(12, CutFromStore, 2, 6)
}
