//! The world's short form: some seeds, those that once failed, the same seed twice, faults planted on purpose, a plan that
//! is cut down, and the scenarios.

use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};

use klatch_world::scenarios;

/// So many seeds are lived in every run of the tests.
const SEEDS: &str = "0..300";

/// So many are lived twice.
const TWICE: u64 = 50;

fn world(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_world")).args(arguments).output().expect("it can be started")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn line_of(output: &Output, begins: &str) -> String {
    said(output).lines().find(|line| line.starts_with(begins)).unwrap_or_else(|| panic!("{}", said(output))).to_owned()
}

#[test]
fn the_first_seeds_keep_all_promises_and_meet_every_kind_of_fault() {
    let output = world(&["run", SEEDS]);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn what_failed_once_fails_no_more() {
    for line in include_str!("../regressions.txt").lines().filter(|line| !line.starts_with('#')) {
        let (seed, why) = line.split_once(' ').expect("a seed and why");
        let output = world(&["replay", seed]);
        assert!(output.status.success(), "{why}: {}", said(&output));
    }
}

#[test]
fn a_seed_is_the_same_world_in_every_process() {
    let next = AtomicU64::new(0);
    let compare = || {
        loop {
            let seed = next.fetch_add(1, Ordering::SeqCst);
            if seed >= TWICE {
                return;
            }
            let trace = || line_of(&world(&["replay", &seed.to_string()]), "trace");
            assert_eq!(trace(), trace(), "seed {seed}");
        }
    };
    std::thread::scope(|scope| (0..2).for_each(|_| drop(scope.spawn(compare))));
}

#[test]
fn every_planted_fault_is_found_within_its_number_of_seeds() {
    let output = world(&["planted"]);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn a_plan_that_fails_is_cut_down_to_what_it_fails_of() {
    let output = world(&["shrink", "0", "--planted", "wrong-cursor", "--tries", "60"]);
    let last = said(&output).lines().last().expect("it says how to replay it").to_owned();
    let command = last.split_once(" -- ").and_then(|(_, rest)| rest.split_once("   # ")).expect("a command").0;
    let parts = command.split("--only=").nth(1).and_then(|rest| rest.split(' ').next()).expect("what stays");
    assert!(parts.split(',').filter(|part| !part.is_empty()).count() <= 4, "{last}");
    let again = world(&command.split(' ').collect::<Vec<_>>());
    assert!(!again.status.success(), "{}", said(&again));
}

#[test]
fn the_scenarios_keep_all_promises() {
    for (name, _) in scenarios::ALL {
        let output = world(&["run", "0..3", "--scenario", name]);
        assert!(output.status.success(), "{name}: {}", said(&output));
    }
}
