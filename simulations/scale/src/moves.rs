//! How many shards move when a node joins or leaves, against the ideal: what the node gets, or had, and nothing else.

use crate::nodes::{name, names, placed};
use crate::summary::Summary;

/// Nodes that are tried, each by itself: a name decides what it gets. Of those that leave, all of a small cluster.
const TRIES: usize = 10;

#[derive(Clone, Debug, PartialEq)]
pub struct Moves {
    pub nodes: usize,
    /// Share of all shards that move as one more node joins; the ideal is 1/(n + 1).
    pub join: Summary,
    pub join_ideal: f64,
    /// The same as one leaves; the ideal is 1/n.
    pub leave: Summary,
    pub leave_ideal: f64,
    /// Of them those that go from one node that stays to another that stays, in all tries.
    pub between_others: Summary,
}

pub fn moves(nodes: usize, shards: u32, fullest_percent: u32) -> Moves {
    let all = names(nodes);
    let before = placed(&all, shards, fullest_percent);
    let share = |moved: usize| moved as f64 / f64::from(shards);
    let (mut join, mut leave, mut between_others) = (Vec::new(), Vec::new(), Vec::new());
    for joiner in nodes..nodes + TRIES {
        let after = placed(&[all.clone(), vec![name(joiner)]].concat(), shards, fullest_percent);
        let moved = before.iter().zip(&after).filter(|(before, after)| before != after);
        between_others.push(share(moved.clone().filter(|(_, after)| **after != nodes).count()));
        join.push(share(moved.count()));
    }
    for leaver in (0..nodes).step_by(nodes.div_ceil(TRIES)) {
        let mut rest = all.clone();
        rest.remove(leaver);
        let after =
            placed(&rest, shards, fullest_percent).into_iter().map(|owner| owner + usize::from(owner >= leaver));
        let moved: Vec<usize> = before.iter().zip(after).filter(|(b, a)| *b != a).map(|(b, _)| *b).collect();
        between_others.push(share(moved.iter().filter(|before| **before != leaver).count()));
        leave.push(share(moved.len()));
    }
    let (join_ideal, leave_ideal) = (1.0 / (nodes + 1) as f64, 1.0 / nodes as f64);
    let [join, leave, between_others] = [join, leave, between_others].map(Summary::of);
    Moves { nodes, join, join_ideal, leave, leave_ideal, between_others }
}
