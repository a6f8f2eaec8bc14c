//! What one durable turn costs on Klatch, and on what one would use instead: `compare`, and `compare --help`. Starts all
//! servers itself and ends them, checks every answer and what is stored, and prints a table; README.md says what its rows
//! are.
//!
//! Fails with the first wrong answer, and judges no number.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Parser, ValueEnum};
use klatch_load::cores::{Cores, stay_on};
use klatch_load::measured::Program;
use klatch_load::page::{Page, Published};
use klatch_load::plot::plot;
use klatch_load::results::Results;
use klatch_load::rounds::{MESSAGE_BYTES, Plan, measure};
use klatch_load::subjects::{Running, Subject};
use klatch_tests::measure::machine;
use tokio::signal::unix::{SignalKind, signal};

/// Measure what one durable turn costs on Klatch, and on what one would use instead, in CPU time of all processes.
#[derive(Parser)]
struct Arguments {
    /// Measure these alone.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Subject>,
    /// Rounds that count; each subject makes its turns in each.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Turns of a subject in a round; slow ones make a twelfth.
    #[arg(long, default_value_t = 6_144)]
    turns: usize,
    /// Each with a conversation of its own, and its next turn when the last is answered.
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Items that each conversation has before a round.
    #[arg(long, default_value_t = 100)]
    history: usize,
    /// Send an Idempotency-Key with each turn.
    #[arg(long)]
    keys: bool,
    #[command(flatten)]
    program: Program,
    #[command(flatten)]
    published: Published,
    /// Draw it there, as SVG.
    #[arg(long)]
    plot: Option<PathBuf>,
}

/// All on one thread: what is started stays on the core that it had when it was started.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match until_ended(&Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn until_ended(arguments: &Arguments) -> anyhow::Result<()> {
    let (mut interrupted, mut ended) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    // Whatever ends it, what was started is dropped, and so ended.
    tokio::select! {
        done = run(arguments) => done,
        _ = interrupted.recv() => bail!("interrupted"),
        _ = ended.recv() => bail!("ended"),
    }
}

async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { rounds, turns, connections, history, keys, .. } = *arguments;
    if rounds == 0 || turns == 0 || connections == 0 {
        bail!("there is nothing to measure in no rounds, turns or connections");
    }
    arguments.program.choose()?;
    let mut page = Page::new("compare", &arguments.published)?;
    let (machine, cores) = (machine(), Cores::find()?);
    let plan = Plan { rounds, turns, connections, history, keys };
    let mut subjects: Vec<Subject> = Subject::value_variants().to_vec();
    subjects.retain(|subject| arguments.only.is_empty() || arguments.only.contains(subject));
    stay_on(cores.servers)?;
    let mut running = Vec::new();
    for subject in subjects {
        running.push(Running::start(subject, connections).await?);
    }
    stay_on(cores.load)?;
    let results = measure(&running, &plan).await?;
    drop(running);
    told(&mut page, &machine, &plan, &results);
    page.publish()?;
    if let Some(path) = &arguments.plot {
        std::fs::write(path, plot(&results)?).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}

fn told(page: &mut Page, machine: &str, plan: &Plan, results: &Results) {
    let Plan { rounds, turns, connections, history, keys } = plan;
    let keys = if *keys { ", each with an Idempotency-Key" } else { "" };
    page.say(format_args!(
        "{machine}. {rounds} rounds of {turns} turns over {connections} connections, messages of {MESSAGE_BYTES} bytes \
         in conversations of {history} items{keys}."
    ));
    page.say(results.table());
    page.say(results.ratios());
}
