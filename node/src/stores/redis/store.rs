//! [`Store`] on the lanes: each call makes its command, and reads its answer.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use ::redis::{Cmd, cmd};
use klatch_actors::Store;
use klatch_actors::store::{self, Compaction, IndexRow, Log, LogEnd, OpenRow, Order, StoreError, Stored};
use klatch_protocol::envelope::seal;
use klatch_protocol::state::ItemRow;
use klatch_protocol::{ConversationId, Entry, Position, Shard, Turn};

use super::around::Around;
use super::blocks::List;
use super::compaction::Answer;
use super::job::{Ack, Fence, Kind, Reply};
use super::keys::{self, entry_id, excluding, including, number_and_rest};
use super::lane::Lane;
use super::page::Page;
use super::{RedisStore, compaction, page, read};
use crate::stores::metrics::Operation;

type Done<T> = Result<T, StoreError>;

/// Of an append, and their bytes beside the entry itself, at most.
const XADD_ARGUMENTS: usize = 8;
const XADD_BYTES: usize = 256;

/// Blocks that one trip reads around what a compaction changes, beside the one before: neighbours are changed together.
const BLOCKS_AROUND: usize = 4;

const LAST_ID: ConversationId = ConversationId([0xff; 16]);

impl RedisStore {
    /// The lane of the log, the command that adds the entry, and what decides it.
    fn append_command(
        &self,
        conversation: ConversationId,
        entry: &Entry,
    ) -> Result<(Arc<Lane>, Cmd, Kind), StoreError> {
        let key = self.keys.log(conversation);
        let lane = self.lane(&key)?;
        let sealed = seal(entry);
        let mut command = Cmd::with_capacity(XADD_ARGUMENTS, sealed.len() + XADD_BYTES);
        command.arg("XADD").arg(&key);
        // Redis would make a log at any first id.
        if entry.position != Position::default().claim() {
            command.arg("NOMKSTREAM");
        }
        command.arg(entry_id(entry.position));
        command.arg(keys::TOKEN).arg(&entry.token.0.to_be_bytes()[..]).arg(keys::ENTRY).arg(sealed);
        let fence = Fence { conversation, position: entry.position, token: entry.token };
        Ok((lane, command, Kind::Append(fence)))
    }

    async fn append_entry(&self, conversation: ConversationId, entry: Arc<Entry>) -> Done<()> {
        let (lane, command, kind) = self.append_command(conversation, &entry)?;
        match lane.submit(command, kind, true).await {
            Ok(_) => Ok(()),
            Err(StoreError::Fenced(None)) => Err(self.fenced(conversation).await),
            Err(error) => Err(error),
        }
    }

    /// The refusal stands, whatever the end is; it only helps whoever reads it.
    async fn fenced(&self, conversation: ConversationId) -> StoreError {
        let end = self.plain_read(&self.keys.log(conversation), read::end_command(&self.keys, conversation)).await;
        let end = end.and_then(read::end).ok().flatten();
        StoreError::Fenced(end.map(|end| end.position))
    }

    /// What the replicas do not have yet is no end that anyone may build upon.
    async fn read_end(&self, conversation: ConversationId) -> Done<Option<LogEnd>> {
        let (key, command) = (self.keys.log(conversation), read::end_command(&self.keys, conversation));
        if !self.waits() {
            return read::end(self.plain_read(&key, command).await?);
        }
        let reply = self.lane(&key)?.submit(command, Kind::Plain, true).await;
        read::end(reply.map_err(super::nothing_read)?.value)
    }

    /// The log is read beside the batches, since it may be long; then a batch's wait says that the replicas have it.
    async fn read_log(&self, conversation: ConversationId) -> Done<Log> {
        let key = self.keys.log(conversation);
        let lane = self.lane(&key)?;
        let read = lane.read(read::log_command(&self.keys, conversation)).await?;
        if self.waits() {
            let look = cmd("EXISTS").arg(&key).take();
            let confirmed = lane.submit(look, Kind::Plain, true).await.map_err(super::nothing_read)?;
            if confirmed.generation != read.generation {
                return Err(StoreError::Unavailable("the connection to Redis was replaced".to_owned()));
            }
        }
        read::log(read.value)
    }

    async fn compact_log(&self, conversation: ConversationId, compaction: Compaction) -> Done<()> {
        let key = self.keys.log(conversation);
        let lane = self.lane(&key)?;
        let mut said = match compaction::above(&self.keys, conversation, &compaction) {
            Some(call) => run(&lane, call?).await?,
            None => Answer::Look,
        };
        if said == Answer::Look {
            let [items, turns] = compaction::touched(&compaction);
            let items = around(&lane, List::Items, &self.keys.items(conversation), &items).await?;
            let turns = around(&lane, List::Turns, &self.keys.turns(conversation), &turns).await?;
            said = run(&lane, compaction::replacing(&self.keys, conversation, &compaction, [items, turns])?).await?;
        }
        match said {
            Answer::Done => Ok(()),
            Answer::Fenced => Err(self.fenced(conversation).await),
            Answer::Look => Err(read::unreadable("what a compaction answers that has looked")),
        }
    }

    async fn read_items(
        &self,
        conversation: ConversationId,
        from: u64,
        to: u64,
        order: Order,
        limit: usize,
    ) -> Done<Vec<ItemRow>> {
        let key = self.keys.items(conversation);
        let mut page = Page::new(from, to, order, limit);
        while let Some(command) = page.next(&key) {
            page.take(self.plain_read(&key, command).await?)?;
        }
        Ok(page.into_rows())
    }

    async fn read_turn(&self, conversation: ConversationId, turn: u64) -> Done<Option<Turn>> {
        let key = self.keys.turns(conversation);
        let high = turn.checked_add(1).map_or_else(|| b"+".to_vec(), |next| excluding(&next.to_be_bytes()));
        let command = read::page_command(&key, b"-", &high, Order::Descending, 1);
        let Some(block) = read::blocks(List::Turns, self.plain_read(&key, command).await?)?.pop() else {
            return Ok(None);
        };
        let open = |sealed| block.open(turn, sealed, |found: &Turn| found.accepted.turn);
        block.row(turn).map(open).transpose()
    }

    async fn read_index(
        &self,
        tenant: String,
        subject: String,
        after: Option<(u64, ConversationId)>,
        order: Order,
        limit: usize,
    ) -> Done<Vec<IndexRow>> {
        let key = self.keys.index(&tenant, &subject);
        let after = after.map(|(at_ms, conversation)| excluding(&keys::dated(at_ms, conversation)));
        let (low, high) = match order {
            Order::Ascending => (after, None),
            Order::Descending => (None, after),
        };
        let (low, high) = (low.unwrap_or_else(|| b"-".to_vec()), high.unwrap_or_else(|| b"+".to_vec()));
        let page = self.plain_read(&key, read::page_command(&key, &low, &high, order, limit)).await?;
        read::members(page, |member| {
            let (created_at_ms, conversation) = keys::date_of(member)?;
            Ok(IndexRow { tenant: tenant.clone(), subject: subject.clone(), created_at_ms, conversation })
        })
    }

    async fn read_open(&self, shard: Shard, after: Option<OpenRow>, limit: usize) -> Done<Vec<OpenRow>> {
        let key = self.keys.open(shard);
        let low = after.map_or_else(|| b"-".to_vec(), |after| excluding(&keys::open_row(after)));
        let page = self.plain_read(&key, read::page_command(&key, &low, b"+", Order::Ascending, limit)).await?;
        read::members(page, keys::open_row_of)
    }

    async fn read_due(&self, now_ms: u64, limit: usize) -> Done<Vec<(u64, ConversationId)>> {
        let key = self.keys.due();
        let high = including(&keys::dated(now_ms, LAST_ID));
        let page = self.plain_read(&key, read::page_command(&key, b"-", &high, Order::Ascending, limit)).await?;
        read::members(page, keys::date_of)
    }

    async fn add_row(&self, key: String, member: Vec<u8>) -> Done<()> {
        let command = cmd("ZADD").arg(&key).arg(0).arg(member).take();
        self.write_row(&key, command).await
    }

    async fn remove_row(&self, key: String, member: Vec<u8>) -> Done<()> {
        let command = cmd("ZREM").arg(&key).arg(member).take();
        self.write_row(&key, command).await
    }

    async fn write_row(&self, key: &str, command: Cmd) -> Done<()> {
        self.lane(key)?.submit(command, Kind::Plain, true).await.map(drop)
    }

    async fn timed<T>(&self, operation: Operation, work: impl Future<Output = Done<T>>) -> Done<T> {
        let begun = Instant::now();
        let done = work.await;
        self.timers.record(operation, begun, &done);
        done
    }
}

impl Store for RedisStore {
    fn append(&self, conversation: ConversationId, entry: Arc<Entry>) -> Stored<'_, ()> {
        Box::pin(self.timed(Operation::Append, self.append_entry(conversation, entry)))
    }

    fn append_then(self: Arc<Self>, conversation: ConversationId, entry: Arc<Entry>, done: store::Done) {
        let begun = Instant::now();
        let (lane, command, kind) = match self.append_command(conversation, &entry) {
            Ok(ready) => ready,
            Err(error) => return done(Err(error)),
        };
        let store = self.clone();
        let told = move |answer: Done<Reply>| {
            let outcome = answer.map(drop);
            store.timers.record(Operation::Append, begun, &outcome);
            match outcome {
                // Rare, and it has to look.
                Err(StoreError::Fenced(None)) => {
                    tokio::spawn(async move { done(Err(store.fenced(conversation).await)) });
                }
                outcome => done(outcome),
            }
        };
        lane.send(command, kind, true, Ack::new(told));
    }

    fn log_end(&self, conversation: ConversationId) -> Stored<'_, Option<LogEnd>> {
        Box::pin(self.timed(Operation::LogEnd, self.read_end(conversation)))
    }

    fn log(&self, conversation: ConversationId) -> Stored<'_, Log> {
        Box::pin(self.timed(Operation::Log, self.read_log(conversation)))
    }

    fn compact(&self, conversation: ConversationId, compaction: Compaction) -> Stored<'_, ()> {
        Box::pin(self.timed(Operation::Compact, self.compact_log(conversation, compaction)))
    }

    fn items(
        &self,
        conversation: ConversationId,
        from: u64,
        to: u64,
        order: Order,
        limit: usize,
    ) -> Stored<'_, Vec<ItemRow>> {
        Box::pin(self.timed(Operation::Items, self.read_items(conversation, from, to, order, limit)))
    }

    fn item_of_client(&self, conversation: ConversationId, client_id: String) -> Stored<'_, Option<u64>> {
        Box::pin(self.timed(Operation::Items, async move {
            let key = self.keys.clients(conversation);
            let value = self.plain_read(&key, cmd("HGET").arg(&key).arg(client_id).take()).await?;
            read::optional(value)?.map(|ordinal| Ok(number_and_rest(&ordinal)?.0)).transpose()
        }))
    }

    fn turn(&self, conversation: ConversationId, turn: u64) -> Stored<'_, Option<Turn>> {
        Box::pin(self.timed(Operation::Turn, self.read_turn(conversation, turn)))
    }

    fn index_add(&self, row: IndexRow) -> Stored<'_, ()> {
        let (key, member) = index_row(self, &row);
        Box::pin(self.timed(Operation::WriteRow, self.add_row(key, member)))
    }

    fn index_remove(&self, row: IndexRow) -> Stored<'_, ()> {
        let (key, member) = index_row(self, &row);
        Box::pin(self.timed(Operation::WriteRow, self.remove_row(key, member)))
    }

    fn index(
        &self,
        tenant: String,
        subject: String,
        after: Option<(u64, ConversationId)>,
        order: Order,
        limit: usize,
    ) -> Stored<'_, Vec<IndexRow>> {
        Box::pin(self.timed(Operation::ReadRows, self.read_index(tenant, subject, after, order, limit)))
    }

    fn open_add(&self, shard: Shard, row: OpenRow) -> Stored<'_, ()> {
        Box::pin(self.timed(Operation::WriteRow, self.add_row(self.keys.open(shard), keys::open_row(row))))
    }

    fn open_remove(&self, shard: Shard, upto: OpenRow) -> Stored<'_, ()> {
        let key = self.keys.open(shard);
        let (low, high) = (keys::open_row(OpenRow { epoch: 0, ..upto }), keys::open_row(upto));
        let command = cmd("ZREMRANGEBYLEX").arg(&key).arg(including(&low)).arg(including(&high)).take();
        Box::pin(self.timed(Operation::WriteRow, async move { self.write_row(&key, command).await }))
    }

    fn open(&self, shard: Shard, after: Option<OpenRow>, limit: usize) -> Stored<'_, Vec<OpenRow>> {
        Box::pin(self.timed(Operation::ReadRows, self.read_open(shard, after, limit)))
    }

    fn due_add(&self, at_ms: u64, conversation: ConversationId) -> Stored<'_, ()> {
        let member = keys::dated(at_ms, conversation);
        Box::pin(self.timed(Operation::WriteRow, self.add_row(self.keys.due(), member)))
    }

    fn due_remove(&self, at_ms: u64, conversation: ConversationId) -> Stored<'_, ()> {
        let member = keys::dated(at_ms, conversation);
        Box::pin(self.timed(Operation::WriteRow, self.remove_row(self.keys.due(), member)))
    }

    fn due(&self, now_ms: u64, limit: usize) -> Stored<'_, Vec<(u64, ConversationId)>> {
        Box::pin(self.timed(Operation::ReadRows, self.read_due(now_ms, limit)))
    }
}

fn index_row(store: &RedisStore, row: &IndexRow) -> (String, Vec<u8>) {
    (store.keys.index(&row.tenant, &row.subject), keys::dated(row.created_at_ms, row.conversation))
}

async fn run(lane: &Lane, call: Cmd) -> Done<Answer> {
    compaction::answer(lane.submit(call, Kind::Script, true).await?.value)
}

/// The blocks of a list around these ordinals.
async fn around(lane: &Lane, list: List, key: &str, ordinals: &BTreeSet<u64>) -> Done<Around> {
    let mut around = Around::default();
    while let Some(from) = around.missing(ordinals.iter().copied()) {
        let command = page::from_command(key, from, b"+", BLOCKS_AROUND);
        around.take(from, read::blocks(list, lane.read(command).await?.value)?, BLOCKS_AROUND);
    }
    Ok(around)
}
