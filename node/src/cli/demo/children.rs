//! Programs that the demonstration starts: each in a process group of its own, with its log in a file, killed at the end.
//! Used by `redis.rs` and `cluster.rs`.
//!
//! A group of its own, since Ctrl-C goes to all of the terminal's: they would end before this program could say why.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use anyhow::Context;
use tokio::process::{Child, Command};

/// Of its log, when it ended too early.
const LINES_SHOWN: usize = 8;

pub struct Process {
    name: String,
    log: PathBuf,
    pid: u32,
    child: Child,
}

impl Process {
    /// Adds to the log, where there is one already.
    pub fn start(name: &str, mut command: Command, log: &Path) -> anyhow::Result<Self> {
        let file = File::options().create(true).append(true).open(log);
        let file = file.with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0).kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("{name} cannot be started"))?;
        let pid = child.id().context("a process that was just started has an id")?;
        Ok(Self { name: name.to_owned(), log: log.to_owned(), pid, child })
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// SIGKILL: it is gone when this returns.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        self.child.kill().await.with_context(|| format!("{} cannot be killed", self.name))
    }

    /// Ends when it does.
    pub async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        self.child.wait().await.with_context(|| format!("{} cannot be watched", self.name))
    }

    /// An error, with its last words, where it does not run any more.
    pub fn still_runs(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(self.ended_early(status)),
        }
    }

    pub fn ended_early(&self, status: ExitStatus) -> anyhow::Error {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n  ");
        anyhow::anyhow!("{} has ended by itself ({status}). It said last:\n  {last}", self.name)
    }
}
