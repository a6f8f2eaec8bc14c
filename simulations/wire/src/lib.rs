//! The wire of Klatch over simulated TCP (turmoil), in worlds made from a seed: several nodes, a Redis or a master with its
//! replica, and clients, each a host of its own, whose connections are cut, held, reset and slowed, and whose processes
//! crash.
//!
//! **Real**, as in production: the HTTP edge with its accept loop, connections and streams; auth; the actors; the client of
//! Redis with its lanes, batcher, pipelines, scripts and times; between nodes the lives, the listener, the handshake that
//! proves the secret, the mesh, the links and frames.
//!
//! **Not run here:** TLS; ractor_cluster ([`carrier`] says what stands for it), since it binds ports of its own and keeps
//! what is the process's; Redis itself ([`twin`]), and Redis Cluster; ops port, signals, drain; the system's TCP: no
//! segment is ever sent again. What is lost in a cut stays lost, so connections that are watched over are given up when the
//! cut is over at the latest, and others, such as those of clients, stay half-open until somebody gives up. A host that is
//! cut off refuses connections at once.
//!
//! **Checked:** each key is one turn; a stream has no hole and no repeat, is told the same each time, and is the stored
//! reply; a conversation has its turns in their order; each entry follows the one before it, and an epoch is one owner's;
//! in peace everything is answered. One seed is one process, and replays to the letter.
//!
//! Read in this order: what a seed decides; the network; the twin of Redis; what stands for ractor_cluster; the hosts; the
//! life of a world.

pub mod overheard;
pub mod plan;
pub mod planted;
pub mod shared;

pub mod clock;
pub mod net;

pub mod journal;
pub mod twin;

pub mod carrier;

pub mod client;
pub mod node;
pub mod responder;

pub mod life;
