//! Kills nodes in the middle of their streams, again and again, and counts what clients lost:
//! `failover [--rounds N] [--deaths kill,stop,cut,vanish] [--links direct|namespaces] [--nodes N] [--streams N] [--words N]
//! [--word-ms N]`.
//!
//! Ends with 1 if any token was lost, repeated or contradicted, any stream through another node broke, or any reply was
//! begun again. The longest pause that each stream saw is printed as a histogram, and judged by nobody: it says something
//! only together with the machine. `cut` and `vanish` need a network of namespaces, and that needs root.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use klatch_tests::cluster::{ClusterProcesses, ClusterSettings, Links};
use klatch_tests::failover::{Death, Plan, Round, responder, round};
use klatch_tests::measure::machine;
use klatch_tests::model_server::ModelServer;
use klatch_tests::namespaces;

/// Pauses are counted by these bounds, in ms.
const BOUNDS_MS: [u64; 12] = [50, 100, 250, 500, 1_000, 1_500, 2_000, 3_000, 4_000, 5_000, 10_000, u64::MAX];

struct Options {
    rounds: usize,
    deaths: Vec<Death>,
    links: Links,
    nodes: usize,
    plan: Plan,
}

fn main() -> anyhow::Result<ExitCode> {
    let options = options(std::env::args().skip(1))?;
    if options.links == Links::Namespaces {
        if let Some(missing) = namespaces::missing() {
            bail!("{missing}");
        }
        namespaces::enter()?;
    }
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(run(options))
}

fn options(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<Options> {
    let plan = Plan { streams: 50, words: 150, word_ms: 20 };
    let mut options = Options { rounds: 100, deaths: vec![Death::Kill], links: Links::Direct, nodes: 3, plan };
    let mut links = None;
    while let Some(name) = arguments.next() {
        let value = arguments.next().with_context(|| format!("{name} needs a value"))?;
        let number = || value.parse::<usize>().with_context(|| format!("{name} needs a number"));
        match name.as_str() {
            "--rounds" => options.rounds = number()?,
            "--nodes" => options.nodes = number()?,
            "--streams" => options.plan.streams = number()?,
            "--words" => options.plan.words = number()?,
            "--word-ms" => options.plan.word_ms = number()? as u64,
            "--deaths" => options.deaths = value.split(',').map(str::parse).collect::<anyhow::Result<_>>()?,
            "--links" if value == "direct" => links = Some(Links::Direct),
            "--links" if value == "namespaces" => links = Some(Links::Namespaces),
            _ => {
                bail!("unknown option {name} {value}; the first lines of tests/src/bin/failover.rs say which there are")
            }
        }
    }
    let needs_network = options.deaths.iter().any(|death| matches!(death, Death::Cut | Death::Vanish));
    options.links = links.unwrap_or(if needs_network { Links::Namespaces } else { Links::Direct });
    ensure!(options.links == Links::Namespaces || !needs_network, "cut and vanish need --links namespaces");
    ensure!(options.nodes > 1 && options.plan.streams > 0 && options.plan.words > 10, "there is nothing to fail over");
    Ok(options)
}

async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let Options { rounds, deaths, links, nodes, plan } = options;
    let model = match links {
        Links::Namespaces => ModelServer::bind(&format!("{}:0", namespaces::HUB), Duration::ZERO).await?,
        Links::Direct | Links::Proxied => ModelServer::start().await?,
    };
    let settings =
        ClusterSettings { nodes, links, limits: "keep_alive = \"1s\"".into(), sections: responder(&model, plan) };
    let mut cluster = ClusterProcesses::start(settings).await?;
    let api = cluster.api("ann").await?;
    println!("{}", machine());
    println!("{nodes} nodes, {} streams a round, {} words of {} ms each", plan.streams, plan.words, plan.word_ms);
    let mut found: BTreeMap<Death, Round> = BTreeMap::new();
    for n in 0..rounds {
        let (death, victim, begun) = (deaths[n % deaths.len()], n % nodes, Instant::now());
        let ended = round(&mut cluster, &model, &api, plan, death, victim, &format!("r{n}")).await;
        let ended = ended.with_context(|| format!("round {n}: {death} of node {victim}"))?;
        let longest = ended.gaps.iter().max().copied().unwrap_or_default();
        let (ms, seconds) = (longest.as_millis(), begun.elapsed().as_secs());
        let verdict = if ended.is_clean() { "clean" } else { "NOT CLEAN" };
        println!("{:>4}/{rounds} {death} of node {victim}: {verdict}, longest pause {ms} ms, {seconds} s", n + 1);
        found.entry(death).or_default().add(ended);
    }
    for (death, round) in &mut found {
        report(*death, round);
    }
    let panics = cluster.panics();
    panics.iter().for_each(|line| println!("{line}"));
    let clean = panics.is_empty() && found.values().all(Round::is_clean);
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn report(death: Death, round: &mut Round) {
    let Round { lost, repeated, contradicted, broken, begun_again, continued, .. } = round;
    println!(
        "\n{death}: {lost} lost, {repeated} repeated, {contradicted} contradicted tokens; {broken} streams broke; \
         {continued} replies continued, {begun_again} begun again"
    );
    histogram("longest pause, streams through other nodes", &mut round.gaps);
    histogram("longest pause, streams through the node itself (resumed)", &mut round.gaps_of_own);
}

fn histogram(title: &str, gaps: &mut [Duration]) {
    gaps.sort_unstable();
    let Some(last) = gaps.len().checked_sub(1) else { return };
    let at = |part: f64| gaps[(last as f64 * part).round() as usize].as_millis();
    println!(
        "{title}: {} streams, p50 {} ms, p90 {} ms, p99 {} ms, max {} ms",
        gaps.len(),
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    );
    let mut low_ms = 0;
    for high_ms in BOUNDS_MS {
        let count = gaps.iter().filter(|gap| (low_ms..high_ms).contains(&(gap.as_millis() as u64))).count();
        if count > 0 {
            let bound = if high_ms == u64::MAX { "more".to_owned() } else { format!("{high_ms} ms") };
            println!("  {low_ms:>6} to {bound:>8}  {count:>6}  {}", "#".repeat((count * 60).div_ceil(gaps.len())));
        }
        low_ms = high_ms;
    }
}
