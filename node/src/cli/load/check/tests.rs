//! Right answers, and each way in which one can be wrong.

use serde_json::{Value, json};

use super::*;
use crate::cli::client::tests::events_of;

const CONVERSATION: &str = "conv_0123456789abcdef0123456789abcdef0000000000000000";
const RESPONSE: &str = "resp_0123456789abcdef0123456789abcdef0000000000000001";

fn expected() -> Expected<'static> {
    Expected { conversation: CONVERSATION, text: Some("ab") }
}

fn answer() -> Value {
    let output = json!([{"id": RESPONSE.replace("resp", "msg"), "content": [{"type": "output_text", "text": "ab"}]}]);
    json!({"id": RESPONSE, "status": "completed", "conversation": {"id": CONVERSATION}, "output": output})
}

fn check_with(pointer: &str, value: Value) -> Result<(), Kind> {
    let mut answer = answer();
    *answer.pointer_mut(pointer).unwrap() = value;
    expected().check(answer.to_string().as_bytes())
}

fn check_stream(lines: &[String]) -> Result<bool, Kind> {
    let mut check = StreamCheck::default();
    let mut ended = Ok(false);
    for line in lines {
        let data = line.trim().rsplit_once("data: ").unwrap().1;
        let item = serde_json::from_str::<Value>(data).map_or(StreamItem::Done, |event| {
            let sequence_number = event["sequence_number"].as_u64().unwrap();
            let kind = event["type"].as_str().unwrap().to_owned();
            StreamItem::Event(StreamEvent { kind, sequence_number, data: data.to_owned() })
        });
        ended = check.take(item, &expected());
        ended?;
    }
    ended
}

fn stream(deltas: &[&str], end: &str) -> Vec<String> {
    events_of(RESPONSE, CONVERSATION, deltas, end)
}

#[test]
fn the_right_answer_is_right() {
    assert_eq!(expected().check(answer().to_string().as_bytes()), Ok(()));
}

#[test]
fn each_wrong_answer_has_its_name() {
    let elsewhere = "resp_ffff456789abcdef0123456789abcdef0000000000000001";
    assert_eq!(check_with("/status", json!("incomplete")), Err(Kind::NotCompleted));
    assert_eq!(check_with("/id", json!(elsewhere)), Err(Kind::WrongId));
    assert_eq!(check_with("/output/0/id", json!("msg_1")), Err(Kind::WrongId));
    assert_eq!(check_with("/conversation", Value::Null), Err(Kind::WrongId));
    assert_eq!(check_with("/output/0/content/0/text", json!("a")), Err(Kind::WrongText));
    assert_eq!(expected().check(b"<html>"), Err(Kind::Malformed));
}

#[test]
fn any_text_will_do_where_nobody_echoes() {
    let any = Expected { text: None, ..expected() };
    let mut other = answer();
    other["output"][0]["content"][0]["text"] = json!("How do you feel?");
    assert_eq!(any.check(other.to_string().as_bytes()), Ok(()));
}

#[test]
fn the_right_stream_is_right() {
    assert_eq!(check_stream(&stream(&["a", "b"], "completed")), Ok(true));
}

#[test]
fn a_hole_a_repeat_and_an_early_end_break_the_sequence() {
    let right = stream(&["a", "b"], "completed");
    let mut hole = right.clone();
    hole.remove(2);
    let mut repeat = right.clone();
    repeat.insert(2, right[1].clone());
    let early = [right[0].clone(), right.last().unwrap().clone()];
    for wrong in [&hole[..], &repeat, &early, &right[1..]] {
        assert_eq!(check_stream(wrong), Err(Kind::WrongSequence));
    }
    assert_eq!(check_stream(&right[..3]), Ok(false), "so far, so good");
}

#[test]
fn deltas_must_add_up_to_the_final_text() {
    let mut wrong = stream(&["a", "b"], "completed");
    wrong[2] = wrong[2].replace(r#""delta":"b""#, r#""delta":"x""#);
    assert_eq!(check_stream(&wrong), Err(Kind::WrongDeltas));
    assert_eq!(check_stream(&stream(&["x"], "completed")), Err(Kind::WrongText));
}

#[test]
fn a_stream_that_does_not_complete_has_failed() {
    for end in ["failed", "cancelled", "incomplete"] {
        assert_eq!(check_stream(&stream(&["a"], end)), Err(Kind::NotCompleted));
    }
}
