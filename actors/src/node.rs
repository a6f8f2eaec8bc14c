//! The root of a node's actors, and the handle by which the HTTP edge speaks to them.
//!
//! The node supervises membership, gateway and shards. A shard that dies is forgotten and started again on its next
//! message; without gateway or membership the node ends, and so does the program: a restart is the one way to recover
//! that is always tested.

mod take_up;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use klatch_protocol::ids::SHARDS;
use klatch_protocol::{ConversationId, Shard};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::conversation::decide::{Catalog, Traits};
use crate::conversation::{Clock, Reply, Surroundings, TellingTo, system_clock};
use crate::gateway::decide::Asked;
use crate::gateway::forward::{self, Behind, NodeLoad, Receiver, Spending, Spent};
use crate::gateway::{Arguments as GatewayArguments, GatewayActor, GatewayMessage};
use crate::limits::Limits;
use crate::membership::view::{Member, View};
use crate::membership::views::Views;
use crate::membership::views::memory::MemoryViews;
use crate::membership::{Arguments as MembershipArguments, MembershipActor, MembershipMessage};
use crate::peers::{NoPeers, PeerId, Peers, Serve};
use crate::reader::Reader;
use crate::request::{Answer, Refusal, Request};
use crate::responder::Responders;
use crate::routes::{self, Routes};
use crate::store::{Store, StoreError};
use crate::trace::{self, PassOn, Tracer};
use crate::webhooks::Webhooks;

/// Rows of unfinished turns read at once.
pub const ROWS_AT_ONCE: usize = 256;

/// How often conversations that may have expired are looked for.
const EXPIRY_EVERY: Duration = Duration::from_secs(5);

/// How often a drain looks whether turns are still open.
const DRAIN_POLL: Duration = Duration::from_millis(20);

/// A conversation without an owner is asked for again so long after the first time, doubled with each further one...
const NO_OWNER_WAIT: Duration = Duration::from_millis(10);

/// ...up to this: its next owner is known within a few seconds.
const NO_OWNER_WAIT_MAX: Duration = Duration::from_millis(160);

/// In a cluster for so long: a dead node is noticed, and its conversations are taken over, well within it.
const NO_OWNER_MAX: Duration = Duration::from_secs(10);

/// An owner that no node reaches is passed over after so long: the request is served where it is, and the fence decides.
pub const SERVE_HERE_AFTER: Duration = Duration::from_secs(2);

/// On a node that is alone for so long: a conversation that is just being closed is back at once.
const ALONE_NO_OWNER_MAX: Duration = Duration::from_millis(600);

pub struct NodeOptions {
    pub name: String,
    /// Another one in each life of the node.
    pub incarnation: u64,
    pub store: Arc<dyn Store>,
    pub responders: Arc<Responders>,
    /// Who is told of the ends of turns; none: nobody.
    pub webhooks: Option<Arc<dyn Webhooks>>,
    pub limits: Limits,
    /// Conversations go so long after their last turn, in ms; none: only by their own time.
    pub retention_ms: Option<u64>,
    pub clock: Clock,
    pub tracer: Arc<dyn Tracer>,
    /// None: the node is alone with its store.
    pub cluster: Option<Cluster>,
}

/// What a node needs to be one of several.
pub struct Cluster {
    pub views: Arc<dyn Views>,
    pub peers: Arc<dyn Peers>,
    /// `host:port` where other nodes reach this one.
    pub address: String,
    /// Gets what serves the peers' requests, once it is there.
    pub serve: oneshot::Sender<Arc<dyn Serve>>,
}

impl Cluster {
    /// Of one.
    fn alone() -> Self {
        let (serve, _) = oneshot::channel();
        Self { views: Arc::<MemoryViews>::default(), peers: Arc::new(NoPeers), address: String::new(), serve }
    }
}

impl NodeOptions {
    /// With default limits, no retention and the system's clock, alone.
    pub fn new(name: impl Into<String>, incarnation: u64, store: Arc<dyn Store>, responders: Arc<Responders>) -> Self {
        let (limits, retention_ms, clock) = (Limits::default(), None, system_clock());
        let (webhooks, tracer, cluster) = (None, Arc::new(PassOn), None);
        Self {
            name: name.into(),
            incarnation,
            store,
            responders,
            webhooks,
            limits,
            retention_ms,
            clock,
            tracer,
            cluster,
        }
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
    peers: Arc<dyn Peers>,
    spent: Spent,
    surroundings: Arc<Surroundings>,
}

/// What `/cluster` and the metrics show of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    pub view: View,
    /// This node is in it.
    pub joined: bool,
    pub active_conversations: usize,
    pub open_turns: usize,
    pub shards_started: usize,
    pub draining: bool,
}

/// A member of the view, and what it is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    pub id: PeerId,
    pub member: Member,
    /// Shards that are its by placement.
    pub shards: usize,
    /// None where it does not say.
    pub load: Option<NodeLoad>,
}

impl Status {
    pub fn load(&self) -> NodeLoad {
        NodeLoad {
            view: self.view.number(),
            active_conversations: self.active_conversations,
            open_turns: self.open_turns,
            shards_started: self.shards_started,
        }
    }
}

impl Node {
    /// Starts the actors, joins the other nodes, takes up unfinished turns, and owns its shards from then on.
    pub async fn start(options: NodeOptions) -> Result<Node, ActorProcessingErr> {
        let NodeOptions { name, incarnation, store, responders, webhooks, limits, .. } = options;
        let NodeOptions { retention_ms, clock, tracer, cluster, .. } = options;
        let catalog: Catalog = responders
            .iter()
            .map(|(name, responder)| {
                let at_once = responder.answers_at_once();
                (name.clone(), Traits { history_items: responder.history_items(), at_once })
            })
            .collect();
        let reader = Reader::new(store.clone());
        let (view_told, view) = watch::channel(View::default());
        let surroundings = Arc::new(Surroundings {
            node: name.into(),
            incarnation: AtomicU64::new(incarnation),
            shared: cluster.is_some(),
            view,
            store: store.clone(),
            reader: reader.clone(),
            responders,
            catalog: Arc::new(catalog),
            telling: webhooks.map(|webhooks| TellingTo { all: webhooks.all().into(), webhooks }),
            limits: Arc::new(limits),
            retention_ms,
            load: Arc::default(),
            routes: Routes::default(),
            clock,
        });
        let (has_ended, ended) = watch::channel(false);
        let cluster = cluster.unwrap_or_else(Cluster::alone);
        let (peers, spent) = (cluster.peers.clone(), Spent::default());
        let arguments = Arguments {
            surroundings: surroundings.clone(),
            has_ended,
            cluster,
            spent: spent.clone(),
            view: view_told,
            tracer,
        };
        let (actor, _) = Actor::spawn(None, NodeActor, arguments).await?;
        let children = ractor::call!(actor, NodeMessage::Children)?;
        let handle = Handle { gateway: children.gateway, reader, peers, spent, surroundings };
        ractor::call!(children.membership, MembershipMessage::Up)?;
        let chores = vec![
            tokio::spawn(take_up::take_up(handle.clone(), store.clone())),
            tokio::spawn(expire(handle.clone(), store)),
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

    /// Ends the node where it stands, as a crash of its process would.
    #[cfg(any(test, feature = "testing"))]
    pub async fn crash(self) {
        for chore in &self.chores {
            chore.abort();
        }
        // An actor that has ended already cannot crash any more.
        let _ = self.actor.kill_and_wait(None).await;
    }

    /// Gives its shards away: conversations leave as their turns end, and their next messages go to other nodes.
    pub fn leave(&self) {
        (self.leaver())();
    }

    /// Does the same when it is called, wherever the node itself is then.
    pub fn leaver(&self) -> Box<dyn Fn() + Send> {
        let membership = self.membership.clone();
        Box::new(move || {
            // A membership that is gone has given everything away already.
            let _ = membership.cast(MembershipMessage::Leave);
        })
    }

    /// Takes no new turns, lets the open ones end until `deadline`, and stops. Says how many were still open: they are
    /// in the log, and go on with their next owner.
    pub async fn drain(self, deadline: Duration) -> usize {
        self.leave();
        // A gateway that is gone begins nothing.
        let _ = self.handle.gateway.cast(GatewayMessage::Close);
        let all_over = async {
            while self.handle.open_turns() > 0 {
                tokio::time::sleep(DRAIN_POLL).await;
            }
        };
        // What is still open at the deadline is counted below.
        let _ = tokio::time::timeout(deadline, all_over).await;
        let open = self.handle.open_turns();
        for chore in &self.chores {
            chore.abort();
        }
        // First nothing runs here any more, then the others are told: they take up at once what is left.
        let _ = ractor::call!(self.handle.gateway, GatewayMessage::StopAll);
        let _ = ractor::call!(self.membership, MembershipMessage::Gone);
        // An actor that has stopped already has done what was asked.
        let _ = self.actor.stop_and_wait(None, None).await;
        open
    }
}

impl Handle {
    /// Passes the request to the conversation's owner, wherever that is, and waits for its answer. Asks again while the
    /// conversation has no owner, and where an owner was lost before it answered and the request can be repeated.
    /// Dropping the future does not undo the request.
    pub async fn ask(&self, conversation: ConversationId, request: Request) -> Result<Answer, Refusal> {
        let Surroundings { shared, view, .. } = &*self.surroundings;
        let begun = Instant::now();
        let until = begun + if *shared { NO_OWNER_MAX } else { ALONE_NO_OWNER_MAX };
        let (mut direct, mut wait, mut view) = (None, NO_OWNER_WAIT, view.clone());
        loop {
            view.mark_unchanged();
            let refusal = match self.ask_once(conversation, request.clone(), direct.take()).await {
                Err(refusal @ (Refusal::Moved | Refusal::Elsewhere { .. })) => refusal,
                Err(Refusal::Lost) if request.is_repeatable() => Refusal::Lost,
                answer => return answer,
            };
            if Instant::now() >= until {
                return Err(refusal);
            }
            if refusal == Refusal::Moved && begun.elapsed() >= SERVE_HERE_AFTER {
                direct = Some(self.surroundings.me());
            }
            if let Refusal::Elsewhere { owner } = refusal {
                direct = Some(owner);
                // The first time at once: it is likely to be there.
                if wait == NO_OWNER_WAIT {
                    wait *= 2;
                    continue;
                }
            }
            // A new view names a new owner. A node without one any more is about to end.
            let _ = tokio::time::timeout(wait, view.changed()).await;
            wait = (wait * 2).min(NO_OWNER_WAIT_MAX);
        }
    }

    /// Sees to a conversation that nobody has in memory here, and does not wait for it.
    fn settle(&self, conversation: ConversationId) {
        let direct = Some(self.surroundings.me());
        let asked = Asked { conversation, request: Request::Settle, reply: None, hops: 0, direct, relayed: false };
        // A gateway that is gone is the end of its node.
        let _ = self.gateway.cast(GatewayMessage::Ask(asked));
    }

    async fn ask_once(
        &self,
        conversation: ConversationId,
        request: Request,
        direct: Option<PeerId>,
    ) -> Result<Answer, Refusal> {
        let (reply, answer) = Reply::new(trace::current());
        let asked = Asked { conversation, request, reply: Some(reply), hops: 0, direct, relayed: false };
        routes::send(&self.surroundings, &self.gateway, asked)
            .map_err(|_| Refusal::Unavailable("the node is stopping".into()))?;
        // Dropped without an answer: the conversation crashed.
        answer.await.map_err(|_| Refusal::Lost)?
    }

    /// The same, for what needs no answer.
    pub fn tell(&self, conversation: ConversationId, request: Request) {
        let asked = Asked { conversation, request, reply: None, hops: 0, direct: None, relayed: false };
        // A node that is stopping needs no word any more.
        let _ = self.gateway.cast(GatewayMessage::Ask(asked));
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

    /// All members of the view as this node sees it.
    pub async fn members(&self) -> Vec<MemberStatus> {
        let (view, me) = (self.surroundings.view.borrow().clone(), self.surroundings.me());
        let owners: Vec<Option<PeerId>> = (0..SHARDS).map(|shard| view.owner(Shard(shard))).collect();
        let one = async |(name, member): (&Arc<str>, &Member)| {
            let id = PeerId { name: name.clone(), incarnation: member.incarnation };
            let load = if id == me {
                self.status().await.map(|status| status.load())
            } else {
                forward::load_of(&*self.peers, id.clone()).await
            };
            let shards = owners.iter().filter(|owner| owner.as_ref() == Some(&id)).count();
            MemberStatus { id, member: member.clone(), shards, load }
        };
        futures::future::join_all(view.members().iter().map(one)).await
    }

    /// `edge` is told what tenants spent at other nodes. One edge per node: only the first call counts.
    pub fn on_spending(&self, edge: impl Fn(Spending) + Send + Sync + 'static) {
        self.spent.tells(Box::new(edge));
    }

    /// Tells all other nodes what tenants spent here.
    pub fn tell_spending(&self, spending: &Spending) {
        let view = self.surroundings.view.borrow().clone();
        for peer in view.peers(&self.surroundings.node) {
            tokio::spawn(forward::tell_spent(self.peers.clone(), peer.id, spending.clone()));
        }
    }

    pub fn open_turns(&self) -> usize {
        self.surroundings.load.open_turns()
    }
}

/// Looks at what is due, for as long as the node lives.
async fn expire(handle: Handle, store: Arc<dyn Store>) {
    let mut ticks = tokio::time::interval(EXPIRY_EVERY);
    loop {
        ticks.tick().await;
        if let Err(error) = expire_due(&handle, &*store).await {
            tracing::warn!(%error, "expired conversations could not be looked for");
        }
    }
}

async fn expire_due(handle: &Handle, store: &dyn Store) -> Result<(), StoreError> {
    let Surroundings { retention_ms, clock, .. } = &*handle.surroundings;
    for (at_ms, conversation) in store.due(clock(), ROWS_AT_ONCE).await? {
        if !handle.surroundings.owns(conversation.shard()) {
            continue;
        }
        match handle.ask(conversation, Request::Expire { retention_ms: *retention_ms }).await {
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
    cluster: Cluster,
    spent: Spent,
    view: watch::Sender<View>,
    tracer: Arc<dyn Tracer>,
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
        let Arguments { surroundings, has_ended, cluster, spent, view, tracer } = arguments;
        let Cluster { views, peers, address, serve } = cluster;
        let behind = Behind::default();
        let arguments = GatewayArguments {
            surroundings: surroundings.clone(),
            peers: peers.clone(),
            behind: behind.clone(),
            node: myself.get_cell(),
        };
        let (gateway, _) = Actor::spawn_linked(None, GatewayActor, arguments, myself.get_cell()).await?;
        let receiver = Receiver::new(gateway.clone(), behind.clone(), spent, surroundings.clone(), tracer);
        // Who is alone has nobody to serve.
        let _ = serve.send(Arc::new(receiver));
        let arguments = MembershipArguments { address, views, peers, surroundings, gateway: gateway.clone(), view };
        let (membership, _) = Actor::spawn_linked(None, MembershipActor, arguments, myself.get_cell()).await?;
        behind.tells(membership.clone());
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
        let (cell, why, crashed) = match event {
            SupervisionEvent::ActorTerminated(cell, _, why) => (cell, why.unwrap_or_default(), false),
            SupervisionEvent::ActorFailed(cell, error) => (cell, error.to_string(), true),
            _ => return Ok(()),
        };
        let Children { gateway, membership } = &state.children;
        if cell.get_id() != gateway.get_id() && cell.get_id() != membership.get_id() {
            if crashed {
                tracing::error!(error = why, "a shard crashed; its conversations start again with their next messages");
            }
            return Ok(gateway.cast(GatewayMessage::ShardGone(cell.get_id()))?);
        }
        tracing::error!(error = why, "the node cannot go on without its gateway or membership");
        myself.stop(None);
        Ok(())
    }
}
