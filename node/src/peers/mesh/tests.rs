//! Who is dialled, admitted and let go. `b.7` is this node.

use super::*;

fn peer(text: &str) -> PeerId {
    let (name, incarnation) = text.split_once('.').unwrap();
    PeerId { name: name.into(), incarnation: incarnation.parse().unwrap() }
}

fn event(words: &[&str]) -> Event {
    let ticket = |word: &str| word.parse().unwrap();
    match words {
        ["keep", peers @ ..] => {
            Event::Keep(peers.iter().map(|id| PeerAddress { id: peer(id), address: "host:1".into() }).collect())
        }
        ["proven", t, id] => Event::Proven { ticket: ticket(t), peer: peer(id) },
        ["ready", t] => Event::Ready { ticket: ticket(t) },
        ["closed", t] => Event::Closed { ticket: ticket(t) },
        ["failed", id] => Event::DialFailed(peer(id)),
        ["due", id] => Event::DialDue(peer(id)),
        ["ready-due", t] => Event::ReadyDue { ticket: ticket(t) },
        ["kept-due", t] => Event::KeptDue { ticket: ticket(t) },
        ["silent", t] => Event::Silent { ticket: ticket(t) },
        words => panic!("{words:?}"),
    }
}

fn shown(effect: &Effect) -> String {
    match effect {
        Effect::Dial(peer) => format!("dial {}", peer.id),
        Effect::DialAfter { peer, failures } => format!("dial {peer} after {failures}"),
        Effect::StopDialling(peer) => format!("stop {peer}"),
        Effect::Admit { ticket } => format!("admit {ticket}"),
        Effect::Close { ticket } => format!("close {ticket}"),
    }
}

fn check(script: &str) {
    let mut mesh = Mesh::new(peer("b.7"));
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (happens, expected) = line.split_once("->").expect("a line says what comes of it");
        let effects = mesh.decide(event(&happens.split_whitespace().collect::<Vec<_>>()));
        let shown: Vec<String> = effects.iter().map(shown).collect();
        assert_eq!(shown.join(", "), expected.trim(), "{happens}");
    }
}

#[test]
fn the_smaller_dials_until_it_reaches_and_again_when_it_is_lost() {
    check(
        "keep a.1 b.9 c.1 -> dial c.1
         failed c.1       -> dial c.1 after 1
         due c.1          -> dial c.1
         failed c.1       -> dial c.1 after 2
         due c.1          -> dial c.1
         proven 1 c.1     -> admit 1
         ready 1          ->
         ready-due 1      ->
         closed 1         -> dial c.1 after 0
         keep a.1         -> stop c.1
         due c.1          ->",
    );
}

#[test]
fn another_life_replaces_the_one_before() {
    check(
        "keep c.1     -> dial c.1
         proven 1 c.1 -> admit 1
         keep c.2     -> close 1, dial c.2
         closed 1     ->
         proven 2 c.2 -> admit 2
         proven 3 c.1 -> close 3
         closed 3     ->",
    );
}

#[test]
fn a_peer_that_comes_back_waits_for_its_old_connection_to_end() {
    check(
        "keep a.1     ->
         proven 1 a.1 -> admit 1
         proven 2 a.1 -> close 1
         closed 1     -> admit 2
         ready-due 2  -> close 2
         closed 2     ->",
    );
}

#[test]
fn a_stranger_has_time_to_be_kept() {
    check(
        "proven 1 a.1 -> admit 1
         keep c.1     -> dial c.1
         kept-due 1   -> close 1
         proven 2 a.2 -> admit 2
         keep a.2 c.1 ->
         kept-due 2   ->
         keep c.1     -> close 2",
    );
}

#[test]
fn the_wait_grows_to_a_maximum_and_is_half_random() {
    assert_eq!((backoff(0, 0).as_millis(), backoff(0, u32::MAX).as_millis()), (50, 100));
    assert_eq!((backoff(30, 0).as_millis(), backoff(30, u32::MAX).as_millis()), (2_500, 5_000));
}
