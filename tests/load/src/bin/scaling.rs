//! What more nodes bring and cost: the CPU of a turn in clusters of one, two and three nodes, asked at the owner and at
//! whichever node comes next; and what a heartbeat, a change of the view and placement cost a cluster of a hundred.
//!
//! All processes share this machine's cores, so turns per second of wall time would say how many cores there are. What a
//! core brings is told by the CPU of a turn, and how it scales by its ratio between clusters that take turns in each round.
//! All nodes and their Redis share one core, which is full, and the load comes from another: so each node always has turns
//! that wait, whatever the number of nodes. (One that has less to do saves and sends less of it together, and its turns
//! cost more for that alone.) They take the core from one another, which nodes with cores of their own do not: the ratio is
//! the least that they bring.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::Parser;
use futures::future::try_join_all;
use klatch::stores::redis::RedisOptions;
use klatch_actors::membership::decide::BEAT_EVERY_MS;
use klatch_actors::membership::view::View;
use klatch_actors::membership::views::Views;
use klatch_load::asking::{Api, text};
use klatch_load::cores::{Cores, stay_on};
use klatch_load::generator::{Exchange, Load};
use klatch_load::measured::Program;
use klatch_load::page::{Page, Published};
use klatch_load::redis_cli;
use klatch_load::table::Table;
use klatch_protocol::Shard;
use klatch_protocol::view::{MemberStatus, Row};
use klatch_tests::cluster::{ClusterProcesses, ClusterSettings, Links};
use klatch_tests::measure::{Spread, cpu_nanos, machine};
use klatch_tests::redis_server::RedisServer;

/// As many clients for each node, each with one turn at a time.
const CONVERSATIONS: usize = 24;

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Turns,
    Table,
}

#[derive(Parser)]
struct Options {
    #[command(flatten)]
    program: Program,
    #[command(flatten)]
    published: Published,
    #[arg(long, value_enum, value_delimiter = ',', default_value = "turns,table")]
    parts: Vec<Part>,
    #[arg(long, value_delimiter = ',', default_value = "1,2,3")]
    nodes: Vec<usize>,
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// In a round, for each node.
    #[arg(long, default_value_t = 1920)]
    turns: usize,
    /// Rows of the table of nodes.
    #[arg(long, value_delimiter = ',', default_value = "3,100")]
    rows: Vec<usize>,
    /// Beats of each row.
    #[arg(long, default_value_t = 100)]
    beats: usize,
    /// Few of all: whether it works, and no number.
    #[arg(long, conflicts_with = "markdown")]
    short: bool,
}

/// All on one thread: what is started stays on the core that it had when it was started.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut options = Options::parse();
    options.program.choose()?;
    if options.short {
        (options.rounds, options.turns, options.nodes) = (1, 48, vec![1, 2]);
        (options.rows, options.beats) = (vec![3], 2);
    }
    let mut page = Page::new("scaling", &options.published)?;
    page.say(machine());
    for part in &options.parts {
        match part {
            Part::Turns => turns(&options, &mut page).await?,
            Part::Table => table_of_nodes(&options, &mut page).await?,
        }
    }
    page.publish()
}

async fn turns(options: &Options, page: &mut Page) -> anyhow::Result<()> {
    let (cores, mut clusters) = (Cores::find()?, Vec::new());
    stay_on(cores.servers)?;
    for nodes in &options.nodes {
        clusters.push(Asked::start(*nodes).await?);
    }
    stay_on(cores.load)?;
    // Each cluster, and whether it is asked at any node.
    let both = |(place, asked): (usize, &Asked)| {
        let ways: &[bool] = if asked.cluster.nodes.len() == 1 { &[false] } else { &[false, true] };
        ways.iter().map(move |anywhere| (place, *anywhere)).collect::<Vec<_>>()
    };
    let mut order: Vec<(usize, bool)> = clusters.iter().enumerate().flat_map(both).collect();
    let mut costs: BTreeMap<(usize, bool), Vec<Cost>> = BTreeMap::new();
    for round in 0..=options.rounds {
        for (place, anywhere) in &order {
            let cost = clusters[*place].round(*anywhere, options).await?;
            if round > 0 {
                costs.entry((*place, *anywhere)).or_default().push(cost);
            }
        }
        order.reverse();
    }
    let Options { rounds, turns, .. } = options;
    page.say(format_args!(
        "### Turns of `echo`: for each node {CONVERSATIONS} clients and {turns} turns in each of {rounds} rounds"
    ));
    let mut table = Table::new([
        "nodes",
        "asked at",
        "nodes, µs/turn",
        "least to most",
        "Redis, µs/turn",
        "passed on, %",
        "turns/s per core of the nodes",
        "beside the first",
    ]);
    let first = costs.values().next().map(Vec::as_slice).unwrap_or_default();
    for ((place, anywhere), these) in &costs {
        let spread = |of: fn(&Cost) -> f64| Spread::of(these.iter().map(of).collect());
        let node = spread(|cost| cost.nodes);
        // Of one round each; more CPU for a turn is fewer turns for a core.
        let beside = first.iter().zip(these).map(|(first, this)| first.nodes / this.nodes);
        table.row([
            clusters[*place].cluster.nodes.len().to_string(),
            if *anywhere { "any node" } else { "the owner" }.to_owned(),
            format!("{:.0}", node.median),
            format!("{:.0}–{:.0}", node.least, node.most),
            format!("{:.0}", spread(|cost| cost.redis).median),
            format!("{:.0}", spread(|cost| cost.passed_on).median * 100.0),
            format!("{:.0}", 1e6 / node.median),
            format!("{:.2}", Spread::of(beside.collect()).median),
        ]);
    }
    page.say(table);
    for asked in &clusters {
        ensure!(asked.cluster.panics().is_empty(), "nodes panicked: {:?}", asked.cluster.panics());
    }
    Ok(())
}

/// Of one round: CPU in µs per turn.
struct Cost {
    nodes: f64,
    redis: f64,
    passed_on: f64,
}

struct Asked {
    cluster: ClusterProcesses,
    /// Process of its Redis.
    redis: u32,
    token: String,
    conversations: Vec<String>,
    /// Of each conversation.
    owners: Vec<usize>,
}

impl Asked {
    async fn start(nodes: usize) -> anyhow::Result<Self> {
        let settings = ClusterSettings { nodes, links: Links::Direct, limits: String::new(), sections: String::new() };
        let cluster = ClusterProcesses::start(settings).await?;
        redis_cli::sync_every_second(cluster.redis.port).await?;
        let redis = cluster.redis.id().context("Redis runs")?;
        let token = cluster.nodes[0].token("ann", "default").await?;
        let api = Api::new(cluster.nodes[0].url.clone(), token.clone())?;
        let conversations = api.conversations(CONVERSATIONS * nodes, 0, CONVERSATIONS).await?;
        let placement = cluster.placement(0).await?;
        let owners = conversations.iter().map(|id| placement.owner(id)).collect::<Result<_, _>>()?;
        Ok(Self { cluster, redis, token, conversations, owners })
    }

    /// `anywhere`: each conversation at one node, whichever it is.
    async fn round(&self, anywhere: bool, options: &Options) -> anyhow::Result<Cost> {
        let (all, turns) = (self.cluster.nodes.len(), options.turns.div_ceil(CONVERSATIONS));
        let (mut loads, mut passed_on) = (Vec::new(), 0);
        for (number, node) in self.cluster.nodes.iter().enumerate() {
            let mut rows: Vec<Vec<Exchange>> = Vec::new();
            for (client, (conversation, owner)) in self.conversations.iter().zip(&self.owners).enumerate() {
                let at = if anywhere { client % all } else { *owner };
                if at == number {
                    let exchange = |n| Exchange::new(&self.token, "echo", conversation, &text(n), None, &text(n));
                    rows.push((0..turns).map(exchange).collect());
                    passed_on += usize::from(number != *owner);
                }
            }
            let address = node.url.trim_start_matches("http://").parse()?;
            loads.push((Load::connect(address, rows.len()).await?, rows));
        }
        let (nodes, redis) = (self.nodes_cpu()?, cpu_nanos(self.redis)?);
        try_join_all(loads.into_iter().map(|(load, rows)| load.run(rows))).await?;
        let turns = (turns * self.conversations.len()) as f64;
        let each = |now: u64, before: u64| now.saturating_sub(before) as f64 / 1e3 / turns;
        Ok(Cost {
            nodes: each(self.nodes_cpu()?, nodes),
            redis: each(cpu_nanos(self.redis)?, redis),
            passed_on: passed_on as f64 / self.conversations.len() as f64,
        })
    }

    fn nodes_cpu(&self) -> anyhow::Result<u64> {
        self.cluster.nodes.iter().map(|node| cpu_nanos(node.id().context("the node runs")?)).sum()
    }
}

/// The calls that nodes make, made by one process in place of all of them: so many rows beat, each as often.
async fn table_of_nodes(options: &Options, page: &mut Page) -> anyhow::Result<()> {
    page.say("### The table of nodes in Redis");
    let mut table = Table::new([
        "rows",
        "a beat: sent, bytes",
        "answered, bytes",
        "Redis, µs",
        "the node, µs",
        "all beats, % of a core of Redis",
        "all beats, MB/s",
        "a change of the view, for one node: the table read, ms",
        "all shards placed, ms",
    ]);
    for rows in &options.rows {
        let cores = Cores::find()?;
        stay_on(cores.servers)?;
        let redis = RedisServer::start().await?;
        stay_on(cores.load)?;
        redis_cli::sync_every_second(redis.port).await?;
        let opened = klatch::stores::open(&redis.url(), &RedisOptions::default()).await?;
        let views = opened.views.clone().context("Redis has a table of nodes")?;
        for node in 0..*rows {
            ensure!(views.join(name(node), row(node)).await?, "row {node} was not taken");
        }
        let (beat, cost) = (async |node| views.beat(name(node), 1).await, BeatCosts::now(&redis).await?);
        for _ in 0..options.beats {
            for node in 0..*rows {
                let seen = beat(node).await?.context("the row is there")?;
                ensure!(seen.counters.len() == *rows, "a beat shows {} rows", seen.counters.len());
            }
        }
        let count = (rows * options.beats) as f64;
        let spent = cost.until(&BeatCosts::now(&redis).await?, count);
        let per_second = *rows as f64 * 1e3 / BEAT_EVERY_MS as f64;
        let [read, placed] = read_and_placed(&*views, options).await?;
        table.row([
            rows.to_string(),
            format!("{:.0}", spent.sent),
            format!("{:.0}", spent.answered),
            format!("{:.1}", spent.redis * 1e6),
            format!("{:.1}", spent.own * 1e6),
            format!("{:.1}", spent.redis * per_second * 100.0),
            format!("{:.2}", (spent.sent + spent.answered) * per_second / 1e6),
            format!("{read:.2}"),
            format!("{placed:.2}"),
        ]);
        opened.close().await;
    }
    page.say(table);
    Ok(())
}

/// In ms, the median each: the table is read; all shards are placed by it.
async fn read_and_placed(views: &dyn Views, options: &Options) -> anyhow::Result<[f64; 2]> {
    let mut took = [Vec::new(), Vec::new()];
    for _ in 0..options.beats {
        let begun = Instant::now();
        let table = views.read().await?;
        let read = begun.elapsed();
        let view = View::new(&table);
        // The first that is asked for has all of them placed.
        ensure!(view.owner(Shard(0)).is_some(), "nobody owns anything");
        took[0].push(read.as_secs_f64() * 1e3);
        took[1].push((begun.elapsed() - read).as_secs_f64() * 1e3);
    }
    Ok(took.map(|took| Spread::of(took).median))
}

fn name(node: usize) -> String {
    format!("klatch-{node}")
}

fn row(node: usize) -> Row {
    let address = format!("klatch-{node}.klatch-peers.klatch.svc.cluster.local:7000");
    Row { incarnation: 1, address, status: MemberStatus::Up, format: 2 }
}

/// So far, or of one beat: bytes, and seconds of CPU.
struct BeatCosts {
    sent: f64,
    answered: f64,
    redis: f64,
    own: f64,
}

impl BeatCosts {
    async fn now(redis: &RedisServer) -> anyhow::Result<Self> {
        let number = async |name| anyhow::Ok(redis_cli::number(redis.port, name).await? as f64);
        let process = number("process_id").await? as u32;
        Ok(Self {
            sent: number("total_net_input_bytes").await?,
            answered: number("total_net_output_bytes").await?,
            redis: cpu_nanos(process)? as f64 / 1e9,
            own: cpu_nanos(std::process::id())? as f64 / 1e9,
        })
    }

    fn until(&self, later: &Self, beats: f64) -> Self {
        Self {
            sent: (later.sent - self.sent) / beats,
            answered: (later.answered - self.answered) / beats,
            redis: (later.redis - self.redis) / beats,
            own: (later.own - self.own) / beats,
        }
    }
}
