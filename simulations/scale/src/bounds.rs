//! What the bound on the fullest node, and the number of shards, are chosen by: balance against what moves.

use klatch_actors::membership::view::FULLEST_PERCENT;
use klatch_protocol::ids::SHARDS;

use crate::moves::{Moves, moves};
use crate::nodes::{names, owners, placed};
use crate::summary::Summary;

/// Numbers of shards that are compared.
pub const SHARD_COUNTS: [u32; 2] = [1_024, 4_096];
/// Nobody is ever full: hashing alone.
pub const UNBOUNDED: u32 = u32::MAX;
/// Of the mean, so much at most is one node's, in percent.
pub const BOUNDS: [u32; 4] = [UNBOUNDED, FULLEST_PERCENT, 115, 110];

#[derive(Clone, Debug, PartialEq)]
pub struct Bounded {
    pub nodes: usize,
    pub shards: u32,
    pub fullest_percent: u32,
    pub owned: Summary,
    pub without_shards: usize,
    pub moves: Moves,
}

/// The worst join of all up to so many nodes, by the runtime's own bound: where that steps down by one shard, all that are
/// full give one away.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WorstJoin {
    /// Before it.
    pub nodes: usize,
    /// Share of all shards.
    pub moved: f64,
    pub ideal: f64,
}

pub fn worst_join(nodes_max: usize) -> WorstJoin {
    let place = |nodes| owners(&names(nodes));
    let mut before = place(1);
    let joins = (1..nodes_max).map(|nodes| {
        let after = place(nodes + 1);
        let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
        before = after;
        WorstJoin { nodes, moved: moved as f64 / f64::from(SHARDS), ideal: 1.0 / (nodes + 1) as f64 }
    });
    joins.max_by(|a, b| (a.moved / a.ideal).total_cmp(&(b.moved / b.ideal))).unwrap_or_default()
}

/// Every number of shards with every bound.
pub fn bounds(nodes: usize) -> Vec<Bounded> {
    let pairs = SHARD_COUNTS.iter().flat_map(|shards| BOUNDS.iter().map(|bound| (*shards, *bound)));
    pairs.map(|(shards, bound)| bounded(nodes, shards, bound)).collect()
}

fn bounded(nodes: usize, shards: u32, fullest_percent: u32) -> Bounded {
    let mut owned = vec![0.0; nodes];
    placed(&names(nodes), shards, fullest_percent).into_iter().for_each(|owner| owned[owner] += 1.0);
    let without_shards = owned.iter().filter(|owned| **owned == 0.0).count();
    let (owned, moves) = (Summary::of(owned), moves(nodes, shards, fullest_percent));
    Bounded { nodes, shards, fullest_percent, owned, without_shards, moves }
}
