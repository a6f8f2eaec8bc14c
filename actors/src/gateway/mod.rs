//! Passes every request to its shard, or to the node that owns it, and keeps the memory of this node within its limit.
//! The node starts and supervises it; without it the node ends.
//!
//! It holds no conversation and waits for nobody.

pub mod decide;
pub mod forward;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use klatch_protocol::{ConversationId, Shard, envelope};
use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::conversation::{Reply, Surroundings};
use crate::membership::view::View;
use crate::metrics;
use crate::node::Status;
use crate::peers::Peers;
use crate::shard::{Arguments as ShardArguments, ShardActor, ShardMessage};
use decide::{Asked, Effect, Gateway, Input};
use forward::{Behind, Known};

/// How often idle conversations are looked for.
const TICK: Duration = Duration::from_secs(1);

pub enum GatewayMessage {
    Ask(Asked<Reply>),
    /// A conversation is in memory, and out of it again.
    Entered(ConversationId),
    Left(ConversationId),
    /// A shard crashed, and with it all its conversations.
    ShardGone(ActorId),
    View(View),
    /// This node has another incarnation, and owns nothing.
    DropAll,
    /// The node is about to end: nothing new begins here.
    Close,
    /// Nothing may run here any more: what is unfinished is the next owner's.
    StopAll(RpcReplyPort<()>),
    Tick,
    Status(oneshot::Sender<Status>),
}

/// Never leaves this node.
impl ractor::Message for GatewayMessage {}

pub struct GatewayActor;

pub struct Arguments {
    pub surroundings: Arc<Surroundings>,
    pub peers: Arc<dyn Peers>,
    /// Is told of views that other nodes have seen.
    pub behind: Behind,
    /// Supervises the shards.
    pub node: ActorCell,
}

pub struct State {
    arguments: Arguments,
    core: Gateway,
    shards: BTreeMap<Shard, ActorRef<ShardMessage>>,
    started: Instant,
}

impl Actor for GatewayActor {
    type Msg = GatewayMessage;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, arguments: Arguments) -> Result<State, ActorProcessingErr> {
        let (me, limits) = (arguments.surroundings.me(), &arguments.surroundings.limits);
        let core = Gateway::new(me, limits.active_conversations, limits.idle_after.as_millis() as u64);
        myself.send_interval(TICK, || GatewayMessage::Tick);
        Ok(State { arguments, core, shards: BTreeMap::new(), started: Instant::now() })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let input = match message {
            GatewayMessage::Ask(asked) => {
                let heavy = {
                    let Surroundings { load, limits, .. } = &*state.arguments.surroundings;
                    load.bytes() > limits.active_bytes
                };
                if heavy || state.core.is_full() {
                    // Somebody is about to be sent away: not those who were asked just now.
                    state.note_uses();
                }
                Input::Ask { asked, heavy }
            }
            GatewayMessage::Entered(conversation) => Input::Entered(conversation),
            GatewayMessage::Left(conversation) => Input::Left(conversation),
            GatewayMessage::ShardGone(actor) => match state.forget(actor) {
                Some(shard) => {
                    state.arguments.surroundings.routes.forget_shard(shard);
                    Input::ShardGone(shard)
                }
                None => return Ok(()),
            },
            GatewayMessage::View(view) => Input::View(view),
            GatewayMessage::DropAll => {
                state.core.reborn(state.arguments.surroundings.me());
                Input::DropAll
            }
            GatewayMessage::Close => {
                state.arguments.surroundings.routes.close();
                Input::Close
            }
            GatewayMessage::StopAll(reply) => {
                state.stop_shards();
                // Who asked may have gone away.
                let _ = reply.send(());
                Input::DropAll
            }
            GatewayMessage::Tick => {
                state.arguments.surroundings.tell_load();
                state.note_uses();
                Input::Tick
            }
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
            Effect::Pass { shard, asked: Asked { conversation, request, reply, .. } } => {
                let shard = self.shard(myself, shard).await?;
                // A shard that has just crashed drops the reply, which tells the asker.
                let _ = shard.cast(ShardMessage::Ask(conversation, request, reply));
            }
            Effect::Forward { to, asked, relays } => {
                let (view, peers) = (self.core.view().number(), self.arguments.peers.clone());
                let traces = self.core.view().format() >= envelope::TRACED;
                let behind = self.arguments.behind.clone();
                tokio::spawn(forward::forward(peers, behind, to, relays, Known { view, traces }, asked));
            }
            Effect::StopShards => self.stop_shards(),
            Effect::Passivate(conversation) => match self.shards.get(&conversation.shard()) {
                Some(shard) => drop(shard.cast(ShardMessage::Passivate(conversation))),
                // A shard that was stopped said so much later that it had entered.
                None => drop(self.core.decide::<Reply>(0, Input::Left(conversation))),
            },
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

    /// What runs there ends with them: whoever owns the conversations now reads their logs.
    fn stop_shards(&mut self) {
        for (id, shard) in std::mem::take(&mut self.shards) {
            shard.kill();
            self.arguments.surroundings.routes.forget_shard(id);
        }
    }

    fn forget(&mut self, actor: ActorId) -> Option<Shard> {
        let (shard, _) = self.shards.iter().find(|(_, known)| known.get_id() == actor)?;
        let shard = *shard;
        self.shards.remove(&shard);
        Some(shard)
    }

    /// Conversations that were asked past the gateway are in use too.
    fn note_uses(&mut self) {
        let used = self.arguments.surroundings.routes.take_used();
        if !used.is_empty() {
            let now_ms = self.started.elapsed().as_millis() as u64;
            self.core.decide::<Reply>(now_ms, Input::Used(used));
        }
    }

    fn status(&self) -> Status {
        Status {
            view: self.core.view().clone(),
            joined: self.core.is_member(),
            active_conversations: self.core.residents(),
            open_turns: self.arguments.surroundings.load.open_turns(),
            shards_started: self.shards.len(),
            draining: self.core.is_leaving(),
        }
    }
}
