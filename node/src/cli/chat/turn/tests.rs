//! The lives of a turn at the client, each a script of what arrives and what is decided.

use super::*;

/// `@7 created|delta|completed|cancelled|failed`, `done`, `lost`, `refused`, `interrupt`, `+30s` (time goes by) `->` effects.
fn check(script: &str) {
    let (mut turn, mut now) = (Turn::default(), Instant::now());
    for line in script.lines().map(str::trim) {
        let (input, expected) = line.split_once("->").unwrap();
        if let Some(secs) = input.trim().strip_prefix('+') {
            now += Duration::from_secs(secs.trim_end_matches('s').parse().unwrap());
            continue;
        }
        let effects: Vec<_> = turn.decide(now, read(input.trim())).iter().map(shown).collect();
        assert_eq!(effects.join(", "), expected.trim(), "{line}");
    }
}

fn read(input: &str) -> Input {
    match input {
        "done" => Input::Arrived(StreamItem::Done),
        "lost" => Input::Lost(Failure::CutShort),
        "refused" => Input::Lost(Failure::Malformed("no".to_owned())),
        "interrupt" => Input::Interrupted,
        event => {
            let (number, kind) = event.strip_prefix('@').unwrap().split_once(' ').unwrap();
            let kind = if kind == "delta" { "output_text.delta" } else { kind };
            let ended = if kind == "cancelled" { "incomplete" } else { kind };
            let data = serde_json::json!({"response": {"id": "resp_1", "status": kind, "error": {"message": "burnt"}}});
            let (kind, sequence_number) = (format!("response.{ended}"), number.parse().unwrap());
            Input::Arrived(StreamItem::Event(StreamEvent { kind, sequence_number, data: data.to_string() }))
        }
    }
}

fn shown(effect: &Effect) -> String {
    match effect {
        Effect::Show(event) => format!("show {}", event.sequence_number),
        Effect::Note(_) => "note".to_owned(),
        Effect::Cancel { response } => format!("cancel {response}"),
        Effect::Connect { from: Start::Turn, after } => format!("post in {}", after.as_millis()),
        Effect::Connect { from: Start::After { sequence_number, .. }, after } => {
            format!("watch after {sequence_number} in {}", after.as_millis())
        }
        Effect::End(ending) => format!("end {ending:?}"),
    }
}

#[test]
fn an_answer_is_shown_in_order_and_ends() {
    check(
        "@0 created   -> show 0
         @1 delta     -> show 1
         @2 completed -> show 2, end Completed",
    );
}

#[test]
fn a_lost_connection_goes_on_where_it_broke_and_says_so_once() {
    check(
        "@0 created   -> show 0
         @1 delta     -> show 1
         lost         -> note, watch after 1 in 100
         lost         -> watch after 1 in 200
         @1 delta     ->
         @2 delta     -> show 2
         lost         -> note, watch after 2 in 100
         @3 completed -> show 3, end Completed",
    );
}

#[test]
fn before_the_response_is_known_the_turn_is_sent_again() {
    check(
        "lost       -> note, post in 100
         lost       -> post in 200
         @0 created -> show 0",
    );
}

#[test]
fn after_a_minute_without_progress_it_gives_up() {
    check(
        r#"@0 created -> show 0
         lost       -> note, watch after 0 in 100
         +60s       ->
         lost       -> end GivenUp("the connection was lost before the answer was complete")"#,
    );
}

#[test]
fn a_hole_in_the_numbers_or_an_early_done_is_a_lost_connection() {
    check(
        "@0 created -> show 0
         @2 delta   -> note, watch after 0 in 100
         done       -> watch after 0 in 200",
    );
}

#[test]
fn an_interrupt_cancels_at_the_server_and_waits_for_the_end() {
    check(
        "@0 created   -> show 0
         interrupt    -> note, cancel resp_1
         @1 cancelled -> show 1, end Cancelled",
    );
}

#[test]
fn an_interrupt_before_the_response_is_known_cancels_as_soon_as_it_is() {
    check(
        "interrupt  -> note
         @0 created -> cancel resp_1, show 0",
    );
}

#[test]
fn a_second_interrupt_stops_waiting() {
    check(
        "@0 created -> show 0
         interrupt  -> note, cancel resp_1
         interrupt  -> end Abandoned",
    );
}

#[test]
fn what_cannot_be_helped_and_what_failed_ends_the_turn() {
    check(r#"refused -> end GivenUp("the server's answer was not understood: no")"#);
    check(r#"@0 failed -> show 0, end Failed("burnt")"#);
    check(r#"@0 incomplete -> show 0, end Incomplete("no reason given")"#);
}
