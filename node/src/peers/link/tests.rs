//! Two links that talk to one another. Lines are what happens, and what comes of it at both ends.

use super::*;

/// `a` asks, `b` serves; both tick. What one says the other hears, unless the line is cut.
struct Pair {
    ends: [Link; 2],
    cut: bool,
    seen: Vec<String>,
}

impl Pair {
    fn on(&mut self, end: usize, now_ms: u64, event: Event) {
        for effect in self.ends[end].decide(now_ms, event) {
            match effect {
                Effect::Say(said) if !self.cut => self.on(1 - end, now_ms, Event::Heard(said)),
                Effect::Say(_) => {}
                Effect::Serve { ask, request } => self.seen.push(format!("serve {ask} {}", request.len())),
                Effect::End { ask, result: Ok(answer) } => self.seen.push(format!("answer {ask} {}", answer.len())),
                Effect::End { ask, result: Err(error) } => self.seen.push(format!("end {ask}: {error}")),
                Effect::Close => self.seen.push("close".to_owned()),
            }
        }
    }

    fn line(&mut self, now_ms: &mut u64, words: &[&str]) {
        let number = |word: &str| word.parse::<u64>().unwrap();
        match words {
            ["ready"] => (0..2).for_each(|end| self.on(end, *now_ms, Event::Ready)),
            ["ask", ask, bytes] => {
                let request = vec![1; number(bytes) as usize];
                self.on(0, *now_ms, Event::Ask { ask: number(ask), request, deadline_ms: 60_000 });
            }
            ["answer", ask, bytes] => {
                let answer = Some(vec![2; number(bytes) as usize]);
                self.on(1, *now_ms, Event::Answered { ask: number(ask), answer });
            }
            ["fail", ask] => self.on(1, *now_ms, Event::Answered { ask: number(ask), answer: None }),
            ["cut"] => self.cut = true,
            ["mend"] => self.cut = false,
            ["lost"] => self.on(0, *now_ms, Event::Lost),
            ["tick", times] => {
                for _ in 0..number(times) {
                    *now_ms += 1_000;
                    (0..2).for_each(|end| self.on(end, *now_ms, Event::Tick));
                }
            }
            words => panic!("{words:?}"),
        }
    }
}

fn check(script: &str) {
    let mut pair = Pair { ends: [Link::default(), Link::default()], cut: false, seen: Vec::new() };
    let mut now_ms = 0;
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (happens, expected) = line.split_once("->").expect("a line says what comes of it");
        pair.line(&mut now_ms, &happens.split_whitespace().collect::<Vec<_>>());
        assert_eq!(std::mem::take(&mut pair.seen).join(", "), expected.trim(), "{happens}");
    }
}

#[test]
fn what_is_asked_is_answered_short_and_long() {
    check(
        "ready            ->
         ask 1 200        -> serve 1 200
         ask 2 1048576    -> serve 2 1048576
         ask 3 0          -> serve 3 0
         answer 3 0       -> answer 3 0
         answer 1 4194304 -> answer 1 4194304
         answer 2 1       -> answer 2 1
         fail 2           ->
         tick 100         ->",
    );
}

#[test]
fn before_a_round_trip_nothing_is_sent() {
    check(
        "ask 1 5 -> end 1: it was not sent: the peer does not answer
         ready   ->
         ask 2 5 -> serve 2 5
         fail 2  -> end 2: no answer came: the peer ended without an answer",
    );
}

#[test]
fn a_silent_peer_is_suspected_and_believed_again_when_it_answers() {
    check(
        "ready    ->
         ask 1 5  -> serve 1 5
         cut      ->
         tick 2   ->
         tick 1   -> end 1: no answer came: the peer does not answer any more
         ask 2 5  -> end 2: it was not sent: the peer does not answer
         mend     ->
         tick 2   ->
         ask 3 5  -> serve 3 5",
    );
}

#[test]
fn a_peer_that_is_silent_for_long_is_closed() {
    check(
        "ready   ->
         cut     ->
         tick 29 ->
         tick 1  -> close, close",
    );
}

#[test]
fn asks_over_the_budget_and_over_the_length_are_not_sent() {
    check(
        "ready         ->
         ask 1 16777216 -> serve 1 16777216
         ask 2 16777216 -> serve 2 16777216
         ask 3 1       -> end 3: it was not sent: it would exceed the peer's byte budget
         answer 1 1    -> answer 1 1
         ask 4 16777217 -> end 4: it was not sent: it is longer than a message may be
         ask 5 1       -> serve 5 1
         lost          -> end 2: no answer came: the connection to the peer was lost, end 5: no answer came: the connection to the peer was lost",
    );
}

#[test]
fn a_late_answer_is_not_waited_for() {
    check(
        "ready      ->
         ask 1 5    -> serve 1 5
         tick 59    ->
         tick 1     -> end 1: no answer came: the deadline passed
         answer 1 5 ->",
    );
}

#[test]
fn a_short_ask_passes_a_long_one() {
    let mut link = Link::default();
    link.decide(0, Event::Ready);
    link.decide(0, Event::Heard(Said::Beat(Beat { number: 1, seen: 1, taken: 0 })));
    let long = Event::Ask { ask: 1, request: vec![0; 1 << 20], deadline_ms: 1_000 };
    let pieces = link.decide(0, long).len();
    assert_eq!(pieces as u64, WINDOW_BYTES / PIECE_BYTES_MAX as u64, "no more than a window is under way");
    let said = link.decide(0, Event::Ask { ask: 2, request: vec![0; 5], deadline_ms: 1_000 });
    assert!(matches!(said.as_slice(), [Effect::Say(Said::Ask { ask: 2, .. })]), "{said:?}");
    let given_up = link.decide(0, Event::GaveUp(1));
    assert_eq!(given_up, [Effect::Say(Said::GivenUp { ask: 1 })]);
}

#[test]
fn a_peer_that_lies_about_lengths_is_refused_and_holds_nothing() {
    let mut link = Link::default();
    link.decide(0, Event::Ready);
    for (length, bytes) in [(u32::MAX, 5), (3, 5)] {
        let said = Said::Ask { ask: 1, deadline_ms: 1, length, bytes: vec![0; bytes] };
        let refused = Effect::Say(Said::Refused { ask: 1, why: Refusal::Busy });
        assert_eq!(link.decide(0, Event::Heard(said)), [refused]);
    }
    for ask in 0..100 {
        let length = MESSAGE_BYTES_MAX as u32;
        link.decide(0, Event::Heard(Said::Ask { ask, deadline_ms: 1, length, bytes: vec![0; 5] }));
    }
    assert_eq!(link.coming_bytes, HELD_BYTES_MAX);
    link.decide(2, Event::Tick);
    assert_eq!((link.coming_bytes, link.coming.len()), (0, 0));
}
