//! A stay against a small server: what is asked, what is shown, how it ends.

use std::sync::Arc;

use serde_json::json;
use tokio::sync::Notify;

use super::super::output::tests::printer;
use super::*;
use crate::cli::client::tests::{FakeServer, Reply, events_of};
use crate::cli::terminal::tests::Page;

const RESPONSE: &str = "resp_1";

struct Stay {
    session: Session,
    answers: Page,
    notes: Page,
    interrupt: mpsc::Sender<()>,
}

fn stay(server: &FakeServer, json: bool) -> Stay {
    let (printer, answers, notes) = printer(json, false);
    let (interrupt, interrupts) = mpsc::channel(2);
    let session = Session {
        client: server.client(),
        credentials: Credentials::fixed(),
        printer,
        interrupts,
        model: "eliza".to_owned(),
        conversation: "conv_1".to_owned(),
    };
    Stay { session, answers, notes, interrupt }
}

fn answer(deltas: &[&str], end: &str) -> Vec<String> {
    events_of(RESPONSE, "conv_1", deltas, end)
}

#[tokio::test(start_paused = true)]
async fn an_answer_streams_to_stdout_and_nothing_else_does() {
    let server = FakeServer::script([Reply::events(&answer(&["Hello", ", you."], "completed"))]).await;
    let Stay { session, answers, notes, .. } = stay(&server, false);
    let code = session.say_one("Hi").await.unwrap();
    assert_eq!(code, ExitCode::SUCCESS);
    assert_eq!(answers.text(), "Hello, you.\n");
    assert_eq!(notes.text(), "go on with: klatch chat --conversation conv_1\n");
    let sent = json!({"model": "eliza", "conversation": "conv_1", "input": "Hi", "stream": true});
    assert_eq!(server.seen()[0].body, sent);
}

#[tokio::test(start_paused = true)]
async fn a_stream_cut_in_the_middle_goes_on_with_no_hole_and_no_repeat() {
    let events = answer(&["one ", "two ", "three"], "completed");
    // A server may well send again what was seen: it must not be shown twice.
    let server =
        FakeServer::script([Reply::cut_after(&events[..3]), Reply::refused(503, 20), Reply::events(&events[2..])])
            .await;
    let Stay { session, answers, notes, .. } = stay(&server, false);
    assert_eq!(session.say_one("Hi").await.unwrap(), ExitCode::SUCCESS);
    assert_eq!(answers.text(), "one two three\n");
    assert_eq!(notes.text().matches("trying again").count(), 1);
    let watch = "GET /v1/responses/resp_1?stream=true&starting_after=2";
    assert_eq!(server.asked(), ["POST /v1/responses", watch, watch]);
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_was_not_taken_is_sent_again_under_its_own_key() {
    let events = answer(&["yes"], "completed");
    let server = FakeServer::script([Reply::refused(429, 50), Reply::cut_after(&[]), Reply::events(&events)]).await;
    let Stay { session, answers, .. } = stay(&server, true);
    assert_eq!(session.say_one("Hi").await.unwrap(), ExitCode::SUCCESS);
    let seen = server.seen();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|one| one.method == "POST" && one.key.is_some() && one.key == seen[0].key));
    let numbers: Vec<_> = answers.text().lines().map(|line| line.contains("\"sequence_number\"")).collect();
    assert_eq!(numbers, [true; 4], "one JSON object per event");
}

#[tokio::test(start_paused = true)]
async fn ctrl_c_cancels_the_turn_at_the_server_and_what_was_said_stays() {
    let (events, cancelled) = (answer(&["Well, "], "cancelled"), Arc::new(Notify::new()));
    let (until, at_server) = (Some(cancelled.clone()), cancelled);
    let server = FakeServer::with(move |seen| {
        if seen.path.ends_with("/cancel") {
            at_server.notify_one();
            return Reply::ok(json!({"id": RESPONSE}));
        }
        let (first, rest) = (events[..2].to_vec(), events[2..].to_vec());
        Reply::Events { first, until: until.clone(), rest, cut: false }
    })
    .await;
    let Stay { mut session, answers, notes, interrupt } = stay(&server, false);
    let page = answers.clone();
    let press = async {
        while page.text().is_empty() {
            tokio::task::yield_now().await;
        }
        interrupt.send(()).await.unwrap();
    };
    let (ending, ()) = tokio::join!(session.say("Hi"), press);
    assert_eq!(ending.unwrap(), Ending::Cancelled);
    assert_eq!(answers.text(), "Well, \n");
    assert!(notes.text().ends_with("cancelled\n"), "{}", notes.text());
    let seen = server.seen();
    assert_eq!(server.asked(), ["POST /v1/responses", "POST /v1/responses/resp_1/cancel"]);
    assert!(seen[1].key.is_some() && seen[1].key != seen[0].key);
}

#[tokio::test(start_paused = true)]
async fn a_refused_message_is_told_with_its_request_id_and_fails() {
    let server = FakeServer::script([Reply::refused(401, 0)]).await;
    let Stay { session, answers, notes, .. } = stay(&server, false);
    assert_eq!(session.say_one("Hi").await.unwrap(), ExitCode::FAILURE);
    assert_eq!(answers.text(), "");
    assert!(
        notes.text().starts_with("the access token is missing, wrong or expired (HTTP 401): No. [request req_7]\n")
    );
}

#[tokio::test(start_paused = true)]
async fn a_failed_answer_fails_and_its_text_stays() {
    let server = FakeServer::script([Reply::events(&answer(&["Half"], "failed"))]).await;
    let Stay { session, answers, .. } = stay(&server, false);
    assert_eq!(session.say_one("Hi").await.unwrap(), ExitCode::FAILURE);
    assert_eq!(answers.text(), "Half\n");
}

#[tokio::test(start_paused = true)]
async fn commands_change_and_list_conversations() {
    let one = |id: &str| json!({"id": id, "created_at": 0, "metadata": {"title": "Tea"}});
    let server = FakeServer::script([
        Reply::ok(one("conv_2")),
        Reply::ok(json!({"data": [one("conv_2"), one("conv_1")]})),
        Reply::refused(404, 0),
        Reply::ok(one("conv_1")),
        Reply::ok(json!({"data": [{"role": "user", "content": [{"text": "Hi"}]}]})),
    ])
    .await;
    let Stay { mut session, notes, .. } = stay(&server, false);
    for line in [Line::New, Line::List, Line::Open("conv_9".to_owned()), Line::Open("conv_1".to_owned())] {
        session.obey(line).await.unwrap();
    }
    let told = "conversation conv_2
* conv_2  1970-01-01 00:00  Tea
  conv_1  1970-01-01 00:00  Tea
there is no such thing here (HTTP 404): No. [request req_7]
conversation conv_1
user: Hi
";
    assert_eq!(notes.text(), told);
}

#[tokio::test(start_paused = true)]
async fn ctrl_c_ends_the_wait_for_a_command_and_not_the_stay() {
    let server =
        FakeServer::script([Reply::refused(503, 20_000), Reply::ok(json!({"object": "list", "data": []}))]).await;
    let Stay { mut session, notes, interrupt, .. } = stay(&server, false);
    interrupt.send(()).await.unwrap();
    session.obey(Line::List).await.unwrap();
    session.obey(Line::Dropped).await.unwrap();
    assert_eq!(notes.text(), "stopped\nCtrl-D leaves\n");
    interrupt.send(()).await.expect("a later Ctrl-C is still heard");
}
