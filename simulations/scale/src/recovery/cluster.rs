//! All nodes and their Redis, event by event.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use klatch_actors::membership::decide::{BEAT_EVERY_MS, Effect, Input, Membership};
use klatch_actors::node::SERVE_HERE_AFTER;

use super::outcome::{Outcome, Seen};
use super::table::{FIRST_NUMBER, Table};
use super::take_up::{Activation, Shards, Step, TakeUp, Why};
use super::{DEATH_NS, Loss, Scenario};
use crate::dice::Dice;
use crate::inputs;
use crate::nodes;
use crate::redis::{Command, Redis};

const BEAT_EVERY_NS: u64 = BEAT_EVERY_MS * 1_000_000;
/// Even when all is recovered this long is watched, so that messages for conversations that wait come too...
const WATCHED_NS: u64 = DEATH_NS + 15_000_000_000;
/// ...and what is not recovered then is given up and told.
const END_NS: u64 = DEATH_NS + 300_000_000_000;
/// Requests to a host that vanished hang until its link is given up for dead.
const SUSPECTED_NS: u64 = DEATH_NS + inputs::SUSPECT_US * 1_000;

pub enum Event {
    Tick(usize),
    Answer(usize, Input),
    Die,
    /// The node has worked out which shards are its own.
    Placed(usize),
    OpenRead {
        node: usize,
        shard: u16,
    },
    Step(Activation, Step),
    /// For a conversation of a node that died.
    Message,
    ServeHere(u32),
}

/// A message for a conversation whose owner is dead.
#[derive(Clone, Copy)]
struct Waiting {
    at_ns: u64,
    shard: u16,
    edge: usize,
    primary: usize,
    over: bool,
}

struct Node {
    core: Membership,
    beaten_at_ns: u64,
    beat_sent_at_ns: u64,
    waiting: Vec<u32>,
}

pub struct Cluster {
    scenario: Scenario,
    pub now_ns: u64,
    queue: BinaryHeap<Reverse<Queued>>,
    queued: u64,
    dice: Dice,
    pub redis: Redis,
    table: Table,
    nodes: Vec<Node>,
    doomed: BTreeSet<usize>,
    alive: Vec<usize>,
    pub take_ups: Vec<TakeUp>,
    pub shards: Shards,
    messages: Vec<Waiting>,
    pub seen: Seen,
}

struct Queued {
    at: (u64, u64),
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

pub fn run(scenario: Scenario) -> Outcome {
    let mut cluster = Cluster::new(scenario);
    while let Some(Reverse(Queued { at: (at_ns, _), event })) = cluster.queue.pop() {
        cluster.now_ns = at_ns;
        if cluster.is_over() {
            break;
        }
        cluster.on(event);
    }
    cluster.outcome()
}

impl Cluster {
    fn new(scenario: Scenario) -> Self {
        let names = nodes::names(scenario.nodes);
        let mut dice = Dice::new(scenario.seed);
        let owners = nodes::owners(&names);
        let doomed = doomed(scenario, &owners, &mut dice);
        let alive = (0..scenario.nodes).filter(|node| !doomed.contains(node)).collect();
        let table = Table::new(names.clone(), &doomed.iter().copied().collect::<Vec<_>>());
        let redis = Redis::new(scenario.nodes);
        let shards = Shards::new(scenario.nodes, &owners, &doomed, redis.primaries(), &mut dice);
        let take_ups = (0..scenario.nodes).map(|node| TakeUp::new(&owners, node)).collect();
        let nodes = names.iter().map(|name| Node::inside(name, &table)).collect();
        let mut cluster = Self {
            scenario,
            now_ns: 0,
            queue: BinaryHeap::new(),
            queued: 0,
            dice,
            redis,
            table,
            nodes,
            doomed,
            alive,
            take_ups,
            shards,
            messages: Vec::new(),
            seen: Seen::default(),
        };
        for node in 0..scenario.nodes {
            let phase_ns = cluster.dice.below(BEAT_EVERY_NS as usize) as u64;
            cluster.at(phase_ns, Event::Tick(node));
        }
        cluster.at(DEATH_NS, Event::Die);
        cluster
    }

    pub fn at(&mut self, at_ns: u64, event: Event) {
        self.queued += 1;
        self.queue.push(Reverse(Queued { at: (at_ns, self.queued), event }));
    }

    pub fn recoveries_at_once(&self) -> usize {
        self.scenario.recoveries_at_once
    }

    /// In the table.
    pub fn nodes_now(&self) -> usize {
        self.table.rows()
    }

    fn is_over(&self) -> bool {
        let recovered = self.table.buried() == self.doomed.len() && self.seen.recovered_ns.len() == self.shards.orphans;
        self.now_ns >= END_NS || (recovered && self.now_ns >= WATCHED_NS)
    }

    fn is_dead(&self, node: usize) -> bool {
        self.now_ns >= DEATH_NS && self.doomed.contains(&node)
    }

    fn on(&mut self, event: Event) {
        match event {
            Event::Tick(node) if self.is_dead(node) => {}
            Event::Tick(node) => {
                self.at(self.now_ns + BEAT_EVERY_NS, Event::Tick(node));
                self.decide(node, Input::Tick);
            }
            Event::Answer(node, input) => {
                if matches!(input, Input::Beaten(_)) {
                    self.seen.beat_took(self.now_ns, self.now_ns - self.nodes[node].beat_sent_at_ns);
                }
                self.decide(node, input);
            }
            Event::Die => self.next_message(),
            Event::Placed(node) => self.look_at_next_shard(node),
            Event::OpenRead { node, shard } => self.open_read(node, shard),
            Event::Step(activation, step) => self.step(activation, step),
            Event::Message => self.message(),
            Event::ServeHere(message) => self.serve_here(message),
        }
    }

    fn decide(&mut self, node: usize, input: Input) {
        if self.is_dead(node) {
            return;
        }
        for effect in self.nodes[node].core.decide(self.now_ns / 1_000_000, input) {
            self.carry_out(node, effect);
        }
    }

    /// The scripts of one primary take effect in the order in which they are sent.
    fn carry_out(&mut self, node: usize, effect: Effect) {
        match effect {
            Effect::Beat => {
                let answered_ns = self.redis.send(self.now_ns, 0, Command::Beat(self.table.rows()));
                self.beaten(node, answered_ns);
                let beat = self.table.beat(node);
                self.at(answered_ns, Event::Answer(node, Input::Beaten(Some(beat))));
            }
            Effect::Read => {
                let answered_ns = self.redis.send(self.now_ns, 0, Command::ReadView(self.table.rows()));
                let table = self.table.read();
                self.at(answered_ns, Event::Answer(node, Input::Read(table)));
            }
            Effect::Bury { still, number } => {
                let answered_ns = self.redis.send(self.now_ns, 0, Command::Bury(still.len()));
                let dead = self.table.bury(&still, number);
                if !dead.is_empty() {
                    self.seen.buried_ns.extend(dead.iter().map(|_| answered_ns));
                    self.shards.place(&self.table);
                }
                self.at(answered_ns, Event::Answer(node, Input::Buried(!dead.is_empty())));
            }
            Effect::Probe(peer) => {
                let refused = self.scenario.loss == Loss::OneKilled;
                let after_us = if refused { 2 * inputs::ONE_WAY_US } else { inputs::KNOCK_US };
                let (name, incarnation) = (peer.id.name.to_string(), peer.id.incarnation);
                let probed = Input::Probed { name, incarnation, refused };
                self.at(self.now_ns + after_us * 1_000, Event::Answer(node, probed));
            }
            Effect::Tell(view) => self.told(node, view.number() - FIRST_NUMBER),
            Effect::Join(_) | Effect::Set(_) => unreachable!("all are in the table, and change nothing"),
            Effect::Drop | Effect::End => unreachable!("a living node's row is never taken out"),
        }
    }

    fn beaten(&mut self, node: usize, answered_ns: u64) {
        let known = &mut self.nodes[node];
        known.beat_sent_at_ns = self.now_ns;
        let before_ns = std::mem::replace(&mut known.beaten_at_ns, answered_ns);
        if before_ns > 0 {
            self.seen.stood_still(answered_ns - before_ns);
        }
    }

    /// A new view, behind so many burials.
    fn told(&mut self, node: usize, burials: u64) {
        self.seen.told_ns = self.now_ns;
        self.new_view(node, burials);
        for message in std::mem::take(&mut self.nodes[node].waiting) {
            self.pass(message);
        }
    }

    fn next_message(&mut self) {
        if let Some(gap_us) = self.shards.next_message_us(&mut self.dice) {
            self.at(self.now_ns + gap_us * 1_000, Event::Message);
        }
    }

    fn message(&mut self) {
        self.next_message();
        let Some(shard) = self.shards.addressed(&mut self.dice) else { return };
        let edge = self.alive[self.dice.below(self.alive.len())];
        let primary = self.dice.below(self.redis.primaries());
        let number = self.messages.len() as u32;
        self.messages.push(Waiting { at_ns: self.now_ns, shard, edge, primary, over: false });
        self.pass(number);
    }

    /// To its owner in the view of the edge, if that is alive; else it waits for another view.
    fn pass(&mut self, number: u32) {
        let message = self.messages[number as usize];
        if message.over {
            return;
        }
        let owner = self.shards.owner(message.shard, self.take_ups[message.edge].view);
        if !self.doomed.contains(&owner) {
            return self.serve(number, 2 * inputs::ONE_WAY_US * 1_000);
        }
        self.nodes[message.edge].waiting.push(number);
        if message.at_ns == self.now_ns {
            let mut after_ns = self.now_ns + SERVE_HERE_AFTER.as_nanos() as u64;
            if self.scenario.loss != Loss::OneKilled {
                // Each link beats in a phase of its own.
                after_ns = after_ns.max(SUSPECTED_NS + 1_000 * self.dice.below(inputs::LINK_BEAT_US) as u64);
            }
            self.at(after_ns, Event::ServeHere(number));
        }
    }

    fn serve_here(&mut self, number: u32) {
        if !self.messages[number as usize].over {
            self.serve(number, 0);
        }
    }

    fn serve(&mut self, number: u32, way_ns: u64) {
        let message = &mut self.messages[number as usize];
        message.over = true;
        let activation = Activation { why: Why::Message { asked_ns: message.at_ns }, primary: message.primary };
        self.at(self.now_ns + way_ns, Event::Step(activation, Step::Look));
    }

    fn outcome(self) -> Outcome {
        let lost = self.doomed.len();
        self.seen.outcome(self.scenario, lost, self.shards.orphans, &self.redis)
    }
}

impl Node {
    /// A member already, with the table read.
    fn inside(name: &str, table: &Table) -> Self {
        let mut core = Membership::new(name.to_owned(), nodes::row(name));
        for input in [Input::Tick, Input::Joined(true), Input::Read(table.read())] {
            core.decide(0, input);
        }
        Self { core, beaten_at_ns: 0, beat_sent_at_ns: 0, waiting: Vec::new() }
    }
}

fn doomed(scenario: Scenario, owners: &[usize], dice: &mut Dice) -> BTreeSet<usize> {
    let owned = |node: usize| owners.iter().filter(|owner| **owner == node).count();
    match scenario.loss {
        Loss::OneKilled | Loss::OneVanished => {
            (0..scenario.nodes).max_by_key(|node| owned(*node)).into_iter().collect()
        }
        Loss::ThirdVanished => {
            let mut doomed = BTreeSet::new();
            while doomed.len() < scenario.nodes / 3 {
                doomed.insert(dice.below(scenario.nodes));
            }
            doomed
        }
    }
}
