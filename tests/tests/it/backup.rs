//! The commands of deploy/OPERATING.md for backup and restore, run as they stand: a Redis under load is copied, lost with all it
//! had, and made again from the copy.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, ensure};
use klatch_tests::client::{Answer, Api, Ask};
use klatch_tests::cluster::{ClusterProcesses, Links};
use klatch_tests::markdown::commands;
use tokio::process::Command;
use tokio::sync::mpsc;

use crate::cluster::{PATIENCE, alone, settings};

const PAGE: &str = "deploy/OPERATING.md";
const CONVERSATIONS: usize = 8;
/// Of each conversation, before the backup is begun and after it was made.
const TURNS: usize = 6;

/// What the page says to set, and the block of that name.
async fn run(name: &str, port: u16, folder: &Path) -> anyhow::Result<()> {
    let mut shell = Command::new("sh");
    shell.args(["-e", "-c", &commands(PAGE, name)?]).env("REDIS_HOST", "127.0.0.1").env("REDIS_PORT", port.to_string());
    shell.env("BACKUP", folder.join("backup.rdb")).env("DATA", folder.join("data"));
    // The server that it leaves running must not hold pipes of this test.
    let log = std::fs::File::create(folder.join(format!("{name}.log")))?;
    shell.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
    let done = tokio::time::timeout(PATIENCE, shell.status()).await.with_context(|| format!("{name} has no end"))??;
    let said = std::fs::read_to_string(folder.join(format!("{name}.log")))?;
    ensure!(done.success(), "{name}: {said}");
    Ok(())
}

/// The server that the restore starts, ended with the test.
struct Restored(u16);

impl Drop for Restored {
    fn drop(&mut self) {
        let port = self.0.to_string();
        let _ = std::process::Command::new("redis-cli").args(["-p", &port, "SHUTDOWN", "NOSAVE"]).output();
    }
}

type Acknowledged = (String, String);

/// One turn after another in one conversation until told to stop; what was acknowledged is told as it is.
async fn talk(
    api: Api,
    url: String,
    conversation: String,
    stop: Arc<AtomicBool>,
    told: mpsc::UnboundedSender<Acknowledged>,
) {
    for turn in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let text = format!("turn {turn} of {conversation}");
        let ask = Ask { conversation: &conversation, model: "echo", text: &text, key: None };
        if let Answer::Completed { .. } = api.turn(&url, &ask, PATIENCE).await {
            // Nobody listens any more once the test ends.
            let _ = told.send((conversation.clone(), text));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_before_a_backup_is_there_after_its_restore() -> anyhow::Result<()> {
    let _alone = alone().await;
    let mut cluster = ClusterProcesses::start(settings(Links::Direct, String::new())).await?;
    let (api, folder) = (cluster.api("ann").await?, tempfile::tempdir()?);
    let stop = Arc::new(AtomicBool::new(false));
    let (told, mut heard) = mpsc::unbounded_channel();
    let mut talking = tokio::task::JoinSet::new();
    for n in 0..CONVERSATIONS {
        let url = cluster.nodes[n % 3].url.clone();
        let conversation = api.create(&url).await?;
        talking.spawn(talk(cluster.api("ann").await?, url, conversation, stop.clone(), told.clone()));
    }
    let mut acknowledged = Vec::new();
    while acknowledged.len() < CONVERSATIONS * TURNS {
        acknowledged.push(heard.recv().await.context("the talk goes on")?);
    }
    while let Ok(more) = heard.try_recv() {
        acknowledged.push(more);
    }
    run("backup", cluster.redis.port, folder.path()).await?;
    // It goes on: the copy must be whole all the same.
    for _ in 0..CONVERSATIONS * TURNS {
        heard.recv().await.context("the talk goes on")?;
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = talking.join_next().await {
        ended?;
    }

    for node in &mut cluster.nodes {
        ensure!(node.terminate().await? == 0, "a node did not drain");
    }
    cluster.redis.kill().await?;
    cluster.redis.forget()?;
    let restored = Restored(cluster.redis.port);
    run("restore", cluster.redis.port, folder.path()).await?;
    for node in &mut cluster.nodes {
        node.restart().await?;
    }
    cluster.formed().await?;

    let mut missing = acknowledged.clone();
    for (n, conversation) in acknowledged.iter().map(|(conversation, _)| conversation).enumerate() {
        if missing.iter().all(|(other, _)| other != conversation) {
            continue;
        }
        let there = api.turns(&cluster.nodes[n % 3].url, conversation, PATIENCE).await?;
        missing.retain(|(other, text)| other != conversation || !there.iter().any(|turn| turn.text == *text));
        ensure!(!missing.iter().any(|(other, _)| other == conversation), "lost: {missing:?}");
    }
    let ask = Ask { conversation: &acknowledged[0].0, model: "echo", text: "and on", key: None };
    let on = api.turn(&cluster.nodes[0].url, &ask, PATIENCE).await;
    ensure!(on == Answer::Completed { reply: "and on".into() }, "{on:?}");
    println!("{} turns were acknowledged before the backup, and all are there", acknowledged.len());

    // What it runs on is as the page promises.
    let checked =
        cluster.nodes[0].command(&["serve", "--check", "--http-addr", "127.0.0.1:0", "--ops-addr", "127.0.0.1:0"], "");
    let said = format!("{:#}", checked.await.expect_err("its folder is in use"));
    ensure!(!said.contains("Redis"), "{said}");
    drop(restored);
    Ok(())
}
