//! Keeps the view and tells the gateway of each new one. The node starts and supervises it; without it the node ends.
//!
//! With a store of its own a node is alone, and the view is this node.

pub mod decide;
pub mod views;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};

use crate::gateway::GatewayMessage;
use decide::{Member, Status, View};

pub enum MembershipMessage {
    /// This node can own shards. Answered once the gateway has been told, so what is asked later finds it up.
    Up(RpcReplyPort<()>),
    /// This node gives everything away.
    Leave,
}

/// Never leaves this node.
impl ractor::Message for MembershipMessage {}

pub struct MembershipActor;

pub struct Arguments {
    pub node: String,
    pub incarnation: u64,
    pub gateway: ActorRef<GatewayMessage>,
}

pub struct State {
    arguments: Arguments,
    view: View,
}

impl Actor for MembershipActor {
    type Msg = MembershipMessage;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, arguments: Arguments) -> Result<State, ActorProcessingErr> {
        let mut state = State { arguments, view: View::default() };
        state.set(Status::Joining)?;
        Ok(state)
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            MembershipMessage::Up(reply) => {
                state.set(Status::Up)?;
                Ok(reply.send(())?)
            }
            MembershipMessage::Leave => state.set(Status::Leaving),
        }
    }
}

impl State {
    fn set(&mut self, status: Status) -> Result<(), ActorProcessingErr> {
        let Arguments { node, incarnation, gateway } = &self.arguments;
        self.view = self.view.with(node, Member { incarnation: *incarnation, status });
        Ok(gateway.cast(GatewayMessage::View(self.view.clone()))?)
    }
}
