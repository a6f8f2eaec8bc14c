//! Blocks are read as they were written, and what is none is refused.

use klatch_protocol::envelope::seal;
use klatch_protocol::state::ItemRow;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;

fn packed(rows: &[(u64, Vec<u8>)]) -> Vec<Vec<u8>> {
    pack(rows.iter().map(|(ordinal, row)| (*ordinal, &row[..])))
}

fn why(member: Vec<u8>) -> String {
    match Block::read(List::Items, member) {
        Err(StoreError::Damaged(why)) => why,
        other => panic!("it was taken: {other:?}"),
    }
}

fn three() -> Vec<u8> {
    packed(&[(5, vec![1]), (300, vec![]), (u64::MAX, vec![3, 4])]).remove(0)
}

#[test]
fn a_block_is_its_head_and_its_rows() {
    let expected = [
        &5_u64.to_be_bytes()[..],
        &[FORMAT],
        &[0xff; 8],
        &[5, 1, 1],
        &[0xac, 0x02, 0],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 2, 3, 4],
    ];
    assert_eq!(three(), expected.concat());
    let block = Block::read(List::Items, three()).unwrap();
    assert_eq!((block.first(), block.last()), (5, u64::MAX));
    assert_eq!((block.row(300), block.row(u64::MAX), block.row(6)), (Some(&[][..]), Some(&[3, 4][..]), None));
}

#[test]
fn what_is_no_block_is_refused_and_named() {
    let whole = three();
    for length in 0..whole.len() {
        assert!(why(whole[..length].to_vec()).starts_with("a block of items: "), "{length} bytes");
    }
    let mut other = whole.clone();
    other[8] = 7;
    assert_eq!(why(other), "a block of items: its format 7 is not the one that this build reads");
    for place in [0, 7, 9, 16] {
        let mut moved = whole.clone();
        moved[place] ^= 1;
        assert!(why(moved).contains("and does not"), "byte {place}");
    }
    let (low, high) = (packed(&[(5, vec![])]).remove(0), packed(&[(4, vec![])]).remove(0));
    assert!(why([&low[..], &high[HEAD..]].concat()).contains("out of order"));
    assert!(why([&low[..], &low[HEAD..]].concat()).contains("out of order"));
    // A length that would reach around.
    assert!(
        why([&low[..], &[6, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]].concat()).contains("cut off")
    );
    assert!(why([&low[..], &[0xff; 11]].concat()).contains("cut off"));
    assert!(
        why([&low[..], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0]].concat()).contains("cut off")
    );
}

#[test]
fn a_row_alone_as_earlier_builds_kept_it_is_refused_with_the_reason() {
    let row = ItemRow { ordinal: 7, client_id: None, body: None, hidden_at: None };
    let member = [&7_u64.to_be_bytes()[..], &seal(&row)].concat();
    assert!(why(member).starts_with("its items are stored one by one, as builds before this one did"));
}

#[test]
fn a_row_that_cannot_be_opened_is_named() {
    let row = |ordinal| ItemRow { ordinal, client_id: None, body: None, hidden_at: None };
    let block = packed(&[(3, seal(&row(3))), (4, seal(&row(5))), (6, vec![9])]).remove(0);
    let block = Block::read(List::Items, block).unwrap();
    let open = |ordinal| block.open(ordinal, block.row(ordinal).unwrap(), |row: &ItemRow| row.ordinal);
    assert_eq!(open(3), Ok(row(3)));
    let damaged = |why: &str| Err(StoreError::Damaged(format!("a block of items: row {why}")));
    assert_eq!(open(4), damaged("4 says that it is 5"));
    assert_eq!(open(6), damaged("6: its format 9 is not one that this build reads (1 to 3)"));
}

#[test]
fn blocks_that_reach_into_one_another_are_refused_in_both_orders() {
    let block = |ordinals: &[u64]| packed(&ordinals.iter().map(|ordinal| (*ordinal, vec![])).collect::<Vec<_>>());
    let (a, b, c) = (block(&[1, 4]).remove(0), block(&[3]).remove(0), block(&[5, 9]).remove(0));
    assert_eq!(Block::read_all(List::Turns, vec![a.clone(), c.clone()]).map(|blocks| blocks.len()), Ok(2));
    assert_eq!(Block::read_all(List::Turns, vec![c, a.clone()]).map(|blocks| blocks.len()), Ok(2));
    for pair in [vec![a.clone(), b.clone()], vec![b, a]] {
        let refused = Block::read_all(List::Turns, pair);
        assert_eq!(refused, Err(StoreError::Damaged("a block of turns: it reaches into another".into())));
    }
}

#[test]
fn a_row_as_large_as_a_block_stands_alone() {
    let (small, large) = (vec![0; 100], vec![0; BLOCK_BYTES]);
    let rows = [(1, small.clone()), (2, large.clone()), (3, small.clone()), (4, small), (5, large)];
    let blocks = Block::read_all(List::Items, packed(&rows)).unwrap();
    let ends: Vec<_> = blocks.iter().map(|block| (block.first(), block.last())).collect();
    assert_eq!(ends, [(1, 1), (2, 2), (3, 4), (5, 5)]);
}

#[test]
fn many_rows_are_spread_evenly() {
    let rows: Vec<(u64, Vec<u8>)> = (0..400).map(|ordinal| (ordinal, vec![7; 150 + ordinal as usize % 100])).collect();
    let sizes: Vec<usize> = packed(&rows).iter().map(Vec::len).collect();
    assert_eq!(sizes.len(), 11, "{sizes:?}");
    let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
    assert!(most - least < 1_000 && *most < 8_186, "{sizes:?}");
}

proptest! {
    #[test]
    fn rows_are_read_as_they_were_packed(rows in btree_map(any::<u64>(), vec(any::<u8>(), 0..3_000), 0..60)) {
        let rows: Vec<(u64, Vec<u8>)> = rows.into_iter().collect();
        let members = packed(&rows);
        prop_assert!(members.is_sorted(), "the order of bytes is not that of rows");
        let blocks = Block::read_all(List::Items, members).unwrap();
        let read: Vec<_> = blocks.iter().flat_map(Block::rows).map(|(ordinal, row)| (ordinal, row.to_vec())).collect();
        prop_assert_eq!(&read, &rows);
        for (ordinal, row) in &rows {
            let block = blocks.iter().find(|block| block.first() <= *ordinal && *ordinal <= block.last()).unwrap();
            prop_assert_eq!(block.row(*ordinal), Some(&row[..]));
        }
    }

    /// Which the script does where the last block is small.
    #[test]
    fn two_blocks_are_joined_by_their_bytes(lengths in vec(0_usize..300, 2..20), cut in 1_usize..19) {
        let rows: Vec<(u64, Vec<u8>)> = (0..).step_by(99).zip(lengths.into_iter().map(|length| vec![3; length])).collect();
        let (low, high) = rows.split_at(cut.min(rows.len() - 1));
        let (low, high) = (packed(low).remove(0), packed(high).remove(0));
        let joined = [&low[..9], &high[9..HEAD], &low[HEAD..], &high[HEAD..]].concat();
        prop_assert_eq!(vec![joined], packed(&rows));
    }

    #[test]
    fn bytes_at_random_are_refused_without_a_panic(bytes in vec(any::<u8>(), 0..80)) {
        let mut bytes = bytes;
        if bytes.len() > 8 {
            bytes[8] = FORMAT;
        }
        let _ = Block::read(List::Items, bytes);
    }
}
