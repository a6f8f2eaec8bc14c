//! Carries out what the mesh decides: dials, hands proven connections to the carrier, stops sessions. One task,
//! started by [`super::ClusterPeers`]; its queue has a few messages for each connection and each call of `keep`.

pub mod decide;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use klatch_actors::peers::{PeerAddress, PeerId, Serve};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::carrier::{Carrier, Session, Stage};
use super::handshake::{Handed, Handshake};
use super::link::Link;
use super::links::Links;
use super::preamble::Proven;
use crate::net::Net;
use decide::{Effect, Event, Mesh};

/// Name resolution included.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// The carrier's own handshake has no limit.
const READY_MAX: Duration = Duration::from_secs(5);
/// A view is behind for less.
const KEPT_MAX: Duration = Duration::from_secs(10);

pub(super) enum Message {
    Keep(Vec<PeerAddress>),
    Proven { proven: Proven, stream: Handed, dialled: bool },
    Session { ticket: u64, stage: Stage, session: Box<dyn Session> },
    Decide(Event),
}

/// A connection that was proven, until its session ended.
struct Connection {
    peer: PeerId,
    link: u64,
    dialled: bool,
    /// Until it is handed over.
    stream: Option<Handed>,
    /// Once the carrier has it.
    session: Option<Box<dyn Session>>,
    closing: bool,
}

pub(super) struct Director<N> {
    pub me: PeerId,
    pub net: Arc<N>,
    pub carrier: Box<dyn Carrier>,
    pub handshake: Arc<Handshake>,
    pub links: Arc<Links>,
    pub serve: Arc<dyn Serve>,
    pub messages: UnboundedSender<Message>,
    mesh: Mesh,
    connections: HashMap<u64, Connection>,
    dials: HashMap<PeerId, AbortHandle>,
    last_ticket: u64,
}

impl<N: Net> Director<N> {
    pub fn new(
        me: PeerId,
        net: Arc<N>,
        carrier: Box<dyn Carrier>,
        handshake: Arc<Handshake>,
        links: Arc<Links>,
        serve: Arc<dyn Serve>,
        messages: UnboundedSender<Message>,
    ) -> Self {
        let mesh = Mesh::new(me.clone());
        let (connections, dials) = (HashMap::new(), HashMap::new());
        Self { me, net, carrier, handshake, links, serve, messages, mesh, connections, dials, last_ticket: 0 }
    }

    pub async fn run(mut self, mut received: UnboundedReceiver<Message>) {
        while let Some(message) = received.recv().await {
            match message {
                Message::Keep(peers) => self.on(Event::Keep(peers)),
                Message::Decide(event) => self.on(event),
                Message::Proven { proven, stream, dialled } => self.proven(proven, stream, dialled),
                Message::Session { ticket, stage, session } => self.session(ticket, stage, session),
            }
        }
    }

    fn proven(&mut self, proven: Proven, stream: Handed, dialled: bool) {
        if !dialled && decide::dials(&self.me, &proven.peer) {
            return tracing::warn!(peer = %proven.peer, "a peer dialled that is dialled by this node: refused");
        }
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        tracing::info!(peer = %proven.peer, dialled, "a peer has proved who it is");
        let stream = Some(stream);
        let (peer, link) = (proven.peer, proven.link);
        let connection = Connection { peer: peer.clone(), link, dialled, stream, session: None, closing: false };
        self.connections.insert(ticket, connection);
        self.later(KEPT_MAX, Event::KeptDue { ticket });
        self.on(Event::Proven { ticket, peer });
    }

    fn session(&mut self, ticket: u64, stage: Stage, session: Box<dyn Session>) {
        let Some(connection) = self.connections.get_mut(&ticket) else { return };
        match stage {
            Stage::Opened => {
                if connection.closing {
                    session.stop();
                }
                connection.session = Some(session);
            }
            Stage::Authenticated => {
                let life = connection.peer.to_string();
                if session.name().as_ref() != Some(&life) {
                    tracing::warn!(peer = life, "a peer told the carrier another name: it is closed");
                    session.stop();
                }
            }
            Stage::Ready => self.ready(ticket, &*session),
            Stage::Ended => self.ended(ticket),
        }
    }

    fn ready(&mut self, ticket: u64, session: &dyn Session) {
        let Some(connection) = self.connections.get(&ticket) else { return };
        let link = self.links.of_id(connection.link);
        match (link, session.say(&connection.peer)) {
            (Some(link), Some(say)) => {
                tracing::info!(peer = %connection.peer, "connected to a peer");
                link.ready(say);
                self.on(Event::Ready { ticket });
            }
            _ => {
                tracing::warn!(peer = %connection.peer, "a peer showed no gateway: it is closed");
                session.stop();
            }
        }
    }

    fn ended(&mut self, ticket: u64) {
        if let Some(connection) = self.connections.remove(&ticket) {
            tracing::info!(peer = %connection.peer, "a connection to a peer ended");
            self.links.remove(connection.link);
            self.on(Event::Closed { ticket });
        }
    }

    fn on(&mut self, event: Event) {
        for effect in self.mesh.decide(event) {
            match effect {
                Effect::Dial(peer) => self.dial(peer),
                Effect::DialAfter { peer, failures } => {
                    let random = getrandom::u32().expect("the system has a random source");
                    self.later(decide::backoff(failures, random), Event::DialDue(peer));
                }
                Effect::StopDialling(peer) => {
                    if let Some(dial) = self.dials.remove(&peer) {
                        dial.abort();
                    }
                }
                Effect::Admit { ticket } => self.admit(ticket),
                Effect::Close { ticket } => self.close(ticket),
            }
        }
    }

    fn dial(&mut self, peer: PeerAddress) {
        let (net, handshake, messages) = (self.net.clone(), self.handshake.clone(), self.messages.clone());
        let id = peer.id.clone();
        let dial = tokio::spawn(async move {
            match dial(&*net, &handshake, &peer).await {
                Ok((proven, stream)) => {
                    let _ = messages.send(Message::Proven { proven, stream, dialled: true });
                }
                Err(error) => {
                    let why = format!("{error:#}");
                    tracing::info!(peer = %peer.id, peer.address = peer.address, error = why, "a peer is not reached");
                    let _ = messages.send(Message::Decide(Event::DialFailed(peer.id)));
                }
            }
        });
        self.dials.insert(id, dial.abort_handle());
    }

    /// The link is there before the session: the peer may be ready sooner.
    fn admit(&mut self, ticket: u64) {
        let Some(connection) = self.connections.get_mut(&ticket) else { return };
        let Some(stream) = connection.stream.take() else { return };
        let messages = self.messages.clone();
        let close = move || drop(messages.send(Message::Decide(Event::Silent { ticket })));
        let close: Box<dyn Fn() + Send + Sync> = Box::new(close);
        let link = Link::new(connection.link, self.me.incarnation, connection.peer.clone(), self.serve.clone(), close);
        self.links.add(Arc::new(link));
        if !self.carrier.open(ticket, stream, connection.dialled) {
            return self.ended(ticket);
        }
        self.later(READY_MAX, Event::ReadyDue { ticket });
    }

    fn close(&mut self, ticket: u64) {
        let Some(connection) = self.connections.get_mut(&ticket) else { return };
        connection.closing = true;
        match (&connection.session, &connection.stream) {
            (Some(session), _) => session.stop(),
            (None, Some(_)) => self.ended(ticket),
            // It is being opened, and stopped as soon as it is.
            (None, None) => {}
        }
    }

    fn later(&self, wait: Duration, event: Event) {
        let messages = self.messages.clone();
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let _ = messages.send(Message::Decide(event));
        });
    }
}

async fn dial(net: &impl Net, handshake: &Handshake, peer: &PeerAddress) -> anyhow::Result<(Proven, Handed)> {
    let stream = timeout(CONNECT_MAX, net.dial(&peer.address)).await.context("connecting takes too long")??;
    handshake.dial(stream, &peer.id).await
}
