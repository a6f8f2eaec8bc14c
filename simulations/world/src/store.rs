//! The store as one life of one node reaches it: late, sometimes not at all, and sometimes without saying what it did.
//!
//! What was sent is done even if the sender is gone by then: only the way there and back belongs to the node. The
//! journal is told of each write at the moment at which it is durable.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::BoxFuture;
use klatch_actors::store::memory::MemoryStore;
use klatch_actors::store::{Compaction, IndexRow, Log, LogEnd, Order, Store, StoreError, Stored};
use klatch_protocol::state::ItemRow;
use klatch_protocol::{ConversationId, Entry, Shard, Turn};
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::dice::Dice;
use crate::line::Line;
use crate::planted::{self, Planted};
use crate::shared::Shared;

/// A client of a store that hears nothing gives up after this.
const ANSWER_MAX: Duration = Duration::from_millis(700);

#[derive(Clone)]
pub struct SimulatedStore {
    pub shared: Arc<Shared>,
    pub dice: Dice,
    /// What is durable.
    pub durable: Arc<MemoryStore>,
    pub line: Arc<Line>,
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

    fn ask<T: Send + 'static>(
        &self,
        kind: Kind,
        operation: impl FnOnce(Arc<MemoryStore>, Arc<Shared>) -> BoxFuture<'static, Result<T, StoreError>> + Send + 'static,
    ) -> Stored<'_, T> {
        Box::pin(async move {
            self.line.pass().await;
            let (fate, shared) = (self.fate(kind), self.shared.clone());
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
            let durable = self.durable.clone();
            tokio::spawn(async move {
                sleep(there).await;
                // Who asked may have given up.
                let _ = answer.send(operation(durable, shared).await);
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
                    Ok(Ok(answer)) => answer,
                    Ok(Err(_)) | Err(_) => Err(silence()),
                },
            };
            sleep(back).await;
            self.line.pass().await;
            answer
        })
    }
}

/// Writes, and tells the journal.
async fn append(
    durable: Arc<MemoryStore>,
    shared: Arc<Shared>,
    conversation: ConversationId,
    mut entry: Arc<Entry>,
) -> Result<(), StoreError> {
    if shared.planted == Some(Planted::NoKeys) {
        entry = planted::without_keys(&entry);
    }
    let mut appended = durable.append(conversation, entry.clone()).await;
    if let (Err(StoreError::Fenced(Some(end))), Some(Planted::NoFence)) = (&appended, shared.planted) {
        entry = planted::above(&entry, *end);
        appended = durable.append(conversation, entry.clone()).await;
    }
    shared.trace(format_args!("append {conversation} {:?} {:?}", entry.position, appended.is_ok()));
    match &appended {
        Ok(()) => {
            shared.count("appends");
            let noted = shared.journal().appended(conversation, &entry);
            noted.counts.into_iter().for_each(|what| shared.count(what));
            shared.check(noted.checked);
        }
        Err(_) => shared.count("writes fenced"),
    }
    appended
}

async fn compact(
    durable: Arc<MemoryStore>,
    shared: Arc<Shared>,
    conversation: ConversationId,
    compaction: Compaction,
) -> Result<(), StoreError> {
    let compacted = durable.compact(conversation, compaction.clone()).await;
    shared.trace(format_args!("compact {conversation} {:?}", compacted.is_ok()));
    if compacted.is_ok() {
        shared.count("compactions");
        let checked = shared.journal().compacted(conversation, &compaction);
        shared.check(checked);
    }
    compacted
}

impl Store for SimulatedStore {
    fn append(&self, conversation: ConversationId, entry: Arc<Entry>) -> Stored<'_, ()> {
        if self.shared.planted == Some(Planted::AcknowledgedEarly) {
            return planted::acknowledge_early(self, conversation, entry);
        }
        self.append_well(conversation, entry)
    }

    fn log_end(&self, conversation: ConversationId) -> Stored<'_, Option<LogEnd>> {
        self.ask(Kind::Read, move |store, _| Box::pin(async move { store.log_end(conversation).await }))
    }

    fn log(&self, conversation: ConversationId) -> Stored<'_, Log> {
        self.ask(Kind::Read, move |store, _| Box::pin(async move { store.log(conversation).await }))
    }

    fn compact(&self, conversation: ConversationId, compaction: Compaction) -> Stored<'_, ()> {
        self.ask(Kind::Write, move |store, shared| Box::pin(compact(store, shared, conversation, compaction)))
    }

    fn items(
        &self,
        conversation: ConversationId,
        from: u64,
        to: u64,
        order: Order,
        limit: usize,
    ) -> Stored<'_, Vec<ItemRow>> {
        self.ask(Kind::Read, move |store, _| {
            Box::pin(async move { store.items(conversation, from, to, order, limit).await })
        })
    }

    fn item_of_client(&self, conversation: ConversationId, client_id: String) -> Stored<'_, Option<u64>> {
        self.ask(Kind::Read, move |store, _| {
            Box::pin(async move { store.item_of_client(conversation, client_id).await })
        })
    }

    fn turn(&self, conversation: ConversationId, turn: u64) -> Stored<'_, Option<Turn>> {
        self.ask(Kind::Read, move |store, _| Box::pin(async move { store.turn(conversation, turn).await }))
    }

    fn index_add(&self, row: IndexRow) -> Stored<'_, ()> {
        self.ask(Kind::Row, move |store, _| Box::pin(async move { store.index_add(row).await }))
    }

    fn index_remove(&self, row: IndexRow) -> Stored<'_, ()> {
        self.ask(Kind::Row, move |store, _| Box::pin(async move { store.index_remove(row).await }))
    }

    fn index(
        &self,
        tenant: String,
        subject: String,
        after: Option<(u64, ConversationId)>,
        order: Order,
        limit: usize,
    ) -> Stored<'_, Vec<IndexRow>> {
        self.ask(Kind::Read, move |store, _| {
            Box::pin(async move { store.index(tenant, subject, after, order, limit).await })
        })
    }

    fn open_add(&self, shard: Shard, conversation: ConversationId) -> Stored<'_, ()> {
        if self.shared.planted == Some(Planted::NoOpenRows) {
            return Box::pin(std::future::ready(Ok(())));
        }
        self.ask(Kind::Row, move |store, _| Box::pin(async move { store.open_add(shard, conversation).await }))
    }

    fn open_remove(&self, shard: Shard, conversation: ConversationId) -> Stored<'_, ()> {
        self.ask(Kind::Row, move |store, shared| {
            Box::pin(async move {
                shared.trace(format_args!("not open {conversation}"));
                store.open_remove(shard, conversation).await
            })
        })
    }

    /// At once: a node that starts reads a thousand of them one after the other, and they are only read.
    fn open(&self, shard: Shard, after: Option<ConversationId>, limit: usize) -> Stored<'_, Vec<ConversationId>> {
        Box::pin(async move {
            self.line.pass().await;
            match self.fate(Kind::Read) {
                Fate::Refused => Err(StoreError::Unavailable("simulated".into())),
                Fate::Done | Fate::Lost | Fate::Late => self.durable.open(shard, after, limit).await,
            }
        })
    }

    fn due_add(&self, at_ms: u64, conversation: ConversationId) -> Stored<'_, ()> {
        self.ask(Kind::Row, move |store, _| Box::pin(async move { store.due_add(at_ms, conversation).await }))
    }

    fn due_remove(&self, at_ms: u64, conversation: ConversationId) -> Stored<'_, ()> {
        self.ask(Kind::Row, move |store, _| Box::pin(async move { store.due_remove(at_ms, conversation).await }))
    }

    fn due(&self, now_ms: u64, limit: usize) -> Stored<'_, Vec<(u64, ConversationId)>> {
        self.ask(Kind::Read, move |store, _| Box::pin(async move { store.due(now_ms, limit).await }))
    }
}

impl SimulatedStore {
    pub fn append_well(&self, conversation: ConversationId, entry: Arc<Entry>) -> Stored<'_, ()> {
        self.ask(Kind::Write, move |store, shared| Box::pin(append(store, shared, conversation, entry)))
    }
}
