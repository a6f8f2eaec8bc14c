//! Clients of a set of pods that never stop: half of them send turns under keys, half read streams, each through whichever pod
//! is ready. They send again and read on as any client would, and compare what they were told with what is kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::ready::{Ready, lock};
use crate::client::{Answer, Api, Ask, End, Patience, Seen, Tell, reply_of};
use crate::cluster::until;
use crate::failover::{MODEL, Plan};
use crate::history::Stored;

const CLIENTS: usize = 4;
/// Of each reply that is streamed: some 3 s.
pub const PLAN: Plan = Plan { streams: CLIENTS, words: 60, word_ms: 50 };
/// A pause between two turns of a client: this is a look at what is right, not at what is fast.
const PAUSE: Duration = Duration::from_millis(50);
/// Comments come every two seconds.
const PATIENCE: Patience = Patience { bytes: Duration::from_secs(6), events: Duration::from_secs(15) };
/// Of one attempt of a turn, and of all of them.
const ATTEMPT_MAX: Duration = Duration::from_secs(10);
const TURN_MAX: Duration = Duration::from_secs(60);

/// Clients that never stop: half send turns, half read streams.
pub struct Load {
    stop: watch::Sender<bool>,
    /// What each client has done so far.
    done: Vec<Arc<AtomicUsize>>,
    clients: JoinSet<anyhow::Result<Found>>,
}

#[derive(Debug, Default)]
pub struct Found {
    pub turns: usize,
    pub again: usize,
    pub streams: usize,
    pub resumed: usize,
    pub problems: Vec<String>,
}

/// One of them.
#[derive(Clone)]
pub struct User {
    pub number: usize,
    pub api: Api,
    pub ready: Arc<Ready>,
    pub stopped: watch::Receiver<bool>,
    pub done: Arc<AtomicUsize>,
}

impl Load {
    pub fn start(api: &Api, ready: &Arc<Ready>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let done: Vec<Arc<AtomicUsize>> = (0..2 * CLIENTS).map(|_| Arc::default()).collect();
        let mut clients = JoinSet::new();
        for (number, done) in done.iter().enumerate() {
            let (api, ready) = (api.clone(), ready.clone());
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
    pub async fn goes_on(&self, more: usize) -> anyhow::Result<()> {
        let goals: Vec<usize> = self.done.iter().map(|it| it.load(Ordering::Relaxed) + more).collect();
        until("every client goes on", async || {
            let behind = self.done.iter().zip(&goals).position(|(done, goal)| done.load(Ordering::Relaxed) < *goal);
            behind.map_or(Ok(()), |client| bail!("client {client} does not"))
        })
        .await
    }

    pub async fn stop(mut self) -> anyhow::Result<Found> {
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

/// A stream through a pod, counted from its first event on.
pub struct Through<'a> {
    pub seen: &'a mut Seen,
    pub url: &'a str,
    pub ready: &'a Ready,
    pub counted: bool,
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
