//! All that was measured or assumed, each with its unit and where it is from. The runtime's own constants are not here:
//! they are imported where they are used.
//!
//! *Measured*: Redis 7.0.15 on loopback, one core of an AMD EPYC, `redis-benchmark` with 16 connections and no
//! pipelining, CPU of the server (`INFO cpu`, user and system) divided by the commands. Pipelining, which the nodes'
//! batchers do, makes short commands cheaper; these costs are therefore on the careful side.

/// A table's script costs so much, and so much more for each row, in µs. Measured with the scripts of this repository
/// at 10, 100 and 1,000 rows: 14.9, 38.9, 286 µs (beat) and 15.4, 53.6, 438 µs (read).
pub const BEAT_US: (f64, f64) = (12.2, 0.274);
pub const READ_VIEW_US: (f64, f64) = (11.2, 0.427);
/// Bytes that they answer, and more for each row. Measured: 28,809 and 136,809 bytes at 1,000 rows of a StatefulSet's
/// names and addresses.
pub const BEAT_BYTES: (f64, f64) = (9.0, 28.8);
pub const READ_VIEW_BYTES: (f64, f64) = (9.0, 136.8);
/// For each that is buried: as a beat of a table of one. Assumed from the above.
pub const BURY_US: f64 = 13.0;

/// Measured: a log of 33 entries, 12 KB (`XRANGE`).
pub const READ_LOG_US: f64 = 18.2;
pub const READ_LOG_BYTES: f64 = 12_000.0;
/// Measured: the last entry (`XREVRANGE … COUNT 1`).
pub const LOG_END_US: f64 = 8.0;
/// Measured: an entry of 300 bytes (`XADD`), alone...
pub const APPEND_US: f64 = 8.5;
/// ...and in pipelines of 16, as the batchers write while tokens stream: 2.3 µs measured, and 6 assumed here for
/// pipelines that are shorter.
pub const STREAMED_APPEND_US: f64 = 6.0;
/// Measured: a page of an `open` set (`ZRANGEBYLEX`), and more for each row: 8.0, 14.5 and 15.9 µs at 1, 100 and 256 rows.
pub const READ_OPEN_US: (f64, f64) = (8.0, 0.04);
pub const READ_OPEN_ROW_BYTES: f64 = 23.0;

/// Assumed: one way between a node and Redis, or between two nodes, in one building, in µs.
pub const ONE_WAY_US: u64 = 100;
/// Assumed: a node's own time to fold a log and start the conversation, in µs; a whole turn costs it 156 (README).
pub const ACTIVATE_US: u64 = 150;
/// Placement looks at each node for each shard, once for each view, in µs. Measured in a release build, for 3 to 1,000 nodes:
/// 9 to 12 ns, so 1.0 ms for 100 nodes and 10 for 1,000.
pub const PLACE_US: f64 = 0.011;
/// Requests to a vanished host hang until three beats of its link, one a second, had no answer: `SUSPECT_AFTER_BEATS` of
/// the nodes' transport, in µs.
pub const SUSPECT_US: u64 = 3_000_000;
pub const LINK_BEAT_US: usize = 1_000_000;
/// A vanished host says nothing to who knocks: `KNOCK_MAX` of the nodes' transport, in µs.
pub const KNOCK_US: u64 = 500_000;

/// Assumed load, for each node of the cluster on average; whoever owns more shards has more of it.
pub const TURNS_PER_NODE: f64 = 10.0;
/// Assumed: a turn streams for so long, in s, in so many appends a second.
pub const TURN_SECS: f64 = 10.0;
pub const APPENDS_PER_OPEN_TURN: f64 = 25.0;
/// Assumed: conversations in memory for each node on average: each stays `idle_after` (5 min) behind its last turn.
pub const IN_MEMORY_PER_NODE: f64 = 3_000.0;
/// Assumed: this share of turns meets a conversation in memory.
pub const WARM_SHARE: f64 = 0.8;
/// Assumed: one Redis primary for so many nodes; more than one are a Redis Cluster. The table of nodes lies on one.
pub const NODES_PER_PRIMARY: usize = 10;

/// Measured on loopback with calls of 200 bytes over ractor_cluster, 64 in flight: 11 to 16 µs of CPU on each side.
pub const CALL_US: f64 = 13.0;
/// Read in the code: each node's read buffer per session, in bytes; and assumed for TLS and actors.
pub const SESSION_BYTES: f64 = 65_536.0 + 40_000.0;
/// Read in the code: a heartbeat a second from each end of a session, and what tenants spent four times a second.
pub const SAID_PER_SECOND: f64 = 1.0 + 4.0;

/// What a command costs with so many rows.
pub fn with_rows((base, each): (f64, f64), rows: usize) -> f64 {
    base + each * rows as f64
}

/// Share of a primary's time that goes to turns that stream, and to conversations that come back to memory.
pub fn streaming_share(nodes: usize) -> f64 {
    let nodes_each = nodes as f64 / primaries(nodes) as f64;
    let appends = TURNS_PER_NODE * TURN_SECS * APPENDS_PER_OPEN_TURN * STREAMED_APPEND_US;
    let cold = TURNS_PER_NODE * (1.0 - WARM_SHARE) * ACTIVATION_US;
    nodes_each * (appends + cold) / 1e6
}

/// Of all commands of an activation, see `recovery`.
const ACTIVATION_US: f64 = 2.0 * READ_LOG_US + 2.0 * LOG_END_US + 2.0 * APPEND_US;

pub fn primaries(nodes: usize) -> usize {
    nodes.div_ceil(NODES_PER_PRIMARY)
}
