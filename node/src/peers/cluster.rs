//! The carrier of production: ractor_cluster. It gets connections that are proven, and frames; its own ways to connect,
//! authenticate and watch are not relied on: its port takes nobody, and its cookie is derived.
//!
//! [`Gateway`] is the one actor that other nodes reach: every frame for this node comes here, and is given to its link. It is
//! started without a name and found by others through a process group of this node's life. It keeps nothing, so a
//! crash would cost the connections only. It never waits: a link's work is done in tasks.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Context;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use klatch_actors::peers::PeerId;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, pg};
use ractor_cluster::node::{NodeConnectionMode, NodeServerSessionInformation};
use ractor_cluster::{NodeEventSubscription, NodeServer, NodeServerMessage, RactorClusterMessage};

use super::carrier::{Carrier, Carriers, Frames, Say, Session, Sessions, Stage};
use super::handshake::Handed;
use super::preamble::ClusterKey;

/// Four of our frames, since its own messages list a few actors.
const SESSION_FRAME_BYTES_MAX: u64 = 256 << 10;
const LABEL: &str = "klatch-link-";
const SCOPE: &str = "klatch-peers";

/// One life at a time per process, since ractor's registries are the process's.
pub struct RactorCluster;

struct Running {
    server: ActorRef<NodeServerMessage>,
    gateway: ActorRef<GatewayMessage>,
    ended: Shared<BoxFuture<'static, ()>>,
}

impl Carriers for RactorCluster {
    fn start<'a>(
        &'a self,
        me: &'a PeerId,
        key: &'a ClusterKey,
        frames: Frames,
        sessions: Sessions,
    ) -> BoxFuture<'a, anyhow::Result<Box<dyn Carrier>>> {
        Box::pin(async move {
            let (gateway, gateway_ended) = Actor::spawn(None, Gateway, frames).await.context("the gateway")?;
            Gateway::announce(&gateway, me);
            let life = me.to_string();
            // The host is the life too: two nodes with one `host:port` would take one another for themselves.
            let mode = Some(NodeConnectionMode::Isolated);
            let server = NodeServer::new(0, key.cookie(), life.clone(), life, None, mode)
                .with_listen_addr(IpAddr::V4(Ipv4Addr::LOCALHOST))
                .with_max_inbound_frame_size(SESSION_FRAME_BYTES_MAX);
            let (server, server_ended) = Actor::spawn(None, server, ()).await.context("ractor_cluster")?;
            let subscription = Box::new(Events(sessions));
            server.cast(NodeServerMessage::SubscribeToEvents { id: "klatch".to_owned(), subscription })?;
            let ended = async {
                tokio::select! {
                    _ = gateway_ended => {}
                    _ = server_ended => {}
                }
            };
            let ended = ended.boxed().shared();
            Ok(Box::new(Running { server, gateway, ended }) as Box<dyn Carrier>)
        })
    }
}

impl Carrier for Running {
    fn open(&self, ticket: u64, stream: Handed, dialled: bool) -> bool {
        let stream = Box::new(stream.labelled(format!("{LABEL}{ticket}")));
        let opened = NodeServerMessage::ConnectionOpenedExternal { stream, is_server: !dialled };
        self.server.cast(opened).is_ok()
    }

    fn ended(&self) -> BoxFuture<'static, ()> {
        self.ended.clone().boxed()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.server.stop(None);
        self.gateway.stop(None);
    }
}

impl Session for NodeServerSessionInformation {
    fn stop(&self) {
        self.actor.stop(None);
    }

    /// Name and host are the life, each.
    fn name(&self) -> Option<String> {
        let both = &self.peer_name.as_ref()?.name;
        let (name, host) = both.split_at_checked(both.len() / 2)?;
        (host.strip_prefix('@') == Some(name)).then(|| name.to_owned())
    }

    fn say(&self, peer: &PeerId) -> Option<Say> {
        let gateway = Gateway::of(peer, self.node_id)?;
        Some(Box::new(move |frame| {
            // A session that ends says so by itself.
            let _ = gateway.cast(GatewayMessage::Frame(frame));
        }))
    }
}

/// ractor_cluster's events, told to the mesh. Sessions that it accepted itself, on the port that it insists on, are
/// nobody's and stopped.
struct Events(Sessions);

impl Events {
    fn tell(&self, stage: Stage, session: NodeServerSessionInformation) {
        match session.peer_addr.strip_prefix(LABEL).and_then(|ticket| ticket.parse().ok()) {
            Some(ticket) => self.0.tell(ticket, stage, Box::new(session)),
            None => session.actor.stop(None),
        }
    }
}

impl NodeEventSubscription for Events {
    fn node_session_opened(&self, session: NodeServerSessionInformation) {
        self.tell(Stage::Opened, session);
    }

    fn node_session_authenticated(&self, session: NodeServerSessionInformation) {
        self.tell(Stage::Authenticated, session);
    }

    fn node_session_ready(&self, session: NodeServerSessionInformation) {
        self.tell(Stage::Ready, session);
    }

    fn node_session_disconnected(&self, session: NodeServerSessionInformation) {
        self.tell(Stage::Ended, session);
    }
}

/// The variant's name is on the wire.
#[derive(RactorClusterMessage)]
enum GatewayMessage {
    /// A sealed frame.
    Frame(Vec<u8>),
}

struct Gateway;

impl Gateway {
    fn announce(myself: &ActorRef<GatewayMessage>, me: &PeerId) {
        pg::join_scoped(SCOPE.to_owned(), me.to_string(), vec![myself.get_cell()]);
    }

    /// The gateway of the peer, as the session with this id showed it.
    fn of(peer: &PeerId, session: u64) -> Option<ActorRef<GatewayMessage>> {
        let members = pg::get_scoped_members(&SCOPE.to_owned(), &peer.to_string());
        let of_session = |id: ActorId| matches!(id, ActorId::Remote { node_id, .. } if node_id == session);
        members.into_iter().find(|member| of_session(member.get_id())).map(ActorRef::from)
    }
}

impl Actor for Gateway {
    type Msg = GatewayMessage;
    type State = Frames;
    type Arguments = Frames;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, frames: Frames) -> Result<Self::State, ActorProcessingErr> {
        Ok(frames)
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        GatewayMessage::Frame(bytes): Self::Msg,
        frames: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        frames.arrived(&bytes);
        Ok(())
    }
}
