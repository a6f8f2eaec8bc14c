//! What a full mesh and its heartbeats cost, by arithmetic on the inputs: nothing here waits for anything.

use klatch_actors::membership::decide::BEAT_EVERY_MS;

use crate::inputs::{self, with_rows};

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mesh {
    pub nodes: usize,
    pub sessions: usize,
    pub session_megabytes_per_node: f64,
    /// Share of a core, of each node, for beats and tellings between nodes; both ends of a call.
    pub core_per_node: f64,
    /// Heartbeats to Redis, as many as the nodes want to send.
    pub beats_per_second: f64,
    /// Share of the time of the one primary that holds the table; above 1 it cannot keep up.
    pub beats_of_primary: f64,
    pub beats_megabytes_per_second: f64,
    /// What one change of the view costs this primary, in ms: all nodes read the table.
    pub change_ms: f64,
    pub change_megabytes: f64,
    /// To all primaries, a writer and a reader each.
    pub connections_per_primary: usize,
}

pub fn mesh(nodes: usize) -> Mesh {
    let n = nodes as f64;
    let beats_per_second = n * 1e3 / BEAT_EVERY_MS as f64;
    Mesh {
        nodes,
        sessions: nodes * (nodes - 1) / 2,
        session_megabytes_per_node: (n - 1.0) * inputs::SESSION_BYTES / 1e6,
        core_per_node: (n - 1.0) * inputs::SAID_PER_SECOND * 2.0 * inputs::CALL_US / 1e6,
        beats_per_second,
        beats_of_primary: beats_per_second * with_rows(inputs::BEAT_US, nodes) / 1e6,
        beats_megabytes_per_second: beats_per_second * with_rows(inputs::BEAT_BYTES, nodes) / 1e6,
        change_ms: n * with_rows(inputs::READ_VIEW_US, nodes) / 1e3,
        change_megabytes: n * with_rows(inputs::READ_VIEW_BYTES, nodes) / 1e6,
        connections_per_primary: 2 * nodes,
    }
}

/// The largest cluster whose heartbeats take at most this share of the table's primary.
pub fn largest(share: f64) -> usize {
    (2..10_000).take_while(|nodes| mesh(*nodes).beats_of_primary <= share).last().unwrap_or(1)
}
