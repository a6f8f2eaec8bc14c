//! The view's table in memory: of a node that is alone, and in tests of all nodes of one process.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use klatch_protocol::view::{Row, ViewTable};

use super::{Beat, Still, Viewed, Views};

#[derive(Default)]
pub struct MemoryViews {
    kept: Mutex<Kept>,
}

#[derive(Clone, Default)]
struct Kept {
    table: ViewTable,
    counters: BTreeMap<String, u64>,
}

/// Another table that holds the same, from then on its own.
impl Clone for MemoryViews {
    fn clone(&self) -> Self {
        Self { kept: Mutex::new(self.lock().clone()) }
    }
}

impl MemoryViews {
    /// No operation leaves the table half changed, so a panic elsewhere poisons nothing.
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn has(&self, name: &str, incarnation: u64) -> bool {
        self.table.rows.get(name).is_some_and(|row| row.incarnation == incarnation)
    }

    fn join(&mut self, name: String, row: Row) -> bool {
        match self.table.rows.get(&name).map(|there| there.incarnation.cmp(&row.incarnation)) {
            Some(std::cmp::Ordering::Greater) => false,
            Some(std::cmp::Ordering::Equal) => true,
            Some(std::cmp::Ordering::Less) | None => {
                self.counters.insert(name.clone(), 0);
                self.table.rows.insert(name, row);
                self.table.number += 1;
                true
            }
        }
    }

    fn beat(&mut self, name: &str, incarnation: u64) -> Option<Beat> {
        if !self.has(name, incarnation) {
            return None;
        }
        *self.counters.entry(name.to_owned()).or_default() += 1;
        Some(Beat { number: self.table.number, generation: 1, counters: self.counters.clone() })
    }

    fn set(&mut self, name: String, row: Row) -> bool {
        if !self.has(&name, row.incarnation) {
            return false;
        }
        if self.table.rows.insert(name, row.clone()) != Some(row) {
            self.table.number += 1;
        }
        true
    }

    fn bury(&mut self, still: &[Still], number: u64) -> bool {
        if self.table.number != number {
            return false;
        }
        let before = self.table.rows.len();
        for Still { name, incarnation, counter } in still {
            if self.has(name, *incarnation) && self.counters.get(name) == Some(counter) {
                self.take_out(name);
            }
        }
        let any = self.table.rows.len() < before;
        self.table.number += u64::from(any);
        any
    }

    fn leave(&mut self, name: &str, incarnation: u64) {
        if self.has(name, incarnation) {
            self.take_out(name);
            self.table.number += 1;
        }
    }

    fn take_out(&mut self, name: &str) {
        self.table.rows.remove(name);
        self.counters.remove(name);
    }
}

impl Views for MemoryViews {
    fn join(&self, name: String, row: Row) -> Viewed<'_, bool> {
        Box::pin(async move { Ok(self.lock().join(name, row)) })
    }

    fn beat(&self, name: String, incarnation: u64) -> Viewed<'_, Option<Beat>> {
        Box::pin(async move { Ok(self.lock().beat(&name, incarnation)) })
    }

    fn set(&self, name: String, row: Row) -> Viewed<'_, bool> {
        Box::pin(async move { Ok(self.lock().set(name, row)) })
    }

    fn bury(&self, still: Vec<Still>, number: u64) -> Viewed<'_, bool> {
        Box::pin(async move { Ok(self.lock().bury(&still, number)) })
    }

    fn leave(&self, name: String, incarnation: u64) -> Viewed<'_, ()> {
        Box::pin(async move {
            self.lock().leave(&name, incarnation);
            Ok(())
        })
    }

    fn read(&self) -> Viewed<'_, ViewTable> {
        Box::pin(async move { Ok(self.lock().table.clone()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_keeps_the_contract() {
        super::super::contract::suite(async || Box::new(MemoryViews::default()) as Box<dyn Views>).await;
    }
}
