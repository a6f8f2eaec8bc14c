//! `klatch cluster`: asks a node's ops port what it knows, and prints a table.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use crate::ops::{LoadShown, MemberShown, NodeShown};

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
            print!("{}", table(&node));
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn ask(url: &str) -> anyhow::Result<String> {
    let client = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build()?;
    Ok(client.get(url).send().await?.error_for_status()?.text().await?)
}

fn table(node: &NodeShown) -> String {
    let head = ["node", "status", "view", "shards", "started", "active", "open turns", "incarnation", "address"];
    let rows: Vec<[String; 9]> = node.members.iter().map(row).collect();
    let widths: Vec<usize> = (0..head.len())
        .map(|column| rows.iter().map(|row| row[column].len()).chain([head[column].len()]).max().unwrap_or_default())
        .collect();
    let line = |cells: Vec<&str>| {
        let cells = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    let body = rows.iter().map(|row| line(row.iter().map(String::as_str).collect()));
    let title = format!("view {} as {} sees it, klatch {}\n\n", node.view, node.node, node.version);
    [title, line(head.to_vec())].into_iter().chain(body).collect()
}

/// A node that does not say what it is doing has dashes.
fn row(member: &MemberShown) -> [String; 9] {
    let of_load = |number: fn(&LoadShown) -> String| member.load.as_ref().map_or_else(|| "-".to_owned(), number);
    [
        member.node.clone(),
        member.status.clone(),
        of_load(|load| load.view.to_string()),
        member.shards.to_string(),
        of_load(|load| load.shards_started.to_string()),
        of_load(|load| load.active_conversations.to_string()),
        of_load(|load| load.open_turns.to_string()),
        member.incarnation.to_string(),
        member.address.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_head_and_a_line_per_node() {
        let member = |name: &str, load| MemberShown {
            node: name.into(),
            incarnation: 7,
            status: "up".into(),
            address: "10.0.0.1:7946".into(),
            shards: 512,
            load,
        };
        let load = LoadShown { view: 3, shards_started: 12, active_conversations: 345, open_turns: 6 };
        let node = NodeShown {
            node: "klatch-0".into(),
            incarnation: 7,
            version: "0.1.0".into(),
            view: 3,
            draining: false,
            members: vec![member("klatch-0", Some(load)), member("klatch-1", None)],
        };
        let expected = "view 3 as klatch-0 sees it, klatch 0.1.0\n\n\
                        node      status  view  shards  started  active  open turns  incarnation  address\n\
                        klatch-0  up      3     512     12       345     6           7            10.0.0.1:7946\n\
                        klatch-1  up      -     512     -        -       -           7            10.0.0.1:7946\n";
        assert_eq!(table(&node), expected);
    }
}
