//! What every table of views must do, as one suite of checks that each implementation runs.

use futures::future::join_all;
use klatch_protocol::view::{MemberStatus, Row, ViewTable};

use super::{Beat, Still, Views};

/// Runs all checks; `make` gives a new and empty table each time.
pub async fn suite(make: impl AsyncFn() -> Box<dyn Views>) {
    a_higher_incarnation_takes_the_place_of_a_lower(&*make().await).await;
    incarnations_are_numbers(&*make().await).await;
    a_beat_counts_up_its_own_row_alone(&*make().await).await;
    a_change_counts_the_view_up_and_no_change_does_not(&*make().await).await;
    only_who_stands_still_in_the_same_view_is_buried(&*make().await).await;
    all_that_stand_still_are_buried_in_one_view_and_who_went_on_is_not(&*make().await).await;
    of_several_accusers_one_buries(&*make().await).await;
    who_leaves_takes_its_own_row_out(&*make().await).await;
}

fn row(incarnation: u64, status: MemberStatus) -> Row {
    Row { incarnation, address: "10.0.0.1:7946".into(), status, format: 1 }
}

async fn join(views: &dyn Views, name: &str, incarnation: u64) -> bool {
    views.join(name.into(), row(incarnation, MemberStatus::Joining)).await.expect("the table can be reached")
}

async fn table(views: &dyn Views) -> ViewTable {
    views.read().await.expect("the table can be read")
}

async fn beat(views: &dyn Views, name: &str, incarnation: u64) -> Option<Beat> {
    views.beat(name.into(), incarnation).await.expect("the table can be reached")
}

fn still(name: &str, incarnation: u64, counter: u64) -> Still {
    Still { name: name.into(), incarnation, counter }
}

async fn bury(views: &dyn Views, still: Vec<Still>, number: u64) -> bool {
    views.bury(still, number).await.expect("the table can be reached")
}

async fn a_higher_incarnation_takes_the_place_of_a_lower(views: &dyn Views) {
    assert_eq!(table(views).await, ViewTable::default());
    assert!(join(views, "a", 5).await);
    let first = table(views).await;
    assert_eq!(first.rows["a"], row(5, MemberStatus::Joining));
    assert!(first.number > 0, "a change did not count the view up");
    assert!(join(views, "a", 5).await, "the same node was refused");
    assert!(!join(views, "a", 4).await, "an older node took the place of a newer");
    assert_eq!(table(views).await, first, "what changed nothing counted the view up");
    assert!(join(views, "a", 6).await);
    let second = table(views).await;
    assert_eq!((second.number, second.rows["a"].incarnation), (first.number + 1, 6));
    assert_eq!(beat(views, "a", 5).await, None, "a replaced node goes on beating");
    assert!(!views.set("a".into(), row(5, MemberStatus::Up)).await.expect("the table can be reached"));
}

async fn incarnations_are_numbers(views: &dyn Views) {
    for incarnation in [9, 10, 255, 256, 1 << 53, (1 << 53) + 1, u64::MAX - 1, u64::MAX] {
        assert!(join(views, "a", incarnation).await, "{incarnation} was refused after a lower one");
        assert!(!join(views, "a", incarnation - 1).await, "{incarnation} was replaced by a lower one");
    }
}

async fn a_beat_counts_up_its_own_row_alone(views: &dyn Views) {
    assert_eq!(beat(views, "a", 1).await, None, "a node that is not there beats");
    join(views, "a", 1).await;
    join(views, "b", 1).await;
    let before = beat(views, "a", 1).await.expect("it is there");
    let after = beat(views, "a", 1).await.expect("it is there");
    assert_eq!(after.counters["a"], before.counters["a"] + 1);
    assert_eq!(after.counters["b"], before.counters["b"]);
    assert_eq!((after.number, after.generation), (table(views).await.number, before.generation));
}

async fn a_change_counts_the_view_up_and_no_change_does_not(views: &dyn Views) {
    let set =
        async |name: &str, status| views.set(name.into(), row(1, status)).await.expect("the table can be reached");
    join(views, "a", 1).await;
    let number = table(views).await.number;
    assert!(set("a", MemberStatus::Up).await);
    assert!(set("a", MemberStatus::Up).await);
    assert!(!set("b", MemberStatus::Up).await, "a row was made by changing it");
    let after = table(views).await;
    assert_eq!((after.number, after.rows["a"].status, after.rows.len()), (number + 1, MemberStatus::Up, 1));
}

async fn only_who_stands_still_in_the_same_view_is_buried(views: &dyn Views) {
    join(views, "a", 1).await;
    join(views, "b", 1).await;
    let seen = beat(views, "b", 1).await.expect("it is there");
    let counter = seen.counters["a"];
    let bury = async |incarnation, counter, number| bury(views, vec![still("a", incarnation, counter)], number).await;
    assert!(!bury(2, counter, seen.number).await, "another incarnation was buried");
    assert!(!bury(1, counter + 1, seen.number).await, "a node was buried at another counter");
    assert!(!bury(1, counter, seen.number + 1).await, "a node was buried in another view");
    beat(views, "a", 1).await;
    assert!(!bury(1, counter, seen.number).await, "a node that beats was buried");
    assert!(bury(1, counter + 1, seen.number).await, "a node that stands still was not buried");
    assert!(!bury(1, counter + 1, seen.number).await, "a node was buried twice");
    let after = table(views).await;
    assert_eq!((after.number, after.rows.len()), (seen.number + 1, 1));
    assert_eq!(beat(views, "a", 1).await, None, "a buried node beats");
    let counters = beat(views, "b", 1).await.expect("it is there").counters;
    assert!(!counters.contains_key("a"), "a buried node is counted");
    assert!(join(views, "a", 2).await, "a buried node cannot come again");
}

async fn all_that_stand_still_are_buried_in_one_view_and_who_went_on_is_not(views: &dyn Views) {
    for name in ["a", "b", "c", "d"] {
        join(views, name, 1).await;
    }
    let seen = beat(views, "d", 1).await.expect("it is there");
    beat(views, "b", 1).await;
    let accused = || {
        // Who was never there is no hindrance, and neither is who comes twice.
        let others = [still("a", 2, seen.counters["a"]), still("nobody", 1, 0)];
        ["a", "b", "c", "a"].map(|name| still(name, 1, seen.counters[name])).into_iter().chain(others).collect()
    };
    assert!(!bury(views, accused(), seen.number - 1).await, "nodes were buried in another view");
    assert!(!bury(views, Vec::new(), seen.number).await, "nobody was buried");
    assert_eq!(table(views).await.number, seen.number, "what changed nothing counted the view up");
    assert!(bury(views, accused(), seen.number).await, "nodes that stand still were not buried");
    let after = table(views).await;
    assert_eq!(after.number, seen.number + 1, "one call makes one view");
    assert_eq!(after.rows.keys().collect::<Vec<_>>(), ["b", "d"], "each is buried by its own counter");
    let later = beat(views, "d", 1).await.expect("it is there");
    assert_eq!(later.counters.keys().collect::<Vec<_>>(), ["b", "d"], "a buried node is counted");
    let replaced = later.counters["b"];
    assert!(join(views, "b", 2).await);
    let number = table(views).await.number;
    assert!(!bury(views, vec![still("b", 1, replaced)], number).await, "a later life was buried for an earlier one");
    assert_eq!(table(views).await.number, number);
}

async fn of_several_accusers_one_buries(views: &dyn Views) {
    join(views, "a", 1).await;
    let seen = beat(views, "a", 1).await.expect("it is there");
    let accuse = (0..8).map(|_| views.bury(vec![still("a", 1, seen.counters["a"])], seen.number));
    let buried = join_all(accuse).await.into_iter().filter(|buried| *buried == Ok(true)).count();
    assert_eq!(buried, 1);
    assert_eq!(table(views).await.number, seen.number + 1);
}

async fn who_leaves_takes_its_own_row_out(views: &dyn Views) {
    join(views, "a", 2).await;
    let number = table(views).await.number;
    assert_eq!(views.leave("a".into(), 1).await, Ok(()));
    assert_eq!(table(views).await.rows.len(), 1, "an older incarnation took a newer one's row out");
    for _ in 0..2 {
        assert_eq!(views.leave("a".into(), 2).await, Ok(()));
    }
    let after = table(views).await;
    assert_eq!((after.number, after.rows.len()), (number + 1, 0));
}
