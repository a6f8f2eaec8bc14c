//! A `redis-server` of a test's own: on a free loopback port, in a temporary folder, frozen and killed as the test likes,
//! and ended with it.
//!
//! Waits for what the server prints, never for a time to pass.

use std::io::ErrorKind;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

const START_MAX: Duration = Duration::from_secs(30);

pub struct RedisServer {
    pub port: u16,
    /// The line of its log that says that it can be used.
    ready: &'static str,
    options: Vec<String>,
    folder: TempDir,
    child: Option<Child>,
}

impl RedisServer {
    /// On its disk before it answers. With `everysec` Redis puts the write itself off while the disk is busy, and a test
    /// that kills it then finds less than was acknowledged.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(&["--appendonly", "yes", "--appendfsync", "always"]).await
    }

    pub async fn start_with(options: &[&str]) -> anyhow::Result<Self> {
        let mut server = Self::new("Ready to accept connections")?;
        server.options.extend(["--save", "", "--repl-diskless-sync-delay", "0"].map(str::to_owned));
        server.options.extend(options.iter().map(|option| (*option).to_owned()));
        server.restart().await?;
        Ok(server)
    }

    /// One that decides alone when the server is dead, and then soon.
    pub async fn start_sentinel(master: &str, server: &Self) -> anyhow::Result<Self> {
        let mut sentinel = Self::new("Sentinel ID is")?;
        let path = sentinel.folder.path().join("sentinel.conf");
        let lines = [
            format!("sentinel monitor {master} 127.0.0.1 {} 1", server.port),
            format!("sentinel down-after-milliseconds {master} 500"),
            format!("sentinel failover-timeout {master} 2000"),
        ];
        std::fs::write(&path, lines.join("\n"))?;
        sentinel.options = vec![path.display().to_string(), "--sentinel".to_owned()];
        sentinel.restart().await?;
        Ok(sentinel)
    }

    /// Three masters with a replica each, joined to a cluster.
    pub async fn start_cluster() -> anyhow::Result<Vec<Self>> {
        let mut servers = Vec::new();
        for _ in 0..6 {
            let bus = free_port()?.to_string();
            let options = ["--cluster-enabled", "yes", "--cluster-port", &bus, "--appendonly", "yes"];
            servers.push(Self::start_with(&options).await?);
        }
        let mut join = Command::new("redis-cli");
        join.args(["--cluster", "create"]).args(servers.iter().map(|server| format!("127.0.0.1:{}", server.port)));
        let joined = join.args(["--cluster-replicas", "1", "--cluster-yes"]).output().await?;
        anyhow::ensure!(joined.status.success(), "no cluster: {}", String::from_utf8_lossy(&joined.stdout));
        Ok(servers)
    }

    fn new(ready: &'static str) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("klatch-redis-").tempdir()?;
        Ok(Self { port: free_port()?, ready, options: Vec::new(), folder, child: None })
    }

    /// Its copy, which can be promoted.
    pub async fn start_replica(&self) -> anyhow::Result<Self> {
        let replica = Self::start_with(&["--replicaof", &format!("127.0.0.1 {}", self.port)]).await?;
        Ok(replica)
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Id of the process, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// The same port and folder, once it is ready to take commands.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new("redis-server");
        command.args(&self.options).args(["--port", &self.port.to_string()]);
        // A test in a network of its own says itself where.
        if !self.options.iter().any(|option| option == "--bind") {
            command.args(["--bind", "127.0.0.1"]);
        }
        command.arg("--dir").arg(self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = match command.spawn() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                bail!("there is no redis-server: install it, with `apt-get install redis-server` on Debian")
            }
            spawned => spawned?,
        };
        let mut lines = BufReader::new(child.stdout.take().context("stdout is a pipe")?).lines();
        let ready = async {
            while let Some(line) = lines.next_line().await? {
                if line.contains(self.ready) {
                    return Ok(());
                }
            }
            bail!("redis-server ended before it was ready")
        };
        tokio::time::timeout(START_MAX, ready).await.context("redis-server did not start")??;
        // What it prints later is read and dropped, so that a full pipe never stops it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        self.child = Some(child);
        Ok(())
    }

    /// SIGKILL, and waits until the process is gone.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().await?;
        }
        Ok(())
    }

    /// SIGSTOP: it keeps its connections and answers nothing.
    pub async fn freeze(&self) -> anyhow::Result<()> {
        self.signal("-STOP").await
    }

    pub async fn thaw(&self) -> anyhow::Result<()> {
        self.signal("-CONT").await
    }

    /// Forgets what it has written, as a disk that was lost does. Only while it is killed.
    pub fn forget(&self) -> anyhow::Result<()> {
        for entry in std::fs::read_dir(self.folder.path())? {
            let path = entry?.path();
            if path.is_dir() { std::fs::remove_dir_all(path)? } else { std::fs::remove_file(path)? }
        }
        Ok(())
    }

    async fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let id = self.id().context("the server runs")?;
        let sent = Command::new("kill").arg(signal).arg(id.to_string()).status().await?;
        anyhow::ensure!(sent.success(), "{signal} was not delivered");
        Ok(())
    }
}

/// A port that was free a moment ago.
fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
