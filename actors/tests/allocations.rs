//! How often a turn asks for memory: counted, and so the same on every machine. A count above its maximum fails, and one
//! well below it too, so that what was gained is kept: whoever changes a count on purpose changes its maximum with it, and
//! says why in the commit.
//!
//! Counted is what one thread does, on which everything runs here.

mod given;

use std::sync::Arc;
use std::time::Duration;

use allocation_counter::measure;
use klatch_actors::responder::{Answered, Ask, End, Responder, ResponderError, Responders, Said};
use klatch_actors::store::memory::MemoryStore;
use klatch_actors::{Handle, Node, NodeOptions, Request};
use klatch_protocol::{ConversationId, Shard};

/// A turn that is answered at once in 40 pieces, as it is decided.
const DECIDED_MAX: u64 = 27;
/// The same turn through a node's handle, actors and memory store.
const WHOLE_MAX: u64 = 54;
/// What a conversation of one turn holds while it is idle, in bytes: state, actor, and its places in the maps of shard and
/// gateway.
const IDLE_BYTES_MAX: u64 = 18_000;

/// Of the maximum; a count below it fails too.
const LEAST_PERCENT: u64 = 90;
/// Compactions, each after 64 entries, are a part of the mean.
const TURNS: u64 = 640;
const CONVERSATIONS: usize = 1_000;
/// More than all that still has to end takes.
const YIELDS: usize = 100_000;

fn check(what: &str, name: &str, counted: u64, most: u64) {
    let least = most * LEAST_PERCENT / 100;
    assert!(
        (least..=most).contains(&counted),
        "{what}: {counted}, and it may be {least} to {most}. Is that meant? Then set {name} in {} to {counted}, and say why",
        file!()
    );
}

struct Echo;

impl Responder for Echo {
    fn history_items(&self) -> usize {
        0
    }

    fn answers_at_once(&self) -> bool {
        true
    }

    fn answer(&self, _: &Ask) -> Answered {
        given::answer()
    }

    fn respond(&self, _: Ask) -> futures::stream::BoxStream<'static, Result<Said, ResponderError>> {
        Box::pin(futures::stream::iter([Ok(Said::End(End::default()))]))
    }
}

async fn node() -> Node {
    let responders: Responders = [("echo".to_owned(), Arc::new(Echo) as Arc<dyn Responder>)].into();
    let options = NodeOptions::new("a", 1, Arc::new(MemoryStore::default()), Arc::new(responders));
    Node::start(options).await.expect("a node starts")
}

async fn made(handle: &Handle, id: ConversationId) -> ConversationId {
    handle.ask(id, Request::Create(Box::new(given::created()))).await.expect("it is made");
    id
}

/// So that the weight of shards is not spread over conversations.
fn of_one_shard() -> impl Iterator<Item = ConversationId> {
    (0u128..).map(|n| ConversationId(n.to_be_bytes())).filter(|id| id.shard() == Shard(0))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

#[test]
fn deciding_a_turn_asks_for_memory_no_more_often_than_it_did() {
    let mut core = given::conversation();
    let mut given: Vec<_> = (0..TURNS).map(|n| (given::submit(n), given::answer())).collect();
    let counted = measure(|| {
        while let Some((request, said)) = given.pop() {
            assert_eq!(given::turn(&mut core, request, said), 1);
        }
    });
    check("allocations of a decided turn", "DECIDED_MAX", counted.count_total / TURNS, DECIDED_MAX);
}

#[test]
fn a_turn_through_the_handle_asks_for_memory_no_more_often_than_it_did() {
    let runtime = runtime();
    let (node, id) = runtime.block_on(async {
        let node = node().await;
        let id = made(&node.handle(), ConversationId([1; 16])).await;
        (node, id)
    });
    let handle = node.handle();
    let mut given: Vec<_> = (0..TURNS).map(given::submit).collect();
    let counted = measure(|| {
        runtime.block_on(async {
            while let Some(request) = given.pop() {
                handle.ask(id, request).await.expect("a turn ends");
            }
        });
    });
    check("allocations of a whole turn", "WHOLE_MAX", counted.count_total / TURNS, WHOLE_MAX);
}

/// Given back when the node ends; what the store holds is not among it.
#[test]
fn an_idle_conversation_holds_no_more_than_it_did_and_gives_it_back() {
    let runtime = runtime();
    let filled = |conversations: usize| {
        let node = runtime.block_on(async {
            let node = node().await;
            for id in of_one_shard().take(conversations) {
                made(&node.handle(), id).await;
                node.handle().ask(id, given::submit(0)).await.expect("a turn ends");
            }
            node
        });
        // What the store holds outlives the node.
        let store = node.handle().reader().clone();
        let given_back = measure(|| {
            runtime.block_on(async {
                assert_eq!(node.drain(Duration::ZERO).await, 0, "no turn is open");
                // Its actors end one after the other.
                for _ in 0..YIELDS {
                    tokio::task::yield_now().await;
                }
            });
        });
        drop(store);
        u64::try_from(-given_back.bytes_current).expect("more is given back than taken")
    };
    let each = (filled(CONVERSATIONS) - filled(0)) / CONVERSATIONS as u64;
    check("bytes of an idle conversation", "IDLE_BYTES_MAX", each, IDLE_BYTES_MAX);
}
