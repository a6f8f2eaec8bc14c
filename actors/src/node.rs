//! The root of a node's actors, and the handle by which the HTTP edge speaks to them.
//!
//! The node supervises membership, gateway and shards. A shard that dies is forgotten and started again on its next
//! message; without gateway or membership the node ends, and so does the program: a restart is the one way to recover
//! that is always tested.

use std::sync::Arc;
use std::time::Duration;

use klatch_protocol::ids::SHARDS;
use klatch_protocol::{ConversationId, Shard};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinHandle;

use crate::conversation::decide::{Catalog, Traits};
use crate::conversation::{Clock, Surroundings, system_clock};
use crate::gateway::{Arguments as GatewayArguments, GatewayActor, GatewayMessage};
use crate::limits::{Limits, Load};
use crate::membership::{Arguments as MembershipArguments, MembershipActor, MembershipMessage};
use crate::metrics;
use crate::reader::Reader;
use crate::request::{Answer, Refusal, Request};
use crate::responder::Responders;
use crate::store::{Store, StoreError};

/// Rows of unfinished turns read at once.
const ROWS_AT_ONCE: usize = 256;

/// How often conversations that may have expired are looked for.
const EXPIRY_EVERY: Duration = Duration::from_secs(5);

/// How often a drain looks whether turns are still open.
const DRAIN_POLL: Duration = Duration::from_millis(20);

pub struct NodeOptions {
    pub name: String,
    /// Another one in each life of the node.
    pub incarnation: u64,
    pub store: Arc<dyn Store>,
    pub responders: Arc<Responders>,
    pub limits: Limits,
    /// Conversations go so long after their last turn, in ms; none: only by their own time.
    pub retention_ms: Option<u64>,
    pub clock: Clock,
}

impl NodeOptions {
    /// With default limits, no retention and the system's clock.
    pub fn new(name: impl Into<String>, incarnation: u64, store: Arc<dyn Store>, responders: Arc<Responders>) -> Self {
        let (limits, retention_ms, clock) = (Limits::default(), None, system_clock());
        Self { name: name.into(), incarnation, store, responders, limits, retention_ms, clock }
    }
}

/// A running node.
pub struct Node {
    actor: ActorRef<NodeMessage>,
    handle: Handle,
    membership: ActorRef<MembershipMessage>,
    ended: watch::Receiver<bool>,
    chores: Vec<JoinHandle<()>>,
}

/// Cheap to clone; every clone speaks to the same node.
#[derive(Clone)]
pub struct Handle {
    gateway: ActorRef<GatewayMessage>,
    reader: Reader,
    load: Arc<Load>,
}

/// What `/cluster` and the metrics show of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    pub view: u64,
    pub active_conversations: usize,
    pub open_turns: usize,
    pub shards_started: usize,
    pub draining: bool,
}

impl Node {
    /// Starts the actors, takes up unfinished turns, and owns its shards from then on.
    pub async fn start(options: NodeOptions) -> Result<Node, ActorProcessingErr> {
        let NodeOptions { name, incarnation, store, responders, limits, retention_ms, clock } = options;
        let catalog: Catalog = responders
            .iter()
            .map(|(name, responder)| {
                let at_once = responder.answers_at_once();
                (name.clone(), Traits { history_items: responder.history_items(), at_once })
            })
            .collect();
        let load = Arc::new(Load::default());
        let reader = Reader::new(store.clone());
        let surroundings = Arc::new(Surroundings {
            node: name,
            incarnation,
            store: store.clone(),
            reader: reader.clone(),
            responders,
            catalog: Arc::new(catalog),
            limits: Arc::new(limits),
            retention_ms,
            load: load.clone(),
            clock: clock.clone(),
        });
        let recoveries_at_once = surroundings.limits.recoveries_at_once;
        let (has_ended, ended) = watch::channel(false);
        let (actor, _) = Actor::spawn(None, NodeActor, Arguments { surroundings, has_ended }).await?;
        let children = ractor::call!(actor, NodeMessage::Children)?;
        let handle = Handle { gateway: children.gateway, reader, load };
        ractor::call!(children.membership, MembershipMessage::Up)?;
        let chores = vec![
            tokio::spawn(take_up(handle.clone(), store.clone(), recoveries_at_once)),
            tokio::spawn(expire(handle.clone(), store, retention_ms, clock)),
        ];
        Ok(Node { actor, handle, membership: children.membership, ended, chores })
    }

    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Becomes ready when the node's actors have ended, which they do by themselves only after a fault.
    pub async fn ended(&mut self) {
        // An error says that the node is gone, which is what was waited for.
        let _ = self.ended.wait_for(|ended| *ended).await;
    }

    /// Takes no new turns, lets the open ones end until `deadline`, and stops. Says how many were still open: they are
    /// in the log, and go on with the next start.
    pub async fn drain(self, deadline: Duration) -> usize {
        // A membership that is gone has given everything away already.
        let _ = self.membership.cast(MembershipMessage::Leave);
        let all_over = async {
            while self.handle.load.open_turns() > 0 {
                tokio::time::sleep(DRAIN_POLL).await;
            }
        };
        // What is still open at the deadline is counted below.
        let _ = tokio::time::timeout(deadline, all_over).await;
        let open = self.handle.load.open_turns();
        for chore in &self.chores {
            chore.abort();
        }
        // An actor that has stopped already has done what was asked.
        let _ = self.actor.stop_and_wait(None, None).await;
        open
    }
}

impl Handle {
    /// Passes the request to the conversation's owner and waits for its answer. Dropping the future does not undo the
    /// request.
    pub async fn ask(&self, conversation: ConversationId, request: Request) -> Result<Answer, Refusal> {
        let (reply, answer) = oneshot::channel();
        let gone = || Refusal::Unavailable("the conversation crashed".into());
        self.gateway
            .cast(GatewayMessage::Ask(conversation, request, Some(reply)))
            .map_err(|_| Refusal::Unavailable("the node is stopping".into()))?;
        answer.await.map_err(|_| gone())?
    }

    /// The same, for what needs no answer.
    pub fn tell(&self, conversation: ConversationId, request: Request) {
        // A node that is stopping needs no word any more.
        let _ = self.gateway.cast(GatewayMessage::Ask(conversation, request, None));
    }

    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// None where the node is stopping.
    pub async fn status(&self) -> Option<Status> {
        let (reply, status) = oneshot::channel();
        self.gateway.cast(GatewayMessage::Status(reply)).ok()?;
        status.await.ok()
    }

    pub fn open_turns(&self) -> usize {
        self.load.open_turns()
    }
}

/// Activates every conversation that may have an unfinished turn, so many at a time.
async fn take_up(handle: Handle, store: Arc<dyn Store>, at_once: usize) {
    let room = Arc::new(Semaphore::new(at_once));
    for shard in (0..SHARDS).map(Shard) {
        let mut after = None;
        loop {
            let rows = match store.open(shard, after, ROWS_AT_ONCE).await {
                Ok(rows) => rows,
                Err(error) => {
                    tracing::error!(shard.id = shard.0, %error, "unfinished turns of a shard could not be read");
                    break;
                }
            };
            after = rows.last().copied();
            for conversation in &rows {
                wake(&handle, *conversation, &room).await;
            }
            if rows.len() < ROWS_AT_ONCE {
                break;
            }
        }
    }
}

async fn wake(handle: &Handle, conversation: ConversationId, room: &Arc<Semaphore>) {
    let Ok(permit) = room.clone().acquire_owned().await else { return };
    let handle = handle.clone();
    tokio::spawn(async move {
        if let Err(refusal) = handle.ask(conversation, Request::Wake).await {
            tracing::warn!(conversation.id = %conversation, %refusal, "an unfinished turn waits for its next message");
        }
        drop(permit);
    });
}

/// Looks at what is due, for as long as the node lives.
async fn expire(handle: Handle, store: Arc<dyn Store>, retention_ms: Option<u64>, clock: Clock) {
    let mut ticks = tokio::time::interval(EXPIRY_EVERY);
    loop {
        ticks.tick().await;
        metrics::open_turns(handle.open_turns());
        if let Err(error) = expire_due(&handle, &*store, retention_ms, clock()).await {
            tracing::warn!(%error, "expired conversations could not be looked for");
        }
    }
}

async fn expire_due(
    handle: &Handle,
    store: &dyn Store,
    retention_ms: Option<u64>,
    now_ms: u64,
) -> Result<(), StoreError> {
    for (at_ms, conversation) in store.due(now_ms, ROWS_AT_ONCE).await? {
        match handle.ask(conversation, Request::Expire { retention_ms }).await {
            Ok(Answer::DueAt(later_ms)) => store.due_add(later_ms, conversation).await?,
            Ok(_) => {}
            // It keeps its row, and is looked at again.
            Err(_) => continue,
        }
        store.due_remove(at_ms, conversation).await?;
    }
    Ok(())
}

enum NodeMessage {
    Children(ractor::RpcReplyPort<Children>),
}

/// Never leaves this node.
impl ractor::Message for NodeMessage {}

#[derive(Clone)]
struct Children {
    gateway: ActorRef<GatewayMessage>,
    membership: ActorRef<MembershipMessage>,
}

struct NodeActor;

struct Arguments {
    surroundings: Arc<Surroundings>,
    has_ended: watch::Sender<bool>,
}

struct NodeState {
    children: Children,
    has_ended: watch::Sender<bool>,
}

impl Drop for NodeState {
    fn drop(&mut self) {
        self.has_ended.send_replace(true);
    }
}

impl Actor for NodeActor {
    type Msg = NodeMessage;
    type State = NodeState;
    type Arguments = Arguments;

    async fn pre_start(
        &self,
        myself: ActorRef<NodeMessage>,
        arguments: Arguments,
    ) -> Result<NodeState, ActorProcessingErr> {
        let Arguments { surroundings, has_ended } = arguments;
        let (node, incarnation) = (surroundings.node.clone(), surroundings.incarnation);
        let arguments = GatewayArguments { surroundings, node: myself.get_cell() };
        let (gateway, _) = Actor::spawn_linked(None, GatewayActor, arguments, myself.get_cell()).await?;
        let arguments = MembershipArguments { node, incarnation, gateway: gateway.clone() };
        let (membership, _) = Actor::spawn_linked(None, MembershipActor, arguments, myself.get_cell()).await?;
        Ok(NodeState { children: Children { gateway, membership }, has_ended })
    }

    async fn handle(
        &self,
        _: ActorRef<NodeMessage>,
        NodeMessage::Children(reply): NodeMessage,
        state: &mut NodeState,
    ) -> Result<(), ActorProcessingErr> {
        Ok(reply.send(state.children.clone())?)
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<NodeMessage>,
        event: SupervisionEvent,
        state: &mut NodeState,
    ) -> Result<(), ActorProcessingErr> {
        let (cell, why) = match event {
            SupervisionEvent::ActorTerminated(cell, _, why) => (cell, why.unwrap_or_default()),
            SupervisionEvent::ActorFailed(cell, error) => (cell, error.to_string()),
            _ => return Ok(()),
        };
        let Children { gateway, membership } = &state.children;
        if cell.get_id() != gateway.get_id() && cell.get_id() != membership.get_id() {
            tracing::error!(error = why, "a shard crashed; its conversations start again with their next messages");
            return Ok(gateway.cast(GatewayMessage::ShardGone(cell.get_id()))?);
        }
        tracing::error!(error = why, "the node cannot go on without its gateway or membership");
        myself.stop(None);
        Ok(())
    }
}
