//! What all parts of one world share: its dice, what is counted, the trace by which two runs are compared, and the first
//! thing that was wrong.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use klatch_world::dice::Dice;
use klatch_world::shared::lock;

use crate::planted::Planted;

pub struct Shared {
    pub dice: Dice,
    pub planted: Option<Planted>,
    begun: Instant,
    counts: Mutex<BTreeMap<&'static str, u64>>,
    trace: Mutex<Trace>,
    failure: Mutex<Option<String>>,
}

struct Trace {
    hash: u64,
    is_shown: bool,
}

impl Shared {
    /// The world's clock is set by then.
    pub fn new(seed: u64, planted: Option<Planted>, trace_is_shown: bool) -> Self {
        Self {
            dice: Dice::new(seed),
            planted,
            begun: Instant::now(),
            counts: Mutex::default(),
            trace: Mutex::new(Trace { hash: 0xCBF2_9CE4_8422_2325, is_shown: trace_is_shown }),
            failure: Mutex::default(),
        }
    }

    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    pub fn count(&self, what: &'static str, times: usize) {
        if times > 0 {
            *lock(&self.counts).entry(what).or_default() += times as u64;
        }
    }

    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.counts).clone()
    }

    /// Adds a line to the trace: two runs of a seed are the same where all their lines are.
    pub fn trace(&self, line: impl Display) {
        let line = format!("{:>8} {line}", self.elapsed().as_millis());
        let mut trace = lock(&self.trace);
        for byte in line.bytes() {
            trace.hash = (trace.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
        if trace.is_shown {
            println!("{line}");
        }
    }

    pub fn trace_hash(&self) -> u64 {
        lock(&self.trace).hash
    }

    /// The first one counts.
    pub fn fail(&self, why: impl Display) {
        self.trace(format_args!("FAILED {why}"));
        lock(&self.failure).get_or_insert_with(|| why.to_string());
    }

    pub fn failure(&self) -> Option<String> {
        lock(&self.failure).clone()
    }
}
