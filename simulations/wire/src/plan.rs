//! What a seed decides before anything happens, and the faults while it does.

use std::time::Duration;

use klatch_world::dice::Dice;

#[derive(Clone, Debug)]
pub struct Plan {
    pub nodes: usize,
    pub clients: usize,
    pub turns: usize,
    /// A master, its replica and a sentinel, instead of one server.
    pub has_replica: bool,
    pub lag: Duration,
    /// Faults for so long, and then none.
    pub disturbed_for: Duration,
    pub disturbed_every: Duration,
    pub latency_max: Duration,
}

impl Plan {
    pub fn draw(dice: &Dice) -> Self {
        Self {
            nodes: 3,
            clients: 3,
            turns: 20,
            has_replica: dice.permille(400),
            lag: Duration::from_millis(dice.between(0, 60)),
            disturbed_for: Duration::from_millis(dice.between(12_000, 24_000)),
            disturbed_every: Duration::from_millis(dice.between(300, 2_500)),
            latency_max: Duration::from_millis(dice.between(2, 20)),
        }
    }

    pub fn node_names(&self) -> Vec<String> {
        (0..self.nodes).map(|place| format!("node-{place}")).collect()
    }

    pub fn client_names(&self) -> Vec<String> {
        (0..self.clients).map(|place| format!("client-{place}")).collect()
    }

    /// All that a fault between two hosts may be about.
    pub fn host_names(&self) -> Vec<String> {
        [self.node_names(), self.redis_names(), self.client_names()].concat()
    }

    pub fn redis_names(&self) -> Vec<String> {
        (0..1 + usize::from(self.has_replica)).map(|place| format!("redis-{place}")).collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A node's process ends, and starts again in a while.
    Crash,
    /// ... at once.
    Bounce,
    RestartRedis,
    FailOver,
    /// What is sent between two hosts is lost.
    Cut,
    CutOneWay,
    /// What is sent between two hosts arrives when it is over: all connections are half-open meanwhile.
    Hold,
    /// The same between a node and all others: it is declared dead, and what it wrote arrives late.
    Freeze,
    Reset,
    Slow,
}

pub const FAULTS: [Fault; 15] = [
    Fault::Freeze,
    Fault::Freeze,
    Fault::FailOver,
    Fault::Crash,
    Fault::Bounce,
    Fault::RestartRedis,
    Fault::FailOver,
    Fault::Cut,
    Fault::Cut,
    Fault::CutOneWay,
    Fault::Hold,
    Fault::Hold,
    Fault::Reset,
    Fault::Reset,
    Fault::Slow,
];
