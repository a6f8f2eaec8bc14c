//! The whole edge in one process: real conversations in memory, real tokens, no sockets.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use http_body_util::BodyExt;
use klatch_actors::store::memory::MemoryStore;
use klatch_actors::{Node, NodeOptions};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{Edge, EdgeOptions, router};
use crate::auth::{Auth, AuthOptions};
use crate::config::TenantLimits;
use crate::responders::{self, ResponderOptions};
use crate::stores::memory_records::MemoryRecords;

struct World {
    router: axum::Router,
    auth: Arc<Auth>,
    token: String,
    _folder: tempfile::TempDir,
    _node: Node,
}

struct Answered {
    status: StatusCode,
    headers: axum::http::HeaderMap,
    text: String,
}

impl Answered {
    async fn read(response: Response) -> Self {
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("a whole body").to_bytes();
        let text = String::from_utf8(bytes.to_vec()).expect("text");
        Self { status: parts.status, headers: parts.headers, text }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// A whole error of this status; its code and the field that it names.
    fn error(&self, status: u16) -> (Value, Value) {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert!(self.headers.contains_key("x-request-id"));
        let error = &self.json()["error"];
        let keys: Vec<_> = error.as_object().expect("an object").keys().cloned().collect();
        assert_eq!(keys, ["code", "message", "param", "type"]);
        (error["code"].clone(), error["param"].clone())
    }

    /// The JSON of a stream's events.
    fn events(&self) -> Vec<Value> {
        let body = self.text.strip_suffix("data: [DONE]\n\n").expect("an end");
        let data = |frame: &str| serde_json::from_str(frame.split_once("data: ").expect("data").1).expect("json");
        body.split_terminator("\n\n").map(data).collect()
    }
}

impl World {
    async fn new() -> Self {
        Self::with(EdgeOptions::default()).await
    }

    async fn with(options: EdgeOptions) -> Self {
        Self::with_responders(options, &[]).await
    }

    async fn with_responders(options: EdgeOptions, own: &[ResponderOptions]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let records = Arc::new(MemoryRecords::default());
        let auth = Auth::open(&AuthOptions::default(), records, Some(folder.path())).expect("auth");
        let responders = Arc::new(responders::build(own).expect("they can be built"));
        let options_of_node = NodeOptions::new("n", 1, Arc::new(MemoryStore::default()), responders.clone());
        let node = Node::start(options_of_node).await.expect("a node");
        let auth = Arc::new(auth);
        let router = router(Edge::new(node.handle(), responders, auth.clone(), options));
        let mut world = Self { router, auth, token: String::new(), _folder: folder, _node: node };
        world.token = world.token_of("ann", "home");
        world
    }

    fn token_of(&self, subject: &str, tenant: &str) -> String {
        self.auth.issue(subject, tenant, Duration::from_secs(60)).expect("a token").reveal().to_owned()
    }

    async fn send(&self, request: Request<Body>) -> Answered {
        Answered::read(self.router.clone().oneshot(request).await.expect("no error")).await
    }

    fn request(&self, method: &str, path: &str) -> axum::http::request::Builder {
        let builder = Request::builder().method(method).uri(path);
        builder.header("authorization", format!("Bearer {}", self.token)).header("content-type", "application/json")
    }

    async fn get(&self, path: &str) -> Answered {
        self.send(self.request("GET", path).body(Body::empty()).expect("a request")).await
    }

    async fn delete(&self, path: &str) -> Answered {
        self.send(self.request("DELETE", path).body(Body::empty()).expect("a request")).await
    }

    async fn post(&self, path: &str, body: Value) -> Answered {
        self.send(self.request("POST", path).body(Body::from(body.to_string())).expect("a request")).await
    }

    async fn keyed(&self, path: &str, key: &str, body: Value) -> Answered {
        let request = self.request("POST", path).header("idempotency-key", key);
        self.send(request.body(Body::from(body.to_string())).expect("a request")).await
    }

    async fn attempted(&self, path: &str, attempt: &str, body: Value) -> Answered {
        let request = self.request("POST", path).header("x-klatch-attempt-key", attempt);
        self.send(request.body(Body::from(body.to_string())).expect("a request")).await
    }

    async fn say(&self, body: Value) -> Value {
        let mut whole = json!({"model": "echo", "input": "hi"});
        for (name, value) in body.as_object().expect("an object") {
            whole[name] = value.clone();
        }
        let answered = self.post("/v1/responses", whole).await;
        assert_eq!(answered.status, 200, "{}", answered.text);
        answered.json()
    }

    async fn conversation(&self) -> String {
        let made = self.post("/v1/conversations", json!({})).await;
        made.json()["id"].as_str().expect("an id").to_owned()
    }

    /// The texts of a conversation, oldest first.
    async fn history(&self, conversation: &str) -> Vec<String> {
        let listed = self.get(&format!("/v1/conversations/{conversation}/items?order=asc&limit=100")).await.json();
        let text = |item: &Value| item["content"][0]["text"].as_str().unwrap_or_default().to_owned();
        listed["data"].as_array().expect("a list").iter().map(text).collect()
    }
}

#[tokio::test]
async fn refusals_have_one_shape() {
    let world = World::new().await;
    let none = |method: &str, path: &str| Request::builder().method(method).uri(path).body(Body::empty()).expect("one");
    assert_eq!(world.send(none("GET", "/v1/models")).await.error(401).0, "invalid_api_key");
    assert_eq!(world.get("/nowhere").await.error(404).0, "not_found");
    assert_eq!(world.get("/v1/nowhere").await.error(404).0, "not_found");
    assert_eq!(world.delete("/v1/models").await.error(405).0, "method_not_allowed");
    assert_eq!(world.get("/v1/conversations/nonsense").await.error(404).0, "not_found");
    assert_eq!(world.get("/v1/conversations/%00%ff").await.error(404).0, "not_found");
    assert_eq!(world.get("/v1/models/nobody").await.error(404).0, "model_not_found");
    assert_eq!(world.get("/v1/conversations?order=sideways").await.error(400).1, "order");
    assert_eq!(world.get("/v1/conversations?limit=0").await.error(400).1, "limit");
    assert_eq!(world.post("/v1/responses/compact", json!({})).await.error(404).0, "not_found");
    assert_eq!(world.post("/v1/responses", json!([1])).await.error(400).1, Value::Null);
    assert_eq!(world.post("/v1/responses", json!({"input": "hi"})).await.error(400).1, "model");
    let unknown = json!({"model": "nobody", "input": "hi"});
    assert_eq!(world.post("/v1/responses", unknown).await.error(400), (json!("model_not_found"), json!("model")));
    let wrong = json!({"model": "echo", "input": [{"role": "user", "content": [{"type": "smell"}]}]});
    assert_eq!(world.post("/v1/responses", wrong).await.error(400).1, "input[0].content[0].type");
    let nowhere = json!({"model": "echo", "input": "hi", "conversation": format!("conv_{}", "0".repeat(48))});
    world.post("/v1/responses", nowhere).await.error(404);
}

#[tokio::test]
async fn a_body_is_bounded_and_must_be_json() {
    let mut options = EdgeOptions::default();
    options.limits.body_bytes = 64;
    let world = World::with(options).await;
    let text = |length: usize| json!({"model": "echo", "input": "x".repeat(length)});
    assert_eq!(text(37).to_string().len(), 64);
    assert_eq!(world.post("/v1/responses", text(37)).await.status, 200);
    assert_eq!(world.post("/v1/responses", text(38)).await.error(413).0, "body_too_large");
    let form = Request::builder().method("POST").uri("/v1/responses").header("content-type", "text/plain");
    let form = form.header("authorization", format!("Bearer {}", world.token)).body(Body::from("{}")).expect("one");
    world.send(form).await.error(400);
}

#[tokio::test]
async fn a_sane_request_id_comes_back() {
    let world = World::new().await;
    let request = world.request("GET", "/v1/models").header("x-request-id", "mine").body(Body::empty()).expect("one");
    assert_eq!(world.send(request).await.headers["x-request-id"], "mine");
}

#[tokio::test]
async fn a_tenant_over_its_rate_waits_and_others_do_not() {
    let mut options = EdgeOptions::default();
    options.limits.tenant.insert("home".into(), TenantLimits { requests_per_minute: 2 });
    let mut world = World::with(options).await;
    assert_eq!(world.get("/v1/models").await.headers["x-ratelimit-remaining-requests"], "1");
    assert_eq!(world.get("/v1/models").await.status, 200);
    let refused = world.get("/v1/models").await;
    assert_eq!(refused.error(429).0, "rate_limit_exceeded");
    assert!(refused.headers.contains_key("retry-after-ms"));
    assert_eq!(refused.headers["x-ratelimit-limit-requests"], "2");
    world.token = world.token_of("ann", "away");
    assert_eq!(world.get("/v1/models").await.status, 200);
}

#[tokio::test]
async fn a_response_is_answered_read_and_deleted() {
    let world = World::new().await;
    let made = world.say(json!({"input": "Good morning."})).await;
    assert_eq!(
        (&made["status"], &made["output"][0]["content"][0]["text"]),
        (&json!("completed"), &json!("Good morning."))
    );
    let path = format!("/v1/responses/{}", made["id"].as_str().expect("an id"));
    assert_eq!(world.get(&path).await.json(), made);
    let inputs = world.get(&format!("{path}/input_items")).await.json();
    assert_eq!(inputs["data"][0]["content"][0]["text"], "Good morning.");
    assert_eq!(world.delete(&path).await.json(), json!({"id": made["id"], "object": "response", "deleted": true}));
    world.get(&path).await.error(404);
}

#[tokio::test]
async fn a_stream_is_told_again_as_it_was() {
    let world = World::new().await;
    let body = json!({"model": "echo", "input": "one two three", "stream": true});
    let told = world.post("/v1/responses", body).await;
    assert_eq!(
        (&told.headers["cache-control"], &told.headers["x-accel-buffering"]),
        (&"no-store".parse().expect("a value"), &"no".parse().expect("a value"))
    );
    let events = told.events();
    let id = events[0]["response"]["id"].as_str().expect("an id").to_owned();
    let again = world.get(&format!("/v1/responses/{id}?stream=true")).await;
    assert_eq!(again.text, told.text);
    let rest = world.get(&format!("/v1/responses/{id}?stream=true&starting_after=2")).await;
    assert_eq!(rest.events(), events[3..]);
    let end = world.get(&format!("/v1/responses/{id}?stream=true&starting_after=100000")).await;
    assert_eq!(end.text, "data: [DONE]\n\n");
    assert_eq!(
        events.last().expect("a last event")["response"],
        world.get(&format!("/v1/responses/{id}")).await.json()
    );
}

#[tokio::test]
async fn a_chain_goes_on_where_it_began_and_forks_from_an_older_link() {
    let world = World::new().await;
    let conversation = world.conversation().await;
    let first = world.say(json!({"conversation": conversation, "input": "one"})).await;
    world.say(json!({"previous_response_id": first["id"], "input": "two"})).await;
    assert_eq!(world.history(&conversation).await, ["one", "one", "two", "two"]);
    let other = world.say(json!({"previous_response_id": first["id"], "input": "three"})).await;
    assert_eq!(world.history(&conversation).await.len(), 4);
    let fork = other["klatch"]["conversation"].as_str().expect("an id");
    assert_eq!(world.history(fork).await, ["one", "one", "three", "three"]);
}

#[tokio::test]
async fn a_key_makes_one_turn() {
    let world = World::new().await;
    let body = json!({"model": "echo", "input": "once"});
    let first = world.keyed("/v1/responses", "k", body.clone()).await;
    let again = world.keyed("/v1/responses", "\"k\"", body).await;
    assert_eq!((again.json(), again.headers["idempotent-replayed"].as_bytes()), (first.json(), &b"true"[..]));
    let reused = world.keyed("/v1/responses", "k", json!({"model": "echo", "input": "twice"})).await;
    assert_eq!(reused.error(422).0, "idempotency_key_reused");
}

#[tokio::test]
async fn what_the_proxy_sends_again_is_done_once_and_nobody_is_told() {
    let world = World::new().await;
    let conversation = world.conversation().await;
    let first = world.say(json!({"conversation": conversation, "input": "one"})).await;
    world.say(json!({"conversation": conversation, "input": "two"})).await;
    let path = |rest: &str| format!("/v1/conversations/{conversation}{rest}");
    let item = json!({"items": [{"type": "message", "role": "user", "content": "three"}]});
    let echo = |place: Value| {
        let mut body = json!({"model": "echo", "input": "hi"});
        body.as_object_mut().expect("an object").extend(place.as_object().expect("an object").clone());
        body
    };
    let all = [
        ("/v1/conversations".to_owned(), json!({"metadata": {"a": "b"}})),
        (path("/items"), item),
        (path("/fork"), json!({})),
        ("/v1/responses".to_owned(), echo(json!({}))),
        ("/v1/responses".to_owned(), echo(json!({"conversation": conversation}))),
        // Something came since, so this one forks.
        ("/v1/responses".to_owned(), echo(json!({"previous_response_id": first["id"]}))),
    ];
    for (n, (path, body)) in all.iter().enumerate() {
        let send = async |attempt: String| {
            let answered = world.attempted(path, &attempt, body.clone()).await;
            assert_eq!(
                (answered.status, answered.headers.get("idempotent-replayed")),
                (StatusCode::OK, None),
                "{path}"
            );
            answered.json()
        };
        let once = send(format!("{n}")).await;
        assert_eq!(send(format!("{n}")).await, once, "{path}");
        assert_ne!(send(format!("{n} anew")).await, once, "{path}");
    }
    let texts = world.history(&conversation).await;
    assert_eq!(texts, ["one", "one", "two", "two", "three", "three", "hi", "hi", "hi", "hi"]);
}

#[tokio::test]
async fn a_key_that_another_user_has_used_opens_nothing() {
    let mut world = World::new().await;
    let body = json!({"model": "echo", "input": "mine"});
    assert_eq!(world.keyed("/v1/responses", "k", body.clone()).await.status, 200);
    world.token = world.token_of("bob", "home");
    assert_eq!(world.keyed("/v1/responses", "k", body.clone()).await.error(422).0, "idempotency_key_reused");
    world.token = world.token_of("ann", "away");
    assert_eq!(world.keyed("/v1/responses", "k", body).await.status, 200);
}

#[tokio::test]
async fn items_are_added_paged_and_deleted() {
    let world = World::new().await;
    let conversation = world.conversation().await;
    let path = format!("/v1/conversations/{conversation}/items");
    let item = |id: &str| json!({"id": id, "role": "user", "content": id});
    let added = world.post(&path, json!({"items": [item("a"), item("b"), item("c")]})).await.json();
    assert_eq!((&added["first_id"], &added["last_id"]), (&json!("a"), &json!("c")));
    let again = world.post(&path, json!({"items": [item("b"), item("d")]})).await.json();
    assert_eq!((&again["first_id"], &again["last_id"]), (&json!("b"), &json!("d")));
    assert_eq!(world.history(&conversation).await, ["a", "b", "c", "d"]);
    let other = json!({"items": [{"id": "b", "role": "user", "content": "another"}]});
    assert_eq!(world.post(&path, other).await.error(400).1, "items[0].id");
    let page = world.get(&format!("{path}?order=asc&limit=2&after=a")).await.json();
    assert_eq!((&page["first_id"], &page["last_id"], &page["has_more"]), (&json!("b"), &json!("c"), &json!(true)));
    assert_eq!(world.delete(&format!("{path}/b")).await.json()["id"], json!(conversation));
    world.get(&format!("{path}/b")).await.error(404);
    world.post(&path, json!({"items": []})).await.error(400);
    let many: Vec<Value> = (0..21).map(|n| item(&n.to_string())).collect();
    assert_eq!(world.post(&path, json!({"items": many})).await.error(400).1, "items");
}

#[tokio::test]
async fn a_key_adds_the_same_items_once() {
    let world = World::new().await;
    let conversation = world.conversation().await;
    let path = format!("/v1/conversations/{conversation}/items");
    let body = json!({"items": [{"id": "a", "role": "user", "content": "a"}, {"role": "user", "content": "b"}]});
    let first = world.keyed(&path, "k", body.clone()).await;
    let again = world.keyed(&path, "k", body).await;
    assert_eq!(again.json(), first.json());
    assert_eq!(world.history(&conversation).await, ["a", "b"]);
}

#[tokio::test]
async fn a_reference_is_copied_from_where_it_is_and_only_for_its_owner() {
    let mut world = World::new().await;
    let said = world.say(json!({"input": "Remember this."})).await;
    let place = world.conversation().await;
    let input =
        json!([{"type": "item_reference", "id": said["output"][0]["id"]}, {"role": "user", "content": "And now?"}]);
    world.say(json!({"conversation": place, "input": input})).await;
    assert_eq!(world.history(&place).await, ["Remember this.", "And now?", "And now?"]);
    world.token = world.token_of("bob", "home");
    let refused = world.post("/v1/responses", json!({"model": "echo", "input": input})).await;
    assert_eq!(refused.error(404).1, "input[0].id");
}

#[tokio::test]
async fn conversations_are_listed_by_page_and_metadata() {
    let world = World::new().await;
    let mut made = Vec::new();
    for n in 0..4 {
        let metadata = json!({"mark": if n == 3 { "other" } else { "one" }});
        made.push(world.post("/v1/conversations", json!({"metadata": metadata})).await.json()["id"].clone());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    world.say(json!({})).await;
    let ids =
        |page: &Value| page["data"].as_array().expect("a list").iter().map(|c| c["id"].clone()).collect::<Vec<_>>();
    let first = world.get("/v1/conversations?order=asc&limit=2&metadata[mark]=one").await.json();
    assert_eq!((ids(&first), &first["has_more"]), (made[..2].to_vec(), &json!(true)));
    let after = made[1].as_str().expect("an id");
    let rest = world.get(&format!("/v1/conversations?order=asc&metadata[mark]=one&after={after}")).await.json();
    assert_eq!((ids(&rest), &rest["has_more"]), (made[2..3].to_vec(), &json!(false)));
    let before = world.get(&format!("/v1/conversations?order=asc&limit=1&before={after}")).await.json();
    assert_eq!(ids(&before), made[..1]);
    assert_eq!(ids(&world.get("/v1/conversations").await.json()).len(), 4);
}

#[tokio::test]
async fn metadata_goes_only_where_the_request_says_so() {
    let world = World::new().await;
    let path = format!("/v1/conversations/{}", world.conversation().await);
    let metadata = async || world.get(&path).await.json()["metadata"].clone();
    world.post(&path, json!({"metadata": {"topic": "tea"}})).await;
    assert_eq!(world.post(&path, json!({"metdata": {}})).await.error(400).1, "metadata");
    assert_eq!(metadata().await, json!({"topic": "tea"}));
    assert_eq!(world.post(&path, json!({"metadata": null})).await.status, 200);
    assert_eq!(metadata().await, json!({}));
}

#[tokio::test]
async fn a_field_that_is_missing_is_named() {
    let world = World::new().await;
    let (_, param) = world.post("/auth/login", json!({"username": "ann"})).await.error(400);
    assert_eq!(param, "password");
    let (_, param) = world.post("/auth/refresh", json!({})).await.error(400);
    assert_eq!(param, "refresh_token");
}

#[tokio::test]
async fn a_page_on_which_nothing_fits_says_where_to_go_on() {
    let world = World::new().await;
    let marked = world.post("/v1/conversations", json!({"metadata": {"mark": "old"}})).await.json()["id"].clone();
    // Those of one millisecond stand in no order, so a few more are made than are looked at.
    for _ in 0..super::conversations::ROWS_SCANNED_MAX + 20 {
        world.conversation().await;
    }
    let path = "/v1/conversations?metadata[mark]=old";
    let first = world.get(path).await.json();
    assert_eq!((&first["data"], &first["has_more"]), (&json!([]), &json!(true)));
    let after = first["last_id"].as_str().expect("where to go on");
    let rest = world.get(&format!("{path}&after={after}")).await.json();
    assert_eq!((&rest["data"][0]["id"], &rest["has_more"]), (&marked, &json!(false)));
}

/// The same request under the same key before and after something that it names is deleted.
async fn check_again_without(world: &World, path: &str, body: Value, gone: &str) {
    let first = world.keyed(path, gone, body.clone()).await;
    assert_eq!(first.status, 200, "{}", first.text);
    assert_eq!(world.delete(gone).await.status, 200);
    let again = world.keyed(path, gone, body.clone()).await;
    assert_eq!(again.json(), first.json(), "{path}");
    assert_eq!(again.headers["idempotent-replayed"], "true");
    world.keyed(path, "a fresh key", body).await.error(404);
}

#[tokio::test]
async fn what_was_answered_is_answered_again_though_what_it_names_has_gone() {
    let world = World::new().await;
    let source = format!("/v1/conversations/{}", world.conversation().await);
    let item = async || {
        let items = json!({"items": [{"role": "user", "content": "here"}]});
        let added = world.post(&format!("{source}/items"), items).await.json()["data"][0]["id"].clone();
        (format!("{source}/items/{}", added.as_str().expect("an id")), added)
    };
    let (path, id) = item().await;
    let target = format!("/v1/conversations/{}/items", world.conversation().await);
    let reference = |id: Value| json!([{"type": "item_reference", "id": id}]);
    check_again_without(&world, &target, json!({"items": reference(id)}), &path).await;
    let (path, id) = item().await;
    check_again_without(&world, "/v1/conversations", json!({"items": reference(id)}), &path).await;
    let (path, id) = item().await;
    check_again_without(&world, "/v1/responses", json!({"model": "echo", "input": reference(id)}), &path).await;
    let (path, id) = item().await;
    check_again_without(&world, &format!("{source}/fork"), json!({"after": id}), &path).await;
    let conversation = world.conversation().await;
    let [first, last] = [
        world.say(json!({"conversation": conversation})).await,
        world.say(json!({"conversation": conversation})).await,
    ];
    for previous in [last, first] {
        let body = json!({"model": "echo", "input": "next", "previous_response_id": previous["id"]});
        let path = format!("/v1/responses/{}", previous["id"].as_str().expect("an id"));
        check_again_without(&world, "/v1/responses", body, &path).await;
    }
}

#[tokio::test]
async fn a_stranger_finds_nothing() {
    let mut world = World::new().await;
    let conversation = world.conversation().await;
    let made = world.say(json!({"conversation": conversation})).await;
    world.token = world.token_of("bob", "home");
    world.get(&format!("/v1/conversations/{conversation}")).await.error(404);
    world.delete(&format!("/v1/conversations/{conversation}")).await.error(404);
    world.get(&format!("/v1/responses/{}", made["id"].as_str().expect("an id"))).await.error(404);
    let chained = json!({"model": "echo", "input": "hi", "previous_response_id": made["id"]});
    assert_eq!(world.post("/v1/responses", chained).await.error(404).1, "previous_response_id");
}

#[tokio::test]
async fn what_is_not_stored_is_not_there_but_its_items_are() {
    let world = World::new().await;
    let conversation = world.conversation().await;
    let made = world.say(json!({"conversation": conversation, "store": false})).await;
    world.get(&format!("/v1/responses/{}", made["id"].as_str().expect("an id"))).await.error(404);
    assert_eq!(world.history(&conversation).await, ["hi", "hi"]);
    let chained = json!({"model": "echo", "input": "hi", "previous_response_id": made["id"]});
    assert_eq!(world.post("/v1/responses", chained).await.error(400).1, "previous_response_id");
}

#[tokio::test]
async fn a_fork_ends_with_the_item_that_is_named() {
    let world = World::new().await;
    let items = json!(["one", "two", "three"].map(|text| json!({"role": "user", "content": text})));
    let made = world.post("/v1/conversations", json!({"items": items})).await.json();
    let path = format!("/v1/conversations/{}", made["id"].as_str().expect("an id"));
    let second = world.get(&format!("{path}/items?order=asc")).await.json()["data"][1]["id"].clone();
    let fork = world.post(&format!("{path}/fork"), json!({"after": second})).await.json();
    assert_eq!(world.history(fork["id"].as_str().expect("an id")).await, ["one", "two"]);
    world.post(&format!("{path}/fork"), json!({"after": "msg_none"})).await.error(404);
}

#[tokio::test]
async fn a_chat_completion_is_answered_and_streamed() {
    let world = World::new().await;
    let body = json!({"model": "echo", "messages": [{"role": "user", "content": "one two"}]});
    let whole = world.post("/v1/chat/completions", body.clone()).await.json();
    assert_eq!(whole["choices"][0]["message"]["content"], "one two");
    let mut streamed = body;
    streamed["stream"] = json!(true);
    streamed["stream_options"] = json!({"include_usage": true});
    let chunks = world.post("/v1/chat/completions", streamed).await.events();
    let text = |chunk: &Value| chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default().to_owned();
    assert_eq!(chunks.iter().map(text).collect::<String>(), "one two");
    let last = chunks.last().expect("a last chunk");
    assert_eq!((&last["choices"], &last["usage"]["total_tokens"]), (&json!([]), &whole["usage"]["total_tokens"]));
}

#[tokio::test]
async fn every_route_is_described() {
    let world = World::new().await;
    let described = world.get("/openapi.json").await.json();
    assert!(described["openapi"].as_str().expect("a version").starts_with("3.1"));
    let paths = described["paths"].as_object().expect("paths");
    let count: usize = paths.values().map(|path| path.as_object().expect("methods").len()).sum();
    assert_eq!(count, 23, "{:?}", paths.keys().collect::<Vec<_>>());
    for (path, methods) in paths.iter().filter(|(path, _)| path.starts_with("/v1/")) {
        for (method, operation) in methods.as_object().expect("methods") {
            for status in ["200", "400", "401", "404", "409", "413", "422", "429", "503"] {
                assert!(operation["responses"][status].is_object(), "{method} {path} {status}");
            }
        }
    }
    let response = &described["components"]["schemas"]["Response"];
    let required = response["required"].as_array().expect("required fields").len();
    assert_eq!(required, response["properties"].as_object().expect("fields").len());
}

#[tokio::test]
async fn turns_that_have_not_ended_are_listed_until_their_items_are_there() {
    let slow = json!({"kind": "echo", "name": "slow", "delay_ms": 3_600_000});
    let slow: ResponderOptions = serde_json::from_value(slow).expect("a responder");
    let world = World::with_responders(EdgeOptions::default(), &[slow]).await;
    let conversation = world.conversation().await;
    let path = format!("/v1/conversations/{conversation}/responses");
    assert_eq!(world.get(&path).await.json()["data"], json!([]));
    let begin = async || {
        let body = json!({"model": "slow", "conversation": conversation, "background": true});
        world.say(body).await["id"].clone()
    };
    let (first, second) = (begin().await, begin().await);
    let listed = world.get(&path).await.json();
    let ids = |listed: &Value| {
        let each = listed["data"].as_array().expect("a list").iter();
        each.map(|response| response["id"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&listed), [first.clone(), second.clone()]);
    assert_eq!((&listed["data"][1]["status"], &listed["has_more"]), (&json!("queued"), &json!(false)));
    assert_eq!(world.history(&conversation).await, [""; 0], "items come at the end");
    for id in [&first, &second] {
        let id = id.as_str().expect("an id");
        assert_eq!(world.post(&format!("/v1/responses/{id}/cancel"), json!({})).await.status, 200);
    }
    assert_eq!(ids(&world.get(&path).await.json()), [Value::Null; 0]);

    let mut other = World { token: world.token_of("bob", "home"), ..world };
    other.get(&path).await.error(404);
    other.token = other.token_of("ann", "elsewhere");
    other.get(&path).await.error(404);
}
