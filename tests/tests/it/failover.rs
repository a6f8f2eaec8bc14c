//! A node dies in the middle of fifty streams, and no client loses a token. The program `failover` does it more often,
//! and in more ways.

use klatch_tests::cluster::{ClusterProcesses, Links};
use klatch_tests::failover::{Death, Plan, Round, responder, round};
use klatch_tests::model_server::ModelServer;

use super::cluster::{alone, settings};

const PLAN: Plan = Plan { streams: 50, words: 60, word_ms: 50 };

/// Each of these deaths in turn, each of another node.
async fn dies(links: Links, deaths: &[Death]) -> anyhow::Result<()> {
    let _alone = alone().await;
    let model = ModelServer::start().await?;
    let mut cluster = ClusterProcesses::start(settings(links, responder(&model, PLAN))).await?;
    let api = cluster.api("ann").await?;
    for (n, death) in deaths.iter().enumerate() {
        let ended = round(&mut cluster, &model, &api, PLAN, *death, n % 3, &format!("r{n}")).await?;
        let longest = |gaps: &[std::time::Duration]| gaps.iter().max().copied().unwrap_or_default();
        println!("{death}: longest pause {:?}, of own clients {:?}", longest(&ended.gaps), longest(&ended.gaps_of_own));
        assert!(ended.is_clean(), "{death}: {:?}", Round { gaps: Vec::new(), gaps_of_own: Vec::new(), ..ended });
        assert!(ended.continued > 0, "{death}: no reply was continued, so nothing was tried");
    }
    assert_eq!(cluster.panics(), Vec::<String>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_streams_go_on_when_their_owner_is_killed_or_frozen() -> anyhow::Result<()> {
    dies(Links::Direct, &[Death::Kill, Death::Stop]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_streams_go_on_when_their_owner_is_cut_off() -> anyhow::Result<()> {
    dies(Links::Proxied, &[Death::Cut]).await
}
