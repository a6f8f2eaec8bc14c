//! A cluster of the shipped binary: a Redis, and nodes with names, ports, one set of keys and one secret. They reach one
//! another directly, through faulty proxies, or through a network of namespaces.
//!
//! Waits for what the nodes themselves say of the cluster; every wait has an end.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures::stream::{self, StreamExt};
use klatch::ops::{MemberShown, NodeShown};
use klatch_actors::membership::view::View;
use klatch_protocol::ConversationId;
use klatch_protocol::view::{MemberStatus, Row, ViewTable};
use tempfile::TempDir;

use crate::client::Api;
use crate::faulty_proxy::{Faults, FaultyProxy, Flow};
use crate::namespaces::{self, Namespaces};
use crate::process::{NodeProcess, NodeSettings, free_port};
use crate::redis_server::RedisServer;

/// A node is declared dead within 3 s, joins within one, and a debug build on a busy machine starts within tens.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(25);
const CREATED_AT_ONCE: usize = 8;

/// What stands before the 32 bytes of an Ed25519 key in PKCS#8.
const ED25519: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// How the nodes reach one another and Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// Over loopback: nothing can be cut.
    Direct,
    /// Over loopback, through a faulty proxy before each node and one before Redis for each node.
    Proxied,
    /// Each node in a namespace of its own; the program must have entered one ([`namespaces::enter`]).
    Namespaces,
}

#[derive(Clone, Debug)]
pub struct ClusterSettings {
    pub nodes: usize,
    pub links: Links,
    /// Of the TOML file: lines of `[limits]`, and whole sections.
    pub limits: String,
    pub sections: String,
}

enum Network {
    Direct,
    Proxied(Vec<NodeProxies>),
    Namespaces(Namespaces),
}

/// What stands before a node, and between it and Redis.
struct NodeProxies {
    peers: FaultyProxy,
    redis: FaultyProxy,
}

pub struct ClusterProcesses {
    pub redis: RedisServer,
    pub nodes: Vec<NodeProcess>,
    network: Network,
    http: reqwest::Client,
    _keys: TempDir,
}

impl ClusterProcesses {
    /// Started in any order, all at once; formed when this returns.
    pub async fn start(settings: ClusterSettings) -> anyhow::Result<Self> {
        Self::start_with(settings, "").await
    }

    /// With lines at the top of the TOML file, outside of its sections.
    pub async fn start_with(settings: ClusterSettings, top: &str) -> anyhow::Result<Self> {
        Self::start_in(settings, top, &[]).await
    }

    /// With variables in the environment of each node, too.
    pub async fn start_in(
        settings: ClusterSettings,
        top: &str,
        environment: &[(String, String)],
    ) -> anyhow::Result<Self> {
        let keys = tempfile::Builder::new().prefix("klatch-keys-").tempdir()?;
        let key = keys.path().join("signing.pem");
        std::fs::write(&key, signing_key()?)?;
        let redis = match settings.links {
            Links::Direct | Links::Proxied => RedisServer::start().await?,
            Links::Namespaces => {
                let bind = namespaces::REDIS.to_string();
                let options = ["--appendonly", "yes", "--protected-mode", "no", "--bind", &bind, "127.0.0.1"];
                RedisServer::start_with(&options).await?
            }
        };
        let network = Network::start(&settings, &redis).await?;
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).pool_max_idle_per_host(0);
        let http = http.build()?;
        let mut cluster = Self { redis, nodes: Vec::new(), network, http, _keys: keys };
        let started = (0..settings.nodes).map(|node| {
            let settings = cluster.node_settings(node, &settings, top, &key);
            async move {
                let mut settings = settings?;
                settings.environment.extend_from_slice(environment);
                NodeProcess::start(settings).await
            }
        });
        cluster.nodes = futures::future::try_join_all(started).await?;
        cluster.formed().await?;
        Ok(cluster)
    }

    fn node_settings(
        &self,
        node: usize,
        settings: &ClusterSettings,
        top: &str,
        key: &Path,
    ) -> anyhow::Result<NodeSettings> {
        let port = free_port()?;
        let mut environment = vec![
            ("KLATCH_NODE_NAME".to_owned(), Self::name(node)),
            ("KLATCH_CLUSTER_SECRET".to_owned(), "a secret of these tests, long enough for anybody".to_owned()),
        ];
        let (mut host, mut namespace, mut store) = (None, None, self.redis.url());
        let (mut address, mut advertised) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{port}"));
        match &self.network {
            Network::Direct => {}
            Network::Proxied(proxies) => {
                store = format!("redis://{}/0", proxies[node].redis.address);
                address = proxies[node].peers.server.to_string();
                advertised = proxies[node].peers.address.to_string();
            }
            Network::Namespaces(namespaces) => {
                (host, namespace) = (Some(namespaces.address(node)), Some(namespaces.name(node)));
                store = format!("redis://{}:{}/0", namespaces::REDIS, self.redis.port);
                address = format!("{}:{port}", namespaces.address(node));
                advertised.clone_from(&address);
                environment.push(("KLATCH_CLUSTER_PLAIN".to_owned(), "true".to_owned()));
            }
        }
        environment.extend([("KLATCH_CLUSTER_ADDR".to_owned(), address), ("KLATCH_ADVERTISE".to_owned(), advertised)]);
        let ClusterSettings { limits, sections, .. } = settings;
        let config = format!(
            "{top}[auth]\nsigning_keys = [\"{}\"]\n\n[limits]\nrequests_per_minute = 1000000000\n{limits}\n\n{sections}\n",
            key.display()
        );
        Ok(NodeSettings { config, store, host, namespace, environment })
    }

    pub fn name(node: usize) -> String {
        format!("node-{node}")
    }

    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.url.clone()).collect()
    }

    pub async fn api(&self, subject: &str) -> anyhow::Result<Api> {
        Api::new(self.nodes[0].token(subject, "default").await?)
    }

    /// The cluster as this node sees it.
    pub async fn shown(&self, node: usize) -> anyhow::Result<NodeShown> {
        let url = format!("{}/cluster", self.nodes[node].ops_url);
        Ok(self.http.get(url).send().await?.error_for_status()?.json().await?)
    }

    /// Until every node sees all of them up, each in the same life, and reaches each of them.
    pub async fn formed(&self) -> anyhow::Result<()> {
        let all: Vec<usize> = (0..self.nodes.len()).collect();
        self.agreed(&all).await
    }

    /// Until these nodes see one another up, and nobody else, and reach each other.
    pub async fn agreed(&self, nodes: &[usize]) -> anyhow::Result<()> {
        let names: Vec<String> = nodes.iter().map(|node| Self::name(*node)).collect();
        until("the nodes agree", async || {
            let mut seen: Option<Vec<MemberShown>> = None;
            for node in nodes {
                let members = self.shown(*node).await?.members;
                let same = members.iter().map(|member| &member.node).eq(&names);
                let well = members.iter().all(|member| member.status == "up" && member.load.is_some());
                let lives = |members: &[MemberShown]| members.iter().map(|it| it.incarnation).collect::<Vec<_>>();
                let agree = seen.as_ref().is_none_or(|seen| lives(seen) == lives(&members));
                if !(same && well && agree) {
                    bail!("node {node} sees {members:?}");
                }
                seen = Some(members);
            }
            Ok(())
        })
        .await
    }

    /// Until this node sees that one in another life than this, or not at all.
    pub async fn gone(&self, seen_by: usize, node: usize, incarnation: u64) -> anyhow::Result<()> {
        until("a node is declared dead", async || {
            let members = self.shown(seen_by).await?.members;
            let there = members.iter().any(|it| it.node == Self::name(node) && it.incarnation == incarnation);
            if there { bail!("node {node} is still there: {members:?}") } else { Ok(()) }
        })
        .await
    }

    pub async fn incarnation(&self, node: usize) -> anyhow::Result<u64> {
        Ok(self.member(node).await?.incarnation)
    }

    async fn member(&self, node: usize) -> anyhow::Result<MemberShown> {
        let members = self.shown(node).await?.members;
        members.into_iter().find(|it| it.node == Self::name(node)).with_context(|| format!("node {node} is in no view"))
    }

    /// By placement, as this node sees it: which node a conversation belongs to.
    pub async fn placement(&self, seen_by: usize) -> anyhow::Result<Placement> {
        let shown = self.shown(seen_by).await?;
        let member = |it: MemberShown| {
            let status = match it.status.as_str() {
                "up" => MemberStatus::Up,
                "joining" => MemberStatus::Joining,
                _ => MemberStatus::Leaving,
            };
            (it.node, Row { incarnation: it.incarnation, status, address: it.address, format: 1 })
        };
        let rows = shown.members.into_iter().map(member).collect();
        Ok(Placement(View::new(&ViewTable { number: shown.view, rows })))
    }

    /// So many new conversations that this node owns.
    pub async fn owned_by(&self, owner: usize, api: &Api, count: usize) -> anyhow::Result<Vec<String>> {
        let placement = self.placement(owner).await?;
        let created = stream::iter(0..).map(|n: usize| {
            let (api, url) = (api.clone(), self.nodes[n % self.nodes.len()].url.clone());
            async move { api.create(&url).await }
        });
        let mut created = std::pin::pin!(created.buffer_unordered(CREATED_AT_ONCE));
        let mut owned = Vec::new();
        while owned.len() < count {
            let conversation = created.next().await.context("there is always one more")??;
            if placement.owner(&conversation)? == owner {
                owned.push(conversation);
            }
        }
        Ok(owned)
    }

    /// Nothing passes between the node and Redis.
    pub fn cut_from_redis(&self, node: usize) -> anyhow::Result<()> {
        match &self.network {
            Network::Direct => bail!("over direct links nothing can be cut"),
            Network::Proxied(proxies) => proxies[node].redis.set(Faults::STALLED),
            Network::Namespaces(namespaces) => namespaces.cut(node, namespaces::REDIS)?,
        }
        Ok(())
    }

    /// What the node says reaches Redis, and no answer comes back.
    pub fn deafen_to_redis(&self, node: usize) -> anyhow::Result<()> {
        match &self.network {
            Network::Direct => bail!("over direct links nothing can be cut"),
            Network::Proxied(proxies) => proxies[node].redis.set(Faults { down: Flow::Stall, ..Faults::default() }),
            Network::Namespaces(namespaces) => namespaces.deafen(node, namespaces::REDIS)?,
        }
        Ok(())
    }

    /// The node's connections to Redis break; it may make new ones.
    pub fn reset_redis(&self, node: usize) -> anyhow::Result<()> {
        let Network::Proxied(proxies) = &self.network else { bail!("connections break only in a proxy") };
        proxies[node].redis.reset();
        Ok(())
    }

    /// Nothing passes between these two nodes.
    pub fn cut_between(&self, one: usize, other: usize) -> anyhow::Result<()> {
        match &self.network {
            Network::Direct => bail!("over direct links nothing can be cut"),
            Network::Proxied(proxies) => {
                for (dials, accepts) in [(one, other), (other, one)] {
                    let process = self.nodes[dials].id().context("the node runs")?;
                    proxies[accepts].peers.set_for(process, Faults::STALLED);
                }
            }
            Network::Namespaces(namespaces) => namespaces.cut_from_node(one, other)?,
        }
        Ok(())
    }

    pub fn cut_from_peers(&self, node: usize) -> anyhow::Result<()> {
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            self.cut_between(node, other)?;
        }
        Ok(())
    }

    /// Nothing passes between the node and anybody. Over proxies its own clients and its model still reach it.
    pub fn cut_off(&self, node: usize) -> anyhow::Result<()> {
        match &self.network {
            Network::Namespaces(namespaces) => namespaces.cut_off(node),
            Network::Direct | Network::Proxied(_) => {
                self.cut_from_redis(node)?;
                self.cut_from_peers(node)
            }
        }
    }

    /// The node's address is gone, and the process with it.
    pub async fn vanish(&mut self, node: usize) -> anyhow::Result<()> {
        let Network::Namespaces(namespaces) = &self.network else {
            bail!("an address vanishes only from a network of namespaces")
        };
        namespaces.vanish(node)?;
        self.nodes[node].kill().await
    }

    /// Everything passes again.
    pub fn heal(&self) -> anyhow::Result<()> {
        match &self.network {
            Network::Direct => {}
            Network::Proxied(proxies) => proxies.iter().for_each(|it| {
                it.peers.heal();
                it.redis.heal();
            }),
            Network::Namespaces(namespaces) => namespaces.heal()?,
        }
        Ok(())
    }

    /// What the nodes said of panics, each line with its node.
    pub fn panics(&self) -> Vec<String> {
        let of = |(n, node): (usize, &NodeProcess)| {
            let log = node.log();
            let lines = log.lines().filter(|line| line.contains("panicked"));
            lines.map(|line| format!("{}: {line}", Self::name(n))).collect::<Vec<_>>()
        };
        self.nodes.iter().enumerate().flat_map(of).collect()
    }
}

impl Network {
    async fn start(settings: &ClusterSettings, redis: &RedisServer) -> anyhow::Result<Self> {
        Ok(match settings.links {
            Links::Direct => Self::Direct,
            Links::Namespaces => Self::Namespaces(Namespaces::new(settings.nodes)?),
            Links::Proxied => {
                let mut proxies = Vec::new();
                for _ in 0..settings.nodes {
                    let peers = FaultyProxy::start(format!("127.0.0.1:{}", free_port()?)).await?;
                    let redis = FaultyProxy::start(format!("127.0.0.1:{}", redis.port)).await?;
                    proxies.push(NodeProxies { peers, redis });
                }
                Self::Proxied(proxies)
            }
        })
    }
}

/// Which node a conversation belongs to.
pub struct Placement(View);

impl Placement {
    /// Number of the node.
    pub fn owner(&self, conversation: &str) -> anyhow::Result<usize> {
        let id: ConversationId = conversation.parse()?;
        let owner = self.0.owner(id.shard()).context("no node is up")?;
        let number = owner.name.strip_prefix("node-").and_then(|number| number.parse().ok());
        number.with_context(|| format!("{} is no node of these tests", owner.name))
    }
}

/// A new one, in PEM, that all nodes share.
fn signing_key() -> anyhow::Result<String> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| anyhow::anyhow!("{error}"))?;
    let text = BASE64_STANDARD.encode([&ED25519[..], &seed].concat());
    Ok(format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n"))
}

/// Asks again and again until it is so; says at last what was wrong.
pub async fn until(what: &str, is: impl AsyncFn() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        match is().await {
            Ok(()) => return Ok(()),
            Err(error) if begun.elapsed() > PATIENCE => {
                return Err(error.context(format!("waited in vain until {what}")));
            }
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}
