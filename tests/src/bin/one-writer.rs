//! Freezes nodes and cuts them off under load, again and again, and checks what became of every turn:
//! `one-writer [--rounds N] [--disturbances freeze,no-redis,no-peers,no-pair,deaf,resets,redis-killed]
//! [--links proxied|namespaces] [--seconds N]`.
//!
//! By default all that the links allow: connections break only in proxies.
//! Ends with 1 if any turn was lost, doubled, reordered or told differently, or any call of the model is not on record.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use klatch_tests::cluster::{ClusterProcesses, ClusterSettings, Links};
use klatch_tests::measure::machine;
use klatch_tests::model_server::ModelServer;
use klatch_tests::namespaces;
use klatch_tests::one_writer::{Disturbance, responder, run};

const NODES: usize = 3;

struct Options {
    rounds: usize,
    disturbances: Vec<Disturbance>,
    links: Links,
    lasts: Duration,
}

fn main() -> anyhow::Result<ExitCode> {
    let options = options(std::env::args().skip(1))?;
    if options.links == Links::Namespaces {
        if let Some(missing) = namespaces::missing() {
            bail!("{missing}; --links proxied needs nothing");
        }
        namespaces::enter()?;
    }
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(rounds(options))
}

fn options(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<Options> {
    let lasts = Duration::from_secs(10);
    let mut options = Options { rounds: 1, disturbances: Vec::new(), links: Links::Proxied, lasts };
    while let Some(name) = arguments.next() {
        let value = arguments.next().with_context(|| format!("{name} needs a value"))?;
        let number = || value.parse::<usize>().with_context(|| format!("{name} needs a number"));
        match name.as_str() {
            "--rounds" => options.rounds = number()?,
            "--seconds" => options.lasts = Duration::from_secs(number()? as u64),
            "--disturbances" => {
                options.disturbances = value.split(',').map(str::parse).collect::<anyhow::Result<_>>()?;
            }
            "--links" if value == "proxied" => options.links = Links::Proxied,
            "--links" if value == "namespaces" => options.links = Links::Namespaces,
            _ => bail!(
                "unknown option {name} {value}; the first lines of tests/src/bin/one-writer.rs say which there are"
            ),
        }
    }
    if options.disturbances.is_empty() {
        options.disturbances = Disturbance::ALL.map(|(disturbance, _)| disturbance).into();
        let breaks = options.links == Links::Proxied;
        options.disturbances.retain(|disturbance| breaks || *disturbance != Disturbance::Resets);
    }
    Ok(options)
}

async fn rounds(options: Options) -> anyhow::Result<ExitCode> {
    let Options { rounds, disturbances, links, lasts } = options;
    let model = match links {
        Links::Namespaces => ModelServer::bind(&format!("{}:0", namespaces::HUB), Duration::ZERO).await?,
        Links::Direct | Links::Proxied => ModelServer::start().await?,
    };
    let settings =
        ClusterSettings { nodes: NODES, links, limits: "keep_alive = \"1s\"".into(), sections: responder(&model) };
    let mut cluster = ClusterProcesses::start(settings).await?;
    let api = cluster.api("ann").await?;
    println!("{}", machine());
    let mut wrong = 0;
    for n in 0..rounds * disturbances.len() {
        let (disturbance, node, begun) = (disturbances[n % disturbances.len()], n % NODES, Instant::now());
        let report = run(&mut cluster, &model, &api, disturbance, node, lasts, &format!("r{n}")).await;
        let report = report.with_context(|| format!("round {n}: {disturbance} of node {node}"))?;
        println!("{disturbance} of node {node}: {report}, {} s", begun.elapsed().as_secs());
        report.violations.iter().for_each(|violation| println!("  {violation}"));
        wrong += report.violations.len();
    }
    let panics = cluster.panics();
    panics.iter().for_each(|line| println!("{line}"));
    Ok(if wrong == 0 && panics.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
