//! What conversations weigh: in memory while they are active and idle, beside an actor of ractor that does nothing; how
//! much comes back when they are passivated, and when; and what a stored turn takes in Redis and in the embedded store.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Parser;
use futures::stream::{self, StreamExt, TryStreamExt};
use klatch_load::asking::{Api, text};
use klatch_load::measured::{Measured, Program, StoreKind};
use klatch_load::page::{Page, Published};
use klatch_load::redis_cli;
use klatch_load::table::Table;
use klatch_tests::measure::{cpu_seconds, machine, resident_bytes};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use serde_json::json;

/// As the program has it, so that its actors and those of this process are weighed alike.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const AT_ONCE: usize = 32;
const ACTIVE: &str = "klatch_conversations_active";
/// Over which the cost of a node that nobody asks for anything is taken.
const QUIET: Duration = Duration::from_secs(10);
/// After all were passivated, how long the memory is looked at.
const LOOKED_AFTER_SECS: [u64; 5] = [0, 5, 15, 30, 60];
/// Passivations are asked for a few thousand at a time; more than this and they hang.
const PASSIVATED_WITHIN: Duration = Duration::from_secs(600);

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Active,
    Turns,
}

#[derive(Parser)]
struct Options {
    #[command(flatten)]
    program: Program,
    #[command(flatten)]
    published: Published,
    #[arg(long, value_enum, value_delimiter = ',', default_value = "active,turns")]
    parts: Vec<Part>,
    /// Where the active conversations are stored. Redis keeps what is stored out of the node's memory.
    #[arg(long, value_enum, default_value = "redis")]
    active_store: StoreKind,
    /// Active conversations, rising.
    #[arg(long, value_delimiter = ',', default_value = "10000,50000,100000")]
    active: Vec<usize>,
    /// Seconds without a message, after which a conversation is passivated: more than it takes to make them all, or the
    /// first are gone before the last are there. Default: a minute, and a second for each 500 of them.
    #[arg(long)]
    idle_after: Option<u64>,
    /// Turns that are stored, in conversations of one turn and in ones of a hundred.
    #[arg(long, default_value_t = 20_000)]
    turns: usize,
    /// Few of all: whether it works, and no number.
    #[arg(long, conflicts_with = "markdown")]
    short: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut options = Options::parse();
    options.program.choose()?;
    if options.short {
        (options.active, options.turns, options.idle_after) = (vec![50, 100], 200, Some(20));
    }
    let mut page = Page::new("memory", &options.published)?;
    page.say(machine());
    for part in &options.parts {
        match part {
            Part::Active => active(&options, &mut page).await?,
            Part::Turns => turns(&options, &mut page).await?,
        }
    }
    page.publish()
}

struct Bare;

impl Actor for Bare {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

/// In this process: what each of so many takes of its RSS.
async fn bare_actor(actors: usize) -> anyhow::Result<u64> {
    let (warm, joined) = Actor::spawn(None, Bare, ()).await?;
    let me = std::process::id();
    let before = resident_bytes(me)?;
    let mut all = Vec::with_capacity(actors);
    for _ in 0..actors {
        all.push(Actor::spawn(None, Bare, ()).await?);
    }
    let each = resident_bytes(me)?.saturating_sub(before) / actors as u64;
    all.push((warm, joined));
    for (actor, joined) in all {
        actor.stop(None);
        joined.await?;
    }
    Ok(each)
}

async fn active(options: &Options, page: &mut Page) -> anyhow::Result<()> {
    let most = options.active.iter().copied().max().unwrap_or_default();
    ensure!(most > 0, "there is nothing to weigh in no conversations");
    let bare = bare_actor(most).await?;
    let idle_after = options.idle_after.unwrap_or(60 + most as u64 / 500);
    let limits =
        format!("active_conversations = 1000000\nactive_bytes = 68719476736\nidle_after = \"{idle_after}s\"\n");
    let measured = Measured::start(options.active_store, &limits, "").await?;
    let api = measured.api().await?;
    // Its tables and code paths are warm, and these few are within the error.
    made(&api, 0..64).await?;
    let empty = measured.resident()?;
    page.say(format_args!("### Active and idle conversations of one turn, stored in {}", options.active_store));
    let mut table =
        Table::new(["conversations", "RSS, MB", "bytes each", "CPU of the node while nobody asks, % of a core"]);
    let asleep = format!("{:.1}", quiet(&measured).await?);
    table.row(["0".to_owned(), format!("{:.1}", megabytes(empty)), "–".to_owned(), asleep]);
    let (mut there, begun, mut full) = (0, Instant::now(), empty);
    for active in &options.active {
        made(&api, there..*active).await?;
        there = *active;
        let counted = measured.metric(ACTIVE).await? as usize;
        ensure!(counted >= there, "of {there} conversations {counted} are active: raise --idle-after");
        full = measured.resident()?;
        eprintln!("{there} conversations are active after {} s", begun.elapsed().as_secs());
        table.row([
            there.to_string(),
            format!("{:.1}", megabytes(full)),
            (full.saturating_sub(empty) / there as u64).to_string(),
            format!("{:.1}", quiet(&measured).await?),
        ]);
    }
    page.say(table);
    page.say(format_args!("Of these bytes {bare} are those of an actor of ractor that does nothing."));

    let (begun, patience) = (Instant::now(), PASSIVATED_WITHIN + Duration::from_secs(idle_after));
    while measured.metric(ACTIVE).await? > 0.0 {
        if begun.elapsed() > patience {
            bail!("{} conversations stay in memory", measured.metric(ACTIVE).await?);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let taken = full.saturating_sub(empty);
    page.say(format_args!("When all are passivated, of the {:.1} MB that they took:", megabytes(taken)));
    let mut table = Table::new(["s after the last", "RSS, MB", "given back"]);
    let begun = Instant::now();
    for after in if options.short { &LOOKED_AFTER_SECS[..2] } else { &LOOKED_AFTER_SECS } {
        tokio::time::sleep(Duration::from_secs(*after).saturating_sub(begun.elapsed())).await;
        let now = measured.resident()?;
        let back = 100.0 * (full as f64 - now as f64) / taken.max(1) as f64;
        table.row([after.to_string(), format!("{:.1}", megabytes(now)), format!("{back:.0} %")]);
    }
    page.say(table);
    ensure!(measured.complaints().is_empty(), "the node complains: {:?}", measured.complaints());
    Ok(())
}

/// Each in a conversation of its own.
async fn made(api: &Api, range: std::ops::Range<usize>) -> anyhow::Result<()> {
    let one = |n| async move {
        let body = json!({"model": "echo", "input": text(n)});
        let response = api.post("/v1/responses", body).await?;
        ensure!(response["status"] == "completed", "turn {n} was answered with {response}");
        anyhow::Ok(())
    };
    stream::iter(range).map(one).buffer_unordered(AT_ONCE).try_collect::<()>().await
}

async fn quiet(measured: &Measured) -> anyhow::Result<f64> {
    let (id, begun) = (measured.id()?, Instant::now());
    let before = cpu_seconds(id)?;
    tokio::time::sleep(QUIET).await;
    Ok((cpu_seconds(id)? - before) / begun.elapsed().as_secs_f64() * 100.0)
}

async fn turns(options: &Options, page: &mut Page) -> anyhow::Result<()> {
    page.say(format_args!("### A stored turn: {} bytes asked, as many answered", text(0).len()));
    let mut table = Table::new([
        "store",
        "turns",
        "turns of a conversation",
        "bytes per turn",
        "as counted by",
        "node's RSS, bytes per turn",
    ]);
    for store in [StoreKind::Redis, StoreKind::Embedded] {
        for long in [1, 100] {
            let measured = Measured::start(store, "", "").await?;
            let api = measured.api().await?;
            made(&api, 0..64).await?;
            let (before, resident) = (stored(&measured).await?, measured.resident()?);
            if long == 1 {
                made(&api, 0..options.turns).await?;
            } else {
                let conversations = api.conversations(options.turns / long, 0, AT_ONCE).await?;
                for some in conversations.chunks(AT_ONCE) {
                    api.turns(some, "echo", some.len() * long).await?;
                }
            }
            let grown = measured.resident()?.saturating_sub(resident) / options.turns as u64;
            let after = stored(&measured).await?;
            for ((how, before), (_, after)) in before.iter().zip(&after) {
                table.row([
                    store.to_string(),
                    options.turns.to_string(),
                    long.to_string(),
                    (after.saturating_sub(*before) / options.turns as u64).to_string(),
                    (*how).to_owned(),
                    grown.to_string(),
                ]);
            }
            ensure!(measured.complaints().is_empty(), "the node complains: {:?}", measured.complaints());
        }
    }
    page.say(table);
    Ok(())
}

/// What the store takes, in each way in which it can be said.
async fn stored(measured: &Measured) -> anyhow::Result<Vec<(&'static str, u64)>> {
    if let Some(redis) = measured.redis() {
        return Ok(vec![
            ("used_memory", redis_cli::number(redis.port, "used_memory").await?),
            ("MEMORY USAGE of all keys", redis_cli::bytes_of_keys(redis.port).await?),
        ]);
    }
    Ok(vec![("files", bytes_on_disk(&measured.node().folder().join("data")).context("the store has a folder")?)])
}

/// Blocks that are taken, not lengths: a journal is made longer than it is.
fn bytes_on_disk(folder: &Path) -> anyhow::Result<u64> {
    const BLOCK_BYTES: u64 = 512;
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { bytes_on_disk(&entry.path())? } else { metadata.blocks() * BLOCK_BYTES };
    }
    Ok(bytes)
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
