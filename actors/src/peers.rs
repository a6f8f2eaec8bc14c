//! The boundary to the other nodes of a cluster. What is said is opaque here: sealed bytes in, sealed bytes out.
//!
//! Production implements it over ractor_cluster, the simulator in memory; with an embedded store there are no peers.

#[cfg(any(test, feature = "testing"))]
pub mod memory;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

/// One life of one node. A restart has the same name and another incarnation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PeerId {
    pub name: Arc<str>,
    pub incarnation: u64,
}

/// Where a node is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    pub id: PeerId,
    /// `host:port` as the node itself tells it; resolved anew at every dial, since a restarted pod has a new address.
    pub address: String,
}

/// Named for what the caller can do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Nothing left this node: it can be sent elsewhere, or again.
    #[error("it was not sent: {0}")]
    NotSent(&'static str),
    /// It was sent, and no answer came in time, or the peer was lost: it may have been done.
    #[error("no answer came: {0}")]
    NoAnswer(&'static str),
}

pub trait Peers: Send + Sync + 'static {
    /// From now on these are the other nodes; connections are kept to all of them, and to nobody else.
    fn keep(&self, peers: Vec<PeerAddress>);

    /// This node has another incarnation now, and is another peer to everyone: sessions of the last one end.
    fn reborn(&self, incarnation: u64);

    /// Whether the peer's port refuses connections: then its host is there and the program is not. False where anything
    /// else happens, silence included. Ends within a second.
    fn refuses(&self, peer: &PeerAddress) -> BoxFuture<'static, bool>;

    /// Whether the peer answered lately.
    fn reaches(&self, peer: &PeerId) -> bool;

    /// Sends the request and waits for its answer, at most so long. A peer that dies, freezes or is cut off is noticed
    /// before a long deadline. Dropping the future does not take the request back.
    fn ask(&self, to: PeerId, request: Vec<u8>, deadline: Duration) -> BoxFuture<'static, Result<Vec<u8>, PeerError>>;
}

/// What this node does with what its peers ask. May be called many times at once; the answer's size and time are the
/// callee's affair, but it must end by itself.
pub trait Serve: Send + Sync + 'static {
    fn serve(&self, from: PeerId, request: Vec<u8>) -> BoxFuture<'static, Vec<u8>>;
}

/// The peers of a node that is alone.
pub struct NoPeers;

impl Peers for NoPeers {
    fn keep(&self, _: Vec<PeerAddress>) {}

    fn reborn(&self, _: u64) {}

    fn refuses(&self, _: &PeerAddress) -> BoxFuture<'static, bool> {
        Box::pin(std::future::ready(false))
    }

    fn reaches(&self, _: &PeerId) -> bool {
        false
    }

    fn ask(&self, _: PeerId, _: Vec<u8>, _: Duration) -> BoxFuture<'static, Result<Vec<u8>, PeerError>> {
        Box::pin(std::future::ready(Err(PeerError::NotSent("this node is alone"))))
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.name, self.incarnation)
    }
}
