//! Requests between nodes: sealed, sent, answered, opened.
//!
//! Whatever goes wrong on the way becomes a refusal that says whether it may have been done.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::future::BoxFuture;
use klatch_protocol::trace::TraceContext;
use klatch_protocol::{ConversationId, envelope};
use ractor::ActorRef;
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::GatewayMessage;
use super::decide::Asked;
use crate::conversation::{Reply, Surroundings};
use crate::membership::MembershipMessage;
use crate::membership::view::View;
use crate::metrics;
use crate::peers::{PeerError, PeerId, Peers, Serve};
use crate::request::{Answer, Refusal, Request};
use crate::routes;
use crate::trace::{Traced, Tracer};

/// A peer that lives and has no answer by then never will: longer than any request may wait at the edge.
const ANSWER_MAX: Duration = Duration::from_secs(3_600);

/// A node that is well says at once what it is doing.
const LOAD_MAX: Duration = Duration::from_secs(1);

/// The receiver of a request that was routed by a newer view waits so long for that view.
const CATCH_UP_MAX: Duration = Duration::from_millis(500);

/// What one node says to another.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub enum ToPeer {
    Ask(Forwarded),
    /// How much is it doing?
    Load,
    /// Tenants made so many requests of the sender since it told last.
    Spent(Spending),
}

/// Requests by tenant.
pub type Spending = Vec<(Arc<str>, u32)>;

/// The same bytes, of what is not given away.
#[derive(Serialize)]
enum ToPeerRef<'a> {
    Ask(&'a Forwarded),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub enum FromPeer {
    Replied(Replied),
    Load(NodeLoad),
    Done,
}

/// What a node is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeLoad {
    /// Number of the view by which it routes.
    pub view: u64,
    pub active_conversations: usize,
    pub open_turns: usize,
    pub shards_started: usize,
}

/// A request as it travels.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Forwarded {
    /// By which the sender routed it.
    pub view: u64,
    pub hops: u8,
    pub conversation: ConversationId,
    pub request: Request,
    /// Pass it on to this node, which the sender does not reach.
    pub direct: Option<PeerId>,
    pub relayed: bool,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Replied {
    /// That the receiver has now.
    pub view: u64,
    pub answer: Result<Answer, Refusal>,
}

/// Tells the membership of views that other nodes have seen. Set once it has started.
#[derive(Clone, Default)]
pub struct Behind(Arc<OnceLock<ActorRef<MembershipMessage>>>);

impl Behind {
    /// The second membership of a node never starts, so only the first call counts.
    pub fn tells(&self, membership: ActorRef<MembershipMessage>) {
        let _ = self.0.set(membership);
    }

    fn of(&self, number: u64) {
        if let Some(membership) = self.0.get() {
            // A membership that is gone takes its node with it.
            let _ = membership.cast(MembershipMessage::Behind(number));
        }
    }
}

/// Tells the edge what tenants spent at other nodes. Set once it has started; before, there is nobody to limit.
#[derive(Clone, Default)]
pub struct Spent(Arc<OnceLock<ToEdge>>);

type ToEdge = Box<dyn Fn(Spending) + Send + Sync>;

impl Spent {
    /// One edge per node: only the first call counts.
    pub(crate) fn tells(&self, edge: ToEdge) {
        let _ = self.0.set(edge);
    }

    fn elsewhere(&self, spending: Spending) {
        if let Some(edge) = self.0.get() {
            edge(spending);
        }
    }
}

/// Tells the peer. One that does not hear of it limits a little later.
pub(crate) async fn tell_spent(peers: Arc<dyn Peers>, to: PeerId, spending: Spending) {
    let _ = peers.ask(to, envelope::seal(&ToPeer::Spent(spending)), LOAD_MAX).await;
}

/// What the sender knows of the cluster.
#[derive(Clone, Copy)]
pub(super) struct Known {
    /// Number of the view by which it routes.
    pub view: u64,
    /// Every node reads where a request stands in a trace.
    pub traces: bool,
}

/// Sends the request to the peer and its answer to who asked. Where this node does not reach the peer, another may.
pub(super) async fn forward(
    peers: Arc<dyn Peers>,
    behind: Behind,
    to: PeerId,
    relays: Vec<PeerId>,
    known: Known,
    asked: Asked<Reply>,
) {
    let Asked { conversation, request, reply, hops, relayed, .. } = asked;
    let (begun, kind) = (Instant::now(), metrics::kind(&request));
    let span = reply.as_ref().map(|reply| reply.traced.child("forward")).unwrap_or_default();
    let trace = span.context().filter(|_| known.traces);
    let mut forwarded = Forwarded { view: known.view, hops, conversation, request, direct: None, relayed };
    let mut answer = send(&*peers, &behind, to.clone(), trace, &forwarded).await;
    for relay in relays {
        if answer != Err(Refusal::Moved) || peers.reaches(&to) {
            break;
        }
        forwarded = Forwarded { direct: Some(to.clone()), relayed: true, ..forwarded };
        answer = send(&*peers, &behind, relay, trace, &forwarded).await;
    }
    metrics::forwarded(kind, &answer, begun.elapsed());
    if let Some(reply) = reply {
        // Who asked may have gone away.
        let _ = reply.send(answer);
    }
}

async fn send(
    peers: &dyn Peers,
    behind: &Behind,
    to: PeerId,
    trace: Option<TraceContext>,
    forwarded: &Forwarded,
) -> Result<Answer, Refusal> {
    let asked = ToPeerRef::Ask(forwarded);
    let bytes = trace.map_or_else(|| envelope::seal(&asked), |trace| envelope::seal_traced(&trace, &asked));
    match peers.ask(to, bytes, ANSWER_MAX).await {
        Ok(bytes) => match envelope::open::<FromPeer>(&bytes) {
            Ok(FromPeer::Replied(replied)) => {
                if replied.view > forwarded.view {
                    behind.of(replied.view);
                }
                replied.answer
            }
            Ok(FromPeer::Load(_) | FromPeer::Done) => {
                Err(Refusal::Unavailable("a peer answered what it was not asked".into()))
            }
            Err(error) => Err(Refusal::Unavailable(format!("a peer's answer cannot be read: {error}"))),
        },
        Err(PeerError::NotSent(_)) => Err(Refusal::Moved),
        Err(PeerError::NoAnswer(_)) => Err(Refusal::Lost),
    }
}

/// What the peer is doing; none where it does not say so in time.
pub(crate) async fn load_of(peers: &dyn Peers, to: PeerId) -> Option<NodeLoad> {
    let bytes = peers.ask(to, envelope::seal(&ToPeer::Load), LOAD_MAX).await.ok()?;
    match envelope::open(&bytes) {
        Ok(FromPeer::Load(load)) => Some(load),
        Ok(FromPeer::Replied(_) | FromPeer::Done) | Err(_) => None,
    }
}

/// What this node does with its peers' requests.
pub struct Receiver {
    gateway: ActorRef<GatewayMessage>,
    behind: Behind,
    spent: Spent,
    surroundings: Arc<Surroundings>,
    tracer: Arc<dyn Tracer>,
}

impl Receiver {
    pub fn new(
        gateway: ActorRef<GatewayMessage>,
        behind: Behind,
        spent: Spent,
        surroundings: Arc<Surroundings>,
        tracer: Arc<dyn Tracer>,
    ) -> Self {
        Self { gateway, behind, spent, surroundings, tracer }
    }
}

impl Serve for Receiver {
    fn serve(&self, from: PeerId, request: Vec<u8>) -> BoxFuture<'static, Vec<u8>> {
        let (gateway, behind, surroundings) = (self.gateway.clone(), self.behind.clone(), self.surroundings.clone());
        let mut view = surroundings.view.clone();
        let (spent, tracer) = (self.spent.clone(), self.tracer.clone());
        Box::pin(async move {
            let answer = match envelope::open_traced::<ToPeer>(&request) {
                Ok((trace, ToPeer::Ask(forwarded))) => {
                    let traced = trace.map(|trace| tracer.remote(trace)).unwrap_or_default();
                    catch_up(&behind, &mut view, forwarded.view).await;
                    pass(&surroundings, &gateway, forwarded, traced).await
                }
                Ok((_, ToPeer::Load)) => return envelope::seal(&FromPeer::Load(load(&gateway).await)),
                Ok((_, ToPeer::Spent(spending))) => {
                    spent.elsewhere(spending);
                    return envelope::seal(&FromPeer::Done);
                }
                Err(error) => {
                    tracing::warn!(peer = %from, %error, "a peer's request cannot be read");
                    Err(Refusal::Unavailable("the nodes do not understand one another".into()))
                }
            };
            let view = view.borrow().number();
            envelope::seal(&FromPeer::Replied(Replied { view, answer }))
        })
    }
}

/// Waits a little for the view by which a request was routed: it may name this node for the first time.
async fn catch_up(behind: &Behind, view: &mut watch::Receiver<View>, number: u64) {
    if view.borrow().number() >= number {
        return;
    }
    behind.of(number);
    // Without it the request is routed by the older view, which costs a hop.
    let _ = tokio::time::timeout(CATCH_UP_MAX, view.wait_for(|view| view.number() >= number)).await;
}

async fn load(gateway: &ActorRef<GatewayMessage>) -> NodeLoad {
    let (reply, status) = oneshot::channel();
    // A gateway that is gone does nothing any more.
    let _ = gateway.cast(GatewayMessage::Status(reply));
    status.await.map(|status| status.load()).unwrap_or_default()
}

async fn pass(
    surroundings: &Surroundings,
    gateway: &ActorRef<GatewayMessage>,
    forwarded: Forwarded,
    traced: Traced,
) -> Result<Answer, Refusal> {
    let Forwarded { hops, conversation, request, direct, relayed, .. } = forwarded;
    let (reply, answer) = Reply::new(traced);
    let asked = Asked { conversation, request, reply: Some(reply), hops, direct, relayed };
    routes::send(surroundings, gateway, asked).map_err(|_| Refusal::Moved)?;
    answer.await.map_err(|_| Refusal::Lost)?
}

#[cfg(test)]
mod tests {
    use klatch_protocol::event::{Created, KeyUse, Parameters};
    use klatch_protocol::turn::Change;
    use klatch_protocol::{Body, Item, Mark};

    use super::*;
    use crate::request::{Caller, Chain, Full, Missing, OnBusy, Param, Submit, Wait};

    fn caller() -> Caller {
        Caller { tenant: "acme".into(), subject: "ann".into() }
    }

    fn peer() -> PeerId {
        PeerId { name: "klatch-1".into(), incarnation: 7 }
    }

    fn item() -> Item {
        Item { ordinal: 1, client_id: Some("mine".into()), body: Body::user("hello").into() }
    }

    fn created() -> Box<Created> {
        Box::new(Created {
            tenant: "acme".into(),
            subject: "ann".into(),
            metadata: vec![("topic".into(), "tea".into())],
            ttl_seconds: Some(60),
            explicit: true,
            items: vec![item()],
            parent: None,
            key: Some(key()),
        })
    }

    fn key() -> KeyUse {
        KeyUse { key: [1; 16], fingerprint: [2; 16] }
    }

    fn submit() -> Submit {
        Submit {
            caller: caller(),
            input: vec![item()],
            parameters: Parameters {
                model: "echo".into(),
                background: false,
                store: true,
                conversation_named: true,
                previous: None,
                cancel_on_disconnect: false,
                start_by_ms: Some(9),
                request: "{}".into(),
            },
            on_busy: OnBusy::Rollback,
            key: None,
            attempt: Some([3; 16]),
            fingerprint: [2; 16],
            retry: true,
            wait: Wait::Ended,
            create: Some(created()),
            chain: Some(Chain { after_turn: 1, items_end: 2, child: ConversationId([5; 16]) }),
        }
    }

    /// One of each thing that one node says to another.
    fn everything() -> (Vec<ToPeer>, Vec<FromPeer>) {
        let caller = caller();
        let requests = vec![
            Request::Create(created()),
            Request::Submit(Box::new(submit())),
            Request::AddItems { caller: caller.clone(), items: vec![item()], key: Some(key()) },
            Request::SetMetadata { caller: caller.clone(), metadata: vec![], key: None },
            Request::DeleteItem { caller: caller.clone(), ordinal: 3 },
            Request::Fork { caller: caller.clone(), child: ConversationId([5; 16]), before: Some(3), key: None },
            Request::Cancel { caller: caller.clone(), turn: 1 },
            Request::DeleteResponse { caller: caller.clone(), turn: 1 },
            Request::Delete { caller: caller.clone() },
            Request::Expire { retention_ms: Some(4) },
            Request::Watch { caller, turn: 1, have: Mark::default(), bytes_max: 65_536 },
            Request::Undelivered { turn: 1 },
            Request::Wake,
        ];
        let ask = |request| {
            let conversation = ConversationId([4; 16]);
            ToPeer::Ask(Forwarded { view: 3, hops: 1, conversation, request, direct: Some(peer()), relayed: true })
        };
        let mut to: Vec<ToPeer> = requests.into_iter().map(ask).collect();
        to.extend([ToPeer::Load, ToPeer::Spent(vec![("acme".into(), 2)])]);
        let answers = vec![
            Ok(Answer::Conversation { created_at_ms: 1, metadata: vec![], replayed: true }),
            Ok(Answer::Items { ordinals: vec![1, 2], replayed: false }),
            Ok(Answer::Forked { child: ConversationId([5; 16]), created: created(), replayed: false }),
            Ok(Answer::News(vec![Change::Pieces { pieces: ["hel", "lo"].into() }])),
            Ok(Answer::NotOpen),
            Ok(Answer::Done),
            Ok(Answer::DueAt(5)),
            Err(Refusal::NotFound(Missing::Response)),
            Err(Refusal::Invalid { param: Param::Id, message: "no".into() }),
            Err(Refusal::Locked),
            Err(Refusal::KeyReused),
            Err(Refusal::Busy { what: Full::Queue, retry_after_ms: 6 }),
            Err(Refusal::Moved),
            Err(Refusal::Elsewhere { owner: peer() }),
            Err(Refusal::Lost),
            Err(Refusal::Unavailable("down".into())),
        ];
        let mut from: Vec<FromPeer> =
            answers.into_iter().map(|answer| FromPeer::Replied(Replied { view: 3, answer })).collect();
        from.extend([FromPeer::Load(NodeLoad { view: 3, ..NodeLoad::default() }), FromPeer::Done]);
        (to, from)
    }

    #[test]
    fn the_bytes_of_what_nodes_say_are_those_of_the_golden_file() {
        let golden = include_str!("../../golden/peer-v1.hex");
        let bytes: String = envelope::seal(&everything()).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            bytes,
            golden.trim(),
            "nodes of two versions would not understand one another: add variants instead"
        );
    }

    #[test]
    fn what_is_borrowed_is_sealed_as_what_is_owned() {
        for said in everything().0 {
            let owned = envelope::seal(&said);
            if let ToPeer::Ask(forwarded) = said {
                assert_eq!(envelope::seal(&ToPeerRef::Ask(&forwarded)), owned);
            }
        }
    }

    #[test]
    fn what_is_said_is_understood() {
        assert_eq!(envelope::open(&envelope::seal(&everything())), Ok(everything()));
    }
}
