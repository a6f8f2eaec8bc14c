//! Passes every request to its shard, and keeps the memory of this node within its limit. The node starts and
//! supervises it; without it the node ends.
//!
//! It looks into no request and holds no conversation.

pub mod decide;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use klatch_protocol::{ConversationId, Shard};
use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;

use crate::conversation::{Reply, Surroundings};
use crate::membership::decide::View;
use crate::metrics;
use crate::node::Status;
use crate::request::Request;
use crate::shard::{Arguments as ShardArguments, ShardActor, ShardMessage};
use decide::{Effect, Gateway, Input};

/// How often idle conversations are looked for.
const TICK: Duration = Duration::from_secs(1);

pub enum GatewayMessage {
    Ask(ConversationId, Request, Option<Reply>),
    /// A conversation is out of memory.
    Left(ConversationId),
    /// A shard crashed, and with it all its conversations.
    ShardGone(ActorId),
    View(View),
    Tick,
    Status(oneshot::Sender<Status>),
}

/// Never leaves this node.
impl ractor::Message for GatewayMessage {}

pub struct GatewayActor;

pub struct Arguments {
    pub surroundings: Arc<Surroundings>,
    /// Supervises the shards.
    pub node: ActorCell,
}

pub struct State {
    arguments: Arguments,
    core: Gateway,
    shards: HashMap<Shard, ActorRef<ShardMessage>>,
    started: Instant,
}

impl Actor for GatewayActor {
    type Msg = GatewayMessage;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, arguments: Arguments) -> Result<State, ActorProcessingErr> {
        let Surroundings { node, limits, .. } = &*arguments.surroundings;
        let core = Gateway::new(node.clone(), limits.active_conversations, limits.idle_after.as_millis() as u64);
        myself.send_interval(TICK, || GatewayMessage::Tick);
        Ok(State { arguments, core, shards: HashMap::new(), started: Instant::now() })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let input = match message {
            GatewayMessage::Ask(conversation, request, reply) => {
                let Surroundings { load, limits, .. } = &*state.arguments.surroundings;
                Input::Ask { conversation, request, reply, heavy: load.bytes() > limits.active_bytes }
            }
            GatewayMessage::Left(conversation) => Input::Left(conversation),
            GatewayMessage::ShardGone(actor) => match state.forget(actor) {
                Some(shard) => Input::ShardGone(shard),
                None => return Ok(()),
            },
            GatewayMessage::View(view) => Input::View(view),
            GatewayMessage::Tick => Input::Tick,
            GatewayMessage::Status(reply) => {
                // Who asked may have gone away.
                let _ = reply.send(state.status());
                return Ok(());
            }
        };
        let now_ms = state.started.elapsed().as_millis() as u64;
        for effect in state.core.decide(now_ms, input) {
            state.carry_out(&myself, effect).await?;
        }
        metrics::active_conversations(state.core.residents());
        Ok(())
    }
}

impl State {
    async fn carry_out(
        &mut self,
        myself: &ActorRef<GatewayMessage>,
        effect: Effect<Reply>,
    ) -> Result<(), ActorProcessingErr> {
        match effect {
            Effect::Pass { shard, conversation, request, reply } => {
                let shard = self.shard(myself, shard).await?;
                // A shard that has just crashed drops the reply, which tells the asker.
                let _ = shard.cast(ShardMessage::Ask(conversation, request, reply));
            }
            Effect::Passivate(conversation) => {
                if let Some(shard) = self.shards.get(&conversation.shard()) {
                    let _ = shard.cast(ShardMessage::Passivate(conversation));
                }
            }
            Effect::Refuse(Some(reply), refusal) => drop(reply.send(Err(refusal))),
            Effect::Refuse(None, _) => {}
        }
        Ok(())
    }

    async fn shard(
        &mut self,
        myself: &ActorRef<GatewayMessage>,
        shard: Shard,
    ) -> Result<&ActorRef<ShardMessage>, ActorProcessingErr> {
        if !self.shards.contains_key(&shard) {
            let surroundings = self.arguments.surroundings.clone();
            let arguments = ShardArguments { shard, surroundings, gateway: myself.clone() };
            let name = None;
            let (actor, _) = Actor::spawn_linked(name, ShardActor, arguments, self.arguments.node.clone()).await?;
            self.shards.insert(shard, actor);
        }
        Ok(&self.shards[&shard])
    }

    fn forget(&mut self, actor: ActorId) -> Option<Shard> {
        let (shard, _) = self.shards.iter().find(|(_, known)| known.get_id() == actor)?;
        let shard = *shard;
        self.shards.remove(&shard);
        Some(shard)
    }

    fn status(&self) -> Status {
        Status {
            view: self.core.view().number,
            active_conversations: self.core.residents(),
            open_turns: self.arguments.surroundings.load.open_turns(),
            shards_started: self.shards.len(),
            draining: self.core.is_leaving(),
        }
    }
}
