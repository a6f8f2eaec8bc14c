//! Searches the model for a state that breaks a promise, and says what it found.
//!
//! Ends with 0 where all is as it must be: the protocol as it is keeps every property and shows what it must, or a
//! variant breaks the property that it must break. With 1 otherwise, and with 2 where it was asked for nonsense.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use klatch_model::Protocol;
use klatch_model::bounds::{Bound, Bounds};
use klatch_model::properties::{ALWAYS, SOMETIMES};
use klatch_model::search::{Found, Progress, Run, search};
use klatch_model::variants::Variant;
use stateright::Model;

/// A line about a search that goes on comes so often.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// Checks claim, append and failover of Klatch in every order of events, within bounds.
#[derive(Parser)]
struct Asked {
    /// What is checked: the protocol as it is, or with one thing left out, which must be found wanting
    #[arg(long, value_enum, default_value_t = Variant::Correct)]
    variant: Variant,
    /// How much happens in a run
    #[arg(long, value_enum, default_value_t = Bound::Small)]
    bound: Bound,
    #[command(flatten)]
    changed: Changed,
    /// Threads that search; with one, the run that is shown is the shortest, or nearly
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    jobs: u8,
    /// Show the states of the first search in a browser, on this address of the loopback interface, until it is interrupted
    #[arg(long, value_name = "ADDR", value_parser = loopback)]
    explore: Option<SocketAddr>,
}

/// Each instead of what the bound says.
#[derive(clap::Args)]
struct Changed {
    /// Owners at the same time
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=4))]
    owners: Option<u8>,
    /// Clients, each with a turn of its own
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=3))]
    clients: Option<u8>,
    /// How often each client submits its turn
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=4))]
    submits: Option<u8>,
    /// Pieces of text in an answer
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=4))]
    pieces: Option<u8>,
    /// Activations beside an owner that is alive
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=4))]
    steals: Option<u8>,
    /// Failovers of the store
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=4))]
    failovers: Option<u8>,
    /// Connections lost without a failover
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=4))]
    breaks: Option<u8>,
    /// Crashes of owners
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=4))]
    crashes: Option<u8>,
}

impl Changed {
    fn over(&self, bounds: Bounds) -> Bounds {
        Bounds {
            owners: self.owners.map_or(bounds.owners, usize::from),
            clients: self.clients.unwrap_or(bounds.clients),
            submits: self.submits.unwrap_or(bounds.submits),
            pieces: self.pieces.map_or(bounds.pieces, usize::from),
            steals: self.steals.unwrap_or(bounds.steals),
            failovers: self.failovers.unwrap_or(bounds.failovers),
            breaks: self.breaks.unwrap_or(bounds.breaks),
            crashes: self.crashes.unwrap_or(bounds.crashes),
        }
    }
}

fn main() -> ExitCode {
    let asked = Asked::parse();
    let bounds: Vec<Bounds> = asked.bound.searches().into_iter().map(|bounds| asked.changed.over(bounds)).collect();
    if let (Some(address), Some(bounds)) = (asked.explore, bounds.first()) {
        println!("showing states on http://{address}");
        Protocol { variant: asked.variant, bounds: *bounds }.checker().serve(address);
        return ExitCode::SUCCESS;
    }
    let good = match asked.variant.breaks() {
        Some(property) => bounds.into_iter().any(|bounds| breaks(&asked, bounds, property)),
        None => keeps(&asked, bounds),
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn breaks(asked: &Asked, bounds: Bounds, property: &'static str) -> bool {
    let found = searched(asked, bounds, &[property]);
    match found.runs.get(property) {
        Some(run) => {
            println!("as it must be, this breaks \"{property}\":");
            show(run);
        }
        None => println!("NOT BROKEN, and it must be: {property}"),
    }
    found.runs.contains_key(property)
}

fn keeps(asked: &Asked, bounds: Vec<Bounds>) -> bool {
    let mut seen = BTreeSet::new();
    for bounds in bounds {
        let found = searched(asked, bounds, &ALWAYS);
        let broken = found.broken();
        for property in &broken {
            println!("BROKEN: {property}, by this:");
            show(&found.runs[property]);
        }
        if !broken.is_empty() {
            return false;
        }
        seen.extend(found.runs.into_keys());
    }
    ALWAYS.iter().for_each(|property| println!("holds   {property}"));
    for property in SOMETIMES {
        println!("{} {property}", if seen.contains(property) { "seen   " } else { "NOT SEEN" });
    }
    SOMETIMES.iter().all(|property| seen.contains(property))
}

fn searched(asked: &Asked, bounds: Bounds, until: &[&'static str]) -> Found {
    println!("{} within {bounds:?}", name(asked.variant));
    let mut told = Instant::now();
    let protocol = Protocol { variant: asked.variant, bounds };
    let found = search(protocol, until, asked.jobs.into(), |progress| tell(progress, &mut told));
    let Found { states, steps, depth, took, .. } = found;
    println!("  {states} states, {steps} steps, depth {depth}, {:.1} s: done", took.as_secs_f64());
    found
}

fn tell(progress: Progress, told: &mut Instant) {
    if told.elapsed() >= PROGRESS_EVERY {
        *told = Instant::now();
        let Progress { states, steps, depth, took } = progress;
        println!("  {states} states, {steps} steps, depth {depth}, {:.0} s", took.as_secs_f64());
    }
}

fn show(run: &Run) {
    for (number, action) in run.actions.iter().enumerate() {
        println!("  {:>2}. {action}", number + 1);
    }
    println!("the log then:");
    for entry in &run.end.store.log {
        println!("      {entry}");
    }
    for (key, client) in run.end.clients.iter().enumerate() {
        println!("client {key} was told: {client}");
    }
}

fn name(variant: Variant) -> String {
    variant.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| "an address and a port are needed, as 127.0.0.1:3000")?;
    if address.ip().is_loopback() { Ok(address) } else { Err("it is shown on loopback only".to_owned()) }
}
