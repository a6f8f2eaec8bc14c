//! Changing rows in the middle of a list: the blocks around them are read, and replaced by others. Pure.
//!
//! Seldom: what is finished mostly lies above all that is there, and then the script adds it unread. But an item is
//! hidden long after it was settled, a child masks what it inherited, and a turn ends behind its successor.

use std::collections::BTreeMap;

use super::blocks::{Block, pack};

/// Of each row that changes, what it becomes; none where it goes.
pub type Changes = BTreeMap<u64, Option<Vec<u8>>>;

/// What is known of a list: the blocks around the ordinals that change, which are read in rising order.
#[derive(Default)]
pub struct Around {
    blocks: BTreeMap<u64, Block>,
    /// So far; all of it up to the largest number.
    known: Option<u64>,
}

/// What to do to the list, in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Replacement {
    /// First ordinals of the blocks that go.
    pub removed: Vec<u64>,
    pub added: Vec<Vec<u8>>,
}

impl Around {
    /// The lowest of these rising ordinals whose surroundings were not read.
    pub fn missing(&self, ordinals: impl IntoIterator<Item = u64>) -> Option<u64> {
        ordinals.into_iter().find(|ordinal| self.known.is_none_or(|known| *ordinal > known))
    }

    /// The block that begins below `from`, if there is one, and those that begin from there on, as many as `asked` if
    /// there are.
    pub fn take(&mut self, from: u64, found: Vec<Block>, asked: usize) {
        let above = found.iter().filter(|block| block.first() >= from).count();
        self.known = match found.last() {
            Some(last) if above >= asked => Some(last.last()),
            _ => Some(u64::MAX),
        };
        self.blocks.extend(found.into_iter().map(|block| (block.first(), block)));
    }

    /// The block that holds this ordinal if any does.
    pub fn block(&self, ordinal: u64) -> Option<&Block> {
        self.blocks.range(..=ordinal).next_back().map(|(_, block)| block)
    }

    /// Forgets the blocks that begin at `below` or above, and has the rows above it go that share a block with one below.
    pub fn clear_from(&mut self, below: u64, changes: &mut Changes) {
        self.blocks.retain(|first, _| *first < below);
        changes.retain(|ordinal, _| *ordinal < below);
        let rows = self.blocks.values().flat_map(Block::rows).map(|(ordinal, _)| ordinal);
        changes.extend(rows.filter(|ordinal| *ordinal >= below).map(|ordinal| (ordinal, None)));
    }

    /// What is done to the blocks that change; none is touched that does not.
    pub fn replace(&self, changes: &Changes) -> Replacement {
        let changes: Vec<_> =
            changes.iter().map(|(ordinal, row)| (self.goes_into(*ordinal), *ordinal, row.as_deref())).collect();
        let mut replacement = Replacement::default();
        for changes in changes.chunk_by(|(left, ..), (right, ..)| left.map(Block::first) == right.map(Block::first)) {
            let block = changes[0].0;
            let before: BTreeMap<u64, &[u8]> = block.into_iter().flat_map(Block::rows).collect();
            let mut rows = before.clone();
            for (_, ordinal, row) in changes {
                match row {
                    Some(row) => rows.insert(*ordinal, row),
                    None => rows.remove(ordinal),
                };
            }
            if rows != before {
                replacement.removed.extend(block.map(Block::first));
                replacement.added.extend(pack(rows));
            }
        }
        replacement
    }

    /// The block that begins at or below it, or else the first one of all.
    fn goes_into(&self, ordinal: u64) -> Option<&Block> {
        self.block(ordinal).or_else(|| self.blocks.values().next())
    }
}

#[cfg(test)]
mod tests;
