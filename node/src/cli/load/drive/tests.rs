//! Whole loads against a small server that echoes, keeps what it was told, and errs when asked to.

use std::collections::HashMap;
use std::sync::Mutex;

use serde_json::{Value, json};

use super::super::plan::tests::args;
use super::super::{conversations, verify};
use super::*;
use crate::cli::client::tests::{FakeServer, Reply, Seen, events_of};

#[derive(Default)]
struct Echo {
    conversations: HashMap<String, Vec<Value>>,
    /// By key: a repeated turn is answered again and not stored again.
    answers: HashMap<String, Vec<String>>,
    sent: u64,
    /// Every so many turns one is refused (1 s) or its stream breaks after two events.
    fail_every: u64,
    forgetful: bool,
}

impl Echo {
    fn answer(&mut self, seen: &Seen) -> Reply {
        let parts: Vec<_> = seen.path.split(['/', '?']).skip(2).collect();
        match (seen.method.as_str(), parts.as_slice()) {
            ("POST", ["conversations"]) => {
                let id = format!("conv_{:032x}{:016x}", self.conversations.len(), 0);
                self.conversations.insert(id.clone(), items(&seen.body["items"]));
                Reply::ok(json!({ "id": id }))
            }
            ("POST", ["conversations", id, "items"]) => {
                self.conversations.get_mut(*id).unwrap().extend(items(&seen.body["items"]));
                Reply::ok(json!({}))
            }
            ("GET", ["conversations", id, "items", query]) => page(&self.conversations[*id], query),
            ("POST", ["responses"]) => self.turn(seen),
            ("GET", ["responses", id, query]) => {
                let after: usize = query.rsplit_once('=').unwrap().1.parse().unwrap();
                let events = self.answers.values().find(|events| events[0].contains(id)).unwrap();
                Reply::events(&events[after + 1..])
            }
            other => panic!("{other:?}"),
        }
    }

    fn turn(&mut self, seen: &Seen) -> Reply {
        self.sent += 1;
        let fails = self.fail_every > 0 && self.sent.is_multiple_of(self.fail_every);
        let stream = seen.body["stream"] == true;
        if fails && !stream {
            return Reply::refused(503, 1);
        }
        let (conversation, text) = (seen.body["conversation"].as_str().unwrap(), seen.body["input"].as_str().unwrap());
        let response = format!("resp_{}{:016x}", &conversation[5..37], self.sent);
        let key = seen.key.clone().unwrap();
        if !self.answers.contains_key(&key) {
            let stored = self.conversations.get_mut(conversation).unwrap();
            if !self.forgetful {
                stored.extend([item("user", text), item("assistant", text)]);
            }
            let (half, rest) = text.split_at(text.len() / 2);
            self.answers.insert(key.clone(), events_of(&response, conversation, &[half, rest], "completed"));
        }
        let events = &self.answers[&key];
        match (stream, fails) {
            (true, true) => Reply::cut_after(&events[..2]),
            (true, false) => Reply::events(events),
            (false, _) => {
                let last = events[events.len() - 2].split_once("data: ").unwrap().1;
                Reply::ok(serde_json::from_str::<Value>(last).unwrap()["response"].clone())
            }
        }
    }
}

fn items(sent: &Value) -> Vec<Value> {
    let sent = sent.as_array().unwrap();
    assert!(sent.len() <= 20);
    sent.iter().map(|one| item(one["role"].as_str().unwrap(), one["content"].as_str().unwrap())).collect()
}

fn item(role: &str, text: &str) -> Value {
    json!({"role": role, "content": [{"text": text}]})
}

fn page(items: &[Value], query: &str) -> Reply {
    let from: usize = query.rsplit_once("after=").map_or(0, |(_, last)| last.parse().unwrap());
    let to = items.len().min(from + 100);
    Reply::ok(json!({"data": items[from..to], "last_id": to.to_string(), "has_more": to < items.len()}))
}

async fn load(line: &str, echo: Echo) -> (Tally, verify::Verified) {
    let echo = Mutex::new(echo);
    let server = FakeServer::with(move |seen| echo.lock().unwrap().answer(seen)).await;
    let args = args(line).unwrap();
    let (plan, messages) = (Plan::of(&args).unwrap(), Messages::new(9, &args));
    let client = server.client();
    let made = conversations::prepare(&client, &plan, &messages, &AtomicU64::default()).await.unwrap();
    let limit = plan.limit;
    let drive = Arc::new(Drive::new(client.clone(), plan, messages, made));
    let mut tally = drive.phase(limit).await;
    let records = std::mem::take(&mut tally.records);
    let verified = verify::read_back(&client, &drive, records, &AtomicU64::default()).await.unwrap();
    (tally, verified)
}

#[tokio::test]
async fn every_turn_of_a_closed_loop_is_right_and_is_found_again() {
    let (tally, verified) =
        load("--turns 60 --connections 4 --conversations 6 --items 45 --verify", Echo::default()).await;
    assert_eq!((tally.completed, tally.failed(), tally.latency.len()), (60, 0, 60));
    assert_eq!((verified.turns, verified.items, verified.conversations), (60, 6 * 45 + 120, 6));
    assert!(verified.errors.is_empty(), "{:?}", verified.errors);
}

#[tokio::test]
async fn an_open_loop_streams_and_shares_few_conversations() {
    let line = "--turns 50 --rate 5000 --in-flight 8 --conversations 2 --stream --verify";
    let (tally, verified) = load(line, Echo::default()).await;
    assert_eq!((tally.completed, tally.first_token.len(), tally.not_started), (50, 50, 0));
    assert!(verified.errors.is_empty(), "{:?}", verified.errors);
}

#[tokio::test]
async fn refusals_are_counted_by_kind_and_not_repeated_unasked() {
    let (tally, verified) =
        load("--turns 20 --connections 2 --verify", Echo { fail_every: 5, ..Echo::default() }).await;
    assert_eq!(tally.errors, [(Kind::Refused(503), 4)].into());
    assert_eq!((tally.completed, tally.retries, verified.turns), (16, 0, 16));
    assert!(verified.errors.is_empty());
}

#[tokio::test]
async fn with_retry_a_refused_turn_is_one_turn_and_a_broken_stream_goes_on() {
    for stream in ["", "--stream"] {
        let line = format!("--turns 20 --connections 2 --retry --verify {stream}");
        let (tally, verified) = load(&line, Echo { fail_every: 5, ..Echo::default() }).await;
        assert_eq!((tally.completed, tally.failed()), (20, 0), "{:?}", tally.errors);
        assert!(tally.retries >= 4);
        assert!(verified.errors.is_empty(), "{:?}", verified.errors);
    }
}

#[tokio::test]
async fn a_store_that_forgets_what_it_acknowledged_is_found_out() {
    let (tally, verified) =
        load("--turns 5 --connections 1 --verify", Echo { forgetful: true, ..Echo::default() }).await;
    assert_eq!(tally.completed, 5);
    assert_eq!(verified.errors, [("lost", 5)].into());
}
