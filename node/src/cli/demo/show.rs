//! The demonstration itself, in the order in which it is seen: a cluster, an answer, a death, the rest of the answer, the
//! proof; then how to try it. Called by `demo.rs`; whatever is not as it should be is an error.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::cluster::{Cluster, NODES, USER};
use super::redis::RedisProgram;
use super::screen::Screen;
use super::story::{self, MODEL, WORD_MS};
use crate::cli::client::events::{StreamEvent, StreamItem};
use crate::cli::client::{ApiClient, Call};

/// With a failover in it, on a slow machine.
const ANSWER_MAX: Duration = Duration::from_secs(90);
/// More than the answer has words.
const PIECES_WAITING_MAX: usize = 1024;
/// Several words late: the answer stood still.
const STANDSTILL: Duration = Duration::from_millis(5 * WORD_MS);
/// The question and its answer; more would be wrong, and is to be seen.
const ITEMS_READ: usize = 10;

/// Some of the answer, and when it arrived.
struct Piece {
    at: Instant,
    text: String,
}

struct Death {
    node: usize,
    at: Instant,
    /// The longest time between two pieces since.
    pause: Duration,
    taken_over: bool,
}

#[derive(Deserialize)]
struct Created {
    id: String,
}

#[derive(Deserialize)]
struct Page {
    data: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    role: String,
    content: Vec<Part>,
}

#[derive(Deserialize)]
struct Part {
    text: String,
}

pub async fn demonstrate(cluster: &mut Cluster, redis: &RedisProgram, screen: &mut Screen) -> anyhow::Result<()> {
    start(cluster, redis, screen).await?;
    let made = cluster.client(0)?.patiently::<Created>(&Call::post("/v1/conversations", "{}")).await?;
    let owner = cluster.owner(&made.id).await?;
    let edge = (owner + 1) % NODES;
    screen.say(&format!(
        "\n{} is asked for an answer; the conversation is with {}, which makes it:\n",
        cluster.name(edge),
        cluster.name(owner)
    ))?;
    let answer = tokio::time::timeout(ANSWER_MAX, answer(cluster, edge, &made.id, screen)).await;
    let death = answer.context("the answer did not end in time")??;
    let witness = (0..NODES).find(|node| *node != edge && *node != death.node).context("there are three nodes")?;
    is_stored(cluster, witness, &made.id).await?;
    screen.say(&format!(
        "\nVerified: {} words, each once and in order, through one connection that was never broken;\n{} has the same \
         in the store. The longest pause was {}.",
        story::words(&story::text()),
        cluster.name(witness),
        seconds(death.pause)
    ))?;
    start_again(cluster, death.node, &made.id, screen).await
}

async fn start(cluster: &mut Cluster, redis: &RedisProgram, screen: &mut Screen) -> anyhow::Result<()> {
    screen.say("Three nodes of klatch on this host, over one Redis:\n")?;
    let began = Instant::now();
    let pid = cluster.start_redis(redis).await?;
    screen.say(&format!("  redis     pid {pid}"))?;
    for node in 0..NODES {
        cluster.start_node(node)?;
        screen.say(&format!("  {}  pid {}  {}", cluster.name(node), cluster.pid(node), cluster.url(node)))?;
    }
    screen.say(&format!("  logs in   {}", cluster.folder()))?;
    cluster.formed().await?;
    screen.say(&format!("\nThey are one cluster after {}.", seconds(began.elapsed())))?;
    Ok(())
}

/// Shows it as it comes, and kills the node that makes it when it is time.
async fn answer(cluster: &mut Cluster, edge: usize, conversation: &str, screen: &mut Screen) -> anyhow::Result<Death> {
    let (pieces, mut arriving) = mpsc::channel(PIECES_WAITING_MAX);
    let mut reading = JoinSet::new();
    reading.spawn(read(cluster.client(edge)?, question(conversation), pieces));
    let (mut shown, mut last, mut death) = (String::new(), Instant::now(), None);
    while let Some(Piece { at, text }) = arriving.recv().await {
        if let Some(death) = &mut death {
            let gap = at.saturating_duration_since(last);
            arrived(death, at, gap, cluster, edge, screen).await?;
        }
        last = at;
        screen.answer(&text)?;
        shown.push_str(&text);
        if death.is_none() && story::is_time(&shown) {
            death = Some(kill(cluster, edge, screen).await?);
        }
    }
    screen.end_answer()?;
    reading.join_next().await.context("one task reads")???;
    if let Some(difference) = story::difference(&shown) {
        bail!("the answer is not what it should be: {difference}");
    }
    death.context("the answer ended before the node that made it was killed")
}

fn question(conversation: &str) -> Call {
    let body = json!({"model": MODEL, "conversation": conversation, "input": story::text(), "stream": true});
    Call::post("/v1/responses", body.to_string())
}

/// Tells each piece, without waiting for anybody; any fault of the stream is an error.
async fn read(client: ApiClient, question: Call, pieces: mpsc::Sender<Piece>) -> anyhow::Result<()> {
    let mut events = client.stream(&question).await?;
    let (mut next, mut completed) = (0, false);
    loop {
        let event = match events.next().await? {
            StreamItem::Event(event) => event,
            StreamItem::Done => break,
        };
        let number = event.sequence_number;
        ensure!(number == next, "event {number} of the stream came where {next} was due");
        next += 1;
        completed = event.kind == "response.completed";
        if let Some(text) = text_of(&event)? {
            let piece = Piece { at: Instant::now(), text };
            pieces.send(piece).await.context("nobody listens any more")?;
        }
    }
    ensure!(completed, "the answer was not completed");
    Ok(())
}

fn text_of(event: &StreamEvent) -> anyhow::Result<Option<String>> {
    #[derive(Deserialize)]
    struct Delta {
        delta: String,
    }
    match event.kind.as_str() {
        "response.output_text.delta" => Ok(Some(serde_json::from_str::<Delta>(&event.data)?.delta)),
        "response.failed" | "response.incomplete" | "error" => bail!("the answer failed: {}", event.data),
        _ => Ok(None),
    }
}

async fn kill(cluster: &mut Cluster, edge: usize, screen: &mut Screen) -> anyhow::Result<Death> {
    let node = cluster.maker(edge).await?.context("no node says that it makes the answer")?;
    ensure!(node != edge, "the answer is made where it is asked for, so killing that node would show something else");
    cluster.kill_node(node).await?;
    let (name, pid) = (cluster.name(node), cluster.pid(node));
    screen.notice(&format!("kill -9 {pid}: {name}, which was making this answer, is dead"))?;
    Ok(Death { node, at: Instant::now(), pause: Duration::ZERO, taken_over: false })
}

async fn arrived(
    death: &mut Death,
    at: Instant,
    gap: Duration,
    cluster: &Cluster,
    edge: usize,
    screen: &mut Screen,
) -> anyhow::Result<()> {
    // What came before was on its way already.
    if at < death.at {
        return Ok(());
    }
    death.pause = death.pause.max(gap);
    if gap < STANDSTILL || death.taken_over {
        return Ok(());
    }
    if let Some(maker) = cluster.maker(edge).await?.filter(|maker| *maker != death.node) {
        death.taken_over = true;
        screen.notice(&format!("{} later: {} has taken over, and goes on", seconds(gap), cluster.name(maker)))?;
    }
    Ok(())
}

/// The question, and the answer once.
async fn is_stored(cluster: &Cluster, node: usize, conversation: &str) -> anyhow::Result<()> {
    let path = format!("/v1/conversations/{conversation}/items?order=asc&limit={ITEMS_READ}");
    let page: Page = cluster.client(node)?.patiently(&Call::get(path)).await?;
    let text = |item: &Item| item.content.iter().map(|part| part.text.as_str()).collect::<String>();
    let roles: Vec<&str> = page.data.iter().map(|item| item.role.as_str()).collect();
    ensure!(roles == ["user", "assistant"], "{} has stored messages of {roles:?}", cluster.name(node));
    match story::difference(&text(&page.data[1])) {
        None => Ok(()),
        Some(difference) => bail!("{} has stored another answer: {difference}", cluster.name(node)),
    }
}

async fn start_again(
    cluster: &mut Cluster,
    node: usize,
    conversation: &str,
    screen: &mut Screen,
) -> anyhow::Result<()> {
    let began = Instant::now();
    cluster.start_node(node)?;
    cluster.formed().await?;
    is_stored(cluster, node, conversation).await?;
    let (name, pid) = (cluster.name(node), cluster.pid(node));
    let after = seconds(began.elapsed());
    screen
        .say(&format!("{name} was started again as pid {pid}: in the cluster after {after}, with the same words."))?;
    Ok(())
}

/// How one tries it oneself.
pub async fn invite(cluster: &Cluster, screen: &mut Screen) -> anyhow::Result<()> {
    let password = cluster.add_account(0).await?;
    let program = std::env::args().next().unwrap_or_else(|| "klatch".to_owned());
    let nodes = (0..NODES).map(|node| format!("{} is {}", cluster.name(node), cluster.pid(node)));
    let lines = [
        "\nTry it:\n".to_owned(),
        format!("  chat page   {}/", cluster.url(0)),
        format!("              log in as {USER} with the password {password}"),
        format!(
            "              `{MODEL}` says a long message as slowly as above, so that you can kill the node that has it"
        ),
        format!("  operators   {}/ shows which node that is", cluster.ops_url(0)),
        format!("  terminal    {program} chat --url {}", cluster.url(1)),
        format!("  kill -9     {}; a dead node is started again", nodes.collect::<Vec<_>>().join(", ")),
        "\nCtrl-C ends all of it.".to_owned(),
    ];
    lines.iter().try_for_each(|line| screen.say(line)).context("cannot write")
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}
