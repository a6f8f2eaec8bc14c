//! The wire's short form: some seeds, those that once failed, the same seed twice, and faults planted on purpose.

use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wire")).args(arguments).output().expect("it can be started")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn line_of(output: &Output, begins: &str) -> String {
    said(output).lines().find(|line| line.starts_with(begins)).expect("it says so").to_owned()
}

#[test]
fn the_first_seeds_keep_all_promises_and_meet_every_kind_of_fault() {
    let output = run(&["--seeds", "0..30", "--jobs", "2"]);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn what_failed_once_fails_no_more() {
    for line in include_str!("../regressions.txt").lines().filter(|line| !line.starts_with('#')) {
        let (seed, why) = line.split_once(' ').expect("a seed and why");
        let output = run(&["--seed", seed]);
        assert!(output.status.success(), "{why}: {}", said(&output));
    }
}

#[test]
fn a_seed_is_the_same_world_in_every_process() {
    for seed in ["3", "7", "11"] {
        let trace = || line_of(&run(&["--seed", seed]), "trace");
        assert_eq!(trace(), trace());
    }
}

/// Says in which of so many seeds it was found at the latest.
fn is_found(planted: &str, within: u64) {
    let found = (0..within).any(|seed| !run(&["--seed", &seed.to_string(), "--planted", planted]).status.success());
    assert!(found, "{planted} is not found within {within} seeds");
}

#[test]
fn an_answer_of_redis_to_another_request_is_found_within_three_seeds() {
    is_found("wrong-answer", 3);
}

#[test]
fn a_stream_that_is_resumed_one_event_late_is_found_within_three_seeds() {
    is_found("resumed-late", 3);
}

#[test]
fn what_a_peer_said_on_a_former_connection_is_found_within_twelve_seeds() {
    is_found("former-life", 12);
}

#[test]
fn a_replica_that_acknowledges_early_is_found_within_ten_seeds() {
    is_found("early-acknowledgement", 10);
}
