//! The metrics of the connections to other nodes: names, label values, descriptions.

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

const CONNECTED: &str = "klatch_peers_connected";
const LOST: &str = "klatch_peer_connections_lost_total";
const REFUSED: &str = "klatch_peer_handshakes_refused_total";

const CERTIFICATE_ENDS: &str = "klatch_certificate_expiry_timestamp_seconds";

/// Values of the label `certificate`.
pub const NODE: &str = "node";
pub const AUTHORITY: &str = "authority";

/// Tells the recorder what each metric means.
pub fn describe() {
    describe_gauge!(CONNECTED, "Other nodes that this one is connected to");
    describe_counter!(LOST, "Connections to other nodes that ended");
    describe_counter!(
        REFUSED,
        "Connections that did not prove to come from a node: wrong secret, certificate, or silence"
    );
    describe_gauge!(
        CERTIFICATE_ENDS,
        Unit::Seconds,
        "When a certificate between nodes ends, in seconds since 1970, by certificate: node, authority"
    );
    // A counter that appears with its first event hides that event.
    for name in [LOST, REFUSED] {
        counter!(name).increment(0);
    }
    connected(0);
}

pub fn connected(peers: usize) {
    gauge!(CONNECTED).set(peers as f64);
}

pub fn certificate_ends(certificate: &'static str, at_secs: i64) {
    gauge!(CERTIFICATE_ENDS, "certificate" => certificate).set(at_secs as f64);
}

pub fn lost() {
    counter!(LOST).increment(1);
}

pub fn refused() {
    counter!(REFUSED).increment(1);
}
