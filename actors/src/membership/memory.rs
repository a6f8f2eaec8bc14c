//! The table of nodes in memory: for a node that is alone, and for tests, where several share one.

use std::sync::{Mutex, MutexGuard, PoisonError};

use std::collections::BTreeMap;

use klatch_protocol::view::{Row, ViewTable};

use super::views::{Beat, Viewed, Views};

#[derive(Debug, Default)]
pub struct MemoryViews(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    view: ViewTable,
    counters: BTreeMap<String, u64>,
}

impl MemoryViews {
    fn table(&self) -> MutexGuard<'_, Table> {
        // Every change is one assignment: a panic left nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer<'a, T: Send + 'a>(&'a self, ask: impl FnOnce(&mut Table) -> T) -> Viewed<'a, T> {
        let answer = ask(&mut self.table());
        Box::pin(std::future::ready(Ok(answer)))
    }
}

impl Table {
    fn incarnation(&self, name: &str) -> Option<u64> {
        self.view.rows.get(name).map(|row| row.incarnation)
    }

    fn put(&mut self, name: String, row: Row) {
        if self.view.rows.get(&name) != Some(&row) {
            self.view.number += 1;
            self.view.rows.insert(name, row);
        }
    }

    fn remove(&mut self, name: &str) {
        self.view.number += 1;
        self.view.rows.remove(name);
        self.counters.remove(name);
    }
}

impl Views for MemoryViews {
    fn join(&self, name: String, row: Row) -> Viewed<'_, bool> {
        self.answer(|table| {
            let there = table.incarnation(&name);
            if there.is_none_or(|there| there < row.incarnation) {
                table.counters.insert(name.clone(), 0);
                table.put(name, row);
                return true;
            }
            there == Some(row.incarnation)
        })
    }

    fn beat(&self, name: String, incarnation: u64) -> Viewed<'_, Option<Beat>> {
        self.answer(|table| {
            if table.incarnation(&name) != Some(incarnation) {
                return None;
            }
            *table.counters.entry(name).or_default() += 1;
            Some(Beat { number: table.view.number, generation: 0, counters: table.counters.clone() })
        })
    }

    fn set(&self, name: String, row: Row) -> Viewed<'_, bool> {
        self.answer(|table| {
            let there = table.incarnation(&name) == Some(row.incarnation);
            if there {
                table.put(name, row);
            }
            there
        })
    }

    fn bury(&self, name: String, incarnation: u64, counter: u64, number: u64) -> Viewed<'_, bool> {
        self.answer(|table| {
            let same = table.incarnation(&name) == Some(incarnation)
                && table.counters.get(&name) == Some(&counter)
                && table.view.number == number;
            if same {
                table.remove(&name);
            }
            same
        })
    }

    fn leave(&self, name: String, incarnation: u64) -> Viewed<'_, ()> {
        self.answer(|table| {
            if table.incarnation(&name) == Some(incarnation) {
                table.remove(&name);
            }
        })
    }

    fn read(&self) -> Viewed<'_, ViewTable> {
        self.answer(|table| table.view.clone())
    }
}
