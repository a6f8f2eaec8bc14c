//! Keeps the view and tells the gateway of each new one. The node starts and supervises it; without it the node ends.
//!
//! With a store of its own a node is alone, and the view is this node.

pub mod decide;

use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::gateway::GatewayMessage;
use decide::{Member, Status, View};

pub enum MembershipMessage {
    /// This node's ports are open: it can own shards.
    Up,
    /// This node gives everything away.
    Leave,
}

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
            MembershipMessage::Up => state.set(Status::Up),
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
