//! The world's short form: some seeds, those that once failed, the same seed twice, and faults planted on purpose.

use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_world")).args(arguments).output().expect("it can be started")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn line_of(output: &Output, begins: &str) -> String {
    said(output).lines().find(|line| line.starts_with(begins)).expect("it says so").to_owned()
}

#[test]
fn the_first_seeds_keep_all_promises_and_meet_every_kind_of_fault() {
    let output = run(&["run", "0..40"]);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn what_failed_once_fails_no_more() {
    for line in include_str!("../regressions.txt").lines().filter(|line| !line.starts_with('#')) {
        let (seed, why) = line.split_once(' ').expect("a seed and why");
        let output = run(&["replay", seed]);
        assert!(output.status.success(), "{why}: {}", said(&output));
    }
}

#[test]
fn a_seed_is_the_same_world_in_every_process() {
    for seed in ["7", "11", "12"] {
        let trace = || line_of(&run(&["replay", seed]), "trace");
        assert_eq!(trace(), trace());
    }
}

/// Says in which of so many seeds it was found at the latest.
fn is_found(planted: &str, within: u64) {
    let found = (0..within).any(|seed| !run(&["replay", &seed.to_string(), "--planted", planted]).status.success());
    assert!(found, "{planted} is not found within {within} seeds");
}

#[test]
fn a_store_without_a_fence_is_found_within_ten_seeds() {
    is_found("no-fence", 10);
}

#[test]
fn a_store_that_acknowledges_early_is_found_within_three_seeds() {
    is_found("acknowledged-early", 3);
}

#[test]
fn turns_without_keys_are_found_within_three_seeds() {
    is_found("no-keys", 3);
}

#[test]
fn a_takeover_without_the_partial_text_is_found_within_ten_seeds() {
    is_found("no-partial-text", 10);
}

#[test]
fn a_stream_that_repeats_is_found_within_three_seeds() {
    is_found("forgotten-marks", 3);
}

#[test]
fn unfinished_turns_without_rows_are_found_within_ten_seeds() {
    is_found("no-open-rows", 10);
}
