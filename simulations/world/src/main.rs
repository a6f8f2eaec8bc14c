//! Lives worlds made from seeds, each in a process of its own; replays one that fails, and cuts its plan down to what it
//! fails of.

mod many;
mod shrink;

use std::ops::Range;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use klatch_world::plan::{Plan, Reduction};
use klatch_world::planted::{self, Planted};
use klatch_world::responder::PANIC;
use klatch_world::{life, scenarios};

/// A world takes seconds at most, and more on a machine that does much else.
const STANDS_STILL_AFTER: Duration = Duration::from_secs(240);

#[derive(Parser)]
#[command(name = "world", about = "Several real Klatch nodes in one process, in worlds made from seeds")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Lives the worlds of many seeds, and says which fail
    Run {
        /// FROM..TO, without TO
        #[arg(value_parser = seeds)]
        seeds: Range<u64>,
        /// Worlds at a time
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        #[command(flatten)]
        kind: Kind,
    },
    /// Lives the world of one seed, and says how it ended
    Replay {
        seed: u64,
        /// Every step
        #[arg(long)]
        trace: bool,
        #[command(flatten)]
        kind: Kind,
        #[command(flatten)]
        reduction: Reduced,
    },
    /// Cuts the plan of a seed that fails down to what it fails of
    Shrink {
        seed: u64,
        /// Worlds that are tried at most
        #[arg(long, default_value_t = 400)]
        tries: usize,
        #[command(flatten)]
        kind: Kind,
    },
    /// Says in which seed each planted fault is found; fails where one is not found within its stated number of seeds
    Planted,
}

/// Which worlds.
#[derive(Args, Clone, Default)]
struct Kind {
    /// With a fault planted on purpose
    #[arg(long)]
    planted: Option<String>,
    /// That of a plan written by hand, instead of one that the seed draws
    #[arg(long)]
    scenario: Option<String>,
}

#[derive(Args)]
struct Reduced {
    /// The parts of its plan that stay, with commas between them
    #[arg(long, value_delimiter = ',', num_args = 0..)]
    only: Option<Vec<String>>,
    #[arg(long)]
    nodes: Option<usize>,
    #[arg(long)]
    clients: Option<usize>,
    #[arg(long)]
    conversations: Option<usize>,
    /// Until all faults end
    #[arg(long)]
    lasts_secs: Option<u64>,
}

fn main() -> Result<ExitCode> {
    match Cli::parse().command {
        Command::Run { seeds, jobs, kind } => {
            kind.plan(0)?;
            many::run(seeds, jobs, &kind)
        }
        Command::Replay { seed, trace, kind, reduction } => {
            let Reduced { only, nodes, clients, conversations, lasts_secs } = reduction;
            let reduction = Reduction { only, nodes, clients, conversations, lasts_secs };
            let plan = kind.plan(seed)?.reduced(&reduction);
            Ok(replay(plan, kind.planted()?, trace))
        }
        Command::Shrink { seed, tries, kind } => shrink::shrink(&kind, kind.plan(seed)?, tries),
        Command::Planted => many::find_planted(),
    }
}

fn seeds(said: &str) -> Result<Range<u64>, String> {
    let (from, to) = said.split_once("..").ok_or("seeds are FROM..TO, as in 0..100")?;
    let number = |said: &str| said.parse::<u64>().map_err(|error| format!("{said:?}: {error}"));
    Ok(number(from)?..number(to)?)
}

impl Kind {
    fn planted(&self) -> Result<Option<Planted>> {
        let named = |name: &String| {
            let names: Vec<&str> = planted::ALL.iter().map(|(name, ..)| *name).collect();
            planted::named(name).with_context(|| format!("there is no {name}, but {}", names.join(", ")))
        };
        self.planted.as_ref().map(named).transpose()
    }

    fn plan(&self, seed: u64) -> Result<Plan> {
        self.planted()?;
        let Some(name) = &self.scenario else { return Ok(Plan::draw(seed)) };
        let names: Vec<&str> = scenarios::ALL.iter().map(|(name, _)| *name).collect();
        scenarios::named(name, seed).with_context(|| format!("there is no {name}, but {}", names.join(", ")))
    }

    /// As options of this program.
    fn options(&self) -> Vec<String> {
        let option = |(name, value): (&str, &Option<String>)| value.as_ref().map(|value| format!("--{name}={value}"));
        [("planted", &self.planted), ("scenario", &self.scenario)].into_iter().filter_map(option).collect()
    }
}

/// Prints what [`many::Report`] reads.
fn replay(plan: Plan, planted: Option<Planted>, trace: bool) -> ExitCode {
    quiet_about_simulated_panics();
    end_what_stands_still(plan.seed);
    if trace {
        // What the nodes themselves say, between the lines of the trace.
        tracing_subscriber::fmt()
            .without_time()
            .with_ansi(false)
            .with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG)
            .init();
    }
    println!("plan {plan:?}");
    let outcome = life::live(plan, planted, trace);
    let counts: Vec<String> = outcome.counts.iter().map(|(what, count)| format!("{what}={count}")).collect();
    println!("secs {:.3}", outcome.simulated.as_secs_f64());
    println!("counts {}", counts.join(","));
    println!("trace {:016x}", outcome.trace);
    match outcome.failure {
        Some(why) => {
            println!("failed {why}");
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}

/// They are what the world is made of; every other panic is shown.
fn quiet_about_simulated_panics() {
    let shown = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let said = panic.payload();
        let said = said.downcast_ref::<String>().map(String::as_str).or(said.downcast_ref::<&str>().copied());
        if said != Some(PANIC) {
            shown(panic);
        }
    }));
}

/// A world that gets nowhere, in the machine's time: nothing of it can be waited for.
fn end_what_stands_still(seed: u64) {
    std::thread::spawn(move || {
        std::thread::sleep(STANDS_STILL_AFTER);
        println!("failed seed {seed} stands still");
        std::process::exit(3);
    });
}
