//! What a conversation waits for, each as a task of its own that reports back with one message: the claim, appends,
//! compactions, reads, the responder.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use klatch_protocol::{ConversationId, Entry, Event, Position, State};
use ractor::ActorRef;
use tokio::sync::Semaphore;

use super::decide::{Fixed, Found, Input, Row};
use super::{Clock, ConversationMessage, Reply};
use crate::metrics;
use crate::reader::{Page, Reader};
use crate::request::{Answer, Refusal};
use crate::responder::{ResponderError, Said};
use crate::store::{Compaction, LogEnd, Order, Store, StoreError};

/// Claims are raced for only by owners that disagree on the view; who loses so often lets the other have it.
const CLAIMS_MAX: usize = 5;

type Me = ActorRef<ConversationMessage>;

/// A conversation that is gone needs no report.
fn report(myself: &Me, input: Input<Reply>) {
    let _ = myself.cast(ConversationMessage::Happened(input));
}

/// Runs the task; a panic in it ends the conversation, which is started again from the log.
pub(super) async fn watched(myself: Me, task: impl Future<Output = ()>) {
    if AssertUnwindSafe(task).catch_unwind().await.is_err() {
        let _ = myself.cast(ConversationMessage::TaskPanicked);
    }
}

pub(super) async fn activate(myself: Me, store: Arc<dyn Store>, fixed: Fixed, clock: Clock) {
    let found = claim(&*store, &fixed, clock()).await;
    metrics::activated(&found);
    report(
        &myself,
        match found {
            Ok(found) => Input::Activated(found),
            Err(error) => Input::NotActivated(error),
        },
    );
}

/// Writes the claim first and reads after: from then on nobody older can add to what was read.
async fn claim(store: &dyn Store, fixed: &Fixed, now_ms: u64) -> Result<Found, StoreError> {
    let conversation = fixed.conversation;
    for _ in 0..CLAIMS_MAX {
        let Some(last) = store.log_end(conversation).await? else { return Ok(Found::Absent) };
        let position = last.position.claim();
        let claimed = Event::Claimed { node: fixed.node.clone(), incarnation: fixed.incarnation };
        let entry = Entry { position, token: fixed.token, at_ms: now_ms, events: vec![claimed] };
        let mine = LogEnd { position, token: fixed.token };
        match store.append(conversation, Arc::new(entry)).await {
            Ok(()) => return read(store, fixed, mine).await,
            Err(StoreError::Unknown(_)) if store.log_end(conversation).await? == Some(mine) => {
                return read(store, fixed, mine).await;
            }
            Err(StoreError::Unknown(_) | StoreError::Fenced(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Err(StoreError::Fenced(None))
}

async fn read(store: &dyn Store, fixed: &Fixed, end: LogEnd) -> Result<Found, StoreError> {
    let log = store.log(fixed.conversation).await?;
    gapless(log.entries.iter().map(|entry| entry.position))?;
    let state = Box::new(State::replay(&log.entries));
    let has_snapshot = matches!(log.entries.first(), Some(first) if matches!(first.events[..], [Event::Snapshot(_)]));
    let entries = log.entries.len() - usize::from(has_snapshot);
    Ok(Found::Claimed { state, end, entries, bytes: log.tail_bytes })
}

/// A log with a hole has lost something that was acknowledged: it is not guessed at.
fn gapless(positions: impl Iterator<Item = Position>) -> Result<(), StoreError> {
    let mut before: Option<Position> = None;
    for position in positions {
        let follows =
            |before: Position| position == before.next() || (position.epoch > before.epoch && position.seq == 0);
        if !before.is_none_or(follows) {
            return Err(StoreError::Damaged(format!("{position:?} does not follow {before:?} in the log")));
        }
        before = Some(position);
    }
    Ok(())
}

pub(super) async fn append(
    myself: Me,
    store: Arc<dyn Store>,
    conversation: ConversationId,
    entry: Arc<Entry>,
    rows: Vec<Row>,
) {
    for row in rows {
        if let Err(error) = write_row(&*store, conversation, row).await {
            // The entry itself was not sent, so its outcome is known.
            return report(&myself, Input::NotAppended(StoreError::Unavailable(error.to_string())));
        }
    }
    let outcome = store.append(conversation, entry).await;
    metrics::appended(&outcome);
    report(
        &myself,
        match outcome {
            Ok(()) => Input::Appended,
            Err(error) => Input::NotAppended(error),
        },
    );
}

/// Rows written by themselves are hints: one that is lost costs a look at a conversation, or a row too many.
pub(super) async fn write(store: Arc<dyn Store>, conversation: ConversationId, row: Row) {
    if let Err(error) = write_row(&*store, conversation, row).await {
        tracing::warn!(conversation.id = %conversation, %error, "a row by which a conversation is found was not written");
    }
}

async fn write_row(store: &dyn Store, conversation: ConversationId, row: Row) -> Result<(), StoreError> {
    match row {
        Row::Index(row) => store.index_add(row).await,
        Row::Unindex(row) => store.index_remove(row).await,
        Row::Open => store.open_add(conversation.shard(), conversation).await,
        Row::NotOpen => store.open_remove(conversation.shard(), conversation).await,
        Row::Due { at_ms } => store.due_add(at_ms, conversation).await,
    }
}

pub(super) async fn read_end(myself: Me, store: Arc<dyn Store>, conversation: ConversationId) {
    report(&myself, Input::EndRead(store.log_end(conversation).await));
}

pub(super) async fn compact(myself: Me, store: Arc<dyn Store>, conversation: ConversationId, compaction: Compaction) {
    report(
        &myself,
        match store.compact(conversation, compaction).await {
            Ok(()) => Input::Compacted,
            Err(error) => Input::NotCompacted(error),
        },
    );
}

pub(super) async fn load_history(
    myself: Me,
    reader: Reader,
    conversation: ConversationId,
    turn: u64,
    before: u64,
    limit: usize,
) {
    let items = async {
        let state = Arc::new(reader.state(conversation).await?);
        let page = Page { from: 0, to: before, order: Order::Descending, limit };
        let mut items = reader.items(conversation, &state, page).await?;
        items.reverse();
        Ok(items)
    };
    report(&myself, Input::HistoryLoaded { turn, items: items.await });
}

/// Passes on what the responder says, never further ahead of the log than there is room.
pub(super) async fn listen(
    myself: Me,
    mut said: BoxStream<'static, Result<Said, ResponderError>>,
    room: Arc<Semaphore>,
    turn: u64,
    attempt: u32,
) {
    loop {
        // A responder that panics fails its turn, not the conversation.
        let next = AssertUnwindSafe(said.next()).catch_unwind().await.unwrap_or(None);
        // The last word needs no room: nothing comes after it.
        let over = !matches!(next, Some(Ok(Said::Text(_) | Said::Call(_))));
        let said = next.unwrap_or_else(|| Err(unfinished()));
        if !over && let Ok(permit) = room.acquire().await {
            permit.forget();
        }
        report(&myself, Input::Said { turn, attempt, said });
        if over {
            return;
        }
    }
}

fn unfinished() -> ResponderError {
    ResponderError { code: "server_error".into(), message: "the responder stopped in the middle of its reply".into() }
}

pub(super) async fn wake_for_batch(myself: Me, after: Duration) {
    tokio::time::sleep(after).await;
    report(&myself, Input::BatchDue);
}

pub(super) async fn read_turn(reader: Reader, conversation: ConversationId, turn: u64, reply: Reply) {
    let read = async {
        let state = Arc::new(reader.state(conversation).await?);
        reader.turn(conversation, &state, turn).await
    };
    let answer = match read.await {
        Ok(Some(turn)) => Ok(Answer::Turn { turn: Arc::new(turn), replayed: true }),
        Ok(None) => Err(Refusal::NotFound("response")),
        Err(error) => Err(Refusal::from(error)),
    };
    // Who asked may have gone away.
    let _ = reply.send(answer);
}
