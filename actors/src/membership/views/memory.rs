//! The view's table in memory: of a node that is alone, and in tests of all nodes of one process.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use klatch_protocol::view::{Row, ViewTable};

use super::{Beat, Viewed, Views};

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

    fn take_out(&mut self, name: &str) {
        self.table.rows.remove(name);
        self.counters.remove(name);
        self.table.number += 1;
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

    fn bury(&self, name: String, incarnation: u64, counter: u64, number: u64) -> Viewed<'_, bool> {
        Box::pin(async move {
            let mut kept = self.lock();
            let still = kept.has(&name, incarnation)
                && kept.counters.get(&name) == Some(&counter)
                && kept.table.number == number;
            if still {
                kept.take_out(&name);
            }
            Ok(still)
        })
    }

    fn leave(&self, name: String, incarnation: u64) -> Viewed<'_, ()> {
        Box::pin(async move {
            let mut kept = self.lock();
            if kept.has(&name, incarnation) {
                kept.take_out(&name);
            }
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
