//! What carries frames over a connection that is proven: the boundary behind which ractor_cluster stands. A carrier knows
//! sessions and opaque frames; whom it connects, and what the frames say, is decided on this side of it.

use std::sync::Arc;

use futures::future::BoxFuture;
use klatch_actors::peers::PeerId;
use tokio::sync::mpsc::UnboundedSender;

use super::handshake::Handed;
use super::links::Links;
use super::mesh::Message;
use super::preamble::ClusterKey;

/// Sends a sealed frame to the other end. Never waits, and says nothing of the outcome: a session that ends is told.
pub type Say = Box<dyn Fn(Vec<u8>) + Send + Sync>;

/// Makes a carrier for each life of the node.
pub trait Carriers: Send + Sync + 'static {
    fn start<'a>(
        &'a self,
        me: &'a PeerId,
        key: &'a ClusterKey,
        frames: Frames,
        sessions: Sessions,
    ) -> BoxFuture<'a, anyhow::Result<Box<dyn Carrier>>>;
}

/// One life's carrier. Dropping it ends all its sessions.
pub trait Carrier: Send + Sync + 'static {
    /// Begins a session over the connection, which this node dialled or accepted. From then on it is told by its ticket.
    /// False: the carrier has ended.
    fn open(&self, ticket: u64, stream: Handed, dialled: bool) -> bool;

    /// Ends when the carrier ended by itself.
    fn ended(&self) -> BoxFuture<'static, ()>;
}

pub trait Session: Send + 'static {
    fn stop(&self);

    /// What the other end called itself, once it has.
    fn name(&self) -> Option<String>;

    /// The way to the gateway of that peer; none where it showed none.
    fn say(&self, peer: &PeerId) -> Option<Say>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Opened,
    /// Its name is known.
    Authenticated,
    /// Frames can be sent.
    Ready,
    Ended,
}

/// Where a carrier tells what becomes of its sessions.
#[derive(Clone)]
pub struct Sessions(pub(super) UnboundedSender<Message>);

impl Sessions {
    pub fn tell(&self, ticket: u64, stage: Stage, session: Box<dyn Session>) {
        // A mesh that is gone wants no word any more.
        let _ = self.0.send(Message::Session { ticket, stage, session });
    }
}

/// Where a carrier brings the frames that arrive.
#[derive(Clone)]
pub struct Frames(pub(super) Arc<Links>);

impl Frames {
    pub fn arrived(&self, bytes: &[u8]) {
        self.0.heard(bytes);
    }
}
