//! The table of nodes in Redis, as its scripts keep it.
//!
//! A beat shows a node its own counter and those of the nodes that are going to die, with the costs of the whole table:
//! counters that go on all the time decide nothing for it. How long a living node's counter stood still is measured, so
//! that it can be seen that none would have been buried.

use std::collections::BTreeMap;
use std::sync::Arc;

use klatch_actors::membership::view::View;
use klatch_actors::membership::views::{Beat, Still};
use klatch_protocol::Shard;
use klatch_protocol::view::ViewTable;

use crate::nodes;

/// One connection for all the time.
const GENERATION: u64 = 1;
/// The view that all begin with.
pub const FIRST_NUMBER: u64 = 1;

pub struct Table {
    number: u64,
    /// How many were buried so far.
    buried: usize,
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
        Self { number: FIRST_NUMBER, buried: 0, counters: vec![0; names.len()], places, doomed, view, names }
    }

    pub fn rows(&self) -> usize {
        self.view.members().len()
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

    pub fn read(&self) -> ViewTable {
        let row = |name: &Arc<str>| (name.to_string(), nodes::row(name));
        ViewTable { number: self.number, rows: self.view.members().keys().map(row).collect() }
    }

    /// Takes out those whose counters are still the same, and says which; then the view has another number.
    pub fn bury(&mut self, still: &[Still], number: u64) -> Vec<usize> {
        let is_dead = |still: &&Still| {
            let there = self.view.members().contains_key(still.name.as_str());
            there && self.number == number && self.counters[self.places[&still.name]] == still.counter
        };
        let dead: Vec<usize> = still.iter().filter(is_dead).map(|still| self.places[&still.name]).collect();
        let left = self.view.members().keys().filter(|name| !dead.contains(&self.places[&***name]));
        self.view = nodes::view(left.map(ToString::to_string));
        self.doomed.retain(|one| !dead.contains(one));
        self.buried += dead.len();
        self.number += u64::from(!dead.is_empty());
        dead
    }

    /// In how many views somebody was buried.
    pub fn burials(&self) -> u64 {
        self.number - FIRST_NUMBER
    }

    /// How many were buried.
    pub fn buried(&self) -> usize {
        self.buried
    }

    fn shown(&self, node: usize) -> impl Iterator<Item = usize> {
        let doomed = self.doomed.iter().copied();
        std::iter::once(node).chain(doomed.filter(move |one| *one != node))
    }
}
