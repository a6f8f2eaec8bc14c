//! What a seed decides before anything happens: how large the world is, which kinds of faults exist in it, how often each
//! comes, and what is done to which node when. Most seeds lack most faults, so that each is also seen without the others
//! (swarm testing).
//!
//! A plan is made of named parts, so that one that fails can be cut down to those that it needs ([`Reduction`]).

use std::fmt;
use std::time::Duration;

use klatch_actors::Limits;

use crate::dice::Dice;

#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub nodes: usize,
    pub clients: usize,
    pub conversations: usize,
    /// Of virtual time, before all faults end.
    pub lasts: Duration,
    /// Between two requests of one client, at most.
    pub clients_pause: Duration,
    /// The store is a master with a replica, and may fail over.
    pub replicated: bool,
    /// Webhooks are told of the ends of turns.
    pub webhooks: bool,
    pub faults: Faults,
    /// In the order in which they happen.
    pub disturbances: Vec<Due>,
    pub limits: Limits,
}

/// What can go wrong with every single operation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub store: StoreFaults,
    pub views: ViewsFaults,
    pub peers: PeersFaults,
    pub responder: ResponderFaults,
    pub webhook: WebhookFaults,
}

/// Rates are per thousand.
#[derive(Clone, Copy, Debug, Default)]
pub struct StoreFaults {
    pub latency: Duration,
    /// Refused before it is done.
    pub refused: u64,
    /// Done, and the answer is lost.
    pub lost: u64,
    /// The answer is lost, and it is done later than that is known.
    pub late: u64,
    /// Takes a second or two.
    pub stalled: u64,
    /// Until the replica has it, at most, where there is one.
    pub replica_lag: Duration,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct ViewsFaults {
    pub latency: Duration,
    pub refused: u64,
    pub lost: u64,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct PeersFaults {
    pub latency: Duration,
    pub lost: u64,
    /// Asked twice; the second answer is dropped.
    pub doubled: u64,
    /// Takes a second or two.
    pub late: u64,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct ResponderFaults {
    /// Between two words, at most.
    pub pause: Duration,
    pub fails: u64,
    pub stops: u64,
    pub panics: u64,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct WebhookFaults {
    /// Half of these calls are heard all the same.
    pub fails: u64,
}

/// Something that is done to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    pub at: Duration,
    pub what: Disturbance,
    /// Its place, from 0, where it is done to a node. What cannot be done to it then, because it is down, is not done.
    pub node: usize,
    /// Of two nodes that are cut apart.
    pub other: usize,
    /// Until it is undone, where it can be.
    pub lasts: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturbance {
    Crash,
    Drain,
    /// Of all nodes, one after the other.
    RollingRestart,
    Freeze,
    CutFromStore,
    CutFromViews,
    CutApart,
    /// `node` does not reach `other`; the other way is open.
    CutOneWay,
    /// Away for a while, and back with all it held; or its replica takes its place, with what that has got.
    StoreDown,
    /// It gets nothing for a while.
    ReplicaStalled,
    /// A handler of its gateway panics: the node ends, and is started again.
    Panic,
    /// Its wall clock is wrong for a while, by minutes or days, in either direction.
    ClockJump,
    /// Many turns at once, of as many clients.
    Burst,
}

const DISTURBANCES: [Disturbance; 13] = [
    Disturbance::Crash,
    Disturbance::Drain,
    Disturbance::RollingRestart,
    Disturbance::Freeze,
    Disturbance::CutFromStore,
    Disturbance::CutFromViews,
    Disturbance::CutApart,
    Disturbance::CutOneWay,
    Disturbance::StoreDown,
    Disturbance::ReplicaStalled,
    Disturbance::Panic,
    Disturbance::ClockJump,
    Disturbance::Burst,
];

/// What is left out of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reduction {
    /// The parts that stay; none: all of them.
    pub only: Option<Vec<String>>,
    pub nodes: Option<usize>,
    pub clients: Option<usize>,
    pub conversations: Option<usize>,
    pub lasts_secs: Option<u64>,
}

impl Plan {
    pub fn draw(seed: u64) -> Self {
        let dice = Dice::of(seed, "plan");
        let millis = Duration::from_millis;
        // Of their own, so that worlds are otherwise as they were.
        let webhooks = Dice::of(seed, "webhooks");
        let (nodes, lasts) = (dice.between(2, 5) as usize, dice.secs(30, 90));
        Self {
            seed,
            nodes,
            clients: dice.between(2, 6) as usize,
            conversations: dice.between(1, 6) as usize,
            lasts,
            clients_pause: millis(dice.between(50, 2_000)),
            replicated: dice.permille(600),
            webhooks: webhooks.permille(500),
            faults: Faults { webhook: WebhookFaults { fails: webhooks.below(400) }, ..Faults::draw(&dice) },
            limits: limits(&dice),
            disturbances: disturbances(&dice, nodes, lasts),
        }
    }

    /// A world in which nothing goes wrong, to which a scenario adds what it is about.
    pub fn peaceful(seed: u64, nodes: usize, lasts: Duration) -> Self {
        let millis = Duration::from_millis;
        let faults = Faults {
            store: StoreFaults { latency: millis(5), replica_lag: millis(20), ..StoreFaults::default() },
            views: ViewsFaults { latency: millis(5), ..ViewsFaults::default() },
            peers: PeersFaults { latency: millis(5), ..PeersFaults::default() },
            responder: ResponderFaults { pause: millis(200), ..ResponderFaults::default() },
            webhook: WebhookFaults::default(),
        };
        let (clients, conversations, clients_pause) = (3, 3, millis(500));
        let (replicated, webhooks) = (true, false);
        let (disturbances, limits) = (Vec::new(), Limits::default());
        Self {
            seed,
            nodes,
            clients,
            conversations,
            lasts,
            clients_pause,
            replicated,
            webhooks,
            faults,
            disturbances,
            limits,
        }
    }

    /// The same, and this is done to `node` at that second, for so many seconds.
    pub fn with(mut self, at_secs: u64, what: Disturbance, node: usize, lasts_secs: u64) -> Self {
        let (at, lasts) = (Duration::from_secs(at_secs), Duration::from_secs(lasts_secs));
        self.disturbances.push(Due { at, what, node, other: (node + 1) % self.nodes, lasts });
        self.disturbances.sort_by_key(|due| due.at);
        self
    }

    /// The names of all that can be left out of it.
    pub fn parts(&self) -> Vec<String> {
        let mut faults = self.faults;
        let rates = faults.rates().into_iter().filter(|(_, rate)| **rate > 0).map(|(name, _)| name.to_owned());
        let disturbances = self.disturbances.iter().enumerate().map(|(place, due)| part(place, due));
        rates.chain(disturbances).chain([LIMITS.to_owned()]).collect()
    }

    pub fn reduced(mut self, reduction: &Reduction) -> Self {
        let Reduction { only, nodes, clients, conversations, lasts_secs } = reduction;
        if let Some(only) = only {
            let stays = |name: &str| only.iter().any(|part| part == name);
            for (name, rate) in self.faults.rates() {
                *rate = if stays(name) { *rate } else { 0 };
            }
            let mut place = 0;
            self.disturbances.retain(|due| {
                place += 1;
                stays(&part(place - 1, due))
            });
            if !stays(LIMITS) {
                self.limits = Limits::default();
            }
        }
        self.nodes = nodes.unwrap_or(self.nodes);
        self.clients = clients.unwrap_or(self.clients);
        self.conversations = conversations.unwrap_or(self.conversations);
        self.lasts = lasts_secs.map_or(self.lasts, Duration::from_secs);
        self.disturbances.retain(|due| due.at < self.lasts && due.node < self.nodes && due.other < self.nodes);
        self
    }
}

const LIMITS: &str = "limits";

fn part(place: usize, due: &Due) -> String {
    format!("{:?}.{place}", due.what)
}

impl Faults {
    fn draw(dice: &Dice) -> Self {
        let sometimes = |most: u64| if dice.permille(400) { dice.between(1, most) } else { 0 };
        let millis = Duration::from_millis;
        Self {
            store: StoreFaults {
                latency: millis(dice.between(0, 12)),
                refused: sometimes(60),
                lost: sometimes(60),
                late: sometimes(40),
                stalled: sometimes(10),
                replica_lag: millis(*dice.pick(&[1, 20, 300]).expect("there are some")),
            },
            views: ViewsFaults { latency: millis(dice.between(0, 30)), refused: sometimes(100), lost: sometimes(100) },
            peers: PeersFaults {
                latency: millis(dice.between(0, 12)),
                lost: sometimes(60),
                doubled: sometimes(100),
                late: sometimes(60),
            },
            responder: ResponderFaults {
                pause: millis(*dice.pick(&[5, 100, 600, 3_000]).expect("there are some")),
                fails: sometimes(80),
                stops: sometimes(80),
                panics: sometimes(40),
            },
            webhook: WebhookFaults::default(),
        }
    }

    /// All rates by their names, as they are left out of a plan.
    fn rates(&mut self) -> Vec<(&'static str, &mut u64)> {
        let Self { store, views, peers, responder, webhook } = self;
        vec![
            ("store.refused", &mut store.refused),
            ("store.lost", &mut store.lost),
            ("store.late", &mut store.late),
            ("store.stalled", &mut store.stalled),
            ("views.refused", &mut views.refused),
            ("views.lost", &mut views.lost),
            ("peers.lost", &mut peers.lost),
            ("peers.doubled", &mut peers.doubled),
            ("peers.late", &mut peers.late),
            ("responder.fails", &mut responder.fails),
            ("responder.stops", &mut responder.stops),
            ("responder.panics", &mut responder.panics),
            ("webhook.fails", &mut webhook.fails),
        ]
    }

    /// All faults end: what is asked from then on must be done.
    pub fn calm(&mut self) {
        for (_, rate) in self.rates() {
            *rate = 0;
        }
    }
}

fn disturbances(dice: &Dice, nodes: usize, lasts: Duration) -> Vec<Due> {
    let kinds: Vec<Disturbance> = DISTURBANCES.into_iter().filter(|_| dice.permille(300)).collect();
    let every = Duration::from_millis(dice.between(2_000, 15_000));
    let (mut disturbances, mut at) = (Vec::new(), dice.up_to(every));
    while let (true, Some(what)) = (at < lasts, dice.pick(&kinds)) {
        let node = dice.below(nodes as u64) as usize;
        let other = (node + dice.between(1, nodes as u64 - 1) as usize) % nodes;
        disturbances.push(Due { at, what: *what, node, other, lasts: dice.secs(0, 9) });
        at += Duration::from_millis(100) + dice.up_to(every);
    }
    disturbances
}

/// Small ones, so that they are reached.
fn limits(dice: &Dice) -> Limits {
    let usual = Limits { idle_after: dice.secs(1, 60), ..Limits::default() };
    if dice.permille(500) {
        return usual;
    }
    Limits {
        queue_per_conversation: dice.between(2, 6) as usize,
        turns_in_flight: dice.between(3, 12) as usize,
        active_conversations: dice.between(1, 4) as usize,
        waiting_per_conversation: dice.between(2, 16) as usize,
        unsaved_pieces: dice.between(1, 4) as usize,
        compact_after_entries: dice.between(2, 20) as usize,
        history_items: dice.between(1, 20) as usize,
        recoveries_at_once: dice.between(1, 4) as usize,
        ..usual
    }
}

/// As options of the program, so that a reduced plan can be lived again.
impl fmt::Display for Reduction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { only, nodes, clients, conversations, lasts_secs } = self;
        if let Some(only) = only {
            write!(f, " --only={}", only.join(","))?;
        }
        let sizes = [("nodes", nodes), ("clients", clients), ("conversations", conversations)];
        for (name, size) in sizes {
            if let Some(size) = size {
                write!(f, " --{name} {size}")?;
            }
        }
        match lasts_secs {
            Some(secs) => write!(f, " --lasts-secs {secs}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_that_keeps_all_its_parts_is_the_same() {
        let plan = Plan::draw(42);
        let all = Reduction { only: Some(plan.parts()), ..Reduction::default() };
        assert_eq!(format!("{plan:?}"), format!("{:?}", plan.clone().reduced(&all)));
    }

    #[test]
    fn nothing_is_left_of_a_plan_that_keeps_nothing() {
        let plan = Plan::draw(42);
        assert!(plan.parts().len() > 3, "{plan:?}");
        let none = Reduction { only: Some(Vec::new()), nodes: Some(2), clients: Some(1), ..Reduction::default() };
        let plan = plan.reduced(&none);
        assert_eq!((plan.parts(), plan.nodes, plan.clients), (vec![LIMITS.to_owned()], 2, 1));
    }
}
