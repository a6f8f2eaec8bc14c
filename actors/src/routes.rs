//! Where the conversations in memory are, for whoever has a request for one: past the gateway and the shard, each of which
//! costs a turn as much as its own decision does. Shards write it, the node's handle reads it.
//!
//! A hint and no more. What it lacks, or what is on its way out, goes by way of gateway and shard as if it was not here; a
//! message that meets a conversation that is about to leave is refused, and comes again that way.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use klatch_protocol::ids::SHARDS;
use klatch_protocol::{ConversationId, Shard};
use ractor::{ActorRef, MessagingErr};

use crate::conversation::{ConversationMessage, Reply, Surroundings};
use crate::gateway::GatewayMessage;
use crate::gateway::decide::Asked;
use crate::request::Request;

type ConversationRef = ActorRef<ConversationMessage>;

/// The gateway is gone, and its node about to end.
#[derive(Debug)]
pub struct NoGateway;

/// What is asked most goes straight to its conversation, where that is in memory and belongs here: nothing is to be decided
/// about it. All else is the gateway's.
pub fn send(
    surroundings: &Surroundings,
    gateway: &ActorRef<GatewayMessage>,
    asked: Asked<Reply>,
) -> Result<(), NoGateway> {
    let often = matches!(asked.request, Request::Submit(_) | Request::Watch { .. }) && asked.direct.is_none();
    let route = (often && surroundings.owns(asked.conversation.shard()))
        .then(|| surroundings.routes.find(asked.conversation))
        .flatten();
    let asked = match route {
        None => asked,
        Some(route) => match route.cast(ConversationMessage::Ask(asked.request, asked.reply)) {
            // One that has just gone.
            Err(MessagingErr::SendErr(ConversationMessage::Ask(request, reply))) => Asked {
                conversation: asked.conversation,
                request,
                reply,
                hops: asked.hops,
                direct: None,
                relayed: asked.relayed,
            },
            Ok(()) | Err(_) => return Ok(()),
        },
    };
    gateway.cast(GatewayMessage::Ask(asked)).map_err(|_| NoGateway)
}

pub struct Routes {
    /// By shard, so that one that is gone takes its own with it, and few readers meet.
    shards: Vec<RwLock<HashMap<ConversationId, Route>>>,
    /// Asked past the gateway since it last took note; each once.
    used: Mutex<Vec<ConversationId>>,
    /// Nothing new begins here.
    closed: AtomicBool,
}

struct Route {
    conversation: ConversationRef,
    /// It stands in `used`.
    noted: AtomicBool,
}

impl Default for Routes {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        Self { shards, used: Mutex::default(), closed: AtomicBool::new(false) }
    }
}

impl Routes {
    /// The conversation, if it is in memory and not about to leave. Counts as a use of it.
    pub fn find(&self, id: ConversationId) -> Option<ConversationRef> {
        if self.closed.load(Ordering::SeqCst) {
            return None;
        }
        let shard = self.shards[usize::from(id.shard().0)].read().unwrap_or_else(PoisonError::into_inner);
        let route = shard.get(&id)?;
        if !route.noted.swap(true, Ordering::Relaxed) {
            self.used().push(id);
        }
        Some(route.conversation.clone())
    }

    pub fn add(&self, id: ConversationId, conversation: ConversationRef) {
        self.change(id.shard(), |shard| shard.insert(id, Route { conversation, noted: AtomicBool::new(false) }));
    }

    pub fn remove(&self, id: ConversationId) {
        self.change(id.shard(), |shard| shard.remove(&id));
    }

    pub fn forget_shard(&self, shard: Shard) {
        self.change(shard, HashMap::clear);
    }

    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Who was asked since the last call.
    pub fn take_used(&self) -> Vec<ConversationId> {
        let used = std::mem::take(&mut *self.used());
        for id in &used {
            let shard = self.shards[usize::from(id.shard().0)].read().unwrap_or_else(PoisonError::into_inner);
            if let Some(route) = shard.get(id) {
                route.noted.store(false, Ordering::Relaxed);
            }
        }
        used
    }

    fn change<T>(&self, shard: Shard, change: impl FnOnce(&mut HashMap<ConversationId, Route>) -> T) {
        let shard = &self.shards[usize::from(shard.0)];
        change(&mut shard.write().unwrap_or_else(PoisonError::into_inner));
    }

    fn used(&self) -> MutexGuard<'_, Vec<ConversationId>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
