//! All links of this node, by their ids and by their peers; frames that arrive are given to theirs.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use klatch_actors::peers::PeerId;
use klatch_protocol::envelope;
use klatch_protocol::frame::{FRAME_BYTES_MAX, Frame};

use super::link::Link;
use super::metrics;

/// All links of this node.
#[derive(Default)]
pub struct Links {
    by_id: RwLock<HashMap<u64, Arc<Link>>>,
    by_peer: RwLock<HashMap<PeerId, Arc<Link>>>,
}

impl Links {
    pub fn add(&self, link: Arc<Link>) {
        let mut by_peer = self.by_peer.write().unwrap_or_else(PoisonError::into_inner);
        by_peer.insert(link.peer.clone(), link.clone());
        metrics::connected(by_peer.len());
        drop(by_peer);
        self.by_id.write().unwrap_or_else(PoisonError::into_inner).insert(link.id, link);
    }

    /// A newer link of the same peer stays.
    pub fn remove(&self, id: u64) {
        let Some(link) = self.by_id.write().unwrap_or_else(PoisonError::into_inner).remove(&id) else { return };
        let mut by_peer = self.by_peer.write().unwrap_or_else(PoisonError::into_inner);
        if by_peer.get(&link.peer).is_some_and(|newest| newest.id == id) {
            by_peer.remove(&link.peer);
        }
        metrics::connected(by_peer.len());
        drop(by_peer);
        metrics::lost();
        link.lost();
    }

    pub fn of_peer(&self, peer: &PeerId) -> Option<Arc<Link>> {
        self.by_peer.read().unwrap_or_else(PoisonError::into_inner).get(peer).cloned()
    }

    pub fn of_id(&self, id: u64) -> Option<Arc<Link>> {
        self.by_id.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    pub fn all(&self) -> Vec<Arc<Link>> {
        self.by_id.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// A sealed frame for one of them. What cannot be read, or is for a link that is gone, is dropped.
    pub fn heard(&self, bytes: &[u8]) {
        if bytes.len() > FRAME_BYTES_MAX {
            return tracing::warn!(frame.bytes = bytes.len(), "a frame that is too long was refused");
        }
        match envelope::open::<Frame>(bytes) {
            Ok(frame) => {
                if let Some(link) = self.of_id(frame.link) {
                    link.heard(frame);
                }
            }
            Err(error) => tracing::warn!(%error, "a frame cannot be read"),
        }
    }
}
