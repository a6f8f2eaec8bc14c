//! Stores that hold what was acknowledged, and each way in which one can not.

use std::time::Duration;

use super::super::plan::tests::args;
use super::*;

/// `stored` are turn numbers in the order of the store; `records` are number, sent and acknowledged (0: never), in ms.
fn check(stored: &[u64], records: &[(u64, u64, u64)], errors: &[(&'static str, u64)]) {
    let messages = Messages::new(1, &args("").unwrap());
    let said = |number: &u64| messages.message("conv_1", *number).text;
    let pair = |number: &u64| [("user".to_owned(), said(number)), ("assistant".to_owned(), said(number))];
    judge(&messages, stored.iter().flat_map(pair).collect(), records, errors);
}

fn judge(
    messages: &Messages,
    found: Vec<(String, String)>,
    records: &[(u64, u64, u64)],
    errors: &[(&'static str, u64)],
) {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let record = |&(number, sent, acknowledged): &(u64, u64, u64)| Record {
        conversation: 0,
        number,
        sent: at(sent),
        acknowledged: (acknowledged > 0).then(|| at(acknowledged)),
    };
    let records: Vec<_> = records.iter().map(record).collect();
    let verified = Judge { messages, fill: 0, any_text: false }.conversation(&records, &found);
    assert_eq!(verified.errors, errors.iter().copied().collect());
}

#[test]
fn what_was_acknowledged_stands_once_and_in_order() {
    check(&[1, 2, 3], &[(1, 0, 5), (2, 6, 9), (3, 10, 12)], &[]);
}

#[test]
fn a_lost_turn_a_doubled_one_and_a_stranger_are_found() {
    check(&[1], &[(1, 0, 5), (2, 6, 9)], &[("lost", 1)]);
    check(&[1, 1], &[(1, 0, 5)], &[("duplicate", 1)]);
    check(&[1, 7], &[(1, 0, 5)], &[("misplaced", 1)]);
}

#[test]
fn a_turn_without_an_answer_may_be_there_once_but_not_twice() {
    check(&[], &[(1, 0, 0)], &[]);
    check(&[1], &[(1, 0, 0)], &[]);
    check(&[1, 1], &[(1, 0, 0)], &[("duplicate", 1)]);
}

#[test]
fn overlapping_turns_may_stand_in_either_order_and_others_may_not() {
    check(&[2, 1], &[(1, 0, 9), (2, 5, 12)], &[]);
    check(&[2, 1], &[(1, 0, 4), (2, 5, 12)], &[("out_of_order", 1)]);
}

#[test]
fn every_reply_stands_behind_its_input() {
    let messages = Messages::new(1, &args("").unwrap());
    let user = |number| ("user".to_owned(), messages.message("conv_1", number).text);
    let (one, two) = ((1, 0, 5), (2, 6, 9));
    judge(&messages, vec![user(1), user(2)], &[one, two], &[("reply_missing", 2)]);
    let other = ("assistant".to_owned(), "what?".to_owned());
    judge(&messages, vec![user(1), other], &[one], &[("foreign_item", 1), ("reply_missing", 1)]);
}

#[test]
fn items_from_before_the_load_are_still_there() {
    let messages = Messages::new(1, &args("").unwrap());
    let filled: Vec<_> = (0..3).map(|number| ("user".to_owned(), messages.fill_text(number))).collect();
    let judge = Judge { messages: &messages, fill: 3, any_text: false };
    assert!(judge.conversation(&[], &filled).errors.is_empty());
    assert!(judge.conversation(&[], &filled[1..]).errors.contains_key("fill_damaged"));
}
