//! What follows from all the tables together: the sentences at the top, and one large cluster against cells. None where
//! the results are not complete.

use klatch_actors::membership::decide::BEAT_EVERY_MS;
use klatch_actors::membership::view::FULLEST_PERCENT;
use klatch_protocol::ids::SHARDS;

use super::text::{percent, ratio, table, thousands};
use crate::bounds::{Bounded, UNBOUNDED};
use crate::mesh;
use crate::recovery::Loss;
use crate::results::{CELL_NODES, Populated, Results, WHOLE_NODES};

pub fn cells(results: &Results, populated: &Populated) -> Option<String> {
    let whole = |loss| results.outcome(WHOLE_NODES, loss);
    let cell = |loss| results.outcome(CELL_NODES, loss);
    let (one, third) = (whole(Loss::OneVanished)?, whole(Loss::ThirdVanished)?);
    let (cell_one, cell_third) = (cell(Loss::OneVanished)?, cell(Loss::ThirdVanished)?);
    let balance = populated.clusters.iter().find(|balance| balance.nodes == WHOLE_NODES)?;
    let mesh = |nodes| mesh::mesh(nodes);
    let cells = (WHOLE_NODES / CELL_NODES) as f64;
    let row = |what: &str, whole: String, cells: String| vec![what.to_owned(), whole, cells];
    let per_cell = |number: f64| {
        format!("{} in each, {} in all", thousands(number as usize), thousands((cells * number) as usize))
    };
    let rows = [
        row(
            "shards per node: max/mean",
            ratio(balance.shards.max_over_mean()),
            ratio(populated.cells.shards.max_over_mean()),
        ),
        row("nodes without any shard", balance.without_shards.to_string(), populated.cells.without_shards.to_string()),
        row(
            "conversations per node: max/mean",
            ratio(balance.conversations.max_over_mean()),
            ratio(populated.cells.conversations.max_over_mean()),
        ),
        row(
            "turns per node, Zipf s = 0.5: max/mean",
            ratio(balance.turns[0].max_over_mean()),
            ratio(populated.cells.turns[0].max_over_mean()),
        ),
        row(
            "sessions between nodes",
            thousands(mesh(WHOLE_NODES).sessions),
            thousands((cells as usize) * mesh(CELL_NODES).sessions),
        ),
        row(
            "of a node's core, for its peers",
            percent(mesh(WHOLE_NODES).core_per_node),
            percent(mesh(CELL_NODES).core_per_node),
        ),
        row(
            "beats, of a table's primary",
            percent(mesh(WHOLE_NODES).beats_of_primary),
            percent(mesh(CELL_NODES).beats_of_primary),
        ),
        row("a beat takes, p50, ms", ratio(one.beat_ms.p50), ratio(cell_one.beat_ms.p50)),
        row(
            "a new view, ms of a table's primary",
            ratio(mesh(WHOLE_NODES).change_ms),
            ratio(mesh(CELL_NODES).change_ms),
        ),
        row("1 vanished: its last turn goes on after, s", ratio(one.recovery.max), ratio(cell_one.recovery.max)),
        row("a third vanished: last burial, s", ratio(third.last_buried), ratio(cell_third.last_buried)),
        row(
            "turns go on, p50 and last, s",
            format!("{:.2}, {:.2}", third.recovery.p50, third.recovery.max),
            format!("{:.2}, {:.2}", cell_third.recovery.p50, cell_third.recovery.max),
        ),
        row("claims/s at most", thousands(third.claims_peak as usize), per_cell(cell_third.claims_peak)),
        row("logs read/s at most", thousands(third.log_reads_peak as usize), per_cell(cell_third.log_reads_peak)),
        row("MB/s out of Redis at most", thousands(third.megabytes_peak as usize), per_cell(cell_third.megabytes_peak)),
    ];
    Some(table(&["", "one cluster of 1,000", "10 cells of 100"], rows))
}

pub fn conclusions(results: &Results, populated: &Populated) -> Option<String> {
    let third = |nodes| results.outcome(nodes, Loss::ThirdVanished);
    let (cell, large, whole) = (third(CELL_NODES)?, third(300)?, third(WHOLE_NODES)?);
    let shards = |nodes: usize| results.shards.iter().find(|balance| balance.nodes == nodes);
    let (ten, hundred, thousand) = (shards(10)?, shards(CELL_NODES)?, shards(WHOLE_NODES)?);
    let otherwise = |nodes: usize, shards: u32, bound: u32| {
        let is_it = |it: &&Bounded| (it.nodes, it.shards, it.fullest_percent) == (nodes, shards, bound);
        results.bounds.iter().find(is_it).map(|it| it.owned.max_over_mean())
    };
    let moves = results.moves.iter().find(|moves| moves.nodes == CELL_NODES)?;
    let killed = results.outcome(CELL_NODES, Loss::OneKilled)?;
    let still = results.outcome(WHOLE_NODES, Loss::OneVanished)?;
    let beat_load = mesh::mesh(WHOLE_NODES);
    Some(format!(
        "- **Up to about 100 nodes one cluster is sound.** Beats of {cell_nodes} nodes take {cell_beats} of the primary that \
         holds the table; a killed node's turns go on after {killed_p50:.2} s (p50; last {killed_max:.2}), and no other \
         primary is ever above {logs:.0} %.\n\
         - **No node has much more than its share.** The fullest has {ten:.2} times the mean at 10 nodes, {hundred:.2} at 100, \
         {thousand:.2} at 1,000, where {without} nodes own nothing; without a bound it would be {free_hundred:.2} at 100 \
         and {free_thousand:.2} at 1,000. The price: a join of one more than 100 moves {join:.2} % of the shards, where \
         {join_ideal:.2} % must. With 4,096 shards it would be {more_hundred:.2} at 100 and {more_thousand:.2} at 1,000: \
         {shards} are enough for the clusters that the other limits allow.\n\
         - **A third is buried almost at once.** All that stand still go in one view, up to half of the table; whoever was a \
         part of a beat later goes in the next, a beat ({beat} ms) behind. Losing a third of 100 nodes takes {cell_last:.1} s until \
         the last is buried, of 300 nodes {large_last:.1} s, of 1,000 nodes {whole_last:.1} s; detection itself is 3 s, and \
         the rest at 1,000 nodes is a Redis that is late.\n\
         - **At 1,000 nodes heartbeats alone saturate Redis.** {beats} beats/s of a table of 1,000 rows want {wanted} of \
         one core and answer {megabytes:.0} MB/s; {made} are made, and one takes {took:.0} ms. They grow with n²: a \
         tenth of the primary is reached at {tenth} nodes, half at {half}.\n\
         - **The herd of claims is what Redis can take.** A third of 100 nodes: {open} open turns, at most {claims} claims/s and \
         {reads} logs/s, over 10 primaries, none busier than {herd:.0} % in any tenth of a second. Their answers come at \
         once too: {answers:.0} MB/s, which the links of the primaries must carry.\n\
         - **Beyond 100 nodes: cells.** 10 cells of 100 end a loss of a third in {cell_max:.1} s instead of {whole_max:.1}, need a \
         tenth of the sessions and of the table, and have ten times the shards: {cells_ratio:.2} times the mean instead of {thousand:.2}.\n",
        cell_nodes = CELL_NODES,
        cell_beats = percent(mesh::mesh(CELL_NODES).beats_of_primary),
        killed_p50 = killed.recovery.p50,
        killed_max = killed.recovery.max,
        logs = 100.0 * results.outcomes.iter().filter_map(|outcome| outcome.logs_peak).fold(0.0, f64::max),
        shards = thousands(usize::from(SHARDS)),
        ten = ten.shards.max_over_mean(),
        hundred = hundred.shards.max_over_mean(),
        thousand = thousand.shards.max_over_mean(),
        without = thousand.without_shards,
        free_hundred = otherwise(CELL_NODES, u32::from(SHARDS), UNBOUNDED)?,
        free_thousand = otherwise(WHOLE_NODES, u32::from(SHARDS), UNBOUNDED)?,
        more_hundred = otherwise(CELL_NODES, 4_096, FULLEST_PERCENT)?,
        more_thousand = otherwise(WHOLE_NODES, 4_096, FULLEST_PERCENT)?,
        join = 100.0 * moves.join.mean,
        join_ideal = 100.0 * moves.join_ideal,
        beat = BEAT_EVERY_MS,
        cell_last = cell.last_buried,
        large_last = large.last_buried,
        whole_last = whole.last_buried,
        beats = thousands(beat_load.beats_per_second as usize),
        wanted = percent(beat_load.beats_of_primary),
        megabytes = beat_load.beats_megabytes_per_second,
        made = thousands(still.beats_per_second as usize),
        took = still.beat_ms.p50,
        tenth = mesh::largest(0.1),
        half = mesh::largest(0.5),
        open = thousands(cell.open_turns),
        claims = thousands(cell.claims_peak as usize),
        reads = thousands(cell.log_reads_peak as usize),
        herd = 100.0 * cell.logs_peak?,
        answers = cell.megabytes_peak,
        cell_max = cell.recovery.max,
        whole_max = whole.recovery.max,
        cells_ratio = populated.cells.shards.max_over_mean(),
    ))
}
