//! The webhooks' metrics: names, label values, descriptions. What is given up is counted by the conversations.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_histogram, histogram};

const ATTEMPTS: &str = "klatch_webhook_attempts_total";
const ATTEMPT_SECONDS: &str = "klatch_webhook_attempt_duration_seconds";
const DELAY_SECONDS: &str = "klatch_webhook_delay_seconds";

const RESULTS: [&str; 5] = ["heard", "refused", "timeout", "unreachable", "forbidden"];

/// How one call of a webhook ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Heard,
    Refused,
    Timeout,
    Unreachable,
    Forbidden,
}

/// Tells the recorder what each metric means.
pub(super) fn describe() {
    describe_counter!(
        ATTEMPTS,
        "Calls of webhooks, by result: heard, refused (any answer but 2xx), timeout, unreachable, forbidden (not a public address)"
    );
    describe_histogram!(ATTEMPT_SECONDS, Unit::Seconds, "Calls of webhooks, without the wait for a place");
    describe_histogram!(DELAY_SECONDS, Unit::Seconds, "From the end of a turn until a webhook heard of it");
    // A counter that appears with its first event hides that event.
    RESULTS.iter().for_each(|result| counter!(ATTEMPTS, "result" => *result).increment(0));
}

pub(super) fn attempted(outcome: Outcome, took: Duration) {
    let result = match outcome {
        Outcome::Heard => "heard",
        Outcome::Refused => "refused",
        Outcome::Timeout => "timeout",
        Outcome::Unreachable => "unreachable",
        Outcome::Forbidden => "forbidden",
    };
    counter!(ATTEMPTS, "result" => result).increment(1);
    histogram!(ATTEMPT_SECONDS).record(took);
}

pub(super) fn heard_after(delay: Duration) {
    histogram!(DELAY_SECONDS).record(delay);
}
