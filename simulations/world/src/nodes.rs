//! The nodes of a world: started, crashed, drained, frozen and cut off, each in one life after the other.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use klatch_actors::gateway::decide::OVER_THE_LIMIT;
use klatch_actors::node::Cluster;
use klatch_actors::peers::PeerId;
use klatch_actors::responder::Responders;
use klatch_actors::{Handle, Node, NodeOptions, Responder, Webhooks};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::dice::Dice;
use crate::line::{Flow, Line};
use crate::peers::{Board, SimulatedPeers};
use crate::plan::{Disturbance, Due};
use crate::redis::Redis;
use crate::responder::SimulatedResponder;
use crate::shared::{Shared, lock};
use crate::store::SimulatedStore;
use crate::views::SimulatedViews;
use crate::webhooks::SimulatedWebhooks;

/// Between the incarnations of two lives of one name: a node that is declared dead counts its own up.
const LIFE: u64 = 1_000;

/// A drain waits so long for open turns.
const DRAIN_MAX: Duration = Duration::from_secs(4);

/// Its supervisor takes so long to start a node again that has ended.
const STARTED_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Nodes that nothing is wrong with are up within it, a rolling restart of them all included.
const SETTLED_MAX: Duration = Duration::from_secs(180);

/// Turns at once.
const BURST: usize = 30;

/// The responders of every node, by name, with how much history each wants; the last answers at once.
pub const MODELS: [&str; 3] = ["plain", "remembering", "instant"];

/// Of the node in this place.
fn name(place: usize) -> String {
    format!("node-{place}")
}

pub struct Nodes {
    shared: Arc<Shared>,
    redis: Arc<Redis>,
    board: Arc<Board>,
    running: BTreeMap<String, Running>,
    /// Of the last life of each, draining ones included.
    lines: BTreeMap<String, Arc<Line>>,
    starting: JoinSet<(String, Node, Arc<Line>)>,
    /// Those that crashed or are drained, until they start again.
    ending: JoinSet<String>,
    /// Clients of bursts.
    burst: JoinSet<()>,
    dice: Dice,
    /// What a rolling restart has not come to yet.
    to_restart: VecDeque<String>,
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
            redis: Redis::start(shared.clone(), shared.plan.replicated),
            board: Arc::new(Board::new(shared.dice("peers"))),
            running: BTreeMap::new(),
            lines: BTreeMap::new(),
            starting: JoinSet::new(),
            ending: JoinSet::new(),
            burst: JoinSet::new(),
            dice: shared.dice("nodes"),
            to_restart: VecDeque::new(),
            handles: Arc::default(),
            lives: 0,
            shared,
        }
    }

    pub fn handles(&self) -> Arc<Mutex<BTreeMap<String, Handle>>> {
        self.handles.clone()
    }

    fn responders(&self) -> Responders {
        let one = |(place, name): (usize, &str)| {
            let responder = SimulatedResponder {
                shared: self.shared.clone(),
                dice: self.shared.dice(&format!("responder {name}")),
                at_once: name == "instant",
                history_items: if place == 1 { 10 } else { 0 },
            };
            (name.to_owned(), Arc::new(responder) as Arc<dyn Responder>)
        };
        MODELS.into_iter().enumerate().map(one).collect()
    }

    pub fn start_all(&mut self) {
        for place in 0..self.shared.plan.nodes {
            self.start(name(place));
        }
    }

    /// The node starts by itself: it is up as soon as the table says so.
    fn start(&mut self, name: String) {
        self.lives += 1;
        let (shared, line) = (self.shared.clone(), Arc::new(Line::default()));
        let id = PeerId { name: name.as_str().into(), incarnation: self.lives * LIFE };
        shared.trace(format_args!("start {id}"));
        self.lines.insert(name.clone(), line.clone());
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
        let store = SimulatedStore {
            who: id.to_string().into(),
            shared: shared.clone(),
            dice: shared.dice(&format!("store of {id}")),
            redis: self.redis.clone(),
            line: line.clone(),
            connection: Arc::default(),
        };
        let views =
            SimulatedViews { store: SimulatedStore { dice: shared.dice(&format!("views of {id}")), ..store.clone() } };
        let cluster = Cluster { views: Arc::new(views), peers: Arc::new(peers), address: format!("{name}:1"), serve };
        let webhooks = shared.plan.webhooks.then(|| {
            let dice = shared.dice(&format!("webhooks of {id}"));
            Arc::new(SimulatedWebhooks { shared: shared.clone(), dice }) as Arc<dyn Webhooks>
        });
        let (clock, its_line) = (shared.clone(), line.clone());
        let options = NodeOptions {
            cluster: Some(cluster),
            webhooks,
            limits: shared.plan.limits.clone(),
            clock: Arc::new(move || {
                clock.now_ms().saturating_add_signed(its_line.clock_is_off_by_ms.load(Ordering::SeqCst))
            }),
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
    pub async fn look(&mut self) {
        while let Some(Ok((name, node, line))) = self.starting.try_join_next() {
            self.shared.trace(format_args!("up {name}"));
            lock(&self.handles).insert(name.clone(), node.handle());
            self.running.insert(name, Running { node, line });
        }
        while let Some(Ok(name)) = self.ending.try_join_next() {
            self.board.disconnect(&name);
            self.start(name);
        }
        if self.ending.is_empty()
            && self.starting.is_empty()
            && let Some(name) = self.to_restart.pop_front()
        {
            self.drain(name);
        }
        let mut panicked = Vec::new();
        for (name, running) in &mut self.running {
            if running.node.ended().now_or_never().is_none() {
                continue;
            }
            match running.line.has_panicked.load(Ordering::SeqCst) {
                true => panicked.push(name.clone()),
                false => self.shared.fail(format!("node {name} ended by itself")),
            }
        }
        for name in panicked {
            self.crash(&name, STARTED_AGAIN_AFTER).await;
        }
    }

    /// All tasks that are alive, but for those of shards: a shard that was used stays.
    pub async fn tasks(&self) -> usize {
        let mut shards = 0;
        for handle in self.all_handles() {
            shards += handle.status().await.map_or(0, |status| status.shards_started);
        }
        tokio::runtime::Handle::current().metrics().num_alive_tasks().saturating_sub(shards)
    }

    pub fn all_handles(&self) -> Vec<Handle> {
        lock(&self.handles).values().cloned().collect()
    }

    /// No node holds more than it may.
    pub async fn are_within_limits(&self) {
        let most = self.shared.plan.limits.active_conversations + OVER_THE_LIMIT;
        for handle in self.all_handles() {
            let active = handle.status().await.map_or(0, |status| status.active_conversations);
            if active > most {
                self.shared.fail(format!("a node holds {active} conversations, and may hold {most}"));
            }
        }
    }

    /// Until so many are up, and nothing more is under way.
    pub async fn settle(&mut self, count: usize) {
        let begun = self.shared.elapsed();
        while self.running.len() < count || !self.to_restart.is_empty() {
            if self.shared.elapsed() - begun > SETTLED_MAX {
                return self.shared.fail(format!("{} of {count} nodes are up", self.running.len()));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            self.look().await;
        }
    }

    /// Says whether it was done.
    pub async fn disturb(&mut self, due: &Due) -> bool {
        let (name, other) = (name(due.node), name(due.other));
        let of_all = [Disturbance::StoreDown, Disturbance::ReplicaStalled, Disturbance::Burst];
        let is_to_a_node = !of_all.contains(&due.what);
        if is_to_a_node && !self.running.contains_key(&name) {
            return false;
        }
        self.shared.trace(format_args!("disturb {due:?}"));
        self.shared.count(match due.what {
            Disturbance::Crash => "crashes",
            Disturbance::Drain | Disturbance::RollingRestart => "drains",
            Disturbance::Freeze => "freezes",
            Disturbance::CutFromStore => "cuts from the store",
            Disturbance::CutFromViews => "cuts from the table",
            Disturbance::CutApart | Disturbance::CutOneWay => "cuts between nodes",
            Disturbance::StoreDown => "outages of the store",
            Disturbance::ReplicaStalled => "stalls of the replica",
            Disturbance::Panic => "panics of a node",
            Disturbance::ClockJump => "jumps of a clock",
            Disturbance::Burst => "bursts",
        });
        match due.what {
            Disturbance::Crash => self.crash(&name, due.lasts).await,
            Disturbance::Drain => self.drain(name),
            Disturbance::RollingRestart => self.to_restart = self.running.keys().cloned().collect(),
            Disturbance::Freeze => self.on(&name, |line| line.set(Flow::Frozen)),
            Disturbance::CutFromStore => self.on(&name, |line| line.store_is_cut.store(true, Ordering::SeqCst)),
            Disturbance::CutFromViews => self.on(&name, |line| line.views_are_cut.store(true, Ordering::SeqCst)),
            Disturbance::CutApart => {
                self.board.cut(&name, &other);
                self.board.cut(&other, &name);
            }
            Disturbance::CutOneWay => self.board.cut(&name, &other),
            Disturbance::StoreDown => self.redis.stop(),
            Disturbance::ReplicaStalled => self.redis.stall_replica(true),
            Disturbance::Panic => self.on(&name, |line| line.is_to_panic.store(true, Ordering::SeqCst)),
            Disturbance::ClockJump => {
                let off_by_ms = self.jump();
                self.on(&name, |line| line.clock_is_off_by_ms.store(off_by_ms, Ordering::SeqCst));
            }
            Disturbance::Burst => self.burst(),
        }
        true
    }

    /// Undoes it, where it does not end by itself.
    pub fn undo(&self, due: &Due) {
        let (name, other) = (name(due.node), name(due.other));
        self.shared.trace(format_args!("undo {:?} {name}", due.what));
        match due.what {
            Disturbance::Crash | Disturbance::Drain | Disturbance::RollingRestart | Disturbance::Burst => {}
            Disturbance::Freeze => self.on(&name, |line| line.set(Flow::Open)),
            Disturbance::CutFromStore => self.on(&name, |line| line.store_is_cut.store(false, Ordering::SeqCst)),
            Disturbance::CutFromViews => self.on(&name, |line| line.views_are_cut.store(false, Ordering::SeqCst)),
            Disturbance::CutApart => {
                self.board.mend(&name, &other);
                self.board.mend(&other, &name);
            }
            Disturbance::CutOneWay => self.board.mend(&name, &other),
            Disturbance::StoreDown => self.redis.back(),
            Disturbance::ReplicaStalled => self.redis.stall_replica(false),
            Disturbance::Panic => self.on(&name, |line| line.is_to_panic.store(false, Ordering::SeqCst)),
            Disturbance::ClockJump => self.on(&name, |line| line.clock_is_off_by_ms.store(0, Ordering::SeqCst)),
        }
    }

    /// Ends it, and starts another life of it in a while.
    async fn crash(&mut self, name: &str, after: Duration) {
        let Some(Running { node, line }) = self.running.remove(name) else { return };
        lock(&self.handles).remove(name);
        line.set(Flow::Dead);
        self.board.disconnect(name);
        node.crash().await;
        let name = name.to_owned();
        self.ending.spawn(async move {
            tokio::time::sleep(after).await;
            name
        });
    }

    fn drain(&mut self, name: String) {
        let Some(Running { node, line }) = self.running.remove(&name) else { return };
        lock(&self.handles).remove(&name);
        let (shared, board) = (self.shared.clone(), self.board.clone());
        self.ending.spawn(async move {
            let open = node.drain(DRAIN_MAX).await;
            line.set(Flow::Dead);
            board.disconnect(&name);
            shared.trace(format_args!("drained {name} with {open} open turns"));
            name
        });
    }

    /// Of a clock: some minutes, or some days.
    fn jump(&self) -> i64 {
        let minutes = *self.dice.pick(&[2, 60, 3_000]).expect("there are some") * self.dice.between(1, 5);
        let ms = (minutes * 60_000) as i64;
        if self.dice.permille(500) { ms } else { -ms }
    }

    /// More turns than a small node takes, in conversations that are there.
    fn burst(&mut self) {
        let living = self.shared.ledger().living();
        for place in 0..BURST {
            let Some(conversation) = self.dice.pick(&living).copied() else { return };
            self.lives += 1;
            let name = format!("b{}-{place}", self.lives);
            let mut client = Client::new(&name, self.shared.clone(), self.handles.clone());
            self.burst.spawn(async move { client.leave_turn(conversation).await });
        }
    }

    /// Until all that came in bursts have been answered, or have given up.
    pub async fn burst_is_over(&mut self) {
        while self.burst.join_next().await.is_some() {}
    }

    fn on(&self, name: &str, change: impl FnOnce(&Line)) {
        if let Some(line) = self.lines.get(name) {
            change(line);
        }
    }
}
