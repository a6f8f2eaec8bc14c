//! Runs a command against a node of its own: `with-node COMMAND [ARGUMENT…]`. The node has an account `ann`, the models
//! that the client suites ask for, a model server behind one of them, and limits out of the way; where it is stands in
//! the environment of the command (see tests/clients/README.md). Ends with the command's exit code.

use std::process::ExitCode;

use anyhow::Context;
use klatch_tests::model_server::ModelServer;
use klatch_tests::process::{NodeProcess, NodeSettings};

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().context("usage: with-node COMMAND [ARGUMENT…]")?;
    let model = ModelServer::start().await?;
    let node =
        NodeProcess::start(NodeSettings { config: config(&model.base_url()), ..NodeSettings::default() }).await?;
    node.add_user("ann", "correct horse battery staple").await?;
    let status = tokio::process::Command::new(command)
        .args(arguments)
        .env("KLATCH_URL", &node.url)
        .env("KLATCH_OPS_URL", &node.ops_url)
        .env("KLATCH_TOKEN", node.token("ann", "default").await?)
        .env("KLATCH_TOKEN_OTHER", node.token("bob", "default").await?)
        .env("KLATCH_TOKEN_OTHER_TENANT", node.token("ann", "elsewhere").await?)
        .status()
        .await?;
    let log = node.log();
    for line in log.lines().filter(|line| line.contains("panicked") || line.contains("ERROR")) {
        eprintln!("node: {line}");
    }
    anyhow::ensure!(!log.contains("panicked"), "the node panicked");
    Ok(ExitCode::from(status.code().map_or(1, |code| code as u8)))
}

fn config(model_url: &str) -> String {
    format!(
        r#"
[limits]
requests_per_minute = 1000000

[[responder]]
name = "slow"
kind = "echo"
delay_ms = 300
token_delay_ms = 50
tokens = 40

[[responder]]
name = "failing"
kind = "echo"
fail_every = 1

[[responder]]
name = "tools"
kind = "openai"
base_url = "{model_url}"
model = "tool"
"#
    )
}
