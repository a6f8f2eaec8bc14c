//! What all parts of one world share: its dice, what is counted, the trace by which two runs are compared, and the first
//! thing that was wrong.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use klatch_world::dice::Dice;
use klatch_world::shared::lock;
use tracing::Level;

use crate::planted::Planted;

pub struct Shared {
    pub dice: Dice,
    pub planted: Option<Planted>,
    /// Whether logs are looked at; a contract writes what no owner would.
    pub checks_logs: bool,
    begun: Instant,
    counts: Mutex<BTreeMap<&'static str, u64>>,
    trace: Mutex<Trace>,
    failure: Mutex<Option<String>>,
    /// Warnings and errors of the nodes, by their words.
    overheard: Mutex<BTreeMap<String, u64>>,
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
            checks_logs: true,
            begun: Instant::now(),
            counts: Mutex::default(),
            trace: Mutex::new(Trace { hash: 0xCBF2_9CE4_8422_2325, is_shown: trace_is_shown }),
            failure: Mutex::default(),
            overheard: Mutex::default(),
        }
    }

    pub fn without_checks(self) -> Self {
        Self { checks_logs: false, ..self }
    }

    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    pub fn count(&self, what: &'static str, times: usize) {
        if times > 0 {
            *lock(&self.counts).entry(what).or_default() += times as u64;
        }
    }

    /// What was counted, and what was overheard.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        let counts = lock(&self.counts).iter().map(|(what, count)| ((*what).to_owned(), *count)).collect();
        let overheard = lock(&self.overheard).iter().map(|(words, count)| (words.clone(), *count)).collect();
        [counts, overheard].into_iter().flat_map(|counts: BTreeMap<_, _>| counts).collect()
    }

    pub fn heard(&self, level: Level, message: &str, fields: &str) {
        if lock(&self.trace).is_shown {
            println!("{:>8} {level} {message}{fields}", self.elapsed().as_millis());
        }
        if level <= Level::WARN {
            let words = format!("{level}: {}", message.replace([',', '='], ";"));
            *lock(&self.overheard).entry(words).or_default() += 1;
        }
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
