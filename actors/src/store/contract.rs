//! What every store must do, as one suite of checks that each implementation runs: the memory store, the embedded
//! one, Redis, the simulator's twin. A check panics with what was expected.
//!
//! The last check drives the store with random operations beside a plain model of it; its panic names the seed.

mod lists;
mod model;
mod samples;

use std::sync::Arc;

use klatch_protocol::state::{ItemRow, Settled};
use klatch_protocol::{ClaimToken, ConversationId, Entry, Event, Position, Shard, State};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use self::samples::{accepted, claim, created, delta, entry, every_event, finished_turn, row, snapshot_entry};
use super::{Compaction, IndexRow, LogEnd, OpenRow, Order, Store, StoreError};

/// Operations of the random check.
pub const OPERATIONS: usize = 10_000;
/// Claimers of one conversation in a race.
const CLAIMERS: usize = 16;
/// A value this large must be kept: requests may be this large, and more.
const BIG_BYTES: usize = 4 << 20;

/// Runs all checks; `make` gives a new and empty store each time.
pub async fn suite(make: impl AsyncFn() -> Arc<dyn Store>) {
    the_fence_refuses_what_is_not_above_the_end(&*make().await).await;
    who_does_not_wait_is_told(make().await).await;
    only_the_first_position_makes_a_log(&*make().await).await;
    each_epoch_has_one_claimer(make().await).await;
    what_was_appended_is_read(&*make().await).await;
    big_values_are_kept(&*make().await).await;
    each_log_keeps_its_order_under_concurrency(make().await).await;
    compaction_leaves_the_snapshot_alone(&*make().await).await;
    compaction_is_refused_unless_the_log_ends_as_expected(&*make().await).await;
    a_hidden_item_stays_as_a_row(&*make().await).await;
    a_deleted_conversation_keeps_what_is_shared(&*make().await).await;
    items_come_in_pages(&*make().await).await;
    lists::items_change_in_the_middle_of_a_long_list(&*make().await).await;
    lists::items_that_come_one_by_one_are_a_list_as_others_are(&*make().await).await;
    lists::pages_begin_and_end_anywhere_in_a_long_list(&*make().await).await;
    lists::turns_end_out_of_order_and_are_dropped(&*make().await).await;
    lists::a_long_list_is_cleared_from_anywhere(&*make().await).await;
    the_index_keeps_its_subjects_apart(&*make().await).await;
    the_index_pages_both_ways(&*make().await).await;
    open_rows_stay_in_their_shard(&*make().await).await;
    an_open_row_is_removed_with_those_before_it_and_none_after(&*make().await).await;
    due_rows_come_oldest_first(&*make().await).await;
    for seed in [1, u64::from_be_bytes(klatch_protocol::ids::random_bytes()[..8].try_into().expect("8 of 16 bytes"))] {
        random_operations(&*make().await, seed, OPERATIONS / 2).await;
    }
}

/// Does the same to the store and to a model of it, from a seed, and compares all answers.
pub async fn random_operations(store: &dyn Store, seed: u64, operations: usize) {
    let mut dice = samples::Dice(seed);
    let mut model = model::Model::default();
    for n in 0..operations {
        let operation = model.next(&mut dice);
        let expected = model.run(&operation);
        let got = operation.run(store).await;
        assert_eq!(got, expected, "seed {seed}, operation {n}: {operation:?}");
    }
}

async fn append(store: &dyn Store, conversation: ConversationId, entry: Entry) {
    let position = entry.position;
    let done = store.append(conversation, Arc::new(entry)).await;
    assert_eq!(done, Ok(()), "an entry at {position:?} was refused");
}

/// A log made by a claim at 1-0, ending there.
async fn begun(store: &dyn Store) -> ConversationId {
    let conversation = ConversationId::random();
    append(store, conversation, claim(1)).await;
    conversation
}

async fn compact(store: &dyn Store, conversation: ConversationId, settled: Settled, below: Option<u64>) {
    let expected = end(store, conversation).await;
    let compaction = compaction(expected, settled, below);
    assert_eq!(store.compact(conversation, compaction).await, Ok(()), "a compaction was refused");
}

fn compaction(expected: LogEnd, settled: Settled, clear_but_items_below: Option<u64>) -> Compaction {
    let snapshot = Arc::new(snapshot_entry(expected, State::default()));
    Compaction { expected, snapshot, settled, clear_but_items_below }
}

async fn end(store: &dyn Store, conversation: ConversationId) -> LogEnd {
    store.log_end(conversation).await.expect("the end can be read").expect("there is a log")
}

async fn items(store: &dyn Store, conversation: ConversationId) -> Vec<ItemRow> {
    store.items(conversation, 0, u64::MAX, Order::Ascending, usize::MAX).await.expect("items can be read")
}

async fn ordinals(
    store: &dyn Store,
    conversation: ConversationId,
    from: u64,
    to: u64,
    order: Order,
    limit: usize,
) -> Vec<u64> {
    let rows = store.items(conversation, from, to, order, limit).await.expect("items can be read");
    rows.into_iter().map(|row| row.ordinal).collect()
}

/// The refusal may name the end that was found; where it does, it is the right one.
fn assert_fenced(done: Result<(), StoreError>, end: Option<Position>, what: &str) {
    match done {
        Err(StoreError::Fenced(None)) => {}
        Err(StoreError::Fenced(named)) => assert_eq!(named, end, "{what}: refused, but with a wrong end"),
        other => panic!("{what}: not refused as fenced but {other:?}"),
    }
}

async fn the_fence_refuses_what_is_not_above_the_end(store: &dyn Store) {
    let conversation = begun(store).await;
    append(store, conversation, claim(2)).await;
    append(store, conversation, delta(2, 1)).await;
    let last = delta(2, 3);
    append(store, conversation, last.clone()).await;
    let found = Some(last.position);
    for (epoch, seq) in [(2, 3), (2, 2), (2, 0), (1, 0), (1, 1), (1, u64::MAX), (0, 9)] {
        let done = store.append(conversation, Arc::new(delta(epoch, seq))).await;
        assert_fenced(done, found, &format!("{epoch}-{seq} after 2-3"));
    }
    assert_eq!(end(store, conversation).await, LogEnd { position: last.position, token: last.token });
    append(store, conversation, delta(2, 300)).await;
    append(store, conversation, claim(256)).await;
    assert_fenced(
        store.append(conversation, Arc::new(delta(255, 7))).await,
        Some(claim(256).position),
        "255-7 after 256-0",
    );
}

async fn who_does_not_wait_is_told(store: Arc<dyn Store>) {
    let conversation = ConversationId::random();
    let told = async |entry: Entry| {
        let (tell, told) = oneshot::channel();
        let done = Box::new(|outcome| drop(tell.send(outcome)));
        store.clone().append_then(conversation, Arc::new(entry), done);
        told.await.expect("the outcome is told")
    };
    assert_fenced(told(delta(1, 1)).await, None, "1-1 where there is no log");
    let claimed = claim(1);
    let end = Some(claimed.position);
    assert_eq!(told(claimed.clone()).await, Ok(()), "a claim was refused");
    assert_fenced(told(claimed.clone()).await, end, "1-0 after 1-0");
    let next = entry(1, 1, claimed.token, delta(1, 1).events);
    assert_eq!(told(next.clone()).await, Ok(()), "an entry was refused");
    assert_fenced(told(next).await, Some(Position { epoch: 1, seq: 1 }), "1-1 after 1-1");
    assert_eq!(store.log(conversation).await.expect("the log can be read").entries.len(), 2);
}

async fn only_the_first_position_makes_a_log(store: &dyn Store) {
    let conversation = ConversationId::random();
    assert_eq!(store.log_end(conversation).await, Ok(None));
    assert_eq!(store.log(conversation).await, Ok(super::Log::default()));
    for (epoch, seq) in [(0, 0), (1, 1), (2, 0), (2, 5)] {
        let done = store.append(conversation, Arc::new(delta(epoch, seq))).await;
        assert_fenced(done, None, &format!("{epoch}-{seq} where there is no log"));
    }
    let refused = compaction(LogEnd { position: claim(1).position, token: ClaimToken(1) }, Settled::default(), None);
    assert_fenced(store.compact(conversation, refused).await, None, "compaction where there is no log");
    assert_eq!(store.log_end(conversation).await, Ok(None), "a refused entry left something");
    append(store, conversation, claim(1)).await;
    assert_fenced(store.append(conversation, Arc::new(claim(1))).await, Some(claim(1).position), "a second 1-0");
}

async fn each_epoch_has_one_claimer(store: Arc<dyn Store>) {
    let conversation = ConversationId::random();
    for epoch in 1..=20 {
        let mut race = JoinSet::new();
        for _ in 0..CLAIMERS {
            let (store, mine) = (store.clone(), Arc::new(claim(epoch)));
            race.spawn(async move { (mine.token, store.append(conversation, mine).await) });
        }
        let results = race.join_all().await;
        let winners: Vec<ClaimToken> =
            results.iter().filter(|(_, done)| done.is_ok()).map(|(token, _)| *token).collect();
        assert_eq!(winners.len(), 1, "claimers who won epoch {epoch}: {results:?}");
        assert_eq!(end(&*store, conversation).await.token, winners[0], "the end is not the winner's");
    }
    let log = store.log(conversation).await.expect("the log can be read");
    assert_eq!(log.entries.len(), 20, "losers left entries");
}

async fn what_was_appended_is_read(store: &dyn Store) {
    let conversation = begun(store).await;
    let mut expected = store.log(conversation).await.expect("the log can be read").entries;
    let token = expected[0].token;
    for (seq, event) in every_event().into_iter().enumerate() {
        let entry = entry(1, seq as u64 + 1, token, vec![event]);
        expected.push(entry.clone());
        append(store, conversation, entry).await;
    }
    let together = entry(1, expected.len() as u64, token, every_event());
    expected.push(together.clone());
    append(store, conversation, together).await;
    let log = store.log(conversation).await.expect("the log can be read");
    assert_eq!(log.entries, expected);
    let other = begun(store).await;
    assert_eq!(store.log(other).await.expect("the log can be read").entries.len(), 1, "logs are mixed up");
}

async fn big_values_are_kept(store: &dyn Store) {
    let conversation = begun(store).await;
    let token = end(store, conversation).await.token;
    let item = samples::item(0, &"é".repeat(BIG_BYTES / 2));
    let big = entry(1, 1, token, vec![Event::ItemsAdded { items: vec![item.clone()], key: None }]);
    append(store, conversation, big.clone()).await;
    let log = store.log(conversation).await.expect("the log can be read");
    assert!(log.tail_bytes > BIG_BYTES, "the tail is larger than {}", log.tail_bytes);
    assert_eq!(log.entries[1], big);
    compact(store, conversation, Settled { items: vec![item.into()], ..Settled::default() }, None).await;
    let Some(Event::ItemsAdded { items: big, .. }) = big.events.into_iter().next() else { unreachable!("made above") };
    assert_eq!(items(store, conversation).await, big.into_iter().map(ItemRow::from).collect::<Vec<_>>());
}

async fn each_log_keeps_its_order_under_concurrency(store: Arc<dyn Store>) {
    const CONVERSATIONS: usize = 100;
    const ENTRIES: u64 = 10;
    let mut writers = JoinSet::new();
    for _ in 0..CONVERSATIONS {
        let store = store.clone();
        writers.spawn(async move {
            let conversation = begun(&*store).await;
            for seq in 1..ENTRIES {
                append(&*store, conversation, delta(1, seq)).await;
            }
            conversation
        });
    }
    for conversation in writers.join_all().await {
        let log = store.log(conversation).await.expect("the log can be read");
        let positions: Vec<u64> = log.entries.iter().map(|entry| entry.position.seq).collect();
        assert_eq!(positions, (0..ENTRIES).collect::<Vec<_>>());
    }
}

async fn compaction_leaves_the_snapshot_alone(store: &dyn Store) {
    let conversation = begun(store).await;
    let token = end(store, conversation).await.token;
    append(store, conversation, entry(1, 1, token, vec![created()])).await;
    append(store, conversation, entry(1, 2, token, vec![accepted(0)])).await;
    let tail = store.log(conversation).await.expect("the log can be read").tail_bytes;
    assert!(tail > 0, "a log without snapshot is all tail");
    let (turn, dropped) = (finished_turn(0), finished_turn(1));
    let settled =
        Settled { items: vec![row(0, "in"), row(1, "out")], turns: vec![turn.clone(), dropped], ..Settled::default() };
    let before = end(store, conversation).await;
    let snapshot = snapshot_entry(before, State { next_item: 7, ..State::default() });
    let first = Compaction { snapshot: Arc::new(snapshot.clone()), ..compaction(before, settled.clone(), None) };
    assert_eq!(store.compact(conversation, first).await, Ok(()), "a compaction was refused");
    let log = store.log(conversation).await.expect("the log can be read");
    assert_eq!((log.entries, log.tail_bytes), (vec![snapshot.clone()], 0));
    assert_eq!(end(store, conversation).await, LogEnd { position: snapshot.position, token });
    assert_eq!(items(store, conversation).await, settled.items);
    assert_eq!(store.turn(conversation, 0).await, Ok(Some(turn)));
    assert_eq!(store.item_of_client(conversation, "client-1".into()).await, Ok(Some(1)));
    assert_eq!(store.item_of_client(conversation, "client-".into()).await, Ok(None));

    append(store, conversation, entry(1, 4, token, vec![accepted(1)])).await;
    let log = store.log(conversation).await.expect("the log can be read");
    assert_eq!(log.entries.len(), 2, "the tail is lost");
    assert_eq!(log.entries[0], snapshot, "the snapshot is lost");
    assert!(log.tail_bytes > 0, "the tail is not counted");
    compact(store, conversation, Settled { drop_turns: vec![1], ..Settled::default() }, None).await;
    assert_eq!(store.turn(conversation, 1).await, Ok(None), "a dropped turn stays");
    let stale = delta(1, 5);
    assert_fenced(
        store.append(conversation, Arc::new(stale)).await,
        Some(Position { epoch: 1, seq: 5 }),
        "the snapshot's place",
    );
}

async fn compaction_is_refused_unless_the_log_ends_as_expected(store: &dyn Store) {
    let conversation = begun(store).await;
    append(store, conversation, delta(1, 1)).await;
    append(store, conversation, delta(1, 2)).await;
    let right = end(store, conversation).await;
    let before = store.log(conversation).await;
    let earlier = LogEnd { position: Position { epoch: 1, seq: 1 }, ..right };
    let later = LogEnd { position: Position { epoch: 1, seq: 3 }, ..right };
    let foreign = LogEnd { token: ClaimToken(right.token.0 ^ 1), ..right };
    for wrong in [earlier, later, foreign] {
        let settled = Settled { items: vec![row(0, "no")], turns: vec![finished_turn(0)], ..Settled::default() };
        let done = store.compact(conversation, compaction(wrong, settled, Some(0))).await;
        assert_fenced(done, Some(right.position), &format!("compaction of {wrong:?}"));
    }
    assert_eq!(store.log(conversation).await, before, "a refused compaction changed the log");
    assert_eq!(items(store, conversation).await, [], "a refused compaction left items");
    assert_eq!(store.turn(conversation, 0).await, Ok(None), "a refused compaction left a turn");
    assert_eq!(store.item_of_client(conversation, "client-0".into()).await, Ok(None));
}

async fn a_hidden_item_stays_as_a_row(store: &dyn Store) {
    let conversation = begun(store).await;
    let rows = vec![row(2, "kept"), row(3, "dropped"), row(4, "seen"), row(5, "hidden at once")];
    let settled = Settled { items: rows.clone(), hide: vec![(5, 3, false)], ..Settled::default() };
    compact(store, conversation, settled, None).await;
    let hide = vec![(0, 4, true), (2, 5, true), (3, 6, false), (5, 9, true)];
    compact(store, conversation, Settled { hide, ..Settled::default() }, None).await;
    let mask = ItemRow { ordinal: 0, client_id: None, body: None, hidden_at: Some(4) };
    let expected = vec![
        mask,
        ItemRow { hidden_at: Some(5), ..rows[0].clone() },
        ItemRow { hidden_at: Some(6), body: None, ..rows[1].clone() },
        rows[2].clone(),
        ItemRow { hidden_at: Some(3), body: None, ..rows[3].clone() },
    ];
    assert_eq!(items(store, conversation).await, expected);
    assert_eq!(store.item_of_client(conversation, "client-3".into()).await, Ok(Some(3)));
}

async fn a_deleted_conversation_keeps_what_is_shared(store: &dyn Store) {
    let (conversation, other) = (begun(store).await, begun(store).await);
    let settled = || Settled {
        items: (0..6).map(|n| row(n, "text")).collect(),
        turns: vec![finished_turn(0)],
        ..Settled::default()
    };
    compact(store, conversation, settled(), None).await;
    compact(store, other, settled(), None).await;
    let last = Settled {
        items: vec![row(6, "late")],
        hide: vec![(1, 9, true)],
        turns: vec![finished_turn(1)],
        ..Settled::default()
    };
    compact(store, conversation, last, Some(3)).await;
    assert_eq!(ordinals(store, conversation, 0, u64::MAX, Order::Ascending, 100).await, [0, 1, 2]);
    assert_eq!(items(store, conversation).await[1].hidden_at, Some(9));
    for turn in 0..2 {
        assert_eq!(store.turn(conversation, turn).await, Ok(None), "turn {turn} of a deleted conversation");
    }
    assert_eq!(store.item_of_client(conversation, "client-2".into()).await, Ok(Some(2)));
    assert_eq!(store.item_of_client(conversation, "client-4".into()).await, Ok(None));
    assert_eq!(store.log(conversation).await.expect("the log can be read").entries.len(), 1, "no tombstone is left");
    assert_eq!(items(store, other).await.len(), 6, "another conversation was cleared");
    assert!(store.turn(other, 0).await.expect("turns can be read").is_some(), "another conversation's turn is gone");
    compact(store, conversation, Settled::default(), Some(0)).await;
    assert_eq!(items(store, conversation).await, []);
}

async fn items_come_in_pages(store: &dyn Store) {
    let conversation = begun(store).await;
    // Past 255 and 65,535, so that an order of bytes that is not an order of numbers shows.
    let all: Vec<u64> = (0..400).map(|n| n * 257).collect();
    let rows = all.iter().map(|ordinal| row(*ordinal, "text")).collect();
    compact(store, conversation, Settled { items: rows, ..Settled::default() }, None).await;
    let page = async |from, to, order, limit| ordinals(store, conversation, from, to, order, limit).await;
    assert_eq!(page(0, u64::MAX, Order::Ascending, usize::MAX).await, all);
    let down: Vec<u64> = all.iter().rev().copied().collect();
    assert_eq!(page(0, u64::MAX, Order::Descending, 1_000).await, down);
    assert_eq!(page(1, 772, Order::Ascending, 10).await, [257, 514, 771]);
    assert_eq!(page(257, 771, Order::Descending, 10).await, [514, 257]);
    assert_eq!(page(0, u64::MAX, Order::Descending, 1).await, down[..1]);
    assert_eq!(page(0, u64::MAX, Order::Ascending, 0).await, [0; 0]);
    assert_eq!(page(5, 5, Order::Ascending, 9).await, [0; 0]);
    assert_eq!(page(900, 5, Order::Descending, 9).await, [0; 0]);
    let mut seen = Vec::new();
    while let Some(last) = page(seen.last().map_or(0, |last| last + 1), u64::MAX, Order::Ascending, 37).await.last() {
        seen.extend(page(seen.last().map_or(0, |last| last + 1), last + 1, Order::Ascending, 37).await);
    }
    assert_eq!(seen, all);
    assert_eq!(ordinals(store, ConversationId::random(), 0, u64::MAX, Order::Ascending, 9).await, [0; 0]);
}

async fn the_index_keeps_its_subjects_apart(store: &dyn Store) {
    let names = ["a", "b", "ab", "a/b", "a:b", "a\0", "a\0b", "", "\0", "{a}", "a*", "ä", "a\u{10ffff}"];
    let pairs: Vec<(&str, &str)> = names.iter().flat_map(|t| names.iter().map(|s| (*t, *s))).collect();
    for (n, (tenant, subject)) in pairs.iter().enumerate() {
        let row = index_row(tenant, subject, 5, ConversationId([n as u8; 16]));
        assert_eq!(store.index_add(row).await, Ok(()));
    }
    for (n, (tenant, subject)) in pairs.iter().enumerate() {
        let rows = store.index((*tenant).into(), (*subject).into(), None, Order::Ascending, 10).await;
        let expected = vec![index_row(tenant, subject, 5, ConversationId([n as u8; 16]))];
        assert_eq!(rows, Ok(expected), "rows of tenant {tenant:?}, subject {subject:?}");
    }
}

fn index_row(tenant: &str, subject: &str, created_at_ms: u64, conversation: ConversationId) -> IndexRow {
    IndexRow { tenant: tenant.into(), subject: subject.into(), created_at_ms, conversation }
}

async fn the_index_pages_both_ways(store: &dyn Store) {
    let rows: Vec<IndexRow> =
        (0..20u64).map(|n| index_row("t", "s", 250 + n / 2, ConversationId([n as u8; 16]))).collect();
    for row in rows.iter().rev().chain(&rows[..3]) {
        assert_eq!(store.index_add(row.clone()).await, Ok(()));
    }
    let page = async |after, order, limit| {
        store.index("t".into(), "s".into(), after, order, limit).await.expect("the index can be read")
    };
    let down: Vec<IndexRow> = rows.iter().rev().cloned().collect();
    for (order, expected) in [(Order::Ascending, &rows), (Order::Descending, &down)] {
        let (mut seen, mut after): (Vec<IndexRow>, _) = (Vec::new(), None);
        loop {
            let next = page(after, order, 3).await;
            assert!(next.len() <= 3, "a page is larger than its limit");
            let Some(last) = next.last() else { break };
            after = Some((last.created_at_ms, last.conversation));
            seen.extend(next);
        }
        assert_eq!(&seen, expected, "{order:?}");
    }
    let removed = rows[4].clone();
    for _ in 0..2 {
        assert_eq!(store.index_remove(removed.clone()).await, Ok(()));
    }
    let left = page(None, Order::Ascending, 100).await;
    assert!(left.len() == 19 && !left.contains(&removed), "{removed:?} was not removed alone");
    let behind_removed = page(Some((removed.created_at_ms, removed.conversation)), Order::Ascending, 1).await;
    assert_eq!(behind_removed, rows[5..6], "a page begins behind a row that is gone");
}

async fn open_rows_stay_in_their_shard(store: &dyn Store) {
    let row = |n: u8| OpenRow { conversation: ConversationId([n; 16]), epoch: u64::from(n) };
    let rows: Vec<OpenRow> = [0, 1, 9, 0xfe, 0xff].map(row).into();
    for shard in [Shard(0), Shard(1), Shard(255), Shard(256), Shard(1023)] {
        for row in rows.iter().rev().chain(&rows[..2]) {
            assert_eq!(store.open_add(shard, *row).await, Ok(()));
        }
    }
    for _ in 0..2 {
        assert_eq!(store.open_remove(Shard(1), rows[2]).await, Ok(()));
    }
    let page = async |shard, after, limit| store.open(Shard(shard), after, limit).await.expect("it can be read");
    assert_eq!(page(0, None, 100).await, rows);
    assert_eq!(page(255, None, 2).await, rows[..2]);
    assert_eq!(page(256, Some(rows[1]), 2).await, rows[2..4]);
    assert_eq!(page(1023, Some(rows[4]), 2).await, []);
    assert_eq!(page(1, None, 100).await, [rows[0], rows[1], rows[3], rows[4]]);
    assert_eq!(page(2, None, 100).await, []);
}

async fn an_open_row_is_removed_with_those_before_it_and_none_after(store: &dyn Store) {
    let row = |id: u8, epoch| OpenRow { conversation: ConversationId([id; 16]), epoch };
    let shard = Shard(7);
    for row in [row(1, 1), row(1, 2), row(1, 3), row(1, 256), row(1, u64::MAX), row(2, 1), row(0, 5)] {
        assert_eq!(store.open_add(shard, row).await, Ok(()));
    }
    assert_eq!(store.open_remove(shard, row(1, 3)).await, Ok(()));
    let left = [row(0, 5), row(1, 256), row(1, u64::MAX), row(2, 1)];
    assert_eq!(store.open(shard, None, 100).await, Ok(left.to_vec()));
    assert_eq!(store.open(shard, Some(row(1, 256)), 1).await, Ok(vec![row(1, u64::MAX)]));
    assert_eq!(store.open_remove(shard, row(1, u64::MAX)).await, Ok(()));
    assert_eq!(store.open(shard, None, 100).await, Ok(vec![row(0, 5), row(2, 1)]));
}

async fn due_rows_come_oldest_first(store: &dyn Store) {
    let row = |at: u64, id: u8| (at, ConversationId([id; 16]));
    let rows = [row(1, 9), row(255, 3), row(256, 0), row(256, 0xff), row(70_000, 1)];
    for (at, conversation) in rows.iter().rev().chain(&rows[..1]) {
        assert_eq!(store.due_add(*at, *conversation).await, Ok(()));
    }
    assert_eq!(store.due(0, 10).await, Ok(vec![]));
    assert_eq!(store.due(256, 10).await, Ok(rows[..4].to_vec()));
    assert_eq!(store.due(u64::MAX, 3).await, Ok(rows[..3].to_vec()));
    for _ in 0..2 {
        assert_eq!(store.due_remove(255, rows[1].1).await, Ok(()));
    }
    assert_eq!(store.due(255, 10).await, Ok(rows[..1].to_vec()));
}

#[cfg(test)]
mod tests;
