//! Whatever keeps a node from the others, of every conversation one node writes at a time. The program `one-writer` does
//! it more often, and with a real network.

use std::time::Duration;

use klatch_tests::cluster::{ClusterProcesses, Links};
use klatch_tests::model_server::ModelServer;
use klatch_tests::one_writer::{Disturbance, responder, run};

use super::cluster::{alone, settings};

async fn survives(disturbance: Disturbance, lasts: Duration) -> anyhow::Result<()> {
    let _alone = alone().await;
    let model = ModelServer::start().await?;
    let mut cluster = ClusterProcesses::start(settings(Links::Proxied, responder(&model))).await?;
    let api = cluster.api("ann").await?;
    let report = run(&mut cluster, &model, &api, disturbance, 0, lasts, "once").await?;
    println!("{disturbance}: {report}");
    assert_eq!(report.violations, Vec::<String>::new(), "{disturbance}: {report}");
    assert_eq!(cluster.panics(), Vec::<String>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_was_frozen_for_ten_seconds_writes_and_shows_nothing() -> anyhow::Result<()> {
    survives(Disturbance::Freeze, Duration::from_secs(10)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_is_cut_off_from_redis_loses_nothing() -> anyhow::Result<()> {
    survives(Disturbance::NoRedis, Duration::from_secs(8)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_is_cut_off_from_its_peers_loses_nothing() -> anyhow::Result<()> {
    survives(Disturbance::NoPeers, Duration::from_secs(8)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_that_cannot_see_each_other_lose_nothing() -> anyhow::Result<()> {
    survives(Disturbance::NoPair, Duration::from_secs(8)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_gets_no_answer_from_redis_loses_nothing() -> anyhow::Result<()> {
    survives(Disturbance::Deaf, Duration::from_secs(8)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_whose_connections_to_redis_break_loses_nothing() -> anyhow::Result<()> {
    survives(Disturbance::Resets, Duration::from_secs(5)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_killed_and_started_again_kills_no_node() -> anyhow::Result<()> {
    survives(Disturbance::RedisKilled, Duration::from_secs(5)).await
}
