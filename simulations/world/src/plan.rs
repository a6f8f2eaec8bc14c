//! What a seed decides before anything happens: how large the world is, which kinds of faults exist in it, and how often
//! each comes. Most seeds lack most faults, so that each is also seen without the others (swarm testing).

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
    pub store: StoreFaults,
    pub views: ViewsFaults,
    pub peers: PeersFaults,
    pub responder: ResponderFaults,
    pub disturbances: Vec<Disturbance>,
    /// Between two disturbances, at most.
    pub disturbed_every: Duration,
    pub clients_pause: Duration,
    pub limits: Limits,
}

/// Rates are per thousand.
#[derive(Clone, Debug, Default)]
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
}

#[derive(Clone, Debug, Default)]
pub struct ViewsFaults {
    pub latency: Duration,
    pub refused: u64,
    pub lost: u64,
}

#[derive(Clone, Debug, Default)]
pub struct PeersFaults {
    pub latency: Duration,
    pub lost: u64,
    /// Asked twice; the second answer is dropped.
    pub doubled: u64,
    /// Takes a second or two.
    pub late: u64,
}

#[derive(Clone, Debug, Default)]
pub struct ResponderFaults {
    /// Between two words, at most.
    pub pause: Duration,
    pub words: u64,
    pub fails: u64,
    pub stops: u64,
    pub panics: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturbance {
    Crash,
    Drain,
    RollingRestart,
    Freeze,
    CutFromStore,
    CutFromViews,
    CutApart,
    CutOneWay,
}

const DISTURBANCES: [Disturbance; 8] = [
    Disturbance::Crash,
    Disturbance::Drain,
    Disturbance::RollingRestart,
    Disturbance::Freeze,
    Disturbance::CutFromStore,
    Disturbance::CutFromViews,
    Disturbance::CutApart,
    Disturbance::CutOneWay,
];

impl Plan {
    pub fn draw(seed: u64, dice: &Dice) -> Self {
        let sometimes = |most: u64| if dice.permille(400) { dice.between(1, most) } else { 0 };
        let millis = Duration::from_millis;
        Self {
            seed,
            nodes: dice.between(2, 5) as usize,
            clients: dice.between(2, 6) as usize,
            conversations: dice.between(1, 6) as usize,
            lasts: dice.secs(30, 90),
            store: StoreFaults {
                latency: millis(dice.between(0, 12)),
                refused: sometimes(60),
                lost: sometimes(60),
                late: sometimes(40),
                stalled: sometimes(10),
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
                words: dice.between(1, 12),
                fails: sometimes(80),
                stops: sometimes(80),
                panics: sometimes(40),
            },
            disturbances: DISTURBANCES.into_iter().filter(|_| dice.permille(300)).collect(),
            disturbed_every: millis(dice.between(2_000, 15_000)),
            clients_pause: millis(dice.between(50, 2_000)),
            limits: limits(dice),
        }
    }

    /// All faults end: what is asked from then on must be done.
    pub fn calm(&mut self) {
        self.store = StoreFaults { latency: self.store.latency, ..StoreFaults::default() };
        self.views = ViewsFaults { latency: self.views.latency, ..ViewsFaults::default() };
        self.peers = PeersFaults { latency: self.peers.latency, ..PeersFaults::default() };
        let ResponderFaults { pause, words, .. } = self.responder;
        self.responder = ResponderFaults { pause, words, ..ResponderFaults::default() };
    }
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
