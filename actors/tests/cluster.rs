//! Several nodes with real actors, in one process: one store, one table of nodes, and a switchboard between them. Time is
//! paused: what takes seconds in a cluster takes none here.

mod requests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use klatch_actors::membership::views::memory::MemoryViews;
use klatch_actors::membership::views::{Beat, Still, Viewed, Views, ViewsError};
use klatch_actors::node::Cluster;
use klatch_actors::peers::PeerId;
use klatch_actors::peers::memory::Switchboard;
use klatch_actors::reader::Page;
use klatch_actors::request::Wait;
use klatch_actors::responder::{Ask, End, Responder, ResponderError, Responders, Said};
use klatch_actors::store::Order;
use klatch_actors::store::memory::MemoryStore;
use klatch_actors::{Answer, Handle, Node, NodeOptions, Refusal, Request, Submit};
use klatch_protocol::view::{Row, ViewTable};
use klatch_protocol::{ConversationId, Mark, Outcome, Turn};
use requests::{ann, created};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

/// Of virtual time: longer than any takeover.
const PATIENCE: Duration = Duration::from_secs(60);

/// Answers with what it was asked, word by word, behind what was said already; each word waits for a permit.
struct Gated {
    gate: Arc<Semaphore>,
    asked: mpsc::UnboundedSender<Ask>,
}

impl Responder for Gated {
    fn history_items(&self) -> usize {
        0
    }

    fn respond(&self, ask: Ask) -> BoxStream<'static, Result<Said, ResponderError>> {
        // Nobody may be listening.
        let _ = self.asked.send(ask.clone());
        let text = ask.input.iter().map(|item| item.body.text()).collect::<String>();
        let left = text[ask.partial.len()..].split_inclusive(' ').map(str::to_owned).collect::<Vec<_>>();
        let gate = self.gate.clone();
        let words = stream::iter(left).then(move |word| {
            let gate = gate.clone();
            async move {
                gate.acquire().await.expect("the gate is never closed").forget();
                Ok(Said::Text(word))
            }
        });
        words.chain(stream::iter([Ok(Said::End(End::default()))])).boxed()
    }
}

/// The table of nodes as one of them reaches it: not at all while it is cut off.
struct Reached {
    views: Arc<MemoryViews>,
    reaches: watch::Receiver<bool>,
}

impl Reached {
    fn through<'a, T: Send + 'a>(&'a self, ask: impl FnOnce() -> Viewed<'a, T>) -> Viewed<'a, T> {
        if *self.reaches.borrow() {
            return ask();
        }
        let error: BoxFuture<'a, Result<T, ViewsError>> =
            Box::pin(std::future::ready(Err(ViewsError("cut off".into()))));
        error
    }
}

impl Views for Reached {
    fn join(&self, name: String, row: Row) -> Viewed<'_, bool> {
        self.through(|| self.views.join(name, row))
    }

    fn beat(&self, name: String, incarnation: u64) -> Viewed<'_, Option<Beat>> {
        self.through(|| self.views.beat(name, incarnation))
    }

    fn set(&self, name: String, row: Row) -> Viewed<'_, bool> {
        self.through(|| self.views.set(name, row))
    }

    fn bury(&self, still: Vec<Still>, number: u64) -> Viewed<'_, bool> {
        self.through(|| self.views.bury(still, number))
    }

    fn leave(&self, name: String, incarnation: u64) -> Viewed<'_, ()> {
        self.through(|| self.views.leave(name, incarnation))
    }

    fn read(&self) -> Viewed<'_, ViewTable> {
        self.through(|| self.views.read())
    }
}

struct World {
    store: Arc<MemoryStore>,
    views: Arc<MemoryViews>,
    board: Switchboard,
    gate: Arc<Semaphore>,
    asked: mpsc::UnboundedReceiver<Ask>,
    responders: Arc<Responders>,
    nodes: BTreeMap<String, Member>,
    lives: u64,
}

struct Member {
    node: Node,
    reaches: watch::Sender<bool>,
}

impl World {
    async fn new(names: &[&str]) -> Self {
        let (gate, (asked_sender, asked)) = (Arc::new(Semaphore::new(0)), mpsc::unbounded_channel());
        let gated: Arc<dyn Responder> = Arc::new(Gated { gate: gate.clone(), asked: asked_sender });
        let mut world = Self {
            store: Arc::default(),
            views: Arc::default(),
            board: Switchboard::default(),
            gate,
            asked,
            responders: Arc::new(Responders::from([("gated".to_owned(), gated)])),
            nodes: BTreeMap::new(),
            lives: 0,
        };
        for name in names {
            world.start(name).await;
        }
        world.all_see(names.len()).await;
        world
    }

    async fn start(&mut self, name: &str) {
        self.lives += 1;
        let id = PeerId { name: name.into(), incarnation: self.lives };
        let (reaches, reaches_seen) = watch::channel(true);
        let (serve, served) = oneshot::channel();
        let (board, connected) = (self.board.clone(), id.clone());
        tokio::spawn(async move {
            if let Ok(serve) = served.await {
                board.connect(connected, serve);
            }
        });
        let cluster = Cluster {
            views: Arc::new(Reached { views: self.views.clone(), reaches: reaches_seen }),
            peers: Arc::new(self.board.peers(id)),
            address: format!("{name}:1"),
            serve,
        };
        let options = NodeOptions {
            cluster: Some(cluster),
            ..NodeOptions::new(name, self.lives, self.store.clone(), self.responders.clone())
        };
        let node = Node::start(options).await.expect("a node starts");
        self.nodes.insert(name.to_owned(), Member { node, reaches });
    }

    async fn crash(&mut self, name: &str) {
        let member = self.nodes.remove(name).expect("it runs");
        member.node.crash().await;
        self.board.disconnect(name);
    }

    fn handle(&self, name: &str) -> Handle {
        self.nodes[name].node.handle()
    }

    /// Until every node has a view of so many.
    async fn all_see(&self, count: usize) {
        for (name, member) in &self.nodes {
            let handle = member.node.handle();
            let seen = async {
                while handle.members().await.len() != count {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            tokio::time::timeout(PATIENCE, seen).await.unwrap_or_else(|_| panic!("{name} does not see {count} nodes"));
        }
    }

    /// A conversation that this node owns.
    async fn create_at(&self, owner: &str) -> ConversationId {
        loop {
            let id = ConversationId::random();
            if self.owner(id).await == owner {
                let create = Request::Create(Box::new(created()));
                self.handle(owner).ask(id, create).await.expect("it is made");
                return id;
            }
        }
    }

    async fn owner(&self, id: ConversationId) -> String {
        let table = self.views.read().await.expect("the table is there");
        let view = klatch_actors::membership::view::View::new(&table);
        view.owner(id.shard()).expect("a node is up").name.to_string()
    }

    async fn next_ask(&mut self) -> Ask {
        tokio::time::timeout(PATIENCE, self.asked.recv()).await.expect("the responder is asked").expect("it lives")
    }
}

fn submit(text: &str, wait: Wait, key: Option<u8>) -> Request {
    Request::Submit(Box::new(Submit { key: key.map(|key| [key; 16]), ..requests::submit("gated", text, wait) }))
}

async fn accepted(handle: &Handle, id: ConversationId, text: &str) -> Turn {
    match handle.ask(id, submit(text, Wait::Accepted, None)).await {
        Ok(Answer::Turn { turn, .. }) => Arc::unwrap_or_clone(turn),
        other => panic!("a turn is answered with {other:?}"),
    }
}

/// Reads the turn on until its end, as an edge would: the same question to whoever owns it.
async fn follow(handle: &Handle, id: ConversationId, turn: &mut Turn) {
    let reading = async {
        while turn.outcome.is_none() {
            let have = turn.mark();
            let watch = Request::Watch { caller: ann(), turn: turn.accepted.turn, have, bytes_max: 1 << 20 };
            match handle.ask(id, watch).await {
                Ok(Answer::News(changes)) => changes.into_iter().for_each(|change| turn.apply(change)),
                Ok(Answer::NotOpen) => {
                    let reader = handle.reader();
                    let state = reader.conversation(id, &ann()).await.expect("it is read").expect("it exists");
                    if let Some(stored) = reader.turn(id, &state, turn.accepted.turn).await.expect("it is read") {
                        assert!(stored.text().starts_with(&turn.text()), "what was shown is not in the store");
                        *turn = stored;
                    }
                    // As the edge does; with time standing still nothing else would happen meanwhile.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(Refusal::Moved | Refusal::Lost | Refusal::Elsewhere { .. }) => {}
                other => panic!("a watch is answered with {other:?}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("the turn ends");
}

async fn watch_until(handle: &Handle, id: ConversationId, turn: &mut Turn, text: &str) {
    while turn.text() != text {
        let watch = Request::Watch { caller: ann(), turn: turn.accepted.turn, have: turn.mark(), bytes_max: 1 << 20 };
        match handle.ask(id, watch).await {
            Ok(Answer::News(changes)) => changes.into_iter().for_each(|change| turn.apply(change)),
            other => panic!("a watch is answered with {other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn any_node_serves_any_conversation() {
    let mut world = World::new(&["a", "b", "c"]).await;
    world.gate.add_permits(100);
    for owner in ["a", "b", "c"] {
        let id = world.create_at(owner).await;
        for edge in ["a", "b", "c"] {
            let answer = world.handle(edge).ask(id, submit("one two", Wait::Ended, None)).await;
            let Ok(Answer::Turn { turn, .. }) = answer else { panic!("{edge} answered {answer:?}") };
            assert_eq!(turn.text(), "one two");
            assert_eq!(world.next_ask().await.attempt, 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_goes_on_when_its_owner_dies() {
    let mut world = World::new(&["a", "b", "c"]).await;
    let id = world.create_at("a").await;
    let edge = world.handle("b");
    let mut turn = accepted(&edge, id, "one two three").await;
    assert_eq!(world.next_ask().await.attempt, 1);
    world.gate.add_permits(1);
    watch_until(&edge, id, &mut turn, "one ").await;
    world.crash("a").await;
    let again = async {
        let ask = world.asked.recv().await.expect("it lives");
        assert_eq!((ask.attempt, ask.partial.as_str()), (2, "one "), "the responder goes on behind what was shown");
        world.gate.add_permits(2);
    };
    tokio::join!(again, follow(&edge, id, &mut turn));
    assert_eq!(turn.text(), "one two three");
    assert!(matches!(turn.outcome, Some(Outcome::Completed { .. })));
    assert_eq!(turn.mark(), Mark { attempts: 2, outputs: 1, pieces: 3, ended: true });
}

#[tokio::test(start_paused = true)]
async fn an_open_turn_stays_with_its_owner_while_that_is_alive() {
    let mut world = World::new(&["a", "b"]).await;
    let id = world.create_at("b").await;
    world.crash("b").await;
    world.all_see(1).await;
    let mut turn = accepted(&world.handle("a"), id, "one two").await;
    assert_eq!(world.next_ask().await.attempt, 1);
    // Placement gives it to another node, while its owner is silent for long.
    world.start("b").await;
    world.all_see(2).await;
    assert_eq!(world.owner(id).await, "b");
    tokio::time::sleep(Duration::from_secs(30)).await;
    let queued = accepted(&world.handle("b"), id, "three").await;
    assert!(queued.accepted.queued, "it stands behind the open turn");
    world.gate.add_permits(10);
    follow(&world.handle("b"), id, &mut turn).await;
    assert_eq!((turn.text().as_str(), turn.attempts.len()), ("one two", 1));
    let mut queued = queued;
    follow(&world.handle("a"), id, &mut queued).await;
    assert_eq!(queued.text(), "three");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_leaves_hands_its_running_turn_on() {
    let mut world = World::new(&["a", "b"]).await;
    let id = world.create_at("a").await;
    let edge = world.handle("b");
    let mut turn = accepted(&edge, id, "one two").await;
    assert_eq!(world.next_ask().await.attempt, 1);
    world.gate.add_permits(1);
    watch_until(&edge, id, &mut turn, "one ").await;
    let leaving = world.nodes.remove("a").expect("it runs");
    assert_eq!(leaving.node.drain(Duration::from_secs(1)).await, 1, "one turn was open");
    world.board.disconnect("a");
    let again = async {
        assert_eq!(world.asked.recv().await.expect("it lives").partial, "one ");
        world.gate.add_permits(1);
    };
    tokio::join!(again, follow(&edge, id, &mut turn));
    assert_eq!(turn.text(), "one two");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_cut_off_from_the_table_drops_everything_and_joins_anew() {
    let mut world = World::new(&["a", "b"]).await;
    let id = world.create_at("a").await;
    let edge = world.handle("b");
    let mut turn = accepted(&edge, id, "one two").await;
    assert_eq!(world.next_ask().await.attempt, 1);
    let before = world.handle("a").members().await;
    world.nodes["a"].reaches.send_replace(false);
    let again = async {
        let ask = world.asked.recv().await.expect("it lives");
        assert_eq!(ask.attempt, 2, "the other node takes the turn over");
        // Some go to the call of the stale owner, which ends at its next append.
        world.gate.add_permits(10);
    };
    tokio::join!(again, follow(&edge, id, &mut turn));
    assert_eq!(turn.text(), "one two");
    world.nodes["a"].reaches.send_replace(true);
    world.all_see(2).await;
    let after = world.handle("b").members().await;
    assert!(after[0].id.incarnation > before[0].id.incarnation, "it came back as the same life");
    world.gate.add_permits(10);
    let answer = world.handle("a").ask(id, submit("again", Wait::Ended, Some(1))).await;
    assert!(matches!(answer, Ok(Answer::Turn { .. })), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn two_nodes_that_do_not_reach_one_another_are_served_by_way_of_a_third() {
    let world = World::new(&["a", "b", "c"]).await;
    world.gate.add_permits(100);
    world.board.cut("a", "b");
    let id = world.create_at("b").await;
    for n in 0..3 {
        let answer = world.handle("a").ask(id, submit("one two", Wait::Ended, Some(n))).await;
        assert!(matches!(answer, Ok(Answer::Turn { replayed: false, .. })), "{answer:?}");
    }
    let reader = world.handle("a").reader().clone();
    let state = reader.state(id).await.expect("it is read");
    assert_eq!(state.claimed_by.map(|by| by.node).as_deref(), Some("b"), "its owner was passed over");
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_nobody_reaches_is_passed_over() {
    let world = World::new(&["a", "b"]).await;
    world.gate.add_permits(100);
    let id = world.create_at("b").await;
    world.board.cut("a", "b");
    let answer = world.handle("a").ask(id, submit("one two", Wait::Ended, None)).await;
    let Ok(Answer::Turn { turn, .. }) = answer else { panic!("{answer:?}") };
    assert_eq!(turn.text(), "one two");
    let answer = world.handle("b").ask(id, submit("three", Wait::Ended, None)).await;
    assert!(matches!(answer, Ok(Answer::Turn { .. })), "both go on, in one order: {answer:?}");
    let reader = world.handle("a").reader().clone();
    let state = Arc::new(reader.state(id).await.expect("it is read"));
    let page = Page { from: 0, to: u64::MAX, order: Order::Ascending, limit: 10 };
    let items = reader.items(id, &state, page).await.expect("it is read");
    let texts: Vec<String> = items.iter().map(|item| item.body.text()).collect();
    assert_eq!(texts, ["one two", "one two", "three", "three"]);
}

#[tokio::test(start_paused = true)]
async fn what_a_tenant_spends_is_told_to_the_other_nodes() {
    let world = World::new(&["a", "b"]).await;
    let (told, mut heard) = mpsc::unbounded_channel();
    world.handle("b").on_spending(move |spending| drop(told.send(spending)));
    let spending = vec![("acme".into(), 3)];
    world.handle("a").tell_spending(&spending);
    assert_eq!(tokio::time::timeout(PATIENCE, heard.recv()).await, Ok(Some(spending)));
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_view_is_behind_does_not_take_a_newcomer_for_dead() {
    let mut world = World::new(&["a", "b"]).await;
    let id = world.create_at("b").await;
    world.crash("b").await;
    world.all_see(1).await;
    // From now on "a" learns nothing of the table, but is not declared dead: nobody else has been there for long enough.
    world.nodes["a"].reaches.send_replace(false);
    world.start("b").await;
    let mut turn = accepted(&world.handle("b"), id, "one two").await;
    assert_eq!(world.next_ask().await.attempt, 1);
    world.handle("a").ask(id, Request::Wake).await.expect("it is sent on to the owner");
    world.gate.add_permits(2);
    follow(&world.handle("b"), id, &mut turn).await;
    assert_eq!((turn.text().as_str(), turn.attempts.len()), ("one two", 1));
}
