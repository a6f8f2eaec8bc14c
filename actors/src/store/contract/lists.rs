//! Lists that are long, and change in the middle: a store may keep many rows together, and nobody sees it.

use std::collections::BTreeMap;
use std::ops::Range;

use klatch_protocol::state::{ItemRow, Settled};
use klatch_protocol::{ConversationId, Turn};

use super::super::{Order, Store, hidden};
use super::samples::{long_turn, row};
use super::{begun, compact, items};

/// A list as it should be, beside that of the store.
struct Both<'a> {
    store: &'a dyn Store,
    conversation: ConversationId,
    items: BTreeMap<u64, ItemRow>,
    turns: BTreeMap<u64, Turn>,
}

impl<'a> Both<'a> {
    async fn begun(store: &'a dyn Store) -> Self {
        Self { store, conversation: begun(store).await, items: BTreeMap::new(), turns: BTreeMap::new() }
    }

    async fn compact(&mut self, settled: Settled, below: Option<u64>) {
        self.items.extend(settled.items.iter().map(|row| (row.ordinal, row.clone())));
        for (ordinal, version, keep) in &settled.hide {
            let row = self.items.remove(ordinal);
            self.items.insert(*ordinal, hidden(row, *ordinal, *version, *keep));
        }
        self.turns.extend(settled.turns.iter().map(|turn| (turn.accepted.turn, turn.clone())));
        self.turns.retain(|turn, _| !settled.drop_turns.contains(turn));
        if let Some(below) = below {
            self.items.split_off(&below);
            self.turns.clear();
        }
        compact(self.store, self.conversation, settled, below).await;
    }

    async fn settle_items(&mut self, ordinals: Range<u64>, bytes: usize) {
        let items = ordinals.map(|ordinal| row(ordinal, &"é".repeat(bytes / 2))).collect();
        self.compact(Settled { items, ..Settled::default() }, None).await;
    }

    async fn settle_turns(&mut self, ordinals: impl IntoIterator<Item = u64>) {
        let turns = ordinals.into_iter().map(|ordinal| long_turn(ordinal, &"long ".repeat(50))).collect();
        self.compact(Settled { turns, ..Settled::default() }, None).await;
    }

    async fn hide(&mut self, hide: &[(u64, u64, bool)]) {
        self.compact(Settled { hide: hide.to_vec(), ..Settled::default() }, None).await;
    }

    async fn assert_items(&self, what: &str) {
        let expected: Vec<ItemRow> = self.items.values().cloned().collect();
        let got = items(self.store, self.conversation).await;
        assert_eq!(ordinals(&got), ordinals(&expected), "{what}: ordinals");
        assert_eq!(got, expected, "{what}");
    }

    async fn assert_page(&self, from: u64, to: u64, order: Order, limit: usize) {
        let mut expected: Vec<ItemRow> = self.items.range(from..to).map(|(_, row)| row.clone()).collect();
        if order == Order::Descending {
            expected.reverse();
        }
        expected.truncate(limit);
        let got = self.store.items(self.conversation, from, to, order, limit).await.expect("items can be read");
        assert_eq!(ordinals(&got), ordinals(&expected), "{limit} of {from} to {to}, {order:?}");
        assert_eq!(got, expected, "{limit} of {from} to {to}, {order:?}");
    }

    async fn assert_turns(&self, below: u64, what: &str) {
        for turn in 0..below {
            let got = self.store.turn(self.conversation, turn).await;
            assert_eq!(got, Ok(self.turns.get(&turn).cloned()), "{what}: turn {turn}");
        }
    }
}

fn ordinals(rows: &[ItemRow]) -> Vec<u64> {
    rows.iter().map(|row| row.ordinal).collect()
}

/// What long lists hold is 80 to 250 KB.
pub async fn items_change_in_the_middle_of_a_long_list(store: &dyn Store) {
    let mut both = Both::begun(store).await;
    both.settle_items(100..400, 300).await;
    both.settle_items(450..600, 300).await;
    both.hide(&[(250, 3, true), (101, 4, false)]).await;
    both.assert_items("hidden in the middle").await;
    both.hide(&[(20, 5, false), (420, 6, true), (7, 7, true)]).await;
    both.assert_items("inherited ones masked, below all and between").await;
    both.hide(&[(599, 8, true), (100, 8, true), (250, 9, true), (u64::MAX - 1, 9, true)]).await;
    both.assert_items("hidden at the ends, and again").await;
    both.compact(
        Settled { items: (380..460).map(|ordinal| row(ordinal, "other")).collect(), ..Settled::default() },
        None,
    )
    .await;
    both.assert_items("over what was there, and between").await;
}

pub async fn items_that_come_one_by_one_are_a_list_as_others_are(store: &dyn Store) {
    let mut both = Both::begun(store).await;
    for ordinal in 0..70 {
        // Some are as large as many others, and one is larger than what a store would keep together.
        let bytes = match ordinal {
            40 => 100_000,
            _ if ordinal % 9 == 0 => 3_000,
            _ => 120,
        };
        both.settle_items(ordinal..ordinal + 1, bytes).await;
    }
    both.assert_items("one by one").await;
    for limit in [1, 20, 100] {
        both.assert_page(5, 63, Order::Ascending, limit).await;
        both.assert_page(5, 63, Order::Descending, limit).await;
    }
    both.assert_page(39, 42, Order::Ascending, 9).await;
    both.hide(&[(40, 1, false), (41, 1, true)]).await;
    both.assert_items("the large one hidden").await;
}

pub async fn pages_begin_and_end_anywhere_in_a_long_list(store: &dyn Store) {
    let mut both = Both::begun(store).await;
    both.settle_items(0..250, 400).await;
    both.settle_items(300..500, 400).await;
    for from in (0..520).step_by(37) {
        for to in [from + 1, from + 20, from + 150, u64::MAX] {
            for order in [Order::Ascending, Order::Descending] {
                both.assert_page(from, to, order, 20).await;
                both.assert_page(from, to, order, 128).await;
            }
        }
    }
    let mut to = u64::MAX;
    let mut seen = Vec::new();
    loop {
        let page = store.items(both.conversation, 0, to, Order::Descending, 20).await.expect("items can be read");
        let Some(last) = page.last() else { break };
        to = last.ordinal;
        seen.extend(page);
    }
    seen.reverse();
    assert_eq!(seen, both.items.values().cloned().collect::<Vec<_>>(), "page by page, from the end");
}

pub async fn turns_end_out_of_order_and_are_dropped(store: &dyn Store) {
    let mut both = Both::begun(store).await;
    both.settle_turns((0..100).filter(|turn| turn % 10 != 3)).await;
    both.settle_turns([3, 53, 101]).await;
    both.settle_turns([100, 13]).await;
    both.assert_turns(105, "out of order").await;
    let drop_turns = vec![0, 50, 51, 101, 33, 4_000];
    both.compact(Settled { drop_turns, ..Settled::default() }, None).await;
    both.assert_turns(105, "dropped").await;
    both.settle_turns([50, 102]).await;
    both.assert_turns(105, "after drops").await;
    both.compact(Settled { drop_turns: (0..105).collect(), ..Settled::default() }, None).await;
    both.assert_turns(105, "all dropped").await;
    both.settle_turns([103]).await;
    both.assert_turns(105, "after all were dropped").await;
}

pub async fn a_long_list_is_cleared_from_anywhere(store: &dyn Store) {
    for below in [0, 1, 137, 299, 300, 350, 400, 599, 600, 1_000] {
        let mut both = Both::begun(store).await;
        both.settle_items(10..300, 200).await;
        both.settle_items(400..600, 200).await;
        both.settle_turns(0..60).await;
        let last = Settled {
            items: vec![row(600, "late")],
            hide: vec![(5, 9, true), (130, 9, true), (299, 9, false), (340, 9, true), (420, 9, false)],
            turns: vec![long_turn(60, "late")],
            drop_turns: vec![1],
        };
        both.compact(last, Some(below)).await;
        both.assert_items(&format!("cleared from {below}")).await;
        both.assert_turns(62, "of a deleted conversation").await;
    }
}
