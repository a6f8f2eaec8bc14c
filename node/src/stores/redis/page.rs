//! A page of items, filled block by block. Pure.
//!
//! It reads little more than it needs: few blocks first, and where they do not fill it, as many as should, by the rows that
//! they had. Each trip is one moment of the list, and goes on behind the last row of the one before.

use ::redis::{Cmd, Value};
use klatch_actors::store::{Order, StoreError};
use klatch_protocol::state::ItemRow;

use super::blocks::{Block, List};
use super::keys::excluding;
use super::read::{blocks, page_command};
use super::scripts::Script;

/// A block of short messages holds about so many rows.
const ROWS_EXPECTED: usize = 32;
const FIRST_BLOCKS_MAX: usize = 8;
/// Of one trip: half a megabyte of small rows.
const BLOCKS_MAX: usize = 64;

pub struct Page {
    from: u64,
    to: u64,
    order: Order,
    limit: usize,
    rows: Vec<ItemRow>,
    blocks: usize,
}

impl Page {
    /// Rows with ordinals in `from..to`, at most `limit`.
    pub fn new(from: u64, to: u64, order: Order, limit: usize) -> Self {
        Self { from, to, order, limit, rows: Vec::new(), blocks: (limit / ROWS_EXPECTED).clamp(1, FIRST_BLOCKS_MAX) }
    }

    /// What to read next; none once it is filled, or there is no more.
    pub fn next(&self, key: &str) -> Option<Cmd> {
        if self.rows.len() >= self.limit || self.from >= self.to {
            return None;
        }
        let high = excluding(&self.to.to_be_bytes());
        Some(match self.order {
            Order::Ascending => from_command(key, self.from, &high, self.blocks),
            Order::Descending => page_command(key, b"-", &high, Order::Descending, self.blocks),
        })
    }

    pub fn take(&mut self, answer: Value) -> Result<(), StoreError> {
        let found = blocks(List::Items, answer)?;
        for block in &found {
            match self.order {
                Order::Ascending => self.add(block, block.rows())?,
                Order::Descending => self.add(block, block.rows().rev())?,
            }
        }
        let is_extra = |block: &&Block| self.order == Order::Ascending && block.first() < self.from;
        let extra = found.iter().filter(is_extra).count();
        match (found.last(), self.order) {
            (Some(last), Order::Ascending) if found.len() - extra >= self.blocks => {
                self.from = last.last().saturating_add(1);
            }
            (Some(last), Order::Descending) if found.len() >= self.blocks => self.to = last.first(),
            // That was all.
            _ => self.from = self.to,
        }
        // As many rows as these had are in those to come.
        let rows: usize = found.iter().map(|block| block.rows().count()).sum();
        let left = self.limit - self.rows.len();
        self.blocks = (left / (rows / found.len().max(1)).max(1)).saturating_add(1).min(BLOCKS_MAX);
        Ok(())
    }

    pub fn into_rows(self) -> Vec<ItemRow> {
        self.rows
    }

    fn add<'a>(&mut self, block: &Block, rows: impl Iterator<Item = (u64, &'a [u8])>) -> Result<(), StoreError> {
        let range = self.from..self.to;
        for (ordinal, sealed) in rows.filter(|(ordinal, _)| range.contains(ordinal)) {
            if self.rows.len() >= self.limit {
                break;
            }
            self.rows.push(block.open(ordinal, sealed, |row: &ItemRow| row.ordinal)?);
        }
        Ok(())
    }
}

/// The block that begins below `from`, and behind it those that begin from there on, at most `count`; `high` is as Redis
/// writes it.
pub fn from_command(key: &str, from: u64, high: &[u8], count: usize) -> Cmd {
    let mut call = Script::Blocks.call(&[key.to_owned()]);
    call.arg(&from.to_be_bytes()[..]).arg(high).arg(count);
    call
}

#[cfg(test)]
mod tests;
