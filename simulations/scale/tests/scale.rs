//! What the page rests on: the same numbers each time, placement that keeps its bound and moves little else, a
//! recovery that leaves nothing behind; and the page itself.

use std::sync::LazyLock;

use klatch_actors::membership::view::FULLEST_PERCENT;
use klatch_actors::node::SERVE_HERE_AFTER;
use klatch_protocol::ids::SHARDS;
use klatch_scale::balance::{CELLS, Population, in_cells, one_cluster};
use klatch_scale::bounds::UNBOUNDED;
use klatch_scale::moves::moves;
use klatch_scale::page;
use klatch_scale::recovery::{Loss, Scenario};
use klatch_scale::results::{Results, SEED};

const PAGE: &str = include_str!("../README.md");

static QUICK: LazyLock<Results> = LazyLock::new(Results::quick);

#[test]
fn the_page_says_what_is_computed_now() {
    page::check(PAGE, &page::parts(&QUICK)).unwrap();
}

#[test]
fn a_page_that_says_something_else_is_refused() {
    let ratio = format!("{:.2}", QUICK.shards[0].shards.max_over_mean());
    let other = PAGE.replace(&format!("| {ratio} | 0 |"), "| 1.00 | 0 |");
    assert_ne!(other, PAGE, "there is no such line");
    let refused = page::check(&other, &page::parts(&QUICK)).unwrap_err().to_string();
    assert!(refused.contains("under shards"), "{refused}");
}

#[test]
fn the_same_seed_gives_the_same_numbers_and_another_gives_others() {
    let run = |seed| Scenario::new(30, Loss::ThirdVanished, seed).run();
    assert_eq!(run(SEED), run(SEED));
    assert_ne!(run(SEED).series, run(SEED + 1).series);
}

#[test]
fn no_node_owns_more_than_the_bound() {
    let nobody = Population::new(0, SEED);
    for nodes in [10, 100, 1_000] {
        let shards = one_cluster(&nobody, nodes).shards;
        let bound = (shards.mean * f64::from(FULLEST_PERCENT) / 100.0).ceil();
        assert!(shards.max <= bound, "of {SHARDS} shards one of {nodes} nodes owns {}", shards.max);
        assert_eq!(shards.mean, f64::from(SHARDS) / nodes as f64, "each shard has one owner");
    }
}

#[test]
fn conversations_follow_their_shards_and_cells_share_them_alike() {
    let population = Population::new(200_000, SEED);
    let one = one_cluster(&population, 10);
    assert!((one.conversations.max_over_mean() - one.shards.max_over_mean()).abs() < 0.05);
    let cells = in_cells(&population, CELLS);
    assert!(cells.conversations.max_over_mean() < 1.02, "a cell of one node has a tenth of all");
    assert_eq!(cells.shards.mean, f64::from(SHARDS), "each cell has all shards");
}

#[test]
fn a_join_moves_hardly_more_than_its_share() {
    for nodes in [10, 100] {
        let moves = moves(nodes, u32::from(SHARDS), FULLEST_PERCENT);
        assert!(moves.join.mean <= 1.4 * moves.join_ideal, "{moves:?}");
        assert!(moves.join.max <= 2.2 * moves.join_ideal, "{moves:?}");
    }
}

#[test]
fn nothing_moves_between_nodes_that_stay_where_nobody_is_full() {
    let between = |nodes, bound| moves(nodes, u32::from(SHARDS), bound).between_others.max;
    for nodes in [10, 30, 100] {
        assert_eq!(between(nodes, UNBOUNDED), 0.0);
    }
    assert_eq!(between(10, FULLEST_PERCENT), 0.0, "ten nodes reach the bound");
    assert!(between(100, FULLEST_PERCENT) < 0.01, "a bound moves more than a hundredth");
}

#[test]
fn every_open_turn_of_a_lost_node_goes_on() {
    for loss in [Loss::OneKilled, Loss::OneVanished, Loss::ThirdVanished] {
        let outcome = Scenario::new(30, loss, SEED).run();
        assert!(outcome.open_turns > 0);
        assert_eq!(outcome.recovered, outcome.open_turns, "{loss:?}");
        assert!(outcome.recovery.max >= outcome.last_buried, "the last went on after the last burial");
    }
}

#[test]
fn a_port_that_refuses_is_noticed_sooner_than_silence() {
    let first_buried = |loss| Scenario::new(10, loss, SEED).run().first_buried;
    let (killed, vanished) = (first_buried(Loss::OneKilled), first_buried(Loss::OneVanished));
    assert!((0.7..1.3).contains(&killed), "{killed}");
    assert!((2.7..3.3).contains(&vanished), "{vanished}");
}

#[test]
fn a_message_waits_for_a_new_owner_or_is_served_elsewhere() {
    let outcome = Scenario::new(10, Loss::OneKilled, SEED).run();
    assert!(outcome.messages > 0);
    assert!(outcome.waited.max <= SERVE_HERE_AFTER.as_secs_f64() + 0.1, "{:?}", outcome.waited);
}

#[test]
fn one_recovery_at_once_takes_longer_than_many() {
    let last = |recoveries_at_once| {
        let killed = Scenario::new(10, Loss::OneKilled, SEED);
        Scenario { recoveries_at_once, ..killed }.run().recovery.max
    };
    assert!(last(1) > last(64));
}

#[test]
fn a_table_of_a_thousand_rows_is_more_than_redis_can_do() {
    let outcome = Scenario::new(1_000, Loss::OneKilled, SEED).run();
    assert!(outcome.table_before > 0.99, "{}", outcome.table_before);
    assert!(outcome.beats_per_second < 4_000.0, "beats wait for one another");
}
