//! Scale on paper: how shards and turns spread over 10 to 1,000 nodes, what moves when a node comes or goes, and how a
//! cluster recovers from losing some. Coarse where `simulations/world` is exact: no actor runs here, and no socket.
//!
//! What the nodes decide is decided by their own code: placement by `membership::view`, the shard of a conversation by its id,
//! who is dead by `membership::decide`, with the runtime's limits. What a command costs Redis is an input, measured, in
//! [`inputs`]. Time is simulated, and every number follows from a seed.
//!
//! Deliberately not here: Redis' replication and failover, the responders, the HTTP edge, slow networks.

pub mod inputs;

pub mod balance;
pub mod bounds;
pub mod mesh;
pub mod moves;
pub mod recovery;

pub mod dice;
pub mod nodes;
pub mod page;
pub mod plots;
pub mod redis;
pub mod results;
pub mod summary;
