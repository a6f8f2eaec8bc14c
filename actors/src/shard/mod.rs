//! One shard: starts its conversations on their first message and supervises them. The gateway starts it, the node
//! supervises it; a crash of it costs its conversations their turns in flight.
//!
//! It never waits for a conversation: limits and passivation are the gateway's wish and the conversation's word.

pub mod decide;

use std::collections::HashMap;
use std::sync::Arc;

use klatch_protocol::{ConversationId, Shard};
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, MessagingErr, SupervisionEvent};

use crate::conversation::{
    Arguments as ConversationArguments, ConversationActor, ConversationMessage, NOT_ACTIVATED, Reply, Surroundings,
    UNFINISHED,
};
use crate::gateway::GatewayMessage;
use crate::metrics;
use crate::request::Request;
use decide::{Effect, End, Held, Input};

pub enum ShardMessage {
    Ask(ConversationId, Request, Option<Reply>),
    Passivate(ConversationId),
    WantsToClose(ConversationId),
    StillBusy(ConversationId),
    BackoffOver(ConversationId),
}

/// Never leaves this node.
impl ractor::Message for ShardMessage {}

pub struct ShardActor;

pub struct Arguments {
    pub shard: Shard,
    pub surroundings: Arc<Surroundings>,
    pub gateway: ActorRef<GatewayMessage>,
}

pub struct State {
    arguments: Arguments,
    core: decide::Shard<Reply>,
    actors: HashMap<ConversationId, ActorRef<ConversationMessage>>,
    ids: HashMap<ActorId, ConversationId>,
}

impl Actor for ShardActor {
    type Msg = ShardMessage;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, arguments: Arguments) -> Result<State, ActorProcessingErr> {
        let held_max = arguments.surroundings.limits.waiting_per_conversation;
        Ok(State { arguments, core: decide::Shard::new(held_max), actors: HashMap::new(), ids: HashMap::new() })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        if let ShardMessage::StillBusy(conversation) = &message
            && let Some(actor) = state.actors.get(conversation)
        {
            state.arguments.surroundings.routes.add(*conversation, actor.clone());
        }
        let input = match message {
            ShardMessage::Ask(conversation, request, reply) => Input::Ask(conversation, Held { request, reply }),
            ShardMessage::Passivate(conversation) => Input::Passivate(conversation),
            ShardMessage::WantsToClose(conversation) => Input::WantsToClose(conversation),
            ShardMessage::StillBusy(conversation) => Input::StillBusy(conversation),
            ShardMessage::BackoffOver(conversation) => Input::BackoffOver(conversation),
        };
        state.happened(&myself, input).await
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let (actor, end) = match &event {
            SupervisionEvent::ActorTerminated(cell, _, why) => (cell.get_id(), end(why.as_deref())),
            SupervisionEvent::ActorFailed(cell, error) => {
                tracing::error!(shard.id = state.arguments.shard.0, %error, "a conversation crashed");
                metrics::conversation_crashed();
                (cell.get_id(), End::Crashed)
            }
            _ => return Ok(()),
        };
        let Some(conversation) = state.ids.remove(&actor) else { return Ok(()) };
        state.actors.remove(&conversation);
        state.arguments.surroundings.routes.remove(conversation);
        metrics::conversation_ended(end);
        state.happened(&myself, Input::Ended(conversation, end)).await
    }
}

impl State {
    async fn happened(
        &mut self,
        myself: &ActorRef<ShardMessage>,
        input: Input<Reply>,
    ) -> Result<(), ActorProcessingErr> {
        let mut effects = self.core.decide(input);
        while !effects.is_empty() {
            let mut more = Vec::new();
            for effect in effects {
                more.extend(self.carry_out(myself, effect).await?);
            }
            effects = more;
        }
        Ok(())
    }

    async fn carry_out(
        &mut self,
        myself: &ActorRef<ShardMessage>,
        effect: Effect<Reply>,
    ) -> Result<Vec<Effect<Reply>>, ActorProcessingErr> {
        match effect {
            Effect::Start { conversation, crashes } => self.start(myself, conversation, crashes).await?,
            Effect::Pass(conversation, held) => return Ok(self.pass(conversation, held)),
            Effect::Close(conversation) => {
                self.arguments.surroundings.routes.remove(conversation);
                if let Some(actor) = self.actors.get(&conversation) {
                    // One that is gone already is reported as ended.
                    let _ = actor.cast(ConversationMessage::Close);
                }
            }
            Effect::Refuse(held, refusal) => {
                if let Some(reply) = held.reply {
                    let _ = reply.send(Err(refusal));
                }
            }
            Effect::WakeAfter(conversation, after) => {
                myself.send_after(after, move || ShardMessage::BackoffOver(conversation));
            }
            Effect::Gone(conversation) => self.arguments.gateway.cast(GatewayMessage::Left(conversation))?,
        }
        Ok(Vec::new())
    }

    async fn start(
        &mut self,
        myself: &ActorRef<ShardMessage>,
        conversation: ConversationId,
        crashes: u32,
    ) -> Result<(), ActorProcessingErr> {
        let surroundings = self.arguments.surroundings.clone();
        let arguments = ConversationArguments { conversation, surroundings, shard: myself.clone(), crashes };
        let (actor, _) = Actor::spawn_linked(None, ConversationActor, arguments, myself.get_cell()).await?;
        self.arguments.gateway.cast(GatewayMessage::Entered(conversation))?;
        self.ids.insert(actor.get_id(), conversation);
        self.arguments.surroundings.routes.add(conversation, actor.clone());
        self.actors.insert(conversation, actor);
        Ok(())
    }

    fn pass(&mut self, conversation: ConversationId, held: Held<Reply>) -> Vec<Effect<Reply>> {
        let message = ConversationMessage::Ask(held.request, held.reply);
        let Some(actor) = self.actors.get(&conversation) else { return Vec::new() };
        match actor.cast(message) {
            Err(MessagingErr::SendErr(ConversationMessage::Ask(request, reply))) => {
                self.core.decide(Input::NotDelivered(conversation, Held { request, reply }))
            }
            Ok(()) | Err(_) => Vec::new(),
        }
    }
}

/// By the reason with which the conversation stopped.
fn end(why: Option<&str>) -> End {
    match why {
        Some(NOT_ACTIVATED) => End::NotActivated,
        Some(UNFINISHED) => End::Unfinished,
        Some(_) | None => End::Idle,
    }
}
