//! `klatch demo`: three nodes on this host, an answer that streams through one of them, and the node that makes it killed in
//! mid-answer. Then they are left to whoever wants to try.
//!
//! Started by a person; all that it starts are children of this program, which end with it, and their folder is removed.
//! It shows what is there and has no shortcut: the nodes are the shipped program, the client is that of `klatch chat`, and an
//! answer that is not whole ends it with code 1.

mod children;
mod cluster;
mod redis;
mod screen;
mod show;
mod story;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::cluster::Cluster;
use self::redis::RedisProgram;
use self::screen::Screen;

/// As a supervisor would: not at once, so that one sees that it is gone.
const START_AGAIN_AFTER: Duration = Duration::from_secs(3);

#[derive(Debug, Args)]
#[command(after_help = "It needs redis-server in PATH, which the three nodes share. All ports are free ones of \
    127.0.0.1; keys, data and logs are in a temporary folder that is removed at the end.")]
pub(super) struct DemoArgs {
    /// End after the demonstration; so it does by itself where neither input nor output is a terminal
    #[arg(long, visible_alias = "exit")]
    once: bool,
}

impl DemoArgs {
    /// 0: everything was seen to be as it should; 1: not, or it was stopped before.
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let mut stop = Stop::watch()?;
        let redis = match RedisProgram::find() {
            Ok(redis) => redis,
            Err(missing) => {
                eprintln!("klatch demo: {missing}");
                return Ok(ExitCode::FAILURE);
            }
        };
        let stays = !self.once && (std::io::stdin().is_terminal() || std::io::stdout().is_terminal());
        let mut screen = Screen::of_this_process();
        let mut cluster = Cluster::prepare()?;
        let outcome = show_and_stay(&mut cluster, &redis, &mut screen, &mut stop, stays).await;
        // Whatever happened: nothing that was started stays behind.
        let ended = cluster.end().await;
        // Where nobody reads any more, the outcome says so.
        let _ = screen.end_answer();
        outcome?;
        ended?;
        screen.say("All of it has ended, and its folder is gone.")?;
        Ok(ExitCode::SUCCESS)
    }
}

async fn show_and_stay(
    cluster: &mut Cluster,
    redis: &RedisProgram,
    screen: &mut Screen,
    stop: &mut Stop,
    stays: bool,
) -> anyhow::Result<()> {
    tokio::select! {
        shown = show::demonstrate(cluster, redis, screen) => shown?,
        () = stop.asked() => bail!("the demonstration was stopped before its end"),
    }
    if !stays {
        return Ok(());
    }
    tokio::select! {
        lost = stay(cluster, screen) => lost,
        () = stop.asked() => {
            screen.say("")?;
            Ok(())
        }
    }
}

/// Starts again what dies: whoever is invited to kill nodes will do it. Ends only with a failure.
async fn stay(cluster: &mut Cluster, screen: &mut Screen) -> anyhow::Result<()> {
    show::invite(cluster, screen).await?;
    loop {
        let (node, status) = cluster.next_death().await?;
        let name = cluster.name(node).to_owned();
        screen.say(&format!("{name} is dead ({status}); it is started again in {} s", START_AGAIN_AFTER.as_secs()))?;
        tokio::time::sleep(START_AGAIN_AFTER).await;
        cluster.start_node(node)?;
        // Not until all are there: another may have been killed meanwhile, and has its turn then.
        cluster.ready(node).await?;
        screen.say(&format!("{name} is back, as pid {}", cluster.pid(node)))?;
    }
}

/// Ctrl-C, `kill`, or the end of the terminal.
struct Stop([Signal; 3]);

impl Stop {
    fn watch() -> anyhow::Result<Self> {
        let watch = |kind| signal(kind).context("cannot watch signals");
        Ok(Self([watch(SignalKind::interrupt())?, watch(SignalKind::terminate())?, watch(SignalKind::hangup())?]))
    }

    async fn asked(&mut self) {
        let [interrupt, terminate, hang_up] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
        }
    }
}
