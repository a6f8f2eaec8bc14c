//! Runs a command against a node of its own, or against a cluster: `with-node [--nodes N [--nginx]] COMMAND [ARGUMENT…]`. It has an
//! account `ann`, the models that the client suites ask for, a model server behind one of them, and limits out of the way;
//! where it is stands in the environment of the command (see tests/clients/README.md). Ends with the command's exit code.
//!
//! With `--nodes` there is a Redis too, and before the nodes a balancer that sends each request to one picked at random; with
//! `--nginx` NGINX as it is shipped, and the environment names the authority of its certificate.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use klatch_tests::balancer::Balancer;
use klatch_tests::cluster::{ClusterProcesses, ClusterSettings, Links};
use klatch_tests::model_server::ModelServer;
use klatch_tests::nginx::Nginx;
use klatch_tests::process::{NodeProcess, NodeSettings, free_port};
use klatch_tests::webhook_receiver::{SECRET, SECRET_ENV};

const PASSWORD: &str = "correct horse battery staple";
const USAGE: &str = "usage: with-node [--nodes N [--nginx]] COMMAND [ARGUMENT…]";

/// Where Python (httpx; requests), Node and rustls look for authorities beside their own.
const AUTHORITY_VARIABLES: [&str; 3] = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"];

/// What the command is given.
struct Target {
    url: String,
    ops_url: String,
    /// Of ann, of another user, and of a user of another tenant.
    tokens: [String; 3],
    /// File of the certificate that the URL's is signed with.
    authority: Option<PathBuf>,
    /// Where the nodes send webhooks of the tenant `elsewhere`: nobody listens there until a suite does.
    hook: String,
    /// Each node by itself, for commands that end one: name, URLs and process.
    nodes: serde_json::Value,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let mut arguments = std::env::args().skip(1).peekable();
    let nodes = match arguments.next_if(|first| first == "--nodes") {
        Some(_) => Some(arguments.next().context(USAGE)?.parse::<usize>().context("--nodes needs a number")?),
        None => None,
    };
    let behind_nginx = nodes.is_some() && arguments.next_if(|next| next == "--nginx").is_some();
    let command: Vec<String> = arguments.collect();
    let model = ModelServer::start().await?;
    let hook = format!("http://127.0.0.1:{}/", free_port()?);
    let sections = responders(&model.base_url()) + &webhook(&hook);
    let environment = vec![(SECRET_ENV.to_owned(), SECRET.to_owned())];
    match nodes {
        None => {
            let config = format!("[limits]\nrequests_per_minute = 1000000\n{sections}");
            let node = NodeProcess::start(NodeSettings { config, environment, ..NodeSettings::default() }).await?;
            let target = target(&[&node], node.url.clone(), &hook).await?;
            let ended = run(&command, &target).await?;
            complain([("node", node.log())])?;
            Ok(ended)
        }
        Some(nodes) => {
            let limits = String::new();
            let settings = ClusterSettings { nodes, links: Links::Direct, limits, sections };
            let top = if behind_nginx { "trust_forwarded_for = true\n" } else { "" };
            let cluster = ClusterProcesses::start_in(settings, top, &environment).await?;
            let nodes: Vec<&NodeProcess> = cluster.nodes.iter().collect();
            let ended = if behind_nginx {
                let nginx = Nginx::start(&cluster.urls()).await?;
                let mut target = target(&nodes, nginx.url.clone(), &hook).await?;
                target.authority = Some(nginx.authority());
                let ended = run(&command, &target).await?;
                eprint!("{}", nginx.complaints());
                ended
            } else {
                let balancer = Balancer::start(cluster.urls()).await?;
                run(&command, &target(&nodes, balancer.url(), &hook).await?).await?
            };
            complain(cluster.nodes.iter().map(|node| (node.url.as_str(), node.log())))?;
            Ok(ended)
        }
    }
}

async fn target(nodes: &[&NodeProcess], url: String, hook: &str) -> anyhow::Result<Target> {
    let node = *nodes.first().context("there is a node")?;
    node.add_user("ann", PASSWORD).await?;
    let tokens = [
        node.token("ann", "default").await?,
        node.token("bob", "default").await?,
        node.token("ann", "elsewhere").await?,
    ];
    let shown = |(n, node): (usize, &&NodeProcess)| serde_json::json!({"name": ClusterProcesses::name(n), "url": node.url, "opsUrl": node.ops_url, "process": node.id()});
    let nodes = nodes.iter().enumerate().map(shown).collect();
    Ok(Target { url, ops_url: node.ops_url.clone(), tokens, authority: None, hook: hook.to_owned(), nodes })
}

async fn run(command: &[String], target: &Target) -> anyhow::Result<ExitCode> {
    let (program, arguments) = command.split_first().context(USAGE)?;
    let [ann, other, other_tenant] = &target.tokens;
    let authority = target.authority.iter().flat_map(|file| AUTHORITY_VARIABLES.map(|name| (name, file)));
    let status = tokio::process::Command::new(program)
        .envs(authority)
        .args(arguments)
        .env("KLATCH_URL", &target.url)
        .env("KLATCH_OPS_URL", &target.ops_url)
        .env("KLATCH_NODES", target.nodes.to_string())
        .env("KLATCH_WEBHOOK_URL", &target.hook)
        .env("KLATCH_WEBHOOK_SECRET", SECRET)
        .env("KLATCH_TOKEN", ann)
        .env("KLATCH_TOKEN_OTHER", other)
        .env("KLATCH_TOKEN_OTHER_TENANT", other_tenant)
        .status()
        .await?;
    Ok(ExitCode::from(status.code().map_or(1, |code| code as u8)))
}

/// Shows what a person should look at; a panic is a failure, whatever the command says.
fn complain<'a>(logs: impl IntoIterator<Item = (&'a str, String)>) -> anyhow::Result<()> {
    let mut panicked = false;
    for (node, log) in logs {
        for line in log.lines().filter(|line| line.contains("panicked") || line.contains("ERROR")) {
            eprintln!("{node}: {line}");
            panicked |= line.contains("panicked");
        }
    }
    anyhow::ensure!(!panicked, "a node panicked");
    Ok(())
}

fn responders(model_url: &str) -> String {
    format!(
        r#"
[[responder]]
name = "slow"
kind = "echo"
delay_ms = 300
token_delay_ms = 50
tokens = 40

[[responder]]
name = "long"
kind = "echo"
delay_ms = 100
token_delay_ms = 100
tokens = 80

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

/// Of one tenant, so that only a suite that listens is told anything.
fn webhook(url: &str) -> String {
    format!(
        "[[webhook]]\nurl = \"{url}\"\nsecret_env = \"{SECRET_ENV}\"\ntenant = \"elsewhere\"\nallow_http = true\nallow_private = true\nretry_after = \"200ms\"\nretry_after_max = \"1s\"\nattempts = 100\n"
    )
}
