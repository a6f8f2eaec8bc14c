//! Many worlds, each in a process of its own: what they came to, and what happened in them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use klatch_world::plan::Reduction;
use klatch_world::planted;

use crate::Kind;

/// What many seeds without a planted fault have seen at least once, or they were not worth living.
const SEEN: [&str; 33] = [
    "answers of peers lost",
    "bursts",
    "cancels",
    "chains that forked",
    "claims",
    "compactions",
    "crashes",
    "cuts between nodes",
    "cuts from the store",
    "cuts from the table",
    "deletions",
    "drains",
    "failovers of the store",
    "failovers that lost writes",
    "forks",
    "forwards",
    "freezes",
    "items added",
    "jumps of a clock",
    "outages of the store",
    "panics in a handler",
    "panics of a node",
    "reads",
    "responders that panic",
    "responses deleted",
    "stalls of the replica",
    "store answers lost",
    "store refusals",
    "store writes late",
    "table refusals",
    "takeovers in mid-answer",
    "turns",
    "writes fenced",
];

/// Fewer seeds may miss some of it.
const SEEN_IN_SEEDS: u64 = 200;

/// Beyond so many failures there is nothing more to learn.
const FAILURES_SHOWN: usize = 20;

/// Where nobody watches a terminal, a line of progress is printed so often.
const PROGRESS_EVERY: Duration = Duration::from_secs(30);

/// What became of one world.
pub struct Report {
    pub simulated_secs: f64,
    pub counts: BTreeMap<String, u64>,
    pub trace: String,
    /// Why it failed.
    pub failure: Option<String>,
}

#[derive(Default)]
struct Totals {
    worlds: u64,
    simulated_secs: f64,
    counts: BTreeMap<String, u64>,
    failures: Vec<String>,
}

/// The options that live that world again.
pub fn replay(seed: u64, kind: &Kind, reduction: &Reduction) -> String {
    let options: String = kind.options().iter().map(|option| format!(" {option}")).collect();
    format!("replay {seed}{options}{reduction}")
}

pub fn live(seed: u64, kind: &Kind, reduction: &Reduction) -> Result<Report> {
    let options = replay(seed, kind, reduction);
    let output = Command::new(std::env::current_exe()?).args(options.split(' ')).output()?;
    let mut report = Report { simulated_secs: 0.0, counts: BTreeMap::new(), trace: String::new(), failure: None };
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        match line.split_once(' ') {
            Some(("secs", secs)) => report.simulated_secs = secs.parse()?,
            Some(("counts", counts)) => {
                for (what, count) in counts.split(',').filter_map(|count| count.split_once('=')) {
                    report.counts.insert(what.to_owned(), count.parse()?);
                }
            }
            Some(("trace", trace)) => report.trace = trace.to_owned(),
            Some(("failed", why)) => report.failure = Some(why.to_owned()),
            _ => {}
        }
    }
    // A panic that nobody simulated is a failure, whatever its world came to.
    let panicked = String::from_utf8_lossy(&output.stderr).into_owned();
    if report.failure.is_none() && (!output.status.success() || !panicked.is_empty()) {
        report.failure = Some(panicked);
    }
    Ok(report)
}

pub fn run(seeds: Range<u64>, jobs: usize, kind: &Kind) -> Result<ExitCode> {
    let count = seeds.end.saturating_sub(seeds.start);
    let (begun, next, totals) = (Instant::now(), AtomicU64::new(seeds.start), Mutex::new(Totals::default()));
    let bar = ProgressBar::new(count);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} worlds, {msg}, {eta} left")?);
    let said = Mutex::new(Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= seeds.end {
                        return;
                    }
                    let lived = live(seed, kind, &Reduction::default());
                    let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(failure) = totals.take(seed, kind, lived) {
                        bar.suspend(|| println!("{failure}"));
                    }
                    let state = totals.state(begun);
                    let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
                    if bar.is_hidden() && said.elapsed() >= PROGRESS_EVERY {
                        *said = Instant::now();
                        println!("{} of {count} worlds, {state}", totals.worlds);
                    }
                    bar.set_message(state);
                    bar.inc(1);
                }
            });
        }
    });
    bar.finish_and_clear();
    let totals = totals.into_inner().unwrap_or_else(PoisonError::into_inner);
    let must_see_all = kind.options().is_empty() && count >= SEEN_IN_SEEDS;
    Ok(totals.report(begun, must_see_all))
}

/// In which seed each planted fault is found; at the latest in the last of those that are stated for it.
pub fn find_planted() -> Result<ExitCode> {
    let mut missed = 0;
    for (name, _, within) in planted::ALL {
        let kind = Kind { planted: Some(name.to_owned()), scenario: None };
        let mut found = None;
        for seed in 0..within {
            found = live(seed, &kind, &Reduction::default())?.failure.map(|why| (seed, why));
            if found.is_some() {
                break;
            }
        }
        match found {
            Some((seed, why)) => println!("{name:<24} in {:>2} of {within:>2} seeds: {why}", seed + 1),
            None => {
                missed += 1;
                println!("{name:<24} NOT FOUND in {within} seeds");
            }
        }
    }
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Totals {
    /// Says what to print of a world that failed.
    fn take(&mut self, seed: u64, kind: &Kind, lived: Result<Report>) -> Option<String> {
        self.worlds += 1;
        let failure = match lived {
            Ok(report) => {
                self.simulated_secs += report.simulated_secs;
                for (what, count) in report.counts {
                    *self.counts.entry(what).or_default() += count;
                }
                report.failure?
            }
            Err(error) => format!("{error:#}"),
        };
        let again = replay(seed, kind, &Reduction::default());
        let line = format!("cargo run --release -p klatch-world -- {again}   # {failure}");
        self.failures.push(line.clone());
        (self.failures.len() <= FAILURES_SHOWN).then_some(line)
    }

    fn state(&self, begun: Instant) -> String {
        let rate = self.simulated_secs / begun.elapsed().as_secs_f64();
        format!("{} failed, {rate:.0} simulated seconds per second", self.failures.len())
    }

    fn report(&self, begun: Instant, must_see_all: bool) -> ExitCode {
        let took = begun.elapsed().as_secs_f64();
        println!("{} worlds in {took:.1} s: {}", self.worlds, self.state(begun));
        for (what, count) in &self.counts {
            println!("  {count:>9} {what}");
        }
        let unseen: Vec<&str> = SEEN.into_iter().filter(|what| !self.counts.contains_key(*what)).collect();
        if must_see_all && !unseen.is_empty() {
            println!("never seen: {}", unseen.join(", "));
            return ExitCode::FAILURE;
        }
        if self.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
