//! Turns of several clients through all nodes while one node is frozen or cut off, and what became of each of them.
//!
//! Used by the program `one-writer`, which does all disturbances over and over, and by the tests. What clients saw is
//! checked by [`history`](crate::history); what was called is compared with what the log has on record.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use klatch::stores;
use klatch_actors::reader::Reader;
use klatch_protocol::ConversationId;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::client::{Answer, Api, Ask, End, Patience, Seen};
use crate::cluster::ClusterProcesses;
use crate::history::{self, History, Outcome, Read, Turn};
use crate::model_server::ModelServer;
use crate::random::below;

/// The model of these turns: it says what it was told, word by word, and in other words at each call.
pub const MODEL: &str = "careful";
/// Before each word of a reply, so that most disturbances meet one.
const WORD_MS: u64 = 40;
/// One request waits no longer, and is then of unknown outcome, or sent again under its key.
const REQUEST_MAX: Duration = Duration::from_secs(5);
const STREAM_MAX: Patience = Patience { bytes: REQUEST_MAX, events: REQUEST_MAX };
/// Of half of the clients: they still listen when a frozen node thaws, and see what it has to say.
const STREAM_PATIENT: Patience = Patience { bytes: Duration::from_secs(20), events: Duration::from_secs(20) };
const READ_MAX: Duration = Duration::from_secs(3);
/// A keyed turn that has no answer after so long is a failure of the cluster, not of one node.
const TURN_MAX: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_millis(50);
const RESET_EVERY: Duration = Duration::from_millis(250);
/// Turns acknowledged before the disturbance, and after it.
const TURNS_BEFORE: u64 = 20;
const TURNS_AFTER: u64 = 20;
/// More than conversations, so that each has a running turn nearly always.
const CLIENTS: usize = 16;
/// Of the node that is disturbed, and of each other.
const CONVERSATIONS_OF_ITS_OWN: usize = 4;
const CONVERSATIONS_OF_OTHERS: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturbance {
    /// SIGSTOP, and SIGCONT after a while.
    Freeze,
    /// The node reaches everyone but Redis.
    NoRedis,
    /// The node reaches Redis and no other node.
    NoPeers,
    /// Two nodes reach everyone but each other.
    NoPair,
    /// What the node writes reaches Redis, and no answer comes back.
    Deaf,
    /// The node's connections to Redis break, again and again.
    Resets,
    /// Redis is killed, and started again after a while.
    RedisKilled,
}

impl Disturbance {
    pub const ALL: [(Self, &'static str); 7] = [
        (Self::Freeze, "freeze"),
        (Self::NoRedis, "no-redis"),
        (Self::NoPeers, "no-peers"),
        (Self::NoPair, "no-pair"),
        (Self::Deaf, "deaf"),
        (Self::Resets, "resets"),
        (Self::RedisKilled, "redis-killed"),
    ];

    /// Whether the node is declared dead by it, where it lasts long enough; none where it may be or not.
    fn kills(self) -> Option<bool> {
        match self {
            Self::Freeze | Self::NoRedis | Self::Deaf => Some(true),
            // It was in the table all the time, or the table was away for everyone.
            Self::NoPeers | Self::NoPair | Self::RedisKilled => Some(false),
            Self::Resets => None,
        }
    }
}

/// What was done, and all that is wrong with it.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub acknowledged: usize,
    pub unknown: usize,
    /// Acknowledged while the disturbance lasted.
    pub during: usize,
    pub reads: usize,
    pub calls: usize,
    pub attempts: usize,
    /// Turns that another owner took over.
    pub taken_over: usize,
    pub violations: Vec<String>,
}

/// Everything that clients and readers share.
struct Load {
    api: Api,
    urls: Vec<String>,
    conversations: Vec<String>,
    /// Begins the texts and keys of this run.
    name: String,
    begun: Instant,
    acknowledged: AtomicU64,
    progress: watch::Sender<u64>,
    stop: watch::Sender<bool>,
}

impl Load {
    /// In µs since the run began.
    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn node(&self) -> &str {
        &self.urls[below(self.urls.len())]
    }

    fn is_over(&self) -> bool {
        *self.stop.borrow()
    }

    /// Until so many turns more are acknowledged.
    async fn turns(&self, more: u64) -> anyhow::Result<()> {
        let goal = self.acknowledged.load(Ordering::SeqCst) + more;
        let mut progress = self.progress.subscribe();
        let waiting = tokio::time::timeout(TURN_MAX, progress.wait_for(|acknowledged| *acknowledged >= goal));
        waiting.await.with_context(|| format!("{more} turns were not acknowledged in a minute"))??;
        Ok(())
    }
}

/// The responder of these turns, as a section of the configuration.
pub fn responder(model: &ModelServer) -> String {
    format!(
        "[[responder]]\nname = \"{MODEL}\"\nkind = \"openai\"\nbase_url = \"{}\"\nmodel = \"slow:{WORD_MS},salted\"\n\
         continue = \"prefill\"\nretries = 0\nconcurrency = 1000\n",
        model.base_url()
    )
}

/// Disturbs the node for so long under load, and reports. Afterwards the cluster is whole.
pub async fn run(
    cluster: &mut ClusterProcesses,
    model: &ModelServer,
    api: &Api,
    disturbance: Disturbance,
    node: usize,
    lasts: Duration,
    name: &str,
) -> anyhow::Result<Report> {
    let mut conversations = Vec::new();
    for owner in 0..cluster.nodes.len() {
        let count = if owner == node { CONVERSATIONS_OF_ITS_OWN } else { CONVERSATIONS_OF_OTHERS };
        conversations.extend(cluster.owned_by(owner, api, count).await?);
    }
    let load = Arc::new(Load {
        api: api.clone(),
        urls: cluster.urls(),
        conversations,
        name: name.to_owned(),
        begun: Instant::now(),
        acknowledged: AtomicU64::new(0),
        progress: watch::channel(0).0,
        stop: watch::channel(false).0,
    });
    let (mut clients, mut readers) = (JoinSet::new(), JoinSet::new());
    for client in 0..CLIENTS {
        clients.spawn(send(load.clone(), client));
    }
    for reader in 0..cluster.nodes.len() {
        readers.spawn(read(load.clone(), reader));
    }
    load.turns(TURNS_BEFORE).await?;
    let from = load.now();
    disturb(cluster, disturbance, node, lasts).await?;
    let to = load.now();
    load.turns(TURNS_AFTER).await?;
    load.stop.send_replace(true);
    let mut histories = BTreeMap::<usize, History>::new();
    while let Some(sent) = clients.join_next().await {
        for (conversation, turn) in sent?? {
            histories.entry(conversation).or_default().turns.push(turn);
        }
    }
    while let Some(seen) = readers.join_next().await {
        for (conversation, read) in seen? {
            histories.entry(conversation).or_default().reads.push(read);
        }
    }
    last_reads(&load, &mut histories).await?;
    let mut report = summed(&histories, from, to);
    on_record(&mut report, cluster, model, &load, disturbance).await?;
    Ok(report)
}

/// One client's turns, each in some conversation through some node: half of them under a key, most of them streamed.
async fn send(load: Arc<Load>, client: usize) -> anyhow::Result<Vec<(usize, Turn)>> {
    let mut sent = Vec::new();
    for n in 0.. {
        if load.is_over() {
            break;
        }
        let conversation = below(load.conversations.len());
        let text = format!("{} client {client} says {n}", load.name);
        let key = (n % 2 == 0).then(|| text.replace(' ', "-"));
        let patience = if client.is_multiple_of(2) { STREAM_MAX } else { STREAM_PATIENT };
        let streamed = (n % 4 != 0).then_some(patience);
        let turn = one_turn(&load, conversation, text, key.as_deref(), streamed).await?;
        if let Outcome::Acknowledged { .. } = turn.outcome {
            let acknowledged = load.acknowledged.fetch_add(1, Ordering::SeqCst) + 1;
            load.progress.send_replace(acknowledged);
        }
        sent.push((conversation, turn));
    }
    Ok(sent)
}

/// Sends a turn: under a key until it is answered, without one once.
async fn one_turn(
    load: &Load,
    conversation: usize,
    text: String,
    key: Option<&str>,
    streamed: Option<Patience>,
) -> anyhow::Result<Turn> {
    let mut turn = Turn { text: text.clone(), invoked: load.now(), outcome: Outcome::Unknown, shown: Vec::new() };
    let ask = Ask { conversation: &load.conversations[conversation], model: MODEL, text: &text, key };
    let begun = Instant::now();
    loop {
        let answer = match streamed {
            Some(patience) => {
                let (answer, shown) = by_stream(load, &ask, patience).await;
                turn.shown.push(shown);
                answer
            }
            None => load.api.turn(load.node(), &ask, REQUEST_MAX).await,
        };
        match answer {
            Answer::Completed { reply } => {
                turn.outcome = Outcome::Acknowledged { at: load.now(), reply };
                return Ok(turn);
            }
            Answer::Ended { status } => bail!("{text:?} ended {status}"),
            // Too many: nothing was accepted, and the same key may be sent again.
            Answer::Refused { status: 429, .. } if key.is_none() => {
                turn.outcome = Outcome::Refused;
                return Ok(turn);
            }
            Answer::Refused { status, why } if status < 500 && status != 429 => {
                bail!("{text:?} was refused: {status} {why}")
            }
            Answer::Refused { .. } | Answer::Nothing => {}
        }
        if key.is_none() {
            return Ok(turn);
        }
        ensure!(begun.elapsed() < TURN_MAX, "{text:?} had no answer in a minute");
        tokio::time::sleep(AGAIN).await;
    }
}

/// Reads a turn's stream, on at other nodes where it breaks off. Says too what was shown of the reply.
async fn by_stream(load: &Load, ask: &Ask<'_>, patience: Patience) -> (Answer, String) {
    let mut seen = Seen::default();
    let begun = Instant::now();
    let mut end = load.api.stream(load.node(), ask, patience, &mut seen).await;
    loop {
        match end {
            Ok(End::Done) => break,
            Err(refused) if seen.response.is_none() => return (refused, String::new()),
            Ok(End::Cut | End::Silent) | Err(_) => {}
        }
        if seen.response.is_none() || begun.elapsed() > TURN_MAX {
            return (Answer::Nothing, seen.text());
        }
        tokio::time::sleep(AGAIN).await;
        end = load.api.resume(load.node(), patience, &mut seen).await;
    }
    let answer = match seen.ended.as_deref() {
        _ if seen.missing + seen.repeated > 0 => {
            Answer::Ended { status: format!("with {} events missing, {} repeated", seen.missing, seen.repeated) }
        }
        Some("response.completed") => Answer::Completed { reply: seen.text() },
        ended => Answer::Ended { status: format!("by stream: {ended:?}") },
    };
    (answer, seen.text())
}

/// Reads conversations through one node, again and again.
async fn read(load: Arc<Load>, node: usize) -> Vec<(usize, Read)> {
    let mut reads = Vec::new();
    while !load.is_over() {
        let conversation = below(load.conversations.len());
        if let Ok(read) = one_read(&load, conversation, node).await {
            reads.push((conversation, read));
        }
        tokio::time::sleep(AGAIN).await;
    }
    reads
}

async fn one_read(load: &Load, conversation: usize, node: usize) -> anyhow::Result<Read> {
    let invoked = load.now();
    let turns = load.api.turns(&load.urls[node], &load.conversations[conversation], READ_MAX).await?;
    Ok(Read { reader: format!("node {node} at {} ms", invoked / 1_000), invoked, answered: load.now(), turns })
}

/// Every conversation through every node, when nobody writes any more: turns that are still open end first.
async fn last_reads(load: &Load, histories: &mut BTreeMap<usize, History>) -> anyhow::Result<()> {
    for (conversation, history) in histories.iter_mut() {
        let id = &load.conversations[*conversation];
        // Behind all that may be open stands one more turn.
        let text = format!("{} ends {conversation}", load.name);
        let key = text.replace(' ', "-");
        let turn = one_turn(load, *conversation, text, Some(&key), None).await?;
        ensure!(matches!(turn.outcome, Outcome::Acknowledged { .. }), "the last turn of {id} was not acknowledged");
        history.turns.push(turn);
        for node in 0..load.urls.len() {
            history.reads.push(one_read(load, *conversation, node).await.context("a last read")?);
        }
    }
    Ok(())
}

async fn disturb(
    cluster: &mut ClusterProcesses,
    disturbance: Disturbance,
    node: usize,
    lasts: Duration,
) -> anyhow::Result<()> {
    let other = (node + 1) % cluster.nodes.len();
    let before = cluster.incarnation(node).await?;
    match disturbance {
        Disturbance::Freeze => cluster.nodes[node].freeze().await?,
        Disturbance::NoRedis => cluster.cut_from_redis(node)?,
        Disturbance::NoPeers => cluster.cut_from_peers(node)?,
        Disturbance::NoPair => cluster.cut_between(node, other)?,
        Disturbance::Deaf => cluster.deafen_to_redis(node)?,
        Disturbance::Resets => cluster.reset_redis(node)?,
        Disturbance::RedisKilled => cluster.redis.kill().await?,
    }
    // How long it lasts is what is tried; nothing is waited for.
    let until = Instant::now() + lasts;
    while Instant::now() < until {
        tokio::time::sleep(RESET_EVERY.min(until - Instant::now())).await;
        if disturbance == Disturbance::Resets {
            cluster.reset_redis(node)?;
        }
    }
    match disturbance {
        Disturbance::Freeze => cluster.nodes[node].thaw().await?,
        Disturbance::RedisKilled => cluster.redis.restart().await?,
        _ => cluster.heal()?,
    }
    cluster.formed().await?;
    let after = cluster.incarnation(node).await?;
    match disturbance.kills() {
        Some(true) => ensure!(after > before, "node {node} was silent for {lasts:?} and is the same life"),
        Some(false) => ensure!(after == before, "node {node} was declared dead"),
        None => {}
    }
    Ok(())
}

fn summed(histories: &BTreeMap<usize, History>, from: u64, to: u64) -> Report {
    let mut report = Report::default();
    for (conversation, history) in histories {
        report.reads += history.reads.len();
        for turn in &history.turns {
            match turn.outcome {
                Outcome::Acknowledged { at, .. } => {
                    report.acknowledged += 1;
                    report.during += usize::from((from..to).contains(&at));
                }
                Outcome::Unknown => report.unknown += 1,
                Outcome::Refused => {}
            }
        }
        let violations = history::check(history);
        report
            .violations
            .extend(violations.iter().map(|violation| format!("conversation {conversation}: {violation}")));
    }
    report
}

/// Every call of the model has a record of its own in the log; and of each turn at most one more was made than it
/// needed, since one node was disturbed once.
async fn on_record(
    report: &mut Report,
    cluster: &ClusterProcesses,
    model: &ModelServer,
    load: &Load,
    disturbance: Disturbance,
) -> anyhow::Result<()> {
    let store = stores::open(&cluster.redis.url(), &Default::default()).await?.store;
    let reader = Reader::new(store);
    let calls = model.calls();
    for (conversation, id) in load.conversations.iter().enumerate() {
        let id: ConversationId = id.parse()?;
        let state = Arc::new(reader.state(id).await?);
        for n in 0..state.next_turn {
            let turn = reader.turn(id, &state, n).await?.with_context(|| format!("turn {n} of {id} is not there"))?;
            let text: String = turn.accepted.input.iter().map(|item| item.body.text()).collect();
            let called = calls.iter().filter(|call| call.user == text).count();
            report.calls += called;
            report.attempts += turn.attempts.len();
            report.taken_over += usize::from(turn.attempts.len() > 1);
            let mut wrong = |what: String| report.violations.push(format!("conversation {conversation}: {what}"));
            if called > turn.attempts.len() {
                wrong(format!("{called} calls for {text:?}, and {} on record", turn.attempts.len()));
            }
            if turn.attempts.len() > 2 && disturbance.kills().is_some() {
                wrong(format!("{text:?} was taken over more than once: {:?}", turn.attempts));
            }
            if turn.outcome.is_none() {
                wrong(format!("{text:?} is still open"));
            }
        }
    }
    Ok(())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acknowledged, unknown, during, reads, calls, attempts, taken_over, violations } = self;
        write!(
            f,
            "{acknowledged} turns acknowledged ({during} meanwhile), {unknown} unknown, {reads} reads; {calls} calls, \
             {attempts} on record, {taken_over} turns taken over; {} violations",
            violations.len()
        )
    }
}

impl FromStr for Disturbance {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let named = Self::ALL.iter().find(|(_, name)| *name == text);
        let names = || Self::ALL.map(|(_, name)| name).join(", ");
        named.map(|(it, _)| *it).with_context(|| format!("there is no disturbance {text}: {} there are", names()))
    }
}

impl fmt::Display for Disturbance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Self::ALL.iter().find(|(it, _)| it == self);
        f.write_str(named.map_or("?", |(_, name)| name))
    }
}
