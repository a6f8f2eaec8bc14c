//! A Redis and three nodes of this program, each a process with a folder of its own, and what they say of themselves.
//! Made by `demo.rs`, which ends it too; dropped in a hurry, it kills what it started all the same.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use futures::future::{FutureExt, pending, select_all};
use klatch_protocol::ConversationId;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::children::Process;
use super::redis::{self, RedisProgram};
use super::story::{MODEL, WORD_MS};
use crate::auth::{Auth, AuthOptions};
use crate::cli::client::{ApiClient, CONNECT_TIMEOUT, random_bytes};
use crate::ops::NodeShown;
use crate::stores::memory_records::MemoryRecords;

pub const NODES: usize = 3;

/// Who speaks.
pub const USER: &str = "ann";
const TENANT: &str = "default";
const TOKEN_TTL: Duration = Duration::from_secs(3600);

/// A slow machine that does other things too.
const START_MAX: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A node that is well answers at once.
const OPS_ANSWER_MAX: Duration = Duration::from_secs(2);
/// Longer than a failover: a stream that is silent for so long is broken.
const SILENCE_MAX: Duration = Duration::from_secs(30);

pub struct Cluster {
    nodes: Vec<Node>,
    redis: Option<Process>,
    redis_port: u16,
    token: String,
    http: reqwest::Client,
    /// Removed last.
    folder: TempDir,
}

struct Node {
    name: String,
    http: SocketAddr,
    ops: SocketAddr,
    peers: SocketAddr,
    folder: PathBuf,
    process: Option<Process>,
}

/// As `/cluster/shards` of the ops port has it.
#[derive(Deserialize)]
struct Placement {
    nodes: Vec<String>,
    owners: Vec<Option<usize>>,
}

impl Cluster {
    /// Folder, keys, configuration and ports; no process yet.
    pub fn prepare() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("klatch-demo-").tempdir();
        let folder = folder.context("cannot make a temporary folder (TMPDIR names another place)")?;
        let auth = Auth::open(&AuthOptions::default(), Arc::new(MemoryRecords::default()), Some(folder.path()))?;
        let token = auth.issue(USER, TENANT, TOKEN_TTL)?.reveal().to_owned();
        let key = folder.path().join("keys").join("signing.pem").display().to_string();
        std::fs::write(folder.path().join("klatch.toml"), configuration(&key))?;
        let mut ports = free_ports(1 + 3 * NODES)?.into_iter();
        let mut port = || ports.next().expect("so many were asked for");
        let redis_port = port();
        let nodes = (1..=NODES).map(|n| {
            let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let (name, process) = (format!("klatch-{n}"), None);
            let folder = folder.path().join(&name);
            Node { name, http: address(port()), ops: address(port()), peers: address(port()), folder, process }
        });
        let nodes = nodes.collect();
        let http = reqwest::Client::builder().no_proxy().connect_timeout(CONNECT_TIMEOUT).read_timeout(SILENCE_MAX);
        Ok(Self { nodes, redis: None, redis_port, token, http: http.build()?, folder })
    }

    pub async fn start_redis(&mut self, program: &RedisProgram) -> anyhow::Result<u32> {
        let redis = self.redis.insert(program.start(self.redis_port, self.folder.path())?);
        redis::ready(redis, self.redis_port).await?;
        Ok(redis.pid())
    }

    /// Also again: with the same name, folder and ports.
    pub fn start_node(&mut self, node: usize) -> anyhow::Result<()> {
        let mut command = self.program(node)?;
        let node = &mut self.nodes[node];
        let addresses = [("--http-addr", node.http), ("--ops-addr", node.ops), ("--cluster-addr", node.peers)];
        command.args(["serve", "--node-name", &node.name]);
        command.args(addresses.iter().flat_map(|(option, address)| [(*option).to_owned(), address.to_string()]));
        let log = node.folder.with_extension("log");
        node.process = Some(Process::start(&node.name, command, &log)?);
        Ok(())
    }

    /// This program, as one that belongs to this node: nothing of the caller's own settings reaches it.
    fn program(&self, node: usize) -> anyhow::Result<Command> {
        let folder = &self.nodes[node].folder;
        std::fs::create_dir_all(folder)?;
        let mut command = Command::new(std::env::current_exe().context("cannot tell where this program is")?);
        let names = std::env::vars_os().map(|(name, _)| name);
        for own in names.filter(|name| name.to_string_lossy().starts_with("KLATCH_")) {
            command.env_remove(own);
        }
        command.current_dir(folder);
        command.env("KLATCH_CONFIG", self.folder.path().join("klatch.toml"));
        command.env("KLATCH_STORE", format!("redis://127.0.0.1:{}", self.redis_port));
        Ok(command)
    }

    pub fn name(&self, node: usize) -> &str {
        &self.nodes[node].name
    }

    /// `http://` and so on, without a slash at its end.
    pub fn url(&self, node: usize) -> String {
        format!("http://{}", self.nodes[node].http)
    }

    pub fn ops_url(&self, node: usize) -> String {
        format!("http://{}", self.nodes[node].ops)
    }

    /// Of the process, the last one if it is dead.
    pub fn pid(&self, node: usize) -> u32 {
        self.nodes[node].process.as_ref().map_or(0, Process::pid)
    }

    pub fn folder(&self) -> String {
        self.folder.path().display().to_string()
    }

    pub fn client(&self, node: usize) -> anyhow::Result<ApiClient> {
        let client = ApiClient::new(self.http.clone(), &self.url(node)).map_err(anyhow::Error::msg)?;
        client.set_bearer(&self.token).map_err(anyhow::Error::msg)?;
        Ok(client)
    }

    /// Until each node sees all of them up, by one view, and reaches them.
    pub async fn formed(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + START_MAX;
        loop {
            for node in &mut self.nodes {
                node.process.as_mut().context("all nodes were started")?.still_runs()?;
            }
            let seen = futures::future::join_all((0..NODES).map(|node| self.seen_by(node))).await;
            let views: Vec<u64> = seen.iter().flatten().filter(|shown| is_whole(shown)).map(|it| it.view).collect();
            if views.len() == NODES && views.iter().all(|view| *view == views[0]) {
                return Ok(());
            }
            ensure!(Instant::now() < until, "the nodes did not find one another within {} s", START_MAX.as_secs());
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Until it serves as a member of the cluster, whoever else is one.
    pub async fn ready(&mut self, node: usize) -> anyhow::Result<()> {
        let until = Instant::now() + START_MAX;
        let url = format!("{}/readyz", self.ops_url(node));
        while !self.ask(&url).await.is_ok_and(|answer| answer.status().is_success()) {
            self.nodes[node].process.as_mut().context("it was started")?.still_runs()?;
            ensure!(Instant::now() < until, "{} is not ready after {} s", self.name(node), START_MAX.as_secs());
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// By placement.
    pub async fn owner(&self, conversation: &str) -> anyhow::Result<usize> {
        let id: ConversationId = conversation.parse()?;
        let placement: Placement = self.read(&format!("{}/cluster/shards", self.ops_url(0))).await?;
        let place = placement.owners.get(usize::from(id.shard().0)).copied().flatten();
        let name = place.and_then(|place| placement.nodes.get(place)).context("no node owns the conversation")?;
        self.nodes.iter().position(|node| node.name == *name).with_context(|| format!("{name} is none of ours"))
    }

    /// The one node that has a turn open, if there is one, as that node sees it.
    pub async fn maker(&self, seen_by: usize) -> anyhow::Result<Option<usize>> {
        let shown = self.seen_by(seen_by).await?;
        let has_turn = |name: &str| {
            let member = shown.members.iter().find(|member| member.node == name);
            member.and_then(|member| member.load.as_ref()).is_some_and(|load| load.open_turns > 0)
        };
        let mut makers = (0..NODES).filter(|node| has_turn(self.name(*node)));
        Ok(makers.next().filter(|_| makers.next().is_none()))
    }

    async fn seen_by(&self, node: usize) -> anyhow::Result<NodeShown> {
        self.read(&format!("{}/cluster", self.ops_url(node))).await
    }

    async fn read<T: DeserializeOwned>(&self, url: &str) -> anyhow::Result<T> {
        Ok(self.ask(url).await?.error_for_status()?.json().await?)
    }

    async fn ask(&self, url: &str) -> reqwest::Result<reqwest::Response> {
        self.http.get(url).timeout(OPS_ANSWER_MAX).send().await
    }

    /// SIGKILL.
    pub async fn kill_node(&mut self, node: usize) -> anyhow::Result<()> {
        self.nodes[node].process.as_mut().context("it was started")?.kill().await
    }

    /// Waits for a node to die. A Redis that does is an error: nothing goes on without it.
    pub async fn next_death(&mut self) -> anyhow::Result<(usize, ExitStatus)> {
        let redis = self.redis.as_mut().context("Redis was started")?;
        let nodes = self.nodes.iter_mut().enumerate().map(|(n, node)| {
            let death = async move {
                match &mut node.process {
                    Some(process) => (n, process.ended().await),
                    None => pending().await,
                }
            };
            death.boxed()
        });
        let ended = tokio::select! {
            ended = redis.ended() => ended?,
            ((node, status), ..) = select_all(nodes) => return Ok((node, status?)),
        };
        Err(redis.ended_early(ended))
    }

    /// An account for the chat page; its password.
    pub async fn add_account(&self, node: usize) -> anyhow::Result<String> {
        let password = new_password();
        let mut command = self.program(node)?;
        command.args(["user", "add", USER]).kill_on_drop(true);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let mut stdin = child.stdin.take().context("stdin is a pipe")?;
        stdin.write_all(format!("{password}\n").as_bytes()).await?;
        drop(stdin);
        let output =
            tokio::time::timeout(START_MAX, child.wait_with_output()).await.context("no account was added")??;
        if !output.status.success() {
            bail!("no account was added: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(password)
    }

    /// Kills all that runs, nodes first, and removes the folder.
    pub async fn end(mut self) -> anyhow::Result<()> {
        let nodes = self.nodes.iter_mut().filter_map(|node| node.process.as_mut());
        for process in nodes.chain(self.redis.as_mut()) {
            process.kill().await?;
        }
        let folder = self.folder();
        self.folder.close().with_context(|| format!("cannot remove {folder}"))
    }
}

fn is_whole(shown: &NodeShown) -> bool {
    let up = shown.members.iter().filter(|member| member.status == "up" && member.load.is_some());
    shown.members.len() == NODES && up.count() == NODES
}

fn configuration(key: &str) -> String {
    let text = |text: &str| toml::Value::from(text).to_string();
    let secret = format!("{:032x}{:032x}", random_number(), random_number());
    format!(
        "auth.signing_keys = [{}]\ncluster.secret = {}\n\n\
         [[responder]]\nname = {}\nkind = \"echo\"\ntoken_delay_ms = {WORD_MS}\n",
        text(key),
        text(&secret),
        text(MODEL)
    )
}

fn random_number() -> u128 {
    u128::from_le_bytes(random_bytes())
}

/// 60 random bits in letters that are not mistaken for one another.
fn new_password() -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let letters = random_bytes::<12>().map(|byte| char::from(LETTERS[usize::from(byte) % LETTERS.len()]));
    let groups: Vec<String> = letters.chunks(4).map(|group| group.iter().collect()).collect();
    groups.join("-")
}

/// All reserved at once, so that no two are the same; they were free a moment ago.
fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    let reserve = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let reserved: Vec<TcpListener> =
        (0..count).map(|_| reserve()).collect::<Result<_, _>>().context("no free ports")?;
    reserved.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::{Config, Sources};

    #[test]
    fn the_nodes_accept_the_configuration_wherever_the_folder_is() {
        let text = configuration("/tmp/a \"b\"/keys/signing.pem");
        let command_line = [("store".to_owned(), "redis://127.0.0.1:1".to_owned())].into();
        let sources = Sources { file: Some(("klatch.toml".into(), text)), command_line, ..Sources::default() };
        let config = Config::load(&sources).unwrap();
        assert_eq!(config.auth.signing_keys, [PathBuf::from("/tmp/a \"b\"/keys/signing.pem")]);
    }

    #[test]
    fn ports_are_all_different() {
        let ports = free_ports(10).unwrap();
        assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), 10);
    }

    #[test]
    fn a_password_is_long_enough_and_never_the_same() {
        let (one, other) = (new_password(), new_password());
        assert!(one.len() == 14 && one != other, "{one} {other}");
    }
}
