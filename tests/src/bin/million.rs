//! Writes to many conversations in turn, with room for few in memory: `million [CONVERSATIONS [ACTIVE]]`, by default a
//! million and 1,000. Prints the node's memory as it goes, then asks some of them whether all is still there.

use std::time::Instant;

use anyhow::{Context, ensure};
use futures::StreamExt;
use futures::stream;
use klatch_tests::measure::{machine, resident_bytes};
use klatch_tests::process::{NodeProcess, NodeSettings};
use reqwest::Client;
use serde_json::{Value, json};

const AT_ONCE: usize = 32;
const SAMPLES: usize = 20;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let all: usize = arguments.next().as_deref().unwrap_or("1000000").parse().context("CONVERSATIONS is a number")?;
    let active: usize = arguments.next().as_deref().unwrap_or("1000").parse().context("ACTIVE is a number")?;
    let config = format!("[limits]\nrequests_per_minute = 1000000000\nactive_conversations = {active}\n");
    let node = NodeProcess::start(NodeSettings { config, ..NodeSettings::default() }).await?;
    let (http, token) = (Client::new(), node.token("ann", "default").await?);
    let id = node.id().context("the node runs")?;
    println!("{}", machine());

    let begun = Instant::now();
    let mut kept = Vec::new();
    let mut memory = Vec::new();
    for sample in 0..SAMPLES {
        let range = all * sample / SAMPLES..all * (sample + 1) / SAMPLES;
        let written = stream::iter(range).map(|n| write(&http, &node.url, &token, n)).buffer_unordered(AT_ONCE);
        let written: Vec<anyhow::Result<(usize, String)>> = written.collect().await;
        kept.extend(written.into_iter().next().transpose()?);
        let bytes = resident_bytes(id)?;
        memory.push(bytes);
        println!(
            "{:>9} conversations, {:>4} MB, {:>5} s",
            all * (sample + 1) / SAMPLES,
            bytes >> 20,
            begun.elapsed().as_secs()
        );
    }
    for (n, response) in &kept {
        let body = json!({"model": "echo", "input": "again", "previous_response_id": response});
        let again = http.post(format!("{}/v1/responses", node.url)).bearer_auth(&token).json(&body).send().await?;
        ensure!(again.status().is_success(), "conversation {n} did not come back: {}", again.text().await?);
        let first: Value = http
            .get(format!("{}/v1/responses/{response}", node.url))
            .bearer_auth(&token)
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?;
        ensure!(first["output"][0]["content"][0]["text"] == text(*n), "conversation {n} is not what it was: {first}");
    }
    let half = &memory[SAMPLES / 2..];
    println!(
        "memory over the second half: {} to {} MB; {} conversations came back whole",
        half.iter().min().unwrap_or(&0) >> 20,
        half.iter().max().unwrap_or(&0) >> 20,
        kept.len()
    );
    Ok(())
}

fn text(n: usize) -> String {
    format!("conversation {n}")
}

/// A turn without a conversation makes one.
async fn write(http: &Client, url: &str, token: &str, n: usize) -> anyhow::Result<(usize, String)> {
    let body = json!({"model": "echo", "input": text(n)});
    let sent = http.post(format!("{url}/v1/responses")).bearer_auth(token).json(&body).send().await?;
    let response: Value = sent.error_for_status()?.json().await?;
    Ok((n, response["id"].as_str().context("a response has an id")?.to_owned()))
}
