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
use klatch_load::plot::plot;
use klatch_load::results::Results;
use klatch_load::rounds::{MESSAGE_BYTES, Plan, measure};
use klatch_load::subjects::{Running, Subject};
use klatch_tests::measure::machine;
use klatch_tests::process::choose_binary;
use tokio::signal::unix::{SignalKind, signal};

const BEGIN: &str = "<!-- begin compare -->\n";
const END: &str = "<!-- end compare -->";

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
    /// The program that is measured; without it the one beside this.
    #[arg(long)]
    klatch: Option<PathBuf>,
    /// Write the table into this page, between its markers.
    #[arg(long)]
    markdown: Option<PathBuf>,
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
    if let Some(klatch) = &arguments.klatch {
        choose_binary(klatch.clone())?;
    }
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
    let page = page(&machine, &plan, &results);
    print!("{page}");
    if let Some(path) = &arguments.markdown {
        let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
        let text = replaced(&text, &page).with_context(|| format!("{}", path.display()))?;
        std::fs::write(path, text)?;
    }
    if let Some(path) = &arguments.plot {
        std::fs::write(path, plot(&results)?).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}

fn page(machine: &str, plan: &Plan, results: &Results) -> String {
    let Plan { rounds, turns, connections, history, keys } = plan;
    let keys = if *keys { ", each with an Idempotency-Key" } else { "" };
    format!(
        "{machine}. {rounds} rounds of {turns} turns over {connections} connections, messages of {MESSAGE_BYTES} bytes \
         in conversations of {history} items{keys}.\n\n{}\n{}",
        results.table(),
        results.ratios()
    )
}

/// The text with this between its markers.
fn replaced(text: &str, page: &str) -> anyhow::Result<String> {
    let (before, rest) = text.split_once(BEGIN).with_context(|| format!("there is no {BEGIN:?}"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("there is no {END:?}"))?;
    Ok(format!("{before}{BEGIN}{page}{END}{after}"))
}
