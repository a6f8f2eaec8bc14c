//! What a conversation does when something happens to it. Pure: no clock, no store, no responder, no randomness; `now`
//! is passed in, and everything else comes back as an [`Input`].
//!
//! One rule carries the rest: an event is staged (applied to the state and owed to the log) at once, at most one append
//! is in flight, and nobody is told anything before the append that holds it is durable. Where an append fails for
//! good, the whole memory is given up and the log is read again.
//!
//! This file holds the types and the way through; `activating.rs` is the way into memory, `plan.rs` turns requests into events, `running.rs` drives the turn
//! at the head of the queue, `saving.rs` brings what is staged into the log and tells those who wait, `telling.rs` tells
//! webhooks of the ends of turns.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use klatch_protocol::event::Attempt;
use klatch_protocol::state::Key;
use klatch_protocol::{ClaimToken, ConversationId, Entry, Event, Item, Mark, State, Turn, WebhookId};

use super::activating::ActivatingStep;
use super::saving::size;
use super::telling::{Telling, Why};
use super::window::Window;
use crate::limits::Limits;
use crate::peers::PeerId;
use crate::request::{Answer, Full, Refusal, Request};
use crate::responder::{Answered, Ask, ResponderError, Said};
use crate::store::{Compaction, IndexRow, LogEnd, StoreError};
use crate::trace::Traced;
use crate::webhooks::{End, NotTold, Webhook};

/// What is fixed for one activation.
#[derive(Clone, Debug)]
pub struct Fixed {
    pub conversation: ConversationId,
    pub node: String,
    pub incarnation: u64,
    /// Number of a view in which it stands.
    pub view: u64,
    pub token: ClaimToken,
    pub limits: Arc<Limits>,
    pub catalog: Arc<Catalog>,
    /// Mostly none.
    pub webhooks: Arc<[Webhook]>,
    /// Conversations are looked at for expiry so long after their creation; none: only those with their own time.
    pub retention_ms: Option<u64>,
    /// How often the conversation crashed in a row before this activation.
    pub crashes: u32,
    /// Other nodes may own it: the log is looked at before it is claimed.
    pub shared: bool,
}

/// What deciding needs to know of the responders, by name.
pub type Catalog = BTreeMap<String, Traits>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traits {
    pub history_items: usize,
    /// The turn can be saved in a single append.
    pub at_once: bool,
}

/// In the order of a life. `R` is how an answer gets to who asked.
#[derive(Debug)]
pub enum Input<R> {
    Looked(Look),
    Activated(Found),
    NotActivated(StoreError),
    /// `admitted`: the node has room for another open turn.
    Asked {
        request: Request,
        reply: Option<R>,
        admitted: bool,
        /// The turn that is asked for; over when nobody holds it any more.
        traced: Traced,
    },
    HistoryLoaded {
        turn: u64,
        items: Result<Vec<Item>, StoreError>,
    },
    Said {
        turn: u64,
        attempt: u32,
        said: Result<Said, ResponderError>,
    },
    AnsweredAtOnce {
        turn: u64,
        answered: Answered,
    },
    BatchDue,
    /// A turn in the queue may have waited for longer than its client would.
    QueueDue,
    OpenRowRemoved,
    /// It is time to show that the owner of the running turn is at work.
    SignDue,
    Appended,
    NotAppended(StoreError),
    EndRead(Result<Option<LogEnd>, StoreError>),
    /// Asked for by [`Effect::CheckEnd`].
    EndChecked(Result<Option<LogEnd>, StoreError>),
    Compacted,
    NotCompacted(StoreError),
    /// A webhook heard of the end of a turn, or did not.
    Told {
        webhook: WebhookId,
        turn: u64,
        told: Result<(), NotTold>,
    },
    /// A webhook is to be tried again.
    TellingDue(WebhookId),
    /// Asked for by [`Effect::PutOff`].
    PutOff(Result<(), StoreError>),
    /// The shard wants it out of memory.
    Close,
}

/// What stands in the log before it is claimed.
#[derive(Debug, PartialEq, Eq)]
pub enum Look {
    Absent,
    /// It can be claimed, as long as it ends so. `open`: a turn is unfinished, or the end of one untold.
    Free {
        open: bool,
        end: Option<LogEnd>,
    },
    /// A turn is unfinished under an owner that is alive: it is told again when that changes.
    Elsewhere(PeerId),
}

/// What the claim found.
#[derive(Debug)]
pub enum Found {
    /// There is no such log: nothing was claimed.
    Absent,
    /// `entries` and `bytes`: of the log behind its last snapshot.
    Claimed { state: Box<State>, end: LogEnd, entries: usize, bytes: usize },
}

#[derive(Debug, PartialEq)]
pub enum Effect<R> {
    /// Look at the log again, for those who asked while it was looked at.
    Look,
    /// Claim the log, and read it.
    /// Where an end is given only a log that still ends so: else somebody else has come, and it is looked at again.
    Claim(Option<LogEnd>),
    /// Write the rows, then the entry.
    Append {
        entry: Arc<Entry>,
        rows: Vec<Row>,
        /// The turns that begin or end with it.
        traced: Vec<Traced>,
    },
    /// Write a row by itself.
    Write(Row),
    /// Remove the rows that say that a turn may be open, and tell when that is over, done or not. Where the log does not end
    /// so any more, they are put back.
    RemoveOpenRow {
        end: LogEnd,
    },
    /// Find out whether an append of unknown outcome was written.
    ReadEnd,
    /// Find out whether the log is this owner's still.
    CheckEnd,
    Compact {
        compaction: Box<Compaction>,
    },
    /// Items below `before`, newest `limit`.
    LoadHistory {
        turn: u64,
        before: u64,
        limit: usize,
    },
    Call(Box<Ask>),
    AnswerAtOnce(Box<Ask>),
    /// Drop the running call; its connection closes.
    StopCall,
    /// So many pieces are durable: the responder may be read on.
    Release(usize),
    WakeForBatch(Duration),
    WakeForSign(Duration),
    WakeForQueue(Duration),
    Reply(R, Result<Answer, Refusal>),
    /// The turn is finished and no longer in memory: read it and answer.
    ReadTurn {
        turn: u64,
        replayed: bool,
        reply: R,
    },
    /// A turn is over, for the metrics.
    TurnOver {
        model: Arc<str>,
        outcome: &'static str,
        took_ms: u64,
    },
    Tell {
        webhook: WebhookId,
        end: Box<End>,
    },
    WakeToTell {
        webhook: WebhookId,
        after: Duration,
    },
    /// For the log: it is tried again.
    NotTold {
        webhook: WebhookId,
        turn: u64,
        failures: u32,
        error: NotTold,
    },
    /// For the metrics and the log: the webhook will not hear of this end.
    GaveUpTelling {
        webhook: WebhookId,
        turn: u64,
        why: Why,
        error: Option<NotTold>,
    },
    /// Write down that the conversation is to be looked at then, and tell when that is done.
    PutOff {
        at_ms: u64,
    },
    /// Ask the shard to be closed: there is nothing here worth keeping in memory.
    AskToClose,
    /// The shard's wish cannot be granted now.
    StillBusy,
    /// Everything is saved: stop.
    Closed,
    /// Stop without saving: the store, or another owner, has the truth.
    GiveUp(GivenUp),
}

/// What a conversation that is given up leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenUp {
    /// The log could not be claimed or read; whether a turn is open is not known.
    NotActivated,
    /// A turn is open, and is to be taken up again.
    Unfinished,
    Idle,
}

/// Rows by which a conversation is found, written before the event that needs them or removed after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    Index(IndexRow),
    Unindex(IndexRow),
    Open { epoch: u64 },
    NotOpen { epoch: u64 },
    Due { at_ms: u64 },
}

pub struct Conversation<R> {
    pub(super) fixed: Fixed,
    phase: Phase<R>,
    /// See [`Conversation::all_read_untold`].
    pub(super) all_read: bool,
}

pub(super) enum Phase<R> {
    Activating {
        step: ActivatingStep,
        waiting: Vec<Waiting<R>>,
    },
    Serving(Box<Serving<R>>),
    /// Given up or closed: what still comes is refused.
    Fenced,
}

pub(super) struct Waiting<R> {
    pub request: Request,
    pub reply: Option<R>,
    pub admitted: bool,
    pub traced: Traced,
}

/// An activated conversation.
pub(super) struct Serving<R> {
    pub fixed: Fixed,
    /// With all staged events applied.
    pub state: State,
    /// Roughly what the state holds of items and turns: counted with each event, and anew when they are moved out.
    pub hot_bytes: usize,
    /// Beginnings of keys that may be known: nearly all that are asked for are new, and a thousand are long to look through.
    pub known_keys: HashSet<u64>,
    /// The durable end; none while there is no log.
    pub end: Option<LogEnd>,
    pub tail_entries: usize,
    pub tail_bytes: usize,
    pub staged: Staged<R>,
    pub saving: Saving<R>,
    pub running: Option<Running>,
    /// What of each unfinished turn is durable, and so may be shown.
    pub shown: BTreeMap<u64, Mark>,
    pub waits: Vec<EndWait<R>>,
    pub watchers: Vec<Watcher<R>>,
    /// Of the request that is decided about.
    pub asking: Traced,
    /// Of open turns, and of those whose end is not sent to the log yet.
    pub traced: BTreeMap<u64, Traced>,
    pub traced_over: Vec<Traced>,
    /// Turns whose answers were lost on the way: fingerprint, turn, when.
    pub undelivered: Vec<([u8; 16], u64, u64)>,
    pub window: Option<Window>,
    pub telling: Telling,
    /// This activation has written the row: a turn accepted now is found by it.
    pub open_row: bool,
    /// There may be a row, of an earlier activation: to be removed, and not to be relied on.
    pub stale_row: bool,
    /// Its row is being removed: a successor that writes its own must come after.
    pub removing_row: bool,
    /// A wake for the next sign is under way; the durable end when it was asked for.
    pub sign: Option<Option<LogEnd>>,
    pub closing: bool,
    pub out: Vec<Effect<R>>,
}

/// Events applied but not sent, and who is told once they are durable.
pub(super) struct Staged<R> {
    pub events: Vec<Event>,
    pub owed: Vec<Owed<R>>,
    pub rows: Vec<Row>,
    /// Fixed with the first event, so that the state and its replay agree.
    pub at_ms: Option<u64>,
    /// Pieces among the events.
    pub pieces: usize,
}

pub(super) enum Owed<R> {
    Answer(R, Answer),
    /// What only who still owns the conversation can know, or what rests on events that are not durable yet.
    Refusal(R, Refusal),
    /// The turn as it is when the append is durable.
    Turn {
        reply: R,
        turn: u64,
        /// It was there already.
        replayed: bool,
    },
}

pub(super) enum Saving<R> {
    Nothing,
    Append(InFlight<R>),
    Compact { end: LogEnd },
}

pub(super) struct InFlight<R> {
    pub entry: Arc<Entry>,
    /// It was sent again after an unknown outcome, so the first of the two may still arrive.
    pub sent_again: bool,
    pub owed: Vec<Owed<R>>,
    pub marks: Vec<(u64, Mark)>,
    pub pieces: usize,
    /// To be removed once it is durable.
    pub rows: Vec<Row>,
}

/// The turn at the head of the queue, once its attempt is staged.
pub(super) struct Running {
    pub turn: u64,
    pub attempt: Attempt,
    pub step: RunningStep,
    /// Said but not staged.
    pub unsaved: Vec<Said>,
    /// Calls among them.
    pub unsaved_calls: usize,
    /// Of the reply so far, unsaved text included.
    pub reply_bytes: usize,
    pub batched_ms: u64,
    pub wake_set: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunningStep {
    /// The attempt's record is not durable yet.
    Recording,
    LoadingHistory,
    Calling,
    /// The answer comes within this very message; nothing is saved before it.
    AnsweringAtOnce,
}

/// Wants the turn's end.
pub(super) struct EndWait<R> {
    pub turn: u64,
    pub replayed: bool,
    pub reply: R,
}

pub(super) struct Watcher<R> {
    pub turn: u64,
    pub have: Mark,
    pub bytes_max: usize,
    pub reply: R,
}

impl<R> Conversation<R> {
    /// Activating: whoever makes it has the log looked at and comes back with [`Input::Looked`], where it is shared; else
    /// has it claimed and read and comes back with [`Input::Activated`].
    pub fn new(fixed: Fixed) -> Self {
        let step = if fixed.shared { ActivatingStep::Looking { covers: 0 } } else { ActivatingStep::Claiming };
        Self { fixed, phase: Phase::Activating { step, waiting: Vec::new() }, all_read: false }
    }

    pub fn decide(&mut self, now_ms: u64, input: Input<R>) -> Vec<Effect<R>> {
        let phase = std::mem::replace(&mut self.phase, Phase::Fenced);
        let (phase, effects) = match phase {
            Phase::Activating { step, waiting } => self.activating(now_ms, step, waiting, input),
            Phase::Serving(serving) => serving.decide(now_ms, input),
            Phase::Fenced => (Phase::Fenced, refuse_input(input)),
        };
        self.phase = phase;
        effects
    }

    /// Whether all nodes read a log that holds ends to be told; to be said before each input that may end a turn.
    pub fn all_read_untold(&mut self, all_read: bool) {
        self.all_read = all_read;
        if let Phase::Serving(serving) = &mut self.phase {
            serving.telling.all_read = all_read;
        }
    }

    /// Roughly what it holds in memory, in bytes, for the node's limit.
    pub fn bytes(&self) -> usize {
        match &self.phase {
            Phase::Serving(serving) => serving.bytes(),
            Phase::Activating { .. } | Phase::Fenced => 0,
        }
    }

    /// Open turns now, for the node's limit.
    pub fn open_turns(&self) -> usize {
        match &self.phase {
            Phase::Serving(serving) => serving.state.open.len(),
            Phase::Activating { .. } | Phase::Fenced => 0,
        }
    }

    /// Whether what is asked still waits for the log.
    pub fn is_activating(&self) -> bool {
        matches!(self.phase, Phase::Activating { .. })
    }

    /// When the oldest open turn was accepted, in ms since 1970.
    pub fn oldest_turn_ms(&self) -> Option<u64> {
        match &self.phase {
            Phase::Serving(serving) => serving.state.open.front().map(|turn| turn.accepted.at_ms),
            Phase::Activating { .. } | Phase::Fenced => None,
        }
    }
}

impl<R> Serving<R> {
    pub(super) fn new(fixed: Fixed, found: Found) -> Self {
        let (state, end, tail_entries, tail_bytes) = match found {
            Found::Absent => (State::default(), None, 0, 0),
            Found::Claimed { state, end, entries, bytes } => (*state, Some(end), entries, bytes),
        };
        let shown = state.open.iter().map(|turn| (turn.accepted.turn, turn.mark())).collect();
        Self {
            fixed,
            open_row: false,
            // Whoever has an open turn was found by its row, or has one: removed when it is closed.
            stale_row: !state.open.is_empty() || !state.untold.is_empty(),
            removing_row: false,
            hot_bytes: state.hot_bytes(),
            known_keys: state.keys.iter().map(|key| beginning(&key.used.key)).collect(),
            telling: Telling::of(&state.untold),
            state,
            end,
            tail_entries,
            tail_bytes,
            staged: Staged::default(),
            saving: Saving::Nothing,
            running: None,
            shown,
            waits: Vec::new(),
            watchers: Vec::new(),
            undelivered: Vec::new(),
            window: None,
            sign: None,
            asking: Traced::default(),
            traced: BTreeMap::new(),
            traced_over: Vec::new(),
            closing: false,
            out: Vec::new(),
        }
    }

    pub(super) fn begin(mut self: Box<Self>, now_ms: u64, waiting: Vec<Waiting<R>>) -> (Phase<R>, Vec<Effect<R>>) {
        // What waited must find an unfinished turn running: it may want to stop it.
        self.start_next(now_ms);
        for asked in waiting {
            self.asked(now_ms, asked);
        }
        if self.fixed.shared && self.end.is_none() && self.staged.events.is_empty() {
            // Known for those only who asked before it was looked at.
            return (Phase::Activating { step: ActivatingStep::Absent, waiting: Vec::new() }, self.out);
        }
        self.advance(now_ms);
        self.phase()
    }

    fn decide(mut self: Box<Self>, now_ms: u64, input: Input<R>) -> (Phase<R>, Vec<Effect<R>>) {
        match input {
            // It comes past the shard, which holds what comes now: nothing may begin while its row is being removed.
            Input::Asked { reply, .. } if self.closing => {
                self.out.extend(reply.map(|reply| refuse(reply, Refusal::Moved)));
            }
            Input::Asked { request, reply, admitted, traced } => {
                self.asked(now_ms, Waiting { request, reply, admitted, traced });
            }
            Input::HistoryLoaded { turn, items } => self.history_loaded(now_ms, turn, items),
            Input::Said { turn, attempt, said } => self.said(now_ms, turn, attempt, said),
            Input::AnsweredAtOnce { turn, answered } => self.answered_at_once(now_ms, turn, answered),
            Input::BatchDue => self.batch_due(),
            Input::OpenRowRemoved => self.removing_row = false,
            Input::SignDue => self.sign_due(now_ms),
            Input::QueueDue => self.queue_due(now_ms),
            Input::Appended => self.appended(),
            Input::NotAppended(error) => self.not_appended(error),
            Input::EndRead(end) => self.end_read(end),
            Input::EndChecked(end) => self.end_checked(end),
            Input::Compacted => self.compacted(),
            Input::NotCompacted(error) => self.not_compacted(error),
            Input::Told { webhook, turn, told } => self.told(now_ms, webhook, turn, told),
            Input::TellingDue(webhook) => self.telling_due(webhook),
            Input::PutOff(written) => self.put_off(written),
            Input::Close => self.close(now_ms),
            Input::Looked(_) | Input::Activated(_) | Input::NotActivated(_) => unreachable!("it is activated once"),
        }
        if !self.gave_up() {
            self.advance(now_ms);
        }
        self.phase()
    }

    /// Whatever has become possible: begin the next turn, tell of an end, save what is staged, compact, close.
    fn advance(&mut self, now_ms: u64) {
        self.start_next(now_ms);
        self.stage_batch(now_ms);
        self.tell_ends(now_ms);
        self.flush(now_ms);
        self.finish_closing();
    }

    fn phase(mut self: Box<Self>) -> (Phase<R>, Vec<Effect<R>>) {
        let out = std::mem::take(&mut self.out);
        let over = out.iter().any(|effect| matches!(effect, Effect::Closed | Effect::GiveUp(_)));
        (if over { Phase::Fenced } else { Phase::Serving(self) }, out)
    }

    pub(super) fn gave_up(&self) -> bool {
        self.out.iter().any(|effect| matches!(effect, Effect::GiveUp(_)))
    }

    fn bytes(&self) -> usize {
        let keys = self.state.keys.len() * std::mem::size_of::<klatch_protocol::state::Key>();
        let untold = self.state.untold.len() * std::mem::size_of::<klatch_protocol::Untold>();
        self.hot_bytes + self.window.as_ref().map_or(0, Window::bytes) + keys + untold
    }

    /// Refuses at once, but for what rests on events that may never become durable: a deletion, the use of a key.
    pub(super) fn refuse(&mut self, reply: Option<R>, refusal: Refusal) {
        let Some(reply) = reply else { return };
        let rests = matches!(refusal, Refusal::NotFound(_) | Refusal::KeyReused);
        if rests && !(self.staged.events.is_empty() && self.is_saved()) {
            self.staged.owed.push(Owed::Refusal(reply, refusal));
        } else {
            self.out.push(refuse(reply, refusal));
        }
    }

    /// Applies the event and owes it to the log.
    pub(super) fn stage(&mut self, now_ms: u64, event: Event) {
        let at_ms = *self.staged.at_ms.get_or_insert(now_ms);
        self.state.apply(&event, at_ms);
        self.hot_bytes += self.grows_by(&event);
        self.known_keys.extend(event.key().map(beginning));
        if let Some(window) = &mut self.window {
            window.follow(&event, &self.state);
        }
        self.staged.events.push(event);
    }

    /// By an event that was applied.
    fn grows_by(&self, event: &Event) -> usize {
        match event {
            // Its items stand in the conversation now too.
            Event::TurnEnded { turn, .. } => self.state.turns.get(turn).map_or(0, Turn::bytes),
            event => size(event),
        }
    }

    /// What was done under the key, if anything was.
    pub(super) fn key(&self, key: &[u8; 16]) -> Option<&Key> {
        self.known_keys.contains(&beginning(key)).then(|| self.state.key(key)).flatten()
    }

    pub(super) fn traits(&self, model: &str) -> Option<Traits> {
        self.fixed.catalog.get(model).copied()
    }
}

/// Keys are hashes: their beginnings are as good as they are for telling most of them apart.
pub(super) fn beginning(key: &[u8; 16]) -> u64 {
    let [beginning, _] = *key.as_chunks::<8>().0 else { unreachable!("sixteen bytes are two times eight") };
    u64::from_be_bytes(beginning)
}

impl<R> Default for Staged<R> {
    fn default() -> Self {
        Self { events: Vec::new(), owed: Vec::new(), rows: Vec::new(), at_ms: None, pieces: 0 }
    }
}

/// What reaches a conversation after its end is told to come again; the next activation will know.
fn refuse_input<R>(input: Input<R>) -> Vec<Effect<R>> {
    match input {
        Input::Asked { reply: Some(reply), .. } => vec![refuse(reply, Refusal::Moved)],
        _ => Vec::new(),
    }
}

pub(super) fn refuse<R>(reply: R, refusal: Refusal) -> Effect<R> {
    Effect::Reply(reply, Err(refusal))
}

/// Time after which a refused request may find room: about that of one turn.
const RETRY_AFTER_MS: u64 = 1_000;

pub(super) fn full(what: Full) -> Refusal {
    Refusal::Busy { what, retry_after_ms: RETRY_AFTER_MS }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Fenced(_) => Refusal::Moved,
            StoreError::Unknown(_) | StoreError::Unavailable(_) | StoreError::Damaged(_) => {
                Refusal::Unavailable(error.to_string())
            }
        }
    }
}
