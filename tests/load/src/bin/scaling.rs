//! What more nodes bring and cost: turns per second and CPU per turn at one, two and three nodes, asked at the owner and
//! at whichever comes next; and what a heartbeat and a change of the view cost a cluster of a hundred.
//!
//! All processes share this machine's cores, so turns per second of wall time say little beyond them: what scales is told
//! by the CPU of a turn.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use futures::future::try_join_all;
use klatch::stores::redis::RedisOptions;
use klatch_actors::membership::decide::BEAT_EVERY_MS;
use klatch_actors::membership::view::View;
use klatch_actors::membership::views::Views;
use klatch_load::asking::Api;
use klatch_load::measured::Program;
use klatch_load::redis_cli;
use klatch_load::table::{Table, percentile};
use klatch_protocol::Shard;
use klatch_protocol::view::{MemberStatus, Row};
use klatch_tests::cluster::{ClusterProcesses, ClusterSettings, Links};
use klatch_tests::measure::{Spread, cpu_seconds, machine};
use klatch_tests::redis_server::RedisServer;

/// As many clients, each with one turn at a time.
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
    #[arg(long, value_enum, value_delimiter = ',', default_value = "turns,table")]
    parts: Vec<Part>,
    #[arg(long, value_delimiter = ',', default_value = "1,2,3")]
    nodes: Vec<usize>,
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    #[arg(long, default_value_t = 1920)]
    turns: usize,
    /// Rows of the table of nodes.
    #[arg(long, value_delimiter = ',', default_value = "3,100")]
    rows: Vec<usize>,
    /// Beats of each row.
    #[arg(long, default_value_t = 100)]
    beats: usize,
    /// Few of all: whether it works, and no number.
    #[arg(long)]
    short: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut options = Options::parse();
    options.program.choose()?;
    if options.short {
        (options.rounds, options.turns, options.nodes) = (1, 48, vec![1, 2]);
        (options.rows, options.beats) = (vec![3], 2);
    }
    println!("{}\n", machine());
    for part in &options.parts {
        match part {
            Part::Turns => turns(&options).await?,
            Part::Table => table_of_nodes(&options).await?,
        }
    }
    Ok(())
}

async fn turns(options: &Options) -> anyhow::Result<()> {
    println!("## Turns of `echo`, {CONVERSATIONS} clients, {} rounds of {} turns\n", options.rounds, options.turns);
    let mut table = Table::new([
        "nodes",
        "asked at",
        "nodes' CPU, µs/turn",
        "Redis, µs/turn",
        "turns/s per core of the nodes",
        "turns/s",
        "passed on, %",
    ]);
    for nodes in &options.nodes {
        let settings =
            ClusterSettings { nodes: *nodes, links: Links::Direct, limits: String::new(), sections: String::new() };
        let cluster = ClusterProcesses::start(settings).await?;
        let api = Api::new(cluster.nodes[0].url.clone(), cluster.nodes[0].token("ann", "default").await?)?;
        let conversations = api.conversations(CONVERSATIONS, 0, CONVERSATIONS).await?;
        let placement = cluster.placement(0).await?;
        let owners: Vec<usize> = conversations.iter().map(|id| placement.owner(id)).collect::<Result<_, _>>()?;
        let asked = Asked { cluster: &cluster, api: &api, conversations: &conversations, owners: &owners };
        let ways: &[bool] = if *nodes == 1 { &[false] } else { &[false, true] };
        let mut costs = [const { Vec::<Cost>::new() }; 2];
        for round in 0..=options.rounds {
            for anywhere in ways {
                let cost = asked.round(*anywhere, options.turns).await?;
                if round > 0 {
                    costs[usize::from(*anywhere)].push(cost);
                }
            }
        }
        for (name, costs) in ["the owner", "any node"].iter().zip(&costs).filter(|(_, costs)| !costs.is_empty()) {
            let spread = |of: fn(&Cost) -> f64| Spread::of(costs.iter().map(of).collect());
            let node = spread(|cost| cost.nodes);
            table.row([
                nodes.to_string(),
                (*name).to_owned(),
                node.to_string(),
                format!("{:.0}", spread(|cost| cost.redis).median),
                format!("{:.0}", 1e6 / node.median),
                format!("{:.0}", spread(|cost| cost.per_second).median),
                format!("{:.0}", spread(|cost| cost.passed_on).median * 100.0),
            ]);
        }
        ensure!(cluster.panics().is_empty(), "nodes panicked: {:?}", cluster.panics());
    }
    println!("{table}");
    Ok(())
}

/// Of one round: CPU in µs per turn.
struct Cost {
    nodes: f64,
    redis: f64,
    per_second: f64,
    passed_on: f64,
}

struct Asked<'a> {
    cluster: &'a ClusterProcesses,
    api: &'a Api,
    conversations: &'a [String],
    /// Of each conversation.
    owners: &'a [usize],
}

impl Asked<'_> {
    async fn round(&self, anywhere: bool, turns: usize) -> anyhow::Result<Cost> {
        let redis = u32::try_from(redis_cli::number(self.cluster.redis.port, "process_id").await?)?;
        let (nodes, redis_before, begun) = (self.nodes_cpu()?, cpu_seconds(redis)?, Instant::now());
        let all = self.cluster.nodes.len();
        let clients =
            self.conversations.iter().zip(self.owners).enumerate().map(|(client, (conversation, owner))| async move {
                let mut passed_on = 0;
                for n in (client..turns).step_by(self.conversations.len()) {
                    let node = if anywhere { (n / self.conversations.len() + client) % all } else { *owner };
                    self.api.at(&self.cluster.nodes[node].url).echoed(conversation, n).await?;
                    passed_on += usize::from(node != *owner);
                }
                anyhow::Ok(passed_on)
            });
        let passed_on: usize = try_join_all(clients).await?.into_iter().sum();
        let took = begun.elapsed().as_secs_f64();
        let each = |seconds: f64| seconds * 1e6 / turns as f64;
        Ok(Cost {
            nodes: each(self.nodes_cpu()? - nodes),
            redis: each(cpu_seconds(redis)? - redis_before),
            per_second: turns as f64 / took,
            passed_on: passed_on as f64 / turns as f64,
        })
    }

    fn nodes_cpu(&self) -> anyhow::Result<f64> {
        let one = |node: &klatch_tests::process::NodeProcess| cpu_seconds(node.id().context("the node runs")?);
        self.cluster.nodes.iter().map(one).sum()
    }
}

/// The calls that nodes make, made by one process in place of all of them: so many rows beat, each as often.
async fn table_of_nodes(options: &Options) -> anyhow::Result<()> {
    println!("## The table of nodes in Redis\n");
    let mut table = Table::new([
        "rows",
        "a beat: sent, bytes",
        "answered, bytes",
        "Redis, µs",
        "the node, µs",
        "all beats, % of a core of Redis",
        "all beats, MB/s",
        "a change seen and placed by one node, ms",
    ]);
    for rows in &options.rows {
        let redis = RedisServer::start().await?;
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
        table.row([
            rows.to_string(),
            format!("{:.0}", spent.sent),
            format!("{:.0}", spent.answered),
            format!("{:.1}", spent.redis * 1e6),
            format!("{:.1}", spent.own * 1e6),
            format!("{:.1}", spent.redis * per_second * 100.0),
            format!("{:.2}", (spent.sent + spent.answered) * per_second / 1e6),
            format!("{:.2}", seen_and_placed(&*views, options).await?),
        ]);
        opened.close().await;
    }
    println!("{table}");
    Ok(())
}

/// Median of: the table is read, and all shards are placed by it.
async fn seen_and_placed(views: &dyn Views, options: &Options) -> anyhow::Result<f64> {
    let mut took = Vec::new();
    for _ in 0..options.beats {
        let begun = Instant::now();
        let view = View::new(&views.read().await?);
        ensure!(view.owner(Shard(0)).is_some(), "nobody owns anything");
        took.push(begun.elapsed().as_secs_f64() * 1e3);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    took.sort_by(f64::total_cmp);
    Ok(percentile(&took, 50.0))
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
            redis: cpu_seconds(process)?,
            own: cpu_seconds(std::process::id())?,
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
