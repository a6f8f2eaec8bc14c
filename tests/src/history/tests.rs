//! The checker finds each kind of broken history, passes every one that can have been, and is as strict as a search.

use proptest::prelude::*;

use super::*;

fn stored(text: &str) -> Stored {
    Stored { text: text.into(), reply: reply(text) }
}

fn reply(text: &str) -> String {
    format!("you said {text}")
}

fn acknowledged(text: &str, invoked: u64, at: u64) -> Turn {
    Turn {
        text: text.into(),
        invoked,
        outcome: Outcome::Acknowledged { at, reply: reply(text) },
        shown: vec![reply(text)],
    }
}

fn unknown(text: &str, invoked: u64) -> Turn {
    Turn { text: text.into(), invoked, outcome: Outcome::Unknown, shown: Vec::new() }
}

fn read(reader: &str, invoked: u64, answered: u64, texts: &[&str]) -> Read {
    Read { reader: reader.into(), invoked, answered, turns: texts.iter().map(|text| stored(text)).collect() }
}

/// Three turns, two of them at the same time, and what two readers saw of them.
fn good() -> History {
    History {
        turns: vec![acknowledged("a", 0, 10), acknowledged("b", 20, 40), acknowledged("c", 25, 45), unknown("d", 50)],
        reads: vec![
            read("x", 11, 12, &["a"]),
            read("y", 30, 42, &["a", "c", "b"]),
            read("x", 60, 61, &["a", "c", "b"]),
            read("y", 60, 61, &["a", "c", "b"]),
        ],
    }
}

fn found(history: &History) -> Vec<String> {
    check(history).iter().map(Violation::to_string).collect()
}

/// The good history, broken in one way; what is found begins so.
fn breaks(expected: &str, how: impl FnOnce(&mut History)) {
    let mut history = good();
    how(&mut history);
    let found = found(&history);
    assert!(found.iter().any(|violation| violation == expected), "{expected} is not among {found:#?}");
}

#[test]
fn what_can_have_been_passes() {
    assert_eq!(found(&good()), Vec::<String>::new());
    let mut with_unknown = good();
    with_unknown.reads[2].turns.push(stored("d"));
    with_unknown.reads[3].turns.push(stored("d"));
    assert_eq!(found(&with_unknown), Vec::<String>::new(), "an unknown outcome may be there");
}

#[test]
fn a_lost_turn_is_found() {
    breaks("\"b\" was acknowledged, and x does not see it", |history| {
        history.reads[1].turns.pop();
        history.reads[2].turns.pop();
        history.reads[3].turns.pop();
    });
}

#[test]
fn a_doubled_turn_is_found() {
    breaks("x sees \"a\" twice", |history| history.reads[2].turns.push(stored("a")));
    breaks("x sees \"d\" twice", |history| history.reads[2].turns.extend([stored("d"), stored("d")]));
}

#[test]
fn turns_out_of_their_order_are_found() {
    breaks("\"a\" was done before \"c\" was sent, and stands behind it", |history| {
        history.reads.remove(0);
        for read in &mut history.reads {
            read.turns.swap(0, 2);
        }
    });
}

#[test]
fn readers_that_disagree_are_found() {
    breaks("y and x see different turns at 1", |history| {
        history.reads[3].turns.swap(1, 2);
        history.reads[2].turns.push(stored("d"));
    });
}

#[test]
fn a_read_that_goes_back_is_found() {
    breaks("x saw less than y had seen before", |history| {
        history.reads[1].turns.push(stored("d"));
        history.reads[1].answered = 55;
    });
}

#[test]
fn a_reply_that_contradicts_what_was_told_is_found() {
    breaks("of \"a\" a client was told \"you said A\", and stored is \"you said a\"", |history| {
        history.turns[0].shown.push("you said A".into());
    });
    breaks("of \"a\" a client was told \"no\", and stored is \"you said a\"", |history| {
        history.turns[0].outcome = Outcome::Acknowledged { at: 10, reply: "no".into() };
    });
    breaks("y and x see different turns at 0", |history| {
        history.reads[3].turns[0].reply = "you said A".into();
        history.reads[2].turns.push(stored("d"));
    });
}

#[test]
fn a_turn_that_nobody_sent_or_that_was_refused_is_found() {
    breaks("\"z\" is there, and was refused or never sent", |history| history.reads[2].turns.push(stored("z")));
    breaks("\"d\" is there, and was refused or never sent", |history| {
        history.turns[3].outcome = Outcome::Refused;
        history.reads[2].turns.push(stored("d"));
    });
}

#[test]
fn a_turn_that_was_read_before_it_was_sent_is_found() {
    breaks("x saw \"d\" before it was sent", |history| {
        history.turns[3].invoked = 70;
        history.reads[2].turns.push(stored("d"));
    });
}

#[test]
fn a_shown_reply_that_is_not_there_is_found() {
    breaks("part of the reply to \"d\" was shown, and it is not there", |history| {
        history.turns[3].shown.push("you".into());
    });
}

#[test]
fn a_history_that_says_nothing_does_not_pass() {
    breaks("\"c\" was acknowledged, and nobody read afterwards", |history| history.reads.truncate(1));
}

/// One step of a conversation that goes well: the time since the last one, and how much earlier it was asked for and
/// later answered.
#[derive(Clone, Debug)]
struct Step {
    after: u64,
    lead: u64,
    lag: u64,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Acknowledged,
    UnknownAndThere,
    UnknownAndNot,
    Refused,
    Read,
}

fn step() -> impl Strategy<Value = Step> {
    let what = prop_oneof![
        4 => Just(What::Acknowledged),
        1 => Just(What::UnknownAndThere),
        1 => Just(What::UnknownAndNot),
        1 => Just(What::Refused),
        3 => Just(What::Read),
    ];
    (1_u64..20, 0_u64..100, 0_u64..100, what).prop_map(|(after, lead, lag, what)| Step { after, lead, lag, what })
}

/// A history in which everything happened at one moment between its beginning and its end.
fn lived(steps: &[Step]) -> History {
    let (mut history, mut now, mut log) = (History::default(), 1_000, Vec::<Stored>::new());
    for (n, Step { after, lead, lag, what }) in steps.iter().enumerate() {
        now += after;
        let (text, invoked, at) = (format!("turn {n}"), now - lead, now + lag);
        match what {
            What::Read => {
                let reader = format!("reader {}", n % 3);
                history.reads.push(Read { reader, invoked, answered: at, turns: log.clone() });
                continue;
            }
            What::Acknowledged => history.turns.push(acknowledged(&text, invoked, at)),
            What::UnknownAndThere | What::UnknownAndNot => history.turns.push(unknown(&text, invoked)),
            What::Refused => history.turns.push(Turn { outcome: Outcome::Refused, ..unknown(&text, invoked) }),
        }
        if matches!(what, What::Acknowledged | What::UnknownAndThere) {
            log.push(stored(&text));
        }
    }
    let end = now + 1_000;
    history.reads.extend(["p", "q"].map(|reader| Read {
        reader: reader.into(),
        invoked: end,
        answered: end + 1,
        turns: log.clone(),
    }));
    history
}

/// Whether there is an order of all turns and reads that respects time, in which each read sees what stands before it:
/// tries all of them. Only for histories whose reads are beginnings of the longest.
fn is_possible(history: &History) -> bool {
    let whole = history.reads.iter().max_by_key(|read| read.turns.len()).expect("there is a read");
    let turns: Vec<(u64, u64)> = whole
        .turns
        .iter()
        .map(|stored| {
            let turn = history.turns.iter().find(|turn| turn.text == stored.text).expect("it was sent");
            let end = if let Outcome::Acknowledged { at, .. } = turn.outcome { at } else { u64::MAX };
            (turn.invoked, end)
        })
        .collect();
    let reads: Vec<(u64, u64, usize)> =
        history.reads.iter().map(|read| (read.invoked, read.answered, read.turns.len())).collect();
    place(&turns, &reads, 0, &mut vec![false; reads.len()], 0)
}

/// Places the next turn or a read that has seen so many; `latest` is the latest beginning of what was placed.
fn place(turns: &[(u64, u64)], reads: &[(u64, u64, usize)], next: usize, placed: &mut Vec<bool>, latest: u64) -> bool {
    if next == turns.len() && placed.iter().all(|placed| *placed) {
        return true;
    }
    for (n, (invoked, answered, seen)) in reads.iter().enumerate() {
        if !placed[n] && *seen == next && *answered >= latest {
            placed[n] = true;
            if place(turns, reads, next, placed, latest.max(*invoked)) {
                return true;
            }
            placed[n] = false;
        }
    }
    let Some((invoked, end)) = turns.get(next) else { return false };
    *end >= latest && place(turns, reads, next + 1, placed, latest.max(*invoked))
}

/// Turns and reads at any times, right or wrong.
fn small() -> impl Strategy<Value = History> {
    let turn = (0_u64..12, 0_u64..8, any::<bool>());
    let read = (0_u64..14, 0_u64..6, 0_usize..5);
    (prop::collection::vec(turn, 0..5), prop::collection::vec(read, 0..4)).prop_map(|(turns, reads)| {
        let names: Vec<String> = (0..turns.len()).map(|n| format!("turn {n}")).collect();
        let turns = turns.iter().zip(&names).map(|((invoked, lasts, known), name)| {
            if *known { acknowledged(name, *invoked, invoked + lasts) } else { unknown(name, *invoked) }
        });
        let seen = |count: usize| names.iter().take(count).map(|name| stored(name)).collect();
        let mut reads: Vec<Read> = reads
            .iter()
            .map(|(invoked, lasts, count)| Read {
                reader: "r".into(),
                invoked: *invoked,
                answered: invoked + lasts,
                turns: seen(*count),
            })
            .collect();
        reads.push(Read { reader: "r".into(), invoked: 100, answered: 101, turns: seen(names.len()) });
        History { turns: turns.collect(), reads }
    })
}

proptest! {
    #[test]
    fn every_history_that_went_well_passes(steps in prop::collection::vec(step(), 0..60)) {
        prop_assert_eq!(found(&lived(&steps)), Vec::<String>::new());
    }

    #[test]
    fn the_checker_is_as_strict_as_a_search(history in small()) {
        prop_assert_eq!(check(&history).is_empty(), is_possible(&history), "{:#?}", found(&history));
    }

    #[test]
    fn a_turn_that_is_taken_out_of_the_end_or_put_in_twice_is_found(
        steps in prop::collection::vec(step(), 1..40), place: prop::sample::Index
    ) {
        let history = lived(&steps);
        let acknowledged: Vec<&Turn> =
            history.turns.iter().filter(|turn| matches!(turn.outcome, Outcome::Acknowledged { .. })).collect();
        prop_assume!(!acknowledged.is_empty());
        let text = place.get(&acknowledged).text.clone();
        let mut lost = history.clone();
        let mut doubled = history.clone();
        for read in &mut lost.reads {
            read.turns.retain(|stored| stored.text != text);
        }
        for read in &mut doubled.reads {
            if read.turns.iter().any(|it| it.text == text) {
                read.turns.push(stored(&text));
            }
        }
        let is_lost = |violation: &Violation| matches!(violation, Violation::Lost { .. });
        prop_assert!(check(&lost).iter().any(is_lost));
        let is_doubled = |violation: &Violation| matches!(violation, Violation::Doubled { .. });
        prop_assert!(check(&doubled).iter().any(is_doubled));
    }
}
