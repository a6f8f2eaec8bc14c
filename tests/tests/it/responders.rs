//! The responder `openai` against a model server that behaves well, badly, or not at all.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use klatch::responders::openai::{CarryOn, OpenAiOptions};
use klatch::responders::{ResponderOptions, build_with};
use klatch_actors::Responder;
use klatch_actors::responder::{Ask, End, ResponderError, Responders, Said};
use klatch_protocol::event::Call;
use klatch_protocol::item::{Body, Status};
use klatch_protocol::turn::Incomplete;
use klatch_protocol::{ConversationId, Item};
use klatch_tests::model_server::{CallRecord, ModelServer, Outcome};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const KEY: &str = "sk-a-key-that-nobody-should-see";
const UPSTREAM_WORDS: &str = "nobody should see";
/// For a timeout that is expected to end a wait, so tests are fast.
const SHORT: Duration = Duration::from_millis(150);

fn responders(options: OpenAiOptions) -> Responders {
    let options = [ResponderOptions::OpenAi(Box::new(options))];
    build_with(&options, |name| (name == "MODEL_KEY").then(|| KEY.to_owned())).expect("the options are right")
}

/// A responder named as the directives of its model server.
fn responder(server: &ModelServer, directives: &str, change: impl FnOnce(&mut OpenAiOptions)) -> Arc<dyn Responder> {
    let mut options = OpenAiOptions::new("m", &server.base_url());
    options.model = Some(directives.to_owned());
    options.retries = 0;
    change(&mut options);
    responders(options)["m"].clone()
}

fn item(body: Body) -> Item {
    Item { ordinal: 0, client_id: None, body: body.into() }
}

fn ask(text: &str) -> Ask {
    Ask {
        conversation: ConversationId([1; 16]),
        turn: 0,
        model: "m".into(),
        attempt: 1,
        request: "{}".into(),
        history: Vec::new(),
        input: vec![item(Body::user(text))],
        partial: String::new(),
        memory: None,
        traced: klatch_actors::trace::Traced::default(),
    }
}

/// All that was said, joined, and how it ended.
struct Heard {
    pieces: Vec<String>,
    calls: Vec<Call>,
    end: Result<End, ResponderError>,
}

impl Heard {
    fn text(&self) -> String {
        self.pieces.concat()
    }

    fn whole(&self) -> &End {
        self.end.as_ref().expect("the reply is whole")
    }

    fn failure(&self) -> &ResponderError {
        self.end.as_ref().expect_err("the reply fails")
    }
}

async fn hear(mut reply: BoxStream<'static, Result<Said, ResponderError>>) -> Heard {
    let (mut pieces, mut calls, mut end) = (Vec::new(), Vec::new(), None);
    while let Some(said) = reply.next().await {
        assert!(end.is_none(), "nothing follows the end: {said:?}");
        match said {
            Ok(Said::Text(piece)) => pieces.push(piece),
            Ok(Said::Call(call)) => calls.push(call),
            Ok(Said::End(last)) => end = Some(Ok(last)),
            Err(error) => end = Some(Err(error)),
        }
    }
    let heard = Heard { pieces, calls, end: end.expect("a reply ends, or fails") };
    if let Err(error) = &heard.end {
        let shown = error.to_string();
        for secret in [KEY, UPSTREAM_WORDS, "127.0.0.1", "http:"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
    heard
}

fn outcomes(calls: &[CallRecord]) -> Vec<Outcome> {
    calls.iter().map(|call| call.outcome).collect()
}

#[tokio::test]
async fn each_token_is_a_piece_and_the_usage_is_the_servers() {
    let server = ModelServer::start().await.expect("a server");
    let heard = hear(responder(&server, "m", |_| ()).respond(ask("hello you"))).await;
    assert_eq!(heard.pieces, ["You ", "said: ", "hello ", "you"]);
    let usage = heard.whole().usage;
    assert_eq!((usage.output, usage.input_cached, usage.input > 0), (4, 1, true));
    let calls = server.calls_when(|calls| outcomes(calls) == [Outcome::Finished]).await;
    assert_eq!((calls[0].tokens, calls[0].stream, calls[0].authorized), (4, true, false));
}

#[tokio::test]
async fn the_request_reaches_the_server_in_its_form() {
    let server = ModelServer::start().await.expect("a server");
    let mut asked = ask("words 9");
    asked.history = vec![item(Body::user("older")).into()];
    asked.request = r#"{"instructions":"be brief","max_output_tokens":2,"temperature":0.5}"#.into();
    let heard = hear(responder(&server, "other-name", |_| ()).respond(asked)).await;
    assert_eq!((heard.text().as_str(), heard.whole().incomplete), ("w1 w2 ", Some(Incomplete::MaxOutputTokens)));
    let calls = server.calls();
    let roles = json!([
        {"role": "system", "content": "be brief"}, {"role": "user", "content": "older"}, {"role": "user", "content": "words 9"}
    ]);
    assert_eq!((&calls[0].body["messages"], &calls[0].body["temperature"]), (&roles, &json!(0.5)));
    assert_eq!(calls[0].model, "other-name");
}

#[tokio::test]
async fn a_reply_says_why_it_is_not_whole() {
    let server = ModelServer::start().await.expect("a server");
    for (directives, why, text) in [
        ("length", Some(Incomplete::MaxOutputTokens), "You said: a "),
        ("filter", Some(Incomplete::ContentFilter), "You said: a "),
        ("refusal", None, "I would rather not."),
        ("no-done", None, "You said: a b"),
        ("json", None, "You said: a b"),
    ] {
        let heard = hear(responder(&server, directives, |_| ()).respond(ask("a b"))).await;
        assert_eq!((heard.text().as_str(), heard.whole().incomplete), (text, why), "{directives}");
    }
}

#[tokio::test]
async fn a_function_is_called_and_its_output_answered() {
    let server = ModelServer::start().await.expect("a server");
    for directives in ["tool", "tool,json"] {
        let responder = responder(&server, directives, |_| ());
        let mut asked = ask("what is the weather?");
        asked.request =
            json!({"tools": [{"type": "function", "name": "weather", "parameters": {}}]}).to_string().into();
        let heard = hear(responder.respond(asked.clone())).await;
        let [call] = heard.calls.as_slice() else { panic!("one call") };
        assert_eq!((call.name.as_str(), call.arguments.as_str()), ("weather", "{\"city\":\"Paris\"}"));
        let (call_id, status) = (call.call_id.clone(), Status::Completed);
        let called = Body::FunctionCall { call_id, name: call.name.clone(), arguments: call.arguments.clone(), status };
        let output = Body::FunctionCallOutput { call_id: call.call_id.clone(), output: "21".into(), status };
        asked.history = vec![asked.input.remove(0).into(), item(called).into()];
        asked.input = vec![item(output)];
        assert_eq!(hear(responder.respond(asked)).await.text(), "It is 21 degrees in Paris.");
    }
}

#[tokio::test]
async fn prefill_goes_on_exactly_behind_the_partial_reply() {
    let server = ModelServer::start().await.expect("a server");
    let responder = responder(&server, "m", |options| options.carry_on = CarryOn::Prefill);
    let mut asked = ask("words 5");
    (asked.partial, asked.attempt) = ("w1 w2 w".into(), 2);
    assert_eq!(hear(responder.respond(asked)).await.pieces, ["3 ", "w4 ", "w5"]);
}

#[tokio::test]
async fn context_gives_the_partial_reply_with_an_instruction() {
    let server = ModelServer::start().await.expect("a server");
    let mut asked = ask("words 5");
    asked.partial = "w1 ".into();
    hear(responder(&server, "m", |options| options.carry_on = CarryOn::Context).respond(asked)).await.whole();
    let messages = &server.calls()[0].body["messages"];
    assert_eq!(messages[1], json!({"role": "assistant", "content": "w1 "}));
    assert!(messages[2]["content"].as_str().is_some_and(|text| text.contains("Go on from its very last character")));
}

#[tokio::test]
async fn incomplete_ends_a_taken_over_turn_without_a_call() {
    let server = ModelServer::start().await.expect("a server");
    let responder = responder(&server, "m", |options| options.carry_on = CarryOn::Incomplete);
    let mut asked = ask("x");
    asked.partial = "w1 ".into();
    let heard = hear(responder.respond(asked)).await;
    assert_eq!((heard.pieces.len(), heard.whole().incomplete), (0, Some(Incomplete::TakenOver)));
    assert!(server.calls().is_empty());
    assert_eq!(hear(responder.respond(ask("x"))).await.text(), "You said: x");
}

#[tokio::test]
async fn refusals_that_may_pass_are_tried_again() {
    let server = ModelServer::start().await.expect("a server");
    let heard = hear(responder(&server, "flaky:1", |options| options.retries = 1).respond(ask("a"))).await;
    assert_eq!(heard.text(), "You said: a");
    assert_eq!(server.calls().len(), 2);
}

#[tokio::test]
async fn retry_after_is_waited_for() {
    let server = ModelServer::start().await.expect("a server");
    let heard = hear(responder(&server, "flaky:2", |options| options.retries = 2).respond(ask("a"))).await;
    assert_eq!(heard.text(), "You said: a");
    let started: Vec<u64> = server.calls().iter().map(|call| call.started_ms).collect();
    assert_eq!(started.len(), 3);
    assert!(started[2] - started[1] >= 990, "the server asked for a second: {started:?}");
}

#[tokio::test]
async fn when_the_retries_are_used_up_the_turn_fails() {
    let server = ModelServer::start().await.expect("a server");
    for (directives, code, calls) in [
        ("status:503", "server_error", 2),
        ("status:500", "server_error", 2),
        ("disconnect:0", "server_error", 2),
        ("eof:0", "server_error", 2),
        ("error:0", "server_error", 2),
        ("stall", "server_error", 2),
        ("comments", "server_error", 2),
        ("status:401", "server_error", 1),
        ("status:307", "server_error", 1),
        ("status:400", "invalid_prompt", 1),
        ("too-long", "invalid_prompt", 1),
        ("html", "server_error", 1),
        ("garbage:0", "server_error", 1),
        ("huge-line", "server_error", 1),
    ] {
        let before = server.calls().len();
        let responder = responder(&server, directives, |options| {
            (options.retries, options.first_token_timeout) =
                (1, if directives == "huge-line" { 60 * SHORT } else { SHORT });
        });
        let heard = hear(responder.respond(ask("a"))).await;
        assert_eq!((heard.pieces.len(), heard.failure().code.as_str()), (0, code), "{directives}");
        assert_eq!(server.calls().len() - before, calls, "{directives}");
    }
}

#[tokio::test]
async fn too_many_requests_are_named_so() {
    let server = ModelServer::start().await.expect("a server");
    let heard = hear(responder(&server, "status:429", |_| ()).respond(ask("a"))).await;
    assert_eq!(heard.failure().code, "rate_limit_exceeded");
}

#[tokio::test]
async fn after_the_first_token_nothing_is_tried_again_and_nothing_falls_back() {
    let server = ModelServer::start().await.expect("a server");
    for directives in ["stall:2", "comments:2", "disconnect:2", "eof:2", "garbage:2", "error:2", "huge-line:2"] {
        let before = server.calls().len();
        let responder = responder(&server, directives, |options| {
            (options.retries, options.fallback) = (2, Some("echo".into()));
            options.idle_timeout = if directives == "huge-line:2" { 60 * SHORT } else { SHORT };
        });
        let heard = hear(responder.respond(ask("a b"))).await;
        assert_eq!(heard.text(), "You said: ", "{directives}");
        assert_eq!(heard.failure().code, "server_error", "{directives}");
        assert_eq!(server.calls().len() - before, 1, "{directives}");
    }
}

/// Answers its first connection with these bytes in one write, and counts all that come.
async fn raw_server(answer: &'static str) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/v1", listener.local_addr().expect("an address"));
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            let mut request = [0; 4096];
            let _ = connection.read(&mut request).await;
            let _ = connection.write_all(answer.as_bytes()).await;
        }
    });
    (url, connections)
}

#[tokio::test]
async fn a_token_and_garbage_in_one_packet_are_a_token_and_then_a_failure() {
    let answer = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n\
                  data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\ndata: {\"error\":{}}\n\n";
    let (base_url, connections) = raw_server(answer).await;
    let mut options = OpenAiOptions::new("m", &base_url);
    options.fallback = Some("echo".into());
    let heard = hear(responders(options)["m"].respond(ask("a"))).await;
    assert_eq!((heard.text().as_str(), heard.failure().code.as_str()), ("Hi", "server_error"));
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_whole_reply_ends_soon_where_the_server_keeps_the_stream_open() {
    let answer = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 9999\r\n\r\n\
                  data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"},\"finish_reason\":\"stop\"}]}\n\n";
    let (base_url, _) = raw_server(answer).await;
    let mut options = OpenAiOptions::new("m", &base_url);
    options.idle_timeout = SHORT;
    let heard = hear(responders(options)["m"].respond(ask("a"))).await;
    assert_eq!((heard.text().as_str(), heard.whole().incomplete), ("Hi", None));
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_left_for_the_fallback() {
    let server = ModelServer::start().await.expect("a server");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let gone = responder(&server, "m", |options| options.base_url = format!("http://{closed}/v1"));
    assert_eq!(hear(gone.respond(ask("a"))).await.failure().message, "the model server cannot be reached");
    let fallen_back = responder(&server, "m", |options| {
        (options.base_url, options.fallback) = (format!("http://{closed}/v1"), Some("echo".into()));
    });
    assert_eq!(hear(fallen_back.respond(ask("a b"))).await.text(), "a b");
    assert!(server.calls().is_empty());
}

#[tokio::test]
async fn a_fallback_answers_after_the_retries_but_not_for_a_request_at_fault() {
    let server = ModelServer::start().await.expect("a server");
    let with_fallback = |directives| {
        responder(&server, directives, |options| (options.retries, options.fallback) = (1, Some("echo".into())))
    };
    assert_eq!(hear(with_fallback("status:503").respond(ask("a"))).await.text(), "a");
    assert_eq!(server.calls().len(), 2);
    assert_eq!(hear(with_fallback("status:401").respond(ask("a"))).await.text(), "a");
    assert_eq!(hear(with_fallback("status:400").respond(ask("a"))).await.failure().code, "invalid_prompt");
}

#[tokio::test]
async fn beyond_its_places_and_its_queue_a_call_is_refused_at_once() {
    let server = ModelServer::start().await.expect("a server");
    let responder = responder(&server, "stall:1", |options| (options.concurrency, options.queue) = (1, 1));
    let mut first = responder.respond(ask("first"));
    first.next().await;
    let second = tokio::spawn({
        let mut second = responder.respond(ask("second"));
        async move { second.next().await }
    });
    // It has no place yet; let it take the queue's.
    tokio::task::yield_now().await;
    let third = hear(responder.respond(ask("third"))).await;
    assert_eq!(third.failure().code, "rate_limit_exceeded");
    assert!(third.failure().message.contains("its queue is full"), "{}", third.failure());
    assert_eq!(server.calls().len(), 1);
    drop(first);
    let said = second.await.expect("no panic").expect("it says something");
    assert_eq!(said, Ok(Said::Text("You ".into())));
    let users: Vec<String> = server.calls().into_iter().map(|call| call.user).collect();
    assert_eq!(users, ["first", "second"]);
}

#[tokio::test]
async fn who_waits_too_long_in_the_queue_is_refused() {
    let server = ModelServer::start().await.expect("a server");
    let responder = responder(&server, "stall:1", |options| {
        (options.concurrency, options.first_token_timeout) = (1, SHORT);
    });
    let mut first = responder.respond(ask("first"));
    first.next().await;
    assert_eq!(hear(responder.respond(ask("second"))).await.failure().code, "rate_limit_exceeded");
}

#[tokio::test]
async fn a_dropped_reply_closes_the_connection() {
    let server = ModelServer::start().await.expect("a server");
    let responder = responder(&server, "stall:2", |_| ());
    let mut reply = responder.respond(ask("a"));
    reply.next().await;
    assert_eq!(outcomes(&server.calls()), [Outcome::Open]);
    drop(reply);
    server.calls_when(|calls| outcomes(calls) == [Outcome::CutOff]).await;
}

#[tokio::test]
async fn a_call_is_dropped_before_its_answer_too() {
    let server = ModelServer::start().await.expect("a server");
    let responder = responder(&server, "wait:600000", |_| ());
    let waiting = tokio::spawn(async move { responder.respond(ask("a")).next().await });
    server.calls_when(|calls| outcomes(calls) == [Outcome::Open]).await;
    waiting.abort();
    server.calls_when(|calls| outcomes(calls) == [Outcome::CutOff]).await;
}

#[tokio::test]
async fn connections_are_used_again() {
    let server = ModelServer::start().await.expect("a server");
    let responder = responder(&server, "m", |_| ());
    for n in 1..=20 {
        hear(responder.respond(ask("a"))).await.whole();
        server.calls_when(|calls| outcomes(calls) == vec![Outcome::Finished; n]).await;
    }
    let clients: BTreeSet<SocketAddr> = server.calls().iter().map(|call| call.client).collect();
    assert!(clients.len() <= 3, "20 calls, one after the other, took {} connections", clients.len());
}

/// Collects what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_key_is_sent_and_shown_nowhere() {
    let server = ModelServer::start().await.expect("a server");
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone());
    let _logging = tracing::subscriber::set_default(subscriber.finish());
    for directives in ["m", "status:401", "status:503", "garbage:0", "disconnect:1", "status:307"] {
        let mut options = OpenAiOptions::new("m", &server.base_url());
        options.model = Some(directives.into());
        options.api_key_env = Some("MODEL_KEY".into());
        (options.retries, options.fallback) = (1, Some("eliza".into()));
        assert!(!format!("{options:?}").contains(KEY));
        let heard = hear(responders(options)["m"].respond(ask("a prompt that nobody should see"))).await;
        assert!(!heard.text().is_empty() || heard.end.is_err());
    }
    assert!(server.calls().iter().all(|call| call.authorized));
    let log = String::from_utf8_lossy(&log.0.lock().expect("no panic")).into_owned();
    assert!(log.contains("its fallback answers"), "the log is empty where it should not be: {log}");
    for secret in [KEY, UPSTREAM_WORDS] {
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(secret)).collect();
        assert!(lines.is_empty(), "{lines:#?}");
    }
}
