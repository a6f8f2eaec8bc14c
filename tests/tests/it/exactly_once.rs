//! Every turn is there once and in order, however often the node is killed and the client repeats itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use klatch_tests::process::{NodeProcess, NodeSettings};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Notify;

const TURNS: usize = 1_000;
const CLIENTS: usize = 4;
const KILLS: usize = 20;

/// One client's life: its turns one after the other, each repeated under its key until it has an answer.
struct Sender {
    http: Client,
    url: String,
    token: String,
    conversation: String,
    name: usize,
    sent: Arc<AtomicUsize>,
    progress: Arc<Notify>,
}

impl Sender {
    async fn run(&self) -> anyhow::Result<usize> {
        let mut repeated = 0;
        for n in 0..TURNS / CLIENTS {
            repeated += self.turn(n).await?;
            self.sent.fetch_add(1, Ordering::SeqCst);
            self.progress.notify_one();
        }
        Ok(repeated)
    }

    /// Says how often it had to be repeated.
    async fn turn(&self, n: usize) -> anyhow::Result<usize> {
        let begun = Instant::now();
        let text = format!("turn {n} of client {}", self.name);
        let model = if n.is_multiple_of(3) { "slow" } else { "echo" };
        for repeated in 0.. {
            ensure!(begun.elapsed() < Duration::from_secs(120), "turn {n} had no answer in two minutes");
            let answer = self
                .http
                .post(format!("{}/v1/responses", self.url))
                .bearer_auth(&self.token)
                .header("Idempotency-Key", format!("client-{}-{n}", self.name))
                .json(&json!({"model": model, "input": text, "conversation": self.conversation}))
                .send()
                .await;
            match answer {
                Ok(answer) if answer.status() == StatusCode::OK => {
                    let Ok(response) = answer.json::<Value>().await else { continue };
                    ensure!(response["status"] == "completed", "turn {n} ended {response}");
                    return Ok(repeated);
                }
                Ok(answer) if answer.status().is_server_error() => tokio::time::sleep(Duration::from_millis(20)).await,
                Ok(answer) => anyhow::bail!("turn {n}: {}: {}", answer.status(), answer.text().await?),
                // Nobody listens: the node is being started again.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        unreachable!("the loop has no end of its own")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_turn_is_there_once_and_in_order_over_twenty_kills() -> anyhow::Result<()> {
    let config = "[[responder]]\nname = \"slow\"\nkind = \"echo\"\ndelay_ms = 5\ntoken_delay_ms = 2\n[limits]\nrequests_per_minute = 1000000\n";
    let mut node = NodeProcess::start(NodeSettings { config: config.into(), ..NodeSettings::default() }).await?;
    let token = node.token("ann", "default").await?;
    let http = Client::new();
    let (sent, progress) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let mut senders = tokio::task::JoinSet::new();
    let mut conversations = Vec::new();
    for name in 0..CLIENTS {
        let conversation = create(&http, &node.url, &token).await?;
        conversations.push(conversation.clone());
        let (http, url, token) = (http.clone(), node.url.clone(), token.clone());
        let sender = Sender { http, url, token, conversation, name, sent: sent.clone(), progress: progress.clone() };
        senders.spawn(async move { sender.run().await });
    }

    let mut kills = 0;
    while kills < KILLS {
        // Spread over the whole run, at a moment that has to do with no turn's end.
        let after = TURNS * (kills + 1) / (KILLS + 1);
        while sent.load(Ordering::SeqCst) < after {
            let waited = tokio::time::timeout(Duration::from_secs(150), progress.notified()).await;
            waited.context("no turn was answered in 150 s")?;
        }
        tokio::time::sleep(Duration::from_micros(u64::from(random_byte()?) * 60)).await;
        node.kill().await?;
        node.restart().await?;
        kills += 1;
    }
    let mut repeated = 0;
    while let Some(done) = senders.join_next().await {
        repeated += done??;
    }
    println!("{TURNS} turns, {kills} kills, {repeated} repetitions");
    ensure!(repeated > 0, "no kill met a turn, so nothing was tried");
    for (name, conversation) in conversations.iter().enumerate() {
        check(&http, &node.url, &token, conversation, name).await?;
    }
    Ok(())
}

async fn create(http: &Client, url: &str, token: &str) -> anyhow::Result<String> {
    let created = http.post(format!("{url}/v1/conversations")).bearer_auth(token).json(&json!({})).send().await?;
    let created: Value = created.error_for_status()?.json().await?;
    created["id"].as_str().map(str::to_owned).context("a conversation has an id")
}

/// Each input once, in the order in which it was sent, each with its whole reply behind it.
async fn check(http: &Client, url: &str, token: &str, conversation: &str, name: usize) -> anyhow::Result<()> {
    let mut after = String::new();
    let mut texts = Vec::new();
    loop {
        let page = format!("{url}/v1/conversations/{conversation}/items?order=asc&limit=100{after}");
        let page: Value = http.get(page).bearer_auth(token).send().await?.error_for_status()?.json().await?;
        for item in page["data"].as_array().context("a page has data")? {
            let text = item["content"][0]["text"].as_str().context("an item has a text")?;
            texts.push((item["role"].as_str().unwrap_or_default().to_owned(), text.to_owned()));
        }
        if page["has_more"] != true {
            break;
        }
        after = format!("&after={}", page["last_id"].as_str().context("a page has a last id")?);
    }
    let expected = (0..TURNS / CLIENTS).flat_map(|n| {
        let text = format!("turn {n} of client {name}");
        [("user".to_owned(), text.clone()), ("assistant".to_owned(), text)]
    });
    let wrong = texts.iter().zip(expected.clone()).position(|(is, should)| *is != should);
    ensure!(wrong.is_none(), "client {name}: at {wrong:?} stands {:?}", wrong.map(|place| &texts[place]));
    ensure!(texts.len() == expected.count(), "client {name} has {} items", texts.len());
    Ok(())
}

fn random_byte() -> anyhow::Result<u8> {
    let mut byte = [0];
    getrandom::fill(&mut byte).map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(byte[0])
}
