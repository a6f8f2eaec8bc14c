//! How many shards move when a node joins or leaves, against the ideal: what the node gets, or had, and nothing else.

use klatch_protocol::ids::SHARDS;

use crate::nodes::{name, names, owners};
use crate::summary::Summary;

/// Joiners that are tried, each by itself: a name decides what it gets.
const JOINERS: usize = 20;
/// Leavers that are tried: all, or every so-manieth of a large cluster.
const LEAVERS: usize = 20;

#[derive(Clone, Debug, PartialEq)]
pub struct Moves {
    pub nodes: usize,
    /// Share of all shards that move as one more node joins; the ideal is 1/(n + 1).
    pub join: Summary,
    pub join_ideal: f64,
    /// The same as one leaves; the ideal is 1/n.
    pub leave: Summary,
    pub leave_ideal: f64,
    /// Shards that went from one node that stays to another that stays, in all tries together.
    pub between_others: usize,
}

pub fn moves(nodes: usize) -> Moves {
    let shards = || 0..SHARDS;
    let all = names(nodes);
    let before = owners(&all, shards());
    let share = |moved: usize| moved as f64 / f64::from(SHARDS);
    let mut between_others = 0;
    let joined = (nodes..nodes + JOINERS).map(|joiner| {
        let after = owners(&[all.clone(), vec![name(joiner)]].concat(), shards());
        let moved = before.iter().zip(&after).filter(|(before, after)| before != after);
        between_others += moved.clone().filter(|(_, after)| **after != nodes).count();
        share(moved.count())
    });
    let join = Summary::of(joined.collect::<Vec<_>>());
    let left = (0..nodes).step_by(nodes.div_ceil(LEAVERS)).map(|leaver| {
        let mut rest = all.clone();
        rest.remove(leaver);
        let after = owners(&rest, shards()).into_iter().map(|owner| owner + usize::from(owner >= leaver));
        let moved: Vec<usize> = before.iter().zip(after).filter(|(b, a)| *b != a).map(|(b, _)| *b).collect();
        between_others += moved.iter().filter(|before| **before != leaver).count();
        share(moved.len())
    });
    let leave = Summary::of(left.collect::<Vec<_>>());
    let (join_ideal, leave_ideal) = (1.0 / (nodes + 1) as f64, 1.0 / nodes as f64);
    Moves { nodes, join, join_ideal, leave, leave_ideal, between_others }
}
