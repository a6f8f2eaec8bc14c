//! The node that is measured, beside the Redis that it may have: both are processes, and what they cost is read from
//! /proc.

use std::fmt;
use std::ops::{Div, Sub};
use std::path::PathBuf;

use anyhow::{Context, ensure};
use klatch_tests::cluster::{ClusterProcesses, ClusterSettings, Links};
use klatch_tests::measure::{cpu_nanos, resident_bytes};
use klatch_tests::process::{NodeProcess, NodeSettings, choose_binary};
use klatch_tests::redis_server::RedisServer;

use crate::asking::Api;
use crate::redis_cli;

/// Stands in the settings of every node here, before all other limits.
const NO_RATE: &str = "requests_per_minute = 1000000000";

/// What every measurement takes.
#[derive(Debug, clap::Args)]
pub struct Program {
    /// The program that is measured. Default: the `klatch` beside this one.
    #[arg(long, value_name = "PATH")]
    klatch: Option<PathBuf>,
}

impl Program {
    /// Before the first node is started.
    pub fn choose(&self) -> anyhow::Result<()> {
        self.klatch.clone().map_or(Ok(()), choose_binary)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum StoreKind {
    Embedded,
    /// Its file is synced every second, as `deploy/compose.yaml` has it.
    Redis,
}

impl fmt::Display for StoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Embedded => "embedded",
            Self::Redis => "Redis",
        })
    }
}

/// CPU time in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu {
    pub node: f64,
    pub redis: f64,
}

impl Cpu {
    pub fn all(self) -> f64 {
        self.node + self.redis
    }
}

impl Sub for Cpu {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self { node: self.node - before.node, redis: self.redis - before.redis }
    }
}

impl Div<f64> for Cpu {
    type Output = Self;

    fn div(self, parts: f64) -> Self {
        Self { node: self.node / parts, redis: self.redis / parts }
    }
}

pub struct Measured {
    processes: Processes,
    /// As they stand in the settings.
    limits: String,
    redis_id: Option<u32>,
}

enum Processes {
    /// With the embedded store.
    Alone(Box<NodeProcess>),
    /// A cluster of one.
    Cluster(Box<ClusterProcesses>),
}

impl Measured {
    /// `limits`: lines of that section; `sections`: whole ones.
    pub async fn start(store: StoreKind, limits: &str, sections: &str) -> anyhow::Result<Self> {
        let (limits, sections) = (limits.to_owned(), sections.to_owned());
        let (processes, redis_id) = match store {
            StoreKind::Embedded => {
                let config = format!("[limits]\n{NO_RATE}\n{limits}\n\n{sections}\n");
                let settings = NodeSettings { config, ..NodeSettings::default() };
                (Processes::Alone(Box::new(NodeProcess::start(settings).await?)), None)
            }
            StoreKind::Redis => {
                let (links, limits) = (Links::Direct, limits.clone());
                let cluster = ClusterProcesses::start(ClusterSettings { nodes: 1, links, limits, sections }).await?;
                redis_cli::sync_every_second(cluster.redis.port).await?;
                let id = redis_cli::number(cluster.redis.port, "process_id").await?;
                (Processes::Cluster(Box::new(cluster)), Some(u32::try_from(id)?))
            }
        };
        Ok(Self { processes, limits, redis_id })
    }

    pub fn node(&self) -> &NodeProcess {
        match &self.processes {
            Processes::Alone(node) => node,
            Processes::Cluster(cluster) => &cluster.nodes[0],
        }
    }

    pub fn redis(&self) -> Option<&RedisServer> {
        match &self.processes {
            Processes::Alone(_) => None,
            Processes::Cluster(cluster) => Some(&cluster.redis),
        }
    }

    /// Ends the node in peace and starts it again over the same store, with other limits.
    pub async fn restart(&mut self, limits: &str) -> anyhow::Result<()> {
        let settings = self.node().folder().join("klatch.toml");
        let config = std::fs::read_to_string(&settings)?;
        let before = format!("{NO_RATE}\n{}", self.limits);
        ensure!(config.contains(&before), "the limits do not stand in {config}");
        std::fs::write(&settings, config.replacen(&before, &format!("{NO_RATE}\n{limits}"), 1))?;
        limits.clone_into(&mut self.limits);
        let node = match &mut self.processes {
            Processes::Alone(node) => node,
            Processes::Cluster(cluster) => &mut cluster.nodes[0],
        };
        node.terminate().await?;
        node.restart().await
    }

    pub async fn api(&self) -> anyhow::Result<Api> {
        Api::new(self.node().url.clone(), self.node().token("ann", "default").await?)
    }

    pub fn cpu(&self) -> anyhow::Result<Cpu> {
        let seconds = |process| cpu_nanos(process).map(|nanos| nanos as f64 / 1e9);
        Ok(Cpu { node: seconds(self.id()?)?, redis: self.redis_id.map_or(Ok(0.0), seconds)? })
    }

    /// In RAM, of the node.
    pub fn resident(&self) -> anyhow::Result<u64> {
        resident_bytes(self.id()?)
    }

    /// What the node has read of its store: from files, or from Redis as Redis counts it. Reading it adds some hundred
    /// bytes.
    pub async fn bytes_read(&self) -> anyhow::Result<u64> {
        if let Some(redis) = self.redis() {
            return redis_cli::number(redis.port, "total_net_output_bytes").await;
        }
        let io = std::fs::read_to_string(format!("/proc/{}/io", self.id()?))?;
        let line = io.lines().find_map(|line| line.strip_prefix("rchar: ")).context("io has rchar")?;
        Ok(line.parse()?)
    }

    /// A value of `/metrics`, by its whole name with labels; 0 where it is not there yet.
    pub async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let url = format!("{}/metrics", self.node().ops_url);
        let text = reqwest::get(url).await?.error_for_status()?.text().await?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.map(str::parse).transpose()?.unwrap_or(0.0))
    }

    pub fn id(&self) -> anyhow::Result<u32> {
        self.node().id().context("the node runs")
    }

    /// What stands in the node's log that nobody wants there.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.node().log();
        log.lines().filter(|line| line.contains("panicked") || line.contains("ERROR")).map(str::to_owned).collect()
    }
}
