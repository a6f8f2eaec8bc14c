//! How evenly shards, conversations and turns lie on the nodes.
//!
//! Conversations are not sampled: as many random ids as are asked for are made, and each is put into its shard by the
//! runtime's own hash. Conversation number k has k^-s of the turns (Zipf); s = 0 is the same for all.

use klatch_protocol::ConversationId;
use klatch_protocol::ids::SHARDS;

use crate::dice::Dice;
use crate::nodes::{cell_names, names, owners};
use crate::summary::Summary;

/// Exponents of the skewed loads.
pub const SKEWS: [f64; 3] = [0.5, 0.8, 1.0];
/// Clusters side by side, each with all the shards.
pub const CELLS: usize = 10;
/// What lies in one shard, or on one node.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Weight {
    pub shards: f64,
    pub conversations: f64,
    /// Turns, in the order of [`SKEWS`].
    pub turns: [f64; 3],
}

impl Weight {
    fn add(&mut self, other: &Self) {
        self.shards += other.shards;
        self.conversations += other.conversations;
        for (mine, its) in self.turns.iter_mut().zip(other.turns) {
            *mine += its;
        }
    }
}

/// All conversations, by cell and shard.
pub struct Population {
    pub conversations: u64,
    cells: Vec<Vec<Weight>>,
    /// Share of all turns that the most used conversation has, in the order of [`SKEWS`].
    pub top_share: [f64; 3],
}

impl Population {
    pub fn new(conversations: u64, seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let mut cells = vec![vec![Weight { shards: 1.0, ..Weight::default() }; usize::from(SHARDS)]; CELLS];
        let mut total = [0.0; 3];
        for rank in 1..=conversations {
            let id = ConversationId(dice.bytes());
            let weight = &mut cells[cell_of(&id)][usize::from(id.shard().0)];
            weight.conversations += 1.0;
            for ((turns, total), skew) in weight.turns.iter_mut().zip(&mut total).zip(SKEWS) {
                let share = (rank as f64).powf(-skew);
                *turns += share;
                *total += share;
            }
        }
        Self { conversations, cells, top_share: total.map(|total| 1.0 / total) }
    }

    fn shard(&self, shard: usize) -> Weight {
        let mut all = Weight::default();
        self.cells.iter().for_each(|cell| all.add(&cell[shard]));
        Weight { shards: 1.0, ..all }
    }
}

/// The cell of a conversation, by the first two bytes of its id: random, and known to everybody who has the id.
pub fn cell_of(id: &ConversationId) -> usize {
    (usize::from(u16::from_be_bytes([id.0[0], id.0[1]])) * CELLS) >> 16
}

#[derive(Clone, Debug, PartialEq)]
pub struct Balance {
    pub nodes: usize,
    pub shards: Summary,
    pub without_shards: usize,
    pub conversations: Summary,
    /// In the order of [`SKEWS`].
    pub turns: [Summary; 3],
}

/// One cluster of so many nodes.
pub fn one_cluster(population: &Population, nodes: usize) -> Balance {
    let mut loads = vec![Weight::default(); nodes];
    for (shard, owner) in owners(&names(nodes)).into_iter().enumerate() {
        loads[owner].add(&population.shard(shard));
    }
    balance(&loads)
}

/// The same nodes as [`CELLS`] clusters.
pub fn in_cells(population: &Population, nodes: usize) -> Balance {
    let mut loads = Vec::new();
    for (cell, weights) in population.cells.iter().enumerate() {
        let mut its = vec![Weight::default(); nodes / CELLS];
        for (shard, owner) in owners(&cell_names(cell, nodes / CELLS)).into_iter().enumerate() {
            its[owner].add(&weights[shard]);
        }
        loads.extend(its);
    }
    balance(&loads)
}

fn balance(loads: &[Weight]) -> Balance {
    let of = |number: fn(&Weight) -> f64| Summary::of(loads.iter().map(number));
    Balance {
        nodes: loads.len(),
        shards: of(|load| load.shards),
        without_shards: loads.iter().filter(|load| load.shards == 0.0).count(),
        conversations: of(|load| load.conversations),
        turns: [of(|load| load.turns[0]), of(|load| load.turns[1]), of(|load| load.turns[2])],
    }
}
