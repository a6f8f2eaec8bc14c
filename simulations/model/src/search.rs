//! Visits every state of a [`Protocol`], the nearest first, until something is found or nothing is left.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use stateright::report::{ReportData, ReportDiscovery, Reporter};
use stateright::{Checker, HasDiscoveries, Model, Property};

use crate::Protocol;
use crate::properties::ALWAYS;
use crate::world::{Action, World};

/// What a search found.
#[derive(Debug)]
pub struct Found {
    /// Different states, and all ways into them.
    pub states: usize,
    pub steps: usize,
    /// Of the longest run that was followed, in states.
    pub depth: usize,
    pub took: Duration,
    /// A run for each property: to a state that breaks it, or, of one that must be seen, to a state that shows it.
    pub runs: BTreeMap<&'static str, Run>,
}

/// What happened, and how it ended.
#[derive(Clone, Debug)]
pub struct Run {
    pub actions: Vec<Action>,
    pub end: World,
}

impl Found {
    /// The properties that must always hold, and do not.
    pub fn broken(&self) -> Vec<&'static str> {
        ALWAYS.into_iter().filter(|name| self.runs.contains_key(name)).collect()
    }
}

impl Run {
    /// The same with as few steps as can be had by leaving out one or two, over and over.
    fn shortened(mut self, protocol: &Protocol, property: &'static str) -> Self {
        loop {
            let steps = self.actions.len();
            let pairs = (0..steps).flat_map(|first| (first..steps).map(move |second| (first, second)));
            let shorter = pairs.rev().find_map(|(first, second)| {
                let kept = self.actions.iter().enumerate().filter(|(at, _)| *at != first && *at != second);
                shows(protocol, property, kept.map(|(_, action)| action.clone()).collect())
            });
            match shorter {
                Some(shorter) => self = shorter,
                None => return self,
            }
        }
    }
}

/// The run of these actions, if each can happen in its turn and the end shows what is looked for.
fn shows(protocol: &Protocol, property: &'static str, actions: Vec<Action>) -> Option<Run> {
    let mut end = World::new(&protocol.bounds);
    for action in &actions {
        let mut possible = Vec::new();
        protocol.actions(&end, &mut possible);
        if !possible.contains(action) {
            return None;
        }
        end.happen(protocol, action.clone());
    }
    let Property { expectation, condition, .. } = protocol.property(property);
    (condition(protocol, &end) != expectation.discovery_is_failure()).then_some(Run { actions, end })
}

/// How far a search has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    pub states: usize,
    pub steps: usize,
    pub depth: usize,
    pub took: Duration,
}

/// Ends soon after one of `until` was found, else when nothing is left. With one job what is found first is among the
/// shortest; stateright keeps the last of its first finds, so runs are shortened afterwards.
pub fn search(protocol: Protocol, until: &[&'static str], jobs: usize, progress: impl FnMut(Progress)) -> Found {
    let until = HasDiscoveries::AnyOf(BTreeSet::from_iter(until.iter().copied()));
    let mut listener = Listener { progress, found: None };
    let checker = protocol.checker().finish_when(until).threads(jobs).spawn_bfs();
    checker.report(&mut listener);
    let (Progress { states, steps, depth, took }, runs) = listener.found.expect("a search reports once it is done");
    Found { states, steps, depth, took, runs }
}

struct Listener<P> {
    progress: P,
    found: Option<(Progress, BTreeMap<&'static str, Run>)>,
}

impl<P: FnMut(Progress)> Reporter<Protocol> for Listener<P> {
    fn report_checking(&mut self, data: ReportData) {
        let ReportData { total_states: steps, unique_states: states, max_depth: depth, duration: took, done } = data;
        let progress = Progress { states, steps, depth, took };
        match done {
            true => self.found = Some((progress, BTreeMap::new())),
            false => (self.progress)(progress),
        }
    }

    fn report_discoveries(&mut self, protocol: &Protocol, found: BTreeMap<&'static str, ReportDiscovery<Protocol>>) {
        let run = |discovery: ReportDiscovery<Protocol>| {
            let end = discovery.path.last_state().clone();
            Run { actions: discovery.path.into_actions(), end }
        };
        if let Some((_, runs)) = &mut self.found {
            runs.extend(found.into_iter().map(|(name, found)| (name, run(found).shortened(protocol, name))));
        }
    }

    /// So that a small search does not wait for its reporter.
    fn delay(&self) -> Duration {
        Duration::from_millis(50)
    }
}
