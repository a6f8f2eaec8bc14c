//! The pods of a StatefulSet, their names and addresses: started, stopped and lost as Kubernetes would.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::IpAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use klatch::ops::NodeShown;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::task::AbortHandle;

use super::ready::{Ready, is_content, lock, probe};
use crate::cluster::until;
use crate::container::Container;
use crate::manifests::{Set, text};
use crate::names::Names;
use crate::namespaces::{self, Namespaces};
use crate::process::binary;

pub const SET: &str = "klatch";
/// All pods that there are in a run: three, one again, two more.
const PODS: usize = 6;
/// From a pod's start until others find its name: Kubernetes' own way takes a second or two.
const NAMELESS: Duration = Duration::from_millis(1_500);

/// The pods, their names, and which of them a Service would lead to.
pub struct Cluster<'a> {
    pub set: Set<'a>,
    names: Names,
    namespaces: Namespaces,
    next_place: usize,
    pods: BTreeMap<usize, Pod>,
    pub ready: Arc<Ready>,
    /// Of the configuration that the manifests leave to the operator.
    responder: String,
    http: reqwest::Client,
    logs: TempDir,
}

struct Pod {
    place: usize,
    url: String,
    ops_url: String,
    child: Child,
    probe: AbortHandle,
    _folder: TempDir,
}

impl<'a> Cluster<'a> {
    pub async fn start(set: Set<'a>, responder: String) -> anyhow::Result<Self> {
        let mut names = Names::start().await?;
        let store = set.environment("klatch-0")?.remove("KLATCH_STORE").context("a store is named")?;
        let host = store.strip_prefix("redis://").and_then(|it| it.split_once(':')).context("it is one Redis")?.0;
        names.add(&format!("{host}.{}.svc", set.namespace()?), namespaces::REDIS.into()).await?;
        Ok(Self {
            set,
            names,
            namespaces: Namespaces::new(PODS)?,
            next_place: 0,
            pods: BTreeMap::new(),
            ready: Arc::default(),
            responder,
            http: reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?,
            logs: tempfile::Builder::new().prefix("klatch-logs-").tempdir()?,
        })
    }

    fn name(ordinal: usize) -> String {
        format!("{SET}-{ordinal}")
    }

    fn dns_name(&self, ordinal: usize) -> anyhow::Result<String> {
        Ok(format!("{}.{}.{}.svc", Self::name(ordinal), self.set.service()?, self.set.namespace()?))
    }

    /// All at once; their names are known a while later. Returns when their startup probes are content.
    pub async fn start_pods(&mut self, ordinals: &[usize]) -> anyhow::Result<()> {
        for ordinal in ordinals {
            let pod = self.start_pod(*ordinal)?;
            self.pods.insert(*ordinal, pod);
        }
        tokio::time::sleep(NAMELESS).await;
        for ordinal in ordinals {
            let address = self.namespaces.address(self.pods[ordinal].place);
            self.names.add(&self.dns_name(*ordinal)?, address).await?;
        }
        let probe = self.set.container["startupProbe"].clone();
        let number = |key: &str| probe[key].as_u64().unwrap_or(1);
        let (path, period) = (text(&probe["httpGet"]["path"])?, Duration::from_secs(number("periodSeconds")));
        for ordinal in ordinals {
            let url = format!("{}{path}", self.pods[ordinal].ops_url);
            let mut tries = 0;
            while !is_content(&self.http, &url, Duration::from_secs(number("timeoutSeconds"))).await {
                tries += 1;
                let pod = self.pods.get_mut(ordinal).context("the pod is there")?;
                if let Some(status) = pod.child.try_wait()? {
                    bail!("{} ended with {status}: {}", Self::name(*ordinal), self.log(*ordinal));
                }
                ensure!(
                    tries < number("failureThreshold"),
                    "{} did not start: {}",
                    Self::name(*ordinal),
                    self.log(*ordinal)
                );
                tokio::time::sleep(period).await;
            }
        }
        Ok(())
    }

    fn start_pod(&mut self, ordinal: usize) -> anyhow::Result<Pod> {
        let (name, place) = (Self::name(ordinal), self.next_place);
        self.next_place += 1;
        let folder = tempfile::Builder::new().prefix("klatch-pod-").tempdir()?;
        // What the manifests leave to the operator: a model. And comments that come sooner, so that the run is short.
        let change = |file: &str, bytes: Vec<u8>| match file {
            "klatch.toml" => {
                let text = String::from_utf8_lossy(&bytes).replace("[limits]", "[limits]\nkeep_alive = \"2s\"");
                format!("{text}\n{}", self.responder).into_bytes()
            }
            _ => bytes,
        };
        let container = Container::new(&self.set, &name, folder.path(), change)?;
        let mut command = Command::from(container.command(&self.namespaces.name(place))?);
        let log = File::options().create(true).append(true).open(self.logs.path().join(&name))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        let child = command.spawn()?;
        let address: IpAddr = self.namespaces.address(place);
        let at = |port: &str| anyhow::Ok(format!("http://{address}:{}", self.set.port(port)?));
        let (url, ops_url) = (at("http")?, at("ops")?);
        let probe = tokio::spawn(probe(
            self.http.clone(),
            self.set.container["readinessProbe"].clone(),
            ops_url.clone(),
            url.clone(),
            self.ready.clone(),
        ));
        Ok(Pod { place, url, ops_url, child, probe: probe.abort_handle(), _folder: folder })
    }

    /// As when they are deleted: SIGTERM, the grace period, and then the name and the address are gone.
    pub async fn stop_pods(&mut self, ordinals: &[usize]) -> anyhow::Result<()> {
        let grace = self.set.pod["terminationGracePeriodSeconds"].as_u64().context("the pod has a grace period")?;
        for ordinal in ordinals {
            let pod = &self.pods[ordinal];
            self.ready.leaves(&pod.url);
            let id = pod.child.id().context("the pod runs")?.to_string();
            ensure!(Command::new("kill").args(["-TERM", &id]).status().await?.success(), "SIGTERM was not delivered");
        }
        for ordinal in ordinals {
            let mut pod = self.pods.remove(ordinal).context("the pod is there")?;
            let ended = tokio::time::timeout(Duration::from_secs(grace), pod.child.wait()).await;
            let status = ended.with_context(|| format!("{} would be killed", Self::name(*ordinal)))??;
            ensure!(status.success(), "{} ended with {status}: {}", Self::name(*ordinal), self.log(*ordinal));
            pod.probe.abort();
            self.ready.set(&pod.url, false);
            self.names.remove(&self.dns_name(*ordinal)?).await?;
            self.namespaces.vanish(pod.place)?;
        }
        Ok(())
    }

    /// While a stream runs through its pod. Nobody is told, and Kubernetes changes nothing for as long as this run lasts: the name stays, and the Service's
    /// address too.
    pub async fn lose_host_of_a_stream(&mut self, ordinal: usize) -> anyhow::Result<()> {
        let mut pod = self.pods.remove(&ordinal).context("the pod is there")?;
        until("a stream runs through the pod", async || {
            ensure!(lock(&self.ready.streams).get(&pod.url).is_some_and(|streams| *streams > 0), "none does");
            Ok(())
        })
        .await?;
        pod.probe.abort();
        self.ready.leaves(&pod.url);
        self.namespaces.vanish(pod.place)?;
        Ok(pod.child.kill().await?)
    }

    async fn shown(&self, ordinal: usize) -> anyhow::Result<NodeShown> {
        let url = format!("{}/cluster", self.pods[&ordinal].ops_url);
        Ok(self.http.get(url).send().await?.error_for_status()?.json().await?)
    }

    pub async fn incarnation(&self, seen_by: usize, name: &str) -> anyhow::Result<u64> {
        let members = self.shown(seen_by).await?.members;
        Ok(members.iter().find(|it| it.node == name).with_context(|| format!("{name} is in no view"))?.incarnation)
    }

    /// Until exactly these see one another up, by the names of the manifests, and reach each other, and are ready.
    pub async fn agreed(&self, ordinals: &[usize]) -> anyhow::Result<()> {
        let expected: Vec<(String, String)> = ordinals
            .iter()
            .map(|it| Ok((Self::name(*it), format!("{}:{}", self.dns_name(*it)?, self.set.port("peers")?))))
            .collect::<anyhow::Result<_>>()?;
        until("the pods agree", async || {
            let mut views = BTreeSet::new();
            for ordinal in ordinals {
                let NodeShown { members, view, .. } = self.shown(*ordinal).await?;
                let seen: Vec<_> = members.iter().map(|it| (it.node.clone(), it.address.clone())).collect();
                let well = members.iter().all(|it| it.status == "up" && it.load.is_some());
                ensure!(seen == expected && well, "{} sees {members:?}", Self::name(*ordinal));
                ensure!(
                    lock(&self.ready.urls).contains(&self.pods[ordinal].url),
                    "{} is not ready",
                    Self::name(*ordinal)
                );
                views.insert(view);
            }
            ensure!(views.len() == 1, "the views differ: {views:?}");
            Ok(())
        })
        .await
    }

    /// What an operator sees.
    pub async fn table(&self) -> anyhow::Result<String> {
        let url = &self.pods.first_key_value().context("there is a pod")?.1.ops_url;
        let printed = Command::new(binary()?).args(["cluster", "--ops-url", url]).output().await?;
        ensure!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
        Ok(String::from_utf8(printed.stdout)?)
    }

    fn log(&self, ordinal: usize) -> String {
        std::fs::read_to_string(self.logs.path().join(Self::name(ordinal))).unwrap_or_default()
    }

    pub fn panics(&self) -> Vec<String> {
        let logs = (0..PODS).map(|ordinal| (ordinal, self.log(ordinal)));
        let of = |(ordinal, log): (usize, String)| {
            let lines = log.lines().filter(|line| line.contains("panicked"));
            lines.map(|line| format!("{}: {line}", Self::name(ordinal))).collect::<Vec<_>>()
        };
        logs.flat_map(of).collect()
    }
}
