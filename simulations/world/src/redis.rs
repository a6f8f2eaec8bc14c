//! A twin of Redis: one server that keeps what it has acknowledged, or a master with a replica that lags behind it and
//! takes its place in a failover. What the replica had not got by then is lost.
//!
//! Conversations and the table of nodes lie in it together, and go back together. It knows no node: what is told to whom
//! and when is the affair of [`crate::store`] and [`crate::views`]. The journal is told of each write at the moment at
//! which no failover can lose it any more.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::FutureExt;
use klatch_actors::membership::views::memory::MemoryViews;
use klatch_actors::membership::views::{Beat, Still, Views};
use klatch_actors::store::memory::MemoryStore;
use klatch_actors::store::{Compaction, IndexRow, OpenRow, Store, StoreError};
use klatch_protocol::view::{Row, ViewTable};
use klatch_protocol::{ConversationId, Entry, Shard};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

use crate::dice::Dice;
use crate::planted::{self, Planted};
use crate::shared::{Shared, lock};

/// Something that changes what is kept.
#[derive(Clone, Debug)]
pub enum Write {
    Append(ConversationId, Arc<Entry>),
    Compact(ConversationId, Arc<Compaction>),
    IndexAdd(IndexRow),
    IndexRemove(IndexRow),
    OpenAdd(Shard, OpenRow),
    OpenRemove(Shard, OpenRow),
    DueAdd(u64, ConversationId),
    DueRemove(u64, ConversationId),
    Join(String, Row),
    Beat(String, u64),
    Set(String, Row),
    Bury(Vec<Still>, u64),
    Leave(String, u64),
}

/// What a write is answered with; of a table's writes, what it answers.
#[derive(Clone, Debug)]
pub enum Written {
    Done,
    Whether(bool),
    Beat(Option<Beat>),
}

/// All that one server holds.
#[derive(Clone, Default)]
pub struct Held {
    pub store: Arc<MemoryStore>,
    pub views: Arc<MemoryViews>,
}

/// How far a server has come. Of two times of one term, the later one has both numbers at least as large.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Counted up with every failover and restart.
    pub term: u64,
    pub is_up: bool,
    /// Writes of this term that no failover loses.
    pub kept: u64,
}

/// Until then the table is shown as it is, so that all nodes are there.
const TAKEN_BACK_AFTER: Duration = Duration::from_secs(10);

pub struct Redis {
    shared: Arc<Shared>,
    dice: Dice,
    inner: Mutex<Inner>,
    progress: watch::Sender<Progress>,
    /// There may be something for the replica to get.
    lags: Notify,
}

struct Inner {
    master: Held,
    /// None: what the master has done is kept.
    replica: Option<Held>,
    /// Writes of this term.
    done: u64,
    /// What the replica has not got yet, with the time at which it gets it.
    lagging: VecDeque<(Instant, Write)>,
    replica_is_stalled: bool,
    /// What the table held when it was first shown so.
    old_rows: Option<BTreeMap<String, Row>>,
}

impl Redis {
    /// Replicated: with a replica, whose progress is a task of its own.
    pub fn start(shared: Arc<Shared>, replicated: bool) -> Arc<Self> {
        let inner = Inner {
            master: Held::default(),
            replica: replicated.then(Held::default),
            done: 0,
            lagging: VecDeque::new(),
            replica_is_stalled: false,
            old_rows: None,
        };
        let progress = watch::channel(Progress { term: 1, is_up: true, kept: 0 }).0;
        let redis = Arc::new(Self {
            dice: shared.dice("redis"),
            shared,
            inner: Mutex::new(inner),
            progress,
            lags: Notify::new(),
        });
        if replicated {
            // Ends with the world's runtime.
            tokio::spawn(redis.clone().replicate());
        }
        redis
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// What is read, with how far it must be kept before it may be built upon.
    pub fn read(&self) -> (Held, u64) {
        let inner = self.inner();
        (inner.master.clone(), inner.done)
    }

    /// Does it at the master. With it comes how far it must be kept before it may be told.
    pub fn write(&self, write: Write) -> (Result<Written, StoreError>, u64) {
        let mut inner = self.inner();
        let (write, answer) = self.apply(&inner.master, write);
        let changes = answer.is_ok();
        if changes {
            inner.done += 1;
            let lag = self.dice.up_to(self.shared.faults().store.replica_lag);
            match inner.replica {
                Some(_) => {
                    inner.lagging.push_back((Instant::now() + lag, write));
                    self.lags.notify_one();
                }
                None => self.keep(&inner, &write),
            }
        }
        (answer, inner.done)
    }

    /// What is written in the end, and how that is answered.
    fn apply(&self, held: &Held, mut write: Write) -> (Write, Result<Written, StoreError>) {
        let planted = self.shared.planted;
        write = planted::written(planted, write);
        let mut answer = self.done(held, &write);
        if let (Err(StoreError::Fenced(Some(end))), Some(Planted::NoFence), Write::Append(id, entry)) =
            (&answer, planted, &write)
        {
            write = Write::Append(*id, planted::above(entry, *end));
            answer = self.done(held, &write);
        }
        if let Write::Append(id, entry) = &write {
            self.shared.trace(format_args!("append {id} {:?} {:?}", entry.position, answer.is_ok()));
            self.shared.count(if answer.is_ok() { "appends" } else { "writes fenced" });
        }
        (write, answer)
    }

    fn done(&self, held: &Held, write: &Write) -> Result<Written, StoreError> {
        match planted::kept(self.shared.planted, write) {
            Some(kept) => done(held, &kept),
            None => Ok(Written::Done),
        }
    }

    /// From now on no failover loses it.
    fn keep(&self, inner: &Inner, write: &Write) {
        match write {
            Write::Append(id, entry) => {
                let noted = self.shared.journal().appended(*id, entry);
                noted.counts.into_iter().for_each(|what| self.shared.count(what));
                self.shared.check(noted.checked);
            }
            Write::Compact(id, compaction) => {
                self.shared.count("compactions");
                let checked = self.shared.journal().compacted(*id, compaction);
                self.shared.check(checked);
            }
            _ => {}
        }
        let kept = inner.done - inner.lagging.len() as u64;
        self.progress.send_if_modified(|progress| std::mem::replace(&mut progress.kept, kept) != kept);
    }

    /// Brings to the replica what it lags behind, in order.
    async fn replicate(self: Arc<Self>) {
        loop {
            let next = {
                let inner = self.inner();
                if inner.replica_is_stalled { None } else { inner.lagging.front().map(|(at, _)| *at) }
            };
            match next {
                None => self.lags.notified().await,
                Some(at) => {
                    sleep_until(at).await;
                    self.replicate_one();
                }
            }
        }
    }

    fn replicate_one(&self) {
        let mut inner = self.inner();
        let is_due = inner.lagging.front().is_some_and(|(at, _)| *at <= Instant::now());
        if inner.replica_is_stalled || !is_due {
            return;
        }
        if let (Some((_, write)), Some(replica)) = (inner.lagging.pop_front(), inner.replica.clone()) {
            if self.done(&replica, &write).is_err() {
                self.shared.fail("the simulated replica refuses what its master did");
            }
            self.keep(&inner, &write);
        }
    }

    /// The table as it is shown.
    pub fn shown(&self, table: ViewTable) -> ViewTable {
        if self.shared.planted != Some(Planted::ViewTakenBack) || self.shared.elapsed() < TAKEN_BACK_AFTER {
            return table;
        }
        let old = self.inner().old_rows.get_or_insert_with(|| table.rows.clone()).clone();
        ViewTable { number: table.number, rows: old }
    }

    pub fn stall_replica(&self, stalled: bool) {
        self.inner().replica_is_stalled = stalled;
        self.lags.notify_one();
    }

    /// It is away: nothing is answered, every connection breaks, and its replica gets no more.
    pub fn stop(&self) {
        self.stall_replica(true);
        self.progress.send_modify(|progress| progress.is_up = false);
    }

    /// It is back: with all that it held, or as its replica, where it has one.
    pub fn back(&self) {
        let mut inner = self.inner();
        if inner.replica.is_some() {
            self.fail_over(&mut inner);
        }
        (inner.done, inner.replica_is_stalled) = (0, false);
        self.progress.send_modify(|progress| {
            *progress = Progress { term: progress.term + 1, is_up: true, kept: 0 };
        });
    }

    fn fail_over(&self, inner: &mut Inner) {
        self.shared.count("failovers of the store");
        let lost = inner.lagging.iter().filter(|(_, write)| matches!(write, Write::Append(..))).count();
        if lost > 0 {
            self.shared.count("failovers that lost writes");
        }
        self.shared.trace(format_args!("failover, {lost} entries are lost"));
        inner.lagging.clear();
        if let Some(replica) = inner.replica.take() {
            let another = Held { store: Arc::new((*replica.store).clone()), views: Arc::new((*replica.views).clone()) };
            (inner.master, inner.replica) = (replica, Some(another));
        }
    }
}

/// Memory answers at once.
fn done(held: &Held, write: &Write) -> Result<Written, StoreError> {
    let Held { store, views } = held.clone();
    let answer = async move {
        let of_table = |error: klatch_actors::membership::views::ViewsError| StoreError::Damaged(error.to_string());
        let whether = |joined: Result<bool, _>| joined.map(Written::Whether).map_err(of_table);
        match write.clone() {
            Write::Append(id, entry) => store.append(id, entry).await.map(|()| Written::Done),
            Write::Compact(id, compaction) => store.compact(id, (*compaction).clone()).await.map(|()| Written::Done),
            Write::IndexAdd(row) => store.index_add(row).await.map(|()| Written::Done),
            Write::IndexRemove(row) => store.index_remove(row).await.map(|()| Written::Done),
            Write::OpenAdd(shard, row) => store.open_add(shard, row).await.map(|()| Written::Done),
            Write::OpenRemove(shard, upto) => store.open_remove(shard, upto).await.map(|()| Written::Done),
            Write::DueAdd(at_ms, id) => store.due_add(at_ms, id).await.map(|()| Written::Done),
            Write::DueRemove(at_ms, id) => store.due_remove(at_ms, id).await.map(|()| Written::Done),
            Write::Join(name, row) => whether(views.join(name, row).await),
            Write::Beat(name, incarnation) => views.beat(name, incarnation).await.map(Written::Beat).map_err(of_table),
            Write::Set(name, row) => whether(views.set(name, row).await),
            Write::Bury(still, number) => whether(views.bury(still, number).await),
            Write::Leave(name, incarnation) => {
                views.leave(name, incarnation).await.map(|()| Written::Done).map_err(of_table)
            }
        }
    };
    answer.now_or_never().unwrap_or_else(|| Err(StoreError::Damaged("memory did not answer at once".into())))
}

/// One client's connection: which term it belongs to, and which logs were seen to end as their owners left them.
#[derive(Default)]
pub struct Connection {
    pub term: u64,
    verified: HashSet<ConversationId>,
}

impl Connection {
    /// Renewed where the server is another one since.
    pub fn is_of(&mut self, term: u64) {
        if self.term != term {
            *self = Self { term, verified: HashSet::new() };
        }
    }

    pub fn has_seen(&self, conversation: ConversationId) -> bool {
        self.verified.contains(&conversation)
    }

    pub fn saw(&mut self, conversation: ConversationId) {
        self.verified.insert(conversation);
    }
}
