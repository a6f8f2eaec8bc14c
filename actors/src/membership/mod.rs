//! Keeps this node's row in the table of nodes, and tells everyone here of each new view. The node starts and supervises
//! it; without it the node ends.
//!
//! Decides nothing about conversations: a node that is declared dead drops them all, and whoever owns them next reads
//! their logs. With a store of its own a node is alone in a table of its own.

pub mod decide;
pub mod view;
pub mod views;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use klatch_protocol::envelope;
use klatch_protocol::view::{MemberStatus, Row};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::conversation::Surroundings;
use crate::gateway::GatewayMessage;
use crate::metrics;
use crate::peers::Peers;
use decide::{BEAT_EVERY_MS, Effect, Input, Membership};
use view::View;
use views::{Still, Views, ViewsError};

/// The table answers within this or not at all.
const ASK_MAX: Duration = Duration::from_secs(2);

pub enum MembershipMessage {
    Tick,
    /// This node can own shards. Answered once everyone here knows of it, so what is asked later finds it up.
    Up(RpcReplyPort<()>),
    /// This node gives everything away.
    Leave,
    /// Take this node's row out: nothing is left to give away. Answered when it is done, or cannot be.
    Gone(RpcReplyPort<()>),
    /// Somebody has seen a newer view.
    Behind(u64),
    Happened(Input),
}

/// Never leaves this node.
impl ractor::Message for MembershipMessage {}

pub struct MembershipActor;

pub struct Arguments {
    /// `host:port` where other nodes reach this one.
    pub address: String,
    pub views: Arc<dyn Views>,
    pub peers: Arc<dyn Peers>,
    pub surroundings: Arc<Surroundings>,
    pub gateway: ActorRef<GatewayMessage>,
    pub view: watch::Sender<View>,
}

pub struct State {
    arguments: Arguments,
    core: Membership,
    started: Instant,
    tasks: JoinSet<()>,
    waiting_up: Vec<RpcReplyPort<()>>,
}

impl Actor for MembershipActor {
    type Msg = MembershipMessage;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, arguments: Arguments) -> Result<State, ActorProcessingErr> {
        let me = arguments.surroundings.me();
        let row = Row {
            incarnation: me.incarnation,
            address: arguments.address.clone(),
            status: MemberStatus::Joining,
            format: envelope::READS,
        };
        let core = Membership::new(me.name.to_string(), row);
        myself.send_interval(Duration::from_millis(BEAT_EVERY_MS), || MembershipMessage::Tick);
        myself.cast(MembershipMessage::Tick)?;
        Ok(State { arguments, core, started: Instant::now(), tasks: JoinSet::new(), waiting_up: Vec::new() })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let input = match message {
            MembershipMessage::Tick => Input::Tick,
            MembershipMessage::Up(reply) => {
                state.waiting_up.push(reply);
                Input::Up
            }
            MembershipMessage::Leave => Input::Leave,
            MembershipMessage::Gone(reply) => {
                state.gone(reply);
                return Ok(());
            }
            MembershipMessage::Behind(number) => Input::Behind(number),
            MembershipMessage::Happened(input) => input,
        };
        while state.tasks.try_join_next().is_some() {}
        let now_ms = state.started.elapsed().as_millis() as u64;
        for effect in state.core.decide(now_ms, input) {
            state.carry_out(&myself, effect)?;
        }
        Ok(())
    }
}

impl State {
    fn carry_out(&mut self, myself: &ActorRef<MembershipMessage>, effect: Effect) -> Result<(), ActorProcessingErr> {
        let me = self.arguments.surroundings.me();
        let (name, incarnation) = (me.name.to_string(), self.core.incarnation());
        let views = self.arguments.views.clone();
        match effect {
            Effect::Join(row) => self.ask(myself, async move { Ok(Input::Joined(views.join(name, row).await?)) }),
            Effect::Set(row) => self.ask(myself, async move { Ok(Input::Joined(views.set(name, row).await?)) }),
            Effect::Beat => {
                self.ask(myself, async move { Ok(Input::Beaten(views.beat(name, incarnation).await?)) });
            }
            Effect::Read => self.ask(myself, async move { Ok(Input::Read(views.read().await?)) }),
            Effect::Probe(peer) => {
                let refuses = self.arguments.peers.refuses(&peer);
                let myself = myself.clone();
                self.tasks.spawn(async move {
                    let refused = refuses.await;
                    let (name, incarnation) = (peer.id.name.to_string(), peer.id.incarnation);
                    // A membership that is gone needs no report.
                    let _ = myself.cast(MembershipMessage::Happened(Input::Probed { name, incarnation, refused }));
                });
            }
            Effect::Bury { still, number } => {
                for Still { name, incarnation, .. } in &still {
                    tracing::warn!(peer.name = name, peer.incarnation = incarnation, "a node is declared dead");
                }
                self.ask(myself, async move { Ok(Input::Buried(views.bury(still, number).await?)) });
            }
            Effect::Tell(view) => self.tell(view)?,
            Effect::Drop => {
                tracing::error!(
                    node.incarnation = incarnation,
                    "this node was declared dead: it drops its conversations and joins again"
                );
                metrics::declared_dead();
                self.arguments.surroundings.incarnation.store(incarnation, Ordering::SeqCst);
                self.arguments.peers.reborn(incarnation);
                self.arguments.gateway.cast(GatewayMessage::DropAll)?;
            }
            Effect::End => return Err("a later life of this node is running: two must not have one name".into()),
        }
        Ok(())
    }

    /// Asks the table; whatever comes of it is told as one input.
    fn ask(
        &mut self,
        myself: &ActorRef<MembershipMessage>,
        question: impl Future<Output = Result<Input, ViewsError>> + Send + 'static,
    ) {
        let myself = myself.clone();
        self.tasks.spawn(async move {
            let begun = Instant::now();
            let input = match tokio::time::timeout(ASK_MAX, question).await {
                Ok(Ok(input)) => input,
                Ok(Err(error)) => failed(&error.0),
                Err(_) => failed("no answer in time"),
            };
            metrics::table_asked(begun.elapsed(), input != Input::Failed);
            // A membership that is gone needs no report.
            let _ = myself.cast(MembershipMessage::Happened(input));
        });
    }

    fn tell(&mut self, view: View) -> Result<(), ActorProcessingErr> {
        let me = self.arguments.surroundings.me();
        tracing::info!(view.number = view.number(), view.members = %members(&view), "a new view");
        metrics::view(&view, &me);
        self.arguments.peers.keep(view.peers(&me.name));
        self.arguments.gateway.cast(GatewayMessage::View(view.clone()))?;
        if view.status(&me) == Some(MemberStatus::Up) {
            for reply in self.waiting_up.drain(..) {
                // Who asked may have gone away.
                let _ = reply.send(());
            }
        }
        self.arguments.view.send_replace(view);
        Ok(())
    }

    fn gone(&mut self, reply: RpcReplyPort<()>) {
        let (views, me) = (self.arguments.views.clone(), self.arguments.surroundings.me());
        self.tasks.spawn(async move {
            let left = tokio::time::timeout(ASK_MAX, views.leave(me.name.to_string(), me.incarnation)).await;
            if !matches!(left, Ok(Ok(()))) {
                tracing::warn!("the table of nodes could not be told; the others will notice");
            }
            // Who asked may have gone away.
            let _ = reply.send(());
        });
    }
}

fn failed(why: &str) -> Input {
    tracing::debug!(why, "the table of nodes did not answer");
    Input::Failed
}

/// `name status, …`, for the log.
fn members(view: &View) -> String {
    let member = |(name, member): (&Arc<str>, &view::Member)| format!("{name} {:?}", member.status).to_lowercase();
    view.members().iter().map(member).collect::<Vec<_>>().join(", ")
}
