//! A node's real actors over the memory store, with responders that do what a test tells them.

mod requests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use klatch_actors::reader::Page;
use klatch_actors::request::Wait;
use klatch_actors::responder::{Answered, Ask, End, Responder, ResponderError, Responders, Said};
use klatch_actors::store::Order;
use klatch_actors::store::memory::MemoryStore;
use klatch_actors::{Answer, Handle, Limits, Node, NodeOptions, Refusal, Request, Store, Submit};
use klatch_protocol::event::Created;
use klatch_protocol::{ConversationId, Mark, Outcome, Turn};
use requests::{ann, created};
use tokio::sync::{Semaphore, mpsc};

/// Longer than anything here takes, however busy the machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Answers with what it was asked, word by word; each word waits for a permit of `gate`.
struct Gated {
    gate: Arc<Semaphore>,
    asked: mpsc::UnboundedSender<Ask>,
}

impl Responder for Gated {
    fn history_items(&self) -> usize {
        10
    }

    fn respond(&self, ask: Ask) -> BoxStream<'static, Result<Said, ResponderError>> {
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

/// Answers at once; panics at the word "panic".
struct AtOnce;

impl Responder for AtOnce {
    fn history_items(&self) -> usize {
        0
    }

    fn answers_at_once(&self) -> bool {
        true
    }

    fn answer(&self, ask: &Ask) -> Answered {
        let text = ask.input.iter().map(|item| item.body.text()).collect::<String>();
        assert!(text != "panic", "as it was told");
        Answered { pieces: [text].into(), end: End::default() }
    }

    fn respond(&self, ask: Ask) -> BoxStream<'static, Result<Said, ResponderError>> {
        stream::iter(self.answer(&ask).into_said().into_iter().map(Ok)).boxed()
    }
}

/// Panics whenever it is asked, inside the conversation's own handler.
struct Poison {
    asked: AtomicUsize,
}

impl Responder for Poison {
    fn history_items(&self) -> usize {
        0
    }

    fn respond(&self, _: Ask) -> BoxStream<'static, Result<Said, ResponderError>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        panic!("as it always does");
    }
}

struct World {
    store: Arc<MemoryStore>,
    gate: Arc<Semaphore>,
    asked: mpsc::UnboundedReceiver<Ask>,
    responders: Arc<Responders>,
    poison: Arc<Poison>,
    now_ms: Arc<AtomicU64>,
    lives: u64,
}

impl World {
    fn new() -> Self {
        let (gate, (asked_sender, asked)) = (Arc::new(Semaphore::new(0)), mpsc::unbounded_channel());
        let poison = Arc::new(Poison { asked: AtomicUsize::new(0) });
        let mut responders = Responders::new();
        responders.insert("gated".into(), Arc::new(Gated { gate: gate.clone(), asked: asked_sender }));
        responders.insert("echo".into(), Arc::new(AtOnce));
        responders.insert("poison".into(), poison.clone());
        let (store, now_ms) = (Arc::new(MemoryStore::default()), Arc::new(AtomicU64::new(1_000)));
        Self { store, gate, asked, responders: Arc::new(responders), poison, now_ms, lives: 0 }
    }

    async fn node(&mut self, limits: Limits) -> Node {
        self.lives += 1;
        let now_ms = self.now_ms.clone();
        let options = NodeOptions {
            limits,
            clock: Arc::new(move || now_ms.load(Ordering::SeqCst)),
            ..NodeOptions::new("a", self.lives, self.store.clone(), self.responders.clone())
        };
        Node::start(options).await.expect("a node starts")
    }

    async fn next_ask(&mut self) -> Ask {
        tokio::time::timeout(PATIENCE, self.asked.recv()).await.expect("the responder is asked").expect("it lives")
    }
}

async fn create(handle: &Handle) -> ConversationId {
    let id = ConversationId::random();
    handle.ask(id, Request::Create(Box::new(created()))).await.expect("it is made");
    id
}

fn submit(model: &str, text: &str, wait: Wait) -> Request {
    Request::Submit(Box::new(requests::submit(model, text, wait)))
}

fn keyed(model: &str, text: &str, key: [u8; 16]) -> Request {
    let Request::Submit(submit) = submit(model, text, Wait::Ended) else { unreachable!("it is a turn") };
    Request::Submit(Box::new(Submit { key: Some(key), ..*submit }))
}

async fn turn(handle: &Handle, id: ConversationId, model: &str, text: &str) -> Result<Arc<Turn>, Refusal> {
    let asked = handle.ask(id, submit(model, text, Wait::Ended));
    match tokio::time::timeout(PATIENCE, asked).await.expect("a turn ends")? {
        Answer::Turn { turn, .. } => Ok(turn),
        other => panic!("a turn is answered with {other:?}"),
    }
}

async fn texts(handle: &Handle, id: ConversationId) -> Vec<String> {
    let reader = handle.reader();
    let state = reader.conversation(id, &ann()).await.expect("the store answers").expect("it exists");
    let all = Page { from: 0, to: u64::MAX, order: Order::Ascending, limit: 10_000 };
    let ascending = reader.items(id, &state, all).await.expect("the store answers");
    let mut descending =
        reader.items(id, &state, Page { order: Order::Descending, ..all }).await.expect("the store answers");
    descending.reverse();
    assert_eq!(ascending, descending, "both orders show the same items");
    ascending.iter().map(|item| item.body.text()).collect()
}

#[tokio::test]
async fn conversations_run_beside_one_another() {
    let mut world = World::new();
    let node = world.node(Limits::default()).await;
    let handle = node.handle();
    let (stuck, free) = (create(&handle).await, create(&handle).await);
    handle.ask(stuck, submit("gated", "a b", Wait::Accepted)).await.expect("it is accepted");
    world.next_ask().await;
    assert_eq!(turn(&handle, free, "echo", "hello").await.expect("it is answered").text(), "hello");
    world.gate.add_permits(2);
    node.drain(PATIENCE).await;
    assert_eq!(texts(&handle, stuck).await, ["a b", "a b"]);
}

#[tokio::test]
async fn a_panic_costs_the_turn_that_caused_it_and_nothing_else() {
    let mut world = World::new();
    let node = world.node(Limits::default()).await;
    let handle = node.handle();
    let (sick, healthy) = (create(&handle).await, create(&handle).await);
    handle.ask(healthy, submit("gated", "a b", Wait::Accepted)).await.expect("it is accepted");
    world.next_ask().await;

    let before = turn(&handle, sick, "echo", "before").await.expect("it is answered");
    assert_eq!(before.text(), "before");
    let crashed = turn(&handle, sick, "echo", "panic").await;
    assert!(matches!(crashed, Err(Refusal::Lost)), "nothing was accepted: {crashed:?}");
    let accepted = handle.ask(sick, submit("poison", "bad", Wait::Accepted)).await.expect("it is accepted");
    let Answer::Turn { turn: poisoned, .. } = accepted else { panic!("a turn is answered with {accepted:?}") };
    // Behind it in the queue, so its answer says that the poisoned turn is over. The crash may cost this request its
    // answer, but not its turn: under its key it is the same one.
    let after = loop {
        match handle.ask(sick, keyed("echo", "after", [7; 16])).await {
            Ok(Answer::Turn { turn, .. }) => break turn,
            Err(Refusal::Lost | Refusal::Moved) => {}
            other => panic!("a turn is answered with {other:?}"),
        }
    };
    assert_eq!(after.text(), "after");

    let reader = handle.reader();
    let state = reader.conversation(sick, &ann()).await.expect("the store answers").expect("it exists");
    let failed = reader.turn(sick, &state, poisoned.accepted.turn).await.expect("the store answers");
    assert!(matches!(failed.and_then(|turn| turn.outcome), Some(Outcome::Failed { .. })));
    assert_eq!(world.poison.asked.load(Ordering::SeqCst), 2, "it was given a second chance and no third");
    assert_eq!(texts(&handle, sick).await, ["before", "before", "after", "after"]);
    world.gate.add_permits(2);
    node.drain(PATIENCE).await;
    assert_eq!(texts(&handle, healthy).await, ["a b", "a b"], "its neighbour did not notice");
}

#[tokio::test]
async fn an_unfinished_turn_goes_on_with_the_next_start_and_nobody_has_to_ask() {
    let mut world = World::new();
    let node = world.node(Limits { batch_every: Duration::ZERO, ..Limits::default() }).await;
    let handle = node.handle();
    let id = create(&handle).await;
    handle.ask(id, submit("gated", "one two three", Wait::Accepted)).await.expect("it is accepted");
    assert_eq!(world.next_ask().await.partial, "");
    world.gate.add_permits(1);
    let have = Mark { attempts: 1, ..Mark::default() };
    let watch = Request::Watch { caller: ann(), turn: 0, have, bytes_max: 999 };
    handle.ask(id, watch).await.expect("the first word is shown");
    assert_eq!(node.drain(Duration::ZERO).await, 1, "one turn is still open");

    let node = world.node(Limits::default()).await;
    let ask = world.next_ask().await;
    assert_eq!((ask.partial.as_str(), ask.attempt), ("one ", 2), "it goes on behind what was shown");
    world.gate.add_permits(2);
    node.drain(PATIENCE).await;
    assert_eq!(texts(&handle, id).await, ["one two three", "one two three"]);
}

#[tokio::test]
async fn those_that_do_not_fit_leave_memory_and_come_back_whole() {
    const CONVERSATIONS: usize = 500;
    let mut world = World::new();
    let limits = Limits { active_conversations: 10, compact_after_entries: 4, ..Limits::default() };
    let node = world.node(limits).await;
    let handle = node.handle();
    let mut ids = Vec::new();
    for n in 0..CONVERSATIONS {
        let id = create(&handle).await;
        turn(&handle, id, "echo", &format!("first {n}")).await.expect("it is answered");
        ids.push(id);
        let active = handle.status().await.expect("the node lives").active_conversations;
        assert!(active <= 30, "{active} conversations are in memory");
    }
    for (n, id) in ids.iter().enumerate() {
        turn(&handle, *id, "echo", &format!("second {n}")).await.expect("it is answered");
    }
    for (n, id) in ids.iter().enumerate() {
        let (first, second) = (format!("first {n}"), format!("second {n}"));
        assert_eq!(texts(&handle, *id).await, [first.clone(), first, second.clone(), second]);
    }
    node.drain(PATIENCE).await;
}

#[tokio::test]
async fn idle_conversations_leave_memory() {
    let mut world = World::new();
    let node = world.node(Limits { idle_after: Duration::from_millis(1), ..Limits::default() }).await;
    let handle = node.handle();
    create(&handle).await;
    let gone = async {
        while handle.status().await.expect("the node lives").active_conversations > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("it leaves");
    node.drain(PATIENCE).await;
}

#[tokio::test]
async fn a_child_keeps_its_prefix_whatever_becomes_of_its_parent() {
    let mut world = World::new();
    let node = world.node(Limits { compact_after_entries: 3, ..Limits::default() }).await;
    let handle = node.handle();
    let parent = create(&handle).await;
    for text in ["one", "two", "three"] {
        turn(&handle, parent, "echo", text).await.expect("it is answered");
    }
    let delete = |ordinal| Request::DeleteItem { caller: ann(), ordinal };
    let first = texts_with_ordinals(&handle, parent).await;
    handle.ask(parent, delete(first[0].0)).await.expect("it is deleted");
    let child = fork(&handle, parent, Some(first[3].0 + 1)).await;
    assert_eq!(texts(&handle, child).await, ["one", "two", "two"], "what was deleted before is not inherited");
    handle.ask(parent, delete(first[2].0)).await.expect("it is deleted");
    handle.ask(child, delete(first[1].0)).await.expect("it is deleted");
    turn(&handle, child, "echo", "own").await.expect("it is answered");
    let grandchild = fork(&handle, child, None).await;
    handle.ask(parent, Request::Delete { caller: ann() }).await.expect("it is deleted");
    for n in 0..5 {
        turn(&handle, child, "echo", &n.to_string()).await.expect("it is answered");
    }
    assert_eq!(texts(&handle, child).await[..4], ["two", "two", "own", "own"]);
    assert_eq!(texts(&handle, grandchild).await, ["two", "two", "own", "own"]);
    let gone = handle.reader().conversation(parent, &ann()).await.expect("the store answers");
    assert!(gone.is_none(), "a deleted conversation is found");
    node.drain(PATIENCE).await;
}

async fn texts_with_ordinals(handle: &Handle, id: ConversationId) -> Vec<(u64, String)> {
    let state = handle.reader().conversation(id, &ann()).await.expect("the store answers").expect("it exists");
    let all = Page { from: 0, to: u64::MAX, order: Order::Ascending, limit: 100 };
    let items = handle.reader().items(id, &state, all).await.expect("the store answers");
    items.into_iter().map(|item| (item.ordinal, item.body.text())).collect()
}

async fn fork(handle: &Handle, id: ConversationId, before: Option<u64>) -> ConversationId {
    let child = ConversationId::random();
    let request = Request::Fork { caller: ann(), child, before, key: None };
    let answer = handle.ask(id, request).await.expect("it is forked");
    let Answer::Forked { child, created, .. } = answer else { panic!("a fork is answered with {answer:?}") };
    handle.ask(child, Request::Create(created)).await.expect("the child is made");
    child
}

#[tokio::test]
async fn a_conversation_that_outlived_its_time_is_deleted() {
    let mut world = World::new();
    let node = world.node(Limits::default()).await;
    let handle = node.handle();
    let id = ConversationId::random();
    let mortal = Created { ttl_seconds: Some(60), ..created() };
    handle.ask(id, Request::Create(Box::new(mortal))).await.expect("it is made");
    assert_eq!(world.store.due(u64::MAX, 10).await.expect("the store answers").len(), 1);
    let expire = || Request::Expire { retention_ms: None };
    world.now_ms.store(50_000, Ordering::SeqCst);
    turn(&handle, id, "echo", "still here").await.expect("it is answered");
    world.now_ms.store(70_000, Ordering::SeqCst);
    handle.ask(id, expire()).await.expect("it is looked at");
    assert!(handle.reader().conversation(id, &ann()).await.expect("the store answers").is_some());
    world.now_ms.store(111_000, Ordering::SeqCst);
    handle.ask(id, expire()).await.expect("it is looked at");
    assert!(handle.reader().conversation(id, &ann()).await.expect("the store answers").is_none());
    node.drain(PATIENCE).await;
}
