//! All that is computed, in one go: everything for the page, or the quick part of it, which a test repeats.

use klatch_actors::membership::view::FULLEST_PERCENT;
use klatch_protocol::ids::SHARDS;

use crate::balance::{self, Balance, Population};
use crate::bounds::{Bounded, WorstJoin, bounds, worst_join};
use crate::mesh::{Mesh, mesh};
use crate::moves::{Moves, moves};
use crate::recovery::{Loss, Outcome, Scenario};

pub const SEED: u64 = 1;
pub const SIZES: [usize; 5] = [10, 30, 100, 300, 1_000];
pub const CONVERSATIONS: u64 = 100_000_000;
/// A cell's size, and that of the cluster that is cut into [`balance::CELLS`] of them.
pub const CELL_NODES: usize = 100;
pub const WHOLE_NODES: usize = balance::CELLS * CELL_NODES;
/// Limits of recoveries at once that are compared.
pub const LIMITS: [usize; 5] = [1, 2, 4, 64, 1_024];

const LOSSES: [Loss; 3] = [Loss::OneKilled, Loss::OneVanished, Loss::ThirdVanished];

pub struct Results {
    /// Shards alone.
    pub shards: Vec<Balance>,
    pub bounds: Vec<Bounded>,
    pub worst_join: WorstJoin,
    pub moves: Vec<Moves>,
    pub meshes: Vec<Mesh>,
    pub outcomes: Vec<Outcome>,
    /// A third of a cell's nodes lost, with each of [`LIMITS`].
    pub limited: Vec<Outcome>,
    /// None in the quick part.
    pub populated: Option<Populated>,
}

/// What takes all the conversations.
pub struct Populated {
    pub clusters: Vec<Balance>,
    pub cells: Balance,
    pub top_share: [f64; 3],
}

impl Results {
    pub fn full() -> Self {
        let population = Population::new(CONVERSATIONS, SEED);
        let clusters = SIZES.map(|nodes| balance::one_cluster(&population, nodes));
        let cells = balance::in_cells(&population, WHOLE_NODES);
        let populated = Populated { clusters: clusters.into(), cells, top_share: population.top_share };
        Self { populated: Some(populated), ..Self::of(&SIZES) }
    }

    /// The same numbers for the smaller clusters.
    pub fn quick() -> Self {
        Self::of(&SIZES[..3])
    }

    fn of(sizes: &[usize]) -> Self {
        let nobody = Population::new(0, SEED);
        let moves = |nodes: usize| moves(nodes, u32::from(SHARDS), FULLEST_PERCENT);
        let lost = |nodes: usize| LOSSES.map(|loss| Scenario::new(nodes, loss, SEED).run());
        let third = Scenario::new(CELL_NODES, Loss::ThirdVanished, SEED);
        let limited = |recoveries_at_once| Scenario { recoveries_at_once, ..third }.run();
        Self {
            // All sizes: it is soon done, and says most.
            shards: SIZES.iter().map(|nodes| balance::one_cluster(&nobody, *nodes)).collect(),
            bounds: sizes.iter().flat_map(|nodes| bounds(*nodes)).collect(),
            worst_join: worst_join(CELL_NODES),
            moves: sizes.iter().map(|nodes| moves(*nodes)).collect(),
            meshes: SIZES.iter().map(|nodes| mesh(*nodes)).collect(),
            outcomes: sizes.iter().flat_map(|nodes| lost(*nodes)).collect(),
            limited: LIMITS.iter().map(|limit| limited(*limit)).collect(),
            populated: None,
        }
    }

    pub fn outcome(&self, nodes: usize, loss: Loss) -> Option<&Outcome> {
        self.outcomes.iter().find(|outcome| outcome.scenario.nodes == nodes && outcome.scenario.loss == loss)
    }
}
