//! The suite suspects: a store that breaks the contract in one point fails it.

use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use klatch_protocol::Turn;

use super::super::memory::MemoryStore;
use super::super::{Log, Stored};
use super::*;

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Takes entries at any position.
    NoFence,
    /// Snapshots without looking whether the log ends as expected: what came since is gone.
    DropsTheTail,
    /// Acknowledges an append now and then that it has not kept.
    ForgetsAppends,
    /// Trims the log, but leaves the items where they were.
    LosesSettledItems,
    /// Ends pages one row early.
    ShortPages,
    None,
}

/// A good store with one fault.
struct Broken {
    good: MemoryStore,
    fault: Fault,
}

impl Broken {
    async fn end_of(&self, conversation: ConversationId) -> Option<LogEnd> {
        self.good.log_end(conversation).await.expect("memory can be read")
    }

    /// Moves the entry to where the fence lets it in.
    async fn append_unfenced(&self, conversation: ConversationId, entry: Arc<Entry>) -> Result<(), StoreError> {
        let mut entry = Entry::clone(&entry);
        match self.end_of(conversation).await {
            Some(end) if entry.position <= end.position => entry.position = end.position.next(),
            Some(_) => {}
            None => entry.position = Position::default().claim(),
        }
        self.good.append(conversation, Arc::new(entry)).await
    }
}

impl Store for Broken {
    fn append(&self, conversation: ConversationId, entry: Arc<Entry>) -> Stored<'_, ()> {
        match self.fault {
            Fault::NoFence => Box::pin(self.append_unfenced(conversation, entry)),
            Fault::ForgetsAppends if entry.position.seq == 9 => Box::pin(async { Ok(()) }),
            _ => self.good.append(conversation, entry),
        }
    }

    fn compact(&self, conversation: ConversationId, mut compaction: Compaction) -> Stored<'_, ()> {
        Box::pin(async move {
            match (self.fault, self.end_of(conversation).await) {
                (Fault::DropsTheTail, Some(end)) => compaction.expected = end,
                (Fault::LosesSettledItems, _) => compaction.settled.items.clear(),
                _ => {}
            }
            self.good.compact(conversation, compaction).await
        })
    }

    fn items(&self, c: ConversationId, from: u64, to: u64, order: Order, limit: usize) -> Stored<'_, Vec<ItemRow>> {
        let short = usize::from(matches!(self.fault, Fault::ShortPages));
        self.good.items(c, from, to, order, limit.saturating_sub(short))
    }

    fn log_end(&self, conversation: ConversationId) -> Stored<'_, Option<LogEnd>> {
        self.good.log_end(conversation)
    }

    fn log(&self, conversation: ConversationId) -> Stored<'_, Log> {
        self.good.log(conversation)
    }

    fn item_of_client(&self, conversation: ConversationId, client_id: String) -> Stored<'_, Option<u64>> {
        self.good.item_of_client(conversation, client_id)
    }

    fn turn(&self, conversation: ConversationId, turn: u64) -> Stored<'_, Option<Turn>> {
        self.good.turn(conversation, turn)
    }

    fn index_add(&self, row: IndexRow) -> Stored<'_, ()> {
        self.good.index_add(row)
    }

    fn index_remove(&self, row: IndexRow) -> Stored<'_, ()> {
        self.good.index_remove(row)
    }

    fn index(
        &self,
        tenant: String,
        subject: String,
        after: Option<(u64, ConversationId)>,
        order: Order,
        limit: usize,
    ) -> Stored<'_, Vec<IndexRow>> {
        self.good.index(tenant, subject, after, order, limit)
    }

    fn open_add(&self, shard: Shard, row: OpenRow) -> Stored<'_, ()> {
        self.good.open_add(shard, row)
    }

    fn open_remove(&self, shard: Shard, upto: OpenRow) -> Stored<'_, ()> {
        self.good.open_remove(shard, upto)
    }

    fn open(&self, shard: Shard, after: Option<OpenRow>, limit: usize) -> Stored<'_, Vec<OpenRow>> {
        self.good.open(shard, after, limit)
    }

    fn due_add(&self, at_ms: u64, conversation: ConversationId) -> Stored<'_, ()> {
        self.good.due_add(at_ms, conversation)
    }

    fn due_remove(&self, at_ms: u64, conversation: ConversationId) -> Stored<'_, ()> {
        self.good.due_remove(at_ms, conversation)
    }

    fn due(&self, now_ms: u64, limit: usize) -> Stored<'_, Vec<(u64, ConversationId)>> {
        self.good.due(now_ms, limit)
    }
}

async fn passes(fault: Fault) -> bool {
    let make = async || Arc::new(Broken { good: MemoryStore::default(), fault }) as Arc<dyn Store>;
    AssertUnwindSafe(suite(make)).catch_unwind().await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_is_found() {
    assert!(passes(Fault::None).await, "the suite refuses a good store");
    for fault in
        [Fault::NoFence, Fault::DropsTheTail, Fault::ForgetsAppends, Fault::LosesSettledItems, Fault::ShortPages]
    {
        assert!(!passes(fault).await, "the suite passes a store with the fault {fault:?}");
    }
}

#[tokio::test]
async fn random_operations_alone_find_each_fault_too() {
    for fault in
        [Fault::NoFence, Fault::DropsTheTail, Fault::ForgetsAppends, Fault::LosesSettledItems, Fault::ShortPages]
    {
        let broken = Broken { good: MemoryStore::default(), fault };
        let run = AssertUnwindSafe(random_operations(&broken, 1, OPERATIONS)).catch_unwind().await;
        assert!(run.is_err(), "{fault:?} was not found");
    }
}
