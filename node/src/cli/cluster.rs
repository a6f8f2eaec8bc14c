//! `klatch cluster`: asks a node's ops port what it knows, and prints a table.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use crate::ops::NodeShown;

/// A node that is well answers at once: it reads a few numbers.
const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(super) struct ClusterArgs {
    /// Ops port of a node
    #[arg(long, env = "KLATCH_OPS_URL", value_name = "URL", default_value = "http://127.0.0.1:9090")]
    ops_url: String,
    /// Print the node's answer as it is, in JSON
    #[arg(long)]
    json: bool,
}

impl ClusterArgs {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let url = format!("{}/cluster", self.ops_url.trim_end_matches('/'));
        let text = ask(&url).await.with_context(|| format!("no node answers at {url} (--ops-url sets another)"))?;
        if self.json {
            println!("{text}");
        } else {
            let node: NodeShown = serde_json::from_str(&text).with_context(|| format!("{url} is no klatch node"))?;
            print!("{}", table(&[node]));
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn ask(url: &str) -> anyhow::Result<String> {
    let client = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build()?;
    Ok(client.get(url).send().await?.error_for_status()?.text().await?)
}

fn table(nodes: &[NodeShown]) -> String {
    let head = ["node", "state", "view", "shards", "active", "open turns", "version", "incarnation"];
    let rows: Vec<[String; 8]> = nodes.iter().map(row).collect();
    let widths: Vec<usize> = (0..head.len())
        .map(|column| rows.iter().map(|row| row[column].len()).chain([head[column].len()]).max().unwrap_or_default())
        .collect();
    let line = |cells: Vec<&str>| {
        let cells = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    let body = rows.iter().map(|row| line(row.iter().map(String::as_str).collect()));
    std::iter::once(line(head.to_vec())).chain(body).collect()
}

fn row(node: &NodeShown) -> [String; 8] {
    [
        node.node.clone(),
        if node.draining { "draining" } else { "up" }.to_owned(),
        node.view.to_string(),
        node.shards_started.to_string(),
        node.active_conversations.to_string(),
        node.open_turns.to_string(),
        node.version.clone(),
        node.incarnation.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_head_and_a_line_per_node() {
        let node = NodeShown {
            node: "klatch-0".into(),
            incarnation: 7,
            version: "0.1.0".into(),
            view: 1,
            draining: true,
            shards_started: 12,
            active_conversations: 345,
            open_turns: 6,
        };
        let expected = "node      state     view  shards  active  open turns  version  incarnation\n\
                        klatch-0  draining  1     12      345     6           0.1.0    7\n";
        assert_eq!(table(&[node]), expected);
    }
}
