//! Three nodes behind NGINX as it is shipped, and clients that ask without end, while nodes are killed, nodes are restarted one
//! after the other, and NGINX is reloaded:
//! `edge [--requests N] [--clients N] [--kills N] [--reloads N]`.
//!
//! Ends with 1 if any request failed, any turn happened twice or not at all, or any stream broke that did not go through a node
//! that was killed. While NGINX is reloaded clients may have to send a request once more; at no other time. `--requests` is the
//! least number during the restarts.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, bail};
use klatch_tests::edge::{self, Load, Outcome};
use klatch_tests::measure::machine;
use klatch_tests::nginx::Nginx;

struct Options {
    requests: u64,
    clients: usize,
    kills: usize,
    reloads: usize,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<ExitCode> {
    let options = options(std::env::args().skip(1))?;
    println!("{}", machine());
    let (mut cluster, nginx) = edge::start().await?;

    let begun = Instant::now();
    let mut load = Load::start(&cluster, &nginx, options.clients).await?;
    edge::kills(&mut cluster, &mut load, options.kills).await?;
    let outcome = load.stop().await?;
    let again = edge::tried_again(&nginx)?;
    let what = format!("{} times kill -9, {again} requests sent to a second node", options.kills);
    let mut clean = report(&what, &outcome, begun) && again > 0 && outcome.asked_again == 0;

    let begun = Instant::now();
    let mut load = Load::start(&cluster, &nginx, options.clients).await?;
    edge::reloads(&nginx, &mut load, options.reloads).await?;
    let outcome = load.stop().await?;
    clean &= report(&format!("{} times nginx -s reload", options.reloads), &outcome, begun) && outcome.resumed == 0;

    let begun = Instant::now();
    let mut load = Load::start(&cluster, &nginx, options.clients).await?;
    edge::rolling(&mut cluster, &mut load).await?;
    load.reached(options.requests).await?;
    let outcome = load.stop().await?;
    clean &= report("each node restarted", &outcome, begun) && outcome.resumed + outcome.asked_again == 0;

    clean &= complaints(&nginx);
    let panics = cluster.panics();
    panics.iter().for_each(|line| println!("{line}"));
    Ok(if clean && panics.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether nothing failed.
fn report(what: &str, outcome: &Outcome, begun: Instant) -> bool {
    println!("{what}, {} s: {outcome}", begun.elapsed().as_secs());
    outcome.failed.is_empty() && outcome.wrong.is_empty()
}

/// Whether NGINX had nothing to say but of nodes that were gone.
fn complaints(nginx: &Nginx) -> bool {
    let text = nginx.complaints();
    let grave: Vec<&str> =
        text.lines().filter(|line| ["[emerg]", "[alert]", "[crit]"].iter().any(|level| line.contains(level))).collect();
    grave.iter().for_each(|line| println!("{line}"));
    grave.is_empty()
}

fn options(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<Options> {
    let mut options = Options { requests: 5_000, clients: 16, kills: 6, reloads: 3 };
    while let Some(name) = arguments.next() {
        let value = arguments.next().with_context(|| format!("{name} needs a value"))?;
        let number = value.parse::<usize>().with_context(|| format!("{name} needs a number"))?;
        match name.as_str() {
            "--requests" => options.requests = number as u64,
            "--clients" => options.clients = number,
            "--kills" => options.kills = number,
            "--reloads" => options.reloads = number,
            _ => bail!("unknown option {name} {value}; the first lines of tests/src/bin/edge.rs say which there are"),
        }
    }
    Ok(options)
}
