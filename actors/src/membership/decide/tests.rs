//! Scripts over the decisions of membership: an input on the left, what comes of it on the right.

use super::*;

/// Node `a` among others: each line is what happens, an arrow, and what follows. `at MS` sets the clock.
fn check(script: &str) {
    let row = Row { incarnation: 1, address: "a:1".into(), status: MemberStatus::Joining, format: 1 };
    let mut membership = Membership::new("a".into(), row);
    let mut now_ms = 0;
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (input, expected) = line.split_once("->").unwrap_or((line, ""));
        let words: Vec<&str> = input.split_whitespace().collect();
        if words[0] == "at" {
            now_ms = words[1].parse().expect("ms");
            continue;
        }
        let said: Vec<String> = membership.decide(now_ms, parse(&words)).iter().map(show).collect();
        assert_eq!(said.join(", "), expected.trim(), "after {:?} of:\n{script}", input.trim());
    }
}

fn parse(words: &[&str]) -> Input {
    let number = |place: usize| words[place].parse::<u64>().expect("a number");
    match words[0] {
        "tick" => Input::Tick,
        "joined" => Input::Joined(true),
        "refused" => Input::Joined(false),
        "up" => Input::Up,
        "leave" => Input::Leave,
        "behind" => Input::Behind(number(1)),
        "failed" => Input::Failed,
        "buried" => Input::Buried(true),
        "unburied" => Input::Buried(false),
        "forgotten" => Input::Beaten(None),
        // beaten NUMBER GENERATION name=counter …
        "beaten" => {
            let counter = |pair: &&str| {
                let (name, counter) = pair.split_once('=').expect("a name and a counter");
                (name.to_owned(), counter.parse().expect("a counter"))
            };
            let counters = words[3..].iter().map(counter).collect();
            Input::Beaten(Some(Beat { number: number(1), generation: number(2), counters }))
        }
        // read NUMBER name.incarnation=status …
        "read" => {
            Input::Read(ViewTable { number: number(1), rows: words[2..].iter().map(|row| parse_row(row)).collect() })
        }
        "knocked" => Input::Probed { name: words[1].into(), incarnation: 1, refused: words[2] == "refused" },
        other => panic!("there is no input {other:?}"),
    }
}

fn parse_row(word: &str) -> (String, Row) {
    let (who, status) = word.split_once('=').expect("a row has a status");
    let (name, incarnation) = who.split_once('.').expect("a row has an incarnation");
    let status = match status {
        "joining" => MemberStatus::Joining,
        "up" => MemberStatus::Up,
        _ => MemberStatus::Leaving,
    };
    let incarnation = incarnation.parse().expect("a number");
    (name.to_owned(), Row { incarnation, address: format!("{name}:1"), status, format: 1 })
}

fn show(effect: &Effect) -> String {
    let row = |row: &Row| format!("{} {:?}", row.incarnation, row.status).to_lowercase();
    match effect {
        Effect::Join(mine) => format!("join {}", row(mine)),
        Effect::Set(mine) => format!("set {}", row(mine)),
        Effect::Beat => "beat".into(),
        Effect::Read => "read".into(),
        Effect::Probe(peer) => format!("knock {}", peer.id),
        Effect::Bury { still, number } => {
            let one = |still: &Still| format!("{}.{} at {}", still.name, still.incarnation, still.counter);
            format!("bury {} in {number}", still.iter().map(one).collect::<Vec<_>>().join(" + "))
        }
        Effect::Tell(view) => {
            format!(
                "tell {} {}",
                view.number(),
                view.members().keys().map(|name| &**name).collect::<Vec<_>>().join("+")
            )
        }
        Effect::Drop => "drop".into(),
        Effect::End => "end".into(),
    }
}

#[test]
fn a_node_joins_is_up_and_leaves() {
    check(
        "tick                              -> join 1 joining
         up                                ->
         joined                            -> read
         read 1 a.1=joining                -> tell 1 a
         tick                              -> set 1 up
         joined                            -> read
         read 2 a.1=up                     -> tell 2 a
         tick                              -> beat
         beaten 2 1 a=1                    ->
         leave                             -> set 1 leaving
         joined                            -> read
         read 3 a.1=leaving                -> tell 3 a
         up                                ->",
    );
}

const TOGETHER: &str = "tick -> join 1 joining
         joined                            -> read
         read 1 a.1=joining b.1=up         -> tell 1 a+b
         up                                -> set 1 up
         joined                            -> read
         read 2 a.1=up b.1=up              -> tell 2 a+b\n";

#[test]
fn who_stands_still_for_three_seconds_is_buried() {
    check(&format!(
        "{TOGETHER}
         at 0
         tick                              -> beat
         beaten 2 1 a=1 b=7                ->
         at 2900
         tick                              -> beat
         beaten 2 1 a=2 b=7                -> knock b.1
         knocked b silent                  ->
         at 3000
         tick                              -> beat
         beaten 2 1 a=3 b=7                -> bury b.1 at 7 in 2
         buried                            -> read
         read 3 a.1=up                     -> tell 3 a",
    ));
}

#[test]
fn one_second_is_enough_where_the_port_refuses() {
    check(&format!(
        "{TOGETHER}
         at 0
         tick                              -> beat
         beaten 2 1 a=1 b=7                ->
         at 1000
         tick                              -> beat
         beaten 2 1 a=2 b=7                -> knock b.1
         tick                              -> beat
         beaten 2 1 a=3 b=7                ->
         knocked b refused                 -> bury b.1 at 7 in 2",
    ));
}

/// `a` up among five others.
const SIX: &str = "tick -> join 1 joining
         up                                ->
         joined                            -> read
         read 1 a.1=joining b.1=up c.1=up d.1=up e.1=up f.1=up -> tell 1 a+b+c+d+e+f
         tick                              -> set 1 up
         joined                            -> read
         read 2 a.1=up b.1=up c.1=up d.1=up e.1=up f.1=up -> tell 2 a+b+c+d+e+f\n";

#[test]
fn all_that_stand_still_are_buried_in_one_view_each_by_its_own_counter() {
    check(&format!(
        "{SIX}
         at 0
         tick                              -> beat
         beaten 2 1 a=1 b=7 c=8 d=9 e=1 f=1  ->
         at 500
         tick                              -> beat
         beaten 2 1 a=2 b=7 c=8 d=10 e=2 f=2 ->
         at 3000
         tick                              -> beat
         beaten 2 1 a=3 b=7 c=8 d=10 e=3 f=3 -> bury b.1 at 7 + c.1 at 8 in 2
         buried                            -> read
         read 3 a.1=up d.1=up e.1=up f.1=up -> tell 3 a+d+e+f",
    ));
}

#[test]
fn who_was_spared_by_its_counter_must_stand_still_anew() {
    check(&format!(
        "{SIX}
         at 0
         tick                              -> beat
         beaten 2 1 a=1 b=7 c=8 d=1 e=1 f=1  ->
         at 3000
         tick                              -> beat
         beaten 2 1 a=2 b=7 c=8 d=2 e=2 f=2  -> bury b.1 at 7 + c.1 at 8 in 2
         buried                            -> read
         read 3 a.1=up c.1=up d.1=up e.1=up f.1=up -> tell 3 a+c+d+e+f
         at 3250
         tick                              -> beat
         beaten 3 1 a=3 c=9 d=3 e=3 f=3    ->
         at 6000
         tick                              -> beat
         beaten 3 1 a=4 c=9 d=4 e=4 f=4    -> knock c.1
         knocked c silent                  ->
         at 6250
         tick                              -> beat
         beaten 3 1 a=5 c=9 d=5 e=5 f=5    -> bury c.1 at 9 in 3",
    ));
}

#[test]
fn who_lost_against_another_view_looks_again_before_it_accuses() {
    check(&format!(
        "{SIX}
         at 0
         tick                              -> beat
         beaten 2 1 a=1 b=7 c=8 d=1 e=1 f=1  ->
         at 3000
         tick                              -> beat
         beaten 2 1 a=2 b=7 c=8 d=2 e=2 f=2  -> bury b.1 at 7 + c.1 at 8 in 2
         unburied                          -> read
         read 3 a.1=up b.1=up c.2=joining d.1=up e.1=up f.1=up -> tell 3 a+b+c+d+e+f
         at 3250
         tick                              -> beat
         beaten 3 1 a=3 b=7 c=8 d=3 e=3 f=3  -> bury b.1 at 7 in 3",
    ));
}

#[test]
fn at_most_half_of_the_table_goes_in_one_view() {
    check(&format!(
        "{SIX}
         at 0
         tick                              -> beat
         beaten 2 1 a=1 b=1 c=1 d=1 e=1 f=1  ->
         at 3000
         tick                              -> beat
         beaten 2 1 a=2 b=1 c=1 d=1 e=1 f=1  -> bury b.1 at 1 + c.1 at 1 + d.1 at 1 in 2
         buried                            -> read
         read 3 a.1=up e.1=up f.1=up       -> tell 3 a+e+f
         at 3250
         tick                              -> beat
         beaten 3 1 a=3 e=1 f=1            -> bury e.1 at 1 in 3
         buried                            -> read
         read 4 a.1=up f.1=up              -> tell 4 a+f
         at 3500
         tick                              -> beat
         beaten 4 1 a=4 f=1                -> bury f.1 at 1 in 4",
    ));
}

#[test]
fn those_whose_ports_refuse_are_buried_together() {
    let knocks = "at 0
         tick                              -> beat
         beaten 2 1 a=1 b=1 c=1 d=1 e=1 f=1  ->
         at 1000
         tick                              -> beat
         beaten 2 1 a=2 b=1 c=1 d=1 e=2 f=2  -> knock b.1, knock c.1, knock d.1
         knocked b refused                 ->";
    check(&format!(
        "{SIX}{knocks}
         knocked c refused                 ->
         knocked d silent                  -> bury b.1 at 1 + c.1 at 1 in 2",
    ));
    // One that hangs keeps the others waiting for a beat at most; one that went on is asked no more.
    check(&format!(
        "{SIX}{knocks}
         at 1250
         tick                              -> beat
         knocked c refused                 ->
         beaten 2 1 a=3 b=1 c=2 d=1 e=3 f=3  -> bury b.1 at 1 in 2
         knocked d refused                 ->
         buried                            -> read
         read 3 a.1=up c.1=up d.1=up e.1=up f.1=up -> tell 3 a+c+d+e+f
         at 1500
         tick                              -> beat
         beaten 3 1 a=4 c=2 d=1 e=4 f=4    -> bury d.1 at 1 in 3",
    ));
}

#[test]
fn a_refusal_heard_when_the_table_was_away_meanwhile_kills_nobody() {
    check(&format!(
        "{TOGETHER}
         at 0
         tick                              -> beat
         beaten 2 1 a=1 b=7                ->
         at 1000
         tick                              -> beat
         beaten 2 1 a=2 b=7                -> knock b.1
         tick                              -> beat
         failed                            ->
         at 1250
         tick                              -> beat
         beaten 2 1 a=3 b=7                ->
         knocked b refused                 ->
         at 2250
         tick                              -> beat
         beaten 2 1 a=4 b=7                -> bury b.1 at 7 in 2",
    ));
}

#[test]
fn so_many_doors_are_knocked_at_at_once() {
    let rows: String = (0..KNOCKS_AT_ONCE + 9).map(|n| format!(" n{n:03}.1=up")).collect();
    let counters: String = (0..KNOCKS_AT_ONCE + 9).map(|n| format!(" n{n:03}=1")).collect();
    let mut membership =
        Membership::new("a".into(), Row { incarnation: 1, address: "a:1".into(), status: MemberStatus::Up, format: 1 });
    let mut says = |now_ms, line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        membership.decide(now_ms, parse(&words)).iter().map(show).collect::<Vec<_>>()
    };
    for line in ["tick", "joined", &format!("read 1 a.1=up{rows}"), "tick", &format!("beaten 1 1 a=1{counters}")] {
        says(0, line);
    }
    says(1_000, "tick");
    assert_eq!(says(1_000, &format!("beaten 1 1 a=2{counters}")).len(), KNOCKS_AT_ONCE);
    says(1_250, "knocked n000 silent");
    says(1_250, "tick");
    assert_eq!(says(1_250, &format!("beaten 1 1 a=3{counters}")), ["knock n000.1"], "there is room for one");
}

#[test]
fn a_later_life_does_not_stand_still_for_an_earlier_one() {
    check(&format!(
        "{TOGETHER}
         at 0
         tick                              -> beat
         beaten 2 1 a=1 b=0                ->
         at 2900
         tick                              -> beat
         beaten 3 1 a=2 b=0                -> read
         read 3 a.1=up b.2=joining         -> tell 3 a+b
         at 3100
         tick                              -> beat
         beaten 3 1 a=3 b=0                ->",
    ));
}

#[test]
fn who_went_on_meanwhile_is_not_accused() {
    check(&format!(
        "{TOGETHER}
         at 0
         tick                              -> beat
         beaten 2 1 a=1 b=7                ->
         at 1000
         tick                              -> beat
         beaten 2 1 a=2 b=7                -> knock b.1
         tick                              -> beat
         beaten 2 1 a=3 b=8                ->
         knocked b refused                 ->",
    ));
}

#[test]
fn a_table_that_was_away_kills_nobody() {
    check(&format!(
        "{TOGETHER}
         at 0
         tick                              -> beat
         beaten 2 1 a=1 b=7                ->
         tick                              -> beat
         failed                            ->
         at 9000
         tick                              -> beat
         beaten 2 1 a=2 b=7                ->
         at 11900
         tick                              -> beat
         beaten 2 1 a=3 b=7                -> knock b.1
         at 12000
         tick                              -> beat
         beaten 2 1 a=4 b=7                -> bury b.1 at 7 in 2",
    ));
}

#[test]
fn counters_behind_another_connection_are_not_compared() {
    check(&format!(
        "{TOGETHER}
         at 0
         tick                              -> beat
         beaten 2 1 a=1 b=7                ->
         at 3000
         tick                              -> beat
         beaten 2 2 a=2 b=7                ->
         at 5900
         tick                              -> beat
         beaten 2 2 a=3 b=7                -> knock b.1",
    ));
}

#[test]
fn who_finds_itself_dead_drops_everything_and_joins_as_a_later_life() {
    check(&format!(
        "{TOGETHER}
         tick                              -> beat
         forgotten                         -> tell 2 , drop
         tick                              -> join 2 up
         joined                            -> read
         read 4 a.2=up b.1=up              -> tell 4 a+b",
    ));
}

#[test]
fn an_older_process_of_the_same_name_ends() {
    check("tick -> join 1 joining\nrefused -> end");
    check(&format!("{TOGETHER} behind 3 -> read\nread 3 a.2=up b.1=up -> end"));
}

#[test]
fn a_newer_view_is_read_as_soon_as_anybody_tells_of_it() {
    check(&format!(
        "{TOGETHER}
         behind 2                          ->
         behind 5                          -> read
         behind 6                          ->
         read 5 a.1=up b.1=up c.1=up       -> tell 5 a+b+c",
    ));
}
