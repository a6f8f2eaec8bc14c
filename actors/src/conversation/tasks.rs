//! What a conversation waits for, each as a task of its own that reports back with one message: the claim, appends,
//! compactions, reads, the responder.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use klatch_protocol::{ConversationId, Entry, Event, Position, State, WebhookId};
use ractor::ActorRef;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::decide::{Fixed, Found, Input, Look, Row};
use super::{ConversationMessage, Reply, Surroundings};
use crate::metrics;
use crate::peers::PeerId;
use crate::reader::{Page, Reader};
use crate::request::{Answer, Missing, Refusal};
use crate::responder::{ResponderError, Said};
use crate::store::{Compaction, LogEnd, OpenRow, Order, Store, StoreError, is_snapshot};
use crate::trace::Traced;
use crate::webhooks::{End, NotTold, Webhooks};

/// Claims are raced for only by owners that disagree on the view; who loses so often lets the other have it.
const CLAIMS_MAX: usize = 5;

type Me = ActorRef<ConversationMessage>;

/// How often the log of a turn that is open elsewhere is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A log with an open turn that stands still for so long has no owner at work, whatever the view says: a running turn
/// adds something more often.
const STILL_FOR: Duration = Duration::from_secs(5);

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

/// `looked`: how the log ended when it was found free. Whoever has claimed it since is alive, and is waited for.
pub(super) async fn activate(myself: Me, surroundings: Arc<Surroundings>, fixed: Fixed, looked: Option<LogEnd>) {
    let begun = Instant::now();
    let found = match claim(&*surroundings.store, &fixed, (surroundings.clock)(), looked).await {
        Ok(Some(found)) => Ok(found),
        Ok(None) => return look(myself, surroundings, fixed.conversation, fixed.incarnation).await,
        Err(error) => Err(error),
    };
    metrics::activated(&found, begun.elapsed());
    report(
        &myself,
        match found {
            Ok(found) => Input::Activated(found),
            Err(error) => Input::NotActivated(error),
        },
    );
}

/// Looks whether the log may be claimed. Where a turn is open under an owner that is alive, says so and goes on looking
/// until the turn is over, its owner is dead in the view, or the log stood still for too long: a healthy turn is never
/// stolen, and progress never depends on one peer.
pub(super) async fn look(myself: Me, surroundings: Arc<Surroundings>, conversation: ConversationId, incarnation: u64) {
    let me = PeerId { name: surroundings.node.clone(), incarnation };
    let mut still: Option<(LogEnd, Instant)> = None;
    let mut told = false;
    loop {
        let (look, end) = match look_once(&surroundings, conversation, &me).await {
            Ok(looked) => looked,
            // One that waits for another owner goes on waiting: it is asked for nothing meanwhile.
            Err(_) if told => (None, None),
            Err(error) => return report(&myself, Input::NotActivated(error)),
        };
        let stands = end.is_some_and(|end| {
            let since = still.filter(|(before, _)| *before == end).map_or_else(Instant::now, |(_, since)| since);
            still = Some((end, since));
            since.elapsed() >= STILL_FOR
        });
        match look {
            Some(Look::Elsewhere(_)) if told && !stands => {}
            Some(Look::Elsewhere(owner)) if !stands => {
                told = true;
                report(&myself, Input::Looked(Look::Elsewhere(owner)));
            }
            Some(Look::Elsewhere(_)) => return report(&myself, Input::Looked(Look::Free { open: true, end })),
            Some(look) => return report(&myself, Input::Looked(look)),
            None => {}
        }
        let mut view = surroundings.view.clone();
        view.mark_unchanged();
        // A new view may say that the owner is dead. A node without one any more is about to end.
        let _ = tokio::time::timeout(LOOK_EVERY, view.changed()).await;
    }
}

async fn look_once(
    surroundings: &Surroundings,
    conversation: ConversationId,
    me: &PeerId,
) -> Result<(Option<Look>, Option<LogEnd>), StoreError> {
    let log = surroundings.store.log(conversation).await?;
    let Some(last) = log.entries.last() else { return Ok((Some(Look::Absent), None)) };
    let end = LogEnd { position: last.position, token: last.token };
    let state = State::replay(&log.entries);
    let (open, untold) = (!state.open.is_empty(), !state.untold.is_empty());
    let alive = state.claimed_by.filter(|_| open).and_then(|by| {
        let owner = PeerId { name: by.node.into(), incarnation: by.incarnation };
        let view = surroundings.view.borrow();
        // In an older view than that of its claim it may not be there yet; and a node that is in no view itself knows of
        // nobody that they are dead.
        let alive = view.has(&owner) || view.number() < by.view || !view.has(me);
        (owner != *me && alive).then_some(owner)
    });
    // An end that is untold must be claimed for, and holds nobody off: it may wait for hours, and its owner with it.
    let open = open || untold;
    Ok((Some(alive.map_or(Look::Free { open, end: Some(end) }, Look::Elsewhere)), Some(end)))
}

/// Writes the claim first and reads after: from then on nobody older can add to what was read. None, and nothing is
/// written, where the log does not end any more as it was looked at.
async fn claim(
    store: &dyn Store,
    fixed: &Fixed,
    now_ms: u64,
    looked: Option<LogEnd>,
) -> Result<Option<Found>, StoreError> {
    let conversation = fixed.conversation;
    for _ in 0..CLAIMS_MAX {
        let Some(last) = store.log_end(conversation).await? else { return Ok(Some(Found::Absent)) };
        if looked.is_some_and(|looked| looked != last) {
            return Ok(None);
        }
        let position = last.position.claim();
        let Fixed { node, incarnation, view, .. } = fixed.clone();
        let claimed = Event::Claimed { node, incarnation, view };
        let entry = Entry { position, token: fixed.token, at_ms: now_ms, events: vec![claimed] };
        let mine = LogEnd { position, token: fixed.token };
        match store.append(conversation, Arc::new(entry)).await {
            Ok(()) => return read(store, fixed, mine).await.map(Some),
            Err(StoreError::Unknown(_)) if store.log_end(conversation).await? == Some(mine) => {
                return read(store, fixed, mine).await.map(Some);
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
    let has_snapshot = log.entries.first().is_some_and(is_snapshot);
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

/// An append under way. Dropped untold, something broke that was to tell, and the conversation starts again from the log.
pub(super) struct Appended {
    /// Whom to tell.
    myself: Option<Me>,
    spans: Vec<Traced>,
    /// What they are parts of, which is not over before.
    turns: Vec<Traced>,
}

impl Appended {
    /// A part of these turns.
    pub(super) fn new(myself: Me, turns: Vec<Traced>) -> Self {
        Self { myself: Some(myself), spans: turns.iter().map(|turn| turn.child("append")).collect(), turns }
    }

    pub(super) fn tell(mut self, outcome: Result<(), StoreError>) {
        metrics::appended(&outcome);
        self.report(match outcome {
            Ok(()) => Input::Appended,
            Err(error) => Input::NotAppended(error),
        });
    }

    fn report(&mut self, input: Input<Reply>) {
        // Over before its turn is, which may end with the report.
        self.spans.clear();
        self.turns.clear();
        if let Some(myself) = self.myself.take() {
            report(&myself, input);
        }
    }
}

impl Drop for Appended {
    fn drop(&mut self) {
        if let Some(myself) = &self.myself {
            let _ = myself.cast(ConversationMessage::TaskPanicked);
        }
    }
}

/// The rows before the entry.
pub(super) async fn append(
    mut done: Appended,
    store: Arc<dyn Store>,
    conversation: ConversationId,
    entry: Arc<Entry>,
    rows: Vec<Row>,
) {
    for row in rows {
        if let Err(error) = write_row(&*store, conversation, row).await {
            // The entry itself was not sent, so its outcome is known.
            return done.report(Input::NotAppended(StoreError::Unavailable(error.to_string())));
        }
    }
    done.tell(store.append(conversation, entry).await);
}

/// Rows written by themselves are hints: one that is lost costs a look at a conversation, or a row too many.
pub(super) async fn write(store: Arc<dyn Store>, conversation: ConversationId, row: Row) {
    if let Err(error) = write_row(&*store, conversation, row).await {
        tracing::warn!(conversation.id = %conversation, %error, "a row by which a conversation is found was not written");
    }
}

pub(super) async fn remove_open_row(myself: Me, store: Arc<dyn Store>, conversation: ConversationId, end: LogEnd) {
    let epoch = end.position.epoch;
    write(store.clone(), conversation, Row::NotOpen { epoch }).await;
    // A store that went back has lost the turn's end: it is open again. A row too many is harmless.
    if store.log_end(conversation).await != Ok(Some(end)) {
        write(store, conversation, Row::Open { epoch }).await;
    }
    report(&myself, Input::OpenRowRemoved);
}

async fn write_row(store: &dyn Store, conversation: ConversationId, row: Row) -> Result<(), StoreError> {
    match row {
        Row::Index(row) => store.index_add(row).await,
        Row::Unindex(row) => store.index_remove(row).await,
        Row::Open { epoch } => store.open_add(conversation.shard(), OpenRow { conversation, epoch }).await,
        Row::NotOpen { epoch } => store.open_remove(conversation.shard(), OpenRow { conversation, epoch }).await,
        Row::Due { at_ms } => store.due_add(at_ms, conversation).await,
    }
}

/// Once more where the store does not say: what waits for its webhooks rests on this row.
pub(super) async fn put_off(myself: Me, store: Arc<dyn Store>, conversation: ConversationId, at_ms: u64) {
    let mut written = store.due_add(at_ms, conversation).await;
    if written.is_err() {
        written = store.due_add(at_ms, conversation).await;
    }
    report(&myself, Input::PutOff(written));
}

/// A boundary that panics has told nobody.
pub(super) async fn tell(myself: Me, webhooks: Arc<dyn Webhooks>, webhook: WebhookId, end: End) {
    let turn = end.untold.turn;
    let telling = AssertUnwindSafe(async { webhooks.tell(webhook, end).await }).catch_unwind().await;
    let told = telling.unwrap_or_else(|_| Err(NotTold("the call panicked".into())));
    report(&myself, Input::Told { webhook, turn, told });
}

pub(super) async fn read_end(myself: Me, store: Arc<dyn Store>, conversation: ConversationId) {
    report(&myself, Input::EndRead(store.log_end(conversation).await));
}

pub(super) async fn check_end(myself: Me, store: Arc<dyn Store>, conversation: ConversationId) {
    report(&myself, Input::EndChecked(store.log_end(conversation).await));
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
    span: Traced,
) {
    let _until_its_last_word = span;
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

pub(super) async fn wake_for(myself: Me, after: Duration, input: impl FnOnce() -> Input<Reply>) {
    tokio::time::sleep(after).await;
    report(&myself, input());
}

pub(super) async fn read_turn(reader: Reader, conversation: ConversationId, turn: u64, replayed: bool, reply: Reply) {
    let read = async {
        let state = Arc::new(reader.state(conversation).await?);
        reader.turn(conversation, &state, turn).await
    };
    let answer = match read.await {
        Ok(Some(turn)) => Ok(Answer::Turn { turn: Arc::new(turn), replayed }),
        Ok(None) => Err(Refusal::NotFound(Missing::Response)),
        Err(error) => Err(Refusal::from(error)),
    };
    // Who asked may have gone away.
    let _ = reply.send(answer);
}
