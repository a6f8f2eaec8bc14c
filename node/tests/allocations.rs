//! How often a turn asks for memory at the edge: counted, and so the same on every machine; see the test of the same name
//! in `actors/`. The whole edge is here, with real tokens, conversations in memory, and no sockets.

use std::sync::Arc;
use std::time::Duration;

use allocation_counter::measure;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt;
use klatch::auth::{Auth, AuthOptions};
use klatch::http::{Edge, EdgeOptions, router};
use klatch::responders::{self, ResponderOptions};
use klatch::stores::memory_records::MemoryRecords;
use klatch_actors::store::memory::MemoryStore;
use klatch_actors::{Node, NodeOptions};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tower::ServiceExt;

/// A turn that is answered at once, in 40 pieces.
const TURN_MAX: u64 = 125;
/// A token of a streamed turn, most of them saved and sent by themselves.
const TOKEN_MAX: u64 = 18;

/// Of the maximum; a count below it fails too.
const LEAST_PERCENT: u64 = 90;
/// Compactions, each after 64 entries, are a part of the mean.
const TURNS: u64 = 640;
const TOKENS: [u64; 2] = [100, 740];
/// Longer than text is gathered for, so that each token is saved alone.
const TOKEN_DELAY_MS: u64 = 25;

fn check(what: &str, name: &str, counted: u64, most: u64) {
    let least = most * LEAST_PERCENT / 100;
    assert!(
        (least..=most).contains(&counted),
        "{what}: {counted}, and it may be {least} to {most}. Is that meant? Then set {name} in {} to {counted}, and say why",
        file!()
    );
}

struct World {
    runtime: Runtime,
    router: Router,
    token: String,
    conversation: String,
    _node: Node,
    _folder: TempDir,
}

impl World {
    /// Time passes by itself where everything waits for it.
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        let runtime = runtime.expect("a runtime");
        let folder = tempfile::tempdir().expect("a folder");
        let auth = Auth::open(&AuthOptions::default(), Arc::new(MemoryRecords::default()), Some(folder.path()));
        let auth = Arc::new(auth.expect("auth"));
        let token = auth.issue("ann", "home", Duration::from_secs(3_600)).expect("a token").reveal().to_owned();
        let responders = Arc::new(responders::build(&TOKENS.map(slow)).expect("they can be built"));
        let node = runtime.block_on(async {
            let options = NodeOptions::new("n", 1, Arc::new(MemoryStore::default()), responders.clone());
            Node::start(options).await.expect("a node")
        });
        let mut options = EdgeOptions::default();
        options.limits.requests_per_minute = u32::MAX;
        let router = router(Edge::new(node.handle(), responders, auth, options));
        let mut world = Self { runtime, router, token, conversation: String::new(), _node: node, _folder: folder };
        let made = world.runtime.block_on(world.send("/v1/conversations", "{}".to_owned()));
        let made: Value = serde_json::from_slice(&made).expect("JSON");
        world.conversation = made["id"].as_str().expect("an id").to_owned();
        world
    }

    async fn send(&self, path: &str, body: String) -> Vec<u8> {
        let request = Request::builder().method("POST").uri(path).header("content-type", "application/json");
        let request = request.header("authorization", format!("Bearer {}", self.token)).body(Body::from(body));
        let answered = self.router.clone().oneshot(request.expect("a request")).await.expect("no error");
        let status = answered.status();
        let bytes = answered.into_body().collect().await.expect("a whole body").to_bytes().to_vec();
        assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&bytes));
        bytes
    }

    fn turn(&self, model: &str, stream: bool) -> Vec<u8> {
        let body = json!({
            "model": model, "input": "word ".repeat(40), "conversation": self.conversation, "stream": stream
        });
        self.runtime.block_on(self.send("/v1/responses", body.to_string()))
    }
}

fn slow(tokens: u64) -> ResponderOptions {
    let text = format!("kind = \"echo\"\nname = \"{tokens}\"\ntokens = {tokens}\ntoken_delay_ms = {TOKEN_DELAY_MS}\n");
    toml::from_str(&text).expect("options of a responder")
}

#[test]
fn a_turn_over_http_asks_for_memory_no_more_often_than_it_did() {
    let world = World::new();
    world.turn("echo", false);
    let counted = measure(|| (0..TURNS).for_each(|_| drop(world.turn("echo", false))));
    check("allocations of a turn over HTTP", "TURN_MAX", counted.count_total / TURNS, TURN_MAX);
}

#[test]
fn a_streamed_token_asks_for_memory_no_more_often_than_it_did() {
    let world = World::new();
    let [short, long] = TOKENS.map(|tokens| {
        let model = tokens.to_string();
        world.turn(&model, true);
        let mut told = Vec::new();
        let counted = measure(|| told = world.turn(&model, true));
        let events = String::from_utf8_lossy(&told).matches("event: response.output_text.delta").count();
        assert_eq!(events as u64, tokens, "each token is an event");
        counted.count_total
    });
    let each = (long - short) / (TOKENS[1] - TOKENS[0]);
    // How many tokens meet in one save is the clock's affair: there is no least.
    let counted = each;
    assert!(counted <= TOKEN_MAX, "allocations of a streamed token: {counted}, and it may be {TOKEN_MAX} at most");
}
