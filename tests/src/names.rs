//! A real DNS server with the names of a cluster's pods: `dnsmasq`, in the network that the program has entered
//! ([`crate::namespaces`]). Names come and go as the test says, and are answered so from then on: nothing is cached.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::Context;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

use crate::namespaces::HUB;

/// What a cluster's names end with.
pub const DOMAIN: &str = "cluster.local";

pub struct Names {
    known: BTreeMap<String, IpAddr>,
    hosts: PathBuf,
    server: Child,
    log: Lines<BufReader<ChildStderr>>,
    _folder: TempDir,
}

impl Names {
    pub async fn start() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("klatch-names-").tempdir()?;
        let hosts = folder.path().join("hosts");
        std::fs::write(&hosts, "")?;
        let mut command = Command::new("dnsmasq");
        command.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            "--bind-interfaces",
        ]);
        command.args(["--user=root", "--pid-file=", "--log-facility=-", "--local=/#/"]);
        command.arg(format!("--listen-address={HUB}")).arg(format!("--addn-hosts={}", hosts.display()));
        let spawned =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true).spawn();
        let mut server = spawned.context("dnsmasq cannot be run: `apt-get install dnsmasq-base` on Debian")?;
        let log = BufReader::new(server.stderr.take().context("stderr is a pipe")?).lines();
        let mut names = Self { known: BTreeMap::new(), hosts, server, log, _folder: folder };
        names.until_read().await?;
        Ok(names)
    }

    /// `name` without the domain.
    pub async fn add(&mut self, name: &str, address: IpAddr) -> anyhow::Result<()> {
        self.known.insert(name.to_owned(), address);
        self.publish().await
    }

    pub async fn remove(&mut self, name: &str) -> anyhow::Result<()> {
        self.known.remove(name);
        self.publish().await
    }

    async fn publish(&mut self) -> anyhow::Result<()> {
        let mut lines = String::new();
        for (name, address) in &self.known {
            writeln!(lines, "{address} {name}.{DOMAIN}")?;
        }
        std::fs::write(&self.hosts, lines)?;
        let id = self.server.id().context("dnsmasq runs")?;
        let told = Command::new("kill").args(["-HUP", &id.to_string()]).status().await?;
        anyhow::ensure!(told.success(), "dnsmasq could not be told");
        self.until_read().await
    }

    /// It says so when it has read its file.
    async fn until_read(&mut self) -> anyhow::Result<()> {
        let read = async {
            while let Some(line) = self.log.next_line().await? {
                if line.contains(&self.hosts.display().to_string()) {
                    return Ok(());
                }
            }
            anyhow::bail!("dnsmasq ended")
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), read)
            .await
            .context("dnsmasq did not read its names")?
    }
}
