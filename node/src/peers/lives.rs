//! This node's peers through its lives: a node that was declared dead is another peer to everyone, so its transport is made
//! anew, on the same port.
//!
//! Started by `serve`, before the actors are: what is asked until they serve, and between two lives, is not sent. A
//! transport that fails is made anew too.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures::future::BoxFuture;
use klatch_actors::peers::{PeerAddress, PeerError, PeerId, Peers, Serve};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

use super::carrier::Carriers;
use super::cluster::RactorCluster;
use super::tls::TlsFiles;
use super::{ClusterPeers, ClusterSettings, NO_CONNECTION};
use crate::net::{Listener, Net, System};

/// The port of the life before is free again within this, or something else has it.
const PORT_AGAIN: Duration = Duration::from_millis(100);

/// A host that says neither yes nor no in this time does not refuse.
const KNOCK_MAX: Duration = Duration::from_millis(500);

/// What stays the same in all lives.
pub struct LifelongSettings {
    pub name: Arc<str>,
    /// Told to others, without the port; a certificate may be for it.
    pub host: String,
    pub secret: Vec<u8>,
    /// None: plain TCP.
    pub tls: Option<TlsFiles>,
}

pub struct Lives<N = System> {
    net: Arc<N>,
    current: Arc<ArcSwapOption<ClusterPeers>>,
    incarnation: watch::Sender<u64>,
    kept: watch::Sender<Vec<PeerAddress>>,
}

impl Lives {
    /// Connects to nobody before `serve` is there.
    pub fn start(
        settings: LifelongSettings,
        incarnation: u64,
        listener: TcpListener,
        serve: oneshot::Receiver<Arc<dyn Serve>>,
    ) -> anyhow::Result<Self> {
        Self::start_over(Arc::new(System), Arc::new(RactorCluster), settings, incarnation, listener, serve)
    }
}

impl<N: Net> Lives<N> {
    /// Over another network, or with another carrier.
    pub fn start_over(
        net: Arc<N>,
        carriers: Arc<dyn Carriers>,
        settings: LifelongSettings,
        incarnation: u64,
        listener: N::Listener,
        serve: oneshot::Receiver<Arc<dyn Serve>>,
    ) -> anyhow::Result<Self> {
        super::metrics::describe();
        let address = listener.local_addr()?;
        let current = Arc::new(ArcSwapOption::empty());
        let (incarnation, incarnations) = watch::channel(incarnation);
        let (kept, keeps) = watch::channel(Vec::new());
        let living =
            Living { net: net.clone(), carriers, settings, address, current: current.clone(), incarnations, keeps };
        tokio::spawn(living.run(listener, serve));
        Ok(Self { net, current, incarnation, kept })
    }
}

struct Living<N> {
    net: Arc<N>,
    carriers: Arc<dyn Carriers>,
    settings: LifelongSettings,
    address: SocketAddr,
    current: Arc<ArcSwapOption<ClusterPeers>>,
    incarnations: watch::Receiver<u64>,
    keeps: watch::Receiver<Vec<PeerAddress>>,
}

impl<N: Net> Living<N> {
    /// For as long as the node lives.
    async fn run(mut self, mut listener: N::Listener, serve: oneshot::Receiver<Arc<dyn Serve>>) {
        let Ok(serve) = serve.await else { return };
        loop {
            let incarnation = *self.incarnations.borrow_and_update();
            let (net, settings) = (self.net.clone(), self.settings(incarnation));
            let started = ClusterPeers::start_over(net, &*self.carriers, settings, listener, serve.clone());
            match started.await {
                Ok(peers) => {
                    let peers = Arc::new(peers);
                    self.current.store(Some(peers.clone()));
                    let over = self.live(&peers).await;
                    self.current.store(None);
                    if over {
                        return;
                    }
                }
                Err(error) => {
                    tracing::error!(error = format!("{error:#}"), "the other nodes cannot be reached");
                    tokio::time::sleep(PORT_AGAIN).await;
                }
            }
            listener = self.listen_again().await;
        }
    }

    fn settings(&self, incarnation: u64) -> ClusterSettings {
        let LifelongSettings { name, host, secret, tls } = &self.settings;
        let me = PeerId { name: name.clone(), incarnation };
        ClusterSettings { me, host: host.clone(), secret: secret.clone(), tls: tls.clone() }
    }

    /// Until this life is over. True: the node is, too.
    async fn live(&mut self, peers: &ClusterPeers) -> bool {
        self.keeps.mark_changed();
        loop {
            tokio::select! {
                () = peers.ended() => return false,
                changed = self.incarnations.changed() => return changed.is_err(),
                changed = self.keeps.changed() => {
                    if changed.is_err() {
                        return true;
                    }
                    let kept = self.keeps.borrow_and_update().clone();
                    peers.keep(kept);
                }
            }
        }
    }

    async fn listen_again(&self) -> N::Listener {
        loop {
            match self.net.listen(self.address).await {
                Ok(listener) => return listener,
                Err(error) => {
                    if error.kind() != ErrorKind::AddrInUse {
                        tracing::warn!(%error, cluster.addr = %self.address, "cannot listen for other nodes");
                    }
                    tokio::time::sleep(PORT_AGAIN).await;
                }
            }
        }
    }
}

impl<N: Net> Peers for Lives<N> {
    fn keep(&self, peers: Vec<PeerAddress>) {
        self.kept.send_replace(peers);
    }

    fn reborn(&self, incarnation: u64) {
        self.current.store(None);
        self.incarnation.send_replace(incarnation);
    }

    fn refuses(&self, peer: &PeerAddress) -> BoxFuture<'static, bool> {
        let (net, address) = (self.net.clone(), peer.address.clone());
        Box::pin(async move {
            let knock = tokio::time::timeout(KNOCK_MAX, net.dial(&address)).await;
            matches!(knock, Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused)
        })
    }

    fn reaches(&self, peer: &PeerId) -> bool {
        self.current.load().as_ref().is_some_and(|peers| peers.reaches(peer))
    }

    fn ask(&self, to: PeerId, request: Vec<u8>, deadline: Duration) -> BoxFuture<'static, Result<Vec<u8>, PeerError>> {
        match &*self.current.load() {
            Some(peers) => peers.ask(to, request, deadline),
            None => Box::pin(std::future::ready(Err(NO_CONNECTION))),
        }
    }
}
