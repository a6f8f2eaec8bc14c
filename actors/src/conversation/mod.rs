//! One conversation in memory. Its shard starts and supervises it; a crash costs the turn in flight, and the shard
//! starts it again from the log.
//!
//! Carries out what [`decide`] says and decides nothing. Store and responder are called in tasks that the state owns;
//! what they bring comes back as messages, so the mailbox is the only order there is.

mod activating;
pub mod decide;
mod plan;
mod running;
mod saving;
mod tasks;
mod telling;
#[cfg(test)]
mod tests;
mod window;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use klatch_protocol::{ConversationId, Shard, WebhookId, envelope};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::limits::Load;
use crate::membership::view::View;
use crate::metrics;
use crate::peers::PeerId;
use crate::reader::Reader;
use crate::request::{Answer, Refusal, Request};
use crate::responder::Responders;
use crate::routes::Routes;
use crate::shard::ShardMessage;
use crate::store::{LogEnd, Store};
use crate::trace::Traced;
use crate::webhooks::{Webhook, Webhooks};
use decide::{Conversation, Effect, Fixed, GivenUp, Input};

pub use telling::{UNTOLD_MAX, Why};

/// Why it stops, for its shard, where that matters. Travels with the end itself: a message of its own could come
/// after it.
pub const NOT_ACTIVATED: &str = "not activated";
pub const UNFINISHED: &str = "unfinished";

/// Where an answer goes. Dropped without one, it tells the asker that the conversation crashed.
pub struct Reply {
    to: oneshot::Sender<Result<Answer, Refusal>>,
    /// What the request is a part of.
    pub traced: Traced,
}

impl Reply {
    pub fn new(traced: Traced) -> (Self, oneshot::Receiver<Result<Answer, Refusal>>) {
        let (to, answer) = oneshot::channel();
        (Self { to, traced }, answer)
    }

    /// Gives the answer back where nobody waits for it any more.
    pub fn send(self, answer: Result<Answer, Refusal>) -> Result<(), Result<Answer, Refusal>> {
        self.to.send(answer)
    }
}

/// `now` in ms since 1970, for display and retention.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The system's wall clock.
// The one place where the machine's clock comes in; simulations hand in another.
#[allow(clippy::disallowed_methods)]
pub fn system_clock() -> Clock {
    Arc::new(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64))
}

pub enum ConversationMessage {
    Ask(Request, Option<Reply>),
    /// From the shard: stop if nothing is left to do.
    Close,
    /// From this conversation's own tasks.
    Happened(Input<Reply>),
    /// One of them panicked: what it was to bring will never come.
    TaskPanicked,
}

/// Never leaves this node.
impl ractor::Message for ConversationMessage {}

/// What a conversation works with; shared by all of a node.
pub struct Surroundings {
    pub node: Arc<str>,
    /// Of this life: a node that was declared dead goes on as a later one.
    pub incarnation: AtomicU64,
    /// Other nodes use the same store.
    pub shared: bool,
    pub view: watch::Receiver<View>,
    pub store: Arc<dyn Store>,
    pub reader: Reader,
    pub responders: Arc<Responders>,
    pub catalog: Arc<decide::Catalog>,
    /// None where none is configured: nothing is ever told then.
    pub telling: Option<TellingTo>,
    pub limits: Arc<crate::Limits>,
    pub retention_ms: Option<u64>,
    pub load: Arc<Load>,
    pub routes: Routes,
    pub clock: Clock,
}

/// The webhooks of a node, and what deciding needs to know of them.
pub struct TellingTo {
    pub webhooks: Arc<dyn Webhooks>,
    pub all: Arc<[Webhook]>,
}

impl Surroundings {
    /// This node, as it is now.
    pub fn me(&self) -> PeerId {
        PeerId { name: self.node.clone(), incarnation: self.incarnation.load(Ordering::SeqCst) }
    }

    /// Whether the shard is this node's, by the view that it knows.
    pub fn owns(&self, shard: Shard) -> bool {
        self.view.borrow().owner(shard) == Some(self.me())
    }

    /// Whether what webhooks are to be told may be written: every node reads it. A view without nodes says nothing.
    fn all_read_untold(&self) -> Option<bool> {
        let format = if self.shared { self.view.borrow().format() } else { envelope::READS };
        (format > 0).then_some(format >= envelope::UNTOLD)
    }

    /// For the metrics: how many turns are open, and for how long the oldest of them.
    pub fn tell_load(&self) {
        metrics::open_turns(self.load.open_turns());
        let oldest_ms = self.load.oldest_turn_ms();
        metrics::oldest_turn(oldest_ms.map(|since_ms| (self.clock)().saturating_sub(since_ms)));
    }
}

pub struct ConversationActor;

pub struct Arguments {
    pub conversation: ConversationId,
    pub surroundings: Arc<Surroundings>,
    pub shard: ActorRef<ShardMessage>,
    /// Crashes in a row before this start.
    pub crashes: u32,
}

pub struct State {
    conversation: ConversationId,
    surroundings: Arc<Surroundings>,
    shard: ActorRef<ShardMessage>,
    core: Conversation<Reply>,
    fixed: Fixed,
    open_turns: usize,
    /// When the oldest of them was accepted.
    oldest_turn_ms: Option<u64>,
    bytes: usize,
    /// Until it serves, of the trace of the last turn that waits for that.
    activation: Traced,
    tasks: JoinSet<()>,
    call: Option<Call>,
}

/// A responder at work; aborting its task closes its connection.
struct Call {
    task: AbortHandle,
    /// One permit for each piece that it may be ahead of the log.
    room: Arc<Semaphore>,
}

impl Drop for State {
    fn drop(&mut self) {
        self.surroundings.load.turns_changed(self.open_turns, 0);
        self.surroundings.load.oldest_turn_changed(self.oldest_turn_ms, None);
        self.surroundings.load.bytes_changed(self.bytes, 0);
    }
}

impl Actor for ConversationActor {
    type Msg = ConversationMessage;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, arguments: Arguments) -> Result<State, ActorProcessingErr> {
        let Arguments { conversation, surroundings, shard, crashes } = arguments;
        let me = surroundings.me();
        let fixed = Fixed {
            conversation,
            node: me.name.to_string(),
            incarnation: me.incarnation,
            view: surroundings.view.borrow().number(),
            token: klatch_protocol::ClaimToken::random(),
            limits: surroundings.limits.clone(),
            catalog: surroundings.catalog.clone(),
            webhooks: surroundings.telling.as_ref().map(|telling| telling.all.clone()).unwrap_or_default(),
            retention_ms: surroundings.retention_ms,
            crashes,
            shared: surroundings.shared,
        };
        let core = Conversation::new(fixed.clone());
        let (tasks, call) = (JoinSet::new(), None);
        let mut state = State {
            conversation,
            surroundings,
            shard,
            core,
            fixed,
            open_turns: 0,
            oldest_turn_ms: None,
            activation: Traced::default(),
            bytes: 0,
            tasks,
            call,
        };
        if state.surroundings.shared {
            state.look(&myself);
        } else {
            state.claim(&myself, None);
        }
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let input = match message {
            ConversationMessage::Ask(request, reply) => {
                let Surroundings { load, limits, .. } = &*state.surroundings;
                let admitted = load.open_turns() < limits.turns_in_flight && load.bytes() / 2 < limits.active_bytes;
                let traced = match (&request, &reply) {
                    (Request::Submit(_), Some(reply)) => reply.traced.child("turn"),
                    _ => Traced::default(),
                };
                if !traced.is_none() && state.core.is_activating() {
                    state.activation = traced.child("activate");
                }
                Input::Asked { request, reply, admitted, traced }
            }
            ConversationMessage::Close => Input::Close,
            ConversationMessage::Happened(input) => input,
            ConversationMessage::TaskPanicked => return Err("a task of the conversation panicked".into()),
        };
        state.happened(&myself, input);
        Ok(())
    }
}

impl State {
    fn happened(&mut self, myself: &ActorRef<ConversationMessage>, input: Input<Reply>) {
        while self.tasks.try_join_next().is_some() {}
        if self.surroundings.telling.is_some()
            && let Some(all_read) = self.surroundings.all_read_untold()
        {
            self.core.all_read_untold(all_read);
        }
        let now_ms = (self.surroundings.clock)();
        let mut effects = VecDeque::from(self.core.decide(now_ms, input));
        while let Some(effect) = effects.pop_front() {
            if let Some(input) = self.carry_out(myself, effect) {
                // What was answered at once belongs before everything that was decided without it.
                for effect in self.core.decide(now_ms, input).into_iter().rev() {
                    effects.push_front(effect);
                }
            }
        }
        if !self.core.is_activating() {
            self.activation = Traced::default();
        }
        let open_turns = self.core.open_turns();
        self.surroundings.load.turns_changed(self.open_turns, open_turns);
        self.open_turns = open_turns;
        let oldest_turn_ms = self.core.oldest_turn_ms();
        self.surroundings.load.oldest_turn_changed(self.oldest_turn_ms, oldest_turn_ms);
        self.oldest_turn_ms = oldest_turn_ms;
        let bytes = self.core.bytes();
        self.surroundings.load.bytes_changed(self.bytes, bytes);
        self.bytes = bytes;
    }

    /// Carries the effect out; what it brings at once comes back.
    fn carry_out(&mut self, myself: &ActorRef<ConversationMessage>, effect: Effect<Reply>) -> Option<Input<Reply>> {
        let (myself, store, conversation) = (myself.clone(), self.surroundings.store.clone(), self.conversation);
        match effect {
            Effect::Look => self.look(&myself),
            Effect::Claim(looked) => self.claim(&myself, looked),
            Effect::Append { entry, rows, traced } => {
                // On its own: it is under way whatever becomes of the conversation, and the log tells what became of it.
                let done = tasks::Appended::new(myself.clone(), traced);
                match rows.is_empty() {
                    true => store.append_then(conversation, entry, Box::new(|outcome| done.tell(outcome))),
                    false => drop(tokio::spawn(tasks::append(done, store, conversation, entry, rows))),
                }
            }
            Effect::Write(row) => {
                // On its own, so that it outlives a conversation that is about to stop.
                tokio::spawn(tasks::write(store, conversation, row));
            }
            Effect::RemoveOpenRow { end } => {
                let remove = tasks::remove_open_row(myself.clone(), store, conversation, end);
                self.tasks.spawn(tasks::watched(myself, remove));
            }
            Effect::ReadEnd => {
                self.tasks.spawn(tasks::watched(myself.clone(), tasks::read_end(myself, store, conversation)));
            }
            Effect::CheckEnd => {
                self.tasks.spawn(tasks::watched(myself.clone(), tasks::check_end(myself, store, conversation)));
            }
            Effect::Compact { compaction } => {
                self.tasks
                    .spawn(tasks::watched(myself.clone(), tasks::compact(myself, store, conversation, *compaction)));
            }
            Effect::LoadHistory { turn, before, limit } => {
                let reader = self.surroundings.reader.clone();
                self.tasks.spawn(tasks::watched(
                    myself.clone(),
                    tasks::load_history(myself, reader, conversation, turn, before, limit),
                ));
            }
            Effect::Call(ask) => self.call(&myself, *ask),
            Effect::AnswerAtOnce(ask) => {
                let responder = self.surroundings.responders.get(&*ask.model);
                let _span = ask.traced.child("respond");
                let answered = responder.map(|responder| responder.answer(&ask)).unwrap_or_default();
                return Some(Input::AnsweredAtOnce { turn: ask.turn, answered });
            }
            Effect::StopCall => {
                if let Some(call) = self.call.take() {
                    call.task.abort();
                }
            }
            Effect::Release(pieces) => {
                if let Some(call) = &self.call {
                    call.room.add_permits(pieces);
                }
            }
            Effect::WakeForBatch(after) => {
                self.tasks.spawn(tasks::watched(myself.clone(), tasks::wake_for(myself, after, || Input::BatchDue)));
            }
            Effect::WakeForSign(after) => {
                self.tasks.spawn(tasks::watched(myself.clone(), tasks::wake_for(myself, after, || Input::SignDue)));
            }
            Effect::WakeForQueue(after) => {
                self.tasks.spawn(tasks::watched(myself.clone(), tasks::wake_for(myself, after, || Input::QueueDue)));
            }
            // Who asked may have gone away; that undoes nothing.
            Effect::Reply(reply, answer) => drop(reply.send(answer)),
            Effect::ReadTurn { turn, replayed, reply } => {
                let reader = self.surroundings.reader.clone();
                self.tasks.spawn(tasks::read_turn(reader, conversation, turn, replayed, reply));
            }
            Effect::TurnOver { model, outcome, took_ms } => metrics::turn_over(&model, outcome, took_ms),
            Effect::Tell { webhook, end } => {
                let Some(TellingTo { webhooks, .. }) = &self.surroundings.telling else { return None };
                self.tasks.spawn(tasks::tell(myself, webhooks.clone(), webhook, *end));
            }
            Effect::WakeToTell { webhook, after } => {
                let due = move || Input::TellingDue(webhook);
                self.tasks.spawn(tasks::watched(myself.clone(), tasks::wake_for(myself, after, due)));
            }
            Effect::NotTold { webhook, turn, failures, error } => {
                let response = conversation.response(turn);
                tracing::warn!(response.id = %response, webhook = self.name(webhook), failures, %error, "a webhook was not told of a turn's end; it is tried again");
            }
            Effect::GaveUpTelling { webhook, turn, why, error } => {
                metrics::gave_up_telling(why);
                let (response, error) = (conversation.response(turn), error.map(|error| error.to_string()));
                tracing::error!(response.id = %response, webhook = self.name(webhook), ?why, error, "a webhook will not be told of a turn's end");
            }
            Effect::PutOff { at_ms } => {
                let put_off = tasks::put_off(myself.clone(), store, conversation, at_ms);
                self.tasks.spawn(tasks::watched(myself, put_off));
            }
            Effect::AskToClose => self.to_shard(ShardMessage::WantsToClose(conversation)),
            Effect::StillBusy => self.to_shard(ShardMessage::StillBusy(conversation)),
            Effect::Closed | Effect::GiveUp(GivenUp::Idle) => myself.stop(None),
            Effect::GiveUp(GivenUp::NotActivated) => myself.stop(Some(NOT_ACTIVATED.into())),
            Effect::GiveUp(GivenUp::Unfinished) => myself.stop(Some(UNFINISHED.into())),
        }
        None
    }

    fn call(&mut self, myself: &ActorRef<ConversationMessage>, mut ask: crate::responder::Ask) {
        let Some(responder) = self.surroundings.responders.get(&*ask.model) else { return };
        let room = Arc::new(Semaphore::new(self.surroundings.limits.unsaved_pieces));
        let (turn, attempt) = (ask.turn, ask.attempt);
        // What the responder does in its turn is a part of this; it is over with the last word.
        let span = ask.traced.child("respond");
        ask.traced = span.clone();
        // Asked here and not in the task: a responder that panics on being asked takes the conversation with it, which
        // is counted against the turn.
        let said = responder.respond(ask);
        let task = self.tasks.spawn(tasks::listen(myself.clone(), said, room.clone(), turn, attempt, span));
        self.call = Some(Call { task, room });
    }

    fn look(&mut self, myself: &ActorRef<ConversationMessage>) {
        let look = tasks::look(myself.clone(), self.surroundings.clone(), self.conversation, self.fixed.incarnation);
        self.tasks.spawn(tasks::watched(myself.clone(), look));
    }

    fn claim(&mut self, myself: &ActorRef<ConversationMessage>, looked: Option<LogEnd>) {
        let activate = tasks::activate(myself.clone(), self.surroundings.clone(), self.fixed.clone(), looked);
        self.tasks.spawn(tasks::watched(myself.clone(), activate));
    }

    /// For logs.
    fn name(&self, webhook: WebhookId) -> &str {
        let known = self.fixed.webhooks.iter().find(|known| known.id == webhook);
        known.map_or("not configured here", |known| &known.name)
    }

    fn to_shard(&self, message: ShardMessage) {
        // A shard that is gone has taken its conversations with it.
        let _ = self.shard.cast(message);
    }
}
