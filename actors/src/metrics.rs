//! What the runtime counts. Names and label values stand here beside their descriptions; never labelled by
//! conversation or by user.

use std::time::Duration;

use klatch_protocol::view::MemberStatus;
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::conversation::decide::Found;
use crate::membership::view::View;
use crate::request::{Answer, Refusal};
use crate::store::StoreError;

const ACTIVE: &str = "klatch_conversations_active";
const ACTIVATIONS: &str = "klatch_activations_total";
const CRASHES: &str = "klatch_conversation_crashes_total";
const APPENDS: &str = "klatch_appends_total";
const FENCED: &str = "klatch_fenced_writes_total";
const TURNS: &str = "klatch_turns_total";
const TURN_SECONDS: &str = "klatch_turn_duration_seconds";
const OPEN_TURNS: &str = "klatch_turns_open";
const FORWARDS: &str = "klatch_forwards_total";
const VIEW: &str = "klatch_view_number";
const MEMBERS: &str = "klatch_members";
const TABLE_SECONDS: &str = "klatch_view_table_duration_seconds";
const DECLARED_DEAD: &str = "klatch_declared_dead_total";

/// Says what each metric means; once, after the recorder is installed.
pub fn describe() {
    describe_gauge!(ACTIVE, "Conversations in this node's memory");
    describe_counter!(ACTIVATIONS, "Conversations taken into memory, by result: claimed, absent, failed");
    describe_counter!(CRASHES, "Conversations that panicked or failed; each costs its turn in flight at most");
    describe_counter!(APPENDS, "Appends to conversation logs, by result: ok, fenced, unknown, unavailable, damaged");
    describe_counter!(FENCED, "Appends that the store refused since another owner has claimed the conversation");
    describe_counter!(TURNS, "Turns that ended, by model and outcome: completed, incomplete, failed, cancelled");
    describe_histogram!(TURN_SECONDS, Unit::Seconds, "From the acceptance of a turn to its end, by model");
    describe_counter!(FORWARDS, "Requests passed on to other nodes, by result: answered, refused, moved, lost");
    describe_gauge!(VIEW, "Number of the view by which this node routes");
    describe_gauge!(MEMBERS, "Nodes in the view, by status: joining, up, leaving");
    describe_histogram!(TABLE_SECONDS, Unit::Seconds, "Round trips to the table of nodes, by result: ok, failed");
    describe_counter!(DECLARED_DEAD, "Times that this node found itself declared dead, and joined again");
    describe_gauge!(OPEN_TURNS, "Turns accepted and not ended, on this node");
}

pub(crate) fn active_conversations(count: usize) {
    gauge!(ACTIVE).set(count as f64);
}

pub(crate) fn open_turns(count: usize) {
    gauge!(OPEN_TURNS).set(count as f64);
}

pub(crate) fn forwarded(answer: &Result<Answer, Refusal>) {
    let result = match answer {
        Ok(_) => "answered",
        Err(Refusal::Moved | Refusal::Elsewhere { .. }) => "moved",
        Err(Refusal::Lost) => "lost",
        Err(_) => "refused",
    };
    counter!(FORWARDS, "result" => result).increment(1);
}

pub(crate) fn view(view: &View) {
    gauge!(VIEW).set(view.number() as f64);
    for (status, label) in
        [(MemberStatus::Joining, "joining"), (MemberStatus::Up, "up"), (MemberStatus::Leaving, "leaving")]
    {
        let count = view.members().values().filter(|member| member.status == status).count();
        gauge!(MEMBERS, "status" => label).set(count as f64);
    }
}

pub(crate) fn table_asked(took: Duration, well: bool) {
    histogram!(TABLE_SECONDS, "result" => if well { "ok" } else { "failed" }).record(took);
}

pub(crate) fn declared_dead() {
    counter!(DECLARED_DEAD).increment(1);
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
