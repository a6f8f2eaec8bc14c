//! Several real nodes in one process, in a world made from a seed: their actors are those of production, and what they
//! stand on (store, table of nodes, peers, responders) fails as the seed says. Time stands still while anything can
//! happen, so minutes of it take milliseconds.
//!
//! One seed is one process: counters of the libraries below are global, and a seed must replay to the letter. The
//! program `run` starts one for each seed.
//!
//! Read in this order: what a seed decides, the twins of the boundaries, what is known of the truth, then the nodes, the
//! clients, and the life of a world.

pub mod dice;
pub mod entropy;
pub mod plan;
pub mod scenarios;

pub mod line;
pub mod peers;
pub mod planted;
pub mod redis;
pub mod responder;
pub mod store;
pub mod views;
pub mod webhooks;

pub mod journal;
pub mod ledger;
pub mod shared;

pub mod client;
pub mod ending;
pub mod life;
pub mod nodes;
