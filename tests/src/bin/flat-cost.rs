//! What a turn costs at 10 items and at 10,000, in CPU time of the node: `flat-cost [ROUNDS [TURNS]]`. Rounds are
//! interleaved, so that whatever else the machine does falls on both alike; prints medians, spread and ratio.

use anyhow::{Context, ensure};
use futures::StreamExt;
use futures::stream;
use klatch_tests::measure::{Spread, cpu_seconds, machine};
use klatch_tests::process::{NodeProcess, NodeSettings};
use reqwest::Client;
use serde_json::{Value, json};

const CONVERSATIONS: usize = 16;
const SIZES: [usize; 2] = [10, 10_000];
/// Items that one request may add.
const ITEMS_AT_ONCE: usize = 20;

struct Api {
    http: Client,
    url: String,
    token: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let rounds: usize = arguments.next().as_deref().unwrap_or("11").parse().context("ROUNDS is a number")?;
    let turns: usize = arguments.next().as_deref().unwrap_or("1600").parse().context("TURNS is a number")?;
    let config = "[limits]\nrequests_per_minute = 100000000\n".to_owned();
    let node = NodeProcess::start(NodeSettings { config, ..NodeSettings::default() }).await?;
    let api = Api { http: Client::new(), url: node.url.clone(), token: node.token("ann", "default").await? };
    let id = node.id().context("the node runs")?;

    let mut groups = Vec::new();
    for items in SIZES {
        let made = stream::iter(0..CONVERSATIONS).map(|_| api.conversation(items)).buffer_unordered(4);
        let made: Vec<anyhow::Result<String>> = made.collect().await;
        groups.push(made.into_iter().collect::<anyhow::Result<Vec<String>>>()?);
        eprintln!("{CONVERSATIONS} conversations of {items} items are filled");
    }
    let mut costs = [Vec::new(), Vec::new()];
    for round in 0..=rounds {
        for place in if round % 2 == 0 { [0, 1] } else { [1, 0] } {
            let before = cpu_seconds(id)?;
            api.turns(&groups[place], turns).await?;
            let micros = (cpu_seconds(id)? - before) * 1e6 / turns as f64;
            // The first round of each only warms up.
            if round > 0 {
                costs[place].push(micros);
            }
            eprintln!("round {round}: {} items: {micros:.0} µs of CPU per turn", SIZES[place]);
        }
    }
    println!("{}", machine());
    let [small, large] = costs.map(Spread::of);
    println!("CPU of the node per turn, µs, over {rounds} interleaved rounds of {turns} turns:");
    println!("  at {:>6} items: {small}", SIZES[0]);
    println!("  at {:>6} items: {large}", SIZES[1]);
    println!("  ratio of the medians: {:.3}", large.median / small.median);
    Ok(())
}

impl Api {
    async fn post(&self, path: &str, body: Value) -> anyhow::Result<Value> {
        let sent = self.http.post(format!("{}{path}", self.url)).bearer_auth(&self.token).json(&body).send().await?;
        Ok(sent.error_for_status()?.json().await?)
    }

    async fn conversation(&self, items: usize) -> anyhow::Result<String> {
        let made = self.post("/v1/conversations", json!({})).await?;
        let id = made["id"].as_str().context("a conversation has an id")?.to_owned();
        let message = |n| json!({"type": "message", "role": "user", "content": format!("{n} {}", "x".repeat(190))});
        for first in (0..items).step_by(ITEMS_AT_ONCE) {
            let some: Vec<Value> = (first..items.min(first + ITEMS_AT_ONCE)).map(message).collect();
            self.post(&format!("/v1/conversations/{id}/items"), json!({"items": some})).await?;
        }
        Ok(id)
    }

    async fn turns(&self, conversations: &[String], turns: usize) -> anyhow::Result<()> {
        let turn = |n: usize| async move {
            let text = format!("{n} {}", "x".repeat(190));
            let body = json!({"model": "echo", "input": text, "conversation": conversations[n % conversations.len()]});
            let response = self.post("/v1/responses", body).await?;
            let said = &response["output"][0]["content"][0]["text"];
            ensure!(*said == text, "turn {n} was answered with {response}");
            Ok(())
        };
        let done: Vec<anyhow::Result<()>> = stream::iter(0..turns).map(turn).buffer_unordered(8).collect().await;
        done.into_iter().collect()
    }
}
