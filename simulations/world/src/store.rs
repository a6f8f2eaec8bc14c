//! The store as one life of one node reaches it: late, sometimes not at all, and sometimes without saying what it did.
//!
//! What was sent is done even if the sender is gone by then: only the way there and back belongs to the node, but a
//! connection ends with the server to which it led. As the real client does, it confirms what it reads of a log, and looks
//! on a new connection whether a log still ends as its owner left it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use klatch_actors::store::{Compaction, IndexRow, Log, LogEnd, OpenRow, Order, Store, StoreError, Stored, goes_on};
use klatch_protocol::state::ItemRow;
use klatch_protocol::{ConversationId, Entry, Shard, Turn};
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::dice::Dice;
use crate::line::{Dead, Line};
use crate::planted::{self, Planted};
use crate::redis::{Connection, Held, Redis, Write, Written};
use crate::shared::{Shared, lock};

/// A client of a store that hears nothing gives up after this.
const ANSWER_MAX: Duration = Duration::from_millis(700);

#[derive(Clone)]
pub struct SimulatedStore {
    /// Name and incarnation of the node.
    pub who: Arc<str>,
    pub shared: Arc<Shared>,
    pub dice: Dice,
    pub redis: Arc<Redis>,
    pub line: Arc<Line>,
    pub connection: Arc<Mutex<Connection>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    /// Of hints, by which conversations are found.
    Row,
    Write,
}

/// What becomes of one operation.
enum Fate {
    Done,
    Refused,
    /// Done in time, and nobody says so.
    Lost,
    /// Done after it was given up.
    Late,
}

/// Whether what is read may be lost again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    Confirmed,
    Plain,
}

impl SimulatedStore {
    fn fate(&self, kind: Kind) -> Fate {
        let (faults, dice) = (self.shared.faults().store, &self.dice);
        if self.line.store_is_cut.load(Ordering::SeqCst) || dice.permille(faults.refused) {
            Fate::Refused
        } else if kind != Kind::Read && dice.permille(faults.lost) {
            Fate::Lost
        } else if kind != Kind::Read && dice.permille(faults.late) {
            Fate::Late
        } else {
            Fate::Done
        }
    }

    fn latency(&self, kind: Kind) -> Duration {
        let (faults, dice) = (self.shared.faults().store, &self.dice);
        let usual = dice.up_to(faults.latency);
        if kind != Kind::Read && dice.permille(faults.stalled) { usual + dice.secs(1, 3) } else { usual }
    }

    /// There and back: what is done there is done by `arrived`, which is told the term in which it was sent.
    fn ask<T, A>(&self, kind: Kind, arrived: impl FnOnce(Self, u64) -> A + Send + 'static) -> Stored<'_, T>
    where
        T: Send + 'static,
        A: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        Box::pin(async move {
            self.line.pass().await.map_err(dead)?;
            let (fate, shared) = (self.fate(kind), &self.shared);
            let (mut there, back) = (self.latency(kind), self.latency(Kind::Read));
            match fate {
                Fate::Refused => {
                    shared.count("store refusals");
                    sleep(there).await;
                    return Err(StoreError::Unavailable("simulated".into()));
                }
                Fate::Lost => shared.count("store answers lost"),
                Fate::Late => {
                    shared.count("store writes late");
                    there = ANSWER_MAX + self.dice.up_to(Duration::from_secs(3));
                }
                Fate::Done => {}
            }
            let (answer, answered) = oneshot::channel();
            let term = self.redis.progress().borrow().term;
            let arrived = arrived(self.clone(), term);
            tokio::spawn(async move {
                sleep(there).await;
                // Who asked may have given up.
                let _ = answer.send(arrived.await);
            });
            let silence = || match kind {
                Kind::Write => StoreError::Unknown("simulated".into()),
                Kind::Read | Kind::Row => StoreError::Unavailable("no answer (simulated)".into()),
            };
            let answer = match fate {
                Fate::Lost | Fate::Late => {
                    sleep(ANSWER_MAX).await;
                    Err(silence())
                }
                Fate::Done | Fate::Refused => match tokio::time::timeout(ANSWER_MAX * 3, answered).await {
                    Ok(Ok(Err(StoreError::Unknown(_)))) | Ok(Err(_)) | Err(_) => Err(silence()),
                    Ok(Ok(answer)) => answer,
                },
            };
            sleep(back).await;
            self.line.pass().await.map_err(dead)?;
            answer
        })
    }

    fn write(&self, kind: Kind, write: Write) -> Stored<'_, ()> {
        self.ask(kind, move |store, term| async move { store.arrived(term, write).await.map(drop) })
    }

    /// Done by the server to which the connection leads, and answered once no failover can lose it.
    pub async fn arrived(&self, term: u64, write: Write) -> Result<Written, StoreError> {
        self.is_there(term)?;
        let appended = match &write {
            Write::Append(conversation, entry) => Some((*conversation, entry.clone())),
            _ => None,
        };
        if let Some((conversation, entry)) = &appended {
            self.goes_on(term, *conversation, entry)?;
        }
        let waits_not = planted::is_told_before_kept(self.shared.planted, &write);
        let told = matches!(write, Write::Append(..) | Write::Compact(..)).then(|| format!("{} {write:?}", self.who));
        let (written, upto) = self.redis.write(write);
        if let Some(told) = told {
            self.shared.trace(told);
        }
        let written = written?;
        if let Some((conversation, _)) = appended {
            lock(&self.connection).saw(conversation);
        }
        if !waits_not {
            self.kept(term, upto).await?;
        }
        Ok(written)
    }

    /// The connection has not broken since.
    pub fn is_there(&self, term: u64) -> Result<(), StoreError> {
        let progress = *self.redis.progress().borrow();
        if progress.is_up && progress.term == term {
            return Ok(());
        }
        Err(StoreError::Unknown("the connection is lost (simulated)".into()))
    }

    fn goes_on(&self, term: u64, conversation: ConversationId, entry: &Entry) -> Result<(), StoreError> {
        let mut connection = lock(&self.connection);
        connection.is_of(term);
        if entry.position.seq == 0 || connection.has_seen(conversation) {
            return Ok(());
        }
        let (held, _) = self.redis.read();
        let end = held.store.log_end(conversation).now_or_never().unwrap_or(Ok(None))?;
        let goes_on = goes_on(entry.position, entry.token, end);
        if goes_on.is_err() {
            self.shared.count("owners stopped by a new connection");
        }
        goes_on
    }

    /// Waits until no failover can lose what was done so far.
    pub async fn kept(&self, term: u64, upto: u64) -> Result<(), StoreError> {
        let mut progress = self.redis.progress();
        let over = progress.wait_for(|now| now.term != term || !now.is_up || now.kept >= upto).await;
        match over {
            Ok(now) if now.term == term && now.kept >= upto => Ok(()),
            Ok(_) | Err(_) => Err(StoreError::Unknown("the connection is lost (simulated)".into())),
        }
    }

    fn read<T: Send + 'static>(
        &self,
        reading: Reading,
        read: impl FnOnce(Held) -> BoxFuture<'static, Result<T, StoreError>> + Send + 'static,
    ) -> Stored<'_, T> {
        self.ask(Kind::Read, move |store, term| async move {
            store.is_there(term)?;
            let (held, upto) = store.redis.read();
            let read = read(held).await?;
            if reading == Reading::Confirmed {
                store.kept(term, upto).await?;
            }
            Ok(read)
        })
    }

    fn append_well(&self, conversation: ConversationId, entry: Arc<Entry>) -> Stored<'_, ()> {
        self.write(Kind::Write, Write::Append(conversation, entry))
    }
}

fn dead(_: Dead) -> StoreError {
    StoreError::Unavailable("this node is dead (simulated)".into())
}

impl Store for SimulatedStore {
    fn append(&self, conversation: ConversationId, entry: Arc<Entry>) -> Stored<'_, ()> {
        if planted::is_acknowledged_early(self.shared.planted, &entry) {
            let later = self.clone();
            // Nobody waits for it: that is the fault.
            tokio::spawn(async move { drop(later.append_well(conversation, entry).await) });
            return Box::pin(std::future::ready(Ok(())));
        }
        self.append_well(conversation, entry)
    }

    fn log_end(&self, conversation: ConversationId) -> Stored<'_, Option<LogEnd>> {
        self.shared.trace(format_args!("{} looks at the end of {conversation}", self.who));
        self.read(Reading::Confirmed, move |held| Box::pin(async move { held.store.log_end(conversation).await }))
    }

    fn log(&self, conversation: ConversationId) -> Stored<'_, Log> {
        self.shared.trace(format_args!("{} reads the log of {conversation}", self.who));
        self.read(Reading::Confirmed, move |held| Box::pin(async move { held.store.log(conversation).await }))
    }

    fn compact(&self, conversation: ConversationId, compaction: Compaction) -> Stored<'_, ()> {
        self.write(Kind::Write, Write::Compact(conversation, Arc::new(compaction)))
    }

    fn items(
        &self,
        conversation: ConversationId,
        from: u64,
        to: u64,
        order: Order,
        limit: usize,
    ) -> Stored<'_, Vec<ItemRow>> {
        self.read(Reading::Plain, move |held| {
            Box::pin(async move { held.store.items(conversation, from, to, order, limit).await })
        })
    }

    fn item_of_client(&self, conversation: ConversationId, client_id: String) -> Stored<'_, Option<u64>> {
        self.read(Reading::Plain, move |held| {
            Box::pin(async move { held.store.item_of_client(conversation, client_id).await })
        })
    }

    fn turn(&self, conversation: ConversationId, turn: u64) -> Stored<'_, Option<Turn>> {
        self.read(Reading::Plain, move |held| Box::pin(async move { held.store.turn(conversation, turn).await }))
    }

    fn index_add(&self, row: IndexRow) -> Stored<'_, ()> {
        self.write(Kind::Row, Write::IndexAdd(row))
    }

    fn index_remove(&self, row: IndexRow) -> Stored<'_, ()> {
        self.write(Kind::Row, Write::IndexRemove(row))
    }

    fn index(
        &self,
        tenant: String,
        subject: String,
        after: Option<(u64, ConversationId)>,
        order: Order,
        limit: usize,
    ) -> Stored<'_, Vec<IndexRow>> {
        self.read(Reading::Plain, move |held| {
            Box::pin(async move { held.store.index(tenant, subject, after, order, limit).await })
        })
    }

    fn open_add(&self, shard: Shard, row: OpenRow) -> Stored<'_, ()> {
        self.write(Kind::Row, Write::OpenAdd(shard, row))
    }

    fn open_remove(&self, shard: Shard, upto: OpenRow) -> Stored<'_, ()> {
        self.shared.trace(format_args!("not open {upto:?}"));
        if self.shared.planted == Some(Planted::PassivatedTwice) {
            for again in planted::passivations(&self.dice) {
                let later = self.clone();
                tokio::spawn(async move {
                    sleep(again).await;
                    drop(later.write(Kind::Row, Write::OpenRemove(shard, planted::as_if_the_last(upto))).await);
                });
            }
        }
        self.write(Kind::Row, Write::OpenRemove(shard, upto))
    }

    /// At once: a node that starts reads a thousand of them one after the other, and they are only read.
    fn open(&self, shard: Shard, after: Option<OpenRow>, limit: usize) -> Stored<'_, Vec<OpenRow>> {
        Box::pin(async move {
            self.line.pass().await.map_err(dead)?;
            let term = self.redis.progress().borrow().term;
            match self.fate(Kind::Read) {
                Fate::Refused => Err(StoreError::Unavailable("simulated".into())),
                Fate::Done | Fate::Lost | Fate::Late => {
                    self.is_there(term).map_err(|_| StoreError::Unavailable("it is down (simulated)".into()))?;
                    self.redis.read().0.store.open(shard, after, limit).await
                }
            }
        })
    }

    fn due_add(&self, at_ms: u64, conversation: ConversationId) -> Stored<'_, ()> {
        self.shared.trace(format_args!("{} adds {conversation} as due at {at_ms}", self.who));
        self.write(Kind::Row, Write::DueAdd(at_ms, conversation))
    }

    fn due_remove(&self, at_ms: u64, conversation: ConversationId) -> Stored<'_, ()> {
        self.shared.trace(format_args!("{} removes {conversation} as due at {at_ms}", self.who));
        self.write(Kind::Row, Write::DueRemove(at_ms, conversation))
    }

    fn due(&self, now_ms: u64, limit: usize) -> Stored<'_, Vec<(u64, ConversationId)>> {
        let limit = if self.shared.planted == Some(Planted::LostWakeUp) { 0 } else { limit };
        self.read(Reading::Plain, move |held| Box::pin(async move { held.store.due(now_ms, limit).await }))
    }
}
