//! Peers in memory, for tests: nodes of one process that reach one another through a switchboard, which can cut them off.
//!
//! Keeps the promises of the boundary: what was not sent is told apart from what was not answered, and a peer that is
//! lost ends what waits for it.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, Either, select};
use tokio::sync::watch;

use super::{PeerAddress, PeerError, PeerId, Peers, Serve};

#[derive(Clone, Default)]
pub struct Switchboard(Arc<Mutex<Lines>>);

#[derive(Default)]
struct Lines {
    nodes: BTreeMap<PeerId, Node>,
    /// Names that do not reach one another, in both directions.
    cut: BTreeSet<(Arc<str>, Arc<str>)>,
}

struct Node {
    serve: Arc<dyn Serve>,
    /// Changes whenever somebody is lost to somebody.
    lost: watch::Sender<()>,
}

/// The peers of one node.
pub struct MemoryPeers {
    board: Switchboard,
    me: Mutex<PeerId>,
}

impl Switchboard {
    pub fn peers(&self, me: PeerId) -> MemoryPeers {
        MemoryPeers { board: self.clone(), me: Mutex::new(me) }
    }

    /// From now on the node can be reached.
    pub fn connect(&self, id: PeerId, serve: Arc<dyn Serve>) {
        self.lines().nodes.insert(id, Node { serve, lost: watch::channel(()).0 });
    }

    /// The node is gone: its port refuses, and what waits for it ends.
    pub fn disconnect(&self, name: &str) {
        self.lines().nodes.retain(|id, _| *id.name != *name);
    }

    /// The two do not reach one another any more; what waits ends.
    pub fn cut(&self, one: &str, other: &str) {
        let mut lines = self.lines();
        lines.cut.insert((one.into(), other.into()));
        lines.cut.insert((other.into(), one.into()));
        for node in lines.nodes.values() {
            node.lost.send_replace(());
        }
    }

    pub fn mend(&self) {
        self.lines().cut.clear();
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        // A panic while it was held left every entry whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn are_cut(&self, one: &PeerId, other: &PeerId) -> bool {
        self.lines().cut.contains(&(one.name.clone(), other.name.clone()))
    }
}

impl MemoryPeers {
    fn me(&self) -> PeerId {
        self.me.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Peers for MemoryPeers {
    fn keep(&self, _: Vec<PeerAddress>) {}

    fn reborn(&self, incarnation: u64) {
        let mut me = self.me.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lines = self.board.lines();
        let node = lines.nodes.remove(&me);
        me.incarnation = incarnation;
        if let Some(Node { serve, .. }) = node {
            lines.nodes.insert(me.clone(), Node { serve, lost: watch::channel(()).0 });
        }
    }

    fn refuses(&self, peer: &PeerAddress) -> BoxFuture<'static, bool> {
        let refuses = !self.board.lines().nodes.keys().any(|id| id.name == peer.id.name);
        Box::pin(std::future::ready(refuses))
    }

    fn reaches(&self, peer: &PeerId) -> bool {
        !self.board.are_cut(&self.me(), peer) && self.board.lines().nodes.contains_key(peer)
    }

    fn ask(&self, to: PeerId, request: Vec<u8>, deadline: Duration) -> BoxFuture<'static, Result<Vec<u8>, PeerError>> {
        let (board, me) = (self.board.clone(), self.me());
        Box::pin(async move {
            if board.are_cut(&me, &to) {
                return Err(PeerError::NotSent("it is cut off"));
            }
            let reached = board.lines().nodes.get(&to).map(|node| (node.serve.clone(), node.lost.subscribe()));
            let Some((serve, mut lost)) = reached else { return Err(PeerError::NotSent("it is gone")) };
            // In a task of its own: who asked may give up, and it is served all the same.
            let served = tokio::spawn(serve.serve(me.clone(), request));
            let lost = pin!(async { while lost.changed().await.is_ok() && !board.are_cut(&me, &to) {} });
            // The first of the two is looked at first.
            match tokio::time::timeout(deadline, select(lost, served)).await {
                Ok(Either::Left(_)) => Err(PeerError::NoAnswer("it was lost")),
                Ok(Either::Right((answer, _))) => answer.map_err(|_| PeerError::NoAnswer("it failed")),
                Err(_) => Err(PeerError::NoAnswer("it took too long")),
            }
        })
    }
}
