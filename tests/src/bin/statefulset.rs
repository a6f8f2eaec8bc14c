//! Runs the pods of a rendered StatefulSet without Kubernetes, and lets happen to them what happens there:
//! `statefulset MANIFESTS.json…`, of files that tests/kubernetes/render.py printed.
//!
//! Each file's drain is added up first. Then the pods of the first run in network namespaces, with the arguments, environment,
//! files and user of the manifests, and find one another and Redis by a real DNS server: three start at once; one is
//! restarted and has another address, and no name for a while; two are added, and taken away again; one host is lost for good,
//! and nobody replaces its pod. Clients send turns with keys and read streams all the time, through pods that are ready.
//!
//! Ends with 1 if a turn was lost or made twice, a stream did not go on, a stream through a pod that stayed broke, the cluster's
//! view did not come to what it should be, a pod did not stop in its time, or a node panicked. Needs root, `dnsmasq`,
//! `redis-server`, `ip`, `unshare` and `setpriv`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use klatch::config::{Config, Sources};
use klatch::ops::NodeShown;
use klatch::serve::longest_stop;
use klatch_tests::client::{Answer, Api, Ask, End, Patience, Seen, Tell, reply_of};
use klatch_tests::cluster::until;
use klatch_tests::failover::{MODEL, Plan, responder};
use klatch_tests::history::Stored;
use klatch_tests::manifests::{Manifests, Set, text};
use klatch_tests::model_server::ModelServer;
use klatch_tests::names::Names;
use klatch_tests::namespaces::{self, Namespaces};
use klatch_tests::pods::{BECOME, Container};
use klatch_tests::process::binary;
use klatch_tests::random::below;
use klatch_tests::redis_server::RedisServer;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

const SET: &str = "klatch";
/// There with the component `auth` only.
const SIGNS_IN: &str = "klatch-auth";
/// All pods that there are in a run: three, one again, two more.
const PODS: usize = 6;
/// From a pod's start until others find its name: Kubernetes' own way takes a second or two.
const NAMELESS: Duration = Duration::from_millis(1_500);
const CLIENTS: usize = 4;
/// Of each reply that is streamed: some 3 s.
const PLAN: Plan = Plan { streams: CLIENTS, words: 60, word_ms: 50 };
/// A pause between two turns of a client: this is a look at what is right, not at what is fast.
const PAUSE: Duration = Duration::from_millis(50);
/// Comments come every two seconds.
const PATIENCE: Patience = Patience { bytes: Duration::from_secs(6), events: Duration::from_secs(15) };
/// Of one attempt of a turn, and of all of them.
const ATTEMPT_MAX: Duration = Duration::from_secs(10);
const TURN_MAX: Duration = Duration::from_secs(60);

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [become_it, container] = &arguments[..]
        && become_it == BECOME
    {
        let container: Container = serde_json::from_str(container)?;
        container.become_it()?;
    }
    ensure!(!arguments.is_empty(), "name the manifests, as tests/kubernetes/render.py prints them");
    if let Some(missing) = namespaces::missing() {
        bail!("{missing}");
    }
    namespaces::enter()?;
    for path in &arguments {
        adds_up(path)?;
    }
    let manifests = Manifests::read(Path::new(&arguments[0]))?;
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(run(&manifests))
}

/// The program takes the configuration, and a stop that takes as long as can be ends before the pod is killed.
fn adds_up(path: &str) -> anyhow::Result<()> {
    let manifests = Manifests::read(Path::new(path))?;
    for (kind, name) in [("StatefulSet", SET), ("Deployment", SIGNS_IN)] {
        if kind == "Deployment" && !manifests.has(kind, name) {
            continue;
        }
        let workload = manifests.workload(kind, name)?;
        let config = config_of(&workload)?;
        let grace = workload.pod["terminationGracePeriodSeconds"].as_u64().context("the pod has a grace period")?;
        let stop = longest_stop(&config);
        ensure!(Duration::from_secs(grace) >= stop, "{path}: {name}: a stop may take {stop:?}, and is given {grace} s");
        println!("{path}: a stop of {name} takes {:.1} s at the most, and is given {grace} s", stop.as_secs_f64());
    }
    Ok(())
}

fn config_of(set: &Set) -> anyhow::Result<Config> {
    let environment = set.environment("klatch-0")?;
    let path = environment.get("KLATCH_CONFIG").context("a configuration is named")?.clone();
    let file = Some((path.clone().into(), set.file(&path)?));
    Config::load(&Sources { file, environment, command_line: BTreeMap::new() })
        .map_err(|refused| anyhow::anyhow!("{refused}"))
}

async fn run(manifests: &Manifests) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let set = manifests.set(SET)?;
    let secret = |file: &str| set.file(&format!("/run/secrets/klatch/{file}"));
    let _redis = redis(&secret("redis-password")?).await?;
    let model = ModelServer::bind(&format!("{}:0", namespaces::HUB), Duration::ZERO).await?;
    let api = Api::new(token(&secret("signing.pem")?).await?)?;
    let mut cluster = Cluster::start(set, &model).await?;
    let said = |what: &str| println!("{:>5.1} s  {what}", begun.elapsed().as_secs_f64());

    let first: Vec<usize> = (0..cluster.set.replicas()).collect();
    ensure!(first.len() == 3, "the run is made for three replicas, and the manifests say {}", first.len());
    cluster.start_pods(&first).await?;
    cluster.agreed(&[0, 1, 2]).await?;
    said("three pods started at once are a cluster");
    let load = Load::start(&api, &cluster);
    load.goes_on(1).await?;

    let before = cluster.incarnation(0, "klatch-1").await?;
    cluster.stop_pods(&[1]).await?;
    said("klatch-1 has drained; it comes back at another address");
    cluster.start_pods(&[1]).await?;
    cluster.agreed(&[0, 1, 2]).await?;
    ensure!(cluster.incarnation(0, "klatch-1").await? > before, "klatch-1 came back as the same life");
    load.goes_on(1).await?;

    cluster.start_pods(&[3, 4]).await?;
    cluster.agreed(&[0, 1, 2, 3, 4]).await?;
    said("five pods are a cluster");
    load.goes_on(1).await?;
    cluster.stop_pods(&[3, 4]).await?;
    cluster.agreed(&[0, 1, 2]).await?;
    said("three are left, and the two that went are in no view");
    load.goes_on(1).await?;

    cluster.lose_host_of_a_stream(2).await?;
    let lost = Instant::now();
    cluster.agreed(&[0, 1]).await?;
    said(&format!("klatch-2 and its host are gone for good; noticed after {:.1} s", lost.elapsed().as_secs_f64()));
    load.goes_on(2).await?;

    let found = load.stop().await?;
    println!("\n{}", cluster.table().await?);
    let Found { turns, again, streams, resumed, .. } = found;
    println!("{turns} turns, {again} sent again under their keys; {streams} streams, {resumed} read on at another pod");
    found.problems.iter().for_each(|problem| println!("{problem}"));
    let panics = cluster.panics();
    panics.iter().for_each(|line| println!("{line}"));
    let clean = found.problems.is_empty() && panics.is_empty();
    said(if clean { "no turn was lost, and every stream went on" } else { "NOT CLEAN" });
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// At the address and port that the Service would lead to.
async fn redis(password: &str) -> anyhow::Result<RedisServer> {
    let bind = namespaces::REDIS.to_string();
    let options = ["--appendonly", "yes", "--requirepass", password, "--bind", &bind, "127.0.0.1"];
    let mut redis = RedisServer::start_with(&options).await?;
    redis.kill().await?;
    redis.port = 6379;
    redis.restart().await?;
    Ok(redis)
}

/// Signed with the key of the Secret, as the nodes expect.
async fn token(key: &str) -> anyhow::Result<String> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("signing.pem");
    std::fs::write(&path, key)?;
    let config = folder.path().join("klatch.toml");
    std::fs::write(&config, format!("auth.signing_keys = [\"{}\"]\n", path.display()))?;
    let mut command = Command::new(binary()?);
    command.args(["token", "--sub", "ann", "--config"]).arg(&config).current_dir(folder.path());
    let printed = command.output().await?;
    ensure!(printed.status.success(), "no token: {}", String::from_utf8_lossy(&printed.stderr));
    Ok(String::from_utf8(printed.stdout)?.trim().to_owned())
}

/// The pods, their names, and which of them a Service would lead to.
struct Cluster<'a> {
    set: Set<'a>,
    names: Names,
    namespaces: Namespaces,
    next_place: usize,
    pods: BTreeMap<usize, Pod>,
    ready: Arc<Ready>,
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

/// By the readiness probe, as the kubelet asks it.
#[derive(Default)]
struct Ready {
    urls: Mutex<BTreeSet<String>>,
    /// Of pods that were told to stop, or lost.
    leaving: Mutex<BTreeSet<String>>,
    /// Streams through each pod that have begun and go on.
    streams: Mutex<BTreeMap<String, usize>>,
}

/// A stream through a pod, counted from its first event on.
struct Through<'a> {
    seen: &'a mut Seen,
    url: &'a str,
    ready: &'a Ready,
    counted: bool,
}

impl Tell for Through<'_> {
    fn seen(&mut self) -> &mut Seen {
        self.seen
    }

    fn changed(&mut self) {
        if !self.counted {
            self.counted = true;
            *lock(&self.ready.streams).entry(self.url.to_owned()).or_default() += 1;
        }
    }
}

impl Drop for Through<'_> {
    fn drop(&mut self) {
        if self.counted {
            lock(&self.ready.streams).entry(self.url.to_owned()).and_modify(|streams| *streams -= 1);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ready {
    fn set(&self, url: &str, ready: bool) {
        let mut urls = lock(&self.urls);
        if ready {
            urls.insert(url.to_owned())
        } else {
            urls.remove(url)
        };
    }

    /// Whichever; waits for one.
    async fn pick(&self) -> String {
        loop {
            {
                let urls = lock(&self.urls);
                if !urls.is_empty() {
                    return urls.iter().nth(below(urls.len())).expect("it is below their number").clone();
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn leaves(&self, url: &str) {
        lock(&self.leaving).insert(url.to_owned());
    }

    fn stays(&self, url: &str) -> bool {
        !lock(&self.leaving).contains(url)
    }
}

impl<'a> Cluster<'a> {
    async fn start(set: Set<'a>, model: &ModelServer) -> anyhow::Result<Self> {
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
            responder: responder(model, PLAN),
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
    async fn start_pods(&mut self, ordinals: &[usize]) -> anyhow::Result<()> {
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
        command.stdin(std::process::Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
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
    async fn stop_pods(&mut self, ordinals: &[usize]) -> anyhow::Result<()> {
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
    async fn lose_host_of_a_stream(&mut self, ordinal: usize) -> anyhow::Result<()> {
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

    async fn incarnation(&self, seen_by: usize, name: &str) -> anyhow::Result<u64> {
        let members = self.shown(seen_by).await?.members;
        Ok(members.iter().find(|it| it.node == name).with_context(|| format!("{name} is in no view"))?.incarnation)
    }

    /// Until exactly these see one another up, by the names of the manifests, and reach each other, and are ready.
    async fn agreed(&self, ordinals: &[usize]) -> anyhow::Result<()> {
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
    async fn table(&self) -> anyhow::Result<String> {
        let url = &self.pods.first_key_value().context("there is a pod")?.1.ops_url;
        let printed = Command::new(binary()?).args(["cluster", "--ops-url", url]).output().await?;
        ensure!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
        Ok(String::from_utf8(printed.stdout)?)
    }

    fn log(&self, ordinal: usize) -> String {
        std::fs::read_to_string(self.logs.path().join(Self::name(ordinal))).unwrap_or_default()
    }

    fn panics(&self) -> Vec<String> {
        let logs = (0..PODS).map(|ordinal| (ordinal, self.log(ordinal)));
        let of = |(ordinal, log): (usize, String)| {
            let lines = log.lines().filter(|line| line.contains("panicked"));
            lines.map(|line| format!("{}: {line}", Self::name(ordinal))).collect::<Vec<_>>()
        };
        logs.flat_map(of).collect()
    }
}

/// Until it is aborted: what it finds is what a Service leads to.
async fn probe(http: reqwest::Client, probe: Value, ops_url: String, url: String, ready: Arc<Ready>) {
    let number = |key: &str| probe[key].as_u64().unwrap_or(1);
    let path = probe["httpGet"]["path"].as_str().unwrap_or_default();
    let (ask, limit) = (format!("{ops_url}{path}"), Duration::from_secs(number("timeoutSeconds")));
    let mut failed = 0;
    loop {
        failed = if is_content(&http, &ask, limit).await { 0 } else { failed + 1 };
        if failed == 0 || failed >= number("failureThreshold") {
            ready.set(&url, failed == 0);
        }
        tokio::time::sleep(Duration::from_secs(number("periodSeconds"))).await;
    }
}

async fn is_content(http: &reqwest::Client, url: &str, limit: Duration) -> bool {
    http.get(url).timeout(limit).send().await.is_ok_and(|answer| answer.status().is_success())
}

/// Clients that never stop: half send turns, half read streams.
struct Load {
    stop: watch::Sender<bool>,
    /// What each client has done so far.
    done: Vec<Arc<AtomicUsize>>,
    clients: JoinSet<anyhow::Result<Found>>,
}

#[derive(Debug, Default)]
struct Found {
    turns: usize,
    again: usize,
    streams: usize,
    resumed: usize,
    problems: Vec<String>,
}

/// One of them.
#[derive(Clone)]
struct User {
    number: usize,
    api: Api,
    ready: Arc<Ready>,
    stopped: watch::Receiver<bool>,
    done: Arc<AtomicUsize>,
}

impl Load {
    fn start(api: &Api, cluster: &Cluster) -> Self {
        let (stop, stopped) = watch::channel(false);
        let done: Vec<Arc<AtomicUsize>> = (0..2 * CLIENTS).map(|_| Arc::default()).collect();
        let mut clients = JoinSet::new();
        for (number, done) in done.iter().enumerate() {
            let (api, ready) = (api.clone(), cluster.ready.clone());
            let user = User { number, api, ready, stopped: stopped.clone(), done: done.clone() };
            if number < CLIENTS {
                clients.spawn(user.turns())
            } else {
                clients.spawn(user.streams())
            };
        }
        Self { stop, done, clients }
    }

    /// Until each client has done so much more.
    async fn goes_on(&self, more: usize) -> anyhow::Result<()> {
        let goals: Vec<usize> = self.done.iter().map(|it| it.load(Ordering::Relaxed) + more).collect();
        until("every client goes on", async || {
            let behind = self.done.iter().zip(&goals).position(|(done, goal)| done.load(Ordering::Relaxed) < *goal);
            behind.map_or(Ok(()), |client| bail!("client {client} does not"))
        })
        .await
    }

    async fn stop(mut self) -> anyhow::Result<Found> {
        self.stop.send_replace(true);
        let mut all = Found::default();
        while let Some(found) = self.clients.join_next().await {
            let found = found??;
            all.turns += found.turns;
            all.again += found.again;
            all.streams += found.streams;
            all.resumed += found.resumed;
            all.problems.extend(found.problems);
        }
        Ok(all)
    }
}

impl User {
    fn goes_on(&self) -> bool {
        !*self.stopped.borrow()
    }

    async fn conversation(&self) -> anyhow::Result<String> {
        let begun = Instant::now();
        loop {
            match self.api.create(&self.ready.pick().await).await {
                Ok(id) => return Ok(id),
                Err(error) if begun.elapsed() > TURN_MAX => return Err(error),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// One after the other in one conversation, each under its key until it is answered; at the end it must be what was told.
    async fn turns(self) -> anyhow::Result<Found> {
        let (mut found, mut told) = (Found::default(), Vec::new());
        let conversation = self.conversation().await?;
        while self.goes_on() {
            let text = format!("turn {} of client {}", told.len(), self.number);
            let reply = self.turn(&conversation, &text, &mut found).await?;
            told.push(Stored { text, reply });
            self.done.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(PAUSE).await;
        }
        found.turns = told.len();
        let kept = self.kept(&conversation).await?;
        if kept != told {
            let differs = kept.iter().zip(&told).position(|(kept, told)| kept != told);
            let (kept, told) = (kept.len(), told.len());
            found.problems.push(format!("{conversation}: {told} turns were told, {kept} kept; differs at {differs:?}"));
        }
        Ok(found)
    }

    async fn turn(&self, conversation: &str, text: &str, found: &mut Found) -> anyhow::Result<String> {
        let key = text.replace(' ', "-");
        let ask = Ask { conversation, model: "echo", text, key: Some(&key) };
        let begun = Instant::now();
        loop {
            let url = self.ready.pick().await;
            match self.api.turn(&url, &ask, ATTEMPT_MAX).await {
                Answer::Completed { reply } => return Ok(reply),
                Answer::Refused { status, why } if status < 500 && status != 429 => bail!("{text}: {status} {why}"),
                answer if begun.elapsed() > TURN_MAX => bail!("{text} was not answered: {answer:?}"),
                answer if self.ready.stays(&url) => {
                    found.problems.push(format!("{text} failed through {url}, which stayed: {answer:?}"));
                }
                Answer::Ended { .. } | Answer::Refused { .. } | Answer::Nothing => found.again += 1,
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Each in a conversation of its own, read on elsewhere where it breaks, and compared with what is stored.
    async fn streams(self) -> anyhow::Result<Found> {
        let mut found = Found::default();
        while self.goes_on() {
            let conversation = self.conversation().await?;
            let text = (0..PLAN.words).map(|n| format!("{}w{n}", self.number)).collect::<Vec<_>>().join(" ");
            let seen = self.stream(&conversation, &text, &mut found).await?;
            let response = seen.response.clone().context("a stream names its response")?;
            let stored = self.stored(&response).await?;
            let reply = reply_of(&stored);
            if stored["status"] != "completed" || seen.text() != reply || seen.missing + seen.repeated > 0 {
                let (missing, repeated, seen) = (seen.missing, seen.repeated, seen.text());
                found
                    .problems
                    .push(format!("{response}: {missing} missing, {repeated} repeated: {seen:?} is not {reply:?}"));
            }
            found.streams += 1;
            self.done.fetch_add(1, Ordering::Relaxed);
        }
        Ok(found)
    }

    async fn stream(&self, conversation: &str, text: &str, found: &mut Found) -> anyhow::Result<Seen> {
        let key = format!("{conversation}-stream");
        let ask = Ask { conversation, model: MODEL, text, key: Some(&key) };
        let (mut seen, begun) = (Seen::default(), Instant::now());
        loop {
            let url = self.ready.pick().await;
            // What has not begun is sent again under its key; what has is read on.
            let resumes = seen.response.is_some();
            let mut through = Through { seen: &mut seen, url: &url, ready: &self.ready, counted: false };
            let end = match resumes {
                false => self.api.stream(&url, &ask, PATIENCE, &mut through).await,
                true => self.api.resume(&url, PATIENCE, &mut through).await,
            };
            drop(through);
            match end {
                Ok(End::Done) => return Ok(seen),
                Err(Answer::Refused { status, why }) if status < 500 && status != 429 => bail!("{status} {why}"),
                end if begun.elapsed() > TURN_MAX => bail!("a stream did not end: {end:?}"),
                end if self.ready.stays(&url) && seen.response.is_some() => {
                    found.problems.push(format!("a stream through {url}, which stayed, broke: {end:?}"));
                }
                _ => {}
            }
            found.resumed += usize::from(seen.response.is_some() && !resumes);
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// A read through a host that was lost is sent to another, as the one below.
    async fn kept(&self, conversation: &str) -> anyhow::Result<Vec<Stored>> {
        let begun = Instant::now();
        loop {
            match self.api.turns(&self.ready.pick().await, conversation, ATTEMPT_MAX).await {
                Err(_) if begun.elapsed() < TURN_MAX => tokio::time::sleep(PAUSE).await,
                read => return read,
            }
        }
    }

    async fn stored(&self, response: &str) -> anyhow::Result<Value> {
        let begun = Instant::now();
        loop {
            match self.api.response(&self.ready.pick().await, response).await {
                Err(_) if begun.elapsed() < TURN_MAX => tokio::time::sleep(PAUSE).await,
                read => return read,
            }
        }
    }
}
