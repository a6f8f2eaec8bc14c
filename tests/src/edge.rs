//! Load through NGINX, and what is done meanwhile to that which stands behind it: nodes are killed, nodes are restarted one
//! after the other, NGINX is reloaded. Each client counts what failed, and in the end each conversation is read and compared
//! with what was said in it.
//!
//! Used by the program `edge` and by the tests. Judges nothing but what must hold always: a turn happened once, and its stream
//! told what is stored.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use reqwest::ClientBuilder;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::client::{Answer, Api, Ask, End, Patience, Seen};
use crate::cluster::{ClusterProcesses, ClusterSettings, Links};
use crate::nginx::Nginx;

/// Says each word after a pause, so that turns are in flight whenever something happens.
const MODEL: &str = "wordy";
const RESPONDER: &str = "[[responder]]\nname = \"wordy\"\nkind = \"echo\"\ndelay_ms = 20\ntoken_delay_ms = 20\n";
/// As behind a balancer: see nginx/klatch/proxy.conf.
const BEHIND_NGINX: &str = "trust_forwarded_for = true\ndrain_lag = \"25s\"\n";

/// A failover takes two seconds; whoever waits for so long waits in vain.
const TURN_MAX: Duration = Duration::from_secs(60);
const PATIENT: Patience = Patience { bytes: Duration::from_secs(30), events: TURN_MAX };
/// Between two requests of a client: all clients share an address, and NGINX lets it have 200 requests a second.
const PAUSE: Duration = Duration::from_millis(50);
const TURNS_OF_A_CONVERSATION: usize = 20;
const WORDS: usize = 6;
/// A stream that is cut is read on so often, each time after a pause.
const RESUMED_MAX: usize = 50;
const LOAD_MAX: Duration = Duration::from_secs(600);

/// What the clients of a load saw.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub requests: u64,
    pub turns: u64,
    /// Turns that were told as a stream.
    pub streams: u64,
    /// Of all turns: those that had a key.
    pub keyed: u64,
    /// Requests that had no good answer, each with what it was.
    pub failed: Vec<String>,
    /// Streams that broke off, and were read on by another request.
    pub resumed: u64,
    /// Requests whose connection broke before an answer began, and that were sent once more, as every SDK does. NGINX closes
    /// idle connections when it is reloaded, and a request may just be on its way.
    pub asked_again: u64,
    /// Turns that are stored twice, or not at all, or that were told differently.
    pub wrong: Vec<String>,
}

/// Clients that ask without end.
pub struct Load {
    stop: watch::Sender<bool>,
    requests: watch::Receiver<u64>,
    clients: JoinSet<anyhow::Result<Outcome>>,
}

/// One client, and the conversation that it is in.
struct Client {
    name: String,
    api: Api,
    url: String,
    stopped: watch::Receiver<bool>,
    requests: Arc<watch::Sender<u64>>,
    outcome: Outcome,
}

/// Three nodes that know that NGINX stands before them, and NGINX.
pub async fn start() -> anyhow::Result<(ClusterProcesses, Nginx)> {
    let (limits, sections) = ("keep_alive = \"1s\"".to_owned(), RESPONDER.to_owned());
    let settings = ClusterSettings { nodes: 3, links: Links::Direct, limits, sections };
    let cluster = ClusterProcesses::start_with(settings, BEHIND_NGINX).await?;
    let nginx = Nginx::start(&cluster.urls()).await?;
    Ok((cluster, nginx))
}

impl Load {
    /// Each client has connections of its own; every second one speaks HTTP/1.1.
    pub async fn start(cluster: &ClusterProcesses, nginx: &Nginx, clients: usize) -> anyhow::Result<Self> {
        let token = cluster.nodes[0].token("ann", "default").await?;
        let (stop, stopped) = watch::channel(false);
        let (sender, requests) = watch::channel(0);
        let sender = Arc::new(sender);
        let mut load = Self { stop, requests, clients: JoinSet::new() };
        for n in 0..clients {
            let builder = nginx.client()?;
            let builder = if n % 2 == 0 { builder } else { ClientBuilder::http1_only(builder) };
            let client = Client {
                name: format!("c{n}"),
                api: Api::over(builder.build()?, token.clone()),
                url: nginx.url.clone(),
                stopped: stopped.clone(),
                requests: sender.clone(),
                outcome: Outcome::default(),
            };
            load.clients.spawn(client.run());
        }
        Ok(load)
    }

    pub fn requests(&self) -> u64 {
        *self.requests.borrow()
    }

    /// Until so many requests were answered.
    pub async fn reached(&mut self, requests: u64) -> anyhow::Result<()> {
        let reached = self.requests.wait_for(|so_far| *so_far >= requests);
        tokio::time::timeout(LOAD_MAX, reached)
            .await
            .context("too few requests were answered")?
            .context("no client")?;
        Ok(())
    }

    /// What all of them saw, once each has finished what it does.
    pub async fn stop(mut self) -> anyhow::Result<Outcome> {
        self.stop.send_replace(true);
        let mut all = Outcome::default();
        while let Some(ended) = self.clients.join_next().await {
            all.add(ended??);
        }
        Ok(all)
    }
}

/// Each node in turn is killed in the middle of the load and comes back, so often.
pub async fn kills(cluster: &mut ClusterProcesses, load: &mut Load, kills: usize) -> anyhow::Result<()> {
    for n in 0..kills {
        let (victim, other) = (n % cluster.nodes.len(), (n + 1) % cluster.nodes.len());
        load.reached(load.requests() + 100).await?;
        let life = cluster.incarnation(victim).await?;
        cluster.nodes[victim].kill().await?;
        cluster.gone(other, victim, life).await?;
        cluster.nodes[victim].restart().await?;
        cluster.formed().await?;
    }
    load.reached(load.requests() + 100).await
}

/// Each node in turn is told to stop, and started again, while the load goes on.
pub async fn rolling(cluster: &mut ClusterProcesses, load: &mut Load) -> anyhow::Result<()> {
    for n in 0..cluster.nodes.len() {
        load.reached(load.requests() + 100).await?;
        let code = cluster.nodes[n].terminate().await?;
        ensure!(code == 0, "node {n} ended with {code}");
        cluster.nodes[n].restart().await?;
        cluster.formed().await?;
    }
    load.reached(load.requests() + 100).await
}

/// NGINX is reloaded so often, each time in the middle of the load's streams.
pub async fn reloads(nginx: &Nginx, load: &mut Load, reloads: usize) -> anyhow::Result<()> {
    for _ in 0..reloads {
        load.reached(load.requests() + 100).await?;
        let before = nginx.workers()?;
        nginx.reload()?;
        crate::cluster::until("the workers are new ones", async || {
            let now = nginx.workers()?;
            ensure!(!now.is_empty() && now.iter().all(|id| !before.contains(id)), "workers {now:?} were {before:?}");
            Ok(())
        })
        .await?;
    }
    load.reached(load.requests() + 100).await
}

/// Requests that NGINX sent to a second node.
pub fn tried_again(nginx: &Nginx) -> anyhow::Result<usize> {
    let log = nginx.log()?;
    Ok(log.iter().filter(|line| line["upstream"].as_str().is_some_and(|nodes| nodes.contains(", "))).count())
}

impl Client {
    async fn run(mut self) -> anyhow::Result<Outcome> {
        let mut said: Vec<(String, Vec<String>)> = Vec::new();
        let mut n = 0;
        while !*self.stopped.borrow() {
            let Some(conversation) = self.create().await else { continue };
            let mut texts = Vec::new();
            while texts.len() < TURNS_OF_A_CONVERSATION && !*self.stopped.borrow() {
                let text = (0..WORDS).map(|word| format!("{}n{n}w{word}", self.name)).collect::<Vec<_>>().join(" ");
                let key = (n % 2 == 1).then(|| format!("{}-{n}", self.name));
                let well = self.turn(&conversation, &text, key.as_deref(), n % 4 >= 2).await;
                n += 1;
                // It may have happened or not: what else is there says nothing of the others.
                if !well {
                    break;
                }
                texts.push(text);
                tokio::time::sleep(PAUSE).await;
            }
            said.push((conversation, texts));
        }
        for (conversation, texts) in said {
            self.compare(&conversation, &texts).await?;
        }
        Ok(self.outcome)
    }

    fn counted(&mut self) {
        self.outcome.requests += 1;
        self.requests.send_modify(|requests| *requests += 1);
    }

    async fn create(&mut self) -> Option<String> {
        let mut created = self.api.create(&self.url).await;
        let broken =
            |error: &anyhow::Error| error.downcast_ref::<reqwest::Error>().is_some_and(|it| it.status().is_none());
        if created.as_ref().is_err_and(broken) {
            self.outcome.asked_again += 1;
            created = self.api.create(&self.url).await;
        }
        self.counted();
        match created {
            Ok(conversation) => Some(conversation),
            Err(error) => {
                self.outcome.failed.push(format!("create: {error:#}"));
                None
            }
        }
    }

    /// Whether it was answered well.
    async fn turn(&mut self, conversation: &str, text: &str, key: Option<&str>, stream: bool) -> bool {
        let ask = Ask { conversation, model: MODEL, text, key };
        let failure = if stream { self.stream(&ask).await } else { self.plain(&ask).await };
        self.counted();
        self.outcome.turns += 1;
        self.outcome.keyed += u64::from(key.is_some());
        self.outcome.streams += u64::from(stream);
        let (key, stream) = (if key.is_some() { "keyed" } else { "unkeyed" }, if stream { " stream" } else { "" });
        let well = failure.is_none();
        self.outcome.failed.extend(failure.map(|failure| format!("{key}{stream} turn: {failure}")));
        well
    }

    async fn plain(&mut self, ask: &Ask<'_>) -> Option<String> {
        let mut answer = self.api.turn(&self.url, ask, TURN_MAX).await;
        if answer == Answer::Nothing {
            self.outcome.asked_again += 1;
            answer = self.api.turn(&self.url, ask, TURN_MAX).await;
        }
        match answer {
            Answer::Completed { reply } if reply == ask.text => None,
            answer => Some(format!("{answer:?}")),
        }
    }

    async fn stream(&mut self, ask: &Ask<'_>) -> Option<String> {
        let mut seen = Seen::default();
        let mut end = self.api.stream(&self.url, ask, PATIENT, &mut seen).await;
        if end == Err(Answer::Nothing) {
            self.outcome.asked_again += 1;
            end = self.api.stream(&self.url, ask, PATIENT, &mut seen).await;
        }
        for resumed in 0.. {
            let broke_off = matches!(end, Ok(End::Cut | End::Silent)) || (resumed > 0 && end.is_err());
            if !broke_off || seen.response.is_none() || resumed == RESUMED_MAX {
                break;
            }
            self.outcome.resumed += u64::from(resumed == 0);
            tokio::time::sleep(PAUSE).await;
            end = self.api.resume(&self.url, PATIENT, &mut seen).await;
        }
        if end != Ok(End::Done) || seen.ended.as_deref() != Some("response.completed") {
            return Some(format!("{end:?} after {:?}", seen.ended));
        }
        if seen.text() != ask.text || seen.missing + seen.repeated > 0 {
            self.outcome.wrong.push(format!("{:?} was told as {seen:?}", ask.text));
        }
        None
    }

    /// What is stored begins with all that was answered well, once each; at its end may be what failed.
    async fn compare(&mut self, conversation: &str, texts: &[String]) -> anyhow::Result<()> {
        let stored = self.api.turns(&self.url, conversation, TURN_MAX).await?;
        let well = stored.iter().zip(texts).all(|(turn, text)| turn.text == *text && turn.reply == *text);
        if !well || stored.len() < texts.len() || stored.len() > texts.len() + 1 {
            let stored: Vec<&str> = stored.iter().map(|turn| turn.text.as_str()).collect();
            self.outcome.wrong.push(format!("{conversation} holds {stored:?}, and was told {texts:?}"));
        }
        Ok(())
    }
}

impl Outcome {
    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.turns += other.turns;
        self.streams += other.streams;
        self.keyed += other.keyed;
        self.failed.extend(other.failed);
        self.resumed += other.resumed;
        self.asked_again += other.asked_again;
        self.wrong.extend(other.wrong);
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, turns, streams, keyed, failed, resumed, asked_again, wrong } = self;
        write!(
            f,
            "{requests} requests, of them {turns} turns ({keyed} with a key, {streams} as streams): {} failed, {} wrong, \
             {resumed} streams resumed, {asked_again} requests sent again by their client",
            failed.len(),
            wrong.len()
        )?;
        failed.iter().chain(wrong).take(20).try_for_each(|line| write!(f, "\n    {line}"))
    }
}
