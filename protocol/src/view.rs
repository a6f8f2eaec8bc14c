//! The view as it is kept and shown: a numbered table of nodes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewTable {
    /// Rises with every change.
    pub number: u64,
    /// By name.
    pub rows: BTreeMap<String, Row>,
}

/// One node's row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Of this life of the node: a restart is another member of the same name, with a higher number.
    pub incarnation: u64,
    /// `host:port` where other nodes connect.
    pub address: String,
    pub status: MemberStatus,
    /// The newest envelope format that it reads: nothing newer is written while it is there.
    pub format: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberStatus {
    /// Its ports are not open yet: it owns nothing.
    Joining,
    Up,
    /// It gives everything away: it owns nothing.
    Leaving,
}
