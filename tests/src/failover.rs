//! One round of a failover: many streams whose conversations one node owns run through all nodes, that node dies in the
//! middle, and what the clients saw is compared with what is stored, token by token.
//!
//! Used by the program `failover`, which repeats it, and by the tests, which do it once. Counts and times; judges nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::client::{Answer, Api, Ask, End, Patience, Seen, Tell, reply_of};
use crate::cluster::ClusterProcesses;
use crate::model_server::{CallRecord, ModelServer};
use crate::random::below;

/// The model of these rounds: it says what it was told, in other words at each call.
pub const MODEL: &str = "slow";
/// A stream through a node that is silent is left, and read on elsewhere: the nodes' comments are one second apart.
const PATIENT: Patience = Patience { bytes: Duration::from_secs(5), events: Duration::from_secs(60) };
/// Of clients of the node that dies: it may be there still, and know nothing new.
const OWN: Patience = Patience { events: Duration::from_secs(5), ..PATIENT };
/// Of a stream's whole life.
const ROUND_MAX: Duration = Duration::from_secs(90);
/// Tokens that every stream has before the node may die.
const TOKENS_BEFORE: usize = 3;
/// Of each side of a difference.
const WORDS_SHOWN: usize = 8;

/// How a node dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Death {
    /// SIGKILL: its port refuses connections, and everyone is told.
    Kill,
    /// SIGSTOP: it keeps its connections and says nothing.
    Stop,
    /// Nothing passes between it and anybody any more; it lives.
    Cut,
    /// Process, address and cable are gone at once: nobody is told.
    Vanish,
}

#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub streams: usize,
    /// Words of each reply, and the time before each.
    pub words: usize,
    pub word_ms: u64,
}

/// What a round found.
#[derive(Clone, Debug, Default)]
pub struct Round {
    /// The longest pause that each stream through another node saw.
    pub gaps: Vec<Duration>,
    /// The same of streams through the node that died, which had to resume.
    pub gaps_of_own: Vec<Duration>,
    /// Tokens that a client missed, got twice, or got differently from what is stored.
    pub lost: u64,
    pub repeated: u64,
    pub contradicted: u64,
    /// Streams of other nodes that did not go on by themselves.
    pub broken: u64,
    /// Calls that began a reply again of which something had been shown.
    pub begun_again: u64,
    /// Calls that went on behind what had been shown.
    pub continued: u64,
}

/// One stream of a round.
struct Told {
    conversation: String,
    text: String,
    through: usize,
    patience: Patience,
    seen: Seen,
    /// It broke off, and was read on at another node.
    resumed: bool,
}

/// Reports how many tokens a stream has.
struct Watched {
    seen: Seen,
    tokens: watch::Sender<usize>,
}

impl Tell for Watched {
    fn seen(&mut self) -> &mut Seen {
        &mut self.seen
    }

    fn changed(&mut self) {
        self.tokens.send_replace(self.seen.pieces.len());
    }
}

impl Round {
    pub fn is_clean(&self) -> bool {
        self.lost + self.repeated + self.contradicted + self.broken + self.begun_again == 0
    }

    pub fn add(&mut self, other: Self) {
        self.gaps.extend(other.gaps);
        self.gaps_of_own.extend(other.gaps_of_own);
        self.lost += other.lost;
        self.repeated += other.repeated;
        self.contradicted += other.contradicted;
        self.broken += other.broken;
        self.begun_again += other.begun_again;
        self.continued += other.continued;
    }
}

/// The responder of the rounds, as a section of the configuration.
pub fn responder(model: &ModelServer, plan: Plan) -> String {
    format!(
        "[[responder]]\nname = \"{MODEL}\"\nkind = \"openai\"\nbase_url = \"{}\"\nmodel = \"slow:{},salted\"\n\
         continue = \"prefill\"\nretries = 0\nconcurrency = 1000\n",
        model.base_url(),
        plan.word_ms
    )
}

/// Lets the node die in the middle of its conversations' streams, and says what became of them. Afterwards the node is
/// back.
pub async fn round(
    cluster: &mut ClusterProcesses,
    model: &ModelServer,
    api: &Api,
    plan: Plan,
    death: Death,
    victim: usize,
    name: &str,
) -> anyhow::Result<Round> {
    let before = cluster.incarnation(victim).await?;
    let conversations = cluster.owned_by(victim, api, plan.streams).await?;
    let mut streams = JoinSet::new();
    let mut tokens = Vec::new();
    for (n, conversation) in conversations.into_iter().enumerate() {
        let through = n % cluster.nodes.len();
        let text = words(&format!("{name}s{n}"), plan.words);
        let (sender, receiver) = watch::channel(0);
        tokens.push(receiver);
        let patience = if through == victim { OWN } else { PATIENT };
        let told = Told { conversation, text, through, patience, seen: Seen::default(), resumed: false };
        let others =
            (0..cluster.nodes.len()).filter(|node| *node != victim).map(|node| cluster.nodes[node].url.clone());
        let reading = read(api.clone(), cluster.nodes[through].url.clone(), others.collect(), told, sender);
        streams.spawn(tokio::time::timeout(ROUND_MAX, reading));
    }
    middle(&mut tokens, plan.words).await?;
    die(cluster, death, victim).await?;
    let mut round = Round::default();
    let mut all = Vec::new();
    while let Some(ended) = streams.join_next().await {
        all.push(ended?.context("a stream did not end")??);
    }
    let edge = (victim + 1) % cluster.nodes.len();
    for told in &all {
        compare(&mut round, told, api, &cluster.nodes[edge].url, victim).await?;
    }
    asked(&mut round, &all, &model.calls());
    revive(cluster, death, victim, before).await?;
    Ok(round)
}

/// Words that no other stream has.
fn words(of: &str, count: usize) -> String {
    (0..count).map(|n| format!("{of}w{n}")).collect::<Vec<_>>().join(" ")
}

/// Reads the stream to its end: where it breaks off, on at another node.
async fn read(
    api: Api,
    url: String,
    others: Vec<String>,
    mut told: Told,
    tokens: watch::Sender<usize>,
) -> anyhow::Result<Told> {
    let mut watched = Watched { seen: Seen::default(), tokens };
    let ask = Ask { conversation: &told.conversation, model: MODEL, text: &told.text, key: None };
    let mut end = api.stream(&url, &ask, told.patience, &mut watched).await;
    for n in 0.. {
        match end {
            Ok(End::Done) => break,
            Err(Answer::Refused { status, why }) if status < 500 => bail!("a stream was refused: {status} {why}"),
            Ok(End::Cut | End::Silent) | Err(_) => {}
        }
        ensure!(watched.seen.response.is_some(), "a stream ended before it began: {end:?}");
        if told.resumed {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        told.resumed = true;
        end = api.resume(&others[n % others.len()], told.patience, &mut watched).await;
    }
    told.seen = watched.seen;
    Ok(told)
}

/// Until every stream has begun, and one of them is at a place that has to do with nothing.
async fn middle(tokens: &mut [watch::Receiver<usize>], words: usize) -> anyhow::Result<()> {
    let until = TOKENS_BEFORE + below(words / 2);
    let waiting = async {
        for one in tokens.iter_mut() {
            one.wait_for(|tokens| *tokens >= TOKENS_BEFORE).await?;
        }
        let one = below(tokens.len());
        tokens[one].wait_for(|tokens| *tokens >= until).await?;
        anyhow::Ok(())
    };
    tokio::time::timeout(ROUND_MAX, waiting).await.context("the streams did not begin")?.context("a stream ended early")
}

async fn die(cluster: &mut ClusterProcesses, death: Death, victim: usize) -> anyhow::Result<()> {
    match death {
        Death::Kill => cluster.nodes[victim].kill().await,
        Death::Stop => cluster.nodes[victim].freeze().await,
        Death::Cut => cluster.cut_off(victim),
        Death::Vanish => cluster.vanish(victim).await,
    }
}

/// The node is back in another life, and everyone sees it.
async fn revive(cluster: &mut ClusterProcesses, death: Death, victim: usize, before: u64) -> anyhow::Result<()> {
    let other = (victim + 1) % cluster.nodes.len();
    cluster.gone(other, victim, before).await?;
    cluster.heal()?;
    match death {
        Death::Kill | Death::Vanish => cluster.nodes[victim].restart().await?,
        Death::Stop => cluster.nodes[victim].thaw().await?,
        Death::Cut => {}
    }
    cluster.formed().await?;
    let after = cluster.incarnation(victim).await?;
    ensure!(after > before, "node {victim} came back as the same life");
    Ok(())
}

async fn compare(round: &mut Round, told: &Told, api: &Api, url: &str, victim: usize) -> anyhow::Result<()> {
    let response = told.seen.response.as_deref().context("a stream names its response")?;
    let stored = api.response(url, response).await?;
    let (status, reply) = (&stored["status"], reply_of(&stored));
    ensure!(*status == "completed", "response {response} of {} ended {stored}", told.conversation);
    ensure!(unsalted(&reply) == format!("You said: {}", told.text), "{response} is not what its model says: {reply:?}");
    let seen = &told.seen;
    let tokens: Vec<&str> = seen.pieces.iter().map(|piece| piece.text.as_str()).collect();
    let counted = differences(&tokens, &reply);
    if counted != (0, 0, 0) || seen.missing + seen.repeated > 0 {
        let place = seen.text().split(' ').zip(reply.split(' ')).take_while(|(seen, stored)| seen == stored).count();
        let from = |text: &str| text.split(' ').skip(place).take(WORDS_SHOWN).collect::<Vec<_>>().join(" ");
        eprintln!(
            "{response} through node {}: at word {place} was shown {:?} and is stored {:?}",
            told.through,
            from(&seen.text()),
            from(&reply)
        );
    }
    round.lost += counted.0 + seen.missing;
    round.repeated += counted.1 + seen.repeated;
    round.contradicted += counted.2;
    if told.through == victim {
        round.gaps_of_own.push(seen.longest_gap());
    } else {
        round.gaps.push(seen.longest_gap());
        if told.resumed || seen.ended.as_deref() != Some("response.completed") {
            eprintln!("{response} through node {} did not go on by itself: {:?}", told.through, seen.ended);
            round.broken += 1;
        }
    }
    Ok(())
}

/// The reply without the marks of its calls.
fn unsalted(reply: &str) -> String {
    let words = reply.split(' ').map(|word| word.split_once('~').map_or(word, |(word, _)| word));
    words.collect::<Vec<_>>().join(" ")
}

/// How many tokens of the reply are missing among those that were seen, how many came twice, and how many are not its.
fn differences(seen: &[&str], reply: &str) -> (u64, u64, u64) {
    if seen.concat() == reply {
        return (0, 0, 0);
    }
    let stored: BTreeSet<&str> = reply.split_inclusive(' ').collect();
    let text = seen.concat();
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    text.split_inclusive(' ').for_each(|word| *counts.entry(word).or_default() += 1);
    let lost = stored.iter().filter(|word| !counts.contains_key(*word)).count() as u64;
    let repeated = counts.values().map(|count| count - 1).sum();
    let others = counts.keys().filter(|word| !stored.contains(*word)).count() as u64;
    // The right words in another order contradict too.
    let contradicted = if lost + repeated + others == 0 { 1 } else { others };
    (lost, repeated, contradicted)
}

/// Looks at the model's calls: each after the first goes on behind what had been said.
fn asked(round: &mut Round, all: &[Told], calls: &[CallRecord]) {
    for told in all {
        let again = calls.iter().filter(|call| call.user == told.text).skip(1);
        for call in again {
            let last = call.body["messages"].as_array().and_then(|messages| messages.last());
            let partial = last.filter(|last| last["role"] == "assistant").and_then(|last| last["content"].as_str());
            let goes_on = call.body["continue_final_message"] == true
                && partial.is_some_and(|partial| told.seen.text().starts_with(partial) && !partial.is_empty());
            if goes_on {
                round.continued += 1;
            } else {
                eprintln!("the model was asked to begin again: {}", call.body);
                round.begun_again += 1;
            }
        }
    }
}

impl FromStr for Death {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        Ok(match text {
            "kill" => Self::Kill,
            "stop" => Self::Stop,
            "cut" => Self::Cut,
            "vanish" => Self::Vanish,
            _ => bail!("there is no death {text}: kill, stop, cut and vanish there are"),
        })
    }
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "kill",
            Self::Stop => "stop",
            Self::Cut => "cut",
            Self::Vanish => "vanish",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_difference_is_counted() {
        let reply = "a b c d";
        assert_eq!(differences(&["a ", "b ", "c ", "d"], reply), (0, 0, 0));
        assert_eq!(differences(&["a b c d"], reply), (0, 0, 0), "pieces may be joined");
        assert_eq!(differences(&["a ", "c ", "d"], reply), (1, 0, 0));
        assert_eq!(differences(&["a ", "b ", "b ", "c ", "d"], reply), (0, 1, 0));
        assert_eq!(differences(&["a ", "b ", "x ", "d"], reply), (1, 0, 1));
        assert_eq!(differences(&["b ", "a ", "c ", "d"], reply), (0, 0, 1));
    }

    #[test]
    fn a_death_is_read_as_it_is_written() {
        for death in [Death::Kill, Death::Stop, Death::Cut, Death::Vanish] {
            assert_eq!(death.to_string().parse::<Death>().unwrap(), death);
        }
        assert!("boredom".parse::<Death>().is_err());
    }
}
