//! Whether a turn and an activation cost the same in a long conversation as in a short one: CPU time of the node and of
//! Redis, in interleaved rounds, so that whatever else the machine does falls on all sizes alike.
//!
//! What enters a conversation is moved out of its log once, by the next compaction; each turn should pay for its own two
//! items, and none for those that a conversation was filled with. So a conversation is filled with all but its newest
//! items, and gets these by turns: as many as lead to a compaction. A round then has so many turns that each conversation
//! goes through whole compactions, and is as far behind the last one as it was. (Asked right after it was filled, a
//! conversation of 1,000 items had to move all of them within the 128 turns that were measured, beside the 256 that these
//! added themselves: it seemed to cost 1.28 times as much. One of 100,000 had done so while it was filled.)
//!
//! Conversations grow as they are used: those that are to be short are made anew in each round, outside of what is
//! measured; the longest ones are kept. The growth stands beside the size. An activation cannot be asked for by itself: it
//! is what a turn costs more where there is room for one conversation only, so that each turn finds its own out of memory.
//! It includes the passivation.

use std::collections::BTreeMap;

use anyhow::ensure;
use clap::Parser;
use klatch_actors::Limits;
use klatch_load::asking::Api;
use klatch_load::measured::{Cpu, Measured, Program, StoreKind};
use klatch_load::page::{Page, Published};
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
    #[command(flatten)]
    published: Published,
    #[arg(long, value_enum, value_delimiter = ',', default_value = "redis,embedded")]
    stores: Vec<StoreKind>,
    /// Items of the conversations, rising.
    #[arg(long, value_delimiter = ',', default_value = "10,1000,100000")]
    sizes: Vec<usize>,
    /// Of the conversations that are activated again and again.
    #[arg(long, value_delimiter = ',', default_value = "100,100000")]
    activated_sizes: Vec<usize>,
    #[arg(long, default_value_t = 30)]
    rounds: usize,
    /// In a round, for each size: whole compactions of all conversations.
    #[arg(long, default_value_t = 1024)]
    turns: usize,
    /// `echo`, which is given its input alone, or `remembering`, which is given the newest hundred items.
    #[arg(long, default_value = "echo")]
    model: String,
    /// Small conversations and few turns: whether all of it works, and no number.
    #[arg(long, conflicts_with = "markdown")]
    short: bool,
}

/// What the rounds of one size cost, of one turn each, in seconds.
#[derive(Default)]
struct Costs {
    rounds: Vec<Cpu>,
    bytes_read: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut options = Options::parse();
    options.program.choose()?;
    if options.short {
        options.sizes = vec![10, 200];
        options.activated_sizes = vec![20, 200];
        (options.rounds, options.turns) = (1, CONVERSATIONS * compacted_after());
    }
    let whole = CONVERSATIONS * compacted_after();
    ensure!(options.turns.is_multiple_of(whole), "--turns must be a multiple of {whole}: whole compactions");
    let mut page = Page::new("flat", &options.published)?;
    page.say(machine());
    for store in &options.stores {
        measure(*store, &options, &mut page).await?;
    }
    page.publish()
}

/// So many turns of `echo`, which are one entry of the log each.
fn compacted_after() -> usize {
    Limits::default().compact_after_entries
}

async fn measure(store: StoreKind, options: &Options, page: &mut Page) -> anyhow::Result<()> {
    let mut measured = Measured::start(store, "", REMEMBERING).await?;
    let mut api = measured.api().await?;
    let longest = options.sizes.iter().chain(&options.activated_sizes).copied().max().unwrap_or_default();
    let kept = made(&api, longest).await?;
    eprintln!("{store}: {CONVERSATIONS} conversations of {longest} items are made");

    let mut costs: BTreeMap<usize, Costs> = BTreeMap::new();
    for round in 0..=options.rounds {
        for size in in_turn(&options.sizes, round) {
            let conversations = kept_or_made(&api, &kept, size, longest).await?;
            let cost = cost_of(&measured, &api, &conversations, options).await?;
            if round > 0 {
                costs.entry(size).or_default().rounds.push(cost);
            }
        }
    }
    page.say(format_args!("### {store}: turns of `{}`, all conversations in memory", options.model));
    page.say(in_memory(&costs, options));
    page.say(apart(&costs));
    let hot = costs.values().next().map(|costs| costs.spread(Cpu::all).median).unwrap_or_default();

    let mut conversations: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for size in &options.activated_sizes {
        conversations.insert(*size, kept_or_made(&api, &kept, *size, longest).await?);
    }
    measured.restart("active_conversations = 1").await?;
    api = api.at(&measured.node().url);
    let mut costs: BTreeMap<usize, Costs> = BTreeMap::new();
    let (mut touched, claims) = (0, "klatch_activations_total{result=\"claimed\"}");
    for round in 0..=options.rounds {
        for size in in_turn(&options.activated_sizes, round) {
            let read = measured.bytes_read().await?;
            let cost = one_by_one(&measured, &api, &conversations[&size], options).await?;
            touched += options.turns;
            if round > 0 {
                let costs = costs.entry(size).or_default();
                costs.rounds.push(cost);
                costs.bytes_read += measured.bytes_read().await?.saturating_sub(read);
            }
        }
    }
    let activated = measured.metric(claims).await? / touched as f64;
    ensure!(activated >= ACTIVATED_LEAST, "only {activated:.2} of the turns found their conversation out of memory");
    page.say(format_args!("### {store}: turns of `{}`, each conversation out of memory", options.model));
    page.say(out_of_memory(&costs, options, hot));
    page.say(format_args!("{} Of these turns {:.1} % activated their conversation.", apart(&costs), activated * 100.0));
    ensure!(measured.complaints().is_empty(), "the node complains: {:?}", measured.complaints());
    Ok(())
}

/// Alternating, so that none is always behind the same other.
fn in_turn(sizes: &[usize], round: usize) -> Vec<usize> {
    if round.is_multiple_of(2) { sizes.to_vec() } else { sizes.iter().rev().copied().collect() }
}

async fn kept_or_made(api: &Api, kept: &[String], size: usize, longest: usize) -> anyhow::Result<Vec<String>> {
    if size == longest { Ok(kept.to_vec()) } else { made(api, size).await }
}

/// Of so many items, the newest of which came by turns, so that none that was filled in waits for its compaction.
async fn made(api: &Api, size: usize) -> anyhow::Result<Vec<String>> {
    let turns = (size / 2).min(compacted_after());
    let made = api.conversations(CONVERSATIONS, size - 2 * turns, CONVERSATIONS).await?;
    api.turns(&made, "echo", turns * CONVERSATIONS).await?;
    Ok(made)
}

/// Of a turn.
async fn cost_of(measured: &Measured, api: &Api, conversations: &[String], options: &Options) -> anyhow::Result<Cpu> {
    // Activated, and its connections made.
    api.turns(conversations, &options.model, conversations.len()).await?;
    let before = measured.cpu()?;
    api.turns(conversations, &options.model, options.turns).await?;
    Ok((measured.cpu()? - before) / options.turns as f64)
}

/// Of a turn where there is room for one conversation: the next one is never in memory.
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
    Ok((measured.cpu()? - before) / options.turns as f64)
}

impl Costs {
    /// In µs.
    fn spread(&self, of: fn(Cpu) -> f64) -> Spread {
        Spread::of(self.rounds.iter().map(|cost| of(*cost) * 1e6).collect())
    }

    /// How often the other goes into this: of each round by itself, and the median told.
    fn beside(&self, other: &Self) -> f64 {
        Spread::of(self.rounds.iter().zip(&other.rounds).map(|(this, that)| this.all() / that.all()).collect()).median
    }
}

fn in_memory(costs: &BTreeMap<usize, Costs>, options: &Options) -> Table {
    let mut table = Table::new(["items", "node, µs/turn", "Redis, µs/turn", "both", "least to most", "× the smallest"]);
    for (size, of_size, beside) in beside_smallest(costs) {
        let [name, node, redis, both, spread] = cells(size, of_size, options);
        table.row([name, node, redis, both, spread, format!("{beside:.3}")]);
    }
    table
}

/// `hot`: what a turn costs in memory.
fn out_of_memory(costs: &BTreeMap<usize, Costs>, options: &Options, hot: f64) -> Table {
    let mut table = Table::new([
        "items",
        "node, µs/turn",
        "Redis, µs/turn",
        "both",
        "least to most",
        "× the smallest",
        "activation and passivation, µs",
        "read of the store per turn, bytes",
    ]);
    for (size, of_size, beside) in beside_smallest(costs) {
        let [name, node, redis, both, spread] = cells(size, of_size, options);
        let more = format!("{:.0}", of_size.spread(Cpu::all).median - hot);
        let turns = (options.turns * of_size.rounds.len().max(1)) as u64;
        let read = (of_size.bytes_read / turns).to_string();
        table.row([name, node, redis, both, spread, format!("{beside:.3}"), more, read]);
    }
    table
}

fn cells(size: usize, costs: &Costs, options: &Options) -> [String; 5] {
    let grown = 2 * (options.turns / CONVERSATIONS);
    let all = costs.spread(Cpu::all);
    [
        format!("{size} (+{grown} in a round)"),
        format!("{:.0}", costs.spread(|cpu| cpu.node).median),
        format!("{:.0}", costs.spread(|cpu| cpu.redis).median),
        format!("{:.0}", all.median),
        format!("{:.0}–{:.0}", all.least, all.most),
    ]
}

fn beside_smallest(costs: &BTreeMap<usize, Costs>) -> impl Iterator<Item = (usize, &Costs, f64)> {
    let smallest = costs.values().next();
    costs.iter().map(move |(size, costs)| (*size, costs, smallest.map_or(f64::NAN, |smallest| costs.beside(smallest))))
}

/// How far the dearest size is above the cheapest.
fn apart(costs: &BTreeMap<usize, Costs>) -> String {
    let mut beside: Vec<f64> = beside_smallest(costs).map(|(_, _, beside)| beside).collect();
    beside.sort_by(f64::total_cmp);
    let (least, most) = (beside.first().copied().unwrap_or(f64::NAN), beside.last().copied().unwrap_or(f64::NAN));
    format!("The dearest of these sizes costs {:.1} % more than the cheapest.", (most / least - 1.0) * 100.0)
}
