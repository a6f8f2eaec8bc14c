//! A cluster of real nodes forms by itself, says what it is, and serves every conversation through every node.

use std::time::Duration;

use anyhow::ensure;
use klatch_tests::client::{Answer, Ask};
use klatch_tests::cluster::{ClusterProcesses, ClusterSettings, Links};
use tokio::sync::{Mutex, MutexGuard};

/// Clusters are tried one after the other: each is several programs, and times what it sees.
static ALONE: Mutex<()> = Mutex::const_new(());

pub async fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().await
}

/// Longer than any turn here takes, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn settings(links: Links, sections: String) -> ClusterSettings {
    ClusterSettings { nodes: 3, links, limits: "keep_alive = \"1s\"".into(), sections }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_form_one_cluster_and_each_serves_every_conversation() -> anyhow::Result<()> {
    let _alone = alone().await;
    let cluster = ClusterProcesses::start(settings(Links::Direct, String::new())).await?;
    let said = cluster.nodes[1].command(&["cluster", "--ops-url", &cluster.nodes[1].ops_url], "").await?;
    println!("{said}");
    for node in 0..3 {
        let line = said.lines().find(|line| line.starts_with(&ClusterProcesses::name(node)));
        ensure!(line.is_some_and(|line| line.contains("up")), "node {node} is not shown as up:\n{said}");
    }
    let shards: usize = cluster.shown(2).await?.members.iter().map(|member| member.shards).sum();
    ensure!(shards == 1024, "the nodes have {shards} shards together");

    let api = cluster.api("ann").await?;
    for owner in 0..3 {
        let conversation = cluster.owned_by(owner, &api, 1).await?.remove(0);
        for node in &cluster.nodes {
            let ask = Ask { conversation: &conversation, model: "echo", text: "hello", key: None };
            let answer = api.turn(&node.url, &ask, PATIENCE).await;
            ensure!(answer == Answer::Completed { reply: "hello".into() }, "{}: {answer:?}", node.url);
        }
        let counts = futures::future::try_join_all(
            cluster.nodes.iter().map(|node| api.turns(&node.url, &conversation, PATIENCE)),
        );
        ensure!(counts.await?.iter().all(|turns| turns.len() == 3), "a node does not show all three turns");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_comes_back_as_another_life_after_a_crash_and_after_a_freeze() -> anyhow::Result<()> {
    let _alone = alone().await;
    let mut cluster = ClusterProcesses::start(settings(Links::Direct, String::new())).await?;
    let first = cluster.incarnation(0).await?;
    cluster.nodes[0].kill().await?;
    cluster.gone(1, 0, first).await?;
    cluster.nodes[0].restart().await?;
    cluster.formed().await?;
    let second = cluster.incarnation(0).await?;
    ensure!(second > first, "a restarted node came back as the same life");

    // A conversation that it owns and has in memory: it must not answer from there.
    let api = cluster.api("ann").await?;
    let conversation = cluster.owned_by(0, &api, 1).await?.remove(0);
    let ask = |text| Ask { conversation: &conversation, model: "echo", text, key: None };
    let echoed = |text: &str| Answer::Completed { reply: text.into() };
    ensure!(api.turn(&cluster.nodes[0].url, &ask("before"), PATIENCE).await == echoed("before"));
    cluster.nodes[0].freeze().await?;
    cluster.gone(1, 0, second).await?;
    ensure!(api.turn(&cluster.nodes[1].url, &ask("meanwhile"), PATIENCE).await == echoed("meanwhile"));
    cluster.nodes[0].thaw().await?;
    cluster.formed().await?;
    ensure!(cluster.incarnation(0).await? > second, "a thawed node came back as the same life");
    ensure!(api.turn(&cluster.nodes[0].url, &ask("after"), PATIENCE).await == echoed("after"));
    let turns = api.turns(&cluster.nodes[0].url, &conversation, PATIENCE).await?;
    let texts: Vec<&str> = turns.iter().map(|turn| turn.text.as_str()).collect();
    ensure!(texts == ["before", "meanwhile", "after"], "the conversation holds {texts:?}");
    Ok(())
}
