//! The other nodes, over ractor_cluster: [`lives::Lives`] implements [`klatch_actors::peers::Peers`] for production.
//!
//! Reading order: [`options`]; who is there ([`preamble`], [`tls`], [`handshake`]; [`certificates`] for `--check`); which connections there are
//! ([`mesh`], [`listener`]); what is said over one ([`link`], [`links`]); what carries it ([`carrier`], [`cluster`]).
//!
//! Started by `serve`; a crash of its actors or tasks leaves the node without peers, and [`ClusterPeers::ended`] says
//! so.

pub mod carrier;
pub mod certificates;
mod cluster;
mod expiry;
mod handshake;
pub mod link;
mod links;
mod listener;
pub mod lives;
pub mod mesh;
pub mod metrics;
pub mod options;
pub mod preamble;
pub mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use klatch_actors::peers::{PeerAddress, PeerError, PeerId, Serve};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

pub use lives::{LifelongSettings, Lives};
pub use options::ClusterOptions;

use carrier::{Carriers, Frames, Sessions};
use cluster::RactorCluster;
pub use handshake::Handed;
use handshake::Handshake;
use links::Links;
use mesh::{Director, Message};
use preamble::{ClusterKey, Introduction};
use tls::{Tls, TlsFiles};

use crate::net::{Listener, Net, System};

const BEAT_EVERY: Duration = Duration::from_secs(1);
/// Files of certificates are looked at with each connection too; a cluster at rest makes none.
const CERTIFICATES_LOOKED_AT_EVERY: Duration = Duration::from_secs(60);
const NO_CONNECTION: PeerError = PeerError::NotSent("there is no connection to the peer");

/// All that is needed to meet others.
pub struct ClusterSettings {
    pub me: PeerId,
    /// Told to others, without the port; a certificate may be for it.
    pub host: String,
    pub secret: Vec<u8>,
    /// None: plain TCP.
    pub tls: Option<TlsFiles>,
}

pub struct ClusterPeers {
    links: Arc<Links>,
    messages: UnboundedSender<Message>,
    address: SocketAddr,
    tasks: Vec<JoinHandle<()>>,
    ended: watch::Receiver<bool>,
}

impl ClusterPeers {
    pub async fn start(
        settings: ClusterSettings,
        listener: TcpListener,
        serve: Arc<dyn Serve>,
    ) -> anyhow::Result<Self> {
        Self::start_over(Arc::new(System), &RactorCluster, settings, listener, serve).await
    }

    /// Over another network, or with another carrier.
    pub async fn start_over<N: Net>(
        net: Arc<N>,
        carriers: &dyn Carriers,
        settings: ClusterSettings,
        listener: N::Listener,
        serve: Arc<dyn Serve>,
    ) -> anyhow::Result<Self> {
        let address = listener.local_addr()?;
        let key = ClusterKey::new(&settings.secret);
        let tls = settings.tls.map(Tls::open).transpose()?.map(Arc::new);
        let links = Arc::new(Links::default());
        let (messages, received) = mpsc::unbounded_channel();
        let (frames, sessions) = (Frames(links.clone()), Sessions(messages.clone()));
        let carrier = carriers.start(&settings.me, &key, frames, sessions).await?;
        let carrier_ended = carrier.ended();
        let own = Introduction { me: settings.me.clone(), host: settings.host, key };
        let handshake = Arc::new(Handshake { own, tls: tls.clone() });
        let (me, its_links) = (settings.me, links.clone());
        let director = Director::new(me, net, carrier, handshake.clone(), its_links, serve, messages.clone());
        let (end, ended) = watch::channel(false);
        let mut tasks = vec![
            tokio::spawn(director.run(received)),
            tokio::spawn(listener::listen(listener, handshake, messages.clone())),
            tokio::spawn(beat(links.clone())),
        ];
        tasks.extend(tls.map(|tls| tokio::spawn(look_at_certificates(tls))));
        tasks.push(tokio::spawn(async move {
            carrier_ended.await;
            let _ = end.send(true);
        }));
        Ok(Self { links, messages, address, tasks, ended })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether a round trip to this life of the peer was seen lately.
    pub fn reaches(&self, peer: &PeerId) -> bool {
        self.links.of_peer(peer).is_some_and(|link| link.alive())
    }

    /// Ends when the actors behind it ended by themselves.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut ended = self.ended.clone();
        async move { drop(ended.wait_for(|ended| *ended).await) }
    }
}

impl Drop for ClusterPeers {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        for link in self.links.all() {
            self.links.remove(link.id);
        }
    }
}

impl ClusterPeers {
    /// See [`klatch_actors::Peers::keep`](klatch_actors::peers::Peers::keep).
    pub fn keep(&self, peers: Vec<PeerAddress>) {
        let _ = self.messages.send(Message::Keep(peers));
    }

    /// See [`klatch_actors::Peers::ask`](klatch_actors::peers::Peers::ask). What is to be sent is under way when this returns.
    pub fn ask(
        &self,
        to: PeerId,
        request: Vec<u8>,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Vec<u8>, PeerError>> {
        match self.links.of_peer(&to) {
            Some(link) => link.ask(request, deadline),
            None => Box::pin(async { Err(NO_CONNECTION) }),
        }
    }
}

/// A process that was frozen beats once when it goes on, and not once for each second that it missed.
async fn beat(links: Arc<Links>) {
    let mut every = tokio::time::interval(BEAT_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        for link in links.all() {
            link.tick();
        }
    }
}

/// So that the metrics tell of new certificates before anybody needs them.
async fn look_at_certificates(tls: Arc<Tls>) {
    let mut every = tokio::time::interval(CERTIFICATES_LOOKED_AT_EVERY);
    loop {
        every.tick().await;
        let tls = tls.clone();
        // A look that panics is made again.
        let _ = tokio::task::spawn_blocking(move || drop(tls.current())).await;
    }
}
