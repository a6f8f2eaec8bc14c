//! Runs seeds, each in a process of its own, and says how to replay one that fails.
//!
//!   wire --seeds FROM..TO [--jobs N] [--planted NAME]
//!   wire --seed N [--planted NAME] [--trace]

use std::collections::BTreeMap;
use std::ops::Range;
use std::process::{Command, ExitCode, Output};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use klatch_wire::{life, planted};

/// What a good run has seen at least once.
const SEEN: [&str; 20] = [
    "connections reset",
    "half-open connections",
    "connections given up",
    "streams resumed",
    "answers broken off",
    "answers given up as silent",
    "requests refused",
    "crashes",
    "restarts of Redis",
    "failovers",
    "freezes",
    "writes fenced",
    "WARN: a node is declared dead",
    "replicas synchronised",
    "sessions between nodes",
    "WARN: the connection to Redis is replaced",
    "WARN: a connection was refused",
    "claims",
    "compactions",
    "slow links",
];

/// A world takes some seconds, where it is built without optimisation too.
const STANDS_STILL_AFTER: Duration = Duration::from_secs(240);

/// Beyond so many failures there is nothing more to learn.
const FAILURES_SHOWN: usize = 20;

#[derive(Default)]
struct Asked {
    seeds: Option<Range<u64>>,
    seed: Option<u64>,
    jobs: usize,
    planted: Option<String>,
    trace: bool,
}

#[derive(Default)]
struct Totals {
    simulated_secs: f64,
    counts: BTreeMap<String, u64>,
    failures: Vec<String>,
}

fn main() -> Result<ExitCode> {
    let asked = asked()?;
    let planted = match &asked.planted {
        Some(name) => Some(planted::named(name).context("there is no such planted fault")?),
        None => None,
    };
    if let Some(seed) = asked.seed {
        end_what_stands_still(seed);
        let outcome = life::live(seed, planted, asked.trace)?;
        let counts: Vec<String> = outcome.counts.iter().map(|(what, count)| format!("{what}={count}")).collect();
        println!("plan {:?}", outcome.plan);
        println!("secs {:.3}", outcome.simulated.as_secs_f64());
        println!("counts {}", counts.join(","));
        println!("trace {:016x}", outcome.trace);
        return Ok(match outcome.failure {
            Some(why) => {
                println!("failed {why}");
                ExitCode::FAILURE
            }
            None => ExitCode::SUCCESS,
        });
    }
    let seeds = asked.seeds.clone().context("say --seeds FROM..TO, or --seed N")?;
    run_all(&asked, seeds)
}

fn asked() -> Result<Asked> {
    let mut asked = Asked { jobs: 1, ..Asked::default() };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} needs a value"));
        match word.as_str() {
            "--seeds" => {
                let value = value()?;
                let (from, to) = value.split_once("..").context("seeds are FROM..TO")?;
                asked.seeds = Some(from.parse()?..to.parse()?);
            }
            "--seed" => asked.seed = Some(value()?.parse()?),
            "--jobs" => asked.jobs = value()?.parse()?,
            "--planted" => asked.planted = Some(value()?),
            "--trace" => asked.trace = true,
            _ => bail!("there is no option {word}"),
        }
    }
    Ok(asked)
}

/// A world that gets nowhere, in the machine's time: nothing of it can be waited for.
fn end_what_stands_still(seed: u64) {
    std::thread::spawn(move || {
        std::thread::sleep(STANDS_STILL_AFTER);
        println!("failed seed {seed} stands still");
        std::process::exit(3);
    });
}

fn run_all(asked: &Asked, seeds: Range<u64>) -> Result<ExitCode> {
    let (begun, next, totals) = (Instant::now(), AtomicU64::new(seeds.start), Mutex::new(Totals::default()));
    let program = std::env::current_exe()?;
    std::thread::scope(|scope| {
        for _ in 0..asked.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= seeds.end {
                        return;
                    }
                    let mut command = Command::new(&program);
                    command.args(["--seed", &seed.to_string()]);
                    if let Some(planted) = &asked.planted {
                        command.args(["--planted", planted]);
                    }
                    let output = command.output().map_err(|error| error.to_string());
                    totals.lock().unwrap_or_else(PoisonError::into_inner).take(seed, asked, output);
                }
            });
        }
    });
    let totals = totals.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(totals.report(seeds.end - seeds.start, begun.elapsed().as_secs_f64(), asked.planted.is_none()))
}

impl Totals {
    fn take(&mut self, seed: u64, asked: &Asked, output: Result<Output, String>) {
        let replay = match &asked.planted {
            Some(planted) => format!("--seed {seed} --planted {planted}"),
            None => format!("--seed {seed}"),
        };
        let output = match output {
            Ok(output) => output,
            Err(error) => return self.failures.push(format!("{replay}: {error}")),
        };
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut why = None;
        for line in said.lines() {
            match line.split_once(' ') {
                Some(("secs", secs)) => self.simulated_secs += secs.parse::<f64>().unwrap_or(0.0),
                Some(("counts", counts)) => {
                    for (what, count) in counts.split(',').filter_map(|count| count.split_once('=')) {
                        *self.counts.entry(what.to_owned()).or_default() += count.parse::<u64>().unwrap_or(0);
                    }
                }
                Some(("failed", reason)) => why = Some(reason.to_owned()),
                _ => {}
            }
        }
        let panicked = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() || !panicked.is_empty() {
            let why = why.unwrap_or(panicked);
            let line = format!("cargo run --release -p klatch-wire -- {replay}   # {why}");
            if self.failures.len() < FAILURES_SHOWN && asked.planted.is_none() {
                println!("{line}");
            }
            self.failures.push(line);
        }
    }

    fn report(&self, seeds: u64, took_secs: f64, must_see_all: bool) -> ExitCode {
        println!(
            "{seeds} seeds, {} failed, {:.0} simulated seconds in {took_secs:.1} s: {:.0} per second",
            self.failures.len(),
            self.simulated_secs,
            self.simulated_secs / took_secs
        );
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
