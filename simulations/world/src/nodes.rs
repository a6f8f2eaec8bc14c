//! The nodes of a world: started, crashed, drained, frozen and cut off, each in one life after the other.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use klatch_actors::membership::views::memory::MemoryViews;
use klatch_actors::node::Cluster;
use klatch_actors::peers::PeerId;
use klatch_actors::responder::Responders;
use klatch_actors::store::memory::MemoryStore;
use klatch_actors::{Handle, Node, NodeOptions, Responder};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::line::{Flow, Line};
use crate::peers::{Board, SimulatedPeers};
use crate::plan::Disturbance;
use crate::responder::SimulatedResponder;
use crate::shared::{Shared, lock};
use crate::store::SimulatedStore;
use crate::views::SimulatedViews;

/// Between the incarnations of two lives of one name: a node that is declared dead counts its own up.
const LIFE: u64 = 1_000;

/// A drain waits so long for open turns.
const DRAIN_MAX: Duration = Duration::from_secs(4);

/// The responders of every node, by name, with how much history each wants; the last answers at once.
pub const MODELS: [&str; 3] = ["plain", "remembering", "instant"];

pub struct Nodes {
    shared: Arc<Shared>,
    store: Arc<MemoryStore>,
    table: Arc<MemoryViews>,
    board: Arc<Board>,
    running: BTreeMap<String, Running>,
    starting: JoinSet<(String, Node, Arc<Line>)>,
    draining: JoinSet<String>,
    /// Of those that run, for the clients.
    handles: Arc<Mutex<BTreeMap<String, Handle>>>,
    lives: u64,
}

struct Running {
    node: Node,
    line: Arc<Line>,
}

impl Nodes {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            store: Arc::default(),
            table: Arc::default(),
            board: Arc::default(),
            running: BTreeMap::new(),
            starting: JoinSet::new(),
            draining: JoinSet::new(),
            handles: Arc::default(),
            lives: 0,
        }
    }

    pub fn handles(&self) -> Arc<Mutex<BTreeMap<String, Handle>>> {
        self.handles.clone()
    }

    pub fn names(&self) -> Vec<String> {
        self.running.keys().cloned().collect()
    }

    fn responders(&self) -> Responders {
        let one = |(place, name): (usize, &str)| {
            let responder = SimulatedResponder {
                shared: self.shared.clone(),
                at_once: name == "instant",
                history_items: if place == 1 { 10 } else { 0 },
            };
            (name.to_owned(), Arc::new(responder) as Arc<dyn Responder>)
        };
        MODELS.into_iter().enumerate().map(one).collect()
    }

    /// The node starts by itself: it is up as soon as the table says so.
    pub fn start(&mut self, name: String) {
        self.lives += 1;
        let (shared, line) = (self.shared.clone(), Arc::new(Line::default()));
        let id = PeerId { name: name.as_str().into(), incarnation: self.lives * LIFE };
        shared.trace(format_args!("start {id}"));
        let me = Arc::new(Mutex::new(id.clone()));
        let (serve, served) = oneshot::channel();
        let (board, its_line) = (self.board.clone(), line.clone());
        let its_id = me.clone();
        tokio::spawn(async move {
            if let Ok(serve) = served.await {
                board.connect(lock(&its_id).clone(), its_line, serve);
            }
        });
        let peers = SimulatedPeers { shared: shared.clone(), board: self.board.clone(), line: line.clone(), me };
        let views = SimulatedViews { shared: shared.clone(), table: self.table.clone(), line: line.clone() };
        let store = SimulatedStore { shared: shared.clone(), durable: self.store.clone(), line: line.clone() };
        let cluster = Cluster { views: Arc::new(views), peers: Arc::new(peers), address: format!("{name}:1"), serve };
        let clock = shared.clone();
        let options = NodeOptions {
            cluster: Some(cluster),
            limits: shared.plan().limits,
            clock: Arc::new(move || clock.now_ms()),
            ..NodeOptions::new(name.as_str(), id.incarnation, Arc::new(store), Arc::new(self.responders()))
        };
        self.starting.spawn(async move {
            match Node::start(options).await {
                Ok(node) => (name, node, line),
                Err(error) => {
                    shared.fail(format!("node {name} did not start: {error}"));
                    std::future::pending().await
                }
            }
        });
    }

    /// Takes note of nodes that have started, drained or ended meanwhile.
    pub fn look(&mut self) {
        while let Some(Ok((name, node, line))) = self.starting.try_join_next() {
            self.shared.trace(format_args!("up {name}"));
            lock(&self.handles).insert(name.clone(), node.handle());
            self.running.insert(name, Running { node, line });
        }
        while let Some(Ok(name)) = self.draining.try_join_next() {
            self.board.disconnect(&name);
            self.start(name);
        }
        for (name, running) in &mut self.running {
            if running.node.ended().now_or_never().is_some() {
                self.shared.fail(format!("node {name} ended by itself"));
            }
        }
    }

    /// Until all are up.
    pub async fn settle(&mut self, count: usize) {
        while self.running.len() < count {
            tokio::time::sleep(Duration::from_millis(100)).await;
            self.look();
        }
    }

    pub async fn disturb(&mut self, disturbance: Disturbance) {
        let (dice, names) = (self.shared.dice.clone(), self.names());
        let Some(name) = dice.pick(&names).cloned() else { return };
        let other = dice.pick(&names).cloned().filter(|other| *other != name);
        self.shared.trace(format_args!("disturb {disturbance:?} {name} {other:?}"));
        match disturbance {
            Disturbance::Crash => self.crash(&name).await,
            Disturbance::Drain => self.drain(name),
            Disturbance::RollingRestart => {
                for name in names.iter() {
                    self.drain(name.clone());
                    self.settle(names.len()).await;
                }
            }
            Disturbance::Freeze => self.on(&name, |line| line.set(Flow::Frozen)),
            Disturbance::CutFromStore => self.on(&name, |line| line.store_is_cut.store(true, Ordering::SeqCst)),
            Disturbance::CutFromViews => self.on(&name, |line| line.views_are_cut.store(true, Ordering::SeqCst)),
            Disturbance::CutApart => {
                if let Some(other) = other {
                    self.board.cut(&name, &other);
                    self.board.cut(&other, &name);
                }
            }
            Disturbance::CutOneWay => {
                if let Some(other) = other {
                    self.board.cut(&name, &other);
                }
            }
        }
        self.shared.count(match disturbance {
            Disturbance::Crash => "crashes",
            Disturbance::Drain | Disturbance::RollingRestart => "drains",
            Disturbance::Freeze => "freezes",
            Disturbance::CutFromStore => "cuts from the store",
            Disturbance::CutFromViews => "cuts from the table",
            Disturbance::CutApart | Disturbance::CutOneWay => "cuts between nodes",
        });
    }

    /// Ends it, and starts another life of it in a while.
    async fn crash(&mut self, name: &str) {
        let Some(Running { node, line }) = self.running.remove(name) else { return };
        lock(&self.handles).remove(name);
        line.set(Flow::Dead);
        self.board.disconnect(name);
        node.crash().await;
        let (name, after) = (name.to_owned(), self.shared.dice.secs(0, 8));
        self.draining.spawn(async move {
            tokio::time::sleep(after).await;
            name
        });
    }

    fn drain(&mut self, name: String) {
        let Some(Running { node, line }) = self.running.remove(&name) else { return };
        lock(&self.handles).remove(&name);
        let (shared, board) = (self.shared.clone(), self.board.clone());
        self.draining.spawn(async move {
            let open = node.drain(DRAIN_MAX).await;
            line.set(Flow::Dead);
            board.disconnect(&name);
            shared.trace(format_args!("drained {name} with {open} open turns"));
            name
        });
    }

    fn on(&self, name: &str, change: impl FnOnce(&Line)) {
        if let Some(running) = self.running.get(name) {
            change(&running.line);
        }
    }

    pub fn mend(&self) {
        self.shared.trace("mend");
        self.board.mend();
        for running in self.running.values() {
            running.line.mend();
        }
    }
}
