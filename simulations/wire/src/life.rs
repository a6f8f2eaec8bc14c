//! A world from its begin to its end: its hosts are started, disturbed as the seed says, left in peace, and all that
//! clients still want must come.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use klatch::auth::Auth;
use klatch::stores::memory_records::MemoryRecords;
use klatch_world::entropy;
use tokio::sync::watch;
use turmoil::Sim;

use crate::client::Client;
use crate::clock;
use crate::net::{Wire, Wires};
use crate::node::{self, Common};
use crate::overheard::hearing;
use crate::plan::{FAULTS, Fault, Plan};
use crate::planted::Planted;
use crate::shared::Shared;
use crate::twin::sentinel;
use crate::twin::server::{Redis, Role};

/// Time moves in steps of it, on each host.
const TICK: Duration = Duration::from_millis(1);
/// Segments of a connection, each a write, that wait to be read.
const SEGMENTS_MAX: usize = 4_096;
/// In peace everything is answered within it.
const PEACE_MAX: Duration = Duration::from_secs(60);
/// Before the first fault all nodes have met.
const QUIET_BEGIN: Duration = Duration::from_secs(2);
/// What a replica that takes over is known after.
const NOTICED_AFTER: Duration = Duration::from_millis(600);
const SLOW: Duration = Duration::from_millis(250);
const SENTINEL: &str = "sentinel";
const TOKENS_LIVE: Duration = Duration::from_secs(3_600);

pub struct Outcome {
    pub plan: Plan,
    pub failure: Option<String>,
    pub simulated: Duration,
    pub trace: u64,
    pub counts: BTreeMap<String, u64>,
}

/// Lives a world on a thread of its own.
pub fn live(seed: u64, planted: Option<Planted>, trace_is_shown: bool) -> Result<Outcome> {
    // Made by whatever randomness there is: its name is in no world.
    let folder = tempfile::tempdir()?;
    let secret_file = folder.path().join("secret");
    std::fs::write(&secret_file, "what signs the tokens of a simulated world")?;
    clock::set(Duration::ZERO);
    entropy::seeded(seed);
    let world = std::thread::spawn(move || {
        let shared = Arc::new(Shared::new(seed, planted, trace_is_shown));
        hearing(shared.clone(), || World::new(shared, secret_file)?.live())
    });
    world.join().map_err(|_| anyhow!("a panic outside of all hosts"))?
}

struct World {
    shared: Arc<Shared>,
    plan: Plan,
    sim: Sim<'static>,
    wires: Wires,
    redis: Vec<Rc<Redis>>,
    master: Rc<watch::Sender<String>>,
    /// What ends a fault, and when.
    mends: Vec<(Duration, Mend)>,
    /// Links that say nothing, since when.
    silent: Vec<(Duration, (IpAddr, IpAddr))>,
}

#[derive(Clone, Debug)]
enum Mend {
    Start(String),
    /// What was sent meanwhile is lost.
    Repair(String, String),
    Release(String, String),
    Fast(String, String),
    /// The old master learns that it is one no more.
    Demote {
        old: usize,
        new: usize,
    },
    Announce(usize),
}

impl World {
    fn new(shared: Arc<Shared>, secret_file: PathBuf) -> Result<Self> {
        let plan = Plan::draw(&shared.dice);
        let mut sim = turmoil::Builder::new()
            .rng_seed(shared.dice.throw())
            .tick_duration(TICK)
            .simulation_duration(Duration::from_secs(3_600))
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(plan.latency_max)
            .tcp_capacity(SEGMENTS_MAX)
            .build();
        let wires = Wires::default();
        let net = Wire(wires.clone());
        let names = plan.redis_names();
        let master = Rc::new(watch::channel(names[0].clone()).0);
        let mut redis = Vec::new();
        for (place, name) in names.iter().enumerate() {
            let role = if place == 0 { Role::Master } else { Role::Replica { of: names[0].clone() } };
            let server = Redis::new(name, role, plan.lag, shared.clone());
            redis.push(server.clone());
            let net = net.clone();
            sim.host(name.as_str(), move || server.clone().serve(net.clone()));
        }
        let store = if plan.has_replica {
            let (master, net) = (master.clone(), net.clone());
            sim.host(SENTINEL, move || sentinel::serve(master.clone(), net.clone()));
            format!("redis+sentinel://{SENTINEL}:{}/world", sentinel::PORT)
        } else {
            format!("redis://{}:{}", names[0], crate::twin::server::PORT)
        };
        let auth = Auth::open(&node::auth_options(secret_file.clone()), Arc::new(MemoryRecords::default()), None)?;
        let token = auth.issue("ann", "home", TOKENS_LIVE).context("a token")?.reveal().to_owned();
        let lives = Rc::new(Cell::new(0));
        let common =
            Common { shared: shared.clone(), net: net.clone(), store, secret_file, lives, former: Arc::default() };
        for name in plan.node_names() {
            let common = common.clone();
            sim.host(name.clone(), move || node::serve(name.clone(), common.clone()));
        }
        for name in plan.client_names() {
            let (shared, net, nodes) = (shared.clone(), net.clone(), plan.node_names());
            let client = Client { name: name.clone(), shared, net, nodes, token: token.clone() };
            sim.client(name, client.run(plan.turns, plan.disturbed_for));
        }
        Ok(Self { shared, plan, sim, wires, redis, master, mends: Vec::new(), silent: Vec::new() })
    }

    fn live(mut self) -> Result<Outcome> {
        let mut next_at = QUIET_BEGIN;
        let mut is_peaceful = false;
        while self.shared.failure().is_none() {
            let now = self.sim.elapsed();
            clock::set(now);
            match self.sim.step() {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) => self.shared.fail(format_args!("a host ended: {error}")),
            }
            self.mend(now);
            self.watch_over(now);
            if !is_peaceful && now >= self.plan.disturbed_for {
                is_peaceful = true;
                self.shared.trace("peace");
                self.mend(Duration::MAX);
            } else if !is_peaceful && now >= next_at {
                self.disturb(now);
                next_at = now + self.shared.dice.up_to(self.plan.disturbed_every * 2);
            }
            if now >= self.plan.disturbed_for + PEACE_MAX {
                self.shared.fail("a client still waits when all faults are long over");
            }
        }
        let (simulated, shared) = (self.sim.elapsed(), self.shared.clone());
        let failure = shared.failure();
        Ok(Outcome { plan: self.plan, failure, simulated, trace: shared.trace_hash(), counts: shared.counts() })
    }

    fn hosts(&self, a: &str, b: &str) -> (IpAddr, IpAddr) {
        (self.sim.lookup(a), self.sim.lookup(b))
    }

    /// A node, and another node, a server or a client.
    fn pair(&self) -> (String, String) {
        let dice = &self.shared.dice;
        let nodes = self.plan.node_names();
        let node = dice.pick(&nodes).cloned().expect("a world has nodes");
        let others: Vec<String> = self.plan.host_names().into_iter().filter(|other| *other != node).collect();
        let other = dice.pick(&others).cloned().expect("a world has others");
        (node, other)
    }

    fn disturb(&mut self, now: Duration) {
        let (dice, (node, other)) = (self.shared.dice.clone(), self.pair());
        let fault = *dice.pick(&FAULTS).expect("there are faults");
        let over_at = now + Duration::from_millis(dice.between(200, 7_000));
        self.shared.trace(format_args!("{fault:?} {node} {other}"));
        let hosts = self.hosts(&node, &other);
        match fault {
            Fault::Crash if self.sim.is_host_running(node.as_str()) => {
                self.sim.crash(node.as_str());
                self.shared.count("crashes", 1);
                self.mends.push((over_at, Mend::Start(node)));
            }
            Fault::Bounce if self.sim.is_host_running(node.as_str()) => {
                self.sim.bounce(node.as_str());
                self.shared.count("bounces", 1);
            }
            Fault::RestartRedis => {
                let name = dice.pick(&self.plan.redis_names()).cloned().expect("there is one");
                if self.sim.is_host_running(name.as_str()) {
                    self.sim.crash(name.as_str());
                    self.shared.count("restarts of Redis", 1);
                    self.mends.push((over_at, Mend::Start(name)));
                }
            }
            Fault::FailOver if self.plan.has_replica => self.fail_over(now),
            Fault::Cut => {
                self.open_ends(hosts);
                self.sim.partition(node.as_str(), other.as_str());
                self.shared.count("cuts", 1);
                self.silent.push((now, hosts));
                self.mends.push((over_at, Mend::Repair(node, other)));
            }
            Fault::CutOneWay => {
                self.open_ends(hosts);
                let (from, to) = if dice.permille(500) { (&node, &other) } else { (&other, &node) };
                self.sim.partition_oneway(from.as_str(), to.as_str());
                self.shared.count("cuts of one way", 1);
                self.silent.push((now, hosts));
                self.mends.push((over_at, Mend::Repair(node, other)));
            }
            Fault::Hold => {
                self.shared.count("holds", 1);
                self.hold(now, over_at, node, other);
            }
            Fault::Freeze => {
                self.shared.count("freezes", 1);
                for other in self.plan.host_names().into_iter().filter(|other| *other != node) {
                    self.hold(now, over_at, node.clone(), other);
                }
            }
            Fault::Reset => self.shared.count("connections reset", self.wires.reset(hosts)),
            Fault::Slow => {
                self.sim.set_link_max_message_latency(node.as_str(), other.as_str(), SLOW);
                self.shared.count("slow links", 1);
                self.mends.push((over_at, Mend::Fast(node, other)));
            }
            Fault::Crash | Fault::Bounce | Fault::FailOver => {}
        }
    }

    fn hold(&mut self, now: Duration, over_at: Duration, node: String, other: String) {
        let hosts = self.hosts(&node, &other);
        self.open_ends(hosts);
        self.sim.hold(node.as_str(), other.as_str());
        self.silent.push((now, hosts));
        self.mends.push((over_at, Mend::Release(node, other)));
    }

    fn open_ends(&self, hosts: (IpAddr, IpAddr)) {
        self.shared.count("half-open connections", self.wires.open(hosts));
    }

    /// The replica becomes the master; the old one may go on believing that it is one for a while.
    fn fail_over(&mut self, now: Duration) {
        let Some(old) = self.redis.iter().position(|redis| redis.name == *self.master.borrow()) else { return };
        let new = 1 - old;
        let is_master = |place: usize| *self.redis[place].role.borrow() == Role::Master;
        // One failover after the other, and a replica that is there.
        if is_master(new) || !is_master(old) || !self.sim.is_host_running(self.redis[new].name.as_str()) {
            return;
        }
        self.shared.count("failovers", 1);
        if self.shared.dice.permille(500) && self.sim.is_host_running(self.redis[old].name.as_str()) {
            self.sim.crash(self.redis[old].name.as_str());
            self.mends.push((now + self.shared.dice.secs(1, 4), Mend::Start(self.redis[old].name.clone())));
        }
        self.redis[new].role.send_replace(Role::Master);
        self.mends.push((now + NOTICED_AFTER, Mend::Announce(new)));
        self.mends.push((now + self.shared.dice.secs(1, 3), Mend::Demote { old, new }));
    }

    fn mend(&mut self, now: Duration) {
        let (due, later) = std::mem::take(&mut self.mends).into_iter().partition(|(at, _)| *at <= now);
        self.mends = later;
        let due: Vec<(Duration, Mend)> = due;
        for (_, mend) in due {
            self.shared.trace(format_args!("{mend:?}"));
            match mend {
                Mend::Start(name) if !self.sim.is_host_running(name.as_str()) => self.sim.bounce(name.as_str()),
                Mend::Start(_) => {}
                Mend::Repair(a, b) => {
                    self.sim.repair(a.as_str(), b.as_str());
                    let hosts = self.hosts(&a, &b);
                    self.over(hosts);
                    // What was sent meanwhile is lost here, and would not be in TCP: no watched connection goes on.
                    let broken = self.wires.silent_for(hosts, Duration::MAX);
                    self.shared.count("connections given up", broken);
                }
                Mend::Release(a, b) => {
                    self.sim.release(a.as_str(), b.as_str());
                    let hosts = self.hosts(&a, &b);
                    self.over(hosts);
                }
                Mend::Fast(a, b) => {
                    self.sim.set_link_max_message_latency(a.as_str(), b.as_str(), self.plan.latency_max);
                }
                Mend::Announce(new) => drop(self.master.send_replace(self.redis[new].name.clone())),
                Mend::Demote { old, new } => {
                    let of = self.redis[new].name.clone();
                    self.redis[old].role.send_replace(Role::Replica { of });
                }
            }
        }
    }

    fn over(&mut self, hosts: (IpAddr, IpAddr)) {
        self.silent.retain(|(_, silent)| *silent != hosts);
    }

    /// As `TCP_USER_TIMEOUT` and keepalive do.
    fn watch_over(&mut self, now: Duration) {
        for (since, hosts) in self.silent.clone() {
            let broken = self.wires.silent_for(hosts, now - since);
            self.shared.count("connections given up", broken);
        }
    }
}
