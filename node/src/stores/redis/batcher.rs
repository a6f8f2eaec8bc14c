//! The one writer of a lane: takes all that waits, sends it as one pipeline, with one wait for the replicas behind it,
//! and answers everybody.
//!
//! A task that the lane starts, and ends. It owns its connection and replaces it when anything about it is doubtful: an
//! error of the network, no answer in time, a server that is no master any more. Each connection has a number, and on
//! each an entry is sent only after the log was seen to end with its owner's last one. What was sent and not answered is
//! unknown; what waits between two connections is refused.
//!
//! What the replicas have not got in time stays pending: a later wait on the same connection covers it. On another
//! connection it would not, so there it is unknown. Nor would it on the same one if the server was a replica of another
//! meanwhile and forgot the entry; so before what was sent a while ago is acknowledged, the server is asked whether its
//! history is still the one that the connection began with.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ::redis::aio::MultiplexedConnection;
use ::redis::{Pipeline, RedisError, Value, cmd, pipe};
use futures::FutureExt;
use klatch_actors::store::goes_on;
use klatch_protocol::ConversationId;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::connect::{Connected, Manner, Target, history, must_be_master};
use super::job::{Fence, Job, Kind, Reply};
use super::keys::Keys;
use super::lane::{Link, Shared, WAITING_MAX};
use super::options::RedisOptions;
use super::replies::{Meaning, meaning};
use super::{read, scripts};
use crate::stores::metrics::Lanes;

/// Jobs of one batch at most: more only make the first wait for the last.
const BATCH_MAX: usize = 1_024;
/// Bytes of one batch, but for one larger job alone.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// Conversations that are known to end as they should on this connection. Over it all are forgotten, which costs each a
/// read.
const VERIFIED_MAX: usize = 100_000;
/// An idle connection is looked at so often, so that its end is found before a turn needs it.
const IDLE_LOOK: Duration = Duration::from_secs(2);
/// What was sent so long ago is acknowledged only after a look at the server's history. To become a replica, to be given all
/// that another has, and to become a master again takes several round trips, a fork and a load: longer than this.
const LOOK_AFTER: Duration = Duration::from_millis(5);
/// Between attempts to connect: short at first, since a failover takes seconds; up to half of it is left to chance, so
/// that nodes do not come all at once.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

pub struct Batcher {
    target: Target,
    manner: Manner,
    keys: Keys,
    replicas: Option<Replicas>,
    jobs: mpsc::Receiver<Job>,
    shared: Arc<Shared>,
    generation: u64,
    metrics: Lanes,
}

#[derive(Clone, Copy)]
struct Replicas {
    count: usize,
    wait: Duration,
    lag_max: Duration,
}

/// What belongs to one connection.
struct Session {
    writer: MultiplexedConnection,
    generation: u64,
    /// The id of the server's history when it began; another from each promotion on.
    history: String,
    verified: HashSet<ConversationId>,
    /// Done at the master, and not yet at the replicas; oldest first.
    pending: Vec<Pending>,
    /// Not done, since the server had forgotten the scripts.
    again: Vec<Job>,
}

struct Pending {
    job: Job,
    value: Value,
    sent: Instant,
    until: Instant,
}

impl Batcher {
    pub fn new(
        target: Target,
        manner: Manner,
        options: &RedisOptions,
        replicas: Option<usize>,
        jobs: mpsc::Receiver<Job>,
        shared: Arc<Shared>,
    ) -> Self {
        let RedisOptions { replica_timeout: wait, replica_lag_max: lag_max, .. } = *options;
        let replicas = replicas.map(|count| Replicas { count, wait, lag_max });
        let keys = Keys { prefix: options.prefix.clone() };
        Self { target, manner, keys, replicas, jobs, shared, generation: 0, metrics: Lanes::default() }
    }

    /// Never ends by itself. A panic in it is unknown to all who wait, and costs the connection.
    pub async fn run(mut self) {
        while AssertUnwindSafe(self.connect_and_serve()).catch_unwind().await.is_err() {
            tracing::error!("the batcher of Redis panicked");
            self.unlink();
        }
    }

    async fn connect_and_serve(&mut self) {
        let mut pause = PAUSE_MIN;
        loop {
            match self.target.connect(&self.manner).await {
                Ok(connected) => {
                    pause = PAUSE_MIN;
                    let why = self.serve(connected).await;
                    tracing::warn!(store.generation = self.generation, why, "the connection to Redis is replaced");
                }
                Err(error) => tracing::warn!(%error, "Redis cannot be connected to"),
            }
            self.shared.look_at_map();
            self.refuse_waiting();
            tokio::time::sleep(jittered(pause)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Until the connection has to be replaced; says why.
    async fn serve(&mut self, connected: Connected) -> String {
        self.generation += 1;
        let Connected { mut writer, reader } = connected;
        let history = match history(&mut writer).await {
            Ok(history) => history,
            Err(error) => return error.to_string(),
        };
        let mut session = Session {
            writer,
            generation: self.generation,
            history,
            verified: HashSet::new(),
            pending: Vec::new(),
            again: Vec::new(),
        };
        if let Err(error) = scripts::load(&mut session.writer).await {
            return error.to_string();
        }
        self.shared.link.store(Some(Arc::new(Link { generation: self.generation, reader })));
        self.shared.up.send_replace(true);
        self.metrics.connected();
        tracing::info!(store.generation = self.generation, "connected to Redis");
        let why = loop {
            if let ControlFlow::Break(why) = self.step(&mut session).await {
                break why;
            }
        };
        self.unlink();
        session.pending.into_iter().for_each(|pending| pending.job.lost(&why));
        session.again.into_iter().for_each(|job| job.refused(&why));
        why
    }

    fn unlink(&self) {
        if self.shared.link.swap(None).is_some() {
            self.metrics.disconnected();
        }
        self.shared.up.send_replace(false);
    }

    async fn step(&mut self, session: &mut Session) -> ControlFlow<String> {
        session.give_up_late(Instant::now());
        if !session.again.is_empty() {
            if let Err(error) = scripts::load(&mut session.writer).await {
                return ControlFlow::Break(error.to_string());
            }
            let again = std::mem::take(&mut session.again);
            return self.send(session, again).await;
        }
        let room = session.pending.len() < WAITING_MAX;
        if !session.pending.is_empty() && (!room || self.jobs.is_empty()) {
            return self.send(session, Vec::new()).await;
        }
        let shared = self.shared.clone();
        tokio::select! {
            biased;
            // It may have been an older one.
            () = shared.broke.notified() => match shared.broken.load(Ordering::Relaxed) == session.generation {
                true => ControlFlow::Break("a read failed on it".to_owned()),
                false => ControlFlow::Continue(()),
            },
            first = timeout(IDLE_LOOK, self.jobs.recv()) => match first {
                Ok(Some(first)) => {
                    let batch = self.batch(first);
                    self.send(session, batch).await
                }
                // The lane is gone, and ends this task.
                Ok(None) => ControlFlow::Break("the store was closed".to_owned()),
                Err(_) => match must_be_master(&mut session.writer).await {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(error) => ControlFlow::Break(error.to_string()),
                },
            },
        }
    }

    fn batch(&mut self, first: Job) -> Vec<Job> {
        let mut bytes = first.bytes;
        let mut batch = vec![first];
        while batch.len() < BATCH_MAX && bytes < BATCH_BYTES_MAX {
            let Ok(job) = self.jobs.try_recv() else { break };
            bytes += job.bytes;
            batch.push(job);
        }
        self.shared.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        batch
    }

    /// An empty batch waits for what is pending.
    async fn send(&mut self, session: &mut Session, batch: Vec<Job>) -> ControlFlow<String> {
        let mut batch = match self.verify(session, batch).await {
            Ok(batch) => batch,
            Err(why) => return ControlFlow::Break(why),
        };
        let waits = self.replicas.filter(|_| !session.pending.is_empty() || batch.iter().any(|job| job.durable));
        if batch.is_empty() && waits.is_none() {
            return ControlFlow::Continue(());
        }
        let begun = Instant::now();
        let sent = session.exchange(&mut batch, waits).await;
        self.metrics.batch(batch.len(), begun.elapsed());
        let mut values = match sent {
            Ok(values) if values.len() == batch.len() + usize::from(waits.is_some()) => values,
            Ok(_) => return lost(batch, "the answers do not match what was sent"),
            Err(error) => return lost(batch, &error.to_string()),
        };
        let got = waits.map(|wait| (wait, values.pop()));
        let mut why = None;
        for (job, value) in batch.into_iter().zip(values) {
            let found = self.settle(session, job, value, begun);
            why = why.or(found);
        }
        match (why, got) {
            (Some(why), _) => ControlFlow::Break(why),
            (None, None) => ControlFlow::Continue(()),
            (None, Some((_, Some(Value::Int(count))))) => {
                self.replicated(session, usize::try_from(count).unwrap_or(0)).await
            }
            // A master that becomes a replica ends the wait with an error.
            (None, Some((_, value))) => ControlFlow::Break(format!("waiting for replicas was answered with {value:?}")),
        }
    }

    async fn replicated(&self, session: &mut Session, count: usize) -> ControlFlow<String> {
        if self.replicas.is_some_and(|replicas| count < replicas.count) {
            self.metrics.short_wait();
            return ControlFlow::Continue(());
        }
        if session.pending.first().is_some_and(|oldest| oldest.sent.elapsed() >= LOOK_AFTER) {
            match history(&mut session.writer).await {
                Ok(now) if now == session.history => {}
                Ok(_) => return ControlFlow::Break("the server was a replica of another meanwhile".to_owned()),
                Err(error) => return ControlFlow::Break(error.to_string()),
            }
        }
        session.acknowledge();
        ControlFlow::Continue(())
    }

    /// Before the first entry of a conversation on this connection, its log must end with its owner's last one.
    async fn verify(&self, session: &mut Session, batch: Vec<Job>) -> Result<Vec<Job>, String> {
        let unknown: Vec<ConversationId> =
            batch.iter().filter_map(|job| session.unverified(job)).map(|fence| fence.conversation).collect();
        if unknown.is_empty() {
            return Ok(batch);
        }
        let mut pipeline = pipe();
        for conversation in &unknown {
            pipeline.add_command(read::end_command(&self.keys, *conversation));
        }
        let ends = match ask(&mut session.writer, &pipeline, unknown.len()).await {
            Ok(ends) => ends,
            Err(error) => {
                let why = error.to_string();
                batch.into_iter().for_each(|job| job.refused(&why));
                return Err(why);
            }
        };
        let mut ends = ends.into_iter();
        let mut left = Vec::with_capacity(batch.len());
        for job in batch {
            let checked = match session.unverified(&job) {
                None => Ok(()),
                Some(fence) => {
                    let end = ends.next().ok_or_else(|| read::unreadable("the end of a log")).and_then(read::end);
                    end.and_then(|end| goes_on(fence.position, fence.token, end))
                }
            };
            match checked {
                Ok(()) => left.push(job),
                Err(error) => {
                    self.metrics.refused_on_a_new_connection(&error);
                    job.answer(Err(error));
                }
            }
        }
        Ok(left)
    }

    /// Answers the job, or keeps it until the replicas have it. Says why the connection has to be replaced, if so.
    fn settle(&self, session: &mut Session, job: Job, value: Value, sent: Instant) -> Option<String> {
        match meaning(&job.kind, value) {
            Meaning::Done(value) => {
                if let Kind::Append(fence) = &job.kind {
                    session.saw(fence.conversation);
                }
                match self.replicas.filter(|_| job.durable) {
                    None => job.answer(Ok(Reply { value, generation: session.generation })),
                    Some(replicas) => {
                        let until = Instant::now() + replicas.lag_max;
                        session.pending.push(Pending { job, value, sent, until });
                    }
                }
                None
            }
            Meaning::Refused(error) => {
                job.answer(Err(error));
                None
            }
            Meaning::NoScript => {
                session.again.push(job);
                None
            }
            Meaning::NotHere(why) => {
                job.refused(&why);
                Some(why)
            }
            Meaning::Moved(why) => {
                job.refused(&why);
                self.shared.look_at_map();
                None
            }
        }
    }

    fn refuse_waiting(&mut self) {
        while let Ok(job) = self.jobs.try_recv() {
            self.shared.waiting_bytes.fetch_sub(job.bytes, Ordering::Relaxed);
            job.refused("Redis is not connected");
        }
    }
}

impl Session {
    /// The fence of an entry whose log was not seen on this connection. A claim needs no look: its owner reads what is
    /// there.
    fn unverified(&self, job: &Job) -> Option<Fence> {
        match job.kind {
            Kind::Append(fence) if fence.position.seq > 0 && !self.verified.contains(&fence.conversation) => {
                Some(fence)
            }
            Kind::Append(_) | Kind::Script | Kind::Plain => None,
        }
    }

    fn saw(&mut self, conversation: ConversationId) {
        if self.verified.len() >= VERIFIED_MAX {
            self.verified.clear();
        }
        self.verified.insert(conversation);
    }

    /// Takes the commands out of the jobs, but for those that may have to be sent again.
    async fn exchange(&mut self, batch: &mut [Job], waits: Option<Replicas>) -> Result<Vec<Value>, RedisError> {
        let mut pipeline = Pipeline::with_capacity(batch.len() + 1);
        let answers = batch.len() + usize::from(waits.is_some());
        for job in batch {
            pipeline.add_command(match job.kind {
                Kind::Script => job.command.clone(),
                Kind::Append(_) | Kind::Plain => std::mem::take(&mut job.command),
            });
        }
        if let Some(Replicas { count, wait, .. }) = waits {
            pipeline.add_command(cmd("WAIT").arg(count).arg(wait.as_millis() as u64).take());
        }
        ask(&mut self.writer, &pipeline, answers).await
    }

    fn acknowledge(&mut self) {
        for Pending { job, value, .. } in self.pending.drain(..) {
            job.answer(Ok(Reply { value, generation: self.generation }));
        }
    }

    fn give_up_late(&mut self, now: Instant) {
        let late = self.pending.iter().take_while(|pending| pending.until <= now).count();
        for Pending { job, .. } in self.pending.drain(..late) {
            job.lost("the replicas have not got it in time");
        }
    }
}

async fn ask(
    connection: &mut MultiplexedConnection,
    pipeline: &Pipeline,
    answers: usize,
) -> Result<Vec<Value>, RedisError> {
    connection.send_packed_commands(pipeline, 0, answers).await
}

fn lost(batch: Vec<Job>, why: &str) -> ControlFlow<String> {
    batch.into_iter().for_each(|job| job.lost(why));
    ControlFlow::Break(why.to_owned())
}

/// From half of it to all of it.
fn jittered(pause: Duration) -> Duration {
    let chance = f64::from(getrandom::u32().expect("the system has a random source")) / f64::from(u32::MAX);
    pause.mul_f64(0.5 + chance / 2.0)
}
