//! Runs the pods of a rendered StatefulSet without Kubernetes, and lets happen to them what happens there:
//! `statefulset MANIFESTS.json…`, of files that tests/kubernetes/render.py printed.
//!
//! Each file's drain is added up first. Then the pods of the first run in network namespaces, with the arguments, environment,
//! files and user of the manifests, and find one another and Redis by a real DNS server: three start at once; one is
//! restarted and has another address, and no name for a while; two are added, and taken away again; one host is lost for good,
//! and nobody replaces its pod. Clients send turns with keys and read streams all the time, through pods that are ready.
//!
//! Ends with 1 if a turn was lost or made twice, a stream did not go on, a stream through a pod that stayed broke, the cluster's
//! view did not come to what it should be, a pod did not stop in its time, or a node panicked. Needs root, `dnsmasq`,
//! `redis-server`, `ip`, `unshare` and `setpriv`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use klatch::config::{Config, Sources};
use klatch::serve::longest_stop;
use klatch_tests::client::Api;
use klatch_tests::container::{BECOME, Container};
use klatch_tests::failover::responder;
use klatch_tests::manifests::{Manifests, Set};
use klatch_tests::model_server::ModelServer;
use klatch_tests::namespaces;
use klatch_tests::pods::clients::{Found, Load, PLAN};
use klatch_tests::pods::set::{Cluster, SET};
use klatch_tests::process::binary;
use klatch_tests::redis_server::RedisServer;
use tokio::process::Command;

/// There with the component `auth` only.
const SIGNS_IN: &str = "klatch-auth";

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [become_it, container] = &arguments[..]
        && become_it == BECOME
    {
        let container: Container = serde_json::from_str(container)?;
        container.become_it()?;
    }
    ensure!(!arguments.is_empty(), "name the manifests, as tests/kubernetes/render.py prints them");
    if let Some(missing) = namespaces::missing() {
        bail!("{missing}");
    }
    namespaces::enter()?;
    for path in &arguments {
        adds_up(path)?;
    }
    let manifests = Manifests::read(Path::new(&arguments[0]))?;
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(run(&manifests))
}

/// The program takes the configuration, and a stop that takes as long as can be ends before the pod is killed.
fn adds_up(path: &str) -> anyhow::Result<()> {
    let manifests = Manifests::read(Path::new(path))?;
    for (kind, name) in [("StatefulSet", SET), ("Deployment", SIGNS_IN)] {
        if kind == "Deployment" && !manifests.has(kind, name) {
            continue;
        }
        let workload = manifests.workload(kind, name)?;
        let config = config_of(&workload)?;
        let grace = workload.pod["terminationGracePeriodSeconds"].as_u64().context("the pod has a grace period")?;
        let stop = longest_stop(&config);
        ensure!(Duration::from_secs(grace) >= stop, "{path}: {name}: a stop may take {stop:?}, and is given {grace} s");
        println!("{path}: a stop of {name} takes {:.1} s at the most, and is given {grace} s", stop.as_secs_f64());
    }
    Ok(())
}

fn config_of(set: &Set) -> anyhow::Result<Config> {
    let environment = set.environment("klatch-0")?;
    let path = environment.get("KLATCH_CONFIG").context("a configuration is named")?.clone();
    let file = Some((path.clone().into(), set.file(&path)?));
    Config::load(&Sources { file, environment, command_line: BTreeMap::new() })
        .map_err(|refused| anyhow::anyhow!("{refused}"))
}

async fn run(manifests: &Manifests) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let set = manifests.set(SET)?;
    let secret = |file: &str| set.file(&format!("/run/secrets/klatch/{file}"));
    let _redis = redis(&secret("redis-password")?).await?;
    let model = ModelServer::bind(&format!("{}:0", namespaces::HUB), Duration::ZERO).await?;
    let api = Api::new(token(&secret("signing.pem")?).await?)?;
    let mut cluster = Cluster::start(set, responder(&model, PLAN)).await?;
    let said = |what: &str| println!("{:>5.1} s  {what}", begun.elapsed().as_secs_f64());

    let first: Vec<usize> = (0..cluster.set.replicas()).collect();
    ensure!(first.len() == 3, "the run is made for three replicas, and the manifests say {}", first.len());
    cluster.start_pods(&first).await?;
    cluster.agreed(&[0, 1, 2]).await?;
    said("three pods started at once are a cluster");
    let load = Load::start(&api, &cluster.ready);
    load.goes_on(1).await?;

    let before = cluster.incarnation(0, "klatch-1").await?;
    cluster.stop_pods(&[1]).await?;
    said("klatch-1 has drained; it comes back at another address");
    cluster.start_pods(&[1]).await?;
    cluster.agreed(&[0, 1, 2]).await?;
    ensure!(cluster.incarnation(0, "klatch-1").await? > before, "klatch-1 came back as the same life");
    load.goes_on(1).await?;

    cluster.start_pods(&[3, 4]).await?;
    cluster.agreed(&[0, 1, 2, 3, 4]).await?;
    said("five pods are a cluster");
    load.goes_on(1).await?;
    cluster.stop_pods(&[3, 4]).await?;
    cluster.agreed(&[0, 1, 2]).await?;
    said("three are left, and the two that went are in no view");
    load.goes_on(1).await?;

    cluster.lose_host_of_a_stream(2).await?;
    let lost = Instant::now();
    cluster.agreed(&[0, 1]).await?;
    said(&format!("klatch-2 and its host are gone for good; noticed after {:.1} s", lost.elapsed().as_secs_f64()));
    load.goes_on(2).await?;

    let found = load.stop().await?;
    println!("\n{}", cluster.table().await?);
    let Found { turns, again, streams, resumed, .. } = found;
    println!("{turns} turns, {again} sent again under their keys; {streams} streams, {resumed} read on at another pod");
    found.problems.iter().for_each(|problem| println!("{problem}"));
    let panics = cluster.panics();
    panics.iter().for_each(|line| println!("{line}"));
    let clean = found.problems.is_empty() && panics.is_empty();
    said(if clean { "no turn was lost, and every stream went on" } else { "NOT CLEAN" });
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// At the address and port that the Service would lead to.
async fn redis(password: &str) -> anyhow::Result<RedisServer> {
    let bind = namespaces::REDIS.to_string();
    let options = ["--appendonly", "yes", "--requirepass", password, "--bind", &bind, "127.0.0.1"];
    let mut redis = RedisServer::start_with(&options).await?;
    redis.kill().await?;
    redis.port = 6379;
    redis.restart().await?;
    Ok(redis)
}

/// Signed with the key of the Secret, as the nodes expect.
async fn token(key: &str) -> anyhow::Result<String> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("signing.pem");
    std::fs::write(&path, key)?;
    let config = folder.path().join("klatch.toml");
    std::fs::write(&config, format!("auth.signing_keys = [\"{}\"]\n", path.display()))?;
    let mut command = Command::new(binary()?);
    command.args(["token", "--sub", "ann", "--config"]).arg(&config).current_dir(folder.path());
    let printed = command.output().await?;
    ensure!(printed.status.success(), "no token: {}", String::from_utf8_lossy(&printed.stderr));
    Ok(String::from_utf8(printed.stdout)?.trim().to_owned())
}
