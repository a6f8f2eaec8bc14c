//! What happens after nodes are lost: a discrete-event simulation, seeded. Each node runs the runtime's own membership;
//! the rest follows what the runtime does:
//!
//! - each node beats in its own phase; all that stood still are buried, and each burial is a new view;
//! - with each view that lost somebody a node reads the `open` sets of its shards, one after another, those that it got
//!   first, and activates what is open there, at most `recoveries_at_once` at a time;
//! - a conversation with no open turn waits for its next message (Poisson); that waits for a new owner, or is served
//!   where it is after `SERVE_HERE_AFTER`;
//! - an activation is six commands, one after another: the log (is a turn open, whose?), its end, its end once more for the
//!   connection's first entry, the claim, the log, and the turn's own first entry.
//!
//! Not here: turns that end while their owner is dead, conversations that crash, and answers of Redis that get lost.

mod cluster;
mod outcome;
mod table;
mod take_up;

pub use outcome::Outcome;

use klatch_actors::Limits;

/// When the nodes die, after a time in which all beat, in ns.
pub const DEATH_NS: u64 = 4_000_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The process of the node that owns the most shards ends; its host refuses connections.
    OneKilled,
    /// The same node vanishes from the network.
    OneVanished,
    /// A third of the nodes vanishes, drawn at random: a zone.
    ThirdVanished,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scenario {
    pub nodes: usize,
    pub loss: Loss,
    pub recoveries_at_once: usize,
    pub seed: u64,
}

impl Scenario {
    pub fn new(nodes: usize, loss: Loss, seed: u64) -> Self {
        Self { nodes, loss, recoveries_at_once: Limits::default().recoveries_at_once, seed }
    }

    pub fn run(self) -> Outcome {
        cluster::run(self)
    }
}
