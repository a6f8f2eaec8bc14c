//! What becomes of a list is what becomes of a map.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::super::blocks::{BLOCK_BYTES, List};
use super::*;

type Rows = BTreeMap<u64, Vec<u8>>;

/// As Redis keeps it.
#[derive(Default)]
struct Kept(BTreeSet<Vec<u8>>);

impl Kept {
    fn of(rows: &Rows) -> Self {
        Self(pack(rows.iter().map(|(ordinal, row)| (*ordinal, &row[..]))).into_iter().collect())
    }

    /// What the script `blocks` answers.
    fn from(&self, from: u64, count: usize) -> Vec<Block> {
        let from = from.to_be_bytes().to_vec();
        let below = self.0.range(..from.clone()).next_back();
        let above = self.0.range((Bound::Included(from), Bound::Unbounded)).take(count);
        Block::read_all(List::Items, below.into_iter().chain(above).cloned().collect()).unwrap()
    }

    fn around(&self, ordinals: impl Iterator<Item = u64> + Clone, asked: usize) -> Around {
        let mut around = Around::default();
        while let Some(from) = around.missing(ordinals.clone()) {
            around.take(from, self.from(from, asked), asked);
        }
        around
    }

    fn replace(&mut self, Replacement { removed, added }: Replacement) {
        for first in removed {
            let before = self.0.len();
            self.0.retain(|member| member[..8] != first.to_be_bytes());
            assert_eq!(self.0.len(), before - 1, "no block begins with {first}");
        }
        for member in added {
            assert!(self.0.insert(member), "a block was there already");
        }
    }

    fn rows(&self) -> Rows {
        let blocks = Block::read_all(List::Items, self.0.iter().cloned().collect()).unwrap();
        blocks.iter().flat_map(Block::rows).map(|(ordinal, row)| (ordinal, row.to_vec())).collect()
    }
}

fn rows(ordinals: impl IntoIterator<Item = u64>) -> Rows {
    ordinals.into_iter().map(|ordinal| (ordinal, vec![1; 100])).collect()
}

fn firsts(kept: &Kept) -> Vec<u64> {
    kept.0.iter().map(|member| u64::from_be_bytes(member[..8].try_into().unwrap())).collect()
}

fn changed(kept: &mut Kept, changes: &Changes) {
    let replacement = kept.around(changes.keys().copied(), 2).replace(changes);
    kept.replace(replacement);
}

#[test]
fn what_does_not_change_is_not_written_again() {
    let kept = Kept::of(&rows(0..1_000));
    let same = Changes::from([(3, Some(vec![1; 100])), (5_000, None)]);
    assert_eq!(kept.around(same.keys().copied(), 2).replace(&same), Replacement::default());
    let one = Changes::from([(500, Some(vec![2]))]);
    let Replacement { removed, added } = kept.around(one.keys().copied(), 2).replace(&one);
    assert_eq!((removed.len(), added.len()), (1, 1));
}

#[test]
fn rows_below_the_first_block_make_no_blocks_of_their_own() {
    let mut kept = Kept::of(&rows(1_000..1_010));
    for ordinal in (0..50).rev() {
        changed(&mut kept, &Changes::from([(ordinal, Some(vec![]))]));
    }
    assert_eq!(firsts(&kept), [0]);
}

#[test]
fn a_block_whose_last_row_goes_is_gone() {
    let mut kept = Kept::of(&rows([7]));
    changed(&mut kept, &Changes::from([(7, None)]));
    assert_eq!(kept.0.len(), 0);
}

/// Otherwise a conversation of which everything is hidden, or whose turns end out of order, would be read row by row.
#[test]
fn neighbours_are_read_together() {
    let kept = Kept::of(&rows(0..1_000));
    let mut around = Around::default();
    let mut trips = 0;
    while let Some(from) = around.missing(900..1_200) {
        around.take(from, kept.from(from, 4), 4);
        trips += 1;
    }
    assert_eq!(trips, 1);
}

fn some_rows() -> impl Strategy<Value = Rows> {
    let length = prop_oneof![8 => 0_usize..300, 1 => 0..3 * BLOCK_BYTES];
    btree_map(0_u64..400, length.prop_map(|length| vec![length as u8; length]), 0..120)
}

fn some_changes() -> impl Strategy<Value = Changes> {
    btree_map(0_u64..450, proptest::option::of(vec(any::<u8>(), 0..200)), 0..12)
}

proptest! {
    #[test]
    fn a_list_becomes_what_a_map_becomes(rows in some_rows(), all in vec(some_changes(), 1..5), asked in 1_usize..5) {
        let (mut kept, mut expected) = (Kept::of(&rows), rows);
        for changes in all {
            let replacement = kept.around(changes.keys().copied(), asked).replace(&changes);
            kept.replace(replacement);
            for (ordinal, row) in changes {
                match row {
                    Some(row) => expected.insert(ordinal, row),
                    None => expected.remove(&ordinal),
                };
            }
            prop_assert_eq!(&kept.rows(), &expected);
        }
    }

    #[test]
    fn what_is_cleared_is_gone_from_there_on(rows in some_rows(), changes in some_changes(), below in 0_u64..450) {
        let (mut kept, mut expected) = (Kept::of(&rows), rows);
        let mut around = kept.around(changes.keys().copied().filter(|at| *at < below).chain([below]), 2);
        let mut left = changes.clone();
        around.clear_from(below, &mut left);
        // As the script does before it replaces.
        kept.0.retain(|member| member[..8] < below.to_be_bytes()[..]);
        kept.replace(around.replace(&left));
        for (ordinal, row) in changes {
            match row {
                Some(row) => expected.insert(ordinal, row),
                None => expected.remove(&ordinal),
            };
        }
        expected.split_off(&below);
        prop_assert_eq!(kept.rows(), expected);
    }
}
