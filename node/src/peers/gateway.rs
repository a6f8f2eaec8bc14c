//! The one actor that other nodes reach: every frame for this node comes here, and is given to its link.
//!
//! Started by [`super::ClusterPeers`], without a name, found by others through a process group of this node's life. It
//! keeps nothing, so a crash would cost the connections only. It never waits: a link's work is done in tasks.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use klatch_actors::peers::PeerId;
use klatch_protocol::envelope;
use klatch_protocol::frame::{FRAME_BYTES_MAX, Frame};
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, pg};
use ractor_cluster::RactorClusterMessage;

use super::link::Link;

const SCOPE: &str = "klatch-peers";

/// The variant's name is on the wire.
#[derive(RactorClusterMessage)]
pub enum GatewayMessage {
    /// A sealed [`Frame`].
    Frame(Vec<u8>),
}

/// All links of this node.
#[derive(Default)]
pub struct Links {
    by_id: RwLock<HashMap<u64, Arc<Link>>>,
    by_peer: RwLock<HashMap<PeerId, Arc<Link>>>,
}

impl Links {
    pub fn add(&self, link: Arc<Link>) {
        self.by_peer.write().unwrap_or_else(PoisonError::into_inner).insert(link.peer.clone(), link.clone());
        self.by_id.write().unwrap_or_else(PoisonError::into_inner).insert(link.id, link);
    }

    /// A newer link of the same peer stays.
    pub fn remove(&self, id: u64) {
        let Some(link) = self.by_id.write().unwrap_or_else(PoisonError::into_inner).remove(&id) else { return };
        let mut by_peer = self.by_peer.write().unwrap_or_else(PoisonError::into_inner);
        if by_peer.get(&link.peer).is_some_and(|newest| newest.id == id) {
            by_peer.remove(&link.peer);
        }
        drop(by_peer);
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
}

pub struct Gateway;

impl Gateway {
    pub fn announce(myself: &ActorRef<GatewayMessage>, me: &PeerId) {
        pg::join_scoped(SCOPE.to_owned(), me.to_string(), vec![myself.get_cell()]);
    }

    /// The gateway of the peer, as the session with this id showed it.
    pub fn of(peer: &PeerId, session: u64) -> Option<ActorRef<GatewayMessage>> {
        let members = pg::get_scoped_members(&SCOPE.to_owned(), &peer.to_string());
        let of_session = |id: ActorId| matches!(id, ActorId::Remote { node_id, .. } if node_id == session);
        members.into_iter().find(|member| of_session(member.get_id())).map(ActorRef::from)
    }
}

impl Actor for Gateway {
    type Msg = GatewayMessage;
    type State = Arc<Links>;
    type Arguments = Arc<Links>;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, links: Arc<Links>) -> Result<Self::State, ActorProcessingErr> {
        Ok(links)
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        message: Self::Msg,
        links: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let GatewayMessage::Frame(bytes) = message;
        if bytes.len() > FRAME_BYTES_MAX {
            tracing::warn!(frame.bytes = bytes.len(), "a frame that is too long was refused");
            return Ok(());
        }
        match envelope::open::<Frame>(&bytes) {
            Ok(frame) => {
                if let Some(link) = links.of_id(frame.link) {
                    link.heard(frame);
                }
            }
            Err(error) => tracing::warn!(%error, "a frame cannot be read"),
        }
        Ok(())
    }
}
