//! Many watchers of one reply cost its responder one call; those who do not read cost their node little memory.

use std::time::Duration;

use anyhow::{Context, ensure};
use klatch_tests::client::{Api, Ask, End, Patience, Seen};
use klatch_tests::cluster::{ClusterProcesses, Links};
use klatch_tests::measure::resident_bytes;
use klatch_tests::model_server::ModelServer;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use super::cluster::{PATIENCE, alone, settings};

const WATCHERS: usize = 100;
const IDLERS: usize = 200;
const WORDS: usize = 60_000;
const SAMPLED_EVERY: Duration = Duration::from_millis(100);
/// What one stream that nobody reads may cost its node: a few writes of 64 KB, a copy of the turn, and what the allocator
/// keeps of a burst, which differs by some 20 MB from node to node. Its events without a bound would be 12 MB. The kernel's
/// buffers are not counted.
const IDLER_BYTES_MAX: u64 = 1 << 20;

fn responder(model: &ModelServer) -> String {
    format!(
        "[[responder]]\nname = \"m\"\nkind = \"openai\"\nbase_url = \"{}\"\nmodel = \"m\"\ncontinue = \"prefill\"\n",
        model.base_url()
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_watchers_cost_one_call() -> anyhow::Result<()> {
    let _alone = alone().await;
    let model = ModelServer::start().await?;
    let cluster = ClusterProcesses::start(settings(Links::Direct, responder(&model))).await?;
    let api = cluster.api("ann").await?;
    let conversation = api.create(&cluster.nodes[0].url).await?;
    let text = "words 100,slow:20";
    let ask = Ask { conversation: &conversation, model: "m", text, key: None };
    let response = api.begin(&cluster.nodes[0].url, &ask).await?;
    let mut watchers = JoinSet::new();
    for n in 0..WATCHERS {
        let (api, url) = (api.clone(), cluster.nodes[n % 3].url.clone());
        let mut seen = Seen { response: Some(response.clone()), ..Seen::default() };
        watchers.spawn(async move {
            let patience = Patience { bytes: PATIENCE, events: PATIENCE };
            let end = api.resume(&url, patience, &mut seen).await;
            (end, seen)
        });
    }
    let expected: String = (1..=100).map(|n| format!("w{n} ")).collect();
    while let Some(watched) = watchers.join_next().await {
        let (end, seen) = watched?;
        ensure!(end == Ok(End::Done), "a watcher's stream ended {end:?}");
        ensure!((seen.missing, seen.repeated) == (0, 0), "{} missing, {} repeated", seen.missing, seen.repeated);
        ensure!(seen.text() == expected.trim_end(), "a watcher saw {:?}", seen.text());
    }
    ensure!(model.calls().len() == 1, "{} calls were made", model.calls().len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_clients_that_do_not_read_a_long_reply_cost_little_memory() -> anyhow::Result<()> {
    let _alone = alone().await;
    let model = ModelServer::start().await?;
    let cluster = ClusterProcesses::start(settings(Links::Direct, responder(&model))).await?;
    let api = cluster.api("ann").await?;
    let without = long_reply(&cluster, &api, 0).await?;
    let with = long_reply(&cluster, &api, IDLERS).await?;
    let more: Vec<u64> = with.iter().zip(&without).map(|(with, without)| with.saturating_sub(*without)).collect();
    println!("most in memory while {WORDS} words are said: {without:?} bytes, with {IDLERS} who do not read {with:?}");
    let bound = IDLER_BYTES_MAX * IDLERS as u64 / 3;
    ensure!(more.iter().all(|more| *more < bound), "they cost a node more than {bound} bytes: {more:?}");
    Ok(())
}

/// Most that each node has in memory while a long reply is said, in a new conversation, before one client that reads it
/// and so many that do not.
async fn long_reply(cluster: &ClusterProcesses, api: &Api, idlers: usize) -> anyhow::Result<Vec<u64>> {
    let conversation = api.create(&cluster.nodes[0].url).await?;
    let text = format!("wait:3000,words {WORDS}");
    let ask = Ask { conversation: &conversation, model: "m", text: &text, key: None };
    let response = api.begin(&cluster.nodes[0].url, &ask).await?;
    let mut idle = Vec::new();
    for n in 0..idlers {
        idle.push(watch_without_reading(api, &cluster.nodes[n % 3].url, &response).await?);
    }
    let (reader, url) = (api.clone(), cluster.nodes[1].url.clone());
    let mut reading = tokio::spawn(async move {
        let mut seen = Seen { response: Some(response), ..Seen::default() };
        let patience = Patience { bytes: PATIENCE, events: PATIENCE };
        (reader.resume(&url, patience, &mut seen).await, seen)
    });
    let mut most = memory(cluster)?;
    let (end, seen) = loop {
        match tokio::time::timeout(SAMPLED_EVERY, &mut reading).await {
            Ok(read) => break read?,
            Err(_) => most = most.iter().zip(memory(cluster)?).map(|(most, now)| now.max(*most)).collect(),
        }
    };
    ensure!(end == Ok(End::Done), "the stream of one who reads ended {end:?}");
    ensure!(seen.text().split(' ').count() == WORDS, "who reads beside them saw {} bytes", seen.text().len());
    Ok(most)
}

/// The connection, once its answer has begun; its own buffer is small.
async fn watch_without_reading(api: &Api, url: &str, response: &str) -> anyhow::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4_096)?;
    let mut stream = socket.connect(url.trim_start_matches("http://").parse()?).await?;
    stream.write_all(api.head(&format!("/v1/responses/{response}?stream=true")).as_bytes()).await?;
    let mut begun = [0; 12];
    let answered = tokio::time::timeout(PATIENCE, stream.peek(&mut begun)).await.context("no answer")??;
    ensure!(begun[..answered].starts_with(b"HTTP/1.1 200"), "a watcher is answered {begun:?}");
    Ok(stream)
}

/// Of each node, in bytes.
fn memory(cluster: &ClusterProcesses) -> anyhow::Result<Vec<u64>> {
    cluster.nodes.iter().map(|node| resident_bytes(node.id().context("the node runs")?)).collect()
}
