//! What all parts of one world share: its plan, what is counted, the trace by which two runs are compared, and
//! the first thing that was wrong.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::dice::Dice;
use crate::journal::Journal;
use crate::ledger::Ledger;
use crate::plan::{Faults, Plan};
use crate::planted::Planted;
use crate::webhooks::Heard;

pub struct Shared {
    pub plan: Plan,
    pub planted: Option<Planted>,
    faults: Mutex<Faults>,
    journal: Mutex<Journal>,
    ledger: Mutex<Ledger>,
    heard: Mutex<Heard>,
    counts: Mutex<BTreeMap<&'static str, u64>>,
    trace: Mutex<Trace>,
    failure: watch::Sender<Option<String>>,
    begun: Instant,
}

struct Trace {
    hash: u64,
    lines: u64,
    is_shown: bool,
}

/// When all clocks of this world begin, in ms since 1970.
const EPOCH_MS: u64 = 1_700_000_000_000;

impl Shared {
    pub fn new(plan: Plan, planted: Option<Planted>, trace_is_shown: bool) -> Arc<Self> {
        Arc::new(Self {
            faults: Mutex::new(plan.faults),
            plan,
            planted,
            journal: Mutex::default(),
            ledger: Mutex::default(),
            heard: Mutex::default(),
            counts: Mutex::default(),
            trace: Mutex::new(Trace { hash: 0xCBF2_9CE4_8422_2325, lines: 0, is_shown: trace_is_shown }),
            failure: watch::channel(None).0,
            begun: Instant::now(),
        })
    }

    /// For one part of this world.
    pub fn dice(&self, part: &str) -> Dice {
        Dice::of(self.plan.seed, part)
    }

    /// Those of the plan, or none any more.
    pub fn faults(&self) -> Faults {
        *lock(&self.faults)
    }

    pub fn calm(&self) {
        lock(&self.faults).calm();
    }

    pub fn journal(&self) -> MutexGuard<'_, Journal> {
        lock(&self.journal)
    }

    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    pub fn heard(&self) -> MutexGuard<'_, Heard> {
        lock(&self.heard)
    }

    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// The wall clock of all nodes.
    pub fn now_ms(&self) -> u64 {
        EPOCH_MS + self.elapsed().as_millis() as u64
    }

    pub fn count(&self, what: &'static str) {
        *lock(&self.counts).entry(what).or_default() += 1;
    }

    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.counts).clone()
    }

    /// Adds a line to the trace: two runs of a seed are the same where all their lines are.
    pub fn trace(&self, line: impl Display) {
        let line = format!("{:>10} {line}", self.elapsed().as_micros());
        let mut trace = lock(&self.trace);
        trace.lines += 1;
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
    pub fn fail(&self, why: impl Into<String>) {
        let why = why.into();
        self.trace(format_args!("FAILED {why}"));
        self.failure.send_if_modified(|failure| {
            let is_first = failure.is_none();
            if is_first {
                *failure = Some(why);
            }
            is_first
        });
    }

    pub fn check(&self, checked: Result<(), String>) {
        if let Err(why) = checked {
            self.fail(why);
        }
    }

    pub fn failure(&self) -> Option<String> {
        self.failure.borrow().clone()
    }

    /// Ends with the first failure.
    pub async fn failed(&self) {
        // The sender is `self`, which lives.
        let _ = self.failure.subscribe().wait_for(Option::is_some).await;
    }
}

/// A panic elsewhere leaves every entry whole.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
