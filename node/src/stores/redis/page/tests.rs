//! A page is the same part of the list, however it is cut into blocks.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::ops::Bound;

use klatch_protocol::envelope::seal;
use proptest::collection::btree_map;
use proptest::prelude::*;

use super::super::blocks::pack;
use super::*;

/// A list as Redis keeps it, and how many blocks were read of it.
struct Kept {
    members: BTreeSet<Vec<u8>>,
    read: Cell<usize>,
}

fn row(ordinal: u64, bytes: usize) -> ItemRow {
    ItemRow { ordinal, client_id: Some("x".repeat(bytes)), body: None, hidden_at: None }
}

impl Kept {
    fn of<'a>(rows: impl IntoIterator<Item = &'a ItemRow>) -> Self {
        let sealed: Vec<(u64, Vec<u8>)> = rows.into_iter().map(|row| (row.ordinal, seal(row))).collect();
        let members = pack(sealed.iter().map(|(ordinal, row)| (*ordinal, &row[..]))).into_iter().collect();
        Self { members, read: Cell::default() }
    }

    /// Does what the command says, as Redis does.
    fn answer(&self, command: &Cmd) -> Value {
        let words: Vec<Vec<u8>> = command
            .args_iter()
            .map(|word| match word {
                ::redis::Arg::Simple(bytes) => bytes.to_vec(),
                _ => panic!("no cursor is sent"),
            })
            .collect();
        let count = std::str::from_utf8(words.last().unwrap()).unwrap().parse().unwrap();
        let high = |bound: &[u8]| Bound::Excluded(bound.strip_prefix(b"(").unwrap().to_vec());
        let found: Vec<&Vec<u8>> = match &words[0][..] {
            b"ZREVRANGEBYLEX" => self.members.range((Bound::Unbounded, high(&words[2]))).rev().take(count).collect(),
            _ => {
                let from = words[4].clone();
                let below = self.members.range(..from.clone()).next_back();
                below
                    .into_iter()
                    .chain(self.members.range((Bound::Included(from), high(&words[5]))).take(count))
                    .collect()
            }
        };
        self.read.set(self.read.get() + found.len());
        Value::Array(found.into_iter().cloned().map(Value::BulkString).collect())
    }

    fn page(&self, from: u64, to: u64, order: Order, limit: usize) -> Vec<ItemRow> {
        let mut page = Page::new(from, to, order, limit);
        while let Some(command) = page.next("list") {
            page.take(self.answer(&command)).unwrap();
        }
        page.into_rows()
    }
}

#[test]
fn a_page_of_a_long_conversation_reads_few_blocks() {
    let rows: Vec<ItemRow> = (0..20_000).map(|ordinal| row(ordinal, 250)).collect();
    let kept = Kept::of(&rows);
    assert!(kept.members.len() > 600);
    for (order, limit, most) in
        [(Order::Ascending, 20, 2), (Order::Descending, 20, 3), (Order::Ascending, 128, 9), (Order::Descending, 128, 8)]
    {
        kept.read.set(0);
        assert_eq!(kept.page(5_000, u64::MAX, order, limit).len(), limit);
        assert!(kept.read.get() <= most, "{order:?}, {limit}: {} blocks", kept.read.get());
    }
    kept.read.set(0);
    assert_eq!(kept.page(5_000, 5_001, Order::Ascending, usize::MAX).len(), 1);
    assert!(kept.read.get() <= 2);
}

#[test]
fn the_last_ordinals_are_no_end_that_is_stepped_over() {
    let rows = [row(u64::MAX - 2, 9_000), row(u64::MAX - 1, 9_000), row(u64::MAX, 9_000)];
    let kept = Kept::of(&rows);
    assert_eq!(kept.page(0, u64::MAX, Order::Ascending, 9), rows[..2]);
    assert_eq!(kept.page(0, u64::MAX, Order::Descending, 9), [rows[1].clone(), rows[0].clone()]);
}

proptest! {
    #[test]
    fn a_page_is_that_part_of_the_list(
        lengths in btree_map(0_u64..300, prop_oneof![5 => 0_usize..400, 1 => 0..20_000_usize], 0..100),
        from in 0_u64..310,
        to in prop_oneof![0_u64..310, Just(u64::MAX)],
        is_ascending: bool,
        limit in prop_oneof![0_usize..50, Just(usize::MAX)],
    ) {
        let rows: Vec<ItemRow> = lengths.into_iter().map(|(ordinal, bytes)| row(ordinal, bytes)).collect();
        let mut expected: Vec<ItemRow> =
            rows.iter().filter(|row| from <= row.ordinal && row.ordinal < to).cloned().collect();
        let order = if is_ascending { Order::Ascending } else { Order::Descending };
        if !is_ascending {
            expected.reverse();
        }
        expected.truncate(limit);
        prop_assert_eq!(Kept::of(&rows).page(from, to, order, limit), expected);
    }
}
