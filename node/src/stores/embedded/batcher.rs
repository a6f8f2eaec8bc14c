//! The one writer of the embedded store: takes all that waits, checks the fences, commits it as one batch with one
//! sync of the disk, and answers everybody.
//!
//! It has a thread of its own, since a commit can block for as long as the disk likes; a second thread watches it and
//! answers for it when it is stuck. After a failed commit nobody knows what is on disk, and the database refuses all
//! further ones: it is dropped and opened again, from what is there, while writes and reads are refused. It stops when
//! the queue is closed and empty. What an entry says is none of its business.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use fjall::{OwnedWriteBatch as WriteBatch, UserKey};
use klatch_actors::store::{LogEnd, StoreError, fence};
use klatch_protocol::{ClaimToken, ConversationId, Position};

use super::engine::{Engine, read_error};
use super::keys::{self, End};
use super::queue::{Ack, Job, Queue, answer};
use crate::stores::metrics::{Batches, REOPENED_TOTAL};

/// Longer than a disk's pauses that end by themselves; then those who wait are better told.
const STUCK_AFTER: Duration = Duration::from_secs(20);
const WATCHED_EVERY: Duration = Duration::from_secs(1);
/// Between attempts to open the files again: at first short, since most failures are short; a full disk takes longer.
const REOPEN_AFTER_MIN: Duration = Duration::from_millis(50);
const REOPEN_AFTER_MAX: Duration = Duration::from_secs(5);

pub enum Change {
    Append {
        conversation: ConversationId,
        position: Position,
        token: ClaimToken,
        value: Vec<u8>,
    },
    /// `writes` hold only as long as the log ends at `expected`.
    Compact {
        conversation: ConversationId,
        expected: LogEnd,
        end: End,
        writes: Vec<Write>,
    },
    Row {
        key: Vec<u8>,
        add: bool,
    },
    PutRecord {
        key: Vec<u8>,
        expected: Option<u64>,
        bytes: Vec<u8>,
    },
    RemoveRecord {
        key: Vec<u8>,
    },
}

pub struct Write {
    pub to: Table,
    pub key: UserKey,
    /// None removes.
    pub value: Option<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    Log,
    Items,
    Clients,
    Turns,
}

/// What the batcher shares with those who write and read.
pub struct Shared {
    pub folder: PathBuf,
    pub queue: Queue,
    /// None while the files are closed.
    pub engine: ArcSwapOption<Engine>,
}

/// Runs until the queue is closed and empty.
pub fn run(shared: &Shared) {
    let batches = Batches::default();
    let mut spare = Vec::new();
    while let Some(mut jobs) = shared.queue.take(spare) {
        let Some(engine) = shared.engine.load_full() else { break };
        let done = catch_unwind(AssertUnwindSafe(|| commit(&shared.queue, &engine, &mut jobs, &batches)));
        drop(engine);
        let done = done.unwrap_or_else(|_| Err(after_panic(&shared.queue)));
        if let Err(why) = done
            && !reopen(shared, &why)
        {
            break;
        }
        spare = jobs;
    }
    shared.engine.store(None);
    shared.queue.set_down("the store is closed".to_owned());
}

/// The database asserts some things, and damaged files may break them.
fn after_panic(queue: &Queue) -> String {
    let why = "the database panicked";
    answer(queue.end_commit(), &StoreError::Unknown(why.to_owned()));
    why.to_owned()
}

/// Answers for the batcher when it is stuck, until the queue is closed.
pub fn watch(shared: &Shared) {
    while !shared.queue.closed_within(WATCHED_EVERY) {
        if shared.queue.give_up(STUCK_AFTER) {
            tracing::error!(
                store.folder = %shared.folder.display(),
                "a commit is stuck: the store refuses everything until the disk answers"
            );
        }
    }
}

/// Says why the files must be opened again, if they must. Who waits is in the queue's keeping from the beginning, so
/// that the watch can answer whatever the disk does.
fn commit(queue: &Queue, engine: &Engine, jobs: &mut Vec<Job>, batches: &Batches) -> Result<(), String> {
    let begun = Instant::now();
    let entries = jobs.len();
    let (acks, changes): (Vec<Ack>, Vec<Change>) = jobs.drain(..).map(|job| (job.ack, job.change)).unzip();
    queue.begin_commit(acks);
    let mut plan = Plan::new(engine);
    let answers: Vec<_> = changes.into_iter().map(|change| plan.add(change)).collect();
    let done = plan.commit().map_err(|error| error.to_string());
    let acks = queue.end_commit();
    batches.record(entries, begun.elapsed());
    if done.is_ok() && acks.is_empty() {
        tracing::warn!("the disk answers again");
        queue.set_open();
    }
    for (ack, answer) in acks.into_iter().zip(answers) {
        // Who no longer waits is not told.
        let _ = ack.send(if done.is_ok() { answer } else { Err(without_commit(answer)) });
    }
    done
}

/// A refusal may rest on something written in the same batch, so that it is void too.
fn without_commit(answer: Result<bool, StoreError>) -> StoreError {
    const WHY: &str = "the commit failed";
    match answer {
        Ok(true) => StoreError::Unknown(WHY.to_owned()),
        Ok(false) | Err(StoreError::Fenced(_)) => StoreError::Unavailable(WHY.to_owned()),
        Err(error) => error,
    }
}

/// Says whether it did; else the queue was closed.
fn reopen(shared: &Shared, why: &str) -> bool {
    tracing::error!(store.folder = %shared.folder.display(), error = why, "a commit failed: opening the store again");
    shared.queue.set_down(format!("it is being opened again after a failed commit ({why})"));
    shared.engine.store(None);
    let mut pause = REOPEN_AFTER_MIN;
    while !shared.queue.closed_within(pause) {
        match Engine::open(&shared.folder) {
            Ok(engine) => {
                shared.engine.store(Some(Arc::new(engine)));
                shared.queue.set_open();
                metrics::counter!(REOPENED_TOTAL).increment(1);
                tracing::warn!(store.folder = %shared.folder.display(), "the store is open again");
                return true;
            }
            Err(error) => tracing::warn!(error = %anyhow::Error::new(error), "the store cannot be opened yet"),
        }
        pause = (pause * 2).min(REOPEN_AFTER_MAX);
    }
    false
}

/// One batch in the making. The database does not see it yet, so what it changes and later changes depend on is kept
/// here too; and no key may stand in a batch twice.
struct Plan<'a> {
    engine: &'a Engine,
    batch: WriteBatch,
    ends: HashMap<ConversationId, End>,
    rows: HashMap<Vec<u8>, bool>,
    records: HashMap<Vec<u8>, Option<(u64, Vec<u8>)>>,
}

impl<'a> Plan<'a> {
    fn new(engine: &'a Engine) -> Self {
        Self { engine, batch: engine.batch(), ends: HashMap::new(), rows: HashMap::new(), records: HashMap::new() }
    }

    /// Whether it will be written, once it is committed; false for a record that is not as expected.
    fn add(&mut self, change: Change) -> Result<bool, StoreError> {
        match change {
            Change::Append { conversation, position, token, value } => {
                self.append(conversation, LogEnd { position, token }, value)?;
            }
            Change::Compact { conversation, expected, end, writes } => {
                self.compact(conversation, expected, end, writes)?;
            }
            Change::Row { key, add } => {
                self.rows.insert(key, add);
            }
            Change::PutRecord { key, expected, bytes } => return self.put_record(key, expected, bytes),
            Change::RemoveRecord { key } => {
                self.records.insert(key, None);
            }
        }
        Ok(true)
    }

    fn append(&mut self, conversation: ConversationId, last: LogEnd, mut value: Vec<u8>) -> Result<(), StoreError> {
        let end = self.end(conversation)?;
        fence(end.map(|end| end.last.position), last.position)?;
        keys::link_entry(&mut value, end.map_or(Position::default(), |end| end.last.position));
        self.batch.insert(&self.engine.log, keys::log(conversation, last.position), value);
        self.ends.insert(conversation, End { first: end.map_or(last.position, |end| end.first), last });
        Ok(())
    }

    fn compact(
        &mut self,
        conversation: ConversationId,
        expected: LogEnd,
        end: End,
        writes: Vec<Write>,
    ) -> Result<(), StoreError> {
        let found = self.end(conversation)?.map(|end| end.last);
        if found != Some(expected) {
            return Err(StoreError::Fenced(found.map(|found| found.position)));
        }
        for write in writes {
            let keyspace = self.engine.table(write.to);
            match write.value {
                Some(value) => self.batch.insert(keyspace, write.key, value),
                None => self.batch.remove(keyspace, write.key),
            }
        }
        self.ends.insert(conversation, end);
        Ok(())
    }

    fn put_record(&mut self, key: Vec<u8>, expected: Option<u64>, bytes: Vec<u8>) -> Result<bool, StoreError> {
        let version = match self.records.get(&key) {
            Some(record) => record.as_ref().map(|record| record.0),
            None => match self.engine.records.get(&key).map_err(read_error)? {
                Some(value) => Some(keys::read_record(&value)?.0),
                None => None,
            },
        };
        if version != expected {
            return Ok(false);
        }
        self.records.insert(key, Some((version.unwrap_or(0) + 1, bytes)));
        Ok(true)
    }

    fn end(&mut self, conversation: ConversationId) -> Result<Option<End>, StoreError> {
        match self.ends.entry(conversation) {
            Place::Occupied(known) => Ok(Some(*known.get())),
            Place::Vacant(_) => self.engine.end(conversation),
        }
    }

    fn commit(mut self) -> fjall::Result<()> {
        for (conversation, end) in &self.ends {
            self.batch.insert(&self.engine.ends, conversation.0, keys::end_value(end));
        }
        for (key, add) in self.rows {
            match add {
                true => self.batch.insert(&self.engine.rows, key, []),
                false => self.batch.remove(&self.engine.rows, key),
            }
        }
        for (key, record) in self.records {
            match record {
                Some((version, bytes)) => {
                    self.batch.insert(&self.engine.records, key, keys::record_value(version, &bytes));
                }
                None => self.batch.remove(&self.engine.records, key),
            }
        }
        self.batch.commit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_failed_commit_nobody_is_told_what_rests_on_it() {
        assert!(matches!(without_commit(Ok(true)), StoreError::Unknown(_)));
        assert!(matches!(without_commit(Ok(false)), StoreError::Unavailable(_)));
        assert!(matches!(without_commit(Err(StoreError::Fenced(None))), StoreError::Unavailable(_)));
    }
}
