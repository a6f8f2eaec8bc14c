//! The metrics of the connections to other nodes: names, label values, descriptions.

use metrics::{counter, describe_counter, describe_gauge, gauge};

const CONNECTED: &str = "klatch_peers_connected";
const LOST: &str = "klatch_peer_connections_lost_total";
const REFUSED: &str = "klatch_peer_handshakes_refused_total";

/// Tells the recorder what each metric means.
pub fn describe() {
    describe_gauge!(CONNECTED, "Other nodes that this one is connected to");
    describe_counter!(LOST, "Connections to other nodes that ended");
    describe_counter!(
        REFUSED,
        "Connections that did not prove to come from a node: wrong secret, certificate, or silence"
    );
}

pub fn connected(peers: usize) {
    gauge!(CONNECTED).set(peers as f64);
}

pub fn lost() {
    counter!(LOST).increment(1);
}

pub fn refused() {
    counter!(REFUSED).increment(1);
}
