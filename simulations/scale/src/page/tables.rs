//! The tables, each a part of the page. A row stands for itself, so that quick results are rows of the full ones.

use klatch_actors::Limits;
use klatch_actors::membership::decide::{BEAT_EVERY_MS, DEAD_AFTER_MS, REFUSED_AFTER_MS};
use klatch_protocol::ids::SHARDS;

use super::text::{ratio, table, thousands};
use crate::balance::{Balance, SKEWS};
use crate::bounds::{Bounded, UNBOUNDED, WorstJoin};
use crate::inputs;
use crate::recovery::{Loss, Outcome};
use crate::results::{CELL_NODES, Populated, Results};

pub fn load() -> String {
    let open = inputs::TURNS_PER_NODE * inputs::TURN_SECS;
    format!(
        "For each node on average {} turns/s of {} s each, so {open} open turns that append {} times a second; {} \
         conversations in memory; one Redis primary for {} nodes, of which this load takes {:.0} %. The runtime's own: {} \
         shards, a beat every {} ms, dead after {} ms ({} where the port refuses), {} recoveries at once.\n",
        inputs::TURNS_PER_NODE,
        inputs::TURN_SECS,
        inputs::APPENDS_PER_OPEN_TURN,
        thousands(inputs::IN_MEMORY_PER_NODE as usize),
        inputs::NODES_PER_PRIMARY,
        100.0 * inputs::streaming_share(inputs::NODES_PER_PRIMARY),
        thousands(usize::from(SHARDS)),
        BEAT_EVERY_MS,
        DEAD_AFTER_MS,
        REFUSED_AFTER_MS,
        Limits::default().recoveries_at_once,
    )
}

pub fn shards(results: &Results) -> String {
    let row = |balance: &Balance| {
        let shards = &balance.shards;
        let numbers = [shards.p1, shards.p50, shards.p99, shards.max].map(|number| format!("{number:.0}"));
        let mut row = vec![thousands(balance.nodes), format!("{:.2}", shards.mean)];
        row.extend(numbers);
        row.extend([format!("{:.2}", shards.max_over_mean()), balance.without_shards.to_string()]);
        row
    };
    table(
        &["nodes", "mean", "p1", "p50", "p99", "max", "max/mean", "nodes without any"],
        results.shards.iter().map(row),
    )
}

pub fn bounds(results: &Results) -> String {
    let rows = results.bounds.iter().map(|bounded| {
        let Bounded { nodes, shards, fullest_percent, owned, without_shards, moves } = bounded;
        let bound = match *fullest_percent {
            UNBOUNDED => "none".to_owned(),
            percent => ratio(f64::from(percent) / 100.0),
        };
        vec![
            thousands(*nodes),
            thousands(*shards as usize),
            bound,
            ratio(owned.max_over_mean()),
            without_shards.to_string(),
            ratio(moves.join.mean / moves.join_ideal),
            ratio(moves.leave.mean / moves.leave_ideal),
            ratio(moves.between_others.mean / moves.leave_ideal),
        ]
    });
    let heads = [
        "nodes",
        "shards",
        "bound",
        "max/mean",
        "nodes without any",
        "join moves, × ideal",
        "leave moves, × ideal",
        "of it between nodes that stay",
    ];
    let WorstJoin { nodes, moved, ideal } = results.worst_join;
    let worst = format!(
        "\nThe worst join up to {CELL_NODES} nodes is that of one more than {nodes}, where the bound steps down by one shard: {:.2} % \
         move, and {:.2} % must.\n",
        100.0 * moved,
        100.0 * ideal,
    );
    table(&heads, rows) + &worst
}

pub fn turns(populated: &Populated) -> String {
    let rows = populated.clusters.iter().map(|balance| {
        let mut row = vec![thousands(balance.nodes), thousands(balance.conversations.mean as usize)];
        row.push(format!("{:.2}", balance.conversations.max_over_mean()));
        row.extend(balance.turns.iter().map(|turns| format!("{:.2}", turns.max_over_mean())));
        row
    });
    let heads: Vec<String> = SKEWS.iter().map(|skew| format!("turns, s = {skew}")).collect();
    let heads = ["nodes", "conversations of a node", "max/mean"].into_iter().chain(heads.iter().map(String::as_str));
    let tops: Vec<String> = populated
        .top_share
        .iter()
        .zip(SKEWS)
        .map(|(share, skew)| format!("{:.3} % at s = {skew}", 100.0 * share))
        .collect();
    let tops = format!("\nThe most used conversation has of all turns {}.\n", tops.join(", "));
    table(&heads.collect::<Vec<_>>(), rows) + &tops
}

pub fn moves(results: &Results) -> String {
    let percent = |share: f64| format!("{:.2} %", 100.0 * share);
    let rows = results.moves.iter().map(|moves| {
        vec![
            thousands(moves.nodes),
            percent(moves.join_ideal),
            percent(moves.join.mean),
            percent(moves.join.max),
            percent(moves.leave_ideal),
            percent(moves.leave.mean),
            percent(moves.leave.max),
            percent(moves.between_others.mean),
            percent(moves.between_others.max),
        ]
    });
    let heads = [
        "nodes",
        "join: ideal",
        "mean",
        "most",
        "leave: ideal",
        "mean",
        "most",
        "between nodes that stay: mean",
        "most",
    ];
    table(&heads, rows)
}

pub fn beats(results: &Results) -> String {
    let rows = results.meshes.iter().map(|mesh| {
        vec![
            thousands(mesh.nodes),
            thousands(mesh.beats_per_second as usize),
            format!("{:.1} %", 100.0 * mesh.beats_of_primary),
            format!("{:.1}", mesh.beats_megabytes_per_second),
            format!("{:.1}", mesh.change_ms),
            format!("{:.1}", mesh.change_megabytes),
            thousands(mesh.sessions),
            format!("{:.1}", mesh.session_megabytes_per_node),
            format!("{:.2} %", 100.0 * mesh.core_per_node),
            thousands(mesh.connections_per_primary),
        ]
    });
    let heads = [
        "nodes",
        "beats/s",
        "of the table's primary",
        "MB/s",
        "a new view, ms of it",
        "MB",
        "sessions in all",
        "MB per node",
        "of a node's core",
        "connections per primary",
    ];
    table(&heads, rows)
}

fn named(outcome: &Outcome) -> String {
    match outcome.scenario.loss {
        Loss::OneKilled => "1, killed".to_owned(),
        Loss::OneVanished => "1, vanished".to_owned(),
        Loss::ThirdVanished => format!("{}, vanished", outcome.lost),
    }
}

pub fn deaths(results: &Results) -> String {
    let rows = results.outcomes.iter().map(|outcome| {
        vec![
            thousands(outcome.scenario.nodes),
            named(outcome),
            thousands(outcome.open_turns),
            format!("{:.2}", outcome.first_buried),
            format!("{:.2}", outcome.last_buried),
            format!("{:.2}", outcome.recovery.p50),
            format!("{:.2}", outcome.recovery.max),
            thousands(outcome.messages),
            format!("{:.0}", 1e3 * outcome.waited.p50),
            format!("{:.2}", outcome.waited.p99),
            format!("{:.2}", outcome.stood_still),
        ]
    });
    let heads = [
        "nodes",
        "lost",
        "open turns",
        "first buried, s",
        "last, s",
        "turns go on: p50, s",
        "last, s",
        "messages that activate",
        "waited: p50, ms",
        "p99, s",
        "a living counter stood still, s",
    ];
    table(&heads, rows)
}

pub fn herd(results: &Results) -> String {
    let rows = results.outcomes.iter().map(|outcome| {
        let percent = |share: f64| format!("{:.0} %", 100.0 * share);
        vec![
            thousands(outcome.scenario.nodes),
            named(outcome),
            thousands(outcome.claims_peak as usize),
            thousands(outcome.log_reads_peak as usize),
            thousands(outcome.open_reads_peak as usize),
            thousands(outcome.view_reads_peak as usize),
            format!("{:.0}", outcome.megabytes_peak),
            percent(outcome.table_before),
            percent(outcome.table_peak),
            outcome.logs_peak.map_or("–".to_owned(), percent),
            format!("{:.2}", outcome.beat_ms.p50),
            format!("{:.2}", outcome.beat_after_ms.p99),
        ]
    });
    let heads = [
        "nodes",
        "lost",
        "claims/s",
        "logs/s",
        "`open` sets/s",
        "tables/s",
        "MB/s",
        "table's primary: before",
        "after",
        "busiest other",
        "a beat: before, p50 ms",
        "after, p99 ms",
    ];
    table(&heads, rows)
}

pub fn limits(results: &Results) -> String {
    let rows = results.limited.iter().map(|outcome| {
        vec![
            thousands(outcome.scenario.recoveries_at_once),
            format!("{:.2}", outcome.recovery.p50),
            format!("{:.2}", outcome.recovery.max),
            thousands(outcome.claims_peak as usize),
            outcome.logs_peak.map_or("–".to_owned(), |share| format!("{:.1} %", 100.0 * share)),
        ]
    });
    let heads = ["`recoveries_at_once`", "turns go on: p50, s", "last, s", "claims/s", "busiest primary of logs"];
    table(&heads, rows)
}
