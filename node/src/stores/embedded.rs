//! The store of a single node: a folder, written by one batcher with one sync of the disk for all writes that wait,
//! however many those are. No server.
//!
//! Writes are queued for the batcher; [`Store::log_end`], a point read that is answered from memory for every
//! conversation in use, is answered where it is called; all other reads may wait for the disk and run on blocking
//! threads, of which they take a limited number. After a failed write the files are opened again by themselves, and
//! until then everything is refused as unavailable.

mod batcher;
mod compaction;
mod engine;
mod journal;
mod keys;
mod queue;
mod read;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use arc_swap::ArcSwapOption;
use futures::future::BoxFuture;
use klatch_actors::Store;
use klatch_actors::store::{Compaction, IndexRow, Log, LogEnd, OpenRow, Order, StoreError, Stored};
use klatch_protocol::state::ItemRow;
use klatch_protocol::{ConversationId, Entry, Shard, Turn};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::spawn_blocking;

use self::batcher::{Change, Shared, Write};
use self::engine::Engine;
pub use self::engine::{FORMAT, look_at};
use self::queue::Job;
use super::StoreOpenError;
use super::metrics::{Operation, Timers, describe};
use super::records::{Record, Records};

/// Reads at a time. More only queue at the disk; who waits for a turn is bounded by the requests that are let in.
const READERS_MAX: usize = 16;
/// A record's key at most, in bytes: the database panics at 65,536.
const RECORD_KEY_BYTES_MAX: usize = 1_024;

pub struct Embedded {
    shared: Arc<Shared>,
    readers: Arc<Semaphore>,
    timers: Timers,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Embedded {
    /// Opens the folder, or makes it, for this process alone.
    pub async fn open(folder: &Path) -> Result<Self, StoreOpenError> {
        describe();
        let path = folder.to_owned();
        let opened = spawn_blocking(move || Engine::open(&path)).await;
        let engine = opened.map_err(|error| failed(folder, std::io::Error::other(error)))??;
        let shared = Arc::new(Shared {
            folder: folder.to_owned(),
            queue: queue::Queue::default(),
            engine: ArcSwapOption::from_pointee(engine),
        });
        let threads = start(&shared).map_err(|error| failed(folder, error))?;
        Ok(Self {
            shared,
            readers: Arc::new(Semaphore::new(READERS_MAX)),
            timers: Timers::default(),
            threads: Mutex::new(threads),
        })
    }

    /// Commits what is queued and closes the files.
    pub async fn close(&self) {
        self.shared.queue.close();
        let threads = self.take_threads();
        let joined = spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join()))).await;
        if joined.is_err() {
            tracing::error!("closing the store was interrupted");
        }
    }

    fn take_threads(&self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn engine(&self) -> Result<Arc<Engine>, StoreError> {
        let closed = || StoreError::Unavailable("its files are not open".to_owned());
        self.shared.engine.load_full().ok_or_else(closed)
    }

    async fn timed<T>(
        &self,
        operation: Operation,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let begun = Instant::now();
        let done = work.await;
        self.timers.record(operation, begun, &done);
        done
    }

    async fn write(&self, change: Change, bytes: usize) -> Result<bool, StoreError> {
        let (ack, answer) = oneshot::channel();
        self.shared.queue.push(Job { change, bytes, ack })?;
        answer.await.unwrap_or_else(|_| Err(StoreError::Unknown("the batcher died of it".to_owned())))
    }

    async fn row(&self, key: Vec<u8>, add: bool) -> Result<(), StoreError> {
        let bytes = key.len();
        self.timed(Operation::WriteRow, self.write(Change::Row { key, add }, bytes)).await.map(drop)
    }

    async fn read<T: Send + 'static>(
        &self,
        operation: Operation,
        read: impl FnOnce(&Engine) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.timed(operation, self.blocking(read)).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Engine) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let turn = self.readers.clone().acquire_owned().await;
        let engine = self.engine()?;
        let done = spawn_blocking(move || {
            let _turn = turn;
            read(&engine)
        });
        done.await.unwrap_or_else(|_| Err(keys::damaged("the database panicked on reading it")))
    }

    async fn compact_in_two_steps(
        &self,
        conversation: ConversationId,
        compaction: Compaction,
    ) -> Result<(), StoreError> {
        let change = self.blocking(move |engine| compaction::prepare(engine, conversation, compaction)).await?;
        let bytes = match &change {
            Change::Compact { writes, .. } => writes.iter().map(Write::bytes).sum(),
            _ => 0,
        };
        self.write(change, bytes).await.map(drop)
    }
}

/// The files may be opened again at once, by this process or another.
impl Drop for Embedded {
    fn drop(&mut self) {
        self.shared.queue.close();
        for thread in self.take_threads() {
            if thread.join().is_err() {
                tracing::error!("a thread of the store had panicked");
            }
        }
    }
}

fn start(shared: &Arc<Shared>) -> std::io::Result<Vec<JoinHandle<()>>> {
    let spawn = |name: &str, run: fn(&Shared)| {
        let shared = shared.clone();
        thread::Builder::new().name(name.to_owned()).spawn(move || run(&shared))
    };
    Ok(vec![spawn("store-batcher", batcher::run)?, spawn("store-watch", batcher::watch)?])
}

fn failed(folder: &Path, source: std::io::Error) -> StoreOpenError {
    StoreOpenError::Io { folder: folder.to_owned(), source }
}

impl Store for Embedded {
    fn append(&self, conversation: ConversationId, entry: Arc<Entry>) -> Stored<'_, ()> {
        Box::pin(self.timed(Operation::Append, async move {
            let value = keys::entry_value(&entry);
            let bytes = value.len();
            let change = Change::Append { conversation, position: entry.position, token: entry.token, value };
            self.write(change, bytes).await.map(drop)
        }))
    }

    fn log_end(&self, conversation: ConversationId) -> Stored<'_, Option<LogEnd>> {
        let read = async move { Ok(self.engine()?.end(conversation)?.map(|end| end.last)) };
        Box::pin(self.timed(Operation::LogEnd, read))
    }

    fn log(&self, conversation: ConversationId) -> Stored<'_, Log> {
        Box::pin(self.read(Operation::Log, move |engine| read::log(engine, conversation)))
    }

    fn compact(&self, conversation: ConversationId, compaction: Compaction) -> Stored<'_, ()> {
        Box::pin(self.timed(Operation::Compact, self.compact_in_two_steps(conversation, compaction)))
    }

    fn items(
        &self,
        conversation: ConversationId,
        from: u64,
        to: u64,
        order: Order,
        limit: usize,
    ) -> Stored<'_, Vec<ItemRow>> {
        let read = move |engine: &Engine| read::items(engine, conversation, from, to, order, limit);
        Box::pin(self.read(Operation::Items, read))
    }

    fn item_of_client(&self, conversation: ConversationId, client_id: String) -> Stored<'_, Option<u64>> {
        let read = move |engine: &Engine| read::item_of_client(engine, conversation, &client_id);
        Box::pin(self.read(Operation::Items, read))
    }

    fn turn(&self, conversation: ConversationId, turn: u64) -> Stored<'_, Option<Turn>> {
        Box::pin(self.read(Operation::Turn, move |engine| read::turn(engine, conversation, turn)))
    }

    fn index_add(&self, row: IndexRow) -> Stored<'_, ()> {
        Box::pin(self.row(keys::index(&row), true))
    }

    fn index_remove(&self, row: IndexRow) -> Stored<'_, ()> {
        Box::pin(self.row(keys::index(&row), false))
    }

    fn index(
        &self,
        tenant: String,
        subject: String,
        after: Option<(u64, ConversationId)>,
        order: Order,
        limit: usize,
    ) -> Stored<'_, Vec<IndexRow>> {
        let read = move |engine: &Engine| read::index(engine, &tenant, &subject, after, order, limit);
        Box::pin(self.read(Operation::ReadRows, read))
    }

    fn open_add(&self, shard: Shard, row: OpenRow) -> Stored<'_, ()> {
        Box::pin(self.row(keys::open_row(shard, row), true))
    }

    fn open_remove(&self, shard: Shard, upto: OpenRow) -> Stored<'_, ()> {
        Box::pin(async move {
            let read = move |engine: &Engine| read::open_rows_upto(engine, shard, upto);
            for key in self.read(Operation::ReadRows, read).await? {
                self.row(key, false).await?;
            }
            Ok(())
        })
    }

    fn open(&self, shard: Shard, after: Option<OpenRow>, limit: usize) -> Stored<'_, Vec<OpenRow>> {
        Box::pin(self.read(Operation::ReadRows, move |engine| read::open(engine, shard, after, limit)))
    }

    fn due_add(&self, at_ms: u64, conversation: ConversationId) -> Stored<'_, ()> {
        Box::pin(self.row(keys::due(at_ms, conversation), true))
    }

    fn due_remove(&self, at_ms: u64, conversation: ConversationId) -> Stored<'_, ()> {
        Box::pin(self.row(keys::due(at_ms, conversation), false))
    }

    fn due(&self, now_ms: u64, limit: usize) -> Stored<'_, Vec<(u64, ConversationId)>> {
        Box::pin(self.read(Operation::ReadRows, move |engine| read::due(engine, now_ms, limit)))
    }
}

impl Records for Embedded {
    fn get(&self, key: String) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        let read = async move {
            check_key(&key)?;
            self.blocking(move |engine| read::record(engine, &key)).await
        };
        Box::pin(self.timed(Operation::ReadRecord, read))
    }

    fn put(&self, key: String, expected: Option<u64>, bytes: Vec<u8>) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(self.timed(Operation::WriteRecord, async move {
            check_key(&key)?;
            let size = key.len() + bytes.len();
            self.write(Change::PutRecord { key: key.into_bytes(), expected, bytes }, size).await
        }))
    }

    fn remove(&self, key: String) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.timed(Operation::WriteRecord, async move {
            check_key(&key)?;
            let size = key.len();
            self.write(Change::RemoveRecord { key: key.into_bytes() }, size).await.map(drop)
        }))
    }

    fn keys(
        &self,
        prefix: String,
        after: Option<String>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<String>, StoreError>> {
        let read = move |engine: &Engine| read::record_keys(engine, &prefix, after, limit);
        Box::pin(self.read(Operation::ReadRecord, read))
    }
}

fn check_key(key: &str) -> Result<(), StoreError> {
    if (1..=RECORD_KEY_BYTES_MAX).contains(&key.len()) {
        return Ok(());
    }
    Err(StoreError::Unavailable(format!("a record's key has 1 to {RECORD_KEY_BYTES_MAX} bytes, not {}", key.len())))
}
