//! The table of nodes in Redis, as its scripts keep it.
//!
//! A node is shown its own row and the first of those that are going to die, with the costs of the whole table: rows of
//! others that beat all the time decide nothing for it. How long a living node's counter stood still is measured, so that
//! it can be seen that none would have been buried.

use std::collections::BTreeMap;

use klatch_actors::membership::view::View;
use klatch_actors::membership::views::Beat;
use klatch_protocol::Shard;
use klatch_protocol::view::ViewTable;

use crate::nodes;

/// One connection for all the time.
const GENERATION: u64 = 1;
/// Of those that die so many are shown, in the order of their names, in which the runtime buries them: at four burials a
/// second each is seen to stand still for 16 s before it comes first, and 3 would do.
const SHOWN_MAX: usize = 64;
/// The view that all begin with.
pub const FIRST_NUMBER: u64 = 1;

pub struct Table {
    number: u64,
    counters: Vec<u64>,
    names: Vec<String>,
    places: BTreeMap<String, usize>,
    /// Those of the doomed that are not buried, by name.
    doomed: Vec<usize>,
    /// All members: who owns what.
    view: View,
}

impl Table {
    pub fn new(names: Vec<String>, doomed: &[usize]) -> Self {
        let view = nodes::view(names.iter().cloned());
        let places = names.iter().cloned().enumerate().map(|(place, name)| (name, place)).collect();
        let mut doomed = doomed.to_vec();
        doomed.sort_by_key(|node| &names[*node]);
        Self { number: FIRST_NUMBER, counters: vec![0; names.len()], places, doomed, view, names }
    }

    pub fn rows(&self) -> usize {
        self.view.members.len()
    }

    pub fn place(&self, name: &str) -> usize {
        self.places[name]
    }

    /// By the runtime's placement in the view as it stands.
    pub fn owner(&self, shard: u16) -> usize {
        let owner = self.view.owner(Shard(shard)).expect("somebody is up");
        self.place(&owner.name)
    }

    pub fn beat(&mut self, node: usize) -> Beat {
        self.counters[node] += 1;
        let shown = self.shown(node).map(|one| (self.names[one].clone(), self.counters[one]));
        Beat { number: self.number, generation: GENERATION, counters: shown.collect() }
    }

    pub fn read(&self, node: usize) -> ViewTable {
        let rows: BTreeMap<_, _> =
            self.shown(node).map(|one| (self.names[one].clone(), nodes::row(&self.names[one]))).collect();
        ViewTable { number: self.number, rows }
    }

    /// Whether the row was taken out; then the view has another number.
    pub fn bury(&mut self, node: usize, counter: u64, number: u64) -> bool {
        let there = self.view.members.contains_key(self.names[node].as_str());
        if !there || self.counters[node] != counter || self.number != number {
            return false;
        }
        self.view.members.remove(self.names[node].as_str());
        self.doomed.retain(|one| *one != node);
        self.number += 1;
        true
    }

    /// How many were buried.
    pub fn buried(&self) -> u64 {
        self.number - FIRST_NUMBER
    }

    fn shown(&self, node: usize) -> impl Iterator<Item = usize> {
        let doomed = self.doomed.iter().copied().take(SHOWN_MAX);
        std::iter::once(node).chain(doomed.filter(move |one| *one != node))
    }
}
