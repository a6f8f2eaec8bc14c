//! Which shards go to whom, and how their new owners take up what is open there.

use std::collections::{BTreeSet, VecDeque};

use klatch_actors::node::ROWS_AT_ONCE;
use klatch_protocol::ids::SHARDS;

use super::cluster::{Cluster, Event};
use super::table::Table;
use crate::dice::{Dice, mixed};
use crate::inputs;
use crate::redis::Command;

/// A conversation on its way into the memory of a node.
#[derive(Clone, Copy)]
pub struct Activation {
    pub why: Why,
    /// Where its log is.
    pub primary: usize,
}

#[derive(Clone, Copy)]
pub enum Why {
    /// Its turn is open.
    Open {
        node: usize,
    },
    Message {
        asked_ns: u64,
    },
}

/// What comes next, in this order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Look,
    End,
    Verify,
    Claim,
    Read,
    Fold,
    Serve,
    Saved,
}

/// All shards, through all views.
pub struct Shards {
    nodes: usize,
    /// Owners, each from so many burials on.
    owners: Vec<Vec<(u64, usize)>>,
    /// Open turns of each.
    open: Vec<usize>,
    /// Logs of open turns that lost their owner and were not taken up, by primary.
    left: Vec<Vec<usize>>,
    /// Shards of those that die, each with which of its conversations in memory were asked for since.
    lost: Vec<(u16, BTreeSet<usize>)>,
    doomed: BTreeSet<usize>,
    /// Open turns of those that die.
    pub orphans: usize,
}

impl Shards {
    pub fn new(nodes: usize, owners: &[usize], doomed: &BTreeSet<usize>, primaries: usize, dice: &mut Dice) -> Self {
        let mean = inputs::TURNS_PER_NODE * inputs::TURN_SECS * nodes as f64 / f64::from(SHARDS);
        let open: Vec<usize> =
            owners.iter().map(|_| mean as usize + usize::from(dice.share() < mean.fract())).collect();
        let is_lost = |shard: usize| doomed.contains(&owners[shard]);
        let left: Vec<Vec<usize>> = (0..open.len())
            .map(|shard| (0..open[shard]).filter(|_| is_lost(shard)).map(|_| dice.below(primaries)).collect())
            .collect();
        let lost = (0..SHARDS).filter(|shard| is_lost(usize::from(*shard))).map(|shard| (shard, BTreeSet::new()));
        let orphans = left.iter().map(Vec::len).sum();
        let owners = owners.iter().map(|owner| vec![(0, *owner)]).collect();
        Self { nodes, owners, open, left, lost: lost.collect(), doomed: doomed.clone(), orphans }
    }

    /// In the view with so many burials.
    pub fn owner(&self, shard: u16, buried: u64) -> usize {
        let (_, owner) = self.owners[usize::from(shard)]
            .iter()
            .rev()
            .find(|(since, _)| *since <= buried)
            .expect("each has an owner from the first view on");
        *owner
    }

    /// Somebody was buried just now: there are other owners.
    pub fn place(&mut self, table: &Table) {
        for shard in 0..SHARDS {
            let (owners, owner) = (&mut self.owners[usize::from(shard)], table.owner(shard));
            if owners.last().is_some_and(|(_, before)| *before != owner) {
                owners.push((table.burials(), owner));
            }
        }
    }

    /// To the next message for a conversation of a shard that was lost.
    pub fn next_message_us(&self, dice: &mut Dice) -> Option<u64> {
        let per_shard = inputs::TURNS_PER_NODE * self.nodes as f64 / f64::from(SHARDS);
        (!self.lost.is_empty()).then(|| dice.gap_us(per_shard * self.lost.len() as f64))
    }

    /// The shard of a conversation that must be activated for its message; none where its new owner has it in memory. As
    /// long as there is no new owner each message is served by whoever got it.
    pub fn addressed(&mut self, dice: &mut Dice) -> Option<u16> {
        let nth = dice.below(self.lost.len());
        let (shard, asked) = &mut self.lost[nth];
        let in_memory = (inputs::IN_MEMORY_PER_NODE * self.nodes as f64 / f64::from(SHARDS)).ceil() as usize;
        let (was_in_memory, conversation) = (dice.share() < inputs::WARM_SHARE, dice.below(in_memory));
        let (_, owner) = self.owners[usize::from(*shard)].last().expect("each has an owner from the first view on");
        if was_in_memory && !self.doomed.contains(owner) && !asked.insert(conversation) {
            return None;
        }
        Some(*shard)
    }
}

/// What one node does about open turns.
pub struct TakeUp {
    /// Burials in the newest view that it knows.
    pub view: u64,
    mine: BTreeSet<u16>,
    /// To be read: what it got, and behind that what it had before somebody was lost.
    gained: BTreeSet<u16>,
    again: BTreeSet<u16>,
    /// When it knows whose the shards are in this view.
    placed_ns: u64,
    /// By the primary of its log, each turn that is to be activated.
    to_activate: VecDeque<usize>,
    activating: usize,
    /// A shard's set is being read, or placement worked out.
    reading: bool,
}

impl TakeUp {
    pub fn new(owners: &[usize], node: usize) -> Self {
        Self {
            view: 0,
            mine: (0..SHARDS).filter(|shard| owners[usize::from(*shard)] == node).collect(),
            gained: BTreeSet::new(),
            again: BTreeSet::new(),
            placed_ns: 0,
            to_activate: VecDeque::new(),
            activating: 0,
            reading: false,
        }
    }
}

impl Cluster {
    /// Everybody that knows of a loss looks at all shards that are its own.
    pub fn new_view(&mut self, node: usize, burials: u64) {
        let placing_us = inputs::PLACE_US * self.nodes_now() as f64 * f64::from(SHARDS);
        let placed_ns = self.now_ns + (placing_us * 1e3) as u64;
        let mine: BTreeSet<u16> = (0..SHARDS).filter(|shard| self.shards.owner(*shard, burials) == node).collect();
        let take_up = &mut self.take_ups[node];
        (take_up.view, take_up.placed_ns) = (burials, placed_ns);
        take_up.gained.extend(mine.difference(&take_up.mine));
        take_up.gained.retain(|shard| mine.contains(shard));
        take_up.again = mine.difference(&take_up.gained).copied().collect();
        take_up.mine = mine;
        if !take_up.reading && take_up.to_activate.is_empty() {
            self.look_at_next_shard(node);
        }
    }

    pub fn look_at_next_shard(&mut self, node: usize) {
        let take_up = &mut self.take_ups[node];
        take_up.reading = true;
        if self.now_ns < take_up.placed_ns {
            let placed_ns = take_up.placed_ns;
            return self.at(placed_ns, Event::Placed(node));
        }
        let Some(shard) = take_up.gained.pop_first().or_else(|| take_up.again.pop_first()) else {
            take_up.reading = false;
            return;
        };
        let rows = self.shards.open[usize::from(shard)];
        debug_assert!(rows < ROWS_AT_ONCE, "one page is enough under this load");
        let primary = (mixed(u64::from(shard)) % self.redis.primaries() as u64) as usize;
        let answered_ns = self.redis.send(self.now_ns, primary, Command::ReadOpen(rows));
        self.at(answered_ns, Event::OpenRead { node, shard });
    }

    /// Rows of turns that go on here already cost a message within the node: nothing here.
    pub fn open_read(&mut self, node: usize, shard: u16) {
        let found = std::mem::take(&mut self.shards.left[usize::from(shard)]);
        self.take_ups[node].to_activate.extend(found);
        self.take_ups[node].reading = false;
        self.activate_more(node);
    }

    /// As many as may be at once; when all of a shard are under way the next shard is looked at.
    fn activate_more(&mut self, node: usize) {
        while self.take_ups[node].activating < self.recoveries_at_once() {
            let Some(primary) = self.take_ups[node].to_activate.pop_front() else { break };
            self.take_ups[node].activating += 1;
            self.step(Activation { why: Why::Open { node }, primary }, Step::Look);
        }
        let take_up = &self.take_ups[node];
        if take_up.to_activate.is_empty() && !take_up.reading {
            self.look_at_next_shard(node);
        }
    }

    pub fn step(&mut self, activation: Activation, step: Step) {
        let (command, next) = match step {
            Step::Look => (Command::ReadLog, Step::End),
            Step::End => (Command::LogEnd, Step::Verify),
            Step::Verify => (Command::LogEnd, Step::Claim),
            Step::Claim => (Command::Claim, Step::Read),
            Step::Read => (Command::ReadLog, Step::Fold),
            Step::Fold => {
                let folded_ns = self.now_ns + inputs::ACTIVATE_US * 1_000;
                return self.at(folded_ns, Event::Step(activation, Step::Serve));
            }
            Step::Serve => {
                if let Why::Open { node } = activation.why {
                    self.take_ups[node].activating -= 1;
                    self.activate_more(node);
                }
                (Command::Append, Step::Saved)
            }
            Step::Saved => {
                return match activation.why {
                    Why::Open { .. } => self.seen.recovered_ns.push(self.now_ns),
                    Why::Message { asked_ns } => self.seen.messages_waited_ns.push(self.now_ns - asked_ns),
                };
            }
        };
        let answered_ns = self.redis.send(self.now_ns, activation.primary, command);
        self.at(answered_ns, Event::Step(activation, next));
    }
}
