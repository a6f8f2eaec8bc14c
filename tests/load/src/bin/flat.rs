//! Whether a turn and an activation cost the same in a long conversation as in a short one: CPU time of the node and of
//! Redis, in interleaved rounds, so that whatever else the machine does falls on all sizes alike.
//!
//! Conversations grow as they are used: those that are to be short are made anew in each round, outside of what is
//! measured; the longest ones are kept. An activation cannot be asked for by itself: it is what a turn costs more where
//! there is room for one conversation only, so that each turn finds its own out of memory. It includes the passivation.

use std::collections::BTreeMap;

use anyhow::ensure;
use clap::Parser;
use klatch_load::asking::Api;
use klatch_load::measured::{Cpu, Measured, Program, StoreKind};
use klatch_load::table::Table;
use klatch_tests::measure::{Spread, machine};

/// As many clients, each with one turn at a time.
const CONVERSATIONS: usize = 8;
/// Has the newest hundred items given to it, as a model has, and says little.
const REMEMBERING: &str = "[[responder]]\nname = \"remembering\"\nkind = \"echo\"\nhistory = true\ntokens = 20\n";
/// Of the touches, so many find their conversation out of memory: a passivation is a wish, and may come late.
const ACTIVATED_LEAST: f64 = 0.9;

#[derive(Parser)]
struct Options {
    #[command(flatten)]
    program: Program,
    #[arg(long, value_enum, value_delimiter = ',', default_value = "redis,embedded")]
    stores: Vec<StoreKind>,
    /// Items of the conversations, rising.
    #[arg(long, value_delimiter = ',', default_value = "10,1000,100000")]
    sizes: Vec<usize>,
    /// Of the conversations that are activated again and again.
    #[arg(long, value_delimiter = ',', default_value = "100,100000")]
    activated_sizes: Vec<usize>,
    #[arg(long, default_value_t = 12)]
    rounds: usize,
    /// In a round, for each size.
    #[arg(long, default_value_t = 1024)]
    turns: usize,
    /// `echo`, which is given its input alone, or `remembering`, which is given the newest hundred items.
    #[arg(long, default_value = "echo")]
    model: String,
    /// Small conversations and few turns: whether all of it works, and no number.
    #[arg(long)]
    short: bool,
}

/// What the rounds of one size cost together, and each by itself: µs of CPU per turn.
#[derive(Default)]
struct Costs {
    all: Cpu,
    turns: usize,
    rounds: Vec<f64>,
    bytes_read: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut options = Options::parse();
    options.program.choose()?;
    if options.short {
        options.sizes = vec![10, 200];
        options.activated_sizes = vec![20, 200];
        (options.rounds, options.turns) = (1, 64);
    }
    println!("{}\n", machine());
    for store in &options.stores {
        measure(*store, &options).await?;
    }
    Ok(())
}

async fn measure(store: StoreKind, options: &Options) -> anyhow::Result<()> {
    let mut measured = Measured::start(store, "", REMEMBERING).await?;
    let mut api = measured.api().await?;
    let longest = options.sizes.iter().chain(&options.activated_sizes).copied().max().unwrap_or_default();
    let kept = api.conversations(CONVERSATIONS, longest, CONVERSATIONS).await?;
    eprintln!("{store}: {CONVERSATIONS} conversations of {longest} items are filled");

    let mut costs: BTreeMap<usize, Costs> = BTreeMap::new();
    for round in 0..=options.rounds {
        for size in in_turn(&options.sizes, round) {
            let conversations = kept_or_new(&api, &kept, size, longest).await?;
            let cost = cost_of(&measured, &api, &conversations, options).await?;
            if round > 0 {
                costs.entry(size).or_default().add(cost, options.turns);
            }
        }
    }
    println!("## {store}: turns of `{}`, all conversations in memory\n", options.model);
    println!("{}", told(&costs, options, None));
    let hot: BTreeMap<usize, f64> = costs.iter().map(|(size, costs)| (*size, costs.mean().all())).collect();
    let hot = hot.values().next().copied().unwrap_or_default();

    let mut made: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for size in &options.activated_sizes {
        made.insert(*size, kept_or_new(&api, &kept, *size, longest).await?);
    }
    measured.restart("active_conversations = 1").await?;
    api = api.at(&measured.node().url);
    let mut costs: BTreeMap<usize, Costs> = BTreeMap::new();
    let (mut touched, claims) = (0, "klatch_activations_total{result=\"claimed\"}");
    for round in 0..=options.rounds {
        for size in in_turn(&options.activated_sizes, round) {
            let read = measured.bytes_read().await?;
            let cost = one_by_one(&measured, &api, &made[&size], options).await?;
            touched += options.turns;
            if round > 0 {
                let costs = costs.entry(size).or_default();
                costs.add(cost, options.turns);
                costs.bytes_read += measured.bytes_read().await?.saturating_sub(read);
            }
        }
    }
    let activated = measured.metric(claims).await? / touched as f64;
    ensure!(activated >= ACTIVATED_LEAST, "only {activated:.2} of the turns found their conversation out of memory");
    println!("## {store}: turns of `{}`, each conversation out of memory\n", options.model);
    println!("{}", told(&costs, options, Some(hot)));
    println!("Of these turns {:.1} % activated their conversation.\n", activated * 100.0);
    ensure!(measured.complaints().is_empty(), "the node complains: {:?}", measured.complaints());
    Ok(())
}

/// Alternating, so that none is always behind the same other.
fn in_turn(sizes: &[usize], round: usize) -> Vec<usize> {
    if round.is_multiple_of(2) { sizes.to_vec() } else { sizes.iter().rev().copied().collect() }
}

async fn kept_or_new(api: &Api, kept: &[String], size: usize, longest: usize) -> anyhow::Result<Vec<String>> {
    if size == longest { Ok(kept.to_vec()) } else { api.conversations(CONVERSATIONS, size, CONVERSATIONS).await }
}

async fn cost_of(measured: &Measured, api: &Api, conversations: &[String], options: &Options) -> anyhow::Result<Cpu> {
    // Activated, and its connections made.
    api.turns(conversations, &options.model, conversations.len()).await?;
    let before = measured.cpu()?;
    api.turns(conversations, &options.model, options.turns).await?;
    Ok(measured.cpu()? - before)
}

/// Where there is room for one conversation, the next one is never in memory.
async fn one_by_one(
    measured: &Measured,
    api: &Api,
    conversations: &[String],
    options: &Options,
) -> anyhow::Result<Cpu> {
    let before = measured.cpu()?;
    for n in 0..options.turns {
        api.turn(&conversations[n % conversations.len()], &options.model, n).await?;
    }
    Ok(measured.cpu()? - before)
}

impl Costs {
    fn add(&mut self, cost: Cpu, turns: usize) {
        self.all += cost;
        self.turns += turns;
        self.rounds.push(cost.all() * 1e6 / turns as f64);
    }

    /// µs per turn.
    fn mean(&self) -> Cpu {
        let each = |seconds: f64| seconds * 1e6 / self.turns as f64;
        Cpu { node: each(self.all.node), redis: each(self.all.redis) }
    }
}

/// `hot`: what a turn costs in memory, where the difference is to be told.
fn told(costs: &BTreeMap<usize, Costs>, options: &Options, hot: Option<f64>) -> Table {
    let what = if hot.is_some() { "activation and passivation, µs" } else { "beside the smallest" };
    let read = "read of the store per turn, bytes";
    let mut table = Table::new(["items", "node, µs/turn", "Redis, µs/turn", "both", "rounds", "ratio", what, read]);
    let least = costs.values().next().map(|costs| costs.mean().all()).unwrap_or_default();
    for (size, costs) in costs {
        let mean = costs.mean();
        let grown = 2 * (options.turns / CONVERSATIONS);
        let extra = hot
            .map_or(format!("{:+.1} %", (mean.all() / least - 1.0) * 100.0), |hot| format!("{:.0}", mean.all() - hot));
        table.row([
            format!("{size} (+{grown} in a round)"),
            format!("{:.0}", mean.node),
            format!("{:.0}", mean.redis),
            format!("{:.0}", mean.all()),
            Spread::of(costs.rounds.clone()).to_string(),
            format!("{:.3}", mean.all() / least),
            extra,
            if hot.is_some() { (costs.bytes_read / costs.turns.max(1) as u64).to_string() } else { "–".to_owned() },
        ]);
    }
    table
}
