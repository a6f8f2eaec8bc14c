//! What the runtime counts. Names and label values stand here beside their descriptions; never labelled by
//! conversation or by user.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::conversation::decide::Found;
use crate::store::StoreError;

const ACTIVE: &str = "klatch_conversations_active";
const ACTIVATIONS: &str = "klatch_activations_total";
const CRASHES: &str = "klatch_conversation_crashes_total";
const APPENDS: &str = "klatch_appends_total";
const FENCED: &str = "klatch_fenced_writes_total";
const TURNS: &str = "klatch_turns_total";
const TURN_SECONDS: &str = "klatch_turn_duration_seconds";
const OPEN_TURNS: &str = "klatch_turns_open";

/// Says what each metric means; once, after the recorder is installed.
pub fn describe() {
    describe_gauge!(ACTIVE, "Conversations in this node's memory");
    describe_counter!(ACTIVATIONS, "Conversations taken into memory, by result: claimed, absent, failed");
    describe_counter!(CRASHES, "Conversations that panicked or failed; each costs its turn in flight at most");
    describe_counter!(APPENDS, "Appends to conversation logs, by result: ok, fenced, unknown, unavailable, damaged");
    describe_counter!(FENCED, "Appends that the store refused since another owner has claimed the conversation");
    describe_counter!(TURNS, "Turns that ended, by model and outcome: completed, incomplete, failed, cancelled");
    describe_histogram!(TURN_SECONDS, Unit::Seconds, "From the acceptance of a turn to its end, by model");
    describe_gauge!(OPEN_TURNS, "Turns accepted and not ended, on this node");
}

pub(crate) fn active_conversations(count: usize) {
    gauge!(ACTIVE).set(count as f64);
}

pub(crate) fn open_turns(count: usize) {
    gauge!(OPEN_TURNS).set(count as f64);
}

pub(crate) fn activated(found: &Result<Found, StoreError>) {
    let result = match found {
        Ok(Found::Claimed { .. }) => "claimed",
        Ok(Found::Absent) => "absent",
        Err(_) => "failed",
    };
    counter!(ACTIVATIONS, "result" => result).increment(1);
}

pub(crate) fn conversation_crashed() {
    counter!(CRASHES).increment(1);
}

pub(crate) fn appended(outcome: &Result<(), StoreError>) {
    let result = match outcome {
        Ok(()) => "ok",
        Err(StoreError::Fenced(_)) => "fenced",
        Err(StoreError::Unknown(_)) => "unknown",
        Err(StoreError::Unavailable(_)) => "unavailable",
        Err(StoreError::Damaged(_)) => "damaged",
    };
    counter!(APPENDS, "result" => result).increment(1);
    if matches!(outcome, Err(StoreError::Fenced(_))) {
        counter!(FENCED).increment(1);
    }
}

pub(crate) fn turn_over(model: String, outcome: &'static str, took_ms: u64) {
    histogram!(TURN_SECONDS, "model" => model.clone()).record(Duration::from_millis(took_ms));
    counter!(TURNS, "model" => model, "outcome" => outcome).increment(1);
}
