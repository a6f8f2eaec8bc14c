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
/// What one stream that nobody reads may cost its node: a few writes of 64 KB. The kernel's buffers are not counted.
const IDLER_BYTES_MAX: u64 = 512 << 10;

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
    let conversation = api.create(&cluster.nodes[0].url).await?;
    let text = format!("wait:3000,words {WORDS}");
    let ask = Ask { conversation: &conversation, model: "m", text: &text, key: None };
    let response = api.begin(&cluster.nodes[0].url, &ask).await?;
    let mut idlers = Vec::new();
    for n in 0..IDLERS {
        idlers.push(watch_without_reading(&api, &cluster.nodes[n % 3].url, &response).await?);
    }
    let before = memory(&cluster)?;
    let mut most = before.clone();
    loop {
        for (most, now) in most.iter_mut().zip(memory(&cluster)?) {
            *most = now.max(*most);
        }
        let status = api.response(&cluster.nodes[1].url, &response).await?["status"].clone();
        ensure!(status != "failed" && status != "incomplete", "the reply ended {status}");
        if status == "completed" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let grown: Vec<u64> = most.iter().zip(&before).map(|(most, before)| most.saturating_sub(*before)).collect();
    println!("{IDLERS} streams of {WORDS} words that nobody reads: the nodes grew by {grown:?} bytes from {before:?}");
    let bound = IDLER_BYTES_MAX * IDLERS as u64 / 3;
    ensure!(grown.iter().all(|grown| *grown < bound), "a node grew by more than {bound} bytes: {grown:?}");
    Ok(())
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
